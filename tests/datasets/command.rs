//! Applications with commands of their own: held for a snapshot, let go on every path, cloned and run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::{Fixture, Run};

/// Counts in two files, one after the other with a pause in between; a lock holds it where both agree. Killed in between, it
/// makes them agree at its next start.
const COUNTER: &str = r#"
folder=$1 run=$2
[ ! -e "$folder/a" ] || { cp "$folder/a" "$folder/b.new" && mv "$folder/b.new" "$folder/b"; }
n=$(tail -n 1 "$folder/a" 2>/dev/null)
n=${n:-0}
while :; do
    while [ -e "$run/lock" ]; do cp "$run/lock" "$run/held"; sleep 0.01; done
    n=$((n + 1))
    echo $n >>"$folder/a"
    sleep 0.05
    echo $n >>"$folder/b"
done
"#;
const QUIESCE: &str = r#"
cd "$STILLPOINT_RUN"
echo "$STILLPOINT_HOOK_RUN" >lock.new
mv lock.new lock
until cmp -s lock held; do sleep 0.01; done
"#;
const THAW: &str = r#"rm -f "$STILLPOINT_RUN/lock""#;
const START: &str = r#"
setsid /bin/sh "$COUNTER" "$STILLPOINT_FOLDER" "$STILLPOINT_RUN" >"$STILLPOINT_RUN/log" 2>&1 &
echo $! >"$STILLPOINT_RUN/pid"
"#;
const STOP: &str = r#"kill "$(cat "$STILLPOINT_RUN/pid")""#;
const STATUS: &str = r#"grep -q counter "/proc/$(cat "$STILLPOINT_RUN/pid")/cmdline""#;
/// Does as the file that `CONTROL` names says; `thaw` counts, so that no kill takes it back.
const TOLD: &str = r#"
touch "$STILLPOINT_FOLDER/holding"
case $(cat "$CONTROL") in
fail) echo "no room to hold"; exit 3 ;;
hang) sleep 100000 ;;
esac
"#;
const COUNT: &str = r#"
[ "$(cat "$CONTROL")" != stay ] || { echo "cannot let go"; exit 4; }
rm -f "$STILLPOINT_FOLDER/holding"; cd "$STILLPOINT_FOLDER"; echo thawed >>thaws; sync thaws
"#;

