//! `stillpoint backup-file`: land, join, show. Works on paths, without a store and without a daemon.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde::Serialize;

use super::context::Context;
use super::exit::{Failure, Outcome, Result};
use super::output::{Show, Table};
use super::progress::ProgressLine;
use super::signals::Interrupted;
use super::sizes::format_bytes;
use crate::adapter::Task;
use crate::adapter::sqlserver::landing::{self, FOLDER_ENDING, Landed, LandedFile, Landing, Original};
use crate::adapter::sqlserver::tape::{self, BackupFile, BackupSet};
use crate::base::{Error, ErrorKind};
use crate::control::Progress;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Store native SQL Server backups so that pages stored already take no room again
    ///
    /// Makes of each FILE a folder FILE.landed with its database pages in one file, on the block grid of the volume, and everything
    /// else in another. Compressed, encrypted, damaged and foreign files stay as they are, and the exit status is 3 then.
    Land {
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The folder, on a volume, to make them in; else beside each file
        #[arg(long, value_name = "FOLDER")]
        to: Option<PathBuf>,
        /// Remove each file when its landed form is durable and was read back
        #[arg(long)]
        remove: bool,
    },
    /// Put a landed backup together again, byte for byte
    Join {
        /// What `land` made
        folder: PathBuf,
        /// The file to make; else the folder's name without its ending, beside it
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Show what backup files, landed or not, hold; no server is asked
    Show {
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

pub(super) fn run(command: Command, context: &Context) -> Result<Outcome> {
    match command {
        Command::Land { files, to, remove } => {
            let original = if remove { Original::Remove } else { Original::Keep };
            let mut task = Watched::new()?;
            let mut report = Report { files: Vec::new() };
            for file in files {
                let place = landing_place(&file, to.as_deref())?;
                let found = landing::land(&file, &place, original, &mut task);
                report.files.push(Line::new(file, found.inspect_err(|_| task.line.clear())?));
            }
            task.line.clear();
            context.output.show(&report)?;
            let kept = report.files.iter().any(|line| line.kept.is_some());
            Ok(if kept { Outcome::Warnings } else { Outcome::Done })
        }
        Command::Join { folder, to } => {
            let to = to.map_or_else(|| joined_place(&folder), Ok)?;
            let mut task = Watched::new()?;
            let landed = landing::put_together(&folder, &to, &mut task)?;
            task.line.clear();
            context.output.show(&Joined { file: to, length: landed.length, hash: landed.hash })?;
            Ok(Outcome::Done)
        }
        Command::Show { files } => {
            let shown = files.iter().map(|path| Shown::read(path)).collect::<Result<Vec<_>>>()?;
            context.output.show(&Listing { files: shown })?;
            Ok(Outcome::Done)
        }
    }
}

/// Where a file's landed form goes.
fn landing_place(file: &Path, to: Option<&Path>) -> Result<PathBuf> {
    let name = file
        .file_name()
        .ok_or_else(|| Failure::new(ErrorKind::Invalid, format!("{} is no file", file.display())))?;
    let mut name = name.to_owned();
    name.push(FOLDER_ENDING);
    Ok(match to {
        Some(folder) => folder.join(name),
        None => file.with_file_name(name),
    })
}

fn joined_place(folder: &Path) -> Result<PathBuf> {
    let name =
        folder.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(FOLDER_ENDING));
    let name = name.filter(|name| !name.is_empty()).ok_or_else(|| {
        Failure::new(ErrorKind::Invalid, format!("the file of {} has no name", folder.display()))
            .hint("name it with --to")
    })?;
    Ok(folder.with_file_name(name))
}

/// Shows progress, and ends at a signal.
struct Watched {
    line: ProgressLine,
    step: String,
    interrupted: Interrupted,
}

impl Watched {
    fn new() -> Result<Self> {
        Ok(Self { line: ProgressLine::new(), step: String::new(), interrupted: Interrupted::watch()? })
    }
}

impl Task for Watched {
    fn step(&mut self, name: &str) -> crate::base::Result<()> {
        name.clone_into(&mut self.step);
        self.check()
    }

    fn bytes(&mut self, done: u64, total: Option<u64>) {
        self.line.update(&Progress { step: self.step.clone(), done, total });
    }

    /// What it says the report says, too.
    fn log(&mut self, _line: &str) {}

    fn warn(&mut self, line: &str) {
        self.line.clear();
        eprintln!("stillpoint: {line}");
    }

    fn check(&self) -> crate::base::Result<()> {
        match self.interrupted.is_set() {
            true => Err(Error::new(ErrorKind::Cancelled, "interrupted")
                .with_hint("run it again: what is there is taken up")),
            false => Ok(()),
        }
    }
}

/// One file that was to be landed.
#[derive(Serialize)]
struct Line {
    file: PathBuf,
    landed: Option<Landed>,
    /// Why it stays as it is.
    kept: Option<String>,
}

impl Line {
    fn new(file: PathBuf, landing: Landing) -> Self {
        match landing {
            Landing::Landed(landed) => Self { file, landed: Some(landed), kept: None },
            Landing::Kept(why) => Self { file, landed: None, kept: Some(why) },
        }
    }
}

#[derive(Serialize)]
struct Report {
    files: Vec<Line>,
}

impl Show for Report {
    fn table(&self) -> Table {
        let mut table = Table::new(&["FILE", ">SIZE", ">PAGES", ">FRAME", "LANDED AS"]);
        for line in &self.files {
            let (size, pages, frame, place) = match (&line.landed, &line.kept) {
                (Some(landed), _) => (
                    format_bytes(landed.length),
                    landed.pages.to_string(),
                    format_bytes(landed.frame_bytes),
                    landed.folder.display().to_string(),
                ),
                (None, why) => {
                    let why = why.as_deref().unwrap_or_default();
                    ("-".into(), "-".into(), "-".into(), format!("kept as it is: {why}"))
                }
            };
            table.row(vec![line.file.display().to_string(), size, pages, frame, place]);
        }
        table
    }
}

/// A file that was put together.
#[derive(Serialize)]
struct Joined {
    file: PathBuf,
    length: u64,
    hash: String,
}

impl Show for Joined {
    fn table(&self) -> Table {
        let mut table = Table::facts();
        table.fact("file", self.file.display().to_string());
        table.fact("size", format_bytes(self.length));
        table.fact("BLAKE3", &self.hash);
        table
    }
}

/// What one file holds.
#[derive(Serialize)]
struct Shown {
    file: PathBuf,
    length: u64,
    landed: Option<Landed>,
    sets: Vec<BackupSet>,
    /// What is wrong behind the last set.
    problem: Option<String>,
}

impl Shown {
    fn read(path: &Path) -> Result<Self> {
        let (landed, found): (_, BackupFile) = match landing::is_landed(path) {
            true => {
                let read = tape::read(LandedFile::open(path)?);
                (Some(landing::look(path)?), read.map_err(|e| e.about(&path.display().to_string()))?)
            }
            false => (None, tape::read_file(path)?),
        };
        Ok(Self {
            file: path.to_owned(),
            length: found.length,
            landed,
            problem: found.problem.map(|problem| problem.to_string()),
            sets: found.sets,
        })
    }
}

#[derive(Serialize)]
struct Listing {
    files: Vec<Shown>,
}

impl Show for Listing {
    fn table(&self) -> Table {
        let mut table = Table::new(&[
            "FILE",
            ">SET",
            "KIND",
            "DATABASE",
            "SERVER",
            "FINISHED",
            "FIRST LSN",
            "LAST LSN",
            ">PAGES",
        ]);
        for shown in &self.files {
            let name = shown.file.display().to_string();
            for set in &shown.sets {
                let copy_only = if set.copy_only { ", copy-only" } else { "" };
                let finished = set.finished.map_or_else(|| "-".into(), |time| time.0.to_string());
                table.row(vec![
                    name.clone(),
                    set.position.to_string(),
                    format!("{}{copy_only}", set.kind.name()),
                    set.database.clone(),
                    set.server.clone(),
                    finished,
                    set.first_lsn.to_string(),
                    set.last_lsn.to_string(),
                    set.data.data_pages.to_string(),
                ]);
            }
            if let Some(landed) = &shown.landed {
                let (length, frame) = (format_bytes(landed.length), format_bytes(landed.frame_bytes));
                table.note(format!("{name}: landed; {length} as a file, {frame} of them in the frame"));
            }
            if let Some(problem) = &shown.problem {
                table.note(format!("{name}: {problem}"));
            }
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::adapter::sqlserver::tape::writer::{SetSpec, write};
    use crate::cli::output::Output;

    #[test]
    fn files_land_are_shown_and_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let bytes = write(&[SetSpec::default(), SetSpec { id: 2, ..SetSpec::default() }]);
        fs::write(at("a.bak"), &bytes).unwrap();
        fs::write(at("b.bak"), "MSSQLBAK").unwrap();
        fs::create_dir(at("volume")).unwrap();
        let context = Context::new(None, Output::Json);
        let land = |names: &[&str], to, remove| {
            let files = names.iter().map(|name| at(name)).collect();
            run(Command::Land { files, to, remove }, &context).unwrap()
        };
        assert_eq!(land(&["a.bak", "b.bak"], Some(at("volume")), true), Outcome::Warnings);
        assert!(!at("a.bak").exists() && at("b.bak").exists());
        let landed = at("volume").join("a.bak.landed");
        let shown = Shown::read(&landed).unwrap();
        assert_eq!((shown.sets.len(), shown.length), (2, bytes.len() as u64));
        assert!(Listing { files: vec![shown] }.table().render().contains("landed; "));
        run(Command::Join { folder: landed.clone(), to: None }, &context).unwrap();
        assert!(fs::read(at("volume").join("a.bak")).unwrap() == bytes);
        assert!(Shown::read(&at("volume").join("a.bak")).unwrap().landed.is_none());
        assert_eq!(land(&["volume/a.bak"], None, false), Outcome::Done);
        assert_eq!(run(Command::Show { files: vec![landed] }, &context).unwrap(), Outcome::Done);
        let nameless = run(Command::Join { folder: at("volume"), to: None }, &context).unwrap_err();
        assert_eq!(nameless.error.kind(), ErrorKind::Invalid);
        assert!(Shown::read(&at("b.bak")).is_err());
    }
}
