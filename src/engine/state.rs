//! Whose a state folder is: two stores in one would overwrite each other's secrets.

use std::path::Path;

use super::make_folder;
use crate::base::{Error, ErrorKind, Result};

/// Holds the path of the store.
const OWNER_FILE: &str = "store";
/// A socket's path has at most 107 bytes; below this folder it takes `/instances/NUMBER/s/.s.PGSQL.PORT.lock`.
const PATH_BYTES_MAX: usize = 60;

/// Makes the folder, or finds that it is this store's. A folder that is something else is left as it is.
pub(super) fn claim(folder: &Path, store: &Path) -> Result<()> {
    let shown = folder.display().to_string();
    if folder.as_os_str().len() > PATH_BYTES_MAX {
        return Err(Error::invalid(format!(
            "{shown} is too long for the sockets in it: at most {PATH_BYTES_MAX} bytes; name another with --state"
        )));
    }
    let owner = folder.join(OWNER_FILE);
    match std::fs::read(&owner) {
        Ok(path) if path == store.as_os_str().as_encoded_bytes() => return make_folder(folder, 0o711),
        Ok(path) => {
            return Err(Error::new(
                ErrorKind::Precondition,
                format!(
                    "{shown} is the state folder of the store {}: name another with --state, or, if that store was moved \
                     to {}, write its new path into {}",
                    String::from_utf8_lossy(&path),
                    store.display(),
                    owner.display()
                ),
            ));
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::io("read", &owner.display().to_string(), e)),
    }
    let empty = match std::fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => true,
        Err(e) => return Err(Error::io("read", &shown, e)),
    };
    if !empty {
        return Err(Error::new(
            ErrorKind::Precondition,
            format!(
                "{shown} is not empty and no state folder of a store: name an empty or new one with --state"
            ),
        ));
    }
    make_folder(folder, 0o711)?;
    std::fs::write(&owner, store.as_os_str().as_encoded_bytes())
        .map_err(|e| Error::io("write", &owner.display().to_string(), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_folder_belongs_to_one_store() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        claim(&state, Path::new("/srv/one")).unwrap();
        claim(&state, Path::new("/srv/one")).unwrap();
        let error = claim(&state, Path::new("/srv/two")).unwrap_err();
        assert!(error.message().contains("/srv/one"), "{error}");
        let error = claim(folder.path(), Path::new("/srv/one")).unwrap_err();
        assert!(error.message().contains("not empty"), "{error}");
    }
}
