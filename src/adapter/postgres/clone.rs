//! Making a clone of a cluster's files a database of its own.
//!
//! Nothing of it ever connects to, archives for or holds a slot on the source.

use std::collections::BTreeMap;

use super::super::{Target, Task};
use super::conf::{self, Purpose};
use super::config::{Metadata, Mode, TABLESPACES_FOLDER};
use super::files::prepare;
use super::lsn::{Lsn, SegmentSize, WalFileName};
use super::server::Server;
use super::snapshot::SHUT_DOWN_IN_RECOVERY;
use super::sql::{Sql, quote};
use crate::base::{Error, ErrorKind, Result};

/// Turns the files of a clone into a database and starts it; returns when it can be written.
pub(super) fn provision(
    server: &Server<'_>,
    metadata: &Metadata,
    target: &Target,
    task: &mut dyn Task,
) -> Result<()> {
    if *target != Target::Snapshot {
        return Err(Error::new(ErrorKind::Unsupported, "only what a snapshot holds can be provisioned"));
    }
    task.step("prepare the files")?;
    prepare(server, "clean", &[], "")?;
    prepare(server, "slots", &[], "")?;
    place_tablespaces(server)?;
    // A standby's files end where its source went on: they become a primary's by recovery to an exact point and a
    // timeline of their own. A primary's recover by themselves.
    let of_standby = metadata.mode == Mode::PausedStandby || metadata.cluster_state == SHUT_DOWN_IN_RECOVERY;
    if of_standby {
        end_wal(server, metadata)?;
        write_recovery(server)?;
    } else {
        conf::write(server, &Purpose { recovery: BTreeMap::new(), keep_limits: true, closed: true })?;
    }
    task.step("recover")?;
    server.start(task, &mut |sql| Ok(sql.text("SELECT pg_is_in_recovery()")? == "f"))?;
    task.step("cut off from the outside")?;
    quiet(server, task)?;
    // The next start needs none of the recovery's settings.
    conf::write(server, &Purpose { recovery: BTreeMap::new(), keep_limits: false, closed: false })
}

/// Takes away the WAL behind the record at which replay stood: the receiver had written on. Recovery then ends there
/// because nothing follows. A target would not do: `immediate` is not met when that record is the last one, and
/// its own position is not told.
fn end_wal(server: &Server<'_>, metadata: &Metadata) -> Result<()> {
    let end: Lsn = metadata.replay_lsn.parse()?;
    let needed: Lsn = metadata.minimum_recovery_lsn.parse()?;
    if end < needed {
        return Err(Error::corrupt(format!(
            "the snapshot's records disagree: it stood at {end}, and its files need WAL up to {needed}"
        )));
    }
    let size = SegmentSize::new(metadata.segment_bytes)
        .ok_or_else(|| Error::corrupt(format!("{} is no size of a WAL segment", metadata.segment_bytes)))?;
    let folder = server.data().join("pg_wal");
    let shown = folder.display().to_string();
    for entry in std::fs::read_dir(&folder).map_err(|e| Error::io("read", &shown, e))? {
        let name = entry.map_err(|e| Error::io("read", &shown, e))?.file_name();
        let Some(WalFileName::Segment(segment)) = name.to_str().and_then(WalFileName::parse) else {
            continue;
        };
        let Some(start) = segment.start(size) else { continue };
        let kept = end.bytes_since(start).unwrap_or(0);
        if kept < size.bytes() {
            let (kept, length) = (kept.to_string(), size.bytes().to_string());
            prepare(server, "cut", &[&segment.to_string(), &kept, &length], "")?;
        }
    }
    Ok(())
}

/// Recovery up to the end of the WAL in the cluster's own folder, and on from there on a timeline of its own.
fn write_recovery(server: &Server<'_>) -> Result<()> {
    let recovery = BTreeMap::from([("restore_command".to_owned(), "false".to_owned())]);
    if server.config.major >= 12 {
        conf::write(server, &Purpose { recovery, keep_limits: true, closed: true })?;
        return prepare(server, "put", &["recovery.signal"], "").map(drop);
    }
    conf::write(server, &Purpose { recovery: BTreeMap::new(), keep_limits: true, closed: true })?;
    prepare(server, "put", &["recovery.conf"], "restore_command = 'false'\n").map(drop)
}

/// The tablespaces of a clone are folders of its own volume.
fn place_tablespaces(server: &Server<'_>) -> Result<()> {
    let tablespaces = server.instance.volume.join(TABLESPACES_FOLDER);
    prepare(server, "tablespaces", &[&tablespaces.display().to_string()], "").map(drop)
}

/// Starts a database on a clone of one that was provisioned and shut down.
pub(super) fn adopt(server: &Server<'_>, task: &mut dyn Task) -> Result<()> {
    place_tablespaces(server)?;
    start(server, task)
}

/// Starts a VDB that was provisioned before.
pub(super) fn start(server: &Server<'_>, task: &mut dyn Task) -> Result<()> {
    conf::write(server, &Purpose { recovery: BTreeMap::new(), keep_limits: false, closed: false })?;
    server.start(task, &mut |sql| Ok(sql.text("SELECT pg_is_in_recovery()")? == "f"))
}

/// Ends what the copied databases would do outside: subscriptions are switched off and let go of their slots,
/// transactions that wait for a commit from elsewhere are rolled back.
fn quiet(server: &Server<'_>, task: &mut dyn Task) -> Result<()> {
    let sql = server.connect("postgres")?;
    let names = sql.rows("SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1")?;
    let waiting = sql.rows("SELECT gid, database FROM pg_prepared_xacts")?;
    let subscriptions = sql
        .rows("SELECT d.datname, s.subname FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid")?;
    for name in names.into_iter().flatten().flatten() {
        let of_it = |rows: &[Vec<Option<String>>], database: usize, value: usize| -> Vec<String> {
            let mine = rows
                .iter()
                .filter(|row| row.get(database).is_some_and(|found| found.as_deref() == Some(&*name)));
            mine.filter_map(|row| row.get(value).cloned().flatten()).collect()
        };
        let (gids, subs) = (of_it(&waiting, 1, 0), of_it(&subscriptions, 0, 1));
        if gids.is_empty() && subs.is_empty() {
            continue;
        }
        let own = server.connect(&name)?;
        for gid in gids {
            own.rows(&format!("ROLLBACK PREPARED {}", quote(&gid)))?;
            task.log(&format!("database {name}: prepared transaction {gid} rolled back"));
        }
        for sub in subs {
            switch_off(&own, &sub)?;
            task.log(&format!("database {name}: subscription {sub} switched off"));
        }
    }
    Ok(())
}

fn switch_off(sql: &Sql, subscription: &str) -> Result<()> {
    let name = format!("\"{}\"", subscription.replace('"', "\"\""));
    sql.rows(&format!("ALTER SUBSCRIPTION {name} DISABLE"))?;
    sql.rows(&format!("ALTER SUBSCRIPTION {name} SET (slot_name = NONE)"))?;
    Ok(())
}
