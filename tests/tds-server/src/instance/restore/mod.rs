//! RESTORE: reading the statement and the media, then a data backup, a log, or only what they say.
//!
//! Every error of RESTORE DATABASE and LOG is followed by 3013. What a restore writes while it runs is on disk as
//! RESTORING and not complete, so that an interrupted one is seen, also by another instance that gets the files.

mod apply;
mod data;
mod finish;
mod header;
mod info;
mod log;
mod place;

use super::ast::{BackupOptions, Expr, RestoreWhat};
use super::backup::stats;
use super::catalogue::{Outcome, Stop, fail};
use super::database::Transaction;
use super::media::{self, MediaHead, SetHead};
use super::rights;
use super::run::Run;
use super::value::{Guid, Lsn, parse_date, unix_nanos_of, whole};

/// What the database is left as.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Recovery,
    NoRecovery,
    Standby(String),
}

/// Where to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
enum StopPoint {
    /// Nanoseconds since 1970.
    At(i64),
    Mark {
        name: String,
        after: Option<i64>,
        before: bool,
    },
    Lsn {
        lsn: Lsn,
        before: bool,
    },
}

/// A RESTORE statement with all values read, and its backup set.
struct Job {
    statement: &'static str,
    name: String,
    end: End,
    stop: Option<StopPoint>,
    replace: bool,
    checksum: bool,
    load_history: bool,
    stats: Option<u32>,
    moves: Vec<(String, String)>,
    position: i32,
    stripes: Vec<(String, MediaHead)>,
    head: SetHead,
    /// `None` where the set is damaged.
    rows: Option<Vec<Transaction>>,
}

/// What was read besides the media.
struct Options {
    disks: Vec<String>,
    position: i32,
    moves: Vec<(String, String)>,
    dbname: Option<String>,
}

/// RESTORE of all kinds.
pub(crate) fn restore(
    run: &mut Run<'_>,
    what: RestoreWhat,
    name: Option<&Expr>,
    options: &BackupOptions,
) -> Outcome<()> {
    let statement = match what {
        RestoreWhat::Database => "RESTORE DATABASE",
        RestoreWhat::Log => "RESTORE LOG",
        RestoreWhat::HeaderOnly => "RESTORE HEADERONLY",
        RestoreWhat::FileListOnly => "RESTORE FILELIST",
        RestoreWhat::LabelOnly => "RESTORE LABELONLY",
        RestoreWhat::VerifyOnly => "VERIFY DATABASE",
    };
    let outcome = match name {
        None => info::show(run, what, options),
        Some(name) => of_database(run, what, name, options, statement),
    };
    outcome.map_err(|stop| stop.then(3013, &[&statement]))
}

fn of_database(
    run: &mut Run<'_>,
    what: RestoreWhat,
    name: &Expr,
    options: &BackupOptions,
    statement: &'static str,
) -> Outcome<()> {
    let name = run.text(name)?;
    if run.connection(|connection| connection.transaction.is_some())? {
        return Err(fail(3021, &[]));
    }
    may_restore(run, &name)?;
    let end = read_end(run, options)?;
    let stop = read_stop(run, options)?;
    if options.disks.is_empty() {
        return finish::without_backup(run, &name, &end, statement);
    }
    let read = read_options(run, options)?;
    let (stripes, head, rows) = pick(&read, true)?;
    let job = Job {
        statement,
        name,
        end,
        stop,
        replace: options.has("REPLACE"),
        checksum: options.has("CHECKSUM"),
        load_history: false,
        stats: stats(run, options)?,
        moves: read.moves,
        position: read.position,
        stripes,
        head,
        rows,
    };
    check_set(run, &job)?;
    match what {
        RestoreWhat::Log => log::restore(run, &job),
        _ => data::restore(run, &job),
    }
}

/// Errors: 262 for a database to be made, 3110 for one that is there, 3147.
fn may_restore(run: &Run<'_>, name: &str) -> Outcome<()> {
    let login = run.login();
    let state = run.state();
    match state.find(name) {
        Some(database) if database.name == "tempdb" => Err(fail(3147, &[])),
        Some(database) if database.is_system() => Err(fail(50_002, &[&"RESTORE of a system database"])),
        Some(database) => {
            let allowed = rights::has(&state, &login, "ALTER ANY DATABASE")
                || super::state::same_name(&database.owner, &login);
            if allowed { Ok(()) } else { Err(fail(3110, &[&database.name])) }
        }
        None if rights::has(&state, &login, "CREATE ANY DATABASE") => Ok(()),
        None => Err(fail(262, &[&"CREATE DATABASE", &"master"])),
    }
}

