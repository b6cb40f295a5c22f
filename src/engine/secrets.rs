//! Secrets of datasets: passwords of sources and owners. One file each, that only root may read; never in the store,
//! so in no snapshot and no backup of the catalog.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::adapter::Secrets;
use crate::base::{Error, Random, Result};

/// Stands in the names of what the engine keeps among a dataset's secrets for itself.
pub(super) const OWN: char = '/';

/// Refuses names under which the engine keeps what is not the adapter's.
pub(super) fn check_secret_names(secrets: &Secrets) -> Result<()> {
    match secrets.0.keys().find(|name| name.is_empty() || name.contains(OWN)) {
        Some(name) => {
            Err(Error::invalid(format!("{name:?} is no name of a secret: it is empty or has a {OWN}")))
        }
        None => Ok(()),
    }
}

/// A folder of secrets.
pub(super) struct SecretStore {
    folder: PathBuf,
    random: Arc<dyn Random>,
    /// Held by who changes some of a dataset's secrets and keeps the others.
    changing: Mutex<()>,
}

impl SecretStore {
    pub(super) fn open(folder: PathBuf, random: Arc<dyn Random>) -> Result<Self> {
        super::make_folder(&folder, 0o700)?;
        Ok(Self { folder, random, changing: Mutex::new(()) })
    }

    fn path(&self, dataset: u64) -> PathBuf {
        self.folder.join(format!("{dataset}.json"))
    }

    /// A dataset's secrets; none when it has none.
    pub(super) fn get(&self, dataset: u64) -> Result<Secrets> {
        let path = self.path(dataset);
        match std::fs::read(&path) {
            Ok(bytes) => {
                let map: BTreeMap<String, String> = serde_json::from_slice(&bytes)
                    // Without the error's text, which may repeat what it read.
                    .map_err(|_| Error::corrupt(format!("{} cannot be read", path.display())))?;
                Ok(Secrets(map))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Secrets::default()),
            Err(e) => Err(Error::io("read", &path.display().to_string(), e)),
        }
    }

    /// Replaces a dataset's secrets, durably.
    pub(super) fn put(&self, dataset: u64, secrets: &Secrets) -> Result<()> {
        let path = self.path(dataset);
        let shown = path.display().to_string();
        let beside = self.folder.join(format!("{dataset}-{:016x}.new", self.random.next_u64()));
        let bytes =
            serde_json::to_vec(&secrets.0).map_err(|_| Error::invalid("these secrets are no text"))?;
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)
            .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_data()))
            .and_then(|()| std::fs::rename(&beside, &path))
            .and_then(|()| std::fs::File::open(&self.folder)?.sync_all())
            .map_err(|e| Error::io("write", &shown, e))
    }

    /// Changes some of a dataset's secrets, durably.
    pub(super) fn update(
        &self,
        dataset: u64,
        body: impl FnOnce(&mut BTreeMap<String, String>),
    ) -> Result<()> {
        let _turn = self.changing.lock();
        let mut secrets = self.get(dataset)?;
        let before = secrets.0.clone();
        body(&mut secrets.0);
        match secrets.0 == before {
            true => Ok(()),
            false if secrets.0.is_empty() => self.remove(dataset),
            false => self.put(dataset, &secrets),
        }
    }

    /// Forgets a dataset's secrets; no error when it has none.
    pub(super) fn remove(&self, dataset: u64) -> Result<()> {
        let path = self.path(dataset);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", &path.display().to_string(), e))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::base::SeededRandom;

    #[test]
    fn secrets_are_kept_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let store = SecretStore::open(folder.path().join("s"), Arc::new(SeededRandom::new(1))).unwrap();
        assert!(store.get(3).unwrap().0.is_empty());
        let secrets = Secrets(BTreeMap::from([("password".to_owned(), "hidden".to_owned())]));
        store.put(3, &secrets).unwrap();
        assert_eq!(store.get(3).unwrap().get("password"), Some("hidden"));
        assert!(!format!("{:?}", store.get(3).unwrap()).contains("hidden"));
        assert!(check_secret_names(&secrets).is_ok());
        for refused in ["", "hook/a/TOKEN", "held/3/password"] {
            let secrets = Secrets(BTreeMap::from([(refused.to_owned(), "hidden".to_owned())]));
            let error = check_secret_names(&secrets).unwrap_err();
            assert!(!error.to_string().contains("hidden"), "{error}");
        }
        let mode = std::fs::metadata(store.path(3)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        store.update(3, |secrets| drop(secrets.insert("more".into(), "kept".into()))).unwrap();
        assert_eq!(store.get(3).unwrap().0.len(), 2);
        store.update(3, BTreeMap::clear).unwrap();
        assert!(!store.path(3).exists());
        store.put(3, &secrets).unwrap();
        store.remove(3).unwrap();
        store.remove(3).unwrap();
        assert!(store.get(3).unwrap().0.is_empty());
    }
}
