//! What a source cluster tells before it is linked, and the refusals that follow from it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::super::Task;
use super::config::{LIMITS, SourceAddress, Tablespace};
use super::program::{self, Programs};
use super::sql::Sql;
use super::tls;
use crate::base::{Clock, Error, ErrorKind, Result};

/// The oldest version that can be linked.
const MAJOR_MIN: u32 = 10;
const BLOCK_BYTES: &str = "8192";
/// A source that takes a connection and then says nothing.
const IDENTIFY_TIME_MAX: Duration = Duration::from_secs(30);

/// A source cluster as it is now.
pub(super) struct Source {
    pub version: String,
    pub major: u32,
    pub system_id: String,
    pub superuser: String,
    pub segment_bytes: u64,
    pub limits: BTreeMap<String, u64>,
    pub tablespaces: Vec<Tablespace>,
    pub bytes: Option<u64>,
    pub warnings: Vec<String>,
}

/// Asks a source, and refuses what cannot be linked.
pub(super) fn ask(
    address: &SourceAddress,
    password: Option<&str>,
    clients: &Programs,
    clock: &dyn Clock,
) -> Result<Source> {
    tls::check(address)?;
    let sql = connect(address, password)?;
    let number: u32 = parse("server_version_num", &sql.text("SHOW server_version_num")?)?;
    let major = number / 10_000;
    if major < MAJOR_MIN {
        return Err(precondition(format!(
            "{} runs a PostgreSQL older than {MAJOR_MIN}: such a one cannot be linked",
            shown(address)
        )));
    }
    check_rights(&sql, address)?;
    check_wal(&sql, address)?;
    let block = sql.text("SHOW block_size")?;
    if block != BLOCK_BYTES {
        return Err(precondition(format!(
            "{} has blocks of {block} bytes, the programs of this host have {BLOCK_BYTES}",
            shown(address)
        )));
    }
    let mut warnings = Vec::new();
    let bytes = match sql.value("SELECT sum(pg_database_size(oid)) FROM pg_database") {
        Ok(bytes) => bytes.and_then(|bytes| bytes.parse().ok()),
        Err(_) => {
            warnings.push(format!(
                "{} may not see the size of every database (GRANT pg_read_all_stats TO it): progress has no total",
                address.user
            ));
            None
        }
    };
    if major >= 13 && sql.text("SHOW max_slot_wal_keep_size")? == "-1" {
        warnings.push(
            "the source keeps WAL for our replication slot without limit: while staging is down its disk fills; \
             set max_slot_wal_keep_size there"
                .into(),
        );
    }
    let system = identify(address, password, clients, clock)?;
    let segment: u64 = parse(
        "wal_segment_size",
        &sql.text("SELECT setting FROM pg_settings WHERE name = 'wal_segment_size'")?,
    )?;
    Ok(Source {
        version: sql.text("SHOW server_version")?,
        major,
        system_id: system.system_id,
        superuser: sql.text("SELECT rolname FROM pg_roles WHERE oid = 10")?,
        // Version 10 counts in blocks of 8 KiB.
        segment_bytes: if major == 10 { segment * 8192 } else { segment },
        limits: limits(&sql)?,
        tablespaces: tablespaces(&sql)?,
        bytes,
        warnings,
    })
}

/// Connects for SQL; an error says what it takes.
pub(super) fn connect(address: &SourceAddress, password: Option<&str>) -> Result<Sql> {
    Sql::over_network(address, password, &address.database).map_err(|e| {
        let advice = match e.kind() {
            _ if password.is_none() => {
                "no password was given: name its file, or set the environment variable".to_owned()
            }
            ErrorKind::NotAllowed => format!(
                "check the password, and that pg_hba.conf lets {} connect from this host to the database {} \
                 and to replication, with TLS or without as it is asked for",
                address.user, address.database
            ),
            _ => "check host, port and listen_addresses, and that the source runs".to_owned(),
        };
        Error::new(e.kind(), format!("cannot ask the source {}: {e}; {advice}", shown(address)))
    })
}

/// `host:port` as user.
pub(super) fn shown(address: &SourceAddress) -> String {
    format!("{}:{}", address.host, address.port)
}

fn check_rights(sql: &Sql, address: &SourceAddress) -> Result<()> {
    let may = sql.text("SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user")?;
    if may == "t" {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::NotAllowed,
        format!("{0} may not replicate: ALTER ROLE \"{0}\" REPLICATION on the source", address.user),
    ))
}

