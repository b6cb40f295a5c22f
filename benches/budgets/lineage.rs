//! Snapshot and clone latency of the store alone, through the library: with up to 10,000 of each, and on up to
//! 20 GiB of data.

use std::path::Path;
use std::sync::{Arc, mpsc};

use anyhow::Context as _;
use stillpoint::base::{Error, RealStorage, Result, StoreLock, SystemClock, SystemRandom};
use stillpoint::bench::lineage::{self, Lineage, LineagePoint};
use stillpoint::bench::{Fill, PageGenerator};
use stillpoint::volume::{
    CreateOptions, Environment, Ino, NewNode, OpenOptions, Owner, ROOT_INO, Store, View,
};

use crate::budget::{Findings, figure};
use crate::postgres::Installation;
use crate::setting::Setting;

pub const SECTION: &str = "lineage";
const VOLUME: &str = "v";
/// In each repetition: at a few tenths of a millisecond the median of fewer moves by tenths of itself.
const SAMPLES: u64 = 100;
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
    let mut by_data: Vec<Vec<LineagePoint>> = Vec::new();
    for turn in 0..setting.arguments.runs {
        for (index, &bytes) in setting.sizes.data.iter().enumerate() {
            setting.say(&format!("lineage: repetition {}, on {} MiB", turn + 1, bytes >> 20));
            // Many snapshots only on the smallest, so that number and size are told apart.
            let counts = if index == 0 { setting.sizes.counts } else { &setting.sizes.counts[..1] };
            let folder = setting.fresh_folder("lineage")?;
            let points = measure(setting, &folder.join("store"), bytes, counts)?;
            match by_data.get_mut(index) {
                None => by_data.push(points),
                Some(earlier) => merge(earlier, &points),
            }
        }
    }
    for (points, bytes) in by_data.iter().zip(setting.sizes.data) {
        for point in points {
            findings.note(SECTION, line(*bytes, point));
        }
    }
    let base = by_data[0].first().context("nothing was measured")?;
    findings.add(
        "snapshot",
        milliseconds(base.snapshot.median()),
        format!("median of {}, the first snapshot", base.snapshot.count()),
    );
    findings.add(
        "clone",
        milliseconds(base.clone.median()),
        format!("median of {}, the first clone", base.clone.count()),
    );
    let of_many = by_data[0].iter().find(|point| point.count == MANY).or(by_data[0].last());
    if let Some(many) = of_many {
        findings.add(
            "lineage-count",
            growth(base, many),
            described(base, many, &format!("{} of each", many.count)),
        );
    }
    if let Some(large) = by_data.get(1).and_then(|points| points.first()) {
        let what =
            format!("{} MiB of data over {} MiB", setting.sizes.data[1] >> 20, setting.sizes.data[0] >> 20);
        findings.add("lineage-data", growth(base, large), described(base, large, &what));
    }
    Ok(())
}

fn measure(
    setting: &Setting,
    folder: &Path,
    bytes: u64,
    counts: &[u64],
) -> anyhow::Result<Vec<LineagePoint>> {
    let library = Library::create(folder)?;
    let mut pages = PageGenerator::new(Fill::Database, bytes);
    library.fill(bytes, &mut pages)?;
    let touched = library.new_file("touched")?;
    let mut page = vec![0; 8192];
    let mut touch = || {
        pages.fill(&mut page);
        library.volume.write(touched, 0, &page)
    };
    let points = lineage::measure(&library, &mut touch, counts, SAMPLES, "", &setting.clock)?;
    library.store.close()?;
    std::fs::remove_dir_all(folder)?;
    Ok(points)
}

fn merge(points: &mut [LineagePoint], more: &[LineagePoint]) {
    for (point, more) in points.iter_mut().zip(more) {
        point.snapshot.merge(&more.snapshot);
        point.clone.merge(&more.clone);
    }
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
        "{what}: snapshot {} ms after {} ms, clone {} ms after {} ms (medians; the worse ratio counts)",
        figure(milliseconds(other.snapshot.median())),
        figure(milliseconds(base.snapshot.median())),
        figure(milliseconds(other.clone.median())),
        figure(milliseconds(base.clone.median())),
    )
}

fn line(bytes: u64, point: &LineagePoint) -> String {
    format!(
        "{} MiB, number {}: snapshot median {} ms, p99 {} ms; clone median {} ms, p99 {} ms",
        bytes >> 20,
        point.count,
        figure(milliseconds(point.snapshot.median())),
        figure(milliseconds(point.snapshot.quantile(0.99))),
        figure(milliseconds(point.clone.median())),
        figure(milliseconds(point.clone.quantile(0.99))),
    )
}
