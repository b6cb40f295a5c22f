//! Making one backup: natively onto a folder, or as a cut of the database's files with its record.
//!
//! A backup is good when its header was read back and says what was asked for.

use std::path::Path;

use super::super::super::Task;
use super::super::super::backups::{BackupDone, BackupKind, BackupTarget, Cut, PlannedBackup};
use super::super::chain::{Backup, Mark};
use super::super::client::Sql;
use super::super::config::{keep, read};
use super::super::errors::ErrorContext;
use super::super::files::{make_folder, open_folders};
use super::super::{chain, state, statements};
use super::config::Recorded;
use super::look::TakePlan;
use super::session::{Session, explained};
use super::{freeze, header};
use crate::base::{Error, OsUser, Result};

/// What the files of backups are called.
fn file_name(kind: BackupKind, of_cut: bool) -> &'static str {
    match (kind, of_cut) {
        (_, true) => "full.bkm",
        (BackupKind::Full, false) => "full.bak",
        (BackupKind::Differential, false) => "differential.bak",
        (BackupKind::Log, false) => "log.trn",
    }
}

pub(super) fn back_up(
    target: &BackupTarget<'_>,
    planned: &PlannedBackup,
    folder: &Path,
    cut: Option<Cut<'_>>,
    task: &mut dyn Task,
) -> Result<BackupDone> {
    let plan: TakePlan = read("the plan of a backup", &planned.plan)?;
    let mut session = Session::open(target)?;
    let user = OsUser::named(&session.config.user)?;
    make_folder(folder, &user)?;
    if let Some(above) = folder.parent() {
        open_folders(above, folder)?;
    }
    let path = folder.join(file_name(planned.kind, cut.is_some()));
    let label = format!("stillpoint {}", target.name);
    let database = planned.database.as_str();
    let root = cut.as_ref().map(|cut| cut.root.to_owned());
    let mut facts = Vec::new();
    match cut {
        Some(cut) => {
            let metadata = statements::backup::back_up_metadata(database, &path, &label);
            let held = freeze::cut(&mut session, database, &metadata, cut, task)?;
            facts.push(("writes held".to_owned(), held));
        }
        None => native(&mut session, planned, &plan, &path, &label, task)?,
    }
    task.step(&format!("read the backup of {database} back"))?;
    let zone_minutes = state::server(&mut session.sql)?.zone_minutes;
    let mut found = header::read(&mut session.sql, &path, zone_minutes)?;
    check(&found.backup, planned, &path)?;
    if planned.kind == BackupKind::Log && !plan.secondary {
        found.backup.marks = marks(&mut session.sql, database, &found.backup, zone_minutes)?;
    }
    if let Some(root) = &root {
        for file in &mut found.files {
            file.in_cut = Path::new(&file.physical).strip_prefix(root).ok().map(Path::to_owned);
        }
    }
    let size = std::fs::metadata(&path).map_err(|e| Error::io("look at", &path.display().to_string(), e))?;
    let file = (file_name(planned.kind, root.is_some()).to_owned(), size.len());
    task.log(&format!(
        "{} backup {} of {database}, LSN {} to {}, read by {}",
        found.backup.kind.word(),
        found.backup.id,
        found.backup.first_lsn,
        found.backup.last_lsn,
        found.read_by.join(" and ")
    ));
    facts.extend(facts_of(&found));
    let recorded = Recorded {
        backup: found.backup,
        database: found.database,
        server: found.server,
        version: found.version,
        bytes: found.bytes,
        files: found.files,
        zone_quarters: found.zone_quarters,
        recovery_model: plan.recovery_model,
        of_cut: root.is_some(),
        checksums: found.checksums,
        secondary: plan.secondary,
        read_by: found.read_by,
        seen: plan.seen,
        members: plan.members,
    };
    Ok(BackupDone { metadata: keep("the record of a backup", &recorded)?, files: vec![file], facts })
}

/// What people are shown of a backup.
fn facts_of(found: &header::Header) -> Vec<(String, String)> {
    let backup = &found.backup;
    let mut facts = vec![
        ("backup".to_owned(), backup.id.to_string()),
        ("first LSN".to_owned(), backup.first_lsn.to_string()),
        ("last LSN".to_owned(), backup.last_lsn.to_string()),
        ("recovery fork".to_owned(), backup.last_fork.to_string()),
        ("header read by".to_owned(), found.read_by.join(" and ")),
    ];
    facts.extend(backup.base_id.map(|base| ("base".to_owned(), base.to_string())));
    if backup.copy_only {
        facts.push(("copy only".to_owned(), "yes: no differential is based on it".to_owned()));
    }
    if !backup.marks.is_empty() {
        let names: Vec<&str> = backup.marks.iter().map(|mark| mark.name.as_str()).collect();
        facts.push(("marks".to_owned(), names.join(", ")));
    }
    facts
}

fn native(
    session: &mut Session,
    planned: &PlannedBackup,
    plan: &TakePlan,
    path: &Path,
    label: &str,
    task: &mut dyn Task,
) -> Result<()> {
    let database = planned.database.as_str();
    let sql = match planned.kind {
        BackupKind::Log => statements::backup::back_up_log(database, path, label),
        kind => {
            let differential = kind == BackupKind::Differential;
            statements::backup::back_up(database, path, differential, plan.copy_only, label)
        }
    };
    let context = ErrorContext {
        database: database.to_owned(),
        files: vec![path.display().to_string()],
        ..ErrorContext::default()
    };
    session.long(&sql, planned.estimated_bytes, task).map_err(|refusal| explained(refusal, &context))
}

/// Refuses a file that holds another kind of backup, or a damaged one.
fn check(found: &Backup, planned: &PlannedBackup, path: &Path) -> Result<()> {
    let wanted = match planned.kind {
        BackupKind::Full => chain::BackupKind::Full,
        BackupKind::Differential => chain::BackupKind::Differential,
        BackupKind::Log => chain::BackupKind::Log,
    };
    let shown = path.display();
    if found.kind != wanted {
        let kind = found.kind.word();
        return Err(Error::corrupt(format!("{shown} holds a {kind} backup, not a {}", wanted.word())));
    }
    if found.damaged {
        return Err(Error::corrupt(format!(
            "the backup in {shown} was made of a damaged database, so it is none to rely on"
        ))
        .with_hint(format!("check {} with DBCC CHECKDB", planned.database)));
    }
    Ok(())
}

/// The marked transactions of a log backup, with their times in UTC.
fn marks(sql: &mut Sql, database: &str, log: &Backup, zone_minutes: i64) -> Result<Vec<Mark>> {
    let asked = statements::backup::marks(database, log.first_lsn.numeric(), log.last_lsn.numeric());
    let mut marks = Vec::new();
    for row in sql.rows(&asked)? {
        let (Some(name), Some(lsn), Some(local)) =
            (row.text("mark_name")?, row.lsn("lsn")?, row.time("mark_time")?)
        else {
            continue;
        };
        marks.push(Mark { name, lsn, ms: local - zone_minutes * 60_000 });
    }
    Ok(marks)
}
