//! The RESTORE statements of one plan, and where the files of the database go that they make.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::super::Task;
use super::super::chain::BackupKind;
use super::super::errors::ErrorContext;
use super::super::plan::{Leave, RestorePlan, Stop};
use super::super::statements;
use super::super::statements::backup::{Left, Restore, stop_at, stop_mark};
use super::config::{BackupConfig, Recorded};
use super::look::Known;
use super::session::{Session, explained};
use crate::base::Result;

/// Where the files of a restored database go.
pub(super) enum Places {
    /// Where they are: the database is replaced.
    AsTheyAre,
    /// Folders for data and logs, and what file names begin with.
    In { data: PathBuf, logs: PathBuf, name: String },
}

impl Places {
    pub(super) fn of(config: &BackupConfig, folder: Option<&Path>, name: &str) -> Self {
        let or = |own: &Path| folder.unwrap_or(own).to_owned();
        Self::In { data: or(&config.data_folder), logs: or(&config.log_folder), name: name.to_owned() }
    }

    /// MOVE of each file. Two files of one name get apart by their numbers.
    fn moves(&self, recorded: &Recorded, copy: Option<&Path>) -> Vec<(String, String)> {
        let mut taken: BTreeMap<String, ()> = BTreeMap::new();
        let mut moves = Vec::new();
        for file in &recorded.files {
            let in_copy = copy.zip(file.in_cut.as_ref()).map(|(copy, path)| copy.join(path));
            let place = match (in_copy, self) {
                (Some(place), _) => place,
                (None, Self::AsTheyAre) => continue,
                (None, Self::In { data, logs, name }) => {
                    let (folder, ending) = match file.kind.as_str() {
                        "L" => (logs, "ldf"),
                        _ if file.id == 1 => (data, "mdf"),
                        "D" => (data, "ndf"),
                        _ => (data, "data"),
                    };
                    let base = format!("{name}_{}", plain(&file.logical));
                    let file_name = match taken.insert(base.to_lowercase(), ()) {
                        None => format!("{base}.{ending}"),
                        Some(()) => format!("{base}_{}.{ending}", file.id),
                    };
                    folder.join(file_name)
                }
            };
            moves.push((file.logical.clone(), place.display().to_string()));
        }
        moves
    }
}

/// A logical name as part of a file's.
fn plain(logical: &str) -> String {
    logical.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect()
}

/// The RESTORE statements of one plan.
pub(super) struct Sequence<'a> {
    pub plan: &'a RestorePlan,
    pub steps: &'a [&'a Known<'a>],
    pub name: &'a str,
    pub replace: bool,
    pub places: Places,
    pub copy: Option<&'a Path>,
}

impl Sequence<'_> {
    pub(super) fn carry_out(&self, session: &mut Session, task: &mut dyn Task) -> Result<()> {
        for (at, (step, known)) in self.plan.steps.iter().zip(self.steps).enumerate() {
            let recorded = &known.recorded;
            let number = format!("{} of {}", at + 1, self.steps.len());
            task.step(&format!("restore {} backup {} ({number})", step.kind.word(), step.backup))?;
            let files: Vec<String> = step
                .files
                .iter()
                .map(|stripe| {
                    // Of now: a restore point may have moved to another place since the plan was shown.
                    let name = Path::new(&stripe.file).file_name().unwrap_or_default();
                    known.made.folder.join(name).display().to_string()
                })
                .collect();
            let moves = if at == 0 { self.places.moves(recorded, self.copy) } else { Vec::new() };
            let sql = statements::backup::restore(&Restore {
                database: self.name,
                is_log: step.kind == BackupKind::Log,
                files: &files,
                position: step.position,
                left: match &step.leave {
                    Leave::Recovered => Left::Recovered,
                    Leave::NoRecovery => Left::Restoring,
                    Leave::Standby(undo) => Left::Standby(undo.clone()),
                },
                replace: at == 0 && self.replace,
                checksums: recorded.checksums && !recorded.of_cut,
                of_cut: recorded.of_cut.then_some(recorded.database.as_str()),
                moves: &moves,
                stop: step.stop.as_ref().map(|stop| stop_clause(stop, recorded)),
            });
            let run = session.long(&sql, recorded.bytes, task);
            run.map_err(|refusal| {
                let context = self.context(session, at, &files, refusal.number);
                explained(refusal, &context)
            })?;
        }
        Ok(())
    }

    fn context(
        &self,
        session: &mut Session,
        at: usize,
        files: &[String],
        number: Option<u32>,
    ) -> ErrorContext {
        let file_of = |at: usize| self.plan.steps.get(at)?.files.first().map(|stripe| stripe.file.clone());
        let in_use = number == Some(3101);
        ErrorContext {
            database: self.name.to_owned(),
            files: files.to_vec(),
            data_folder: match &self.places {
                Places::AsTheyAre => None,
                Places::In { data, .. } => Some(data.display().to_string()),
            },
            sessions: if in_use { session.holders(self.name) } else { Vec::new() },
            base: file_of(0),
            needed_log: at.checked_sub(1).and_then(file_of),
            missing_stripes: Vec::new(),
        }
    }
}

fn stop_clause(stop: &Stop, recorded: &Recorded) -> String {
    match stop {
        Stop::At(ms) => stop_at(&recorded.local_time(*ms)),
        Stop::AtMark { name, after_ms } => stop_mark(name, false, Some(&recorded.local_time(*after_ms))),
        Stop::BeforeMark { name, after_ms } => stop_mark(name, true, Some(&recorded.local_time(*after_ms))),
        Stop::BeforeLsn(lsn) => stop_mark(&format!("lsn:{lsn}"), true, None),
    }
}
