//! The file systems PostgreSQL is measured on: the host's own, others on loop devices, zfs-fuse, Stillpoint.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::cleanup::{Guard, Undo};
use crate::command::{available, program, run};
use crate::setting::Setting;
use crate::stillpoint::Mounted;

/// Room for PostgreSQL with WAL, sparse on the host.
const IMAGE_BYTES: u64 = 24 << 30;
const ZFS_SOCKET: &str = "/var/run/zfs/zfs_socket";
const ZFS_WAIT: Duration = Duration::from_secs(10);

/// A place to put a database. What was set up for it goes when it is dropped.
pub struct FileSystem {
    pub label: &'static str,
    pub directory: PathBuf,
    /// The store behind it, when it is Stillpoint.
    pub mounted: Option<Mounted>,
    // Dropped in this order: unmount before the device or the process behind the mount goes.
    _guards: Vec<Guard>,
}

/// One that can be set up, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Host,
    Loop { label: &'static str, mkfs: &'static str, package: &'static str },
    ZfsFuse,
    Stillpoint,
}

pub const HOST: &str = "host";
pub const BTRFS: &str = "btrfs";
pub const STILLPOINT: &str = "stillpoint";
/// The volume of a Stillpoint mount that holds the database.
pub const VOLUME: &str = "pgbench";

pub const KINDS: [Kind; 6] = [
    Kind::Host,
    Kind::Stillpoint,
    Kind::Loop { label: BTRFS, mkfs: "mkfs.btrfs", package: "btrfs-progs" },
    Kind::Loop { label: "ext4", mkfs: "mkfs.ext4", package: "e2fsprogs" },
    Kind::Loop { label: "xfs", mkfs: "mkfs.xfs", package: "xfsprogs" },
    Kind::ZfsFuse,
];

impl Kind {
    pub fn label(self) -> &'static str {
        match self {
            Self::Host => HOST,
            Self::Loop { label, .. } => label,
            Self::ZfsFuse => "zfs-fuse",
            Self::Stillpoint => STILLPOINT,
        }
    }

    /// Sets it up in a folder of the scratch space.
    pub fn set_up(self, setting: &Setting) -> anyhow::Result<FileSystem> {
        let folder = setting.scratch.join(format!("fs-{}", self.label()));
        fs::create_dir_all(&folder)?;
        match self {
            Self::Host => {
                Ok(FileSystem { label: HOST, directory: folder, mounted: None, _guards: Vec::new() })
            }
            Self::Loop { label, mkfs, package } => {
                install(setting, mkfs, package)?;
                on_loop_device(setting, label, mkfs, &folder)
            }
            Self::ZfsFuse => {
                install(setting, "zfs-fuse", "zfs-fuse")?;
                zfs_fuse(setting, &folder)
            }
            Self::Stillpoint => {
                let mounted = Mounted::create(setting, &folder)?;
                mounted.create_volume(VOLUME)?;
                let directory = mounted.volume(VOLUME);
                Ok(FileSystem { label: STILLPOINT, directory, mounted: Some(mounted), _guards: Vec::new() })
            }
        }
    }
}

fn install(setting: &Setting, tool: &str, package: &str) -> anyhow::Result<()> {
    if available(tool) {
        return Ok(());
    }
    if !setting.arguments.install {
        bail!("{tool} is not installed: apt-get install {package}");
    }
    setting.say(&format!("installing {package}"));
    let words = ["install", "-y", "-q", "--no-install-recommends", package];
    run(program("apt-get", words).env("DEBIAN_FRONTEND", "noninteractive"))?;
    Ok(())
}

fn image(folder: &Path) -> anyhow::Result<PathBuf> {
    let image = folder.join("image");
    fs::File::create(&image)?.set_len(IMAGE_BYTES)?;
    Ok(image)
}

fn on_loop_device(
    setting: &Setting,
    label: &'static str,
    mkfs: &str,
    folder: &Path,
) -> anyhow::Result<FileSystem> {
    let image = image(folder)?;
    let image_name = path_text(&image)?;
    run(&mut program(mkfs, [if label == "ext4" { "-q" } else { "-f" }, image_name]))?;
    let device = run(&mut program("losetup", ["--find", "--show", image_name]))?.trim().to_owned();
    let detach = setting.cleanup.add(Undo::Run(vec!["losetup".into(), "--detach".into(), device.clone()]));
    let directory = folder.join("mount");
    fs::create_dir_all(&directory)?;
    run(&mut program("mount", [device.as_str(), path_text(&directory)?]))?;
    let unmount = setting.cleanup.add(Undo::Unmount(directory.clone()));
    Ok(FileSystem { label, directory, mounted: None, _guards: vec![unmount, detach] })
}

/// A pool of records of 8 KiB, as is advised for PostgreSQL; all else as zfs-fuse has it.
fn zfs_fuse(setting: &Setting, folder: &Path) -> anyhow::Result<FileSystem> {
    if std::os::unix::net::UnixStream::connect(ZFS_SOCKET).is_ok() {
        bail!("a zfs-fuse process that is not ours runs on this machine");
    }
    for needed in ["/var/run/zfs", "/var/lock/zfs"] {
        fs::create_dir_all(needed)?;
    }
    let log = fs::File::create(folder.join("log"))?;
    let child = Command::new("zfs-fuse")
        .args(["--no-daemon", "--no-kstat-mount"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start zfs-fuse")?;
    let end = setting.cleanup.add(Undo::EndProcess(child.id()));
    setting.wait_until("zfs-fuse answers", ZFS_WAIT, || {
        std::os::unix::net::UnixStream::connect(ZFS_SOCKET).is_ok()
    })?;
    let pool = format!("stillpoint{}", std::process::id());
    let (image, directory) = (image(folder)?, folder.join("mount"));
    // Without a cache file the pool is forgotten with the process; destroying a pool just used meets "busy".
    let mount = path_text(&directory)?;
    let options = ["-o", "cachefile=none", "-O", "recordsize=8k", "-m", mount];
    run(program("zpool", ["create"]).args(options).args([pool.as_str(), path_text(&image)?]))?;
    let unmount = setting.cleanup.add(Undo::Unmount(directory.clone()));
    Ok(FileSystem { label: "zfs-fuse", directory, mounted: None, _guards: vec![unmount, end] })
}

pub fn path_text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

/// Type of the file system that `path` lies on.
pub fn file_system_of(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    mounts()
        .into_iter()
        .filter(|(point, _)| path.starts_with(point))
        .max_by_key(|(point, _)| point.as_os_str().len())
        .map(|(_, kind)| kind)
}

/// Whether something is mounted at exactly `directory`.
pub fn is_mounted(directory: &Path) -> bool {
    mounts().iter().any(|(point, _)| point == directory)
}

/// Mount points and file system types, by proc_pid_mountinfo(5).
fn mounts() -> Vec<(PathBuf, String)> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let parse = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let point = left.split(' ').nth(4)?.replace("\\040", " ");
        Some((PathBuf::from(point), right.split(' ').next()?.to_owned()))
    };
    text.lines().filter_map(parse).collect()
}
