//! What the store takes: a database, the same restored again, the same with 1 % of its rows changed, and 1 % of
//! a clone's pages overwritten at random.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use stillpoint::bench::{Fill, PageGenerator, Sequence};

use crate::budget::{Findings, figure};
use crate::postgres::Installation;
use crate::scan::write_file;
use crate::setting::{Setting, logical_bytes};
use crate::stillpoint::Mounted;

pub const RESTORE: &str = "restore";
pub const UPDATE: &str = "update";
const PAGE_BYTES: u64 = 8192;

/// Base backups of one server into volumes of a new store.
pub fn restore(
    setting: &Setting,
    installation: &Installation,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let folder = setting.fresh_folder("restore")?;
    let data = installation.create_cluster(&folder)?;
    let server = installation.start(setting, &data, &["wal_level=replica", "max_wal_senders=4"])?;
    server.create_database()?;
    setting.say("restore: loading the database on the host's file system");
    server.load(setting.sizes.scale)?;
    let mounted = Mounted::create(setting, &folder)?;
    let grown = |name: &str| {
        setting.say(&format!("restore: base backup into volume {name}"));
        let volume = mounted.create_volume(name)?;
        let before = mounted.taken()?;
        let copy = server.base_backup(&volume)?;
        anyhow::Ok((logical_bytes(&copy)? as f64, mounted.taken()?.since(before)))
    };
    let (size, first) = grown("first")?;
    let (_, second) = grown("second")?;
    server.query("update pgbench_accounts set abalance = abalance + 1 where aid % 100 = 0")?;
    server.query("checkpoint")?;
    let (changed_size, changed) = grown("changed")?;
    let mib = |bytes: f64| figure(bytes / f64::from(1 << 20));
    findings.add(
        "ratio",
        size / first,
        format!(
            "base backup, scale {}: {} MiB logical, {} MiB in segments",
            setting.sizes.scale,
            mib(size),
            mib(first)
        ),
    );
    findings.add(
        "restore",
        second / size * 100.0,
        format!("second pg_basebackup of {} MiB into another volume added {} MiB", mib(size), mib(second)),
    );
    findings.note(
        RESTORE,
        format!(
            "a third backup of {} MiB, after every hundredth row was updated (each on another page, so about half of \
             all pages), added {} MiB",
            mib(changed_size),
            mib(changed)
        ),
    );
    server.stop();
    mounted.unmount(setting)
}

/// Overwrites of single pages in a clone, with bytes that do not compress, so that nothing hides the overhead.
pub fn update(setting: &Setting, _: &Installation, findings: &mut Findings) -> anyhow::Result<()> {
    let mounted = Mounted::create(setting, &setting.fresh_folder("update")?)?;
    let volume = mounted.create_volume("base")?;
    setting.say("update: writing the file");
    write_file(setting, &volume.join("file"), 1)?;
    mounted.create_snapshot("base", "s")?;
    let mut figures = Vec::new();
    for (name, fill) in [("random", Fill::Random), ("database", Fill::Database)] {
        let clone = mounted.create_clone("base", "s", name)?;
        let before = mounted.taken()?;
        let file = OpenOptions::new().write(true).open(clone.join("file"))?;
        let total = setting.sizes.file_bytes / PAGE_BYTES;
        let mut pages = PageGenerator::new(fill, 77);
        let mut sequence = Sequence::new(78);
        let mut chosen = std::collections::BTreeSet::new();
        while (chosen.len() as u64) < total / 100 {
            chosen.insert(sequence.below(total));
        }
        let mut page = [0; PAGE_BYTES as usize];
        for number in &chosen {
            pages.fill(&mut page);
            file.write_all_at(&page, number * PAGE_BYTES)?;
        }
        file.sync_all()?;
        let changed = chosen.len() as f64 * PAGE_BYTES as f64;
        figures.push((changed, mounted.taken()?.since(before)));
    }
    let (changed, stored) = figures[0];
    findings.add(
        "update",
        stored / changed,
        format!(
            "{} pages of a file of {} MiB, incompressible content; with database-like content {}",
            (changed / PAGE_BYTES as f64) as u64,
            setting.sizes.file_bytes >> 20,
            figure(figures[1].1 / figures[1].0)
        ),
    );
    mounted.unmount(setting)
}
