//! A copy of the catalog beside it, as text: written with each snapshot, so that a lost or damaged catalog is no lost
//! dataset.
//!
//! The first line says what it is, then comes one record a line, and last the BLAKE3 hash of all before: a copy that
//! was cut or changed is refused as a whole. Jobs, events and tokens are not in it.

use std::io;

use redb::{ReadableDatabase, ReadableTable};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{CATALOG_FILE, COUNTERS, Catalog, NEXT_ID, RECORDS, failed};
use crate::base::{Error, ErrorKind, OpenMode, Result, Storage};

/// The copy's file in the store.
pub const BACKUP_FILE: &str = "catalog.backup";
const NEW_FILE: &str = "catalog.backup.new";
/// What was there before a restoration.
const OLD_FILE: &str = "catalog.redb.old";
/// What was set aside stays, however often.
const OLD_FILES_MAX: u32 = 1000;
/// The catalog while it is made.
const MADE_FILE: &str = "catalog.redb.new";
/// States of what was under way. The next start would clear away what such a record names, which may be in use since.
const UNDER_WAY: [&str; 5] = ["creating", "deleting", "building", "taking", "removing"];
const FORMAT: &str = "stillpoint catalog";
const VERSION: u32 = 1;
/// Kinds that are history, not state; and tokens, as one that was revoked since must not come back.
const LEFT_OUT: [&str; 3] = ["job", "event", "token"];
/// Numbers that records since the copy may have had, and files of theirs may still have.
const NUMBERS_AFTER: u64 = 1 << 20;

#[derive(Serialize, Deserialize)]
struct Head {
    format: String,
    version: u32,
    next_id: u64,
}

/// One record, its envelope as it is stored.
#[derive(Serialize, Deserialize)]
struct Line {
    kind: String,
    id: u64,
    envelope: Box<RawValue>,
}

impl Catalog {
    /// Writes the copy; the one before stays until this one is durable.
    pub fn back_up(&self, storage: &dyn Storage) -> Result<()> {
        let text = self.to_text()?;
        let failed = |what: &str, e| Error::io(what, BACKUP_FILE, e);
        match storage.remove(NEW_FILE) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("replace", e)),
            _ => {}
        }
        let file = storage.open(NEW_FILE, OpenMode::CreateNew).map_err(|e| failed("create", e))?;
        file.write_all_at(text.as_bytes(), 0)
            .and_then(|()| file.sync_data())
            .and_then(|()| storage.rename(NEW_FILE, BACKUP_FILE))
            .and_then(|()| storage.sync_dir(""))
            .map_err(|e| failed("write", e))
    }

    fn to_text(&self) -> Result<String> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let counters = transaction.open_table(COUNTERS).map_err(failed)?;
        let next_id = counters.get(NEXT_ID).map_err(failed)?.map_or(1, |value| value.value());
        let mut text = line(&Head { format: FORMAT.into(), version: VERSION, next_id })?;
        let records = transaction.open_table(RECORDS).map_err(failed)?;
        for row in records.iter().map_err(failed)? {
            let (key, value) = row.map_err(failed)?;
            let (kind, id) = key.value();
            if LEFT_OUT.contains(&kind) {
                continue;
            }
            let envelope = serde_json::from_slice(value.value())
                .map_err(|e| Error::corrupt(format!("{CATALOG_FILE}: {kind} {id} cannot be read: {e}")))?;
            text.push_str(&line(&Line { kind: kind.into(), id, envelope })?);
        }
        let hash = blake3::hash(text.as_bytes()).to_hex();
        text.push_str(&hash);
        text.push('\n');
        Ok(text)
    }

    /// Makes the catalog anew from the copy, with the store at rest; says how many records it has. What was there is
    /// kept beside it.
    pub fn restore(storage: &dyn Storage) -> Result<usize> {
        let (head, lines) = read(storage)?;
        let lines = at_rest(lines)?;
        match storage.remove(MADE_FILE) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io("replace", MADE_FILE, e)),
            _ => {}
        }
        let catalog = Self::create(storage, MADE_FILE)?;
        let transaction = catalog.database.begin_write().map_err(failed)?;
        {
            let mut records = transaction.open_table(RECORDS).map_err(failed)?;
            for line in &lines {
                let key = (line.kind.as_str(), line.id);
                records.insert(key, line.envelope.get().as_bytes()).map_err(failed)?;
            }
            let mut counters = transaction.open_table(COUNTERS).map_err(failed)?;
            counters.insert(NEXT_ID, head.next_id.saturating_add(NUMBERS_AFTER)).map_err(failed)?;
        }
        transaction.commit().map_err(failed)?;
        drop(catalog);
        set_aside(storage)?;
        storage
            .rename(MADE_FILE, CATALOG_FILE)
            .and_then(|()| storage.sync_dir(""))
            .map_err(|e| Error::io("put in place", CATALOG_FILE, e))?;
        Ok(lines.len())
    }
}

