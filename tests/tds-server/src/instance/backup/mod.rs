//! BACKUP DATABASE, LOG, GROUP and SERVER: the LSNs of each kind, and what it leaves in the database and in msdb.
//!
//! A full that is not copy-only becomes the base of differentials and begins a log chain where there is none; a log
//! backup goes from where the last one ended. Snapshots by METADATA_ONLY write headers only and thaw.

mod devices;
mod head;

use devices::{media_for, write_stripes};
use head::{head_of, settle};

use crate::instance::ast::{BackupOptions, Expr};
use crate::instance::catalogue::{Outcome, fail, message};
use crate::instance::control::ReplicaRole;
use crate::instance::database::{Database, DatabaseState, RecoveryModel};
use crate::instance::media::{MediaHead, SetHead, SetKind};
use crate::instance::options::save;
use crate::instance::rights;
use crate::instance::run::Run;
use crate::instance::suspend;
use crate::instance::value::{Lsn, whole};
use crate::reply::Part;

pub(crate) use head::shares;

const DEVICES_MAX: usize = 64;

/// What a BACKUP statement asks for, all values read.
struct Job {
    statement: &'static str,
    kind: SetKind,
    names: Vec<String>,
    disks: Vec<String>,
    metadata_only: bool,
    copy_only: bool,
    no_recovery: bool,
    format: bool,
    init: bool,
    compressed: bool,
    checksums: bool,
    stats: Option<u32>,
    name: Option<String>,
    description: Option<String>,
}

/// BACKUP. Every error is followed by 3013.
pub(crate) fn backup(
    run: &mut Run<'_>,
    log: bool,
    group: bool,
    databases: Option<&[Expr]>,
    options: &BackupOptions,
) -> Outcome<()> {
    let job = read_job(run, log, group, databases, options)?;
    let outcome = prepare(run, &job).and_then(|media| stream(run, &job, media));
    outcome.map_err(|stop| stop.then(3013, &[&job.statement]))
}

fn read_job(
    run: &mut Run<'_>,
    log: bool,
    group: bool,
    databases: Option<&[Expr]>,
    options: &BackupOptions,
) -> Outcome<Job> {
    let mut names = Vec::new();
    for name in databases.unwrap_or_default() {
        names.push(run.text(name)?);
    }
    if databases.is_none() {
        let state = run.state();
        let frozen = state.databases.iter().filter(|database| database.suspended.is_some());
        names = frozen.map(|database| database.name.clone()).collect();
    }
    let folder = run.shared.config.backup_folder.clone();
    let mut disks = Vec::new();
    for disk in &options.disks {
        let path = run.text(disk)?;
        disks.push(if path.starts_with('/') { path } else { folder.join(path).display().to_string() });
    }
    let optional =
        |run: &mut Run<'_>, flag: &str| options.value(flag).map(|value| run.text(value)).transpose();
    let differential = options.has("DIFFERENTIAL");
    let kind = match (log, differential) {
        (true, _) => SetKind::Log,
        (false, true) => SetKind::Differential,
        (false, false) => SetKind::Full,
    };
    let metadata_only = options.has("METADATA_ONLY");
    if metadata_only && (log || differential) || (group || databases.is_none()) && !metadata_only {
        return Err(fail(3031, &[&"METADATA_ONLY", &kind.shown().2]));
    }
    if differential && options.has("COPY_ONLY") {
        return Err(fail(3031, &[&"COPY_ONLY", &"DIFFERENTIAL"]));
    }
    Ok(Job {
        statement: if log { "BACKUP LOG" } else { "BACKUP DATABASE" },
        kind,
        names,
        disks,
        metadata_only,
        copy_only: options.has("COPY_ONLY"),
        no_recovery: options.has("NORECOVERY"),
        format: options.has("FORMAT"),
        init: options.has("INIT"),
        compressed: options.has("COMPRESSION"),
        checksums: options.has("CHECKSUM") || options.has("COMPRESSION") && !options.has("NO_CHECKSUM"),
        stats: stats(run, options)?,
        name: optional(run, "NAME")?,
        description: optional(run, "DESCRIPTION")?,
    })
}

/// The step of STATS; 10 without a value.
pub(crate) fn stats(run: &mut Run<'_>, options: &BackupOptions) -> Outcome<Option<u32>> {
    let Some(value) = options.value("STATS") else {
        return Ok(options.has("STATS").then_some(10));
    };
    let step =
        whole(&run.value(value)?).and_then(|step| u32::try_from(step).ok()).filter(|step| *step <= 100);
    step.map(Some).ok_or_else(|| fail(3250, &[&"STATS", &"STATS"]))
}

/// Checks the databases and the devices; the media to write, and whether it is a new one, with the set's position.
fn prepare(run: &mut Run<'_>, job: &Job) -> Outcome<(Vec<MediaHead>, bool, i32)> {
    let session = run.session;
    let login = run.login();
    if run.connection(|connection| connection.transaction.is_some())? {
        return Err(fail(3021, &[]));
    }
    if job.disks.len() > DEVICES_MAX {
        return Err(fail(3205, &[&DEVICES_MAX]));
    }
    let mut state = run.state();
    if job.names.is_empty() {
        return Err(fail(3094, &[&run.shared.config.server_name()]));
    }
    for name in &job.names {
        let database = state.database(name)?;
        let allowed = rights::in_database_role(&state, &login, database, "db_backupoperator");
        if !allowed {
            return Err(fail(262, &[&job.statement, &database.name]));
        }
        permitted(database, job, state.replica, session)?;
    }
    let media = media_for(&mut state, job)?;
    if job.kind != SetKind::Log {
        for name in &job.names {
            state.database_mut(name)?.busy = Some(session);
        }
    }
    Ok(media)
}

