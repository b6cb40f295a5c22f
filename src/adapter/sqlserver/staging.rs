//! A staging database that its user restores into: what must be so before a snapshot, and when there is none to take.

use std::path::Path;

use super::super::{Described, Problem, Synced, Task};
use super::client::Sql;
use super::config::{Config, FILES_FOLDER, Metadata, keep};
use super::files;
use super::state::{self, DatabaseState, LastRestore};
use crate::base::{Error, ErrorKind, Result};

/// The fault of a staging database in a state that no restore goes on from.
pub(super) const CANNOT_MONITOR: &str = "CANNOT_MONITOR";
pub(super) const RESTORING: &str = "RESTORING";

/// A staging database, and where its files must be.
pub(super) struct Staging<'a> {
    pub database: &'a str,
    pub volume: &'a Path,
    pub config: &'a Config,
}

impl Staging<'_> {
    /// The database, with each thing that a snapshot needs checked, in the order in which it makes sense to mend them.
    pub(super) fn checked(&self, sql: &mut Sql) -> Result<DatabaseState> {
        let (name, server) = (self.database, self.config.instance.connect_string());
        let found = state::database(sql, name, self.volume)?;
        let found = found.ok_or_else(|| {
            precondition(format!("there is no database {name} on {server}"))
                .with_hint("restore a full backup as that name WITH NORECOVERY, with MOVE to the mount base")
        })?;
        self.check_mounted()?;
        if let Some(outside) = found.outside(self.volume) {
            return Err(precondition(format!(
                "the file {} of {name} is not on the volume, so no snapshot has it",
                outside.display()
            ))
            .with_hint(format!("restore with MOVE to {}", self.volume.join(FILES_FOLDER).display())));
        }
        if let Some((record, path)) = found.files.iter().find(|(_, path)| !path.exists()) {
            return Err(precondition(format!(
                "the file {} ({}) of {name} is not there",
                path.display(),
                record.name
            )));
        }
        if let Some(session) = state::running_restore(sql, name, found.id)? {
            return Err(Error::new(
                ErrorKind::InUse,
                format!(
                    "session {session} on {server} restores into {name}: a snapshot would hold half of it"
                ),
            )
            .with_hint("wait until it has ended, and try again"));
        }
        Ok(found)
    }

    fn check_mounted(&self) -> Result<()> {
        let folder = self.volume.join(FILES_FOLDER);
        match folder.is_dir() {
            true => Ok(()),
            false => Err(precondition(format!(
                "the folder {} is not there: the volume is not mounted, or somebody removed it",
                folder.display()
            ))),
        }
    }

    pub(super) fn check_restoring(&self, found: &DatabaseState) -> Result<()> {
        if found.shown() == RESTORING {
            return Ok(());
        }
        Err(precondition(format!(
            "{} is {}: only a RESTORING database can be snapshotted and restored into further",
            self.database,
            found.shown()
        ))
        .with_hint("restore a full backup WITH NORECOVERY, REPLACE"))
    }

    /// Whether there is something new to snapshot. `before` is what the timeflow's newest snapshot recorded.
    pub(super) fn sync(
        &self,
        sql: &mut Sql,
        before: Option<&Metadata>,
        task: &mut dyn Task,
    ) -> Result<Synced> {
        task.step("look at the staging database")?;
        let found = self.checked(sql)?;
        // The first one is taken of whatever the link made.
        let Some(before) = before else { return Ok(Synced::Ready) };
        self.check_restoring(&found)?;
        let Some(last) = state::last_restore(sql, self.database)? else {
            return Ok(Synced::Nothing(format!("no backup was restored into {}", self.database)));
        };
        task.log(&format!("restored last: {}", last.shown()));
        let same = before.backup.as_ref().is_some_and(|known| known.is_same(&last));
        if same && before.redo_start_lsn == found.redo_start_lsn {
            return Ok(Synced::Nothing(format!("{} is in a snapshot already", last.shown())));
        }
        Ok(Synced::Ready)
    }

    /// What a snapshot taken now would hold. No write goes on in a restoring database while no restore runs.
    pub(super) fn describe(&self, sql: &mut Sql) -> Result<Described> {
        let found = self.checked(sql)?;
        let last = state::last_restore(sql, self.database)?;
        // As the link made it: of no use, and said so.
        let empty = last.is_none() && found.state == "ONLINE";
        if !empty {
            self.check_restoring(&found)?;
        }
        let mut unprovisionable = files::cannot_be_taken(&found.records());
        if empty {
            unprovisionable = Some(format!(
                "it is empty: no backup had been restored into {} when it was taken",
                self.database
            ));
        }
        // A linked one's times are the source's, which is known by its backups.
        let source_zone =
            last.as_ref().filter(|_| self.config.follow.is_some()).and_then(LastRestore::zone_minutes);
        let mut metadata = metadata(sql, &found, last, false)?;
        metadata.zone_minutes = source_zone.unwrap_or(metadata.zone_minutes);
        Ok(Described { metadata: keep("the snapshot's records", &metadata)?, unprovisionable })
    }

    /// Refuses a snapshot during which something was restored.
    pub(super) fn still(&self, sql: &mut Sql, recorded: &Metadata) -> Result<()> {
        let found = self.checked(sql)?;
        if found.redo_start_lsn == recorded.redo_start_lsn && found.records() == recorded.files {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InUse,
            format!("{} was restored into while its snapshot was taken", self.database),
        )
        .with_hint("take it again"))
    }

    /// What is seen of it that its user should know.
    pub(super) fn problem(&self, found: &DatabaseState) -> Option<Problem> {
        let name = self.database;
        if found.shown() == RESTORING {
            return None;
        }
        let only_made = found.state == "ONLINE" && found.redo_start_lsn.is_none();
        Some(Problem {
            code: CANNOT_MONITOR.into(),
            message: match only_made {
                true => format!(
                    "{name} is {}: no snapshot can be taken until a backup is restored into it",
                    found.shown()
                ),
                false => format!(
                    "{name} is {}: it takes no further restores, so it cannot be followed",
                    found.shown()
                ),
            },
            action: format!("restore a full backup into {name} WITH NORECOVERY, REPLACE"),
        })
    }
}

/// What a snapshot records of a database.
pub(super) fn metadata(
    sql: &mut Sql,
    found: &DatabaseState,
    backup: Option<LastRestore>,
    frozen: bool,
) -> Result<Metadata> {
    let server = state::server(sql)?;
    Ok(Metadata {
        state: found.state.clone(),
        frozen,
        files: found.records(),
        redo_start_lsn: found.redo_start_lsn,
        redo_start_fork_guid: found.redo_start_fork_guid,
        backup,
        zone_minutes: server.zone_minutes,
        server: server.server,
        version: server.version,
    })
}

fn precondition(message: String) -> Error {
    Error::new(ErrorKind::Precondition, message)
}
