//! Recovery of a clone's files: to the end of what a snapshot holds, or on to a point in time by the WAL that was kept.
//!
//! The WAL lies in a folder of the clone's own volume while it recovers: links to kept segments, copies of what the
//! parent's cluster still has, and a copy that is cut where the end is to be.

use std::collections::BTreeMap;

use super::super::Task;
use super::conf::{self, Purpose};
use super::config::{Metadata, Mode};
use super::files::{Readers, make_folder, prepare};
use super::logs;
use super::lsn::{Lsn, SegmentName, SegmentSize, WalFileName};
use super::point::{RESTORE_POINT_SETTING, Until};
use super::server::Server;
use super::snapshot::SHUT_DOWN_IN_RECOVERY;
use crate::base::{Error, ErrorKind, Result};

/// Relative to the cluster's folder, where recovery runs.
const FETCHED: &str = "../wal";
const FETCHED_FOLDER: &str = "wal";
const OWN: &str = "pg_wal";
/// What recovery says when a target was not met: from version 13 on it then ends with this.
const NOT_REACHED: &str = "recovery ended before configured recovery target was reached";
/// What it says when one was met.
const REACHED: &str = "recovery stopping ";

/// Recovers to exactly what the snapshot holds.
pub(super) fn to_snapshot(server: &Server<'_>, metadata: &Metadata, task: &mut dyn Task) -> Result<()> {
    // A standby's files end where its source went on: they become a primary's by recovery to an exact point and a
    // timeline of their own. A primary's recover by themselves.
    let of_standby = metadata.mode == Mode::PausedStandby || metadata.cluster_state == SHUT_DOWN_IN_RECOVERY;
    if of_standby {
        let end: Lsn = metadata.replay_lsn.parse()?;
        let needed: Lsn = metadata.minimum_recovery_lsn.parse()?;
        if end < needed {
            return Err(Error::corrupt(format!(
                "the snapshot's records disagree: it stood at {end}, and its files need WAL up to {needed}"
            )));
        }
        end_wal(server, OWN, end, segment_size(metadata)?)?;
        write_recovery(server, "false", BTreeMap::new())?;
    } else {
        conf::write(server, &Purpose { recovery: BTreeMap::new(), keep_limits: true, closed: true })?;
    }
    start(server, task)
}

/// Recovers on to a point behind the snapshot by its parent's WAL.
pub(super) fn to_point(
    server: &Server<'_>,
    parent: &Server<'_>,
    metadata: &Metadata,
    until: &Until,
    task: &mut dyn Task,
) -> Result<()> {
    let size = segment_size(metadata)?;
    task.step("fetch the logs")?;
    fetch(server, parent, metadata.redo_lsn.parse()?, size, task)?;
    let command = format!("cp {FETCHED}/%f \"%p\"");
    match until {
        Until::Lsn(end) => {
            // Behind the point nothing follows, so recovery ends there. A target would not do: it is met only by a
            // record that begins behind it.
            end_wal(server, FETCHED, *end, size)?;
            end_wal(server, OWN, *end, size)?;
            write_recovery(server, &command, latest_timeline(server))?;
            start(server, task)?;
        }
        Until::Setting { name, value, or_end } => {
            let mut settings = latest_timeline(server);
            settings.insert((*name).to_owned(), value.clone());
            settings.insert("recovery_target_action".to_owned(), "promote".to_owned());
            // The server's log tells whether the point was met.
            settings.insert("log_min_messages".to_owned(), "warning".to_owned());
            write_recovery(server, &command, settings)?;
            let log_start = server.log_length();
            let started = start(server, task);
            let said = server.log_since(log_start);
            let missed = said.contains(NOT_REACHED) || (started.is_ok() && !said.contains(REACHED));
            match (started, missed, or_end) {
                (Ok(()), false, _) | (Ok(()), true, true) => {}
                (Err(_), true, true) => {
                    task.log("nothing was committed behind the point: it is the end of the logs");
                    write_recovery(server, &command, latest_timeline(server))?;
                    start(server, task)?;
                }
                (_, true, false) => return Err(not_reached(parent, name, value)),
                (Err(e), false, _) => return Err(e),
            }
        }
    }
    let folder = server.instance.volume.join(FETCHED_FOLDER);
    std::fs::remove_dir_all(&folder).map_err(|e| Error::io("remove", &folder.display().to_string(), e))
}

