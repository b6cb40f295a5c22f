//! Names that people give, and what they must be.

use super::Engine;
use crate::base::{Error, ErrorKind, Result};
use crate::catalog::{Dataset, Snapshot, Timeflow};

/// A volume is called after its dataset, and must hold a number beside it.
const NAME_BYTES_MAX: usize = 64;
const VOLUME_NAMES_MAX: usize = 100;

/// Refuses what could lead out of a folder or be taken for an option.
pub(super) fn check_name(what: &str, name: &str) -> Result<()> {
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let good = name.len() <= NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(inside);
    if good {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{name:?} is no name for a {what}: letters, digits, '-', '_' and '.', at most {NAME_BYTES_MAX}, \
         beginning with a letter or digit"
    )))
}

impl Engine {
    /// The dataset of this name.
    pub fn dataset(&self, name: &str) -> Result<Dataset> {
        self.find_dataset(name)?.ok_or_else(|| {
            Error::not_found(format!(
                "there is no dataset {name}: see `stillpoint dsource list` and `stillpoint vdb list`"
            ))
        })
    }

    pub(super) fn find_dataset(&self, name: &str) -> Result<Option<Dataset>> {
        Ok(self.catalog.select(|dataset: &Dataset| dataset.name == name)?.pop())
    }

    pub(super) fn dataset_by_id(&self, id: u64) -> Result<Dataset> {
        self.catalog.get(id)?.ok_or_else(|| Error::not_found(format!("dataset {id} is gone")))
    }

    /// A name for a dataset's next volume that no volume of the store has, whoever made it.
    pub(super) fn new_volume_name(&self, dataset: &str) -> Result<String> {
        self.new_volume_name_for(dataset, "")
    }

    /// The same, with a word for what it is beside the dataset's files.
    pub(super) fn new_volume_name_for(&self, dataset: &str, what: &str) -> Result<String> {
        for _ in 0..VOLUME_NAMES_MAX {
            let name = format!("{dataset}.{what}{:08x}", self.random.next_u64() >> 32);
            if !self.volumes.exists(&name)? {
                return Ok(name);
            }
        }
        Err(Error::new(ErrorKind::Exists, format!("no name for a volume of {dataset} is free")))
    }

    pub(super) fn check_new_name(&self, name: &str) -> Result<()> {
        check_name("dataset", name)?;
        self.check_no_set(name)?;
        match self.find_dataset(name)? {
            Some(_) => Err(Error::new(ErrorKind::Exists, format!("there is a dataset {name} already"))),
            None => Ok(()),
        }
    }

    /// Refuses a port that another dataset has, running or not.
    pub(super) fn check_port_free(&self, port: u16) -> Result<()> {
        match self.catalog.select(|dataset: &Dataset| dataset.port == port)?.pop() {
            Some(other) => Err(Error::new(
                ErrorKind::InUse,
                format!("port {port} belongs to {}: each dataset has its own", other.name),
            )),
            None => Ok(()),
        }
    }

    /// The snapshot called `DATASET@NAME`, by its own name or a bookmark's, or the newest one of `DATASET`, with what it is of.
    pub(super) fn find_snapshot(&self, spec: &str) -> Result<(Dataset, Timeflow, Snapshot)> {
        let (name, wanted) = match spec.split_once('@') {
            Some((name, wanted)) => (name, Some(wanted)),
            None => (spec, None),
        };
        let dataset = self.dataset(name)?;
        let mut found = self.snapshots_of(dataset.id)?;
        match wanted {
            Some(wanted) => found.retain(|snapshot| {
                snapshot.name == wanted || snapshot.bookmarks.iter().any(|bookmark| bookmark == wanted)
            }),
            // The newest of what is current: a rewind leaves newer ones behind on purpose.
            None if found.iter().any(|snapshot| Some(snapshot.timeflow) == dataset.timeflow) => {
                found.retain(|snapshot| Some(snapshot.timeflow) == dataset.timeflow);
            }
            None => {}
        }
        let snapshot = found.pop().ok_or_else(|| {
            Error::not_found(match wanted {
                Some(wanted) => {
                    format!(
                        "{name} has no snapshot or bookmark {wanted}: see `stillpoint timeflow list {name}`"
                    )
                }
                None => {
                    format!("{name} has no snapshot yet: take one with `stillpoint dsource snapshot {name}`")
                }
            })
        })?;
        Ok((dataset, self.timeflow(snapshot.timeflow)?, snapshot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        for good in ["shop", "Shop-2.qa_1", "9"] {
            assert!(check_name("dataset", good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "-x", "a b", "ä", "a@b", &"x".repeat(65)] {
            assert!(check_name("dataset", bad).is_err(), "{bad}");
        }
    }
}
