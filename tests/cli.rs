//! The command line through the real binary: exit statuses, output, errors; with the store opened directly and
//! through a mount. Mounting needs root and /dev/fuse.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::{Fixture, Run, mounts_below, stillpoint};
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use stillpoint::base::{Random, StoreLock};

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[track_caller]
fn assert_has(value: &Value, expected: &[&str]) {
    for key in expected {
        assert!(keys(value).contains(key), "{key} is not in {value}");
    }
}

/// RFC 3339 with a numeric offset.
fn assert_time(value: &Value) {
    let text = value.as_str().unwrap();
    assert_eq!(text.len(), "2026-01-02T03:04:05.123456+00:00".len(), "{text}");
    let parsed: jiff::Timestamp = text.parse().unwrap();
    assert!(parsed.as_second() > 1_700_000_000, "{text}");
}

/// Everything that goes without looking at files, in either mode.
fn exercise(fixture: &Fixture) {
    let created = fixture.json(["volume", "create", "alpha"]);
    assert_eq!(created["name"], "alpha");
    fixture.run(["volume", "create", "alpha"]).fails_with(11, &["alpha"]);
    fixture.run(["volume", "show", "nobody"]).fails_with(10, &["nobody"]);

    let volumes = fixture.json(["volume", "list"]);
    let volume = &volumes.as_array().unwrap()[0];
    assert_has(volume, &["name", "origin", "created", "logical_bytes", "referenced_bytes", "unique_bytes"]);
    assert_time(&volume["created"]);

    let snapshot = fixture.json(["snapshot", "create", "alpha@one"]);
    assert_eq!((&snapshot["volume"], &snapshot["name"]), (&"alpha".into(), &"one".into()));
    fixture.run(["snapshot", "create", "alpha@one"]).fails_with(11, &["alpha@one"]);
    fixture.run(["snapshot", "create", "nobody@one"]).fails_with(10, &["nobody"]);
    fixture.run(["snapshot", "show", "alpha@two"]).fails_with(10, &["alpha@two"]);
    let held = fixture.json(["snapshot", "hold", "alpha@one", "--tag", "audit"]);
    assert_eq!(held["holds"], serde_json::json!(["audit"]));
    let snapshots = fixture.json(["snapshot", "list", "alpha"]);
    assert_has(
        &snapshots[0],
        &[
            "volume",
            "name",
            "origin",
            "created",
            "logical_bytes",
            "referenced_bytes",
            "unique_bytes",
            "holds",
        ],
    );
    assert_time(&snapshots[0]["created"]);
    fixture.run(["snapshot", "destroy", "alpha@one", "--yes"]).fails_with(11, &["audit"]);
    fixture.json(["snapshot", "release", "alpha@one", "--tag", "audit"]);

    let clone = fixture.json(["clone", "create", "alpha@one", "beta"]);
    assert_eq!(clone["origin"], "alpha@one");
    fixture.run(["clone", "create", "alpha@two", "gamma"]).fails_with(10, &["alpha@two"]);
    fixture.run(["clone", "create", "alpha@one", "beta"]).fails_with(11, &["beta"]);
    fixture.run(["snapshot", "destroy", "alpha@one", "--yes"]).fails_with(11, &["beta"]);
    fixture.run(["volume", "destroy", "alpha", "--yes"]).fails_with(11, &["alpha@one", "--with-snapshots"]);

    let renamed = fixture.json(["volume", "rename", "beta", "gamma"]);
    assert_eq!(renamed["name"], "gamma");
    let quota = fixture.json(["volume", "quota", "gamma", "--quota", "10GiB", "--reservation", "1MiB"]);
    assert_eq!(quota["quota_bytes"], 10_u64 << 30);
    assert_eq!(quota["reservation_bytes"], 1 << 20);
    let quota = fixture.json(["volume", "quota", "gamma", "--reservation", "none"]);
    assert_eq!(quota["quota_bytes"], 10_u64 << 30);
    assert_eq!(quota["reservation_bytes"], Value::Null);

    // Not confirmed: nothing changes.
    fixture.run(["volume", "destroy", "gamma"]).fails_with(13, &["--yes"]);
    let destroyed = fixture.json(["volume", "destroy", "gamma", "--yes"]);
    assert_eq!(destroyed["destroyed"], "gamma");
    fixture.run(["snapshot", "destroy", "alpha@one"]).fails_with(13, &["--yes"]);
    fixture.json(["snapshot", "destroy", "alpha@one", "-y"]);
    fixture.json(["snapshot", "create", "alpha@two"]);
    let destroyed = fixture.json(["volume", "destroy", "alpha", "--with-snapshots", "--yes"]);
    assert_eq!(destroyed["snapshots"], serde_json::json!(["alpha@two"]));
    assert_eq!(fixture.json(["volume", "list"]), serde_json::json!([]));

    let stats = fixture.json(["store", "stats"]);
    assert_has(
        &stats,
        &[
            "logical_bytes",
            "stored_bytes",
            "physical_bytes",
            "dedup_ratio",
            "compression_ratio",
            "journal_bytes",
            "segments",
            "free_bytes",
        ],
    );
    fixture.json(["store", "gc"]);
    assert_eq!(fixture.json(["store", "scrub"])["damaged"], 0);
    assert_eq!(fixture.json(["store", "check"])["findings"], serde_json::json!([]));
}

