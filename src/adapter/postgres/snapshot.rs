//! Holding a server at one exact point while its volume is snapshotted, and saying which point that is.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::{Described, Task};
use super::config::{Config, LIMITS, Metadata, Mode, keep};
use super::controldata::ControlData;
use super::server::Server;
use super::source;
use super::sql::Sql;
use crate::base::{Clock, Error, ErrorKind, Result};

/// As `pg_controldata` calls it.
pub(super) const SHUT_DOWN_IN_RECOVERY: &str = "shut down in recovery";
const POLL: Duration = Duration::from_millis(5);
/// Replay pauses between two records.
const PAUSE_TIME_MAX: Duration = Duration::from_secs(60);
/// A checkpoint writes all that is dirty.
const CHECKPOINT_TIME_MAX: Duration = Duration::from_secs(1800);

/// Brings the files to rest, as far as they need to be, and describes them.
pub(super) fn quiesce(server: &Server<'_>, clock: &dyn Clock, task: &mut dyn Task) -> Result<Described> {
    if server.postmaster().is_none() {
        return describe_stopped(server);
    }
    let sql = server.connect("postgres")?;
    super::replica::check_standby(server, &sql)?;
    let standby = sql.text("SELECT pg_is_in_recovery()")? == "t";
    if standby {
        task.step("pause replay")?;
        pause(server, &sql, clock)?;
    }
    task.step("checkpoint")?;
    sql.rows_within("CHECKPOINT", CHECKPOINT_TIME_MAX)?;
    let mode = if standby { Mode::PausedStandby } else { Mode::RunningPrimary };
    let metadata = describe(server, &sql, mode)?;
    Ok(Described { metadata: keep("the snapshot's records", &metadata)?, unprovisionable: None })
}

fn pause(server: &Server<'_>, sql: &Sql, clock: &dyn Clock) -> Result<()> {
    sql.rows("SELECT pg_wal_replay_pause()")?;
    let start = clock.monotonic();
    loop {
        let paused = match server.config.major {
            14.. => sql.text("SELECT pg_get_wal_replay_pause_state()")? == "paused",
            // Older versions only tell that it was asked for: nothing moves once replay stands still.
            _ => {
                let lsn = || sql.value("SELECT pg_last_wal_replay_lsn()");
                let before = lsn()?;
                clock.sleep(20 * POLL);
                before == lsn()?
            }
        };
        if paused {
            return Ok(());
        }
        if clock.monotonic().saturating_sub(start) > PAUSE_TIME_MAX {
            return Err(Error::new(
                ErrorKind::Io,
                format!(
                    "replay of {} did not pause within {} s",
                    server.instance.name,
                    PAUSE_TIME_MAX.as_secs()
                ),
            ));
        }
        clock.sleep(POLL);
    }
}

/// Lets replay go on. No error when it is not paused, or no server runs.
pub(super) fn thaw(server: &Server<'_>) -> Result<()> {
    if server.postmaster().is_none() {
        return Ok(());
    }
    let sql = server.connect("postgres")?;
    if sql.text("SELECT pg_is_in_recovery()")? == "t" {
        sql.rows("SELECT pg_wal_replay_resume()")?;
    }
    Ok(())
}

/// Adds what is known once the snapshot is cut: where it ends at the latest.
pub(super) fn describe_end(server: &Server<'_>, metadata: &mut Metadata) -> Result<()> {
    if server.postmaster().is_none() {
        // At rest: nothing lies behind what its shutdown left.
        metadata.end_lsn = Some(metadata.replay_lsn.clone());
        metadata.end_time = Some(server.now().to_string());
        return Ok(());
    }
    let sql = server.connect("postgres")?;
    let time = "to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    if metadata.mode == Mode::PausedStandby {
        // Replay stood still: it holds what was replayed, whatever came since.
        metadata.end_lsn = Some(metadata.replay_lsn.clone());
        metadata.end_time = Some(match &metadata.last_commit_time {
            Some(time) => time.clone(),
            None => sql.text(&format!("SELECT {time}"))?,
        });
        return Ok(());
    }
    metadata.end_lsn = Some(sql.text("SELECT pg_current_wal_insert_lsn()")?);
    metadata.end_time = Some(sql.text(&format!("SELECT {time}"))?);
    metadata.transactions = Some(sql.text("SELECT txid_current_snapshot()")?);
    Ok(())
}

