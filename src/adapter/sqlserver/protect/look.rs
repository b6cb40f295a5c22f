//! What an instance has to back up: which databases, of what kind a backup of each is to be, and why.
//!
//! Nothing is changed here. Facts come from the instance and from what was recorded; the decision is `convert`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::super::backups::{
    BackupHistory, BackupKind, BackupMade, BackupPlan, BackupTarget, Conversion, PlannedBackup,
};
use super::super::client::Sql;
use super::super::config::{FileKind, keep, read};
use super::super::convert::{FileSeen, LastFull, SeenNow, full_reasons};
use super::super::page::PAGE_BYTES;
use super::super::{Guid, state, statements, tape};
use super::config::{BackupConfig, Recorded};
use super::session::Session;
use crate::base::{Error, ErrorKind, Result};

/// The first version that can hold a database's writes for a cut: SQL Server 2022.
const SUSPENDS_SINCE: u32 = 16;
const SYSTEM: [&str; 4] = ["master", "model", "msdb", "tempdb"];

/// A database as the instance tells of it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub id: i64,
    pub name: String,
    pub state: String,
    pub standby: bool,
    pub recovery_model: String,
    pub family: Option<Guid>,
    pub files: BTreeMap<Guid, FileSeen>,
    pub data_bytes: u64,
    pub log_bytes: u64,
    pub secondary: bool,
}

/// What `back_up` needs to know of what was seen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct TakePlan {
    pub copy_only: bool,
    pub secondary: bool,
    pub recovery_model: String,
    pub seen: BTreeMap<Guid, FileSeen>,
    pub members: BTreeSet<String>,
}

impl Seen {
    fn is_system(&self) -> bool {
        SYSTEM.contains(&self.name.to_lowercase().as_str())
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.files.values().map(|file| PathBuf::from(&file.physical_name)).collect()
    }

    fn folders(&self) -> Vec<PathBuf> {
        let folders = self.paths().iter().filter_map(|path| path.parent().map(PathBuf::from)).collect();
        let distinct: BTreeSet<PathBuf> = folders;
        distinct.into_iter().collect()
    }
}

/// The databases that a set has now, tempdb never. Renamed ones are found by their family.
pub(super) struct Members {
    pub seen: Vec<Seen>,
    /// New names by old ones.
    pub renamed: BTreeMap<String, String>,
    /// Names that were asked for and are not there.
    pub missing: Vec<String>,
}

pub(super) fn members(
    sql: &mut Sql,
    config: &BackupConfig,
    families: &BTreeMap<Guid, BTreeSet<String>>,
) -> Result<Members> {
    let secondaries: BTreeSet<String> = sql
        .rows(statements::backup::SECONDARIES)?
        .iter()
        .map(|row| row.text("name").map(Option::unwrap_or_default))
        .collect::<Result<_>>()?;
    let mut all = Vec::new();
    for row in sql.rows(statements::backup::DATABASES)? {
        let text = |name: &str| row.text(name).map(Option::unwrap_or_default);
        let name = text("name")?;
        if name.eq_ignore_ascii_case("tempdb") {
            continue;
        }
        all.push(Seen {
            id: row.integer("database_id")?.unwrap_or_default(),
            secondary: secondaries.contains(&name),
            state: text("state_desc")?,
            standby: row.flag("is_in_standby")?,
            recovery_model: text("recovery_model_desc")?,
            family: row.guid("family_guid")?,
            files: BTreeMap::new(),
            data_bytes: 0,
            log_bytes: 0,
            name,
        });
    }
    let there: BTreeSet<String> = all.iter().map(|seen| seen.name.clone()).collect();
    let mut renamed = BTreeMap::new();
    for seen in &all {
        let names = seen.family.and_then(|family| families.get(&family));
        for old in names.into_iter().flatten().filter(|old| !there.contains(*old)) {
            renamed.insert(old.clone(), seen.name.clone());
        }
    }
    let now_called = |name: &String| renamed.get(name).unwrap_or(name).clone();
    let wanted: BTreeSet<String> = config.databases.iter().map(now_called).collect();
    let excluded: BTreeSet<String> = config.excluded.iter().map(now_called).collect();
    let missing = wanted.iter().filter(|name| !there.contains(*name)).cloned().collect();
    let mut seen: Vec<Seen> = all;
    seen.retain(|seen| {
        let chosen = wanted.is_empty() || wanted.contains(&seen.name);
        chosen && !excluded.contains(&seen.name)
    });
    for one in &mut seen {
        add_files(sql, one)?;
    }
    Ok(Members { seen, renamed, missing })
}

