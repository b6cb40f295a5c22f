//! The header of a backup set, its rows, and what it leaves in its database.

use super::Job;
use crate::instance::catalogue::{Outcome, fail};
use crate::instance::database::{Base, Contents, DatabaseState, FileKind, RecoveryModel, Redo, Transaction};
use crate::instance::media::{SetHead, SetKind};
use crate::instance::options::save;
use crate::instance::run::Run;
use crate::instance::state::State;
use crate::instance::value::{Guid, Lsn};

/// The header of a set and its rows, and the database as it is after it.
pub(super) fn head_of(
    run: &Run<'_>,
    state: &mut State,
    job: &Job,
    name: &str,
    guid: Guid,
    first: Lsn,
) -> Outcome<(SetHead, Vec<Transaction>)> {
    let config = &run.shared.config;
    let zone = i16::try_from(state.zone_minutes / 15).unwrap_or(127);
    let certificate = state.encrypt_with.clone();
    let database = state.database_mut(name)?;
    let copy_only = job.copy_only || database.suspended.as_ref().is_some_and(|frozen| frozen.copy_only);
    let contents = &database.contents;
    let last = contents.next;
    let rows = rows_of(contents, job, first);
    let mut of_set = contents.clone();
    of_set.transactions.clear();
    if job.kind == SetKind::Full && !copy_only {
        of_set.full_backup = first;
        of_set.base = Some(Base { lsn: first, guid, time: config.clock.unix_nanos() });
    }
    let pages = match job.kind {
        SetKind::Full => contents.data_pages() / 4,
        SetKind::Differential if database.bitmap_spoiled => contents.data_pages() / 4,
        _ => 8 + rows.len() as u64,
    };
    let head = SetHead {
        kind: job.kind,
        guid,
        name: job.name.clone(),
        description: job.description.clone(),
        database: database.name.clone(),
        user: String::new(),
        server: config.server_name(),
        machine: config.machine.clone(),
        software: config.version,
        zone,
        first,
        last,
        checkpoint: contents.checkpoint,
        full_backup: contents.full_backup,
        base: contents
            .base
            .as_ref()
            .filter(|_| job.kind == SetKind::Differential)
            .map(|base| (base.lsn, base.guid)),
        forks: contents.forks.clone(),
        started: 0,
        finished: 0,
        copy_only,
        checksums: job.checksums,
        compressed: job.compressed,
        begins_chain: job.kind == SetKind::Log && !contents.chain_begun,
        force_offline: job.no_recovery,
        bulk: job.kind == SetKind::Log && rows.iter().any(|row| row.bulk),
        metadata_only: job.metadata_only,
        read_only: contents.read_only,
        single_user: database.access == crate::instance::database::UserAccess::Single,
        damaged: false,
        certificate,
        pages: if job.metadata_only { 0 } else { pages },
        contents: of_set,
        paths: database.paths.iter().map(|(id, path)| (*id, path.clone())).collect(),
    };
    Ok((head, rows))
}

/// The rows of a set that begins at `first`: all, those since the base, or those of the log.
fn rows_of(contents: &Contents, job: &Job, first: Lsn) -> Vec<Transaction> {
    let from = match job.kind {
        SetKind::Full => Lsn(0),
        SetKind::Differential => contents.base.as_ref().map_or(Lsn(0), |base| base.lsn),
        SetKind::Log => first,
    };
    let wanted = contents.transactions.iter().filter(|row| row.commit >= from && row.commit < contents.next);
    if job.metadata_only { Vec::new() } else { wanted.cloned().collect() }
}

/// What a good backup changes in its database.
pub(super) fn settle(run: &Run<'_>, state: &mut State, job: &Job, head: &SetHead) -> Outcome<()> {
    let durable = run.shared.config.durable;
    let others = state.users_of(&head.database, run.session);
    let now = run.now();
    let database = state.database_mut(&head.database)?;
    let contents = &mut database.contents;
    match head.kind {
        SetKind::Full if !head.copy_only => {
            contents.full_backup = head.first;
            contents.base = Some(Base { lsn: head.first, guid: head.guid, time: head.finished });
            database.bitmap_spoiled = false;
        }
        SetKind::Log if !head.copy_only => {
            contents.log_backup = Some(head.last);
            contents.chain_begun = true;
        }
        _ => {}
    }
    let begins = head.kind != SetKind::Log && !head.copy_only;
    if begins && contents.log_backup.is_none() && contents.recovery_model != RecoveryModel::Simple {
        contents.log_backup = Some(head.first);
    }
    if head.kind != SetKind::Log {
        // The end of a data backup is logged, so that a log backup right after it goes further than it.
        contents.next = contents.next.after(1);
    }
    if job.no_recovery {
        if !others.is_empty() {
            return Err(fail(3101, &[]));
        }
        let fork = contents.fork();
        contents.redo = Some(Redo {
            start: head.last,
            fork,
            time: now,
            incomplete: false,
            interrupted: None,
            standby: None,
        });
        database.state = DatabaseState::Restoring;
    }
    // Frozen files take no writes: what a snapshot backup changes is written with the thaw.
    if database.suspended.is_none() && !database.is_system() {
        save(database, durable)?;
    }
    Ok(())
}

/// How many pages of each file went by.
pub(crate) fn shares(head: &SetHead) -> Vec<(String, u64)> {
    let files = head.contents.files.iter().filter(|file| match head.kind {
        SetKind::Log => file.id == 2,
        _ => file.kind != FileKind::Filestream,
    });
    let count = |file: &crate::instance::database::FileEntry| match (file.id, head.kind) {
        (1, _) => head.pages.saturating_sub(2),
        (2, SetKind::Log) => head.pages,
        (2, _) => head.pages.min(2),
        _ => 0,
    };
    files.map(|file| (file.name.clone(), count(file))).collect()
}
