//! Restores: from restore points and a target to RESTORE statements, as a database or as its files.
//!
//! Plans are `plan`'s; here they become statements, files get their places, and what a restore left that did not end is
//! taken away. A database is never replaced unless that was asked for.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::super::super::Task;
use super::super::super::backups::{
    BackupMade, BackupTarget, CutCopy, RestoreAsk, RestoreForm, RestorePlanned, RestoreTo,
};
use super::super::chain::{Backup, Chain};
use super::super::config::{keep, read};
use super::super::plan::{Leave, RestorePlan, RestoreTarget};
use super::super::{files, state, statements};
use super::config::{BackupConfig, Recorded};
use super::look::{Known, known};
use super::sequence::{Places, Sequence};
use super::session::{self, Session};
use crate::base::{Error, ErrorKind, OsUser, Result};

/// Stands before the name of a database that is made for its files only.
const TEMPORARY: &str = "Rst_";

/// A plan as it is kept until it is carried out.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    plan: RestorePlan,
    /// Restore points by place in the plan.
    points: Vec<u64>,
    form: Form,
    replace: bool,
    folder: Option<PathBuf>,
    database: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Form {
    Database { name: String, undo: Option<String> },
    Files(PathBuf),
}

/// The backups of a database by its name now or once: all of its families.
fn of_database<'a>(all: &'a [Known<'a>], database: &str) -> Vec<&'a Known<'a>> {
    let named = |one: &&Known<'_>| one.recorded.database.eq_ignore_ascii_case(database);
    let families: Vec<_> = all.iter().filter(named).map(|one| one.recorded.backup.family_id).collect();
    all.iter().filter(|one| named(one) || families.contains(&one.recorded.backup.family_id)).collect()
}

/// The backups of one database as a chain, the stripes by their paths.
pub(super) fn chain_of(all: &[&Known<'_>]) -> Chain {
    let with_paths = |one: &&Known<'_>| {
        let mut backup: Backup = one.recorded.backup.clone();
        for stripe in &mut backup.stripes {
            stripe.file = one.made.folder.join(&stripe.file).display().to_string();
        }
        backup
    };
    Chain::new(all.iter().map(with_paths).collect())
}

pub(super) fn chain(made: &[BackupMade], database: &str) -> Result<Chain> {
    let all = known(made)?;
    Ok(chain_of(&of_database(&all, database)))
}

fn moment(text: &str) -> Result<i64> {
    let time: Timestamp = text
        .parse()
        .map_err(|_| Error::invalid(format!("{text:?} is no time: write it as 2026-11-21T14:03:00+01:00")))?;
    Ok(time.as_millisecond())
}