fn add_files(sql: &mut Sql, seen: &mut Seen) -> Result<()> {
    for row in sql.rows(&statements::backup::bases(seen.id))? {
        let kind = FileKind::of(row.integer("type")?.unwrap_or_default())?;
        let pages = u64::try_from(row.integer("size")?.unwrap_or_default()).unwrap_or_default();
        let bytes = pages * PAGE_BYTES as u64;
        let is_log = kind == FileKind::Log;
        *(if is_log { &mut seen.log_bytes } else { &mut seen.data_bytes }) += bytes;
        let Some(guid) = row.guid("file_guid")? else { continue };
        let base_lsn = row.lsn("differential_base_lsn")?.filter(|lsn| !lsn.is_zero());
        seen.files.insert(
            guid,
            FileSeen {
                logical_name: row.text("name")?.unwrap_or_default(),
                physical_name: row.text("physical_name")?.unwrap_or_default(),
                size_bytes: bytes,
                has_base: (!is_log).then_some(base_lsn.is_some()),
                base_id: row.guid("differential_base_guid")?,
            },
        );
    }
    Ok(())
}

/// A backup that was made, read.
pub(super) struct Known<'a> {
    pub made: &'a BackupMade,
    pub recorded: Recorded,
}

pub(super) fn known(made: &[BackupMade]) -> Result<Vec<Known<'_>>> {
    let read =
        |made| Ok(Known { made, recorded: read(&format!("restore point {}", made.id), &made.metadata)? });
    made.iter().map(read).collect()
}

/// What a run of this kind would make now.
pub(super) fn plan(
    target: &BackupTarget<'_>,
    kind: BackupKind,
    history: &BackupHistory,
) -> Result<BackupPlan> {
    let known = known(&history.made)?;
    let mut session = Session::open(target)?;
    let major = state::server(&mut session.sql)?.major();
    let mut families: BTreeMap<Guid, BTreeSet<String>> = BTreeMap::new();
    for one in known.iter().map(|one| &one.recorded) {
        families.entry(one.backup.family_id).or_default().insert(one.database.clone());
    }
    let found = members(&mut session.sql, &session.config, &families)?;
    let names: BTreeSet<String> = found.seen.iter().map(|seen| seen.name.clone()).collect();
    let mut plan = BackupPlan { members: names, ..BackupPlan::default() };
    for name in &found.missing {
        plan.left_out.push(format!("{name}: there is no such database on the instance"));
    }
    for seen in &found.seen {
        match one(seen, kind, history, &known, &found, major) {
            Ok(planned) => plan.backups.push(planned),
            Err(Left::Unready(why)) => plan.left_out.push(format!("{}: {why}", seen.name)),
            Err(Left::Never(why)) => plan.notes.push(format!("{}: {why}", seen.name)),
            Err(Left::Failed(e)) => return Err(e),
        }
    }
    if kind == BackupKind::Log && found.seen.iter().any(|seen| seen.secondary) {
        plan.notes
            .push("log backups of a secondary replica have no marks: restore by time or LSN instead".into());
    }
    Ok(plan)
}

/// Why a database is left out.
enum Left {
    /// It should be backed up and cannot be now.
    Unready(String),
    /// It has no backup of this kind.
    Never(String),
    Failed(Error),
}

