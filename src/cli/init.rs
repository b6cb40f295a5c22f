//! `stillpoint init`: a new store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::context::{Context, environment};
use super::exit::{Failure, Outcome, Result};
use super::output::{Show, Table};
use super::sizes::{format_bytes, parse_bytes};
use crate::base::{ErrorKind, RealStorage};
use crate::volume::{CreateOptions, Store};

#[derive(Args)]
pub(super) struct Arguments {
    /// The directory to make the store in: new or empty
    #[arg(value_name = "STORE")]
    directory: PathBuf,
    /// The size of the journal, which bounds how much a crash leaves to replay
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    journal_size: Option<u64>,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<Outcome> {
    let made = create_store(&arguments.directory, arguments.journal_size)?;
    context.output.show(&made)?;
    Ok(Outcome::Done)
}

/// Makes a store in a new or empty directory.
pub(super) fn create_store(directory: &Path, journal_bytes: Option<u64>) -> Result<Made> {
    let occupied = match std::fs::read_dir(directory) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => false,
    };
    if occupied {
        return Err(Failure::new(
            ErrorKind::Exists,
            format!("cannot make a store in {}: the directory is not empty", directory.display()),
        )
        .hint("name a new or empty directory"));
    }
    let storage = RealStorage::create(directory)?;
    let lock = storage.lock("stillpoint init")?;
    let path = storage.path().to_owned();
    let mut options = CreateOptions::default();
    if let Some(bytes) = journal_bytes {
        options.journal_bytes = bytes;
    }
    let made = Store::create(Arc::new(storage), &environment(), &options);
    drop(lock);
    if let Err(e) = made {
        // The directory was empty and the lock was ours: what is in it now is the half of a store.
        if let Err(second) = clear(&path) {
            tracing::warn!("cannot clear {}: {second}", path.display());
        }
        return Err(e.into());
    }
    Ok(Made { store: path, journal_bytes: options.journal_bytes })
}

fn clear(directory: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A store that was made.
#[derive(Serialize)]
pub(super) struct Made {
    pub store: PathBuf,
    journal_bytes: u64,
}

impl Show for Made {
    fn table(&self) -> Table {
        let mut table = Table::facts();
        table.fact("store", self.store.display().to_string());
        table.fact("journal", format_bytes(self.journal_bytes));
        table
    }
}
