//! Checks of the kernel, the user and the file systems of this host.

use std::fs::OpenOptions;
use std::path::Path;

use super::super::sizes::format_bytes;
use super::Finding;

/// Magic numbers of `statfs`, the file system's name, and whether an acknowledged write there outlives a power cut.
const FILE_SYSTEMS: &[(i64, &str, bool)] = &[
    (0xEF53, "ext4", true),
    (0x5846_5342, "xfs", true),
    (0x9123_683E, "btrfs", true),
    (0x2FC1_2FC1, "zfs", true),
    (0xF2F5_2010, "f2fs", true),
    (0xCA45_1A4E, "bcachefs", true),
    (0x0102_1994, "tmpfs", false),
    (0x8584_58F6, "ramfs", false),
    (0x794C_7630, "overlayfs", false),
    (0x6969, "nfs", false),
    (0xFF53_4D42, "cifs", false),
    (0x6573_5546, "fuse", false),
];

pub(super) fn fuse_device() -> Finding {
    const CHECK: &str = "/dev/fuse";
    match OpenOptions::new().read(true).write(true).open(CHECK) {
        Ok(_) => Finding::ok(CHECK, "opens for reading and writing"),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Finding::missing(
            CHECK,
            "is not there",
            "load the module with `modprobe fuse`; in a container, pass the device in",
        ),
        Err(e) => Finding::missing(
            CHECK,
            format!("cannot be opened: {e}"),
            "run as root, or `chmod 666 /dev/fuse`; in a container, allow the device",
        ),
    }
}

pub(super) fn fuse_settings() -> Finding {
    const CHECK: &str = "kernel FUSE";
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let read =
        |path: &str| std::fs::read_to_string(path).map_or_else(|_| "-".into(), |t| t.trim().to_owned());
    let found = format!(
        "Linux {release}, max_pages_limit {}, max_user_bgreq {}, io_uring {}",
        read("/proc/sys/fs/fuse/max_pages_limit"),
        read("/sys/module/fuse/parameters/max_user_bgreq"),
        read("/sys/module/fuse/parameters/enable_uring"),
    );
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (5, 10) {
        return Finding::warning(CHECK, found, "use Linux 5.10 or later; Debian 12 has 6.1");
    }
    Finding::ok(CHECK, found)
}

pub(super) fn user() -> Finding {
    const CHECK: &str = "user";
    let uid = rustix::process::geteuid().as_raw();
    if uid == 0 {
        return Finding::ok(CHECK, "root");
    }
    Finding::missing(
        CHECK,
        format!("{uid}, not root: a store of this user's can be read and changed, but not mounted"),
        "run as root to mount",
    )
}

/// Space in a folder, or where it would be made.
pub(super) fn free_space(check: &'static str, directory: &Path, bytes_min: u64) -> Finding {
    let there = directory.ancestors().find(|folder| folder.exists()).unwrap_or(directory);
    match rustix::fs::statvfs(there) {
        Ok(space) => {
            let free = space.f_bavail.saturating_mul(space.f_frsize);
            let found = format!("{} at {}", format_bytes(free), directory.display());
            if free < bytes_min {
                let fix = format!("free {} or put it elsewhere", format_bytes(bytes_min));
                return Finding::warning(check, found, fix);
            }
            Finding::ok(check, found)
        }
        Err(e) => Finding::missing(
            check,
            format!("{} cannot be looked at: {e}", directory.display()),
            "name a folder that is there",
        ),
    }
}

pub(super) fn file_system(directory: &Path) -> Finding {
    const CHECK: &str = "file system";
    let Ok(statistics) = rustix::fs::statfs(directory) else {
        return Finding::missing(
            CHECK,
            format!("{} cannot be looked at", directory.display()),
            "name a folder that is there",
        );
    };
    let known = FILE_SYSTEMS.iter().find(|(magic, ..)| *magic == statistics.f_type);
    match known {
        Some((_, name, true)) => Finding::ok(CHECK, format!("{name} at {}", directory.display())),
        Some((_, name, false)) => Finding::warning(
            CHECK,
            format!("{name} at {}: a power cut may take what was acknowledged", directory.display()),
            "put stores that matter on ext4, XFS or Btrfs on a local disk",
        ),
        None => Finding::warning(
            CHECK,
            format!("type {:#x} at {}, which nobody tested", statistics.f_type, directory.display()),
            "put stores that matter on ext4, XFS or Btrfs on a local disk",
        ),
    }
}
