//! Faults: open problems of datasets, raised when seen and resolved when no longer seen; and servers that should
//! run and do not, started again.

use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use super::jobs::{JobHandle, NewJob};
use super::locks::{Hold, LOOKING};
use super::vdb::STARTING;
use crate::adapter::{Health, Instance, Problem};
use crate::base::{ErrorKind, Result};
use crate::catalog::{Dataset, DatasetState, Fault, JobKind, Role, Severity};

/// The fault of a server that should run and does not.
const SERVER_DOWN: &str = "SERVER_DOWN";
/// The fault of a server that is still held at the point of a snapshot.
const THAW_FAILED: &str = "THAW_FAILED";
/// How long a server that was started again is left alone; doubled with each time that it went down.
const RESTART_WAIT: Duration = Duration::from_secs(5);
const RESTART_DOUBLINGS_MAX: u32 = 6;
/// The same for a sync: an hour and a half at most.
const SYNC_DOUBLINGS_MAX: u32 = 10;
/// How often a source is asked of its slot.
const ASK_SOURCE_INTERVAL: Duration = Duration::from_secs(60);

/// What became of an attempt to start a server again.
enum Again {
    Started(u64),
    /// Its time has not come.
    Later,
    /// A job is at work on the dataset.
    Busy,
}

/// The problem of a server that is down and not yet started again.
fn still_down(fault: Fault) -> Option<Problem> {
    (fault.code == SERVER_DOWN).then(|| as_problem(fault))
}

fn as_problem(fault: Fault) -> Problem {
    let Fault { code, message, action, .. } = fault;
    Problem { code, message, action }
}

impl Engine {
    /// The open faults of a dataset.
    pub fn open_faults(&self, dataset: u64) -> Result<Vec<Fault>> {
        self.catalog.select(|fault: &Fault| fault.dataset == dataset && fault.resolved.is_none())
    }

    /// Looks at every dataset once: its faults are what is seen now, and a server that went down is started again.
    pub fn look_after(self: &Arc<Self>) -> Result<()> {
        for dataset in self.catalog.list::<Dataset>()? {
            if let Err(e) = self.look_after_one(&dataset) {
                tracing::warn!("looking after {}: {e}", dataset.name);
            }
        }
        Ok(())
    }

    fn look_after_one(self: &Arc<Self>, listed: &Dataset) -> Result<()> {
        let token = self.catalog.change(|change| change.next_id())?;
        // While a job is at work on it, what is seen is its doing.
        let Ok(held) = self.locks.take(token, LOOKING, &[(listed.id, Hold::Use)]) else {
            return Ok(());
        };
        let Some(dataset) = self.catalog.get::<Dataset>(listed.id)? else { return Ok(()) };
        if dataset.state != DatasetState::Active {
            return match dataset.state {
                DatasetState::Stopped | DatasetState::Disabled => self.settle(&dataset, &[]),
                _ => Ok(()),
            };
        }
        let instance = self.instance(&dataset, &self.current_timeflow(&dataset)?)?;
        let health: Health = self.adapter(&dataset.adapter)?.monitor(&instance)?;
        drop(held);
        let mut problems = health.problems;
        problems.extend(self.thaw_again(&dataset, &instance)?);
        problems.extend(self.damaged_files(&dataset)?);
        if !health.running {
            match self.start_again(&dataset)? {
                Again::Started(job) => problems.push(Problem {
                    code: SERVER_DOWN.into(),
                    message: format!("the server of {} is not running", dataset.name),
                    action: format!("job {job} starts it again; if it fails, its log says why"),
                }),
                Again::Later => {
                    problems.extend(self.open_faults(dataset.id)?.into_iter().filter_map(still_down))
                }
                Again::Busy => return Ok(()),
            }
        } else if health.state != "starting" {
            self.restarts.lock().remove(&dataset.id);
        }
        if health.needs_restart {
            self.restart(&dataset)?;
        }
        match health.needs_sync {
            true => self.sync_by_itself(&dataset)?,
            false => drop(self.syncs.lock().remove(&dataset.id)),
        }
        for problem in self.asked_of_source(&dataset, &instance) {
            if problems.iter().all(|known| known.code != problem.code) {
                problems.push(problem);
            }
        }
        self.settle(&dataset, &problems)
    }

    /// Tries again to let a server go on that a snapshot left held; says so while it does not work.
    fn thaw_again(&self, dataset: &Dataset, instance: &Instance) -> Result<Option<Problem>> {
        if !self.held.lock().contains(&dataset.id) {
            return Ok(None);
        }
        let token = self.catalog.change(|change| change.next_id())?;
        let Ok(_alone) = self.locks.take(token, LOOKING, &[(dataset.id, Hold::Operate)]) else {
            let open = self.open_faults(dataset.id)?.into_iter();
            return Ok(open.filter(|fault| fault.code == THAW_FAILED).map(as_problem).next());
        };
        let Err(e) = self.adapter(&dataset.adapter)?.thaw(instance) else {
            self.held.lock().remove(&dataset.id);
            return Ok(None);
        };
        Ok(Some(Problem {
            code: THAW_FAILED.into(),
            message: format!("{} could not be let go on after a snapshot: {e}", dataset.name),
            action: "it is tried again by itself; if it goes on, restart what is held by hand".into(),
        }))
    }

