//! Making a clone of a cluster's files a database of its own.
//!
//! Nothing of it ever connects to, archives for or holds a slot on the source.

use std::collections::BTreeMap;

use super::super::{Target, Task};
use super::conf::{self, Purpose};
use super::config::{Metadata, TABLESPACES_FOLDER};
use super::files::{Readers, make_folder, prepare};
use super::owner;
use super::point::{self, Until};
use super::recovery;
use super::replica;
use super::server::Server;
use super::sql::{Sql, identifier, quote};
use crate::base::{Clock, Error, ErrorKind, Result};

/// How far a clone goes on from its snapshot, and by what.
pub(super) struct Way<'a> {
    pub target: &'a Target,
    /// The server whose snapshot it is, and whether that one may be brought up to its source.
    pub parent: Option<&'a Server<'a>>,
    pub may_sync: bool,
}

/// Turns the files of a clone into a database and starts it; returns when it can be written. A point in time is
/// reached by the WAL of the parent.
pub(super) fn provision(
    server: &Server<'_>,
    metadata: &Metadata,
    way: Way<'_>,
    clock: &dyn Clock,
    task: &mut dyn Task,
) -> Result<()> {
    task.step("prepare the files")?;
    prepare(server, "clean", &[], "")?;
    prepare(server, "slots", &[], "")?;
    place_tablespaces(server)?;
    match (way.target, way.parent) {
        (Target::Snapshot, _) => recovery::to_snapshot(server, metadata, task)?,
        (_, Some(parent)) => {
            let until = until(parent, metadata, &way, clock, task)?;
            recovery::to_point(server, parent, metadata, &until, task)?;
        }
        (_, None) => return Err(Error::invalid("a point in time needs the WAL of what it is of")),
    }
    task.step("cut off from the outside")?;
    quiet(server, task)?;
    owner::apply(server, task)?;
    // The next start needs none of the recovery's settings.
    conf::write(server, &Purpose { recovery: BTreeMap::new(), keep_limits: false, closed: false })
}

/// Where recovery is to end, with what the parent has now; it is brought up to its source first when that is needed.
fn until(
    parent: &Server<'_>,
    metadata: &Metadata,
    asked: &Way<'_>,
    clock: &dyn Clock,
    task: &mut dyn Task,
) -> Result<Until> {
    let find = |synced| point::find(parent, &[point::Base::of(metadata)], asked.target, clock, synced);
    let way = find(None)?;
    if !way.needs_sync {
        return Ok(way.until);
    }
    if !asked.may_sync {
        // A sync lets a server go on that a snapshot holds at its point.
        return Err(Error::new(
            ErrorKind::InUse,
            format!(
                "{} must be brought up to its source first, which was not so before",
                parent.instance.name
            ),
        )
        .with_hint("ask again"));
    }
    let asked = point::now(clock);
    replica::sync(parent, clock, task)?;
    Ok(find(Some(asked))?.until)
}

/// The tablespaces of a clone are folders of its own volume.
fn place_tablespaces(server: &Server<'_>) -> Result<()> {
    let tablespaces = server.instance.volume.join(TABLESPACES_FOLDER);
    for tablespace in &server.config.tablespaces {
        // One that the parent got later, which recovery to a point in time may make.
        make_folder(&server.tablespace(tablespace.oid), &server.programs.user, Readers::User)?;
    }
    prepare(server, "tablespaces", &[&tablespaces.display().to_string()], "").map(drop)
}

/// Starts a database on a clone of one that was provisioned and shut down.
pub(super) fn adopt(server: &Server<'_>, task: &mut dyn Task) -> Result<()> {
    place_tablespaces(server)?;
    start(server, task)?;
    owner::apply(server, task)
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
    let name = identifier(subscription);
    sql.rows(&format!("ALTER SUBSCRIPTION {name} DISABLE"))?;
    sql.rows(&format!("ALTER SUBSCRIPTION {name} SET (slot_name = NONE)"))?;
    Ok(())
}
