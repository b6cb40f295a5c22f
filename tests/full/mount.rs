//! A full host file system under a real mount: an ext4 of its own in a file, through a loop device.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{StatVfs, statvfs};
use rustix::io::Errno;
use tempfile::TempDir;

use super::common::{Fixture, mounts_below};

const DISK_BYTES: u64 = 160 << 20;
const FILE_BYTES: usize = 2 << 20;
/// Files in the snapshot that makes room when it goes.
const SNAPSHOT_FILES: u64 = 15;
const ATTEMPTS: u32 = 300;

/// A mounted ext4 of its own. Fields are dropped in this order: the store's mount, then the disk.
struct Host {
    fixture: Fixture,
    disk: Disk,
}

struct Disk {
    folder: TempDir,
}

impl Disk {
    fn new() -> Self {
        let disk = Self { folder: tempfile::Builder::new().prefix("stillpoint-disk-").tempdir().unwrap() };
        let image = disk.folder.path().join("image");
        File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
        fs::create_dir(disk.path()).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(disk.path()));
        disk
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for mount in mounts_below(self.folder.path()) {
            // Its loop device goes with it. A failed test may have left files open.
            if rustix::mount::unmount(&mount, rustix::mount::UnmountFlags::empty()).is_err() {
                let _ = rustix::mount::unmount(&mount, rustix::mount::UnmountFlags::DETACH);
            }
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

impl Host {
    fn new() -> Self {
        let disk = Disk::new();
        let folder = tempfile::Builder::new().prefix("store-").tempdir_in(disk.path()).unwrap();
        let fixture = Fixture::within(folder, "16MiB");
        fixture.mount();
        Self { fixture, disk }
    }

    fn volume(&self) -> PathBuf {
        self.fixture.mount_path().join("v")
    }
}

/// The only content file `number` ever has; it does not compress.
fn content(number: u64) -> Vec<u8> {
    let mut bytes = vec![0; FILE_BYTES];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn write_file(path: &Path, number: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(&content(number))?;
    file.sync_all()
}

fn is_full(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NOSPC.raw_os_error())
}

fn verify(volume: &Path, numbers: &[u64]) {
    for number in numbers {
        let mut found = Vec::new();
        File::open(volume.join(format!("f{number}"))).unwrap().read_to_end(&mut found).unwrap();
        assert!(found == content(*number), "f{number} is not what was written");
    }
}

fn bytes(space: &StatVfs) -> (u64, u64) {
    (space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize)
}

#[test]
fn a_full_disk_below_a_mount() {
    let host = Host::new();
    let fixture = &host.fixture;
    fixture.ok(["volume", "create", "v"]);
    let process = fixture.mounting_process().unwrap();
    let volume = host.volume();
    for number in 0..SNAPSHOT_FILES {
        write_file(&volume.join(format!("f{number}")), number).unwrap();
    }
    fixture.ok(["snapshot", "create", "v@old"]);
    for number in 0..SNAPSHOT_FILES {
        fs::remove_file(volume.join(format!("f{number}"))).unwrap();
    }

    let mut kept = Vec::new();
    let mut next = SNAPSHOT_FILES;
    let error = loop {
        match write_file(&volume.join(format!("f{next}")), next) {
            Ok(()) => kept.push(next),
            Err(error) => break error,
        }
        next += 1;
    };
    assert!(is_full(&error), "{error:?}");
    verify(&volume, &kept);
    let (total, available) = bytes(&statvfs(&volume).unwrap());
    let (disk_total, disk_available) = bytes(&statvfs(host.disk.path()).unwrap());
    println!("full with {} files of 2 MiB: {available} of {total} bytes are left", kept.len());
    // In units of 4 KiB, where the disk may have smaller ones.
    assert_eq!(total, disk_total / 4096 * 4096);
    assert!(available <= disk_available && available < total / 10, "{available}, {disk_available}");
    let data = (kept.len() as u64 + SNAPSHOT_FILES) * FILE_BYTES as u64;
    assert!(data * 10 >= total * 7, "{data} of {total}");

    fs::remove_file(volume.join(format!("f{next}"))).unwrap();
    fixture.ok(["snapshot", "destroy", "v@old", "--yes"]);
    next += 1;
    for number in next..next + SNAPSHOT_FILES / 2 {
        let path = volume.join(format!("f{number}"));
        // What was destroyed comes back in the background.
        let resumed = (0..ATTEMPTS).any(|_| match write_file(&path, number) {
            Ok(()) => true,
            Err(error) => {
                assert!(is_full(&error), "{error:?}");
                std::thread::sleep(std::time::Duration::from_millis(50));
                false
            }
        });
        assert!(resumed, "f{number} cannot be written: {:?}", fixture.json(["store", "stats"]));
        kept.push(number);
    }
    assert_eq!(fixture.mounting_process(), Some(process), "no restart");
    verify(&volume, &kept);
    let (_, available_after) = bytes(&statvfs(&volume).unwrap());
    println!("{} files in the end, {available_after} bytes are left", kept.len());

    fixture.unmount();
    fixture.mount();
    verify(&volume, &kept);
    fixture.unmount();
    assert_eq!(fixture.json(["store", "check"])["findings"], serde_json::json!([]));
}
