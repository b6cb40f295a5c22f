//! What is refused, what commands are told, and how an application is held, let go and stopped, with real commands as
//! the user that runs the tests.

use serde_json::json;
use tempfile::TempDir;

use super::super::History;
use super::*;
use crate::base::{OsUser, SystemClock, SystemRandom};

/// Takes a job's log.
#[derive(Default)]
struct Log {
    lines: Vec<String>,
    warnings: Vec<String>,
    cancelled: bool,
}

impl Task for Log {
    fn step(&mut self, _name: &str) -> Result<()> {
        Ok(())
    }

    fn bytes(&mut self, _done: u64, _total: Option<u64>) {}

    fn log(&mut self, line: &str) {
        self.lines.push(line.to_owned());
    }

    fn warn(&mut self, line: &str) {
        self.warnings.push(line.to_owned());
    }

    fn check(&self) -> Result<()> {
        if self.cancelled { Err(Error::new(ErrorKind::Cancelled, "cancelled")) } else { Ok(()) }
    }
}

struct Bench {
    folder: TempDir,
    adapter: Commands,
    log: Log,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("volume")).unwrap();
        let adapter = Commands::new(Arc::new(SystemClock), Arc::new(SystemRandom));
        Self { folder, adapter, log: Log::default() }
    }

    fn instance(&self, commands: Value) -> Instance {
        let config = json!({
            "user": OsUser::current().name,
            "commands": commands,
            "time_limit_seconds": 60,
            "settings": {"LEVEL": "3"},
        });
        Instance {
            name: "app".into(),
            volume: self.folder.path().join("volume"),
            state: self.folder.path().join("state"),
            logs: None,
            port: 7001,
            config,
            secrets: Secrets::default(),
        }
    }

    fn volume(&self, name: &str) -> PathBuf {
        self.folder.path().join("volume").join(name)
    }
}

fn request(change: impl FnOnce(&mut Value)) -> Result<LinkPlan> {
    let mut request = json!({
        "name": "app",
        "port": 7001,
        "user": "nobody",
        "commands": {"quiesce": "touch lock", "thaw": "rm lock"},
    });
    change(&mut request);
    let adapter = Commands::new(Arc::new(SystemClock), Arc::new(SystemRandom));
    adapter.plan_link(&request, &Secrets::default())
}

#[test]
fn a_request_is_reviewed_or_refused_by_name() {
    let plan = request(|_| {}).unwrap();
    assert!(plan.review.contains(&("quiesce".to_owned(), "touch lock".to_owned())), "{plan:?}");
    assert!(plan.review.contains(&("start".to_owned(), "none".to_owned())), "{plan:?}");
    assert!(plan.warnings[0].contains("a VDB is a folder of files"), "{plan:?}");
    type Change = fn(&mut Value);
    let refused: [(Change, &str); 8] = [
        (|request| request["user"] = "root".into(), "do not run as root"),
        (|request| request["user"] = "nobody-at-all".into(), "no user nobody-at-all"),
        (|request| request["commands"]["quiesce"] = " ".into(), "--quiesce"),
        (|request| request["commands"]["start"] = "run".into(), "--stop"),
        (|request| request["commands"]["begin"] = "run".into(), "begin"),
        (|request| request["from"] = "/no/such/folder".into(), "/no/such/folder is no folder"),
        (|request| request["settings"] = json!({"STILLPOINT_JOB": "1"}), "STILLPOINT_JOB"),
        (|request| request["time_limit_seconds"] = 0.into(), "time_limit_seconds"),
    ];
    for (change, expected) in refused {
        let error = request(change).unwrap_err();
        assert!(error.message().contains(expected), "{expected}: {error}");
    }
}