fn target_of(ask: &RestoreAsk, all: &[&Known<'_>]) -> Result<RestoreTarget> {
    Ok(match &ask.to {
        RestoreTo::Newest => RestoreTarget::Newest,
        RestoreTo::Point(id) => {
            let found = all.iter().find(|one| one.made.id == *id);
            let found =
                found.ok_or_else(|| Error::not_found(format!("there is no restore point {id} of it")))?;
            RestoreTarget::Backup(found.recorded.backup.id)
        }
        RestoreTo::Time(text) => RestoreTarget::Time(moment(text)?),
        RestoreTo::Lsn(text) => RestoreTarget::Lsn { lsn: text.parse()?, fork: None },
        RestoreTo::Mark { name, before, after } => RestoreTarget::Mark {
            name: name.clone(),
            after_ms: after.as_deref().map(moment).transpose()?,
            before: *before,
        },
    })
}

pub(super) fn plan(
    target: &BackupTarget<'_>,
    made: &[BackupMade],
    ask: &RestoreAsk,
) -> Result<RestorePlanned> {
    let config = session::config(target)?;
    let all = known(made)?;
    let own = of_database(&all, &ask.database);
    if own.is_empty() {
        return Err(Error::not_found(format!("{} has no restore point of {}", target.name, ask.database)));
    }
    let form = form_of(ask, &config)?;
    let leave = match &form {
        Form::Database { undo: Some(undo), .. } => Leave::Standby(undo.clone()),
        _ => Leave::Recovered,
    };
    let zone = own.last().and_then(|one| one.recorded.zone_quarters).unwrap_or_default();
    let zone =
        i32::try_from(zone * 15 * 60).ok().and_then(|seconds| jiff::tz::Offset::from_seconds(seconds).ok());
    let zone = zone.map_or(TimeZone::UTC, TimeZone::fixed);
    let chain = chain_of(&own);
    let found = chain.plan(&target_of(ask, &own)?, &leave);
    let plan = found.map_err(|refusal| refusal.about(&ask.database, &zone))?;
    let mut points = Vec::new();
    for step in &plan.steps {
        let of = own.iter().find(|one| one.recorded.backup.id == step.backup);
        let of = of.ok_or_else(|| Error::corrupt(format!("backup {} is not recorded", step.backup)))?;
        points.push(of.made.id);
    }
    let first = own.iter().find(|one| Some(&one.made.id) == points.first());
    let of_cut = first.is_some_and(|one| one.recorded.of_cut);
    let mut text: Vec<String> = plan.describe(&zone).lines().map(str::to_owned).collect();
    text.insert(0, shown(&form, ask));
    if ask.to == RestoreTo::Newest {
        // The newest that can be reached may not be the newest there is.
        let end = plan.steps.last().map(|step| step.last_lsn).unwrap_or_default();
        let beyond = chain.gaps().into_iter().filter(|gap| gap.to > end);
        text.extend(beyond.map(|gap| format!("not reached: {}", gap.describe(&zone))));
    }
    let copy = match &form {
        Form::Database { .. } => Some(CutCopy::Stays),
        // The files of a cut alone are taken as they are.
        Form::Files(_) if plan.steps.len() > 1 => Some(CutCopy::Meanwhile),
        Form::Files(_) => None,
    };
    let copy = copy.filter(|_| of_cut);
    let kept = Kept {
        plan,
        points: points.clone(),
        form,
        replace: ask.replace,
        folder: ask.folder.clone(),
        database: ask.database.clone(),
    };
    Ok(RestorePlanned { points, copy, text, plan: keep("the plan of a restore", &kept)? })
}

fn form_of(ask: &RestoreAsk, config: &BackupConfig) -> Result<Form> {
    Ok(match &ask.form {
        RestoreForm::Files(folder) => {
            if !folder.is_absolute() {
                return Err(Error::invalid("name the folder for the files by its whole path"));
            }
            Form::Files(folder.clone())
        }
        RestoreForm::Database { name, standby } => {
            super::super::adapter::check_name(name)?;
            let folder = ask.folder.as_ref().unwrap_or(&config.data_folder);
            let undo = standby.then(|| folder.join(format!("{name}.undo")).display().to_string());
            Form::Database { name: name.clone(), undo }
        }
    })
}

fn shown(form: &Form, ask: &RestoreAsk) -> String {
    match form {
        Form::Database { name, undo } => {
            let how = if undo.is_some() { ", left in STANDBY" } else { "" };
            let over = if ask.replace { ", replacing the one of that name" } else { "" };
            format!("{} as database {name}{how}{over}", ask.database)
        }
        Form::Files(folder) => format!(
            "{} as files in {}, through the temporary database {TEMPORARY}{} unless they are a cut as they are",
            ask.database,
            folder.display(),
            ask.database
        ),
    }
}

pub(super) fn restore(
    target: &BackupTarget<'_>,
    made: &[BackupMade],
    planned: &RestorePlanned,
    copy: Option<&Path>,
    task: &mut dyn Task,
) -> Result<Vec<(String, String)>> {
    let kept: Kept = read("the plan of a restore", &planned.plan)?;
    let all = known(made)?;
    let of = |id: &u64| {
        all.iter()
            .find(|one| one.made.id == *id)
            .ok_or_else(|| Error::not_found(format!("restore point {id} is gone")))
    };
    let steps: Vec<&Known<'_>> = kept.points.iter().map(of).collect::<Result<_>>()?;
    match kept.form.clone() {
        Form::Files(folder) => as_files(target, &kept, &steps, copy, &folder, task),
        Form::Database { name, undo } => {
            let mut session = Session::open(target)?;
            let there = state::database(&mut session.sql, &name, Path::new("/"))?;
            check_replaceable(&kept, &name, there.is_some())?;
            let folder = kept.folder.clone();
            let keeps = there.is_some() && name.eq_ignore_ascii_case(&kept.database) && folder.is_none();
            let places =
                if keeps { Places::AsTheyAre } else { Places::of(&session.config, folder.as_deref(), &name) };
            let run = Sequence {
                plan: &kept.plan,
                steps: &steps,
                name: &name,
                replace: kept.replace,
                places,
                copy,
            };
            let ended = run.carry_out(&mut session, task);
            if let Err(e) = ended {
                take_back(target, &name, there.is_some(), task);
                return Err(e);
            }
            let state = state::database(&mut session.sql, &name, Path::new("/"))?;
            let state = state.map_or_else(|| "gone".to_owned(), |found| found.shown());
            let wanted = if undo.is_some() { "STANDBY" } else { "ONLINE" };
            if state != wanted {
                return Err(Error::new(
                    ErrorKind::Failed,
                    format!("{name} is {state} after the restore, and not {wanted}"),
                ));
            }
            task.log(&format!("{name} is {state}"));
            Ok(vec![("database".to_owned(), name), ("state".to_owned(), state)])
        }
    }
}

fn check_replaceable(kept: &Kept, name: &str, is_there: bool) -> Result<()> {
    if !is_there || kept.replace {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Exists, format!("the instance has a database {name} already"))
        .with_hint("choose another name, or replace it with --replace: what it holds now is lost"))
}