fn check_wal(sql: &Sql, address: &SourceAddress) -> Result<()> {
    let level = sql.text("SHOW wal_level")?;
    if !matches!(level.as_str(), "replica" | "logical") {
        return Err(precondition(format!(
            "{} has wal_level = {level}: set it to replica and restart it",
            shown(address)
        )));
    }
    let free = |setting: &str, used: &str| -> Result<i64> {
        let most: i64 = parse(setting, &sql.text(&format!("SHOW {setting}"))?)?;
        let taken: i64 = parse(used, &sql.text(&format!("SELECT count(*) FROM {used}"))?)?;
        Ok(most - taken)
    };
    if free("max_replication_slots", "pg_replication_slots")? < 1 {
        return Err(precondition(format!(
            "{} has no free replication slot: raise max_replication_slots, or drop one that nobody uses",
            shown(address)
        )));
    }
    // The base backup takes one for its files and one for its WAL.
    if free("max_wal_senders", "pg_stat_replication")? < 2 {
        return Err(precondition(format!(
            "{} has fewer than two free WAL senders: raise max_wal_senders",
            shown(address)
        )));
    }
    Ok(())
}

/// Settings whose value on a standby must not be below these.
pub(super) fn limits(sql: &Sql) -> Result<BTreeMap<String, u64>> {
    let value = |name: &str| parse(name, &sql.text(&format!("SHOW {name}"))?);
    LIMITS.iter().map(|name| Ok(((*name).to_owned(), value(name)?))).collect()
}

/// The tablespaces beside the two that every cluster has.
pub(super) fn tablespaces(sql: &Sql) -> Result<Vec<Tablespace>> {
    let rows = sql
        .rows("SELECT oid, pg_tablespace_location(oid) FROM pg_tablespace WHERE oid >= 16384 ORDER BY oid")?;
    let mut found = Vec::new();
    for row in rows {
        if let [Some(oid), Some(location)] = row.as_slice() {
            found.push(Tablespace { oid: parse("oid", oid)?, location: PathBuf::from(location) });
        }
    }
    Ok(found)
}

/// Where a source stands.
pub(super) struct System {
    pub system_id: String,
    pub timeline: u32,
    /// All before this is flushed there.
    pub lsn: String,
}

/// Asks in replication mode, which also shows that replicating is allowed.
pub(super) fn identify(
    address: &SourceAddress,
    password: Option<&str>,
    clients: &Programs,
    clock: &dyn Clock,
) -> Result<System> {
    let mut command = clients.command("psql");
    let value = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    command.arg(format!(
        "host={} port={} user={} dbname=postgres replication=true connect_timeout=10 {}",
        value(&address.host),
        address.port,
        value(&address.user),
        tls::words(address, value)
    ));
    command.args(["-w", "-X", "-A", "-t", "-q", "-c", "IDENTIFY_SYSTEM"]);
    if let Some(password) = password {
        // In the environment of one short process of the server's user, never in its arguments.
        command.env("PGPASSWORD", password);
    }
    let mut limit = Limit { clock, end: clock.monotonic() + IDENTIFY_TIME_MAX };
    let said = program::run(&mut command, &mut limit, &mut |_, _| {}).map_err(|e| match e.kind() {
        ErrorKind::Cancelled => Error::new(
            ErrorKind::Io,
            format!("{} does not answer within {} s", shown(address), IDENTIFY_TIME_MAX.as_secs()),
        ),
        _ => Error::new(
            ErrorKind::NotAllowed,
            format!(
                "{} refuses replication to {}: {e}; pg_hba.conf there needs a line for the database replication",
                shown(address),
                address.user,
            ),
        ),
    })?;
    let fields: Vec<&str> = said.trim().split('|').collect();
    let [system_id, timeline, lsn, ..] = fields.as_slice() else {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("{} answered {said:?} when asked who it is", shown(address)),
        ));
    };
    Ok(System {
        system_id: (*system_id).to_owned(),
        timeline: parse("timeline", timeline)?,
        lsn: (*lsn).to_owned(),
    })
}

fn parse<T: std::str::FromStr>(name: &str, text: &str) -> Result<T> {
    text.trim().parse().map_err(|_| {
        Error::new(ErrorKind::Unsupported, format!("the source answered {text:?} when asked for {name}"))
    })
}

fn precondition(message: String) -> Error {
    Error::new(ErrorKind::Precondition, message)
}

/// Ends a program when its time is over.
struct Limit<'a> {
    clock: &'a dyn Clock,
    end: Duration,
}

impl Task for Limit<'_> {
    fn step(&mut self, _name: &str) -> Result<()> {
        self.check()
    }

    fn bytes(&mut self, _done: u64, _total: Option<u64>) {}

    fn log(&mut self, _line: &str) {}

    fn warn(&mut self, _line: &str) {}

    fn check(&self) -> Result<()> {
        match self.clock.monotonic() < self.end {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Cancelled, "its time is over")),
        }
    }
}
