//! Jobs: operations that take time, one after another or a few side by side, written down as they go.
//!
//! A job is in the catalog from the moment it is accepted. Its locks are taken then, so that what cannot run is
//! refused to the one who asked, and not found out later.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::Engine;
use super::locks::{Held, Hold};
use crate::adapter::Task;
use crate::base::{Error, ErrorKind, Result};
use crate::catalog::{BackupSet, Dataset, Job, JobError, JobKind, JobStatus, JobStep, Severity};

/// Jobs that wait at a time; the next one is refused.
const QUEUE_MAX: usize = 1000;
const LOOK_POLL: Duration = Duration::from_millis(10);
/// How long a look at a dataset is waited for: its server may take its time to answer.
const LOOK_TIME_MAX: Duration = Duration::from_secs(20);
/// Figures reach the catalog this often, so that a slow copy does not become a stream of commits.
const RECORD_INTERVAL: Duration = Duration::from_secs(1);
/// The lowest priority that a thread can have.
const NICE_MAX: i32 = 19;
/// A log line is cut here.
const LOG_LINE_BYTES_MAX: usize = 16 << 10;
/// What one read of a log returns at most.
const LOG_READ_BYTES_MAX: u64 = 1 << 20;

type Body = Box<dyn FnOnce(&mut JobTask) -> Result<()> + Send>;

/// A job that was accepted.
#[derive(Clone, Debug)]
pub struct JobHandle {
    pub id: u64,
}

/// A piece of a job's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobLog {
    pub text: String,
    /// Where to read on.
    pub next: u64,
}

/// What is to run, and what is asked of what runs.
pub(super) struct Runner {
    queue: (Sender<Queued>, Receiver<Queued>),
    /// The same for checks of files, which run one at a time and behind everything else.
    checks: (Sender<Queued>, Receiver<Queued>),
    workers_max: usize,
    cancels: Mutex<HashMap<u64, Arc<AtomicBool>>>,
    /// Threads of jobs that may wait for long, which must not keep others from running.
    apart: Mutex<Vec<JoinHandle<()>>>,
    ending: AtomicBool,
    /// Raised whenever a job's record or log changed, or something happened.
    changes: (Mutex<u64>, Condvar),
    /// The same for those who wait without a thread of their own.
    watched: watch::Sender<u64>,
}

struct Queued {
    job: u64,
    body: Body,
    held: Held,
    cancel: Arc<AtomicBool>,
}

/// What is asked for with a new job.
pub(super) struct NewJob<'a> {
    pub kind: JobKind,
    pub target: &'a str,
    pub dataset: Option<u64>,
    pub holds: Vec<(u64, Hold)>,
}

impl NewJob<'_> {
    /// What others are told that are refused because of it.
    fn describe(&self, id: u64) -> String {
        format!("job {id} ({} of {})", self.kind.name(), self.target)
    }
}

impl Runner {
    pub(super) fn new(workers_max: usize) -> Self {
        Self {
            queue: bounded(QUEUE_MAX),
            checks: bounded(QUEUE_MAX),
            workers_max: workers_max.max(1),
            cancels: Mutex::default(),
            apart: Mutex::default(),
            ending: AtomicBool::new(false),
            changes: (Mutex::new(0), Condvar::new()),
            watched: watch::Sender::new(0),
        }
    }

    pub(super) fn changed(&self) {
        *self.changes.0.lock() += 1;
        self.changes.1.notify_all();
        self.watched.send_modify(|count| *count += 1);
    }
}

impl Engine {
    /// Starts the threads that run jobs. They end with `end_jobs`.
    pub fn start_jobs(self: &Arc<Self>) -> Result<Vec<JoinHandle<()>>> {
        let spawn = |name: String, work: fn(&Arc<Self>)| {
            let engine = Arc::clone(self);
            std::thread::Builder::new()
                .name(name)
                .spawn(move || work(&engine))
                .map_err(|e| Error::io("start", "a job thread", e))
        };
        let checks = spawn("checks".into(), |engine| {
            lower_priority();
            engine.work(&engine.runner.checks.1);
        });
        let workers = (0..self.runner.workers_max)
            .map(|number| spawn(format!("job-{number}"), |engine| engine.work(&engine.runner.queue.1)));
        workers.chain([checks]).collect()
    }

    fn work(self: &Arc<Self>, queue: &Receiver<Queued>) {
        while !self.runner.ending.load(Ordering::SeqCst) {
            match queue.recv_timeout(Duration::from_millis(200)) {
                Ok(queued) => self.run(queued),
                Err(crossbeam::channel::RecvTimeoutError::Timeout) => {}
                Err(crossbeam::channel::RecvTimeoutError::Disconnected) => break,
            }
        }
        let apart: Vec<_> = self.runner.apart.lock().drain(..).collect();
        for thread in apart {
            if thread.join().is_err() {
                tracing::error!("a thread of a job had failed");
            }
        }
    }