#[test]
fn commands_on_a_store_opened_directly() {
    let fixture = Fixture::new();
    exercise(&fixture);
    let status = fixture.json(["status"]);
    assert_eq!((&status["mounted"], &status["pid"]), (&false.into(), &Value::Null));
}

#[test]
fn commands_through_a_mount() {
    let fixture = Fixture::mounted();
    exercise(&fixture);
    let status = fixture.json(["status"]);
    assert_eq!(status["mounted"], true);
    assert_eq!(status["mounts"][0]["directory"], fixture.mount_path().to_str().unwrap());
    fixture.unmount();
    assert_eq!(fixture.json(["status"])["mounted"], false);
}

#[test]
fn usage_errors() {
    let fixture = Fixture::new();
    for arguments in [
        &["volume", "create", "a/b"][..],
        &["volume", "create", ".hidden"],
        &["snapshot", "create", "alpha"],
        &["snapshot", "create", "alpha@"],
        &["volume", "quota", "alpha", "--quota", "10GB"],
        &["no-such-noun"],
        &["volume", "list", "-o", "xml"],
    ] {
        fixture.run(arguments).fails_with(2, &["error"]);
    }
    Run::of(stillpoint().args(["volume", "list"])).fails_with(2, &["STILLPOINT_STORE"]);
    assert_eq!(Run::of(stillpoint().arg("--help")).status, 0);
    assert_eq!(Run::of(stillpoint().arg("--version")).status, 0);
    let completion = Run::of(stillpoint().args(["completion", "bash"]));
    assert!(completion.status == 0 && completion.stdout.contains("_stillpoint"), "{completion:?}");
}

#[test]
fn errors_are_json_when_asked_for() {
    let fixture = Fixture::new();
    let run = fixture.run(["volume", "show", "nobody", "-o", "json"]);
    run.fails_with(10, &[]);
    let error: Value = serde_json::from_str(&run.stderr).unwrap();
    assert_eq!(error["error"]["kind"], "not_found");
    assert!(error["error"]["message"].as_str().unwrap().contains("nobody"));
}

#[test]
fn stores_that_are_not_there_or_not_ours() {
    let fixture = Fixture::new();
    let store = fixture.store_path();
    Run::of(stillpoint().arg("init").arg(&store)).fails_with(11, &["not empty"]);
    let nowhere = fixture.path("nowhere");
    Run::of(stillpoint().args(["volume", "list", "--store"]).arg(&nowhere)).fails_with(10, &["nowhere"]);
    let empty = fixture.path("empty");
    fs::create_dir(&empty).unwrap();
    Run::of(stillpoint().args(["volume", "list", "--store"]).arg(&empty)).fails_with(10, &["empty"]);
    Run::of(stillpoint().arg("mount").arg(&empty).arg(fixture.mount_path())).fails_with(10, &["empty"]);
    Run::of(stillpoint().arg("unmount").arg(fixture.mount_path())).fails_with(10, &["mnt"]);
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
}

