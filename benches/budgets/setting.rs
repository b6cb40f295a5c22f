//! What every section needs: arguments, scratch space, clean-up, clock.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::bail;
use stillpoint::base::{Clock, SystemClock};

use crate::Arguments;
use crate::cleanup::{Cleanup, Guard, Undo};

const POLL: Duration = Duration::from_millis(2);

pub struct Setting {
    pub arguments: Arguments,
    pub sizes: Sizes,
    /// A folder of this run's own, removed at the end.
    pub scratch: PathBuf,
    pub cleanup: Arc<Cleanup>,
    pub clock: SystemClock,
    folders: AtomicU64,
    _removal: Guard,
}

/// How much data each section uses.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// pgbench scale of the three-way comparison.
    pub scale: u32,
    /// pgbench scale of the VDB section; 70 is about 1 GiB.
    pub vdb_scale: u32,
    /// The file of the scan, the update and the foreground sections.
    pub file_bytes: u64,
    /// Numbers of snapshots and clones in the lineage section.
    pub counts: &'static [u64],
    /// Bytes of data in the lineage section; the middle one over the first is the budget's "100 times".
    pub data: &'static [u64],
    /// Logical bytes and clones of the memory section.
    pub logical_bytes: u64,
    pub clones: u64,
    /// Snapshots of the destroy section.
    pub snapshots: u64,
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

impl Sizes {
    pub const FULL: Self = Self {
        scale: 30,
        vdb_scale: 70,
        file_bytes: GIB,
        counts: &[1, 100, 1_000, 10_000],
        data: &[10 * MIB, GIB, 20 * GIB],
        logical_bytes: 100 * GIB,
        clones: 1_000,
        snapshots: 1_000,
    };
    /// Enough to see that everything works; the figures mean nothing.
    pub const QUICK: Self = Self {
        scale: 1,
        vdb_scale: 2,
        file_bytes: 32 * MIB,
        counts: &[1, 10, 30],
        data: &[MIB, 16 * MIB],
        logical_bytes: GIB,
        clones: 10,
        snapshots: 20,
    };
}

impl Setting {
    pub fn new(arguments: Arguments) -> anyhow::Result<Self> {
        let cleanup = Cleanup::new()?;
        let sizes = if arguments.quick { Sizes::QUICK } else { Sizes::FULL };
        let parent = arguments.scratch.clone().unwrap_or_else(std::env::temp_dir);
        let scratch = parent.join(format!("stillpoint-budgets-{}", std::process::id()));
        std::fs::create_dir_all(&scratch)?;
        // The kernel's list of mounts, in which ours are looked for, knows no symbolic links.
        let scratch = scratch.canonicalize()?;
        // First on the list, so undone last.
        let removal = cleanup.add(Undo::RemoveFolder(scratch.clone()));
        let folders = AtomicU64::new(0);
        Ok(Self { arguments, sizes, scratch, cleanup, clock: SystemClock, folders, _removal: removal })
    }

    /// Says on stderr what is being done.
    pub fn say(&self, what: &str) {
        eprintln!("budgets: {what}");
    }

    pub fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// How long `work` takes.
    pub fn timed<T>(&self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, Duration)> {
        let begun = self.now();
        let result = work()?;
        Ok((result, self.now() - begun))
    }

    /// A new empty folder in the scratch space; a short name, as socket paths are limited to 107 bytes.
    pub fn fresh_folder(&self, prefix: &str) -> anyhow::Result<PathBuf> {
        let number = self.folders.fetch_add(1, Ordering::Relaxed);
        let folder = self.scratch.join(format!("{prefix}{number}"));
        std::fs::create_dir(&folder)?;
        Ok(folder)
    }

    /// Waits for a condition; fails when it does not come true in time.
    pub fn wait_until(
        &self,
        what: &str,
        patience: Duration,
        mut holds: impl FnMut() -> bool,
    ) -> anyhow::Result<()> {
        let begun = self.now();
        while !holds() {
            if self.now() - begun > patience {
                bail!("waited {} s until {what}", patience.as_secs());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// How long each timed part of a section lasts.
    pub fn duration(&self) -> Duration {
        Duration::from_secs(self.arguments.seconds)
    }
}

/// Writes back everything and forgets what the kernel caches of files.
pub fn drop_host_caches() -> anyhow::Result<()> {
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "1")?;
    Ok(())
}

/// Host bytes that the files under `folder` take.
pub fn allocated_bytes(folder: &Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    sum_files(folder, &|metadata| metadata.blocks() * 512)
}

/// Sum of the lengths of the files under `folder`.
pub fn logical_bytes(folder: &Path) -> anyhow::Result<u64> {
    sum_files(folder, &std::fs::Metadata::len)
}

fn sum_files(folder: &Path, measure: &dyn Fn(&std::fs::Metadata) -> u64) -> anyhow::Result<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        total += if metadata.is_dir() {
            sum_files(&entry.path(), measure)?
        } else if metadata.is_file() {
            measure(&metadata)
        } else {
            0
        };
    }
    Ok(total)
}
