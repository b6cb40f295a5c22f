//! Snapshot and clone latency of the store alone, through the library: with up to 10,000 of each, and on up to
//! 20 GiB of data.

use std::path::Path;
use std::sync::{Arc, mpsc};

use parking_lot::Mutex;
use stillpoint::base::{Error, RealStorage, Result, StoreLock, SystemClock, SystemRandom};
use stillpoint::bench::lineage::{Line, Lineage, LineagePoint};
use stillpoint::bench::{Fill, PageGenerator};
use stillpoint::volume::{
    CreateOptions, Environment, Ino, NewNode, OpenOptions, Owner, ROOT_INO, Store, View,
};

use crate::budget::{Findings, figure};
use crate::postgres::Installation;
use crate::setting::Setting;

pub const SECTION: &str = "lineage";
const VOLUME: &str = "v";
/// At a few tenths of a millisecond the median of fewer moves by tenths of itself.
const SAMPLES: u64 = 200;
const WRITE_BYTES: usize = 1 << 20;
/// Written for real at most; the rest of a larger volume shares these blocks.
const WRITTEN_BYTES_MAX: u64 = 1 << 30;
/// The number of snapshots whose latency is compared with that of the first.
const MANY: u64 = 1_000;

/// A store of this process's own with one volume.
struct Library {
    store: Arc<Store>,
    volume: Arc<View>,
    _lock: StoreLock,
}

impl Lineage for Library {
    fn create_snapshot(&self, snapshot: &str) -> Result<()> {
        self.store.create_snapshot(VOLUME, snapshot).map(drop)
    }

    fn destroy_snapshot(&self, snapshot: &str) -> Result<()> {
        self.store.destroy_snapshot(VOLUME, snapshot)
    }

    fn create_clone(&self, snapshot: &str, clone: &str) -> Result<()> {
        self.store.create_clone(VOLUME, snapshot, clone).map(drop)
    }

    fn destroy_clone(&self, clone: &str) -> Result<()> {
        self.store.destroy_volume(clone)
    }
}

impl Library {
    fn create(folder: &Path) -> Result<Self> {
        let storage = RealStorage::create(folder)?;
        let lock = storage.lock("budgets")?;
        let storage = Arc::new(storage);
        let environment = Environment { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) };
        Store::create(storage.clone(), &environment, &CreateOptions::default())?;
        let store = Store::open(storage, &environment, &OpenOptions::default())?;
        let volume = store.create_volume(VOLUME)?;
        Ok(Self { store, volume, _lock: lock })
    }

    fn new_file(&self, name: &str) -> Result<Ino> {
        let owner = Owner { uid: 0, gid: 0 };
        Ok(self.volume.create(ROOT_INO, name.as_bytes(), NewNode::File, 0o600, owner)?.ino)
    }

    /// Gives the volume `bytes` of data: written up to a bound, shared from there on.
    fn fill(&self, bytes: u64, pages: &mut PageGenerator) -> Result<()> {
        let written = bytes.min(WRITTEN_BYTES_MAX);
        let first = self.new_file("data0")?;
        let mut buffer = vec![0; WRITE_BYTES];
        for offset in (0..written).step_by(WRITE_BYTES) {
            pages.fill(&mut buffer);
            self.volume.write(first, offset, &buffer)?;
        }
        for copy in 1..bytes.div_ceil(written) {
            let file = self.new_file(&format!("data{copy}"))?;
            let mut done = 0;
            while done < written {
                done += self.volume.copy_range(first, done, &self.volume, file, done, written - done)?;
            }
        }
        let (sender, receiver) = mpsc::channel();
        self.volume.sync_all(Box::new(move |result| {
            // The receiver waits below.
            let _ = sender.send(result);
        }));
        receiver.recv().map_err(|_| Error::invalid("the store was closed while it was filled"))?
    }
}

