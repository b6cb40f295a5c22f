//! What a superuser of a VDB, a second daemon, a source that is gone and a stopped staging server must not spoil.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::common::Run;
use crate::common::postgres::give;
use crate::stage::Stage;

/// Asks a server as its superuser, by the engine's own way in: the socket, as root.
pub(crate) fn as_superuser(stage: &Stage, name: &str, sql: &str) -> Run {
    let port = stage.port(name);
    let instances = fs::read_dir(stage.state_path().join("instances")).unwrap().flatten();
    let folder = instances
        .map(|entry| entry.path().join("s"))
        .find(|folder| folder.join(format!(".s.PGSQL.{port}")).exists())
        .expect("the server has a socket");
    let mut psql = Command::new("psql");
    psql.arg("-h").arg(folder).args(["-p", &port.to_string(), "-U", "postgres", "-d", "postgres"]);
    Run::of(psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql]))
}

#[test]
fn a_superuser_of_a_vdb_reaches_nothing_of_the_hosts() {
    let stage = Stage::new();
    let run = stage.link("shop");
    assert_eq!(run.status, 0, "{run:?}\n{}", stage.daemon_log());
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    assert_eq!(as_superuser(&stage, "qa", "SELECT 1").stdout.trim(), "1");

    // The source's password is in another server's folder.
    let instances = fs::read_dir(stage.state_path().join("instances")).unwrap().flatten();
    let passfile: Vec<PathBuf> =
        instances.map(|entry| entry.path().join("passfile")).filter(|file| file.exists()).collect();
    assert_eq!(passfile.len(), 1);
    let read = format!("SELECT pg_read_file('{}')", passfile[0].display());
    as_superuser(&stage, "qa", &read).fails_with(1, &["No such file"]);
    // Nor can it write what is not its own.
    let victim = stage.fixture.path("victim");
    fs::create_dir(&victim).unwrap();
    give(&victim);
    fs::write(victim.join("kept"), "kept").unwrap();
    let write = format!("COPY (SELECT 1) TO '{}/new'", victim.display());
    as_superuser(&stage, "qa", &write).fails_with(1, &["Read-only file system"]);

    // Nor see, trace or end another server of the same user: for it there is none.
    let other = stage.json(["dsource", "show", "shop"])["health"]["pid"].to_string();
    let end = format!("COPY (SELECT 1) TO PROGRAM 'kill -0 {other}'");
    as_superuser(&stage, "qa", &end).fails_with(1, &["program \"kill -0"]);
    let look = stage.fixture.path("look.sh");
    fs::write(&look, "cat /proc/[0-9]*/cmdline | tr '\\000' '\\n' | grep ^/ | sort -u").unwrap();
    let seen = format!(
        "CREATE TEMP TABLE seen (word text); COPY seen FROM PROGRAM 'sh {}'; \
         SELECT word FROM seen WHERE word LIKE '{}%'",
        look.display(),
        stage.fixture.mount_path().display()
    );
    let seen = as_superuser(&stage, "qa", &seen);
    let own = format!("{}/qa.", stage.fixture.mount_path().display());
    let mine = seen.stdout.lines().filter(|line| line.starts_with(&own)).count();
    assert!(mine > 0 && mine == seen.stdout.lines().count(), "{seen:?}");

    // Links in its cluster, for root to follow when it makes a VDB of a snapshot.
    for (name, target) in [("pg_replslot", &victim), ("pg_wal/archive_status", &victim)] {
        let plant = format!("rm -rf {name} && ln -s {} {name}", target.display());
        let run = as_superuser(&stage, "qa", &format!("COPY (SELECT 1) TO PROGRAM '{plant}'"));
        assert_eq!(run.status, 0, "{run:?}");
    }
    stage.ok(["vdb", "snapshot", "qa"]);
    // Whether it starts is its superuser's affair.
    let _ = stage.run(["vdb", "provision", "--name", "child", "--from", "qa"]);
    assert_eq!(fs::read_to_string(victim.join("kept")).unwrap(), "kept");
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 1);
}

