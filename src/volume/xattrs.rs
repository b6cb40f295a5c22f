//! Extended attributes.

use super::types::{Ino, NAME_BYTES_MAX, XATTR_BYTES_MAX, XattrMode};
use super::view::View;
use crate::base::{Error, ErrorKind, Result};
use crate::format::key;
use crate::format::node::Value;

fn missing(name: &[u8]) -> Error {
    let name = String::from_utf8_lossy(name);
    Error::new(ErrorKind::NoAttribute, format!("no extended attribute {name:?}"))
}

impl View {
    pub fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        self.reading(|state| {
            let value = self.value(state, &key::xattr(ino, name))?;
            value.map(|value| value.to_vec()).ok_or_else(|| missing(name))
        })
    }

    pub fn set_xattr(&self, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(Error::new(ErrorKind::Range, "an extended attribute's name has 1 to 255 bytes"));
        }
        if value.len() > XATTR_BYTES_MAX {
            return Err(Error::new(ErrorKind::NoSpace, "an extended attribute can have 64 KiB at most"));
        }
        self.changing(|change| {
            let mut inode = self.inode(change.state, ino)?;
            let key = key::xattr(ino, name);
            let exists = self.value(change.state, &key)?.is_some();
            if mode == XattrMode::Create && exists {
                return Err(Error::new(ErrorKind::Exists, "the extended attribute exists"));
            }
            if mode == XattrMode::Replace && !exists {
                return Err(missing(name));
            }
            change.put(key, Some(Value::from(value)));
            inode.changed = self.shared.now();
            change.put_inode(ino, &inode);
            Ok(())
        })
    }

    pub fn remove_xattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        self.changing(|change| {
            let mut inode = self.inode(change.state, ino)?;
            let key = key::xattr(ino, name);
            if self.value(change.state, &key)?.is_none() {
                return Err(missing(name));
            }
            change.put(key, None);
            inode.changed = self.shared.now();
            change.put_inode(ino, &inode);
            Ok(())
        })
    }

    pub fn list_xattrs(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        self.reading(|state| {
            self.inode(state, ino)?;
            let prefix = key::plain(ino, key::kind::XATTR);
            let within = |key: &[u8]| key.starts_with(&prefix);
            let items =
                state.base.scan(&self.shared.trees, Some(&state.live), &prefix, usize::MAX, &within)?;
            Ok(items.into_iter().map(|(key, _)| key[prefix.len()..].to_vec()).collect())
        })
    }
}