    /// Asks every job to end at its next safe point; the threads of `start_jobs` end after that.
    pub fn end_jobs(&self) {
        self.runner.ending.store(true, Ordering::SeqCst);
        for cancel in self.runner.cancels.lock().values() {
            cancel.store(true, Ordering::SeqCst);
        }
        self.runner.changed();
    }

    /// Whether jobs are asked to end because the daemon does.
    pub fn is_ending(&self) -> bool {
        self.runner.ending.load(Ordering::SeqCst)
    }

    /// Tells of every change of a job, a job's log, or the events, several at once if they come fast.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.runner.watched.subscribe()
    }

    /// Accepts a job. `InUse` when another one is at work on the same dataset.
    pub(super) fn submit(
        self: &Arc<Self>,
        new: NewJob<'_>,
        body: impl FnOnce(&mut JobTask) -> Result<()> + Send + 'static,
    ) -> Result<JobHandle> {
        let id = self.catalog.change(|change| change.next_id())?;
        let held = self.take_holds(id, &new).map_err(|e| e.context(new.target))?;
        self.queue(id, &new, held, Box::new(body))
    }

    /// The same for a job that may wait for long: it gets a thread of its own.
    pub(super) fn submit_apart(
        self: &Arc<Self>,
        new: NewJob<'_>,
        body: impl FnOnce(&mut JobTask) -> Result<()> + Send + 'static,
    ) -> Result<JobHandle> {
        let id = self.catalog.change(|change| change.next_id())?;
        let held = self.take_holds(id, &new).map_err(|e| e.context(new.target))?;
        let queued = self.accept(id, &new, held, Box::new(body))?;
        let engine = Arc::clone(self);
        let thread = std::thread::Builder::new().name(format!("job-{id}")).spawn(move || engine.run(queued));
        let mut apart = self.runner.apart.lock();
        apart.retain(|thread| !thread.is_finished());
        apart.push(thread.map_err(|e| Error::io("start", "a job thread", e))?);
        drop(apart);
        self.runner.changed();
        Ok(JobHandle { id })
    }

    /// Nobody is refused because of a look at the dataset that nobody asked for.
    fn take_holds(&self, id: u64, new: &NewJob<'_>) -> Result<Held> {
        let start = self.clock.monotonic();
        loop {
            let taken = self.locks.take(id, &new.describe(id), &new.holds);
            let waited = self.clock.monotonic().saturating_sub(start);
            if taken.is_ok() || waited >= LOOK_TIME_MAX || !self.locks.will_pass(&new.holds) {
                return taken;
            }
            self.clock.sleep(LOOK_POLL);
        }
    }

    /// Accepts a job that goes on where another one ends, with its hold of the dataset.
    pub(super) fn submit_after(
        self: &Arc<Self>,
        task: &JobTask,
        new: &NewJob<'_>,
        dataset: u64,
        body: impl FnOnce(&mut JobTask) -> Result<()> + Send + 'static,
    ) -> Result<JobHandle> {
        let id = self.catalog.change(|change| change.next_id())?;
        let held = self.locks.hand_over(task.id(), id, &new.describe(id), dataset, Hold::Operate);
        self.queue(id, new, held, Box::new(body))
    }

    /// Writes a job down.
    fn accept(&self, id: u64, new: &NewJob<'_>, held: Held, body: Body) -> Result<Queued> {
        let dataset = new.dataset.map(|id| self.catalog.get::<Dataset>(id)).transpose()?.flatten();
        let set = new.dataset.map(|id| self.catalog.get::<BackupSet>(id)).transpose()?.flatten();
        let job = Job {
            dataset: new.dataset,
            group: dataset.map(|dataset| dataset.group).or(set.map(|set| set.group)),
            ..Job::queued(id, new.kind, new.target, self.now())
        };
        self.catalog.change(|change| change.put(&job))?;
        let cancel = Arc::new(AtomicBool::new(false));
        self.runner.cancels.lock().insert(id, Arc::clone(&cancel));
        Ok(Queued { job: id, body, held, cancel })
    }

    fn queue(&self, id: u64, new: &NewJob<'_>, held: Held, body: Body) -> Result<JobHandle> {
        let queued = self.accept(id, new, held, body)?;
        let queue = match new.kind {
            JobKind::DbCheck => &self.runner.checks.0,
            _ => &self.runner.queue.0,
        };
        if queue.try_send(queued).is_err() {
            self.runner.cancels.lock().remove(&id);
            self.catalog.change(|change| change.remove::<Job>(id))?;
            return Err(Error::new(
                ErrorKind::InUse,
                format!("{QUEUE_MAX} jobs wait already: try again when some have ended"),
            ));
        }
        self.runner.changed();
        Ok(JobHandle { id })
    }

    fn run(self: &Arc<Self>, queued: Queued) {
        let Queued { job, body, held, cancel } = queued;
        let mut task = match JobTask::start(Arc::clone(self), job, cancel) {
            Ok(task) => task,
            Err(e) => {
                tracing::error!("job {job} cannot start: {e}");
                return;
            }
        };
        // What was made when it was accepted its body takes back, also when it is cancelled before it begins.
        let begin = if task.kind().makes_its_dataset() { Ok(()) } else { task.check() };
        let result = begin.and_then(|()| {
            // A defect in one operation must not take the others' threads.
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(&mut task))).unwrap_or_else(|_| {
                Err(Error::new(
                    ErrorKind::Io,
                    "the operation failed in a way that is a defect of stillpoint: see the daemon's log",
                ))
            })
        });
        // Given back before the end is told, so that who waited may go on at once.
        drop(held);
        self.runner.cancels.lock().remove(&job);
        task.finish(result);
        self.runner.changed();
    }

    /// Asks a job to end at its next safe point. `Precondition` when it has ended.
    pub fn cancel(&self, id: u64) -> Result<Job> {
        let job = self.job(id)?;
        let cancels = self.runner.cancels.lock();
        let Some(cancel) = cancels.get(&id) else {
            return Err(Error::new(
                ErrorKind::Precondition,
                format!("job {id} has ended: it is {:?}", job.status),
            ));
        };
        cancel.store(true, Ordering::SeqCst);
        drop(cancels);
        self.catalog.change(|change| change.update::<Job>(id, |job| job.cancel_requested = true))
    }

    pub fn job(&self, id: u64) -> Result<Job> {
        self.catalog
            .get(id)?
            .ok_or_else(|| Error::not_found(format!("there is no job {id}: see `stillpoint job list`")))
    }

    /// Waits until a job has ended or the time is over, and returns its record.
    pub fn wait_for_job(&self, id: u64, limit: Duration) -> Result<Job> {
        let start = self.clock.monotonic();
        loop {
            let mut seen = self.runner.changes.0.lock();
            let job = self.job(id)?;
            let passed = self.clock.monotonic().saturating_sub(start);
            if job.status.is_final() || passed >= limit {
                return Ok(job);
            }
            self.runner.changes.1.wait_for(&mut seen, limit.saturating_sub(passed));
        }
    }

    /// A job's log from a byte on.
    pub fn job_log(&self, id: u64, from: u64) -> Result<JobLog> {
        self.job(id)?;
        let path = self.log_path(id);
        let shown = path.display().to_string();
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Ok(JobLog { text: String::new(), next: 0 });
            }
            Err(e) => return Err(Error::io("open", &shown, e)),
        };
        let mut bytes = Vec::new();
        file.metadata()
            .and_then(|found| file.seek(SeekFrom::Start(from.min(found.len()))))
            .and_then(|_| file.take(LOG_READ_BYTES_MAX).read_to_end(&mut bytes))
            .map_err(|e| Error::io("read", &shown, e))?;
        let next = from.saturating_add(bytes.len() as u64);
        Ok(JobLog { text: String::from_utf8_lossy(&bytes).into_owned(), next })
    }

    pub(super) fn log_path(&self, id: u64) -> PathBuf {
        self.state.join("jobs").join(format!("{id}.log"))
    }
}