impl From<Error> for Left {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

fn one(
    seen: &Seen,
    kind: BackupKind,
    history: &BackupHistory,
    known: &[Known<'_>],
    found: &Members,
    major: u32,
) -> std::result::Result<PlannedBackup, Left> {
    if seen.state != "ONLINE" || seen.standby {
        let state = if seen.standby { "in STANDBY" } else { seen.state.as_str() };
        return Err(Left::Unready(format!("it is {state}, and only an ONLINE database is backed up")));
    }
    let own: Vec<&Known<'_>> = known.iter().filter(|one| is_of(one, seen)).collect();
    let full =
        own.iter().rfind(|one| one.made.kind == BackupKind::Full && !one.recorded.backup.copy_only).copied();
    let any_full = own.iter().any(|one| one.made.kind == BackupKind::Full);
    let (mut made, mut conversions) = (kind, Vec::new());
    match kind {
        BackupKind::Log if seen.recovery_model == "SIMPLE" => {
            return Err(Left::Never("it has no log backups, as its recovery model is simple".into()));
        }
        BackupKind::Log if seen.name.eq_ignore_ascii_case("master") => {
            return Err(Left::Never("SQL Server makes no log backups of master".into()));
        }
        BackupKind::Log if !any_full => {
            return Err(Left::Unready(
                "no full backup of it has been completed, so there is no log backup yet".into(),
            ));
        }
        BackupKind::Differential => {
            let newest = own.iter().rfind(|one| one.made.kind != BackupKind::Log).copied();
            conversions = conversions_of(seen, history, full, newest, found);
            if !conversions.is_empty() {
                made = BackupKind::Full;
            }
        }
        _ => {}
    }
    let take = TakePlan {
        copy_only: seen.secondary && made == BackupKind::Full,
        secondary: seen.secondary,
        recovery_model: seen.recovery_model.clone(),
        seen: seen.files.clone(),
        members: found.seen.iter().map(|seen| seen.name.clone()).collect(),
    };
    Ok(PlannedBackup {
        database: seen.name.clone(),
        kind: made,
        conversions,
        filesets: seen.folders(),
        files: seen.paths(),
        suspends: made == BackupKind::Full && major >= SUSPENDS_SINCE && !seen.is_system() && !seen.secondary,
        estimated_bytes: if made == BackupKind::Log { seen.log_bytes } else { seen.data_bytes },
        plan: keep("the plan of a backup", &take)?,
    })
}

/// Whether a backup is of this database: of its family, or of its name where the family is not told.
fn is_of(one: &Known<'_>, seen: &Seen) -> bool {
    match (seen.family, one.recorded.backup.family_id.known()) {
        (Some(family), Some(known)) => family == known,
        _ => one.recorded.database == seen.name,
    }
}

fn conversions_of(
    seen: &Seen,
    history: &BackupHistory,
    full: Option<&Known<'_>>,
    newest: Option<&Known<'_>>,
    found: &Members,
) -> Vec<Conversion> {
    let name = &seen.name;
    let mut files = full.map(|full| full.recorded.seen.clone()).unwrap_or_default();
    // Smaller than at the newest full or differential is shrunk, also when it had grown since the full.
    for (guid, file) in &mut files {
        if let Some(later) = newest.and_then(|newest| newest.recorded.seen.get(guid)) {
            file.size_bytes = file.size_bytes.max(later.size_bytes);
        }
    }
    let last = LastFull {
        id: full.map(|full| full.recorded.backup.id),
        database: full.map_or_else(|| name.clone(), |full| full.recorded.database.clone()),
        files,
        // A renamed database is the same member.
        members: full.map_or_else(BTreeSet::new, |full| {
            let now = |old: &String| found.renamed.get(old).unwrap_or(old).clone();
            full.recorded.members.iter().map(now).collect()
        }),
        failed: history.failed_fulls.get(name).cloned(),
    };
    let now = SeenNow {
        database: name.clone(),
        files: seen.files.clone(),
        members: found.seen.iter().map(|seen| seen.name.clone()).collect(),
        secondary_replica: seen.secondary,
        inconsistent: full.and_then(disagrees),
        changes_lost: history.changes_lost.get(name).cloned(),
    };
    let reasons = full_reasons(&last, &now);
    let shown = reasons.iter();
    shown.map(|reason| Conversion { code: reason.code().to_owned(), text: reason.to_string() }).collect()
}

/// How the stored files of a full and what is recorded of them disagree, if they do.
pub(super) fn disagrees(known: &Known<'_>) -> Option<String> {
    let recorded = &known.recorded;
    for stripe in &recorded.backup.stripes {
        let path = known.made.folder.join(&stripe.file);
        if !path.is_file() {
            return Some(format!("{} is not there", path.display()));
        }
        let Ok(found) = tape::read_file(&path) else { continue };
        if found.sets.iter().all(|set| set.id != recorded.backup.id) {
            return Some(format!("{} holds another backup than {}", path.display(), recorded.backup.id));
        }
    }
    let cut = known.made.cut.as_ref()?;
    let missing = recorded.files.iter().filter_map(|file| file.in_cut.as_ref()).map(|path| cut.join(path));
    missing.into_iter().find(|path| !path.exists()).map(|path| format!("{} is not there", path.display()))
}

/// Refuses a run that would make nothing.
pub(super) fn check_some(plan: &BackupPlan, name: &str, kind: BackupKind) -> Result<()> {
    if !plan.backups.is_empty() {
        return Ok(());
    }
    let whys: Vec<&str> = plan.left_out.iter().chain(&plan.notes).map(String::as_str).collect();
    Err(Error::new(
        ErrorKind::Precondition,
        format!("{name} has no database for a {} backup: {}", kind.name(), whys.join("; ")),
    ))
}
