//! Changes of a link: other settings, another address of the source, the end of a link and a new one, a new first copy.

use std::time::Duration;

use serde_json::Value;

use super::super::{ChangeKind, LinkPlan, Problem, Task};
use super::Postgres;
use super::backup;
use super::conf;
use super::config::{Change, Config, SourceAddress, SourceChange, keep, read};
use super::external;
use super::link::{self, slot_name};
use super::program::Programs;
use super::replica;
use super::server::Server;
use super::source;
use super::trouble;
use super::wal_folder;
use crate::base::{Clock, Error, ErrorKind, Result};

const POLL: Duration = Duration::from_millis(50);
/// A standby that has not begun to stream by then is told of, and goes on trying.
const FOLLOW_TIME_MAX: Duration = Duration::from_secs(30);

/// The configuration after a change; of a link that is taken up again with a slot of its own.
pub(super) fn plan(
    server: &Server<'_>,
    change: &Value,
    kind: ChangeKind,
    host: &Postgres,
) -> Result<LinkPlan> {
    let change: Change = read("the change", change)?;
    if change.external_backup.is_some() {
        return Err(Error::invalid("another backup is a new first copy: resynchronize with it"));
    }
    let mut config = with_settings(server, &change)?;
    let mut review = Vec::new();
    let mut warnings = Vec::new();
    let name = &server.instance.name;
    let new_way = change.source.is_some() || change.wal_directory.is_some();
    if new_way && config.source.is_none() && config.wal_directory.is_none() {
        return Err(Error::invalid(format!("{name} follows no source: only its settings can be changed")));
    }
    if let Some(folder) = change.wal_directory {
        wal_folder::check_readable(&folder, &server.programs.user)?;
        review.push(("WAL files".into(), folder.display().to_string()));
        config.wal_directory = Some(folder);
    }
    let moved = change.source.is_some();
    config.source = changed(change.source, config.source)?;
    if kind == ChangeKind::Attach {
        config.detached = false;
        config.slot = config.source.as_ref().map(|_| slot_name(name, &*host.random));
    }
    let asks = kind != ChangeKind::Settings || moved;
    if let (Some(address), true) = (&config.source, asks) {
        let found = ask(server, address, host)?;
        check_same(server, &found, address)?;
        check_slot(server, address, &config, kind)?;
        review.push(("source".into(), format!("{}, PostgreSQL {}", source::shown(address), found.version)));
        warnings = found.warnings;
    }
    for (setting, value) in &config.settings {
        review.push(("setting".into(), format!("{setting} = {value}")));
    }
    Ok(LinkPlan { config: keep("the configuration", &config)?, review, warnings, estimated_bytes: None })
}

fn changed(change: Option<SourceChange>, old: Option<SourceAddress>) -> Result<Option<SourceAddress>> {
    match change {
        Some(change) => change.of(old).map(Some),
        None => Ok(old),
    }
}

fn with_settings(server: &Server<'_>, change: &Change) -> Result<Config> {
    conf::check_settings(&change.settings)?;
    let mut config = server.config.clone();
    for setting in &change.unset {
        if config.settings.remove(setting).is_none() {
            return Err(Error::not_found(format!(
                "{} has no setting {setting} of its own",
                server.instance.name
            )));
        }
    }
    config.settings.extend(change.settings.clone());
    Ok(config)
}

fn ask(server: &Server<'_>, address: &SourceAddress, host: &Postgres) -> Result<source::Source> {
    let clients =
        Programs { folder: host.installations().newest()?.programs, user: server.programs.user.clone() };
    source::ask(address, server.instance.secrets.get(super::config::SOURCE_PASSWORD), &clients, &*host.clock)
}

/// A link goes on only with the cluster it began with.
fn check_same(server: &Server<'_>, found: &source::Source, address: &SourceAddress) -> Result<()> {
    if found.system_id == server.config.system_id {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Precondition,
        format!(
            "{} is another cluster: its system identifier is {}, {} was made of {}; a resynchronization would take a new \
             first copy of it",
            source::shown(address),
            found.system_id,
            server.instance.name,
            server.config.system_id
        ),
    ))
}