#[test]
fn commands_are_told_where_and_who() {
    let mut bench = Bench::new();
    let instance = bench.instance(json!({
        "quiesce": "env | grep -E '^(STILLPOINT_[^H]|STAGING|VDB|LEVEL)' | sort >$STILLPOINT_FOLDER/told; echo held",
        "thaw": "rm $STILLPOINT_FOLDER/told",
    }));
    bench.adapter.quiesce(&instance, &mut bench.log).unwrap();
    let told = std::fs::read_to_string(bench.volume("told")).unwrap();
    let (volume, state) = (instance.volume.display(), instance.state.display());
    let expected = format!(
        "LEVEL=3\nSTAGING_DATABASE_NAME=app\nSTAGING_INSTANCE_HOST=127.0.0.1\nSTAGING_INSTANCE_PORT=7001\n\
         STAGING_MOUNT_BASE={volume}\nSTILLPOINT_DATASET=app\nSTILLPOINT_FOLDER={volume}\nSTILLPOINT_PORT=7001\n\
         STILLPOINT_ROLE=dsource\nSTILLPOINT_RUN={state}/run\n"
    );
    assert_eq!(told, expected);
    assert_eq!(bench.log.lines, ["quiesce: held"]);
    bench.adapter.thaw(&instance).unwrap();
    assert!(!bench.volume("told").exists());
    // A clone is told by the names of VDBs, and has its own settings beside its parent's.
    let options =
        VdbOptions { settings: BTreeMap::from([("MODE".into(), "test".into())]), ..VdbOptions::default() };
    let config = bench.adapter.plan_vdb(&instance.config, &Value::Null, &options).unwrap();
    let clone = Instance { config: config.clone(), name: "qa".into(), ..instance };
    let known = bench.adapter.connection(&clone);
    assert_eq!(known["VDB_MOUNT_BASE"], clone.volume.display().to_string());
    assert_eq!((known["VDB_DATABASE_NAME"].as_str(), known["VDB_INSTANCE_PORT"].as_str()), ("qa", "7001"));
    assert_eq!(config["settings"], json!({"LEVEL": "3", "MODE": "test"}));
}

#[test]
fn a_cancelled_job_ends_its_command() {
    let mut bench = Bench::new();
    let instance =
        bench.instance(json!({"quiesce": "sleep 100000", "thaw": "touch $STILLPOINT_FOLDER/thawed"}));
    bench.log.cancelled = true;
    let error = bench.adapter.quiesce(&instance, &mut bench.log).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    bench.adapter.thaw(&instance).unwrap();
    assert!(bench.volume("thawed").exists());
}

#[test]
fn an_application_is_started_once_seen_and_stopped_with_all_it_left() {
    let mut bench = Bench::new();
    // It forgets its child when it is told to stop.
    let instance = bench.instance(json!({
        "quiesce": "touch $STILLPOINT_FOLDER/quiesced",
        "thaw": "touch $STILLPOINT_FOLDER/thawed",
        "start": "echo started >>$STILLPOINT_FOLDER/starts
            setsid sh -c 'echo $$ >$STILLPOINT_RUN/pid; sleep 100000 & exec sleep 100000' >$STILLPOINT_RUN/log 2>&1 &
            until [ -s $STILLPOINT_RUN/pid ]; do :; done",
        "stop": "kill $(cat $STILLPOINT_RUN/pid)",
        "status": "grep -q sleep /proc/$(cat $STILLPOINT_RUN/pid)/cmdline",
    }));
    let instance = Instance { config: with_limit(instance.config.clone(), 1), ..instance };
    let seen = |bench: &Bench| bench.adapter.monitor(&instance).unwrap();
    assert_eq!((seen(&bench).running, seen(&bench).state), (false, "stopped".to_owned()));
    // Stopped, it is cut as it is: there is nobody to hold.
    let described = bench.adapter.quiesce(&instance, &mut bench.log).unwrap();
    assert_eq!(described.metadata["application"], "stopped");
    bench.adapter.thaw(&instance).unwrap();
    assert!(!bench.volume("quiesced").exists() && !bench.volume("thawed").exists());
    for _ in 0..2 {
        bench.adapter.start(&instance, &mut bench.log).unwrap();
    }
    assert_eq!(std::fs::read_to_string(bench.volume("starts")).unwrap(), "started\n");
    assert_eq!((seen(&bench).running, seen(&bench).state), (true, "running".to_owned()));
    bench.adapter.quiesce(&instance, &mut bench.log).unwrap();
    bench.adapter.thaw(&instance).unwrap();
    assert!(bench.volume("quiesced").exists() && bench.volume("thawed").exists());
    bench.adapter.stop(&instance, &mut bench.log).unwrap();
    assert_eq!(bench.log.warnings, ["1 processes of app did not stop and were ended by force"]);
    assert!(!seen(&bench).running);
    bench.adapter.stop(&instance, &mut bench.log).unwrap();
    // What an earlier daemon started is found by its state folder.
    bench.adapter.start(&instance, &mut bench.log).unwrap();
    let ended = bench.adapter.end_strays(bench.folder.path(), Path::new("/"), &[]).unwrap();
    assert_eq!(ended.len(), 2);
    assert!(!seen(&bench).running);
}