#[test]
fn a_second_daemon_harms_nobody() {
    let stage = Stage::new();
    let run = stage.link("shop");
    assert_eq!(run.status, 0, "{run:?}\n{}", stage.daemon_log());
    let before = stage.json(["dsource", "show", "shop"])["health"]["pid"].clone();
    let mount = stage.fixture.mount_path();
    let mount = mount.to_str().unwrap();
    stage.run(["daemon", "--mount", mount]).fails_with(11, &["in use by process"]);
    stage.run(["daemon", "--background", "--mount", mount]).fails_with(11, &["has the store"]);
    assert_eq!(stage.json(["dsource", "show", "shop"])["health"]["pid"], before);
    stage.ok(["dsource", "snapshot", "shop"]);
}

#[test]
fn a_stopped_staging_server_is_snapshotted_where_it_stopped() {
    let stage = Stage::new();
    let run = stage.link("shop");
    assert_eq!(run.status, 0, "{run:?}\n{}", stage.daemon_log());
    let load = stage.source.start_pgbench(2);
    stage.ok(["dsource", "snapshot", "shop"]);
    stage.ok(["dsource", "stop", "shop"]);
    drop(load);
    stage.ok(["dsource", "snapshot", "shop"]);
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    stage.assert_sums_agree(stage.port("qa"));
    stage.ok(["dsource", "start", "shop"]);
    stage.ok(["dsource", "snapshot", "shop"]);
    stage.ok(["vdb", "refresh", "qa"]);
    let there = stage.source.number("SELECT count(*) FROM pgbench_history");
    assert_eq!(stage.number(stage.port("qa"), "SELECT count(*) FROM pgbench_history"), there);
}

#[test]
fn undo_goes_back_the_way_it_came() {
    let stage = Stage::new();
    let run = stage.link("shop");
    assert_eq!(run.status, 0, "{run:?}\n{}", stage.daemon_log());
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    let port = stage.port("qa");
    stage.ask(port, "DELETE FROM pgbench_branches");
    stage.ok(["vdb", "refresh", "qa"]);
    stage.ok(["vdb", "undo", "qa"]);
    assert_eq!(stage.number(port, "SELECT count(*) FROM pgbench_branches"), 0);
    // The one it had before is left behind by the next refresh, not the one that was undone.
    stage.ok(["vdb", "refresh", "qa"]);
    assert_eq!(stage.number(port, "SELECT count(*) FROM pgbench_branches"), 1);
    stage.ok(["vdb", "undo", "qa"]);
    assert_eq!(stage.number(port, "SELECT count(*) FROM pgbench_branches"), 0);
}

#[test]
fn a_slot_on_a_source_that_is_gone_is_not_forgotten() {
    let stage = Stage::new();
    let run = stage.link("shop");
    assert_eq!(run.status, 0, "{run:?}\n{}", stage.daemon_log());
    stage.source.query("ALTER ROLE repl NOLOGIN");
    let run = stage.run(["dsource", "delete", "shop", "--yes"]);
    run.fails_with(12, &["replication slot stillpoint_shop", "stays on the source", "--force"]);
    assert_eq!(stage.json(["dsource", "list"])[0]["state"], "deleting");
    assert_eq!(stage.volumes().len(), 0);
    stage.stop_daemon();
    stage.start_daemon();
    assert_eq!((stage.slots(), stage.json(["dsource", "list"]).as_array().unwrap().len()), (1, 1));
    // It is taken away as soon as the source lets us in again.
    stage.source.query("ALTER ROLE repl LOGIN");
    stage.stop_daemon();
    stage.start_daemon();
    assert_eq!((stage.slots(), stage.json(["dsource", "list"]).as_array().unwrap().len()), (0, 0));

    let run = stage.link("shop");
    assert_eq!(run.status, 0, "{run:?}\n{}", stage.daemon_log());
    stage.source.query("ALTER ROLE repl NOLOGIN");
    let run = stage.run(["dsource", "delete", "shop", "--yes", "--force"]);
    assert_eq!(run.status, 3, "{run:?}");
    assert!(run.stdout.contains("replication slot stillpoint_shop"), "{run:?}");
    assert_eq!(stage.json(["dsource", "list"]).as_array().unwrap().len(), 0);
}