fn not_reached(parent: &Server<'_>, name: &str, value: &str) -> Error {
    let what = match name {
        "recovery_target_xid" => format!("the end of transaction {value}"),
        RESTORE_POINT_SETTING => format!("the restore point at {value}"),
        _ => format!("a commit behind {value}"),
    };
    Error::new(
        ErrorKind::Precondition,
        format!(
            "{what} is not in the WAL that was kept of {0}: see what is with `stillpoint timeflow points {0}`",
            parent.instance.name
        ),
    )
}

fn segment_size(metadata: &Metadata) -> Result<SegmentSize> {
    SegmentSize::new(metadata.segment_bytes)
        .ok_or_else(|| Error::corrupt(format!("{} is no size of a WAL segment", metadata.segment_bytes)))
}

/// Before version 12 a clone stays on its parent's timeline unless told otherwise.
fn latest_timeline(server: &Server<'_>) -> BTreeMap<String, String> {
    let name = "recovery_target_timeline".to_owned();
    if server.config.major >= 12 { BTreeMap::new() } else { BTreeMap::from([(name, "latest".to_owned())]) }
}

/// Puts the parent's WAL from a place on where the clone's recovery finds it.
fn fetch(
    server: &Server<'_>,
    parent: &Server<'_>,
    from: Lsn,
    size: SegmentSize,
    task: &mut dyn Task,
) -> Result<()> {
    let reaches = |segment: &SegmentName| segment.end(size).is_some_and(|end| end > from);
    let names = |files: &logs::WalFiles| {
        let segments = files.segments.iter().filter(|segment| reaches(segment)).map(SegmentName::to_string);
        let histories = files.histories.iter().map(|timeline| WalFileName::History(*timeline).to_string());
        segments.chain(histories).map(|name| format!("{name}\n")).collect::<String>()
    };
    make_folder(&server.instance.volume.join(FETCHED_FOLDER), &server.programs.user, Readers::User)?;
    // What the cluster has comes first: what is kept meanwhile and removed there is then found among the kept.
    let live = parent.data().join(OWN);
    let input = names(&logs::list(&live)?);
    prepare(server, "fetch", &["copy", FETCHED, &live.display().to_string()], &input)?;
    if let Some(kept) = logs::folder(parent) {
        let files = logs::list(&kept)?;
        task.log(&format!(
            "{} kept segments from {from} on",
            files.segments.iter().filter(|s| reaches(s)).count()
        ));
        prepare(server, "fetch", &["link", FETCHED, &kept.display().to_string()], &names(&files))?;
    }
    Ok(())
}

/// Takes away the WAL in a folder behind a place. Recovery then ends there because nothing follows.
fn end_wal(server: &Server<'_>, folder: &str, end: Lsn, size: SegmentSize) -> Result<()> {
    for segment in logs::list(&server.data().join(folder))?.segments {
        let Some(start) = segment.start(size) else { continue };
        let kept = end.bytes_since(start).unwrap_or(0);
        if kept < size.bytes() {
            let path = format!("{folder}/{segment}");
            prepare(server, "cut", &[&path, &kept.to_string(), &size.bytes().to_string()], "")?;
        }
    }
    Ok(())
}

/// Recovery by this command, and on from its end on a timeline of its own.
fn write_recovery(server: &Server<'_>, command: &str, mut settings: BTreeMap<String, String>) -> Result<()> {
    settings.insert("restore_command".to_owned(), command.to_owned());
    if server.config.major >= 12 {
        conf::write(server, &Purpose { recovery: settings, keep_limits: true, closed: true })?;
        return prepare(server, "put", &["recovery.signal"], "").map(drop);
    }
    conf::write(server, &Purpose { recovery: BTreeMap::new(), keep_limits: true, closed: true })?;
    let line = |(name, value): (String, String)| format!("{name} = '{}'\n", value.replace('\'', "''"));
    let text: String = settings.into_iter().map(line).collect();
    prepare(server, "put", &["recovery.conf"], &text).map(drop)
}

fn start(server: &Server<'_>, task: &mut dyn Task) -> Result<()> {
    task.step("recover")?;
    server.start(task, &mut |sql| Ok(sql.text("SELECT pg_is_in_recovery()")? == "f"))
}
