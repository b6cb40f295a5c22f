//! `stillpoint bench`: a mount measured as databases use it, against the folder beneath.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::context::Context;
use super::exit::{Failure, Outcome, Result};
use super::mount::{Options as MountOptions, start_daemon};
use super::mountinfo::{Mount, resolve, stillpoint_mounts};
use super::output::Output;
use super::progress::ProgressLine;
use super::signals::Interrupted;
use super::sizes::parse_bytes;
use super::unmount::unmount;
use super::volume::unexpected;
use crate::base::{Error, ErrorKind, SystemClock, SystemRandom};
use crate::bench::{self, Fill, Lineage, Options, Subject, Surroundings, suite};
use crate::control::{Client, Operations, Progress, Reply, Request};

/// Snapshots that are there when one more is timed.
const COUNTS: [u64; 3] = [1, 100, 1_000];

#[derive(Args)]
pub(super) struct BenchArguments {
    /// A folder of a mount; with --store it may be left out, and the store is mounted for the time being
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
    /// A folder to compare with; by default the one that holds the store
    #[arg(long, value_name = "DIR")]
    beneath: Option<PathBuf>,
    /// Size of the file that is read and overwritten
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes, default_value = "256MiB")]
    size: u64,
    /// How long a run of a test lasts that does not end by itself
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Runs of each test; the median is shown
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    runs: u8,
    /// What is written
    #[arg(long, value_enum, default_value_t)]
    fill: Contents,
    /// Only tests whose names begin so
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Leave the host's page cache as it is before cold reads; emptying it needs root
    #[arg(long)]
    keep_caches: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Contents {
    /// Pages as databases have them, about 2:1 compressible, no two alike
    #[default]
    Database,
    Zero,
    Random,
}

pub(super) fn run(arguments: &BenchArguments, context: &Context) -> Result<Outcome> {
    check_names(&arguments.only)?;
    let interrupted = Interrupted::watch()?;
    let place = Place::find(arguments, context)?;
    let result = measure(arguments, &place, &interrupted);
    // The first failure is the one to show.
    match (result, place.leave()) {
        (Ok(report), left) => {
            left?;
            match context.output {
                Output::Table => context.output.text(&report.table())?,
                Output::Json => context.output.json(&report)?,
            }
            Ok(Outcome::Done)
        }
        (Err(failure), left) => {
            if let Err(second) = left {
                tracing::warn!("cleaning up: {}", second.error.message());
            }
            Err(failure)
        }
    }
}

fn check_names(only: &[String]) -> Result<()> {
    for wanted in only {
        if !suite::names().any(|name| name.starts_with(wanted.as_str())) {
            let names: Vec<_> = suite::names().collect();
            return Err(Failure::new(ErrorKind::Invalid, format!("no test is named {wanted}"))
                .hint(format!("the tests are {}", names.join(", "))));
        }
    }
    Ok(())
}

fn measure(arguments: &BenchArguments, place: &Place, interrupted: &Interrupted) -> Result<bench::Report> {
    let lineage = place.scratch.as_ref().ok_or_else(|| place.why_no_volume.to_owned());
    let subject = Subject {
        directory: place.directory.clone(),
        mounting_pid: place.mounting_pid,
        beneath: place.beneath.clone(),
        lineage: lineage.map(|scratch| scratch as &dyn Lineage),
    };
    let options = Options {
        file_bytes: arguments.size,
        duration: Duration::from_secs(arguments.seconds),
        runs: arguments.runs.into(),
        fill: match arguments.fill {
            Contents::Database => Fill::Database,
            Contents::Zero => Fill::Zero,
            Contents::Random => Fill::Random,
        },
        only: arguments.only.clone(),
        drop_host_caches: !arguments.keep_caches && bench::folder::may_drop_host_caches(),
        counts: COUNTS.to_vec(),
    };
    let line = std::cell::RefCell::new(ProgressLine::new());
    let progress = |step: &str| {
        line.borrow_mut().update(&Progress { step: step.to_owned(), done: 0, total: None });
        interrupted.check().map_err(|failure| failure.error)
    };
    let around = Surroundings { clock: &SystemClock, random: &SystemRandom, progress: &progress };
    Ok(bench::run(&subject, &options, &around)?)
}

/// Where is measured, and what was made for it.
struct Place {
    directory: PathBuf,
    beneath: Option<PathBuf>,
    mounting_pid: Option<u32>,
    /// A volume of our own, to be destroyed.
    scratch: Option<ScratchVolume>,
    why_no_volume: &'static str,
    /// A mount of our own, to be unmounted.
    mounted: Option<PathBuf>,
}

impl Place {
    fn find(arguments: &BenchArguments, context: &Context) -> Result<Self> {
        let beneath = arguments.beneath.clone();
        if let Some(directory) = &arguments.directory {
            let directory = resolve(directory)?;
            return match enclosing_mount(&directory)? {
                Some(mount) => Self::on_mount(&mount, directory, beneath),
                None => Ok(Self::plain(directory, beneath, "the folder is on no Stillpoint mount")),
            };
        }
        let store = context.store().map_err(|_| {
            Failure::new(ErrorKind::Invalid, "nothing to measure").hint("name a folder, or add --store STORE")
        })?;
        let known = stillpoint_mounts()?.into_iter().find(|mount| same_folder(&mount.store, store));
        if let Some(mount) = known {
            let directory = mount.directory.clone();
            return Self::on_mount(&mount, directory, beneath);
        }
        Self::mounted_for_now(store, beneath)
    }

