//! The directory a mount goes on: what lies there already, and tuning the kernel's view of the mount.

use rustix::fs::{major, minor, stat, statfs};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};
use rustix::process::{getgid, getuid};
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// How long, and how often, a busy mount is given to turn out not to be.
const BUSY_WAIT: Duration = Duration::from_millis(5);
const BUSY_TRIES: u32 = 40;

/// Takes a mount off `directory` whose daemon died ("Transport endpoint is not connected"). True if there
/// was one.
pub fn detach_dead(directory: &Path) -> io::Result<bool> {
    let mut found = false;
    // Several daemons may have died on top of each other. `stat` may answer from the kernel's cache; this asks.
    while let Err(Errno::NOTCONN) = statfs(directory) {
        unmount(directory, UnmountFlags::DETACH)?;
        found = true;
    }
    Ok(found)
}

/// Whether a Stillpoint mount lies on `directory`, dead or alive.
pub fn is_mounted(directory: &Path) -> io::Result<bool> {
    let wanted = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_path_buf());
    let table = fs::read("/proc/self/mountinfo")?;
    Ok(table.split(|&byte| byte == b'\n').any(|line| is_ours_at(line, wanted.as_os_str().as_bytes())))
}

/// Shows `directory`, which lies in a mount of ours, at `target` too. Both share the kernel's caches, which two
/// mounts of the same files would not.
pub fn bind(directory: &Path, target: &Path) -> io::Result<()> {
    detach_dead(target)?;
    mount_bind(directory, target)?;
    // Unmounting here must not reach into other mount namespaces' copies of the source.
    mount_change(target, MountPropagationFlags::PRIVATE)?;
    Ok(())
}

/// Takes back [`bind`]. `EBUSY` when files are open there.
pub fn unbind(target: &Path) -> io::Result<()> {
    Ok(detach(target)?)
}

/// Mounts at `directory` and gives the descriptor that requests come from. We do it ourselves, for the transport
/// would unmount once more at its end, and might meet what somebody has mounted there since.
pub(crate) fn attach(directory: &Path, source: &str, read_only: bool) -> io::Result<OwnedFd> {
    let device = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
    let data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},allow_other,default_permissions,subtype=stillpoint",
        device.as_raw_fd(),
        getuid().as_raw(),
        getgid().as_raw(),
    );
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    flags.set(MountFlags::RDONLY, read_only);
    // Neither can hold a NUL: numbers, and a path that the host has resolved.
    let data = CString::new(data)?;
    mount(source, directory, "fuse", flags, Some(data.as_c_str()))?;
    Ok(device.into())
}

/// Takes the mount off the tree. `EBUSY` when files are open on it, also after a moment: the kernel lets go of a file
/// only some time after the last close(2) of it has returned.
pub(crate) fn detach(directory: &Path) -> Result<(), Errno> {
    for _ in 0..BUSY_TRIES {
        match unmount(directory, UnmountFlags::empty()) {
            Err(Errno::BUSY) => std::thread::sleep(BUSY_WAIT),
            settled => return settled,
        }
    }
    unmount(directory, UnmountFlags::empty())
}

/// The device number of what is mounted on `directory`; `None` when it does not answer.
pub(crate) fn device_of(directory: &Path) -> Option<u64> {
    stat(directory).ok().map(|status| status.st_dev)
}

/// Takes the mount off the tree; what is open on it goes on until it is closed.
pub(crate) fn detach_lazily(directory: &Path) -> Result<(), Errno> {
    unmount(directory, UnmountFlags::DETACH)
}

/// Sets how far the kernel reads ahead and how much it may keep dirty for the mount on `directory`. Failing
/// costs speed only.
pub(crate) fn tune(directory: &Path, read_ahead_kib: u32, dirty_percent: u8) {
    let Ok(status) = stat(directory) else { return };
    let device = format!("/sys/class/bdi/{}:{}", major(status.st_dev), minor(status.st_dev));
    for (name, value) in [
        ("read_ahead_kb", read_ahead_kib.to_string()),
        // Still enforced strictly: otherwise gigabytes may wait in the cache when a snapshot has to flush it.
        ("max_ratio", dirty_percent.to_string()),
    ] {
        let path = format!("{device}/{name}");
        if let Err(error) = fs::write(&path, &value) {
            tracing::warn!(path, value, %error, "cannot tune the mount");
        }
    }
}

/// A line of mountinfo: id, parent, device, root, mount point, options, optional fields, "-", type, source...
fn is_ours_at(line: &[u8], directory: &[u8]) -> bool {
    let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let Some(separator) = fields.iter().position(|field| *field == b"-") else { return false };
    let ours = fields.get(separator + 1).is_some_and(|kind| *kind == b"fuse.stillpoint");
    ours && fields.get(4).is_some_and(|point| unescape(point) == directory)
}

/// Mount points have blanks, tabs, newlines and backslashes as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let code = (byte == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                plain.push(code);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_our_mount_in_the_table() {
        let line = b"42 1 0:57 / /mnt/a\\040b rw,nosuid - fuse.stillpoint stillpoint rw,user_id=0";
        assert!(is_ours_at(line, b"/mnt/a b"));
        assert!(!is_ours_at(line, b"/mnt/a"));
        let other = b"42 1 0:57 / /mnt/a rw shared:1 - ext4 /dev/vda rw";
        assert!(!is_ours_at(other, b"/mnt/a"));
        assert!(!is_ours_at(b"", b""));
    }

    #[test]
    fn broken_escapes_stay_as_they_are() {
        assert_eq!(unescape(b"a\\04"), b"a\\04");
        assert_eq!(unescape(b"\\134\\011"), b"\\\t");
    }
}