/// A daemon without a database.
struct Bench {
    fixture: Fixture,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { fixture: Fixture::new() };
        bench.start_daemon();
        bench
    }

    fn state(&self) -> PathBuf {
        self.fixture.path("state")
    }

    fn start_daemon(&self) {
        let mount = self.fixture.mount_path();
        self.ok(["daemon", "--background", "--mount", mount.to_str().unwrap()]);
    }

    /// One that runs a single job at a time.
    fn with_one_worker() -> Self {
        let bench = Self { fixture: Fixture::new() };
        let mount = bench.fixture.mount_path();
        bench.ok(["daemon", "--background", "--mount", mount.to_str().unwrap(), "--jobs-max", "1"]);
        bench
    }

    fn stop_daemon(&self) {
        self.fixture.end();
    }

    fn run(&self, arguments: &[&str]) -> Run {
        Run::of(self.fixture.command(arguments).env("STILLPOINT_STATE", self.state()))
    }

    #[track_caller]
    fn ok<const N: usize>(&self, arguments: [&str; N]) -> String {
        let run = self.run(&arguments);
        let log = fs::read_to_string(self.fixture.store_path().join("daemon.log")).unwrap_or_default();
        assert_eq!(run.status, 0, "{run:?}\n{log}");
        run.stdout
    }

    fn link(&self, name: &str, more: &[&str]) -> Run {
        let words = ["dsource", "link", "command", "--name", name, "--user", "nobody"];
        self.run(&[&words, more].concat())
    }

    #[track_caller]
    fn link_counter(&self, name: &str) {
        let counter = self.fixture.path("counter");
        fs::write(&counter, COUNTER).unwrap();
        let seed = self.fixture.path("seed");
        fs::create_dir_all(seed.join("below")).unwrap();
        fs::write(seed.join("below/file"), "from before").unwrap();
        let variable = format!("COUNTER={}", counter.display());
        let words = [
            ["--quiesce", QUIESCE],
            ["--thaw", THAW],
            ["--start", START],
            ["--stop", STOP],
            ["--status", STATUS],
            ["--from", seed.to_str().unwrap()],
            ["--set", &variable],
        ];
        let run = self.link(name, words.as_flattened());
        assert_eq!(run.status, 0, "{run:?}");
    }

    /// An application that is not run here, whose quiesce does as it is told.
    #[track_caller]
    fn link_told(&self, name: &str, time_limit: &str) {
        self.tell("go");
        let variable = format!("CONTROL={}", self.fixture.path("control").display());
        let words =
            ["--quiesce", TOLD, "--thaw", COUNT, "--time-limit", time_limit, "--set", variable.as_str()];
        let run = self.link(name, &words);
        assert_eq!(run.status, 0, "{run:?}");
    }

    fn tell(&self, word: &str) {
        fs::write(self.fixture.path("control"), word).unwrap();
    }

    /// Starts a snapshot that stays in its quiesce, and returns the folder once it is there.
    fn hang(&self, name: &str) -> PathBuf {
        self.tell("hang");
        self.ok(["dsource", "snapshot", name, "--no-wait"]);
        let folder = self.folder(name);
        while !folder.join("holding").exists() {
            std::thread::yield_now();
        }
        folder
    }

    fn show(&self, name: &str) -> Value {
        self.fixture.json(["vdb", "show", name])
    }

    /// Where the files of a dataset are now.
    fn folder(&self, name: &str) -> PathBuf {
        self.fixture.mount_path().join(self.show(name)["volume"].as_str().unwrap())
    }

    fn snapshots(&self, name: &str) -> Vec<String> {
        let list = self.fixture.json(["timeflow", "list", name]);
        let names = list.as_array().unwrap().iter().map(|row| row["snapshot"].as_str().unwrap().to_owned());
        names.map(|name| name.split_once('@').unwrap().1.to_owned()).collect()
    }

    fn thaws(&self, name: &str) -> usize {
        fs::read_to_string(self.folder(name).join("thaws")).unwrap_or_default().lines().count()
    }

    /// The processes that the commands of this test's datasets started.
    fn processes(&self) -> Vec<i32> {
        let mark = format!("STILLPOINT_RUN={}/", self.state().display()).into_bytes();
        let numbers = fs::read_dir("/proc").unwrap().flatten();
        let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let ours = |number: &i32| {
            let environment = fs::read(format!("/proc/{number}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(&mark))
        };
        numbers.filter(ours).collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if self.fixture.mounting_process().is_some() {
            self.stop_daemon();
        }
        for number in self.processes() {
            if let Some(pid) = rustix::process::Pid::from_raw(number) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// The last number in a file that may be written at this moment.
fn last(path: &Path) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
    whole.lines().last().map_or(0, |line| line.parse().unwrap())
}

#[track_caller]
fn assert_agree(folder: &Path) -> u64 {
    let [a, b] = ["a", "b"].map(|name| fs::read_to_string(folder.join(name)).unwrap_or_default());
    assert_eq!(a, b, "{}", folder.display());
    last(&folder.join("a"))
}

/// Waits until an application has counted on.
fn wait_for_more(folder: &Path) -> u64 {
    let before = last(&folder.join("b"));
    while last(&folder.join("b")) <= before + 1 {
        std::thread::yield_now();
    }
    last(&folder.join("b"))
}

#[test]
fn an_application_that_writes_is_held_cut_and_cloned() {
    use std::os::unix::fs::MetadataExt;

    let bench = Bench::new();
    bench.link_counter("app");
    let folder = bench.folder("app");
    assert_eq!(fs::read_to_string(folder.join("below/file")).unwrap(), "from before");
    assert_ne!(fs::metadata(&folder).unwrap().uid(), 0);
    for _ in 0..5 {
        wait_for_more(&folder);
        bench.ok(["dsource", "snapshot", "app"]);
    }
    let cuts: BTreeSet<u64> = bench
        .snapshots("app")
        .iter()
        .map(|name| assert_agree(&folder.join(".snapshots").join(name)))
        .collect();
    assert_eq!(cuts.len(), 6, "each snapshot holds more than the one before: {cuts:?}");

    // A VDB has files and processes of its own, and goes on counting where the snapshot was.
    bench.ok(["vdb", "provision", "--name", "qa", "--from", "app"]);
    let vdb = bench.folder("qa");
    assert!(wait_for_more(&vdb) > *cuts.last().unwrap());
    assert_ne!(bench.show("qa")["port"], bench.show("app")["port"]);
    assert!(bench.ok(["vdb", "env", "qa"]).contains(&format!("VDB_MOUNT_BASE='{}'", vdb.display())));
    assert!(bench.show("qa")["log_volume"].is_null());
    bench.ok(["dsource", "stop", "app"]);
    let stands = last(&folder.join("a"));
    wait_for_more(&vdb);
    assert_eq!(last(&folder.join("a")), stands);

    // A stopped one is cut without being held.
    bench.ok(["dsource", "snapshot", "app"]);
    bench.ok(["vdb", "refresh", "qa"]);
    assert!(wait_for_more(&bench.folder("qa")) > stands);
    bench.ok(["vdb", "undo", "qa"]);
    assert_eq!(bench.folder("qa"), vdb);
    wait_for_more(&vdb);

    bench
        .run(&["vdb", "provision", "--name", "then", "--from", "app", "--time", "2026-11-21T10:00:00Z"])
        .fails_with(13, &["app", "no points in time", "timeflow list"]);
    let snapshot = format!("app@{}", bench.snapshots("app")[0]);
    bench.run(&["timeflow", "verify", &snapshot]).fails_with(13, &["command", "no checks of its own"]);
    bench.run(&["vdb", "psql", "qa"]).fails_with(13, &["no PostgreSQL"]);
    bench.run(&["dsource", "detach", "app"]).fails_with(13, &["app", "no source"]);
    let exported = bench.fixture.path("exported");
    bench.ok(["vdb", "export", "qa", "--to", exported.to_str().unwrap()]);
    assert!(assert_agree(&exported) > stands);
    assert_eq!(fs::read_to_string(exported.join("below/file")).unwrap(), "from before");

    // In order: what ran runs again, what was stopped does not.
    bench.stop_daemon();
    assert_eq!(bench.processes(), Vec::<i32>::new());
    bench.start_daemon();
    wait_for_more(&vdb);
    assert_eq!(bench.show("app")["state"], "stopped");
    // Killed: nothing of it is left, and it is there again.
    bench.fixture.kill();
    let left = bench.processes();
    bench.start_daemon();
    wait_for_more(&vdb);
    assert!(bench.processes().iter().all(|number| !left.contains(number)));

    // A new first copy begins where the copied folder is.
    bench.ok(["dsource", "resync", "app"]);
    assert_ne!(bench.folder("app"), folder);
    wait_for_more(&bench.folder("app"));
    assert!(fs::read_to_string(bench.folder("app").join("a")).unwrap().starts_with("1\n"));

    bench.ok(["vdb", "delete", "qa", "--yes"]);
    bench.ok(["dsource", "delete", "app", "--yes"]);
    assert_eq!(bench.processes(), Vec::<i32>::new());
    assert_eq!(bench.fixture.json(["volume", "list"]), serde_json::json!([]));
}

#[test]
fn a_quiesce_that_fails_or_hangs_is_thawed_and_leaves_no_snapshot() {
    let bench = Bench::new();
    bench.link_told("app", "1");
    assert_eq!((bench.thaws("app"), bench.snapshots("app").len()), (1, 1));
    bench.tell("fail");
    bench.run(&["dsource", "snapshot", "app"]).fails_with(1, &["quiesce", "status 3", "no room to hold"]);
    assert_eq!((bench.thaws("app"), bench.snapshots("app").len()), (2, 1));
    bench.tell("hang");
    bench.run(&["dsource", "snapshot", "app"]).fails_with(1, &["quiesce", "time limit of 1 s"]);
    assert_eq!((bench.thaws("app"), bench.snapshots("app").len()), (3, 1));
    assert_eq!(bench.processes(), Vec::<i32>::new());
    bench.tell("go");
    bench.ok(["dsource", "snapshot", "app"]);
    assert_eq!((bench.thaws("app"), bench.snapshots("app").len()), (4, 2));
    bench.ok(["dsource", "configure", "app", "--quiesce", "exit 9"]);
    bench.run(&["dsource", "snapshot", "app"]).fails_with(1, &["quiesce", "status 9"]);
    assert_eq!((bench.thaws("app"), bench.snapshots("app").len()), (5, 2));
    let told = bench.link("other", &["--quiesce", "true", "--thaw", "true", "--dry-run"]);
    assert_eq!(told.status, 0, "{told:?}");
    assert!(told.stdout.contains("a VDB is a folder of files"), "{told:?}");
    bench.link("other", &["--quiesce", "true"]).fails_with(2, &["--thaw"]);
}

#[test]
fn what_a_killed_daemon_held_is_let_go() {
    let bench = Bench::new();
    bench.link_told("app", "3600");
    let folder = bench.hang("app");
    bench.fixture.kill();
    bench.start_daemon();
    assert_eq!((bench.thaws("app"), bench.snapshots("app").len()), (2, 1));
    assert!(!folder.join("holding").exists());
    assert_eq!(bench.processes(), Vec::<i32>::new());
    bench.tell("go");
    bench.ok(["dsource", "snapshot", "app"]);
    assert_eq!((bench.thaws("app"), bench.snapshots("app").len()), (3, 2));
}

#[test]
fn a_thaw_that_fails_is_a_fault_and_tried_again() {
    let bench = Bench::new();
    bench.link_told("app", "10");
    bench.tell("stay");
    let run = bench.run(&["dsource", "snapshot", "app"]);
    assert_eq!(run.status, 3, "{run:?}");
    assert!(run.stdout.contains("could not be let go on") && run.stdout.contains("cannot let go"), "{run:?}");
    assert_eq!(bench.snapshots("app").len(), 2, "the cut is good");
    let held = || {
        let faults = bench.show("app")["faults"].clone();
        faults.as_array().unwrap().iter().any(|fault| fault["code"] == "THAW_FAILED")
    };
    while !held() {
        std::thread::yield_now();
    }
    bench.tell("go");
    while held() {
        std::thread::yield_now();
    }
    assert_eq!(bench.thaws("app"), 2);
}

#[test]
fn a_job_cancelled_before_it_begins_leaves_nothing() {
    let bench = Bench::with_one_worker();
    bench.link_told("app", "3600");
    bench.hang("app");
    bench.ok(["vdb", "provision", "--name", "qa", "--from", "app", "--no-wait"]);
    assert_eq!(bench.show("qa")["state"], "creating");
    let queued = |kind: &str| {
        let jobs = bench.fixture.json(["job", "list"]);
        let found = jobs.as_array().unwrap().iter().find(|job| job["kind"] == kind).cloned();
        found.unwrap()["id"].to_string()
    };
    let (provision, snapshot) = (queued("DB_PROVISION"), queued("DB_SNAPSHOT"));
    // Each waits for its job's end, and the second one's is the first to come.
    let mut asked = bench.fixture.command(["job", "cancel", &provision]).spawn().unwrap();
    while bench.fixture.json(["job", "show", &provision])["cancel_requested"] != true {
        std::thread::yield_now();
    }
    bench.ok(["job", "cancel", &snapshot]);
    asked.wait().unwrap();
    assert_eq!(bench.fixture.json(["job", "show", &provision])["status"], "cancelled");
    bench.run(&["vdb", "show", "qa"]).fails_with(10, &["qa"]);
    assert_eq!(bench.fixture.json(["volume", "list"]).as_array().unwrap().len(), 1);
    bench.tell("go");
    bench.ok(["vdb", "provision", "--name", "qa", "--from", "app"]);
}
