//! A real standby that is fed by our restore command: files that are late, missing, cut off, of another place, and damaged
//! inside; and a chain that mends itself. Needs PostgreSQL.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::postgres::{Server, give, make_cluster};
use stillpoint::adapter::postgres::backup::{FileOwner, ingest};
use stillpoint::adapter::postgres::restore::{ChainVerdict, RestoreConfig, look, restore};
use stillpoint::base::SystemClock;
use tempfile::TempDir;

const LOOK: Duration = Duration::from_millis(20);
const LOOKS_MAX: usize = 3000;
const GRACE_SECONDS: u64 = 2;

/// Asks the test and ends as it says: PostgreSQL's user cannot enter where the test's program lies.
const ASK: &str = r#"#!/bin/sh
asked=$1/$$
printf '%s\n%s\n%s\n' "$2" "$PWD/$3" "$4" > "$asked.new" && mv "$asked.new" "$asked.ask"
while ! test -e "$asked.done"; do sleep 0.02; done
status=$(cat "$asked.done") && rm "$asked.done"
exit "$status"
"#;

struct World {
    folder: TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("stillpoint-wal-").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let world = Self { folder };
        for name in ["archive", "wal", "asked", "backup"] {
            fs::create_dir(world.path(name)).unwrap();
            give(&world.path(name));
        }
        fs::write(world.path("ask"), ASK).unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A source that archives, and a backup of it.
    fn start_source(&self) -> Server {
        let data = self.path("source");
        make_cluster(&data);
        let archive = self.path("archive");
        let settings = format!(
            "archive_mode = on\narchive_command = 'cp %p {0}/%f.new && mv {0}/%f.new {0}/%f'\n",
            archive.display()
        );
        append(&data.join("postgresql.conf"), &settings);
        let source = Server::start(&data);
        source.query("CREATE TABLE rows (id int)");
        let backup = source
            .client("pg_basebackup")
            .args(["-Ft", "-z", "-Xs", "-c", "fast", "-D"])
            .arg(self.path("backup"))
            .output()
            .unwrap();
        assert!(backup.status.success(), "{backup:?}");
        source
    }

    /// Rows in a segment of their own; its name, when it has been archived.
    fn add_segment(&self, source: &Server) -> String {
        source.query("INSERT INTO rows SELECT generate_series(1, 1000)");
        let name = source.query("SELECT pg_walfile_name(pg_switch_wal())");
        wait(|| self.path("archive").join(&name).exists(), || format!("{name} is archived"));
        name
    }

    /// Puts the backup in place and says how it is fed.
    fn prepare_staging(&self) -> RestoreConfig {
        let owner = self.path("source").metadata().unwrap();
        let owner = FileOwner { uid: owner.uid(), gid: owner.gid() };
        let data = self.path("staging");
        let made =
            ingest(&self.path("backup"), &data, &self.path("spaces"), owner, &mut |_, _| Ok(())).unwrap();
        let settings = format!(
            "restore_command = 'sh {} {} %f %p %r'\nwal_retrieve_retry_interval = 200ms\narchive_mode = off\n",
            self.path("ask").display(),
            self.path("asked").display()
        );
        append(&data.join("postgresql.auto.conf"), &settings);
        fs::write(data.join("standby.signal"), "").unwrap();
        give(&data.join("standby.signal"));
        RestoreConfig {
            wal_directory: self.path("wal"),
            state_file: self.path("state.json"),
            system_id: made.system_id,
            major: made.major,
            segment_size: made.segment_size,
            grace_seconds: GRACE_SECONDS,
        }
    }