/// A server that does not have our slot does not keep what the staging server needs next.
fn check_slot(server: &Server<'_>, address: &SourceAddress, config: &Config, kind: ChangeKind) -> Result<()> {
    let Some(slot) = config.slot.as_ref().filter(|_| kind != ChangeKind::Attach) else { return Ok(()) };
    if link::slot_exists(server, address, slot)? {
        return Ok(());
    }
    let name = &server.instance.name;
    Err(Error::new(
        ErrorKind::Precondition,
        format!(
            "{} has no replication slot {slot}: to go on from another server, `stillpoint dsource detach {name}`, with \
             --force when the old one is gone, and `attach {name}` with its address",
            source::shown(address)
        ),
    ))
}

/// The configuration of a new first copy, with what the source is now.
pub(super) fn plan_resync(server: &Server<'_>, change: &Value, host: &Postgres) -> Result<LinkPlan> {
    let change: Change = read("the change", change)?;
    let mut config = with_settings(server, &change)?;
    let name = &server.instance.name;
    config.source = changed(change.source, config.source)?;
    config.wal_directory = change.wal_directory.or(config.wal_directory);
    config.external_backup = change.external_backup.or(config.external_backup);
    config.detached = false;
    let mut plan = LinkPlan::default();
    if let Some(path) = config.external_backup.clone() {
        let backup = backup::inspect(&path)?;
        if backup.major != config.major {
            return Err(Error::new(
                ErrorKind::Precondition,
                format!(
                    "{} is of PostgreSQL {}, {name} of {}: link it as a dSource of its own",
                    path.display(),
                    backup.major,
                    config.major
                ),
            ));
        }
        external::adopt_backup(&mut config, &backup);
        plan.review.push(("first copy".into(), path.display().to_string()));
        plan.estimated_bytes = Some(backup.size_bytes);
    }
    if let Some(address) = config.source.clone() {
        let found = ask(server, &address, host)?;
        if found.major != config.major {
            return Err(Error::new(
                ErrorKind::Precondition,
                format!(
                    "{} is PostgreSQL {} now, {name} was made of {}: link it as a dSource of its own",
                    source::shown(&address),
                    found.major,
                    config.major
                ),
            ));
        }
        plan.review
            .push(("source".into(), format!("{}, PostgreSQL {}", source::shown(&address), found.version)));
        plan.estimated_bytes = plan.estimated_bytes.or(found.bytes);
        link::adopt_source(&mut config, found, &mut plan.warnings)?;
        config.slot = Some(slot_name(name, &*host.random));
    }
    plan.config = keep("the configuration", &config)?;
    Ok(plan)
}

/// The configuration without a hold on the source; its address stays for the next link.
pub(super) fn detached(server: &Server<'_>) -> Result<Value> {
    keep("the configuration", &Config { slot: None, detached: true, ..server.config.clone() })
}

/// Takes a link up again.
pub(super) fn attach(server: &mut Server<'_>, clock: &dyn Clock, task: &mut dyn Task) -> Result<()> {
    external::make_slot(server, task)?;
    let log_start = server.log_length();
    task.step("start the staging server")?;
    replica::start(server, task)?;
    if server.config.source.is_none() {
        return Ok(());
    }
    task.step("follow the source")?;
    let sql = server.connect("postgres")?;
    let start = clock.monotonic();
    loop {
        task.check()?;
        // Only what it said since this start: what was wrong before may be mended.
        if let Some(problem) = trouble::of_log_since(server, log_start) {
            let Problem { message, action, .. } = problem;
            return Err(Error::new(ErrorKind::Precondition, format!("{message}; {action}")));
        }
        if clock.monotonic().saturating_sub(start) > FOLLOW_TIME_MAX {
            task.warn(&format!(
                "{} does not stream yet: see {}",
                server.instance.name,
                server.log().display()
            ));
            return Ok(());
        }
        // It is called streaming before the source has looked for the WAL: something must have come.
        let receives = "SELECT latest_end_lsn FROM pg_stat_wal_receiver WHERE status = 'streaming'";
        if sql.value(receives)?.is_some() {
            return Ok(());
        }
        clock.sleep(POLL);
    }
}
