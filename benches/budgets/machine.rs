//! What the measurements were made on.

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::filesystems::file_system_of;

#[derive(Debug, Serialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory_mib: u64,
    pub kernel: String,
    pub postgresql: String,
    pub scratch: String,
    pub scratch_file_system: String,
    pub stillpoint: String,
    /// Work others did on the machine when we began, per core.
    pub load_average: String,
}

impl Machine {
    pub fn describe(scratch: &Path, postgresql: &str) -> Self {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let uname = rustix::system::uname();
        Self {
            processor: field(&processors, "model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: field(&memory, "MemTotal").and_then(|value| first_number(&value)).unwrap_or(0) / 1024,
            kernel: format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy()),
            postgresql: postgresql.to_owned(),
            scratch: scratch.display().to_string(),
            scratch_file_system: file_system_of(scratch).unwrap_or_else(|| "unknown".to_owned()),
            stillpoint: env!("CARGO_PKG_VERSION").to_owned(),
            load_average: fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned(),
        }
    }

    pub fn lines(&self) -> String {
        format!(
            "{} x {}, {} MiB, {}\nPostgreSQL {}, stillpoint {}, scratch {} on {}\nload average at start: {}\n",
            self.cores,
            self.processor,
            self.memory_mib,
            self.kernel,
            self.postgresql,
            self.stillpoint,
            self.scratch,
            self.scratch_file_system,
            self.load_average
        )
    }
}

/// Resident memory of a process in bytes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Resident {
    /// Memory of its own: heap, stacks.
    pub anonymous: u64,
    /// The same and mapped files, which the kernel may take back.
    pub total: u64,
}

impl Resident {
    /// None when the process is gone.
    pub fn of(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let bytes = |name| field(&status, name).and_then(|value| first_number(&value)).map(|kib| kib * 1024);
        Some(Self { anonymous: bytes("RssAnon")?, total: bytes("VmRSS")? })
    }

    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { anonymous: self.anonymous.max(other.anonymous), total: self.total.max(other.total) }
    }
}

/// The value behind the first `name :`.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}