pub fn run(setting: &Setting, _: &Installation, findings: &mut Findings) -> anyhow::Result<()> {
    let &[least, ref larger @ ..] = setting.sizes.data else { anyhow::bail!("no amount of data") };
    let base = Subject::create(setting, least)?;
    let mut all = LineagePoint { count: 1, ..LineagePoint::default() };
    setting.say("lineage: number of snapshots and clones");
    let grown = Subject::create(setting, least)?;
    let mut line = Line::new(&grown.library, "", &setting.clock);
    for &count in setting.sizes.counts {
        setting.say(&format!("lineage: {count} of each"));
        line.raise(count, &mut || grown.touch())?;
        let (of_base, of_grown) = compare(setting, &base, &grown, &mut line, count)?;
        findings.note(SECTION, described(&of_base, &of_grown, &format!("{count} of each")));
        let most = setting.arguments.quick && setting.sizes.counts.last() == Some(&count);
        if count == MANY || most {
            let detail = described(&of_base, &of_grown, &format!("{count} of each"));
            findings.add("lineage-count", growth(&of_base, &of_grown), detail);
        }
        merge(&mut all, &of_base);
    }
    drop(line);
    grown.close()?;
    for (index, &bytes) in larger.iter().enumerate() {
        setting.say(&format!("lineage: {} MiB of data", bytes >> 20));
        let large = Subject::create(setting, bytes)?;
        let mut line = Line::new(&large.library, "", &setting.clock);
        let (of_base, of_large) = compare(setting, &base, &large, &mut line, 1)?;
        let detail = described(&of_base, &of_large, &format!("{} MiB over {} MiB", bytes >> 20, least >> 20));
        findings.note(SECTION, detail.clone());
        if index == 0 {
            findings.add("lineage-data", growth(&of_base, &of_large), detail);
        }
        merge(&mut all, &of_base);
        drop(line);
        large.close()?;
    }
    for (id, latency) in [("snapshot", &all.snapshot), ("clone", &all.clone)] {
        let p99 = figure(milliseconds(latency.quantile(0.99)));
        let detail = format!("median of {} on {} MiB; p99 {p99} ms", latency.count(), least >> 20);
        findings.add(id, milliseconds(latency.median()), detail);
    }
    base.close()
}

/// Samples of the base with one snapshot and of `other` as it is, in turns: both meet the same weather.
fn compare(
    setting: &Setting,
    base: &Subject,
    other: &Subject,
    line: &mut Line<'_>,
    count: u64,
) -> anyhow::Result<(LineagePoint, LineagePoint)> {
    // What was written before is not to be written back beside the measurement.
    other.library.store.checkpoint()?;
    rustix::fs::sync();
    let mut base_line = Line::new(&base.library, "", &setting.clock);
    let mut of_base = LineagePoint { count: 1, ..LineagePoint::default() };
    let mut of_other = LineagePoint { count, ..LineagePoint::default() };
    for _ in 0..SAMPLES {
        base_line.sample(&mut || base.touch(), &mut of_base)?;
        line.sample(&mut || other.touch(), &mut of_other)?;
    }
    Ok((of_base, of_other))
}

/// A store with some data and a page that is changed before each snapshot.
struct Subject {
    library: Library,
    folder: std::path::PathBuf,
    touched: Ino,
    pages: Mutex<PageGenerator>,
}

impl Subject {
    fn create(setting: &Setting, bytes: u64) -> anyhow::Result<Self> {
        let folder = setting.fresh_folder("lineage")?.join("store");
        let library = Library::create(&folder)?;
        let mut pages = PageGenerator::new(Fill::Database, bytes);
        library.fill(bytes, &mut pages)?;
        let touched = library.new_file("touched")?;
        Ok(Self { library, folder, touched, pages: Mutex::new(pages) })
    }

    fn touch(&self) -> Result<()> {
        let mut page = vec![0; 8192];
        self.pages.lock().fill(&mut page);
        self.library.volume.write(self.touched, 0, &page)
    }

    fn close(self) -> anyhow::Result<()> {
        self.library.store.close()?;
        drop(self.library);
        std::fs::remove_dir_all(&self.folder)?;
        Ok(())
    }
}

fn merge(point: &mut LineagePoint, more: &LineagePoint) {
    point.snapshot.merge(&more.snapshot);
    point.clone.merge(&more.clone);
}

fn milliseconds(duration: std::time::Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The worse of the two ratios of medians.
fn growth(base: &LineagePoint, other: &LineagePoint) -> f64 {
    let ratio = |other: &stillpoint::bench::Histogram, base: &stillpoint::bench::Histogram| {
        other.median().as_secs_f64() / base.median().as_secs_f64().max(1e-9)
    };
    ratio(&other.snapshot, &base.snapshot).max(ratio(&other.clone, &base.clone))
}

fn described(base: &LineagePoint, other: &LineagePoint, what: &str) -> String {
    format!(
        "{what}: snapshot {} ms for {} ms, clone {} ms for {} ms (medians of {SAMPLES} taken in turns; the worse \
         ratio counts)",
        figure(milliseconds(other.snapshot.median())),
        figure(milliseconds(base.snapshot.median())),
        figure(milliseconds(other.clone.median())),
        figure(milliseconds(base.clone.median())),
    )
}