/// Of this thread, and of those that it starts.
fn lower_priority() {
    if let Err(e) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE_MAX) {
        tracing::debug!("checks run at the priority of the others: {e}");
    }
}

/// A running job, as its operation sees it.
pub(super) struct JobTask {
    engine: Arc<Engine>,
    record: Job,
    log: Option<File>,
    cancel: Arc<AtomicBool>,
    /// While a failure is made good, nobody can cancel that.
    compensating: bool,
    recorded: Duration,
}

impl JobTask {
    fn start(engine: Arc<Engine>, id: u64, cancel: Arc<AtomicBool>) -> Result<Self> {
        let now = engine.now();
        let record = engine.catalog.change(|change| {
            change.update::<Job>(id, |job| {
                job.status = JobStatus::Running;
                job.started = Some(now);
            })
        })?;
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(engine.log_path(id));
        let log = log.map_err(|e| tracing::warn!("job {id} has no log: {e}")).ok();
        engine.runner.changed();
        Ok(Self { engine, record, log, cancel, compensating: false, recorded: Duration::ZERO })
    }

    pub(super) fn id(&self) -> u64 {
        self.record.id
    }

    pub(super) fn kind(&self) -> JobKind {
        self.record.kind
    }

    /// What is raised when the job is to end.
    pub(super) fn cancel_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.cancel)
    }

    /// Names what the job made.
    pub(super) fn result(&mut self, name: &str, value: &str) {
        self.record.result.insert(name.to_owned(), value.to_owned());
    }

    /// From here on the job undoes what it did: it is no longer cancelled.
    pub(super) fn compensate(&mut self, what: &str) {
        self.compensating = true;
        if let Err(e) = self.step(what) {
            tracing::warn!("job {}: {e}", self.record.id);
        }
    }

    fn save(&mut self) -> Result<()> {
        self.recorded = self.engine.clock.monotonic();
        let mine = self.record.clone();
        self.engine.catalog.change(|change| {
            change.update::<Job>(mine.id, |job| {
                // Written by somebody else meanwhile.
                let cancel_requested = job.cancel_requested;
                let idempotency_key = job.idempotency_key.take();
                let idempotency_request = job.idempotency_request.take();
                *job = Job { cancel_requested, idempotency_key, idempotency_request, ..mine };
            })
        })?;
        self.engine.runner.changed();
        Ok(())
    }

    fn finish(&mut self, result: Result<()>) {
        let now = self.engine.now();
        self.end_step();
        self.record.ended = Some(now);
        let cancelled = self.cancel.load(Ordering::SeqCst)
            || result.as_ref().is_err_and(|e| e.kind() == ErrorKind::Cancelled);
        let (severity, message) = match &result {
            Ok(()) if self.record.warnings.is_empty() => {
                self.record.status = JobStatus::Completed;
                (Severity::Info, "completed".to_owned())
            }
            Ok(()) => {
                self.record.status = JobStatus::CompletedWithWarnings;
                (Severity::Warning, format!("completed with warnings: {}", self.record.warnings.join("; ")))
            }
            Err(e) => {
                self.record.status = if cancelled { JobStatus::Cancelled } else { JobStatus::Failed };
                self.record.error = Some(JobError {
                    code: crate::base::kind_name(e.kind()).to_owned(),
                    message: e.message().to_owned(),
                    hint: e.hint().map(str::to_owned),
                });
                let word = if cancelled { "cancelled" } else { "failed" };
                // A check gives way to what people ask for: that is no trouble.
                let gave_way = cancelled && self.record.kind == JobKind::DbCheck;
                let severity = if gave_way { Severity::Info } else { Severity::Error };
                (severity, format!("{word}: {e}"))
            }
        };
        self.log(&message);
        if let Err(e) = self.save() {
            tracing::error!("job {} ({message}) is not recorded: {e}", self.record.id);
        }
        let kind = self.record.kind.name();
        let text = format!("{} {message}", self.record.target);
        self.engine.event(severity, kind, self.record.dataset, Some(self.record.id), &text);
    }

    fn end_step(&mut self) {
        let now = self.engine.now();
        if let Some(last) = self.record.steps.last_mut()
            && last.ended.is_none()
        {
            last.ended = Some(now);
        }
    }
}