fn permitted(database: &Database, job: &Job, replica: Option<ReplicaRole>, session: i16) -> Outcome<()> {
    let name = &database.name;
    let log = job.kind == SetKind::Log;
    match name.as_str() {
        "tempdb" => return Err(fail(3147, &[])),
        "master" if log => return Err(fail(4212, &[])),
        "master" if job.kind == SetKind::Differential => return Err(fail(3024, &[])),
        _ => {}
    }
    if database.state == DatabaseState::Emergency {
        return Err(fail(3033, &[]));
    }
    rights::open_for_use(database)?;
    if database.in_standby() {
        return Err(fail(3036, &[name]));
    }
    let secondary = database.replicated && replica == Some(ReplicaRole::Secondary);
    if secondary && (job.kind == SetKind::Differential || !log && !job.copy_only) {
        return Err(fail(3059, &[]));
    }
    match (&database.suspended, job.metadata_only) {
        (None, true) => return Err(fail(3082, &[&"Database", name])),
        (Some(_), false) => return Err(fail(3090, &[&"Database", name])),
        _ => {}
    }
    if log && database.contents.recovery_model == RecoveryModel::Simple {
        return Err(fail(4208, &[&"BACKUP LOG"]));
    }
    if log && database.contents.log_backup.is_none() {
        return Err(fail(4214, &[]));
    }
    if job.kind == SetKind::Differential && database.contents.base.is_none() {
        return Err(fail(3035, &[name]));
    }
    if database.busy.is_some_and(|other| other != session) && !log {
        return Err(fail(3023, &[]));
    }
    Ok(())
}

/// Copies: the checkpoint, the ticks, the files, then what changes in the databases and msdb.
fn stream(run: &mut Run<'_>, job: &Job, media: (Vec<MediaHead>, bool, i32)) -> Outcome<()> {
    let started = run.now();
    let starts = begin(run, job)?;
    run.work(job.statement, job.stats)?;
    let (stripes, fresh, position) = media;
    let finished = run.now();
    let done = {
        let login = run.login();
        let mut state = run.state();
        let mut heads = Vec::new();
        let mut rows = Vec::new();
        for (name, start) in job.names.iter().zip(starts) {
            let guid = state.guid();
            let (mut head, part) = head_of(run, &mut state, job, name, guid, start)?;
            (head.user, head.started, head.finished) = (login.clone(), started, finished);
            rows.extend(part);
            heads.push(head);
        }
        write_stripes(job, &stripes, fresh, &heads, &rows, run.shared.config.durable)?;
        for head in &heads {
            settle(run, &mut state, job, head)?;
        }
        let devices: Vec<_> = job.disks.iter().cloned().zip(stripes).collect();
        if !state.history_broken {
            for head in &heads {
                state.history.add_set(&devices, position, head);
            }
        }
        (heads, state.history_broken)
    };
    tell(run, job, &done.0, position, done.1)
}

/// Where each database's backup begins: a checkpoint is taken, but not while frozen nor for a log.
fn begin(run: &Run<'_>, job: &Job) -> Outcome<Vec<Lsn>> {
    let durable = run.shared.config.durable;
    let mut state = run.state();
    let mut starts = Vec::new();
    for name in &job.names {
        let database = state.database_mut(name)?;
        let system = database.is_system();
        let contents = &mut database.contents;
        starts.push(match job.kind {
            SetKind::Log => contents.log_backup.unwrap_or(contents.next),
            _ if job.metadata_only => contents.checkpoint,
            _ => {
                contents.checkpoint = contents.next;
                contents.next = contents.next.after(3);
                contents.checkpoint
            }
        });
        if job.kind != SetKind::Log && !job.metadata_only && !system {
            save(database, durable)?;
        }
    }
    Ok(starts)
}

fn tell(run: &mut Run<'_>, job: &Job, heads: &[SetHead], position: i32, history_broken: bool) -> Outcome<()> {
    if job.metadata_only {
        let froze = suspend::thaw(run, &job.names, false)?;
        for head in heads {
            run.info(3087, &[&"Database", &head.database, &froze, &run.session.clone()])?;
            let durable = run.shared.config.durable;
            save(run.state().database_mut(&head.database)?, durable)?;
        }
    }
    let mut pages = 0;
    for head in heads {
        pages += head.pages;
        for (logical, count) in shares(head) {
            run.info(4035, &[&count, &head.database, &logical, &position])?;
        }
    }
    if history_broken {
        run.send(Part::Message(message(3009, &[])))?;
    }
    let differential = job.kind == SetKind::Differential;
    let statement = if differential { "BACKUP DATABASE WITH DIFFERENTIAL" } else { job.statement };
    run.info(3014, &[&statement, &pages, &"0.010", &format!("{}.000", pages * 100 / 128)])
}