fn describe(server: &Server<'_>, sql: &Sql, mode: Mode) -> Result<Metadata> {
    let control = ControlData::read(&server.programs, &server.data())?;
    let commit = sql.value(
        "SELECT to_char(pg_last_xact_replay_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
    )?;
    let (replay_lsn, receive_lsn) = match mode {
        Mode::PausedStandby => {
            (sql.text("SELECT pg_last_wal_replay_lsn()")?, sql.value("SELECT pg_last_wal_receive_lsn()")?)
        }
        _ => (sql.text("SELECT pg_current_wal_insert_lsn()")?, None),
    };
    let tablespaces = source::tablespaces(sql)?;
    let known = |found: &super::config::Tablespace| {
        server.config.tablespaces.iter().find(|known| known.oid == found.oid).cloned()
    };
    // The server tells the folders of the volume; what counts later is where the source has them.
    let tablespaces = tablespaces.into_iter().map(|found| known(&found).unwrap_or(found)).collect();
    let mut metadata = from_control(server, &control, mode)?;
    metadata.replay_lsn = replay_lsn;
    metadata.receive_lsn = receive_lsn;
    metadata.last_commit_time = commit;
    metadata.version = sql.text("SHOW server_version")?;
    metadata.tablespaces = tablespaces;
    if mode == Mode::PausedStandby {
        metadata.transactions = sql.value("SELECT txid_current_snapshot()")?;
    }
    metadata.collation_versions = collations(sql)?;
    Ok(metadata)
}

/// The libraries that sort text, by provider and version.
fn collations(sql: &Sql) -> Result<BTreeMap<String, String>> {
    let rows = sql.rows(
        "SELECT CASE collprovider WHEN 'c' THEN 'glibc' WHEN 'i' THEN 'icu' ELSE collprovider::text END, \
         min(collversion) FROM pg_collation WHERE collversion IS NOT NULL GROUP BY 1",
    )?;
    let pair = |row: Vec<Option<String>>| {
        let mut fields = row.into_iter();
        Some((fields.next()??, fields.next()??))
    };
    Ok(rows.into_iter().filter_map(pair).collect())
}

/// The limits that a standby of this cluster must not go below.
pub(super) fn limits(control: &ControlData, config: &Config) -> Result<BTreeMap<String, u64>> {
    let limits = LIMITS.iter().map(|name| {
        let field = match *name {
            "max_prepared_transactions" => "max_prepared_xacts setting".to_owned(),
            "max_locks_per_transaction" => "max_locks_per_xact setting".to_owned(),
            other => format!("{other} setting"),
        };
        // Version 11 and older do not tell all of them.
        let known = config.limits.get(*name).copied();
        let limit = control.number(&field).or_else(|e| known.ok_or(e))?;
        Ok(((*name).to_owned(), limit))
    });
    limits.collect()
}

/// What the control file alone says.
fn from_control(server: &Server<'_>, control: &ControlData, mode: Mode) -> Result<Metadata> {
    let redo = control.field("Latest checkpoint's REDO location")?.to_owned();
    Ok(Metadata {
        system_id: control.field("Database system identifier")?.to_owned(),
        version: server.config.major.to_string(),
        major: server.config.major,
        catalog_version: control.field("Catalog version number")?.to_owned(),
        cluster_state: control.field("Database cluster state")?.to_owned(),
        timeline: control.number("Latest checkpoint's TimeLineID")?,
        replay_lsn: redo.clone(),
        receive_lsn: None,
        redo_lsn: redo,
        redo_wal_file: control.field("Latest checkpoint's REDO WAL file")?.to_owned(),
        minimum_recovery_lsn: control.field("Minimum recovery ending location")?.to_owned(),
        checkpoint_time: control.field("Time of latest checkpoint")?.to_owned(),
        last_commit_time: None,
        data_checksum_version: control.number("Data page checksum version")?,
        segment_bytes: control.number("Bytes per WAL segment")?,
        wal_level: control.field("wal_level setting")?.to_owned(),
        limits: limits(control, &server.config)?,
        tablespaces: server.config.tablespaces.clone(),
        collation_versions: BTreeMap::new(),
        mode,
        end_lsn: None,
        end_time: None,
        transactions: None,
    })
}

/// A cluster without a server is as good as how it was stopped.
fn describe_stopped(server: &Server<'_>) -> Result<Described> {
    let control = ControlData::read(&server.programs, &server.data())?;
    let mut metadata = from_control(server, &control, Mode::Stopped)?;
    if metadata.cluster_state == SHUT_DOWN_IN_RECOVERY {
        // Its files need the WAL up to here, and hold nothing beyond.
        metadata.replay_lsn.clone_from(&metadata.minimum_recovery_lsn);
    }
    let state = metadata.cluster_state.clone();
    let unprovisionable = match state.as_str() {
        "shut down" => None,
        SHUT_DOWN_IN_RECOVERY => None,
        _ => Some(format!(
            "its server was not running, and had not been shut down in order (cluster state: {state}): start it, \
             and take another"
        )),
    };
    Ok(Described { metadata: keep("the snapshot's records", &metadata)?, unprovisionable })
}
