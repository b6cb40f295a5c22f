//! Where each file of a data directory goes, by its name alone.

use std::path::{Path, PathBuf};

use super::label::parse_oid;
use crate::base::{Error, Result};

/// Files of the server that ran on the original, and orders to a server that are not ours.
const DROPPED: [&str; 5] =
    ["postmaster.pid", "postmaster.opts", "standby.signal", "recovery.signal", "recovery.conf"];
/// Holds what ALTER SYSTEM set on the source, and the password of a `pg_basebackup -R`.
const AUTO_CONF: &str = "postgresql.auto.conf";
pub(super) const MAP: &str = "tablespace_map";
pub(super) const SPACES: &str = "pg_tblspc";

/// Where a file goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The data directory itself, or its folder of links to tablespaces: made in any case.
    Made,
    Dropped,
    /// Below the data directory.
    Data(PathBuf),
    /// Below the data directory, without content.
    Emptied(PathBuf),
    /// Below the tablespace's folder.
    Tablespace(u32, PathBuf),
    /// The tablespaces' paths on the source: read, and written anew.
    Map,
}

/// The place of a path that is relative to the data directory, of plain names only.
pub(super) fn place(relative: &Path) -> Result<Place> {
    let mut names = relative.iter();
    let Some(first) = names.next() else { return Ok(Place::Made) };
    let second = names.next();
    match (first.to_str().unwrap_or_default(), second) {
        (SPACES, None) => Ok(Place::Made),
        (SPACES, Some(second)) => {
            let oid = parse_oid(second.as_encoded_bytes()).ok_or_else(|| {
                Error::invalid(format!(
                    "the backup has {}, which is no tablespace; it is refused",
                    relative.display()
                ))
            })?;
            Ok(Place::Tablespace(oid, names.collect()))
        }
        // Slots are of the source; one kept here would hold WAL back for ever.
        ("pg_replslot", Some(_)) => Ok(Place::Dropped),
        (name, None) if DROPPED.contains(&name) => Ok(Place::Dropped),
        (MAP, None) => Ok(Place::Map),
        (AUTO_CONF, None) => Ok(Place::Emptied(relative.to_owned())),
        _ => Ok(Place::Data(relative.to_owned())),
    }
}
