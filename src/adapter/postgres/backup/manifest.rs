//! The list of a backup's files, `backup_manifest`: whether each is there with its size. Checksums are
//! `pg_verifybackup`'s to check, for which the list is kept.
//!
//! Format: PostgreSQL's documentation, chapter "Backup Manifest Format".

use std::ffi::OsString;
use std::fs::File;
use std::io::BufReader;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::place::{Place, place};
use super::tarball::{relative_path, unreadable};
use crate::base::{Error, Result};

pub(super) const NAME: &str = "backup_manifest";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Manifest {
    #[serde(default)]
    files: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "Path")]
    path: Option<String>,
    /// In hexadecimal, when it is no UTF-8.
    #[serde(rename = "Encoded-Path")]
    encoded: Option<String>,
    #[serde(rename = "Size")]
    size: u64,
}

/// Compares the files below `data` with the list in it.
pub(super) fn check(data: &Path) -> Result<()> {
    let list = data.join(NAME);
    let file = File::open(&list).map_err(|e| unreadable(&list, e))?;
    let manifest: Manifest = serde_json::from_reader(BufReader::new(file))
        .map_err(|e| Error::corrupt(format!("the backup's {NAME} is damaged or cut off: {e}")))?;
    for listed in manifest.files {
        let relative = listed.relative()?;
        if !matches!(place(&relative)?, Place::Data(_) | Place::Tablespace(..)) {
            continue;
        }
        let found =
            data.join(&relative).metadata().ok().filter(|found| found.is_file()).map(|found| found.len());
        if found != Some(listed.size) {
            let found = found.map_or("is missing".to_owned(), |bytes| format!("has {bytes}"));
            return Err(Error::corrupt(format!(
                "the backup is not complete: {} {found}, where its {NAME} has {} bytes; copy it again",
                relative.display(),
                listed.size
            )));
        }
    }
    Ok(())
}

impl Listed {
    fn relative(&self) -> Result<PathBuf> {
        let bytes = match (&self.path, &self.encoded) {
            (Some(path), _) => Some(path.clone().into_bytes()),
            (None, Some(encoded)) => from_hex(encoded),
            (None, None) => None,
        };
        let bytes =
            bytes.ok_or_else(|| Error::corrupt(format!("the backup's {NAME} has a file with no name")))?;
        relative_path(&OsString::from_vec(bytes).into_vec())
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
