//! SIGKILL of the mounting process at random moments: what was acknowledged is there afterwards.
//!
//! `STILLPOINT_KILLS` sets how many kills each test does. Needs root, /dev/fuse and PostgreSQL.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use common::postgres::{Server, make_cluster};
use common::{Fixture, random};
use stillpoint::base::Random;

const CLIENTS: u64 = 4;

fn kills() -> u64 {
    std::env::var("STILLPOINT_KILLS").map_or(5, |kills| kills.parse().expect("STILLPOINT_KILLS is a number"))
}

/// How far the clients of one round are.
#[derive(Default)]
struct Round {
    acknowledged: AtomicU64,
    ended: AtomicU64,
}

impl Round {
    /// Calls `step` until it fails.
    fn run(&self, mut step: impl FnMut() -> bool) {
        while step() {
            self.acknowledged.fetch_add(1, Ordering::SeqCst);
        }
        self.ended.fetch_add(1, Ordering::SeqCst);
    }

    /// Kills once a random number of steps was acknowledged: a moment that depends on no clock.
    fn kill(&self, fixture: &Fixture, random: &dyn Random) {
        let wanted = 20 + random.next_u64() % 400;
        while self.acknowledged.load(Ordering::SeqCst) < wanted {
            if self.ended.load(Ordering::SeqCst) > 0 {
                // Ends the other clients too, so that the failure is seen.
                fixture.kill();
                panic!("a client failed before the kill");
            }
            thread::sleep(Duration::from_micros(200));
        }
        fixture.kill();
    }
}

#[test]
fn acknowledged_commits_survive() {
    let fixture = Fixture::mounted();
    let random = random("acknowledged_commits_survive");
    fixture.ok(["volume", "create", "shop"]);
    let data = fixture.mount_path().join("shop/data");
    make_cluster(&data);
    let server = Server::start(&data);
    server.load_pgbench(1);
    server.query("CREATE TABLE acknowledged (client bigint, number bigint, PRIMARY KEY (client, number))");
    server.stop();

    let mut next = vec![0_u64; usize::try_from(CLIENTS).unwrap()];
    for kill in 0..kills() {
        let server = Server::start(&data);
        let pgbench = server.start_pgbench(2);
        let round = Round::default();
        thread::scope(|scope| {
            for (client, number) in (0_u64..).zip(next.iter_mut()) {
                let mut session = server.session();
                let round = &round;
                scope.spawn(move || {
                    // The statement that is not acknowledged may be there afterwards or not.
                    round.run(|| {
                        let insert = format!("INSERT INTO acknowledged VALUES ({client}, {number})");
                        let done = session.commit(&insert, "INSERT 0 1");
                        *number += u64::from(done);
                        done
                    });
                });
            }
            round.kill(&fixture, &random);
            drop(pgbench);
            server.abort();
        });

        fixture.unmount();
        fixture.mount();
        let server = Server::start(&data);
        for (client, number) in (0_u64..).zip(next.iter_mut()) {
            let found = server.query(&format!(
                "SELECT count(*), coalesce(max(number) + 1, 0) FROM acknowledged WHERE client = {client}"
            ));
            let (count, end) = found.split_once('|').unwrap();
            let (count, end): (u64, u64) = (count.parse().unwrap(), end.parse().unwrap());
            assert!(
                count == end && (*number..=*number + 1).contains(&end),
                "kill {kill}, client {client}: {number} acknowledged, {count} found up to {end}"
            );
            *number = end;
        }
        server.assert_sums_agree();
        server.stop();
    }
    let acknowledged: u64 = next.iter().sum();
    println!("{} kills, {acknowledged} acknowledged commits, none lost", kills());
    fixture.unmount();
    assert_eq!(fixture.json(["store", "check"])["findings"], serde_json::json!([]));
}

/// What one writer of files knows to be durable.
struct Writer {
    folder: PathBuf,
    /// Records of the log that fdatasync acknowledged.
    records: u64,
    /// Files that were renamed into place and whose folder was synced.
    files: Vec<u64>,
    /// Files whose removal was acknowledged the same way.
    removed: Vec<u64>,
    next: u64,
}

const RECORD_BYTES: usize = 1000;

/// The only contents record or file `number` ever has.
fn contents(number: u64, bytes: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut text = Vec::with_capacity(bytes);
    while text.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.extend_from_slice(&state.to_le_bytes());
    }
    text.truncate(bytes);
    text
}

fn file_bytes(number: u64) -> usize {
    usize::try_from(number * 7919 % 50_000).unwrap()
}

impl Writer {
    fn new(folder: PathBuf) -> Self {
        fs::create_dir(&folder).unwrap();
        File::create(folder.join("log")).unwrap().sync_all().unwrap();
        sync(&folder).unwrap();
        Self { folder, records: 0, files: Vec::new(), removed: Vec::new(), next: 0 }
    }

    fn step(&mut self) -> std::io::Result<()> {
        let log = OpenOptions::new().write(true).open(self.folder.join("log"))?;
        let offset = self.records * u64::try_from(RECORD_BYTES).unwrap();
        log.write_all_at(&contents(self.records, RECORD_BYTES), offset)?;
        log.sync_data()?;
        self.records += 1;

        let number = self.next;
        self.next += 1;
        let temporary = self.folder.join("temporary");
        let mut file = File::create(&temporary)?;
        file.write_all(&contents(number, file_bytes(number)))?;
        file.sync_all()?;
        fs::rename(&temporary, self.file(number))?;
        sync(&self.folder)?;
        self.files.push(number);

        if number % 3 == 2 {
            let victim = self.files.remove(self.files.len() / 2);
            // From here on it may be there or not, until the folder is synced.
            fs::remove_file(self.file(victim))?;
            sync(&self.folder)?;
            self.removed.push(victim);
        }
        Ok(())
    }

    fn file(&self, number: u64) -> PathBuf {
        self.folder.join(format!("file-{number}"))
    }

    fn verify(&self) {
        let log = fs::read(self.folder.join("log")).unwrap();
        for record in 0..self.records {
            let start = usize::try_from(record).unwrap() * RECORD_BYTES;
            let found = log.get(start..start + RECORD_BYTES);
            assert_eq!(found, Some(&contents(record, RECORD_BYTES)[..]), "record {record}");
        }
        for &number in &self.files {
            let found = fs::read(self.file(number)).unwrap();
            assert!(found == contents(number, file_bytes(number)), "file {number}");
        }
        for &number in &self.removed {
            assert!(!self.file(number).exists(), "file {number} is back");
        }
    }
}

fn sync(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

#[test]
fn acknowledged_files_survive() {
    let fixture = Fixture::mounted();
    let random = random("acknowledged_files_survive");
    fixture.ok(["volume", "create", "files"]);
    let root = fixture.mount_path().join("files");
    let mut writers: Vec<Writer> =
        (0..CLIENTS).map(|client| Writer::new(root.join(format!("writer-{client}")))).collect();
    sync(&root).unwrap();
    for kill in 0..kills() {
        let round = Round::default();
        thread::scope(|scope| {
            for writer in &mut writers {
                let round = &round;
                scope.spawn(move || round.run(|| writer.step().is_ok()));
            }
            // A snapshot in some rounds, so that kills meet its commit path and its frozen layers as well.
            if kill % 2 == 1 {
                fixture.ok(["snapshot", "create", &format!("files@kill-{kill}")]);
            }
            round.kill(&fixture, &random);
        });
        fixture.unmount();
        assert_eq!(fixture.json(["store", "check"])["findings"], serde_json::json!([]), "kill {kill}");
        fixture.mount();
        for writer in &writers {
            writer.verify();
        }
    }
}