fn with_limit(mut config: Value, seconds: u32) -> Value {
    config["time_limit_seconds"] = seconds.into();
    config
}

#[test]
fn a_status_command_without_an_answer_starts_nothing() {
    let bench = Bench::new();
    let instance = bench.instance(json!({
        "quiesce": "true", "thaw": "true", "start": "false", "stop": "true", "status": "sleep 100000",
    }));
    let instance = Instance { config: with_limit(instance.config.clone(), 1), ..instance };
    let health = bench.adapter.monitor(&instance).unwrap();
    assert!(health.running);
    assert_eq!((health.state.as_str(), health.problems[0].code.as_str()), ("unknown", "STATUS_UNKNOWN"));
    // One that nobody starts here is told of, and not started.
    let watched = bench.instance(json!({"quiesce": "true", "thaw": "true", "status": "false"}));
    let health = bench.adapter.monitor(&watched).unwrap();
    assert!(health.running);
    assert_eq!(health.problems[0].code, "APPLICATION_DOWN");
}

#[test]
fn commands_and_variables_can_be_changed() {
    let bench = Bench::new();
    let instance = bench.instance(json!({"quiesce": "old", "thaw": "true", "status": "true"}));
    let plan = |change: Value| bench.adapter.plan_change(&instance, &change, ChangeKind::Settings);
    let changed = plan(json!({
        "commands": {"quiesce": "new", "status": ""},
        "settings": {"MODE": "test"},
        "unset": ["LEVEL"],
        "time_limit_seconds": 7,
    }));
    let config = changed.unwrap().config;
    assert_eq!(config["commands"], json!({"quiesce": "new", "thaw": "true"}));
    assert_eq!((&config["settings"], &config["time_limit_seconds"]), (&json!({"MODE": "test"}), &json!(7)));
    for (change, expected) in [
        (json!({"commands": {"thaw": ""}}), "has a thaw command"),
        (json!({"commands": {"begin": "x"}}), "no command begin"),
        (json!({"commands": {"start": "x"}}), "--stop"),
        (json!({"unset": ["MODE"]}), "no variable MODE"),
        (json!({"source": {"host": "db1"}}), "source"),
    ] {
        let error = plan(change).unwrap_err();
        assert!(error.message().contains(expected), "{expected}: {error}");
    }
    // It follows nothing that it could be detached from, or copied from again.
    assert_eq!(bench.adapter.detached(&instance).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(bench.adapter.plan_resync(&instance, &json!({})).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn there_are_no_points_in_time() {
    let bench = Bench::new();
    let instance = bench.instance(json!({"quiesce": "true", "thaw": "true"}));
    let history = History { instance: &instance, bases: Vec::new() };
    let error = bench.adapter.find_point(&history, &Target::Lsn("0/1".into())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("no points in time"), "{error}");
}