    /// What the source said last, asked again now and then. That it does not answer is seen by the staging server.
    fn asked_of_source(&self, dataset: &Dataset, instance: &Instance) -> Vec<Problem> {
        if dataset.role != Role::Dsource {
            return Vec::new();
        }
        let now = self.clock.monotonic();
        if let Some((next, problems)) = self.sources.lock().get(&dataset.id)
            && now < *next
        {
            return problems.clone();
        }
        let asked = self.adapter(&dataset.adapter).and_then(|adapter| adapter.ask_source(instance));
        let problems = asked.map_or_else(|_| Vec::new(), |(_, problems)| problems);
        self.sources.lock().insert(dataset.id, (now + ASK_SOURCE_INTERVAL, problems.clone()));
        problems
    }

    /// Submits a job that stops and starts the server of a dataset that can go on only so.
    fn restart(self: &Arc<Self>, dataset: &Dataset) -> Result<()> {
        let (engine, id) = (Arc::clone(self), dataset.id);
        let new = NewJob {
            kind: JobKind::DbStart,
            target: &dataset.name,
            dataset: Some(id),
            holds: vec![(id, Hold::Operate)],
        };
        let submitted = self.submit(new, move |task| {
            let dataset = engine.dataset_by_id(id)?;
            if dataset.state != DatasetState::Active {
                return Ok(());
            }
            engine.stop_server(&dataset, task)?;
            engine.start_server(&dataset, task)
        });
        match submitted {
            // Something is at work on it: the next look sees what is left.
            Err(e) if e.kind() != ErrorKind::InUse => Err(e),
            _ => Ok(()),
        }
    }

    /// Starts a server again that went down by itself, each time a little later.
    fn start_again(self: &Arc<Self>, dataset: &Dataset) -> Result<Again> {
        let now = self.clock.monotonic();
        let tried = self.restarts.lock().get(&dataset.id).copied();
        if tried.is_some_and(|(_, next)| now < next) {
            return Ok(Again::Later);
        }
        match self.submit_start(dataset) {
            Ok(handle) => {
                let times = tried.map_or(0, |(times, _)| times + 1);
                let wait = RESTART_WAIT * 2_u32.pow(times.min(RESTART_DOUBLINGS_MAX));
                self.restarts.lock().insert(dataset.id, (times, now + wait));
                Ok(Again::Started(handle.id))
            }
            Err(e) if e.kind() == ErrorKind::InUse => Ok(Again::Busy),
            Err(e) => Err(e),
        }
    }

    /// Submits a sync for what a look saw, and again, each time a little later, while there is still something.
    fn sync_by_itself(self: &Arc<Self>, dataset: &Dataset) -> Result<()> {
        let now = self.clock.monotonic();
        let tried = self.syncs.lock().get(&dataset.id).copied();
        if tried.is_some_and(|(_, next)| now < next) {
            return Ok(());
        }
        match self.submit_snapshot(dataset, JobKind::DbSync) {
            Ok(_) => {
                let times = tried.map_or(0, |(times, _)| times + 1);
                let wait = RESTART_WAIT * 2_u32.pow(times.min(SYNC_DOUBLINGS_MAX));
                self.syncs.lock().insert(dataset.id, (times, now + wait));
                Ok(())
            }
            // Something is at work on it: the next look sees what is left.
            Err(e) if e.kind() == ErrorKind::InUse => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Submits a job that starts the server of a dataset that should run.
    pub(super) fn submit_start(self: &Arc<Self>, dataset: &Dataset) -> Result<JobHandle> {
        let (engine, id) = (Arc::clone(self), dataset.id);
        let new = NewJob {
            kind: JobKind::DbStart,
            target: &dataset.name,
            dataset: Some(id),
            holds: vec![(id, Hold::Operate)],
        };
        self.submit(new, move |task| {
            let dataset = engine.dataset_by_id(id)?;
            // It may have been stopped on purpose since.
            if dataset.state != DatasetState::Active {
                return Ok(());
            }
            engine.around(&dataset, STARTING, task, |task| engine.start_server(&dataset, task))
        })
    }

    /// Makes the open faults of a dataset those of the problems seen now.
    fn settle(&self, dataset: &Dataset, problems: &[Problem]) -> Result<()> {
        let open = self.open_faults(dataset.id)?;
        let now = self.now();
        for problem in problems {
            if open.iter().any(|fault| fault.code == problem.code && fault.message == problem.message) {
                continue;
            }
            self.catalog.change(|change| {
                let same = open.iter().find(|fault| fault.code == problem.code);
                let id = match same {
                    Some(fault) => fault.id,
                    None => change.next_id()?,
                };
                change.put(&Fault {
                    id,
                    dataset: dataset.id,
                    code: problem.code.clone(),
                    message: problem.message.clone(),
                    action: problem.action.clone(),
                    raised: same.map_or(now, |fault| fault.raised),
                    resolved: None,
                })
            })?;
            self.event(Severity::Error, "FAULT_RAISED", Some(dataset.id), None, &problem.message);
        }
        for fault in open {
            if problems.iter().all(|problem| problem.code != fault.code) {
                self.catalog
                    .change(|change| change.update::<Fault>(fault.id, |fault| fault.resolved = Some(now)))?;
                let message = format!("no longer: {}", fault.message);
                self.event(Severity::Info, "FAULT_RESOLVED", Some(dataset.id), None, &message);
            }
        }
        Ok(())
    }
}