impl Task for JobTask {
    fn step(&mut self, name: &str) -> Result<()> {
        if !self.compensating {
            self.check()?;
        }
        self.end_step();
        let started = self.engine.now();
        self.record.steps.push(JobStep { name: name.to_owned(), started, ended: None });
        self.record.bytes_done = 0;
        self.record.bytes_total = None;
        self.log(&format!("step: {name}"));
        self.save()
    }

    fn bytes(&mut self, done: u64, total: Option<u64>) {
        self.record.bytes_done = done;
        self.record.bytes_total = total;
        let since = self.engine.clock.monotonic().saturating_sub(self.recorded);
        if since >= RECORD_INTERVAL
            && let Err(e) = self.save()
        {
            tracing::warn!("progress of job {} is not recorded: {e}", self.record.id);
        }
    }

    fn log(&mut self, line: &str) {
        let mut end = line.len().min(LOG_LINE_BYTES_MAX);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        let text = format!("{:.3} {}\n", self.engine.now(), &line[..end]);
        if let Some(log) = &mut self.log
            && let Err(e) = log.write_all(text.as_bytes())
        {
            tracing::warn!("the log of job {} ends here: {e}", self.record.id);
            self.log = None;
        }
        self.engine.runner.changed();
    }

    fn warn(&mut self, line: &str) {
        self.log(&format!("warning: {line}"));
        self.record.warnings.push(line.to_owned());
    }

    fn check(&self) -> Result<()> {
        let ending = self.engine.runner.ending.load(Ordering::SeqCst);
        if (ending || self.cancel.load(Ordering::SeqCst)) && !self.compensating {
            return Err(Error::new(ErrorKind::Cancelled, "cancelled"));
        }
        Ok(())
    }
}
