//! Memory of the mounting process: 100 GiB of logical data, then 1,000 clones of it, then while scrubbing.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::budget::Findings;
use crate::machine::Resident;
use crate::postgres::Installation;
use crate::scan::write_file;
use crate::setting::Setting;
use crate::stillpoint::Mounted;

pub const SECTION: &str = "memory";
const SAMPLE_EVERY: Duration = Duration::from_millis(50);

pub fn run(setting: &Setting, _: &Installation, findings: &mut Findings) -> anyhow::Result<()> {
    let mounted = Mounted::create(setting, &setting.fresh_folder("memory")?)?;
    let volume = mounted.create_volume("big")?;
    let first = volume.join("file0");
    setting.say("memory: filling");
    write_file(setting, &first, 1)?;
    let copies = setting.sizes.logical_bytes / setting.sizes.file_bytes;
    for number in 1..copies {
        share(&first, &volume.join(format!("file{number}")), setting.sizes.file_bytes)?;
    }
    mounted.settle()?;
    let mut stages = vec![("filled", mounted.resident()?)];
    setting.say("memory: cloning");
    mounted.create_snapshot("big", "s")?;
    for number in 0..setting.sizes.clones {
        mounted.create_clone("big", "s", &format!("clone{number}"))?;
    }
    stages.push(("cloned", mounted.resident()?));
    setting.say("memory: scrubbing");
    stages.push(("scrubbing", highest_while(&mounted, || mounted.command(&["store", "scrub"]).map(drop))?));
    // And reading: through one clone, what the snapshot shares.
    let reading = mounted.volume("clone0").join("file0");
    stages.push((
        "reading",
        highest_while(&mounted, || {
            std::io::copy(&mut File::open(&reading)?, &mut std::io::sink())?;
            Ok(())
        })?,
    ));
    let peak = stages.iter().fold(Resident::default(), |peak, (_, resident)| peak.max(*resident));
    let each: Vec<String> = stages
        .iter()
        .map(|(stage, resident)| format!("{stage} {} ({})", resident.anonymous >> 20, resident.total >> 20))
        .collect();
    findings.add(
        "memory",
        (peak.anonymous >> 20) as f64,
        format!(
            "highest RssAnon of: {} MiB (VmRSS with mapped files in brackets); {} MiB logical by copy_file_range, {} \
             clones",
            each.join(", "),
            setting.sizes.logical_bytes >> 20,
            setting.sizes.clones
        ),
    );
    mounted.unmount(setting)
}

/// The most memory the mounting process had while `work` was done.
fn highest_while(mounted: &Mounted, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Resident> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut highest = Resident::default();
            while !done.load(Ordering::Acquire) {
                highest = highest.max(Resident::of(mounted.pid).unwrap_or_default());
                std::thread::sleep(SAMPLE_EVERY);
            }
            highest
        });
        let worked = work();
        done.store(true, Ordering::Release);
        let highest = sampler.join().map_err(|_| anyhow::anyhow!("the sampling thread panicked"))?;
        worked.map(|()| highest)
    })
}

/// Copies a file by copy_file_range, which shares its blocks.
pub fn share(from: &Path, to: &Path, bytes: u64) -> anyhow::Result<()> {
    let from = File::open(from)?;
    let to = OpenOptions::new().write(true).create_new(true).open(to)?;
    let mut done = 0;
    while done < bytes {
        let length = usize::try_from(bytes - done)?;
        let copied = rustix::fs::copy_file_range(&from, None, &to, None, length)?;
        anyhow::ensure!(copied > 0, "copy_file_range stopped at {done} of {bytes} bytes");
        done += copied as u64;
    }
    Ok(())
}
