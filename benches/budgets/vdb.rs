//! A writable database from a snapshot of one under load: how soon it answers, and what disk it takes.

use std::path::Path;

use stillpoint::bench::report::median;

use crate::budget::{Findings, figure};
use crate::postgres::{Installation, Server, VDB_SETTINGS, make_independent};
use crate::setting::{Setting, logical_bytes};
use crate::stillpoint::Mounted;

pub const SECTION: &str = "vdb";
const SOURCE: &str = "source";
/// The first query a user would ask: it reads a table of the loaded database.
const FIRST_QUERY: &str = "select count(*) from pgbench_branches";
/// Seconds of load before the first snapshot.
const LOAD_AHEAD: u64 = 5;

pub fn run(setting: &Setting, installation: &Installation, findings: &mut Findings) -> anyhow::Result<()> {
    let mounted = Mounted::create(setting, &setting.fresh_folder("vdb")?)?;
    let volume = mounted.create_volume(SOURCE)?;
    let data = installation.create_cluster(&volume)?;
    let server = installation.start(setting, &data, &[])?;
    server.create_database()?;
    setting.say("vdb: loading the source");
    server.load(setting.sizes.vdb_scale)?;
    start_under_load(setting, installation, &mounted, &server, findings)?;
    disk_taken(setting, installation, &mounted, &server, findings)?;
    server.stop();
    mounted.unmount(setting)
}

/// Takes snapshots while pgbench runs and times each from the clone command to the first answer.
fn start_under_load(
    setting: &Setting,
    installation: &Installation,
    mounted: &Mounted,
    server: &Server,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let size = logical_bytes(&server.data)?;
    let (mut totals, mut snapshots, mut clones) = (Vec::new(), Vec::new(), Vec::new());
    let longest = 60 + 30 * setting.arguments.runs as u64;
    let load = server.pgbench_beside(setting, setting.arguments.clients, longest)?;
    std::thread::sleep(std::time::Duration::from_secs(LOAD_AHEAD.min(setting.arguments.seconds)));
    for turn in 0..setting.arguments.runs {
        setting.say(&format!("vdb: repetition {} under load", turn + 1));
        let (snapshot, clone) = (format!("s{turn}"), format!("vdb{turn}"));
        // What quiescing a database does before its snapshot; the redo of a VDB begins here.
        server.query("checkpoint")?;
        let ((), took) = setting.timed(|| mounted.create_snapshot(SOURCE, &snapshot))?;
        snapshots.push(took.as_secs_f64() * 1e3);
        let begun = setting.now();
        let volume = mounted.create_clone(SOURCE, &snapshot, &clone)?;
        clones.push((setting.now() - begun).as_secs_f64() * 1e3);
        let vdb = start_vdb(setting, installation, &volume)?;
        totals.push((setting.now() - begun).as_secs_f64());
        vdb.stop();
        mounted.destroy_volume(&clone)?;
        mounted.destroy_snapshot(SOURCE, &snapshot)?;
    }
    drop(load);
    let each: Vec<String> = totals.iter().map(|seconds| format!("{seconds:.2}")).collect();
    findings.add(
        "vdb-start",
        median(totals),
        format!(
            "[{}] s from the clone command to the answer of `{FIRST_QUERY}`, source of {} MiB under pgbench with {} \
             clients; of it the clone command {} ms; the snapshot command before it {} ms",
            each.join(" "),
            size >> 20,
            setting.arguments.clients,
            figure(median(clones)),
            figure(median(snapshots))
        ),
    );
    Ok(())
}

/// Starts a VDB on a clone's volume and waits for its first answer.
fn start_vdb(setting: &Setting, installation: &Installation, volume: &Path) -> anyhow::Result<Server> {
    let data = volume.join("data");
    make_independent(&data)?;
    let vdb = installation.launch(setting, &data, &VDB_SETTINGS)?;
    vdb.wait_for_answer(setting, "select 1")?;
    vdb.query(FIRST_QUERY)?;
    Ok(vdb)
}

/// Bytes the store grows by when a VDB starts, answers, and has checkpointed once.
fn disk_taken(
    setting: &Setting,
    installation: &Installation,
    mounted: &Mounted,
    server: &Server,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    setting.say("vdb: disk taken");
    server.query("checkpoint")?;
    mounted.create_snapshot(SOURCE, "still")?;
    let (before, host_before) = (mounted.taken()?, mounted.host_bytes()?);
    let volume = mounted.create_clone(SOURCE, "still", "fresh")?;
    let vdb = start_vdb(setting, installation, &volume)?;
    vdb.query("checkpoint")?;
    let (after, host_after) = (mounted.taken()?, mounted.host_bytes()?);
    vdb.stop();
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    findings.add(
        "vdb-disk",
        mib(after.since(before)),
        format!(
            "growth of the segments' bytes; by the host's count of the whole store folder {} MiB",
            figure(mib(host_after as f64 - host_before as f64))
        ),
    );
    mounted.destroy_volume("fresh")?;
    mounted.destroy_snapshot(SOURCE, "still")
}
