//! pgbench on every file system in one run: load, select-only, read-write, and read-write under snapshots.
//!
//! One server runs at a time, and the file systems take turns within each repetition, so that all meet the same
//! machine.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stillpoint::bench::report::median;

use crate::budget::{Findings, figure};
use crate::filesystems::{BTRFS, FileSystem, HOST, KINDS, STILLPOINT, VOLUME};
use crate::machine::Resident;
use crate::postgres::{Installation, PgbenchRun};
use crate::setting::Setting;
use crate::stillpoint::Mounted;

pub const SECTION: &str = "pgbench";
const SNAPSHOT_EVERY: Duration = Duration::from_secs(5);
/// Seconds of select-only before it is measured, after the tables were read once.
const WARM_SECONDS: u64 = 3;

/// One file system's cluster and its figures, one per repetition.
struct Contender {
    file_system: FileSystem,
    data: PathBuf,
    load_seconds: Vec<f64>,
    read_only: Vec<PgbenchRun>,
    read_write: Vec<PgbenchRun>,
    with_snapshots: Vec<PgbenchRun>,
    resident: Resident,
}

pub fn run(setting: &Setting, installation: &Installation, findings: &mut Findings) -> anyhow::Result<()> {
    let mut contenders = Vec::new();
    for kind in KINDS {
        let wanted = &setting.arguments.file_systems;
        if !wanted.is_empty() && !wanted.iter().any(|label| label == kind.label()) {
            continue;
        }
        setting.say(&format!("setting up {}", kind.label()));
        match set_up(setting, installation, kind) {
            Ok(contender) => contenders.push(contender),
            Err(error) => {
                findings.gap(SECTION, format!("{}: {error:#}", kind.label()), kind.label() == STILLPOINT)
            }
        }
    }
    for turn in 0..setting.arguments.runs {
        for position in 0..contenders.len() {
            let index = (position + turn) % contenders.len();
            visit(setting, installation, &mut contenders[index], turn)?;
        }
    }
    for contender in &contenders {
        findings.note(SECTION, contender.line());
    }
    conclude(setting, &contenders, findings);
    Ok(())
}

fn set_up(
    setting: &Setting,
    installation: &Installation,
    kind: crate::filesystems::Kind,
) -> anyhow::Result<Contender> {
    let file_system = kind.set_up(setting)?;
    let data = installation.create_cluster(&file_system.directory)?;
    let server = installation.start(setting, &data, &[])?;
    server.create_database()?;
    server.stop();
    Ok(Contender {
        file_system,
        data,
        load_seconds: Vec::new(),
        read_only: Vec::new(),
        read_write: Vec::new(),
        with_snapshots: Vec::new(),
        resident: Resident::default(),
    })
}

/// One repetition on one file system.
fn visit(
    setting: &Setting,
    installation: &Installation,
    contender: &mut Contender,
    turn: usize,
) -> anyhow::Result<()> {
    let label = contender.file_system.label;
    let (clients, seconds) = (setting.arguments.clients, setting.arguments.seconds);
    let say = |what: &str| setting.say(&format!("{label}, repetition {}: {what}", turn + 1));
    // What the one before left to write back is not this one's burden.
    rustix::fs::sync();
    let server = installation.start(setting, &contender.data, &[])?;
    say("load");
    let ((), took) = setting.timed(|| server.load(setting.sizes.scale))?;
    contender.load_seconds.push(took.as_secs_f64());
    server.query("checkpoint")?;
    say("select-only");
    server.query("select count(*) from pgbench_accounts")?;
    server.pgbench(clients, WARM_SECONDS.min(seconds), &["--select-only"])?;
    contender.read_only.push(server.pgbench(clients, seconds, &["--select-only"])?);
    // With snapshots first in every second turn: what comes later meets a larger database.
    let snapshots_first = turn % 2 == 1;
    for snapshots in [snapshots_first, !snapshots_first] {
        let Some(mounted) = contender.file_system.mounted.as_ref().filter(|_| snapshots) else {
            if !snapshots {
                say("read-write");
                server.query("checkpoint")?;
                contender.read_write.push(server.pgbench(clients, seconds, &[])?);
            }
            continue;
        };
        say("read-write with snapshots");
        server.query("checkpoint")?;
        contender
            .with_snapshots
            .push(under_snapshots(setting, mounted, turn, || server.pgbench(clients, seconds, &[]))?);
    }
    server.stop();
    if let Some(mounted) = &contender.file_system.mounted {
        contender.resident = contender.resident.max(mounted.resident()?);
        // As `sync` does for the others: the next one is not to share the processors with our checkpoint.
        mounted.settle()?;
    }
    Ok(())
}

