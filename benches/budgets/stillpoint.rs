//! A store and its mount, driven by the program's own command line, as a user would.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;

use crate::cleanup::{Guard, Undo, alive};
use crate::command::run;
use crate::filesystems::is_mounted;
use crate::machine::Resident;
use crate::setting::{Setting, allocated_bytes};

const PROGRAM: &str = env!("CARGO_BIN_EXE_stillpoint");
const MOUNT_WAIT: Duration = Duration::from_secs(120);
const UNMOUNT_WAIT: Duration = Duration::from_secs(120);

/// A mounted store. Unmounted when dropped; its files stay until the scratch space goes.
pub struct Mounted {
    pub store: PathBuf,
    pub directory: PathBuf,
    /// The mounting process.
    pub pid: u32,
    // In this order: the unmount ends the process by itself.
    _unmount: Guard,
    _process: Guard,
}

impl Mounted {
    /// Makes a store in `folder` and mounts it there.
    pub fn create(setting: &Setting, folder: &Path) -> anyhow::Result<Self> {
        let (store, directory) = (folder.join("store"), folder.join("mount"));
        run(Command::new(PROGRAM).arg("init").arg(&store))?;
        fs::create_dir_all(&directory)?;
        Self::mount(setting, &store, &directory)
    }

    /// Mounts in the foreground of a child, so that its pid is known, and waits until the mount answers.
    pub fn mount(setting: &Setting, store: &Path, directory: &Path) -> anyhow::Result<Self> {
        let log = fs::OpenOptions::new().create(true).append(true).open(store.with_extension("log"))?;
        let cache = setting.arguments.cache.iter().flat_map(|mode| ["--cache", mode.as_str()]);
        let child = Command::new(PROGRAM)
            .arg("mount")
            .args([store, directory])
            .arg("--foreground")
            .args(cache)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start stillpoint")?;
        let pid = child.id();
        let process = setting.cleanup.add(Undo::EndProcess(pid));
        let unmount = setting.cleanup.add(Undo::Unmount(directory.to_owned()));
        setting
            .wait_until("the mount answers", MOUNT_WAIT, || {
                !alive(pid) || (is_mounted(directory) && answers(store) && fs::read_dir(directory).is_ok())
            })
            .and_then(|()| {
                anyhow::ensure!(alive(pid), "the mounting process ended");
                Ok(())
            })
            .with_context(|| {
                let log = fs::read_to_string(store.with_extension("log")).unwrap_or_default();
                format!("cannot mount {}: {}", store.display(), log.trim())
            })?;
        let (store, directory) = (store.to_owned(), directory.to_owned());
        Ok(Self { store, directory, pid, _unmount: unmount, _process: process })
    }

    /// Folder of a volume.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Runs `stillpoint --store STORE` with these words.
    pub fn command(&self, words: &[&str]) -> anyhow::Result<String> {
        run(Command::new(PROGRAM).arg("--store").arg(&self.store).args(words))
    }

    /// The same with JSON output.
    pub fn json(&self, words: &[&str]) -> anyhow::Result<serde_json::Value> {
        let text = self.command(&[&["--output", "json"], words].concat())?;
        serde_json::from_str(&text).with_context(|| format!("{words:?} printed no JSON: {text}"))
    }

    pub fn create_volume(&self, name: &str) -> anyhow::Result<PathBuf> {
        self.command(&["volume", "create", name])?;
        Ok(self.volume(name))
    }

    pub fn create_snapshot(&self, volume: &str, snapshot: &str) -> anyhow::Result<()> {
        self.command(&["snapshot", "create", &format!("{volume}@{snapshot}")]).map(drop)
    }

    pub fn destroy_snapshot(&self, volume: &str, snapshot: &str) -> anyhow::Result<()> {
        self.command(&["snapshot", "destroy", "--yes", &format!("{volume}@{snapshot}")]).map(drop)
    }

    pub fn create_clone(&self, volume: &str, snapshot: &str, clone: &str) -> anyhow::Result<PathBuf> {
        self.command(&["clone", "create", &format!("{volume}@{snapshot}"), clone])?;
        Ok(self.volume(clone))
    }

    pub fn destroy_volume(&self, name: &str) -> anyhow::Result<()> {
        self.command(&["volume", "destroy", "--yes", name]).map(drop)
    }

    /// A figure of `store stats` or 0.
    pub fn figure(&self, name: &str) -> anyhow::Result<u64> {
        let stats = self.json(&["store", "stats"])?;
        stats[name].as_u64().with_context(|| format!("store stats has no {name}: {stats}"))
    }

    /// Brings everything written so far to the segments and collects what nothing refers to, so that the figures
    /// of two moments can be compared.
    pub fn settle(&self) -> anyhow::Result<()> {
        self.command(&["store", "gc"]).map(drop)
    }

    /// What the data takes, after `settle`.
    pub fn taken(&self) -> anyhow::Result<Taken> {
        self.settle()?;
        let live = self.figure("live_bytes")?;
        Ok(Taken { live, occupied: live + self.figure("dead_bytes")? })
    }

    /// What the host says the store's folder takes, journal and all.
    pub fn host_bytes(&self) -> anyhow::Result<u64> {
        allocated_bytes(&self.store)
    }

    pub fn resident(&self) -> anyhow::Result<Resident> {
        Resident::of(self.pid).context("the mounting process is gone")
    }

    /// Unmounts in order; returns when all is durable.
    pub fn unmount(self, setting: &Setting) -> anyhow::Result<()> {
        run(Command::new(PROGRAM).arg("unmount").arg(&self.directory))?;
        setting.wait_until("the mounting process ends", UNMOUNT_WAIT, || !alive(self.pid))
    }

    /// Unmounts and mounts again: the mounting process's caches are empty after.
    pub fn remount(self, setting: &Setting) -> anyhow::Result<Self> {
        let (store, directory) = (self.store.clone(), self.directory.clone());
        self.unmount(setting)?;
        Self::mount(setting, &store, &directory)
    }
}

/// Bytes of the segments. `physical_bytes` grows in steps, as segments take space ahead, which would hide what a
/// small change costs.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Referred to.
    live: u64,
    /// The same and what waits for a collection.
    occupied: u64,
}

impl Taken {
    /// Growth from `before` to here: the larger of the two figures', as a collection in between may have shrunk
    /// the second.
    pub fn since(self, before: Self) -> f64 {
        let growth = |now: u64, before: u64| now as f64 - before as f64;
        growth(self.live, before.live).max(growth(self.occupied, before.occupied))
    }
}

/// Whether the mounting process answers commands.
fn answers(store: &Path) -> bool {
    UnixStream::connect(store.join("control.sock")).is_ok()
}