/// Error 3031 where two ends are asked for, 3170 for a standby file that cannot be.
fn read_end(run: &mut Run<'_>, options: &BackupOptions) -> Outcome<End> {
    let ends: Vec<&str> =
        ["RECOVERY", "NORECOVERY", "STANDBY"].into_iter().filter(|end| options.has(end)).collect();
    if let [first, second, ..] = ends[..] {
        return Err(fail(3031, &[&first.to_lowercase(), &second.to_lowercase()]));
    }
    match ends.first() {
        Some(&"NORECOVERY") => Ok(End::NoRecovery),
        Some(&"STANDBY") => {
            let path = options.value("STANDBY").map(|value| run.text(value)).transpose()?.unwrap_or_default();
            let folder = run.shared.config.backup_folder.clone();
            let path = if path.starts_with('/') { path } else { folder.join(path).display().to_string() };
            let parent = std::path::Path::new(&path).parent().is_some_and(std::path::Path::is_dir);
            if parent && !std::path::Path::new(&path).is_dir() {
                Ok(End::Standby(path))
            } else {
                Err(fail(3170, &[]))
            }
        }
        _ => Ok(End::Recovery),
    }
}

/// Errors: 241 for a date, 4334 for an LSN that is none.
fn read_stop(run: &mut Run<'_>, options: &BackupOptions) -> Outcome<Option<StopPoint>> {
    let zone = run.state().zone_minutes;
    let date = |run: &mut Run<'_>, expr: &Expr| {
        let value = run.value(expr)?;
        if let crate::reply::Value::DateTime(millis) = value {
            return Ok(unix_nanos_of(millis, zone));
        }
        let text = super::value::text_of(&value).unwrap_or_default();
        parse_date(&text).map(|millis| unix_nanos_of(millis, zone)).ok_or_else(|| fail(241, &[]))
    };
    if let Some(at) = options.value("STOPAT") {
        return date(run, at).map(|at| Some(StopPoint::At(at)));
    }
    for (option, before) in [("STOPATMARK", false), ("STOPBEFOREMARK", true)] {
        let Some(mark) = options.value(option) else {
            continue;
        };
        let name = run.text(mark)?;
        let after = options.value("AFTER").map(|after| date(run, after)).transpose()?;
        let Some(number) = name.to_lowercase().strip_prefix("lsn:").map(str::to_owned) else {
            return Ok(Some(StopPoint::Mark { name, after, before }));
        };
        let lsn = number.trim().parse().map_err(|_| fail(4334, &[]))?;
        return Ok(Some(StopPoint::Lsn { lsn: Lsn(lsn), before }));
    }
    Ok(None)
}

fn read_options(run: &mut Run<'_>, options: &BackupOptions) -> Outcome<Options> {
    let folder = run.shared.config.backup_folder.clone();
    let mut disks = Vec::new();
    for disk in &options.disks {
        let path = run.text(disk)?;
        disks.push(if path.starts_with('/') { path } else { folder.join(path).display().to_string() });
    }
    let mut moves = Vec::new();
    for (from, to) in &options.moves {
        moves.push((run.text(from)?, run.text(to)?));
    }
    let position = match options.value("FILE") {
        Some(value) => whole(&run.value(value)?).and_then(|number| i32::try_from(number).ok()).unwrap_or(0),
        None => 1,
    };
    let dbname = options.value("DBNAME").map(|value| run.text(value)).transpose()?;
    Ok(Options { disks, position, moves, dbname })
}

type Picked = (Vec<(String, MediaHead)>, SetHead, Option<Vec<Transaction>>);

/// The backup set that FILE and DBNAME name. Errors: those of the media, 4038.
fn pick(options: &Options, whole: bool) -> Outcome<Picked> {
    let gathered = media::gather(&options.disks, whole)?;
    let first = options.disks.first().cloned().unwrap_or_default();
    let missing = || fail(4038, &[&options.position, &first]);
    let index = usize::try_from(options.position).ok().and_then(|position| position.checked_sub(1));
    let set = index.and_then(|index| gathered.sets.get(index)).ok_or_else(missing)?;
    let head = match &options.dbname {
        Some(name) => set.heads.iter().find(|head| super::state::same_name(&head.database, name)),
        None => set.heads.first(),
    };
    Ok((gathered.stripes, head.ok_or_else(missing)?.clone(), set.rows.clone()))
}

/// Errors: 3169, 3180, 3183, 3187, 3189, 33111.
fn check_set(run: &Run<'_>, job: &Job) -> Outcome<()> {
    let head = &job.head;
    if let Some(certificate) = &head.certificate
        && !run.state().certificates.contains(certificate)
    {
        return Err(fail(33111, &[&"certificate", certificate]));
    }
    let supported = run.shared.config.database_version();
    if head.contents.version > supported {
        return Err(fail(3169, &[&head.contents.version, &supported]));
    }
    if matches!(job.end, End::Standby(_)) && head.contents.version < supported {
        return Err(fail(3180, &[]));
    }
    if job.checksum && !head.checksums {
        return Err(fail(3187, &[]));
    }
    if job.rows.is_some() && !head.damaged {
        return Ok(());
    }
    Err(damaged(head))
}

/// With checksums the server names a page, without it does not.
fn damaged(head: &SetHead) -> Stop {
    if head.checksums { fail(3183, &[&1, &16, &head.database]) } else { fail(3189, &[]) }
}

/// The branch of `forks` that holds `lsn`, if `fork` is that one.
fn is_on_path(forks: &[super::database::Fork], fork: Guid, lsn: Lsn) -> bool {
    let Some(at) = forks.iter().position(|own| own.guid == fork) else {
        return false;
    };
    let left = forks.get(at + 1).map(|next| next.start);
    left.is_none_or(|left| lsn <= left)
}