    /// Puts a file of the archive, changed, where staging looks for it.
    fn supply(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.path("archive").join(name)).unwrap();
        change(&mut bytes);
        let new = self.path("wal").join(".new");
        fs::write(&new, bytes).unwrap();
        fs::rename(new, self.path("wal").join(name)).unwrap();
    }

    /// Answers what the standby asks, until it is told to stop.
    fn answer(&self, config: &RestoreConfig, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            for entry in fs::read_dir(self.path("asked")).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_none_or(|ending| ending != "ask") {
                    continue;
                }
                let text = fs::read_to_string(&path).unwrap();
                let lines: Vec<&str> = text.lines().collect();
                let destination = Path::new(lines[1]);
                let result = restore(config, lines[0], destination, lines[2], &SystemClock);
                if destination.exists() {
                    give(destination);
                }
                fs::remove_file(&path).unwrap();
                let (new, done) = (path.with_extension("answer"), path.with_extension("done"));
                fs::write(&new, result.exit_code().to_string()).unwrap();
                fs::rename(new, done).unwrap();
            }
            thread::sleep(LOOK);
        }
    }
}

fn append(path: &Path, text: &str) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[track_caller]
fn wait(mut done: impl FnMut() -> bool, what: impl Fn() -> String) {
    for _ in 0..LOOKS_MAX {
        if done() {
            return;
        }
        thread::sleep(LOOK);
    }
    panic!("never: {}", what());
}

/// The verdict when it has this code, which it must get.
#[track_caller]
fn verdict(config: &RestoreConfig, code: &str) -> ChainVerdict {
    let now = || look(config, None, &SystemClock).unwrap();
    wait(|| now().code() == code, || format!("{code}: {:?}", now()));
    now()
}

#[track_caller]
fn breaks(config: &RestoreConfig, file: &str, words: &str) {
    let verdict = verdict(config, "broken");
    let said = verdict.to_string();
    assert!(said.contains(file) && said.contains(words), "{said}");
}

/// Stops the answering when the test ends, also by a panic.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_chain_of_files_breaks_with_the_right_words_and_mends_itself() {
    let world = World::new();
    let source = world.start_source();
    let names: Vec<String> = (0..7).map(|_| world.add_segment(&source)).collect();
    let config = world.prepare_staging();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| world.answer(&config, &stop));
        let _stop = Stop(&stop);
        let staging = Server::start(&world.path("staging"));
        let replayed = |segments: i64| {
            let count = || staging.number("SELECT count(*) FROM rows");
            wait(|| count() == segments * 1000, || format!("{segments} segments: {} rows", count()));
        };
        assert_eq!(staging.query("SELECT pg_is_in_recovery()"), "t");
        verdict(&config, "waiting");
        // The backup's own last segment may be asked for again.
        for name in fs::read_dir(world.path("archive")).unwrap() {
            let name = name.unwrap().file_name().into_string().unwrap();
            if name < names[0] {
                world.supply(&name, |_| ());
            }
        }
        world.supply(&names[0], |_| ());
        replayed(1);

        world.supply(&names[2], |_| ());
        breaks(&config, &names[1], "is missing in");
        world.supply(&names[1], |_| ());
        replayed(3);

        world.supply(&names[3], |bytes| bytes.truncate(1 << 20));
        breaks(&config, &names[3], "has 1048576 bytes");
        world.supply(&names[3], |bytes| bytes.resize((16 << 20) + 1, 0));
        breaks(&config, &names[3], "or more where a segment has");
        world.supply(&names[3], |_| ());
        replayed(4);

        fs::copy(world.path("archive").join(&names[5]), world.path("wal").join(&names[4])).unwrap();
        breaks(&config, &names[4], "it is another segment under this name");
        world.supply(&names[4], |bytes| bytes[24] ^= 1);
        breaks(&config, &names[4], "another cluster");
        world.supply(&names[4], |_| ());
        replayed(5);

        world.supply(&names[5], |bytes| bytes[3000] ^= 1);
        breaks(&config, &names[5], "a record in it is damaged");
        world.supply(&names[5], |_| ());
        replayed(6);

        world.supply(&names[6], |_| ());
        replayed(7);
        verdict(&config, "waiting");
        staging.stop();
    });
    source.stop();
}
