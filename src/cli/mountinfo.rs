//! The kernel's list of mounts, as far as Stillpoint's own are concerned.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::exit::Result;
use crate::base::Error;

/// The file system type the kernel shows for a Stillpoint mount.
const KIND: &str = "fuse.stillpoint";

/// A Stillpoint mount of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub directory: PathBuf,
    pub store: PathBuf,
}

/// Every Stillpoint mount this process can see, in the order of mounting.
pub(super) fn stillpoint_mounts() -> Result<Vec<Mount>> {
    const LIST: &str = "/proc/self/mountinfo";
    let text = std::fs::read(LIST).map_err(|e| Error::io("read", LIST, e))?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(parse_line).collect())
}

/// The mount at `directory`, if it is one of Stillpoint's. Works for one whose process is dead: nothing at the
/// directory itself is touched.
pub(super) fn mount_at(directory: &Path) -> Result<Option<Mount>> {
    let directory = resolve(directory)?;
    Ok(stillpoint_mounts()?.into_iter().rev().find(|mount| mount.directory == directory))
}

/// The absolute path of a directory without looking at the directory itself, for a dead mount answers nothing.
pub(super) fn resolve(directory: &Path) -> Result<PathBuf> {
    let shown = directory.display().to_string();
    let absolute = std::path::absolute(directory).map_err(|e| Error::io("resolve", &shown, e))?;
    // `absolute` keeps `..`; with one inside, only the file system knows what is meant.
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return Ok(absolute);
    };
    if absolute.components().any(|part| part == std::path::Component::ParentDir) {
        return Ok(absolute.canonicalize().map_err(|e| Error::io("resolve", &shown, e))?);
    }
    let parent = parent.canonicalize().map_err(|e| Error::io("resolve", &shown, e))?;
    let named = parent.join(name);
    match std::fs::read_link(&named) {
        Ok(_) => Ok(named.canonicalize().map_err(|e| Error::io("resolve", &shown, e))?),
        Err(_) => Ok(named),
    }
}

/// `36 35 98:0 /root /directory options optional... - type source superoptions`; the volume of a bind mount is
/// its root.
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let directory = fields.nth(4)?;
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    if fields.next()? != KIND.as_bytes() {
        return None;
    }
    Some(Mount { directory: unescape(directory), store: unescape(fields.next()?) })
}

/// Undoes the kernel's octal escapes of space, tab, line feed, `#` and backslash.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = (byte == b'\\').then(|| after.get(..3)).flatten();
        match octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()) {
            Some(escaped) => {
                bytes.push(escaped);
                rest = &after[3..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel() {
        let ours =
            b"99 25 0:49 / /mnt/a\\040b rw,nosuid shared:7 - fuse.stillpoint /srv/st\\134ore rw,user_id=0";
        let expected = Mount { directory: "/mnt/a b".into(), store: "/srv/st\\ore".into() };
        assert_eq!(parse_line(ours), Some(expected));
        let other = b"25 1 8:1 / / rw,relatime - ext4 /dev/vda rw";
        assert_eq!(parse_line(other), None);
        assert_eq!(parse_line(b""), None);
    }

    #[test]
    fn a_directory_is_resolved_without_being_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        std::os::unix::fs::symlink(&real, real.join("link")).unwrap();
        assert_eq!(resolve(&real.join("link/gone")).unwrap(), real.join("gone"));
        assert_eq!(resolve(&real.join("link")).unwrap(), real);
        assert_eq!(resolve(&real.join("x/")).unwrap(), real.join("x"));
    }
}