#[test]
fn a_held_store_names_its_holder() {
    let fixture = Fixture::new();
    let lock = StoreLock::acquire(&fixture.store_path(), "a test").unwrap();
    let pid = std::process::id().to_string();
    fixture.run(["volume", "list"]).fails_with(11, &[&pid, "a test"]);
    let mount = fixture.run([Path::new("mount"), &fixture.store_path(), &fixture.mount_path()]);
    mount.fails_with(11, &[&pid, "a test"]);
    drop(lock);
    fixture.ok(["volume", "list"]);
}

#[test]
fn volumes_and_snapshots_are_seen_in_the_mount() {
    let fixture = Fixture::mounted();
    let mnt = fixture.mount_path();
    fixture.ok(["volume", "create", "alpha"]);
    fs::write(mnt.join("alpha/file"), "before").unwrap();
    // Not synced: the snapshot holds it all the same.
    fixture.ok(["snapshot", "create", "alpha@one"]);
    fs::write(mnt.join("alpha/file"), "after").unwrap();
    assert_eq!(fs::read_to_string(mnt.join("alpha/.snapshots/one/file")).unwrap(), "before");
    fixture.ok(["clone", "create", "alpha@one", "beta"]);
    assert_eq!(fs::read_to_string(mnt.join("beta/file")).unwrap(), "before");
    fs::write(mnt.join("beta/file"), "clone").unwrap();
    assert_eq!(fs::read_to_string(mnt.join("alpha/file")).unwrap(), "after");
    fixture.ok(["volume", "rename", "beta", "gamma"]);
    assert!(!mnt.join("beta").exists());
    assert_eq!(fs::read_to_string(mnt.join("gamma/file")).unwrap(), "clone");

    let open = fs::File::open(mnt.join("gamma/file")).unwrap();
    fixture.run(["volume", "destroy", "gamma", "--yes"]).fails_with(11, &["gamma", "open"]);
    drop(open);
    // The kernel tells the mount of a close a moment after it returned.
    let destroyed = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        fixture.run(["volume", "destroy", "gamma", "--yes"]).status == 0
    });
    assert!(destroyed && !mnt.join("gamma").exists());

    fixture.unmount();
    fixture.mount();
    assert_eq!(fs::read_to_string(mnt.join("alpha/file")).unwrap(), "after");
    fixture.unmount();
    assert_eq!(fixture.json(["store", "check"])["findings"], serde_json::json!([]));
}

#[test]
fn what_a_list_calls_unique_comes_back() {
    const BYTES: u64 = 8 << 20;
    let fixture = Fixture::mounted();
    fixture.ok(["volume", "create", "alpha"]);
    let random = common::random("what_a_list_calls_unique_comes_back");
    let overwrite = || {
        let bytes: Vec<u8> = (0..BYTES / 8).flat_map(|_| random.next_u64().to_le_bytes()).collect();
        fs::write(fixture.mount_path().join("alpha/file"), bytes).unwrap();
    };
    overwrite();
    fixture.ok(["snapshot", "create", "alpha@one"]);
    overwrite();
    let number = |value: &Value, key: &str| value[key].as_u64().unwrap();
    let unique = number(&fixture.json(["snapshot", "show", "alpha@one"]), "unique_bytes");
    assert!((BYTES..BYTES * 105 / 100).contains(&unique), "{unique}");
    fixture.ok(["store", "gc"]);
    let before = number(&fixture.json(["store", "stats"]), "physical_bytes");
    let destroyed = fixture.json(["snapshot", "destroy", "alpha@one", "--yes"]);
    assert_eq!(number(&destroyed, "freed_bytes"), unique);
    fixture.ok(["store", "gc"]);
    let after = number(&fixture.json(["store", "stats"]), "physical_bytes");
    assert!(before - after > unique * 95 / 100, "{unique} unique, {before} before, {after} after");
    fixture.unmount();
    assert_eq!(fixture.json(["store", "check"])["findings"], serde_json::json!([]));
}

#[test]
fn a_volume_alone_beside_the_mount_of_all() {
    let fixture = Fixture::mounted();
    let alone = fixture.path("alone");
    fs::create_dir(&alone).unwrap();
    fixture.ok(["volume", "create", "alpha"]);
    fixture.ok([Path::new("volume"), Path::new("mount"), Path::new("alpha"), &alone]);
    fs::write(alone.join("file"), "text").unwrap();
    assert_eq!(fs::read_to_string(fixture.mount_path().join("alpha/file")).unwrap(), "text");
    let first = fixture.run([Path::new("unmount"), &fixture.mount_path()]);
    first.fails_with(11, &["alone"]);
    fixture.ok([Path::new("unmount"), &alone]);
    assert!(fixture.mounting_process().is_some());
    fixture.unmount();
    assert!(fixture.mounting_process().is_none());
}

