//! What is known of the past is bounded: old jobs, with their logs, and old events go.

use std::time::Duration;

use super::Engine;
use crate::base::{Error, Result};
use crate::catalog::{Event, Job};

/// Jobs and events that are kept at most, each.
const KEPT_MAX: usize = 10_000;
/// Records that one transaction removes, so that others have their turn in between.
const BATCH: usize = 1000;

impl Engine {
    /// Removes jobs that ended and events that happened longer than `keep` ago, and those beyond the newest 10,000.
    /// Returns how many went.
    pub fn forget_past(&self, keep: Duration) -> Result<usize> {
        self.forget_past_beyond(keep, KEPT_MAX)
    }

    fn forget_past_beyond(&self, keep: Duration, kept_max: usize) -> Result<usize> {
        let oldest = self.now().checked_sub(keep).unwrap_or(jiff::Timestamp::MIN);
        let (mut jobs, mut events, mut seen) = (Vec::new(), Vec::new(), 0);
        self.catalog.walk_down(u64::MAX, |job: Job| {
            seen += 1;
            // One that waits or runs is kept, however old.
            if job.ended.is_some_and(|ended| seen > kept_max || ended < oldest) {
                jobs.push(job.id);
            }
            true
        })?;
        seen = 0;
        self.catalog.walk_down(u64::MAX, |event: Event| {
            seen += 1;
            if seen > kept_max || event.time < oldest {
                events.push(event.id);
            }
            true
        })?;
        for batch in jobs.chunks(BATCH) {
            for id in batch {
                self.remove_log(*id)?;
            }
            self.catalog.change(|change| batch.iter().try_for_each(|id| change.remove::<Job>(*id)))?;
        }
        for batch in events.chunks(BATCH) {
            self.catalog.change(|change| batch.iter().try_for_each(|id| change.remove::<Event>(*id)))?;
        }
        Ok(jobs.len() + events.len())
    }

    /// Before the record, which is what leads to it.
    fn remove_log(&self, id: u64) -> Result<()> {
        let path = self.log_path(id);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", &path.display().to_string(), e))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::{SeededRandom, SimClock, SimStorage};
    use crate::catalog::{Catalog, JobKind, JobStatus, Severity};
    use crate::engine::Parts;
    use crate::engine::volumes::testing::Names;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn put_job(engine: &Engine, id: u64, status: JobStatus) {
        let ended = status.is_final().then(|| engine.now());
        let job = Job { status, ended, ..Job::queued(id, JobKind::DbStart, "shop", engine.now()) };
        engine.catalog.change(|change| change.put(&job)).unwrap();
        std::fs::write(engine.log_path(id), "a line").unwrap();
    }

    #[test]
    fn what_is_old_goes_with_its_log_and_what_runs_stays() {
        let folder = tempfile::Builder::new().prefix("sp").tempdir().unwrap();
        let clock = Arc::new(SimClock::new(1000 * DAY, Duration::from_nanos(1)));
        let engine = Engine::open(Parts {
            catalog: Catalog::open(&SimStorage::new()).unwrap(),
            storage: Arc::new(SimStorage::new()),
            adapters: Vec::new(),
            volumes: Arc::new(Names::default()),
            store: "/store".into(),
            state: folder.path().join("state"),
            clock: clock.clone(),
            random: Arc::new(SeededRandom::new(1)),
            jobs_max: 1,
            kept_mount: None,
        })
        .unwrap();
        let jobs = || Vec::from_iter(engine.catalog.list::<Job>().unwrap().iter().map(|job| job.id));
        put_job(&engine, 1001, JobStatus::Running);
        put_job(&engine, 1002, JobStatus::Failed);
        engine.event(Severity::Info, "OLD", None, None, "");
        clock.advance(10 * DAY);
        for id in 1003..1006 {
            put_job(&engine, id, JobStatus::Completed);
        }
        engine.event(Severity::Info, "NEW", None, None, "");

        assert_eq!(engine.forget_past(11 * DAY).unwrap(), 0);
        assert_eq!(engine.forget_past(9 * DAY).unwrap(), 2);
        assert_eq!(jobs(), [1001, 1003, 1004, 1005]);
        assert!(!engine.log_path(1002).exists() && engine.log_path(1001).exists());
        let events = engine.catalog.list::<Event>().unwrap();
        assert_eq!(Vec::from_iter(events.iter().map(|event| event.kind.as_str())), ["NEW"]);

        assert_eq!(engine.forget_past_beyond(9 * DAY, 2).unwrap(), 1);
        assert_eq!(jobs(), [1001, 1004, 1005]);
        assert!(!engine.log_path(1003).exists());
    }
}