    fn plain(directory: PathBuf, beneath: Option<PathBuf>, why_no_volume: &'static str) -> Self {
        Self { directory, beneath, mounting_pid: None, scratch: None, why_no_volume, mounted: None }
    }

    /// Measures on a volume made for it where all volumes are shown, else in the folder itself.
    fn on_mount(mount: &Mount, directory: PathBuf, beneath: Option<PathBuf>) -> Result<Self> {
        let beneath = beneath.or_else(|| mount.store.parent().map(Path::to_owned));
        let Some(client) = Client::connect(&mount.store)? else {
            return Ok(Self::plain(directory, beneath, "the process that mounts the store does not answer"));
        };
        let pid = u32::try_from(client.peer().as_raw_nonzero().get()).ok();
        let Reply::Status(status) = client.perform(&Request::Status, &mut |_| {})? else {
            return Err(unexpected());
        };
        let whole = status.mounts.iter().any(|row| row.directory == mount.directory && row.volume.is_none());
        if !whole {
            let place =
                Self::plain(directory, beneath, "the mount shows one volume alone; name the store's mount");
            return Ok(Self { mounting_pid: pid, ..place });
        }
        let scratch = ScratchVolume::create(client)?;
        let place = Self::plain(mount.directory.join(&scratch.name), beneath, "");
        Ok(Self { mounting_pid: pid, scratch: Some(scratch), ..place })
    }

    fn mounted_for_now(store: &Path, beneath: Option<PathBuf>) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("stillpoint-bench-{}", std::process::id()));
        let shown = folder.display().to_string();
        std::fs::create_dir(&folder).map_err(|e| Error::io("make a folder to mount at", &shown, e))?;
        let found = start_daemon(store, &folder, None, &MountOptions::default())
            .and_then(|_| enclosing_mount(&resolve(&folder)?)?.ok_or_else(unexpected))
            .and_then(|mount| Self::on_mount(&mount, mount.directory.clone(), beneath));
        match found {
            Ok(place) => Ok(Self { mounted: Some(folder), ..place }),
            Err(failure) => {
                if let Err(second) = unmount_for_good(&folder) {
                    tracing::warn!("cleaning up: {}", second.error.message());
                }
                Err(failure)
            }
        }
    }

    /// Destroys and unmounts what was made.
    fn leave(self) -> Result<()> {
        let destroyed = self.scratch.map_or(Ok(()), ScratchVolume::destroy);
        if let Some(folder) = self.mounted {
            unmount_for_good(&folder)?;
        }
        destroyed
    }
}

/// Unmounts what is mounted at a folder, if anything, and removes the folder.
fn unmount_for_good(folder: &Path) -> Result<()> {
    if enclosing_mount(&resolve(folder)?)?.is_some_and(|mount| same_folder(&mount.directory, folder)) {
        unmount(folder)?;
    }
    Ok(std::fs::remove_dir(folder).map_err(|e| Error::io("remove", &folder.display().to_string(), e))?)
}

/// The Stillpoint mount that `directory` lies on.
fn enclosing_mount(directory: &Path) -> Result<Option<Mount>> {
    let around = stillpoint_mounts()?.into_iter().filter(|mount| directory.starts_with(&mount.directory));
    Ok(around.max_by_key(|mount| mount.directory.as_os_str().len()))
}

fn same_folder(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// A volume for the measurement, reached by the control socket.
struct ScratchVolume {
    client: Client,
    name: String,
}

impl ScratchVolume {
    fn create(client: Client) -> Result<Self> {
        let name = format!("stillpoint-bench-{}", std::process::id());
        client.perform(&Request::VolumeCreate { name: name.clone() }, &mut |_| {})?;
        Ok(Self { client, name })
    }

    fn destroy(self) -> Result<()> {
        let request = Request::VolumeDestroy { name: self.name, with_snapshots: true };
        self.client.perform(&request, &mut |_| {})?;
        Ok(())
    }

    fn ask(&self, request: &Request) -> crate::base::Result<()> {
        self.client.perform(request, &mut |_| {}).map(drop)
    }
}

impl Lineage for ScratchVolume {
    fn create_snapshot(&self, snapshot: &str) -> crate::base::Result<()> {
        self.ask(&Request::SnapshotCreate { volume: self.name.clone(), name: snapshot.to_owned() })
    }

    fn destroy_snapshot(&self, snapshot: &str) -> crate::base::Result<()> {
        self.ask(&Request::SnapshotDestroy { volume: self.name.clone(), name: snapshot.to_owned() })
    }

    fn create_clone(&self, snapshot: &str, clone: &str) -> crate::base::Result<()> {
        let (volume, snapshot) = (self.name.clone(), snapshot.to_owned());
        self.ask(&Request::CloneCreate { volume, snapshot, name: clone.to_owned() })
    }

    fn destroy_clone(&self, clone: &str) -> crate::base::Result<()> {
        self.ask(&Request::VolumeDestroy { name: clone.to_owned(), with_snapshots: false })
    }
}