#[test]
fn a_volume_alone_with_a_process_of_its_own() {
    let fixture = Fixture::new();
    fixture.ok(["volume", "create", "alpha"]);
    let missing =
        fixture.run([Path::new("volume"), Path::new("mount"), Path::new("nobody"), &fixture.mount_path()]);
    missing.fails_with(10, &["nobody"]);
    fixture.ok([Path::new("volume"), Path::new("mount"), Path::new("alpha"), &fixture.mount_path()]);
    fs::write(fixture.mount_path().join("file"), "text").unwrap();
    let mounts = fixture.json(["status"]);
    assert_eq!(mounts["mounts"][0]["volume"], "alpha");
    fixture.unmount();
    assert!(fixture.mounting_process().is_none());
    fixture.mount();
    assert_eq!(fs::read_to_string(fixture.mount_path().join("alpha/file")).unwrap(), "text");
}

#[test]
fn lists_end_with_what_all_takes_on_the_host() {
    let fixture = Fixture::new();
    fixture.ok(["volume", "create", "alpha"]);
    fixture.ok(["snapshot", "create", "alpha@one"]);
    for noun in ["volume", "snapshot"] {
        let run = fixture.run([noun, "list"]);
        let last = run.stdout.lines().last().unwrap_or_default();
        assert!(last.starts_with("in all 0 B logical, ") && last.ends_with(" physical"), "{run:?}");
        assert_eq!(fixture.json([noun, "list"]).as_array().unwrap().len(), 1);
    }
}

#[test]
fn origins_follow_a_rename() {
    let fixture = Fixture::new();
    fixture.ok(["volume", "create", "alpha"]);
    fixture.ok(["snapshot", "create", "alpha@one"]);
    fixture.ok(["clone", "create", "alpha@one", "beta"]);
    fixture.ok(["volume", "rename", "alpha", "omega"]);
    assert_eq!(fixture.json(["volume", "show", "beta"])["origin"], "omega@one");
    assert_eq!(fixture.json(["snapshot", "show", "omega@one"])["clones"][0], "beta");
}

#[test]
fn a_mount_in_use_stays() {
    let fixture = Fixture::mounted();
    fixture.ok(["volume", "create", "alpha"]);
    let open = fs::File::create(fixture.mount_path().join("alpha/file")).unwrap();
    let pid = std::process::id().to_string();
    fixture.run([Path::new("unmount"), &fixture.mount_path()]).fails_with(11, &["busy", &pid]);
    let second = fixture.run([Path::new("mount"), &fixture.store_path(), &fixture.path("elsewhere")]);
    second.fails_with(11, &["mounted already"]);
    drop(open);
    let unmounted = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        fixture.run([Path::new("unmount"), &fixture.mount_path()]).status == 0
    });
    assert!(unmounted);
}

#[test]
fn a_killed_mount_is_named_and_goes() {
    let fixture = Fixture::mounted();
    fixture.ok(["volume", "create", "alpha"]);
    fs::write(fixture.mount_path().join("alpha/file"), "text").unwrap();
    fs::File::open(fixture.mount_path().join("alpha/file")).unwrap().sync_all().unwrap();
    fixture.kill();
    let doctor = fixture.run(["doctor", "-o", "json"]);
    assert_eq!(doctor.status, 3, "{doctor:?}");
    assert!(doctor.stdout.contains("is dead"), "{doctor:?}");
    assert_eq!(fixture.json(["status"])["mounted"], false);
    fixture.unmount();
    assert_eq!(mounts_below(fixture.folder.path()).len(), 0);
    fixture.mount();
    assert_eq!(fs::read_to_string(fixture.mount_path().join("alpha/file")).unwrap(), "text");
}