/// Takes away what a restore left that did not end; a database that was there before stays, as RESTORING as it is.
fn take_back(target: &BackupTarget<'_>, name: &str, was_there: bool, task: &mut dyn Task) {
    if was_there {
        task.warn(&format!("{name} may be left RESTORING: restore it again, from its full backup"));
        return;
    }
    let dropped = Session::open(target).and_then(|mut session| {
        match state::database(&mut session.sql, name, Path::new("/"))? {
            Some(_) => session.sql.change(&statements::drop(name)).map_err(Error::from),
            None => Ok(()),
        }
    });
    if let Err(e) = dropped {
        task.warn(&format!("the unfinished database {name} is still on the instance: {e}"));
    }
}

/// A database's files, closed in order, in a folder.
fn as_files(
    target: &BackupTarget<'_>,
    kept: &Kept,
    steps: &[&Known<'_>],
    copy: Option<&Path>,
    folder: &Path,
    task: &mut dyn Task,
) -> Result<Vec<(String, String)>> {
    if let ([one], Some(cut)) = (steps, steps.first().and_then(|one| one.made.cut.as_ref()))
        && one.recorded.of_cut
        && kept.plan.steps.iter().all(|step| step.stop.is_none())
    {
        task.step("copy the files of the cut")?;
        copy_cut(&one.recorded, cut, folder, task)?;
        return Ok(vec![("files".to_owned(), folder.display().to_string())]);
    }
    let name = format!("{TEMPORARY}{}", kept.database);
    let mut session = Session::open(target)?;
    if state::database(&mut session.sql, &name, Path::new("/"))?.is_some() {
        return Err(Error::new(
            ErrorKind::Exists,
            format!("the instance has a database {name}, as another restore of files makes it"),
        )
        .with_hint("wait until that has ended, or drop it"));
    }
    let user = OsUser::named(&session.config.user)?;
    let is_new = !folder.exists();
    if is_new {
        files::make_folder(folder, &user)?;
    }
    let places = Places::In { data: folder.to_owned(), logs: folder.to_owned(), name: kept.database.clone() };
    let run = Sequence { plan: &kept.plan, steps, name: &name, replace: false, places, copy };
    let ended = run.carry_out(&mut session, task).and_then(|()| {
        task.step("close the files and forget the temporary database")?;
        let found = state::database(&mut session.sql, &name, Path::new("/"))?;
        session.sql.change(&statements::single_user(&name))?;
        session.sql.change(&statements::detach(&name))?;
        Ok(found.map(|found| found.files).unwrap_or_default())
    });
    match ended {
        Ok(found) => {
            if copy.is_some() {
                for (_, path) in &found {
                    bring(path, folder)?;
                }
            }
            Ok(vec![("files".to_owned(), folder.display().to_string())])
        }
        Err(e) => {
            take_back(target, &name, false, task);
            Err(e)
        }
    }
}

/// Copies one file into a folder.
fn bring(path: &Path, folder: &Path) -> Result<()> {
    let name = path.file_name().unwrap_or_default();
    let to = folder.join(name);
    std::fs::copy(path, &to)
        .and_then(|_| std::fs::File::open(&to)?.sync_all())
        .map_err(|e| Error::io("copy", &path.display().to_string(), e))
}

fn copy_cut(recorded: &Recorded, cut: &Path, folder: &Path, task: &mut dyn Task) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io("create", &folder.display().to_string(), e))?;
    for file in &recorded.files {
        task.check()?;
        let Some(inside) = &file.in_cut else { continue };
        // A folder of FILESTREAM or memory-optimized data is more than one file.
        let from = cut.join(inside);
        match from.is_dir() {
            true => files::export(&from, &folder.join(inside.file_name().unwrap_or_default()), task)?,
            false => bring(&from, folder)?,
        }
    }
    Ok(())
}