/// Gives the catalog that was there a name that none had.
fn set_aside(storage: &dyn Storage) -> Result<()> {
    let there = storage.list("").map_err(|e| Error::io("list", "the store", e))?;
    if !there.iter().any(|name| name == CATALOG_FILE) {
        return Ok(());
    }
    let mut names = (1..OLD_FILES_MAX).map(|number| format!("{OLD_FILE}.{number}"));
    let free = names.find(|name| !there.contains(name));
    let free = free
        .ok_or_else(|| Error::new(ErrorKind::Exists, format!("remove {OLD_FILE}.*: there are too many")))?;
    storage.rename(CATALOG_FILE, &free).map_err(|e| Error::io("set aside", CATALOG_FILE, e))
}

/// The records without those of what was under way, and of what belongs to a dataset that was: their volumes stay in
/// the store, as nobody's. What a link still held on a source is not known any more.
fn at_rest(lines: Vec<Line>) -> Result<Vec<Line>> {
    let mut gone = Vec::new();
    let mut kept = Vec::new();
    for mut line in lines {
        let mut envelope: Value =
            serde_json::from_str(line.envelope.get()).map_err(|e| damaged(&e.to_string()))?;
        let record = &mut envelope["record"];
        if record["state"].as_str().is_some_and(|state| UNDER_WAY.contains(&state)) {
            if line.kind == "dataset" {
                gone.push(line.id);
            }
            continue;
        }
        if record.get("held").is_some_and(|held| !held.is_null()) {
            record["held"] = Value::Null;
            line.envelope =
                RawValue::from_string(envelope.to_string()).map_err(|e| damaged(&e.to_string()))?;
        }
        let dataset = envelope["record"]["dataset"].as_u64();
        kept.push((dataset, line));
    }
    let of_gone = |dataset: Option<u64>, line: &Line| {
        // Hooks have their dataset's number.
        let dataset = if line.kind == "hooks" { Some(line.id) } else { dataset };
        dataset.is_some_and(|dataset| gone.contains(&dataset))
    };
    kept.retain(|(dataset, line)| !of_gone(*dataset, line));
    Ok(kept.into_iter().map(|(_, line)| line).collect())
}

/// Whether there is a copy.
pub(super) fn is_there(storage: &dyn Storage) -> bool {
    storage.open(BACKUP_FILE, OpenMode::Read).is_ok()
}

fn line(value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string(value).map_err(|e| Error::invalid(format!("{BACKUP_FILE}: {e}")))?;
    Ok(text + "\n")
}

fn read(storage: &dyn Storage) -> Result<(Head, Vec<Line>)> {
    let file = storage.open(BACKUP_FILE, OpenMode::Read).map_err(|e| Error::io("open", BACKUP_FILE, e))?;
    let length = file.len().map_err(|e| Error::io("look at", BACKUP_FILE, e))?;
    let mut bytes = vec![0; usize::try_from(length).map_err(|_| damaged("it is too long"))?];
    file.read_exact_at(&mut bytes, 0).map_err(|e| Error::io("read", BACKUP_FILE, e))?;
    let text = String::from_utf8(bytes).map_err(|_| damaged("it is no text"))?;
    let body = text.strip_suffix('\n').and_then(|text| text.rfind('\n')).map(|end| text.split_at(end + 1));
    let (body, hash) = body.ok_or_else(|| damaged("it ends too early"))?;
    if blake3::hash(body.as_bytes()).to_hex().as_str() != hash.trim_end() {
        return Err(damaged("its hash does not match"));
    }
    let mut lines = body.lines();
    let wrong = |e: serde_json::Error| damaged(&e.to_string());
    let head: Head = serde_json::from_str(lines.next().unwrap_or_default()).map_err(wrong)?;
    if head.format != FORMAT || head.version > VERSION {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "{BACKUP_FILE} is {:?} of version {}, this program knows up to {VERSION}",
                head.format, head.version
            ),
        ));
    }
    let lines: serde_json::Result<Vec<Line>> = lines.map(serde_json::from_str).collect();
    Ok((head, lines.map_err(wrong)?))
}

fn damaged(why: &str) -> Error {
    Error::corrupt(format!("{BACKUP_FILE} cannot be used: {why}"))
}