/// Does `work` while a snapshot is taken every five seconds; destroys the snapshots after.
fn under_snapshots<T>(
    setting: &Setting,
    mounted: &Mounted,
    turn: usize,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let done = AtomicBool::new(false);
    let (result, taken) = std::thread::scope(|scope| {
        let snapshots = scope.spawn(|| take_snapshots(setting, mounted, turn, &done));
        let result = work();
        done.store(true, Ordering::Release);
        (result, snapshots.join())
    });
    let taken = taken.map_err(|_| anyhow::anyhow!("the snapshot thread panicked"))??;
    for number in 0..taken {
        mounted.destroy_snapshot(VOLUME, &format!("t{turn}-{number}"))?;
    }
    result
}

fn take_snapshots(
    setting: &Setting,
    mounted: &Mounted,
    turn: usize,
    done: &AtomicBool,
) -> anyhow::Result<u32> {
    let mut next = setting.now() + SNAPSHOT_EVERY.min(setting.duration() / 2);
    let mut taken = 0;
    while !done.load(Ordering::Acquire) {
        if setting.now() < next {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        }
        mounted.create_snapshot(VOLUME, &format!("t{turn}-{taken}"))?;
        taken += 1;
        next += SNAPSHOT_EVERY;
    }
    Ok(taken)
}

impl Contender {
    fn load_median(&self) -> f64 {
        median(self.load_seconds.clone())
    }

    fn line(&self) -> String {
        let runs = |runs: &[PgbenchRun]| {
            let each: Vec<String> = runs.iter().map(|run| format!("{:.0}", run.tps)).collect();
            let latency = median(runs.iter().map(|run| run.latency_ms).collect());
            format!("{:.0} tps [{}], {latency:.2} ms", tps(runs), each.join(" "))
        };
        let mut line = format!(
            "{}: load {:.1} s; select-only {}; read-write {}",
            self.file_system.label,
            self.load_median(),
            runs(&self.read_only),
            runs(&self.read_write)
        );
        if !self.with_snapshots.is_empty() {
            line += &format!(
                "; with snapshots {}; mounting process at most {} MiB of its own, {} MiB with mapped files",
                runs(&self.with_snapshots),
                self.resident.anonymous >> 20,
                self.resident.total >> 20
            );
        }
        line
    }
}

fn tps(runs: &[PgbenchRun]) -> f64 {
    median(runs.iter().map(|run| run.tps).collect())
}

fn conclude(setting: &Setting, contenders: &[Contender], findings: &mut Findings) {
    let of = |label| contenders.iter().find(|contender| contender.file_system.label == label);
    let Some(ours) = of(STILLPOINT) else { return };
    let arguments = &setting.arguments;
    let how = format!(
        "medians of {} x {} s, scale {}, {} clients",
        arguments.runs, arguments.seconds, setting.sizes.scale, arguments.clients
    );
    let mut ratio = |id, ours: f64, theirs: f64, unit: &str| {
        let detail = format!("{} / {} {unit}, {how}", figure(ours), figure(theirs));
        findings.add(id, ours / theirs, detail);
    };
    if let Some(host) = of(HOST) {
        ratio("rw-ext4", tps(&ours.read_write), tps(&host.read_write), "tps");
        ratio("ro-ext4", tps(&ours.read_only), tps(&host.read_only), "tps");
        ratio("load", host.load_median(), ours.load_median(), "s");
    }
    if let Some(btrfs) = of(BTRFS) {
        ratio("rw-btrfs", tps(&ours.read_write), tps(&btrfs.read_write), "tps");
    }
    if !ours.with_snapshots.is_empty() {
        ratio("rw-snapshots", tps(&ours.with_snapshots), tps(&ours.read_write), "tps");
    }
    let kind = crate::filesystems::file_system_of(&setting.scratch).unwrap_or_default();
    findings.note(
        SECTION,
        format!(
            "\"ext4\" of the ratios is `host`: a folder of the host's own file system ({kind}), on which the store \
             and the images of the loop devices lie too"
        ),
    );
}