#[test]
fn the_mounting_process_ends_in_order_on_a_signal_and_on_umount() {
    let fixture = Fixture::mounted();
    fixture.ok(["volume", "create", "alpha"]);
    fs::write(fixture.mount_path().join("alpha/file"), "text").unwrap();
    let end = |action: &dyn Fn(rustix::process::Pid)| {
        let pid = fixture.mounting_process().unwrap();
        let handle = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        action(pid);
        let mut ended = [rustix::event::PollFd::new(&handle, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut ended, None).unwrap();
        assert_eq!(mounts_below(fixture.folder.path()).len(), 0);
        assert!(!fixture.store_path().join("control.sock").exists());
        fixture.mount();
        assert_eq!(fs::read_to_string(fixture.mount_path().join("alpha/file")).unwrap(), "text");
    };
    end(&|pid| kill_process(pid, Signal::TERM).unwrap());
    end(&|_| {
        rustix::mount::unmount(fixture.mount_path(), rustix::mount::UnmountFlags::empty()).unwrap();
    });
}

#[test]
fn a_store_opened_read_only_takes_no_writes() {
    let fixture = Fixture::mounted();
    fixture.ok(["volume", "create", "alpha"]);
    fs::write(fixture.mount_path().join("alpha/file"), "text").unwrap();
    fixture.unmount();
    let (store, mnt) = (fixture.store_path(), fixture.mount_path());
    fixture.ok([Path::new("mount"), Path::new("--read-only"), &store, &mnt]);
    assert_eq!(fs::read_to_string(mnt.join("alpha/file")).unwrap(), "text");
    let refused = fs::write(mnt.join("alpha/file"), "other").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    fixture.run(["snapshot", "create", "alpha@one"]).fails_with(12, &["alpha"]);
    fixture.run(["volume", "create", "beta"]).fails_with(12, &["beta"]);
    let status = fixture.json(["status"]);
    assert_eq!(status["mounts"][0]["read_only"], true);
    assert!(status["requests"]["counts"]["lookup"].as_u64() > Some(0), "{status}");
    assert_eq!(status["requests"]["bytes_read"], 4);
    fixture.unmount();
}

#[test]
fn a_damaged_journal_refuses_the_store_but_for_rescue() {
    let fixture = Fixture::mounted();
    fixture.ok(["volume", "create", "alpha"]);
    fs::write(fixture.mount_path().join("alpha/file"), "text").unwrap();
    fixture.unmount();
    let (store, mnt) = (fixture.store_path(), fixture.mount_path());
    fs::OpenOptions::new().write(true).open(store.join("journal")).unwrap().write_all_at(b"?", 3).unwrap();
    fixture.run([Path::new("mount"), &store, &mnt]).fails_with(1, &["journal", "mount --rescue"]);
    let shown = fixture.json([Path::new("mount"), Path::new("--rescue"), &store, &mnt]);
    assert_eq!(fs::read_to_string(mnt.join("alpha/file")).unwrap(), "text");
    let log = fs::read_to_string(shown["missing"].as_str().unwrap()).unwrap();
    assert!(log.contains("journal"), "{log}");
    fixture.run(["volume", "create", "beta"]).fails_with(12, &["beta"]);
    fixture.unmount();
}

#[test]
fn a_lost_format_file_and_root_table_are_made_anew() {
    let fixture = Fixture::new();
    fixture.ok(["volume", "create", "alpha"]);
    let store = fixture.store_path();
    fs::write(store.join("format"), "?").unwrap();
    fs::remove_file(store.join("roots.redb")).unwrap();
    assert_eq!(fixture.json(["volume", "list"])[0]["name"], "alpha");
    assert!(fs::read_to_string(store.join("format")).unwrap().starts_with("Stillpoint store"));
    assert!(store.join("roots.redb").exists());
    assert_eq!(fixture.json(["store", "check"])["findings"].as_array().unwrap().len(), 0);
}

#[test]
fn a_mount_that_cannot_be_says_why() {
    let fixture = Fixture::new();
    let nowhere = fixture.path("nowhere");
    let run = fixture.run([Path::new("mount"), &fixture.store_path(), &nowhere]);
    assert!(run.status == 10 && run.stderr.contains("nowhere"), "{run:?}");
    assert!(fixture.mounting_process().is_none());
    // The failed attempt let go of the store.
    fixture.ok(["volume", "list"]);
}
