//! A staging server: a standby that follows its source.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::{Health, Problem, Task};
use super::conf::{self, Purpose};
use super::config::{SOURCE_PASSWORD, keep};
use super::controldata::ControlData;
use super::files::{self, Readers, make_folder};
use super::link::{connection_string, source_of, write_passfile};
use super::server::Server;
use super::snapshot;
use super::source;
use super::sql::{Sql, quote};
use super::trouble;
use super::wal_folder;
use crate::base::{Clock, Error, ErrorKind, Result};

const POLL: Duration = Duration::from_millis(50);
/// A standby that receives nothing for this long while it is behind is told to be stuck.
const STALL_TIME_MAX: Duration = Duration::from_secs(60);

/// The configuration with the source's tablespaces and limits of now. A record that makes a tablespace stops a standby
/// that has no folder for it, and one that raises a limit pauses it: the next start has both.
pub(super) fn reconfigure(server: &Server<'_>) -> Result<serde_json::Value> {
    let mut config = server.config.clone();
    let Some(address) = config.source.clone() else { return keep("the configuration", &config) };
    let sql = source::connect(&address, server.instance.secrets.get(SOURCE_PASSWORD))?;
    for found in source::tablespaces(&sql)? {
        // One that was dropped stays: records still to be replayed may name it.
        if config.tablespaces.iter().all(|known| known.oid != found.oid) {
            make_folder(&server.tablespace(found.oid), &server.programs.user, Readers::User)?;
            config.tablespaces.push(found);
        }
    }
    for (name, limit) in source::limits(&sql)? {
        let known = config.limits.entry(name).or_insert(limit);
        *known = limit.max(*known);
    }
    keep("the configuration", &config)
}

/// Starts the standby and returns when it answers.
pub(super) fn start(server: &mut Server<'_>, task: &mut dyn Task) -> Result<()> {
    keep_limits(server)?;
    let mut recovery = BTreeMap::from([
        ("recovery_target_timeline".to_owned(), "latest".to_owned()),
        ("hot_standby".to_owned(), "on".to_owned()),
    ]);
    if let Some(address) = &server.config.source {
        write_passfile(server, address)?;
        recovery.insert("primary_conninfo".to_owned(), connection_string(server, address));
    }
    if let Some(slot) = &server.config.slot {
        recovery.insert("primary_slot_name".to_owned(), slot.clone());
    }
    if server.config.wal_directory.is_some() {
        conf::make_state_folder(server)?;
        recovery.insert("restore_command".to_owned(), wal_folder::restore_command(server)?);
    }
    follow(server, recovery)?;
    server.start(task, &mut |sql| {
        // A killed engine may have left replay paused.
        sql.rows("SELECT pg_wal_replay_resume() WHERE pg_is_in_recovery() AND pg_is_wal_replay_paused()")?;
        Ok(sql.text("SELECT pg_is_in_recovery()")? == "t")
    })
}

/// Raises the limits to those that the replayed WAL asks for, as the control file has them.
fn keep_limits(server: &mut Server<'_>) -> Result<()> {
    let control = ControlData::read(&server.programs, &server.data())?;
    for (name, limit) in snapshot::limits(&control, &server.config)? {
        let known = server.config.limits.entry(name).or_insert(limit);
        *known = limit.max(*known);
    }
    Ok(())
}

/// Makes the cluster a standby with these settings.
fn follow(server: &Server<'_>, recovery: BTreeMap<String, String>) -> Result<()> {
    files::prepare(server, "drop", &["recovery.signal"], "")?;
    if server.config.major >= 12 {
        conf::write(server, &Purpose { recovery, keep_limits: true, closed: false })?;
        return files::prepare(server, "put", &["standby.signal"], "").map(drop);
    }
    // Before version 12 recovery has a file of its own, in the cluster's folder.
    let mut text = String::from("standby_mode = 'on'\n");
    let mut rest = BTreeMap::new();
    for (name, value) in recovery {
        match name.as_str() {
            "hot_standby" => drop(rest.insert(name, value)),
            _ => text.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''"))),
        }
    }
    conf::write(server, &Purpose { recovery: rest, keep_limits: true, closed: false })?;
    files::prepare(server, "put", &["recovery.conf"], &text).map(drop)
}

/// Waits until the standby has replayed all that the source had flushed when this was called.
pub(super) fn sync(server: &Server<'_>, clock: &dyn Clock, task: &mut dyn Task) -> Result<()> {
    if server.config.source.is_none() {
        let sql = server.connect("postgres")?;
        check_standby(server, &sql)?;
        resume(&sql)?;
        return wal_folder::sync(server, &sql, clock, task);
    }
    task.step("ask the source")?;
    let address = source_of(&server.config)?;
    let target =
        source::identify(address, server.instance.secrets.get(SOURCE_PASSWORD), &server.programs, clock)?;
    if target.system_id != server.config.system_id {
        return Err(Error::new(
            ErrorKind::Precondition,
            format!(
                "{} is another cluster now: its system identifier is {}, this dSource was linked to {}; \
                 resynchronize the dSource, or point it at the right source",
                source::shown(address),
                target.system_id,
                server.config.system_id
            ),
        ));
    }
    task.step("replay")?;
    task.log(&format!("the source is at {} on timeline {}", target.lsn, target.timeline));
    let sql = server.connect("postgres")?;
    check_standby(server, &sql)?;
    resume(&sql)?;
    let behind = |sql: &Sql| -> Result<i64> {
        let query = format!(
            "SELECT coalesce(pg_wal_lsn_diff({}, pg_last_wal_replay_lsn()), 0)::bigint",
            quote(&target.lsn)
        );
        let text = sql.text(&query)?;
        text.parse().map_err(|_| Error::new(ErrorKind::Io, format!("the standby answered {text:?}")))
    };
    let first = behind(&sql)?;
    let mut least = first;
    let mut moved = clock.monotonic();
    while least > 0 {
        task.check()?;
        let now = behind(&sql)?;
        if now < least {
            (least, moved) = (now, clock.monotonic());
        } else if clock.monotonic().saturating_sub(moved) > STALL_TIME_MAX {
            let health = monitor(server, clock)?;
            let why =
                health.problems.first().map_or_else(String::new, |problem| format!(": {}", problem.message));
            return Err(Error::new(
                ErrorKind::Precondition,
                format!(
                    "the staging server of {} is {least} bytes behind and does not move{why}",
                    server.instance.name
                ),
            ));
        }
        let total = u64::try_from(first).unwrap_or(0);
        task.bytes(total.saturating_sub(u64::try_from(least).unwrap_or(0)), Some(total));
        clock.sleep(POLL);
    }
    Ok(())
}

