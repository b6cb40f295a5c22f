//! What the engine asks of the store.

use std::path::{Path, PathBuf};

use crate::base::Result;

/// The mounted store, as far as datasets need it. Each call is atomic and durable when it returns.
pub trait Volumes: Send + Sync {
    fn exists(&self, volume: &str) -> Result<bool>;
    fn create(&self, volume: &str) -> Result<()>;
    /// Destroys a volume with its snapshots. `InUse` while files of it are open or a clone lives on one of them.
    fn destroy(&self, volume: &str) -> Result<()>;
    /// Snapshots a volume: every write that returned before is in it.
    fn snapshot(&self, volume: &str, name: &str) -> Result<()>;
    fn destroy_snapshot(&self, volume: &str, name: &str) -> Result<()>;
    fn clone_snapshot(&self, volume: &str, snapshot: &str, name: &str) -> Result<()>;
    /// Where a snapshot's files are, read-only.
    fn snapshot_folder(&self, volume: &str, snapshot: &str) -> PathBuf;
    /// Limits what a volume may hold, in bytes of data before compression; `None` lifts the limit.
    fn set_quota(&self, volume: &str, bytes: Option<u64>) -> Result<()>;
    /// The snapshots of a volume that somebody holds, by whose names.
    fn holds(&self, volume: &str) -> Result<Vec<(String, Vec<String>)>>;
    /// Shows a volume at a further folder, made if it is not there, which must be empty; no error when it is shown there already.
    fn show_at(&self, volume: &str, folder: &Path) -> Result<()>;
    /// Takes back `show_at` with the folder; also what a dead mounting process left there. `InUse` while files are open there.
    fn hide_at(&self, folder: &Path) -> Result<()>;
    /// Where a volume's files are in the mount.
    fn folder(&self, volume: &str) -> PathBuf;
}

/// A stand-in for the store, for tests that need none.
#[cfg(test)]
pub(crate) mod testing {
    use std::collections::{BTreeMap, BTreeSet};

    use parking_lot::Mutex;

    use super::*;
    use crate::base::Error;

    /// Volumes as names of snapshots, and quotas.
    #[derive(Default)]
    pub(crate) struct Names {
        pub(crate) snapshots: Mutex<BTreeMap<String, BTreeSet<String>>>,
        pub(crate) quotas: Mutex<BTreeMap<String, u64>>,
    }

    impl Volumes for Names {
        fn exists(&self, volume: &str) -> Result<bool> {
            Ok(self.snapshots.lock().contains_key(volume))
        }

        fn create(&self, volume: &str) -> Result<()> {
            self.snapshots.lock().insert(volume.into(), BTreeSet::new());
            Ok(())
        }

        fn destroy(&self, volume: &str) -> Result<()> {
            let gone = self.snapshots.lock().remove(volume);
            gone.map(drop).ok_or_else(|| Error::not_found(volume))
        }

        fn snapshot(&self, volume: &str, name: &str) -> Result<()> {
            self.snapshots.lock().entry(volume.into()).or_default().insert(name.into());
            Ok(())
        }

        fn destroy_snapshot(&self, volume: &str, name: &str) -> Result<()> {
            let gone = self.snapshots.lock().entry(volume.into()).or_default().remove(name);
            if gone { Ok(()) } else { Err(Error::not_found(name)) }
        }

        fn clone_snapshot(&self, _volume: &str, _snapshot: &str, name: &str) -> Result<()> {
            self.create(name)
        }

        fn set_quota(&self, volume: &str, bytes: Option<u64>) -> Result<()> {
            match bytes {
                Some(bytes) => drop(self.quotas.lock().insert(volume.into(), bytes)),
                None => drop(self.quotas.lock().remove(volume)),
            }
            Ok(())
        }

        fn holds(&self, _volume: &str) -> Result<Vec<(String, Vec<String>)>> {
            Ok(Vec::new())
        }

        fn show_at(&self, _volume: &str, _folder: &Path) -> Result<()> {
            Ok(())
        }

        fn hide_at(&self, _folder: &Path) -> Result<()> {
            Ok(())
        }

        fn snapshot_folder(&self, volume: &str, snapshot: &str) -> PathBuf {
            self.folder(volume).join(snapshot)
        }

        fn folder(&self, volume: &str) -> PathBuf {
            PathBuf::from("/nowhere").join(volume)
        }
    }
}