/// An engine that could not let go on after a snapshot leaves it paused.
fn resume(sql: &Sql) -> Result<()> {
    sql.rows("SELECT pg_wal_replay_resume() WHERE pg_is_wal_replay_paused()").map(drop)
}

/// Refuses a staging server that no longer is a standby: what it holds is not the source's.
pub(super) fn check_standby(server: &Server<'_>, sql: &Sql) -> Result<()> {
    if !server.config.is_staging() || sql.text("SELECT pg_is_in_recovery()")? == "t" {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Precondition, promoted(server)))
}

fn promoted(server: &Server<'_>) -> String {
    format!(
        "the staging server of {} was promoted: it no longer follows its source, and may differ from it",
        server.instance.name
    )
}

/// Logs that cannot be kept stay in the cluster, and fill its volume.
fn logs_problem(server: &Server<'_>, sql: &Sql) -> Result<Option<Problem>> {
    if server.instance.logs.is_none() {
        return Ok(None);
    }
    let failed = sql.value(
        "SELECT last_failed_wal FROM pg_stat_archiver \
         WHERE last_failed_time > coalesce(last_archived_time, '-infinity')",
    )?;
    Ok(failed.map(|file| Problem {
        code: "LOGS_NOT_KEPT".into(),
        message: format!("WAL file {file} of {} cannot be kept for points in time", server.instance.name),
        action: format!(
            "the reason is at the end of {}; it is tried again by itself, and nothing is lost meanwhile",
            server.log().display()
        ),
    }))
}

/// What can be seen of a staging server without asking its source.
pub(super) fn monitor(server: &Server<'_>, clock: &dyn Clock) -> Result<Health> {
    let mut health = Health::default();
    let Some(postmaster) = server.postmaster() else {
        health.state = "stopped".into();
        return Ok(health);
    };
    health.running = true;
    health.pid = Some(postmaster.pid.as_raw_nonzero().get().unsigned_abs());
    let sql = match server.connect("postgres") {
        Ok(sql) => sql,
        Err(e) => {
            // It starts, or recovers: nothing is wrong with that yet.
            health.state = "starting".into();
            health.facts.push(("answer".into(), e.to_string()));
            return Ok(health);
        }
    };
    let row = sql
        .rows(
            "SELECT pg_is_in_recovery(), pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn(), \
             pg_last_xact_replay_timestamp(), (SELECT status FROM pg_stat_wal_receiver), \
             CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() END",
        )?
        .into_iter()
        .next()
        .unwrap_or_default();
    let field = |at: usize| row.get(at).cloned().flatten();
    let fact = |name: &str, value: Option<String>| value.map(|value| (name.to_owned(), value));
    health.facts.extend(
        [
            fact("received", field(1)),
            fact("replayed", field(2)),
            fact("last replayed commit", field(3)),
            fact("WAL receiver", field(4)),
        ]
        .into_iter()
        .flatten(),
    );
    health.state = match (field(0).as_deref(), field(4).as_deref(), field(5).as_deref()) {
        (Some("f"), ..) => "online",
        (_, _, Some("t")) => "paused",
        (_, Some("streaming"), _) => "streaming",
        _ => "waiting",
    }
    .into();
    if health.state == "online" && server.config.is_staging() {
        health.problems.push(Problem {
            code: "STAGING_PROMOTED".into(),
            message: promoted(server),
            action: "take a new first copy with `stillpoint dsource resync`; snapshots taken before stay"
                .into(),
        });
    }
    health.problems.extend(logs_problem(server, &sql)?);
    if health.state == "waiting" && server.config.wal_directory.is_some() {
        let (state, problem) = wal_folder::look(server, field(2).as_deref(), clock)?;
        health.state = state;
        health.problems.extend(problem);
    }
    if matches!(health.state.as_str(), "waiting" | "paused")
        && server.config.is_staging()
        && let Some(problem) = trouble::of_log(server)
    {
        health.needs_restart = problem.code == trouble::LIMITS_RAISED;
        health.problems.push(problem);
    } else if health.state == "waiting" {
        health.problems.push(Problem {
            code: "SOURCE_UNREACHABLE".into(),
            message: format!(
                "the staging server of {} receives nothing from its source",
                server.instance.name
            ),
            action: format!(
                "see that the source runs and takes the replication user; the reason is at the end of {}",
                server.log().display()
            ),
        });
    }
    Ok(health)
}
