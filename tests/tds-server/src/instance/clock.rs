//! Time as the instance sees it: given from outside, so that a test decides when a backup was taken.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Where an instance gets its time from.
pub trait Clock: Send + Sync {
    /// Wall-clock time in nanoseconds since 1970-01-01T00:00:00Z.
    fn unix_nanos(&self) -> i64;
}

impl<F: Fn() -> i64 + Send + Sync> Clock for F {
    fn unix_nanos(&self) -> i64 {
        self()
    }
}

/// A clock that goes a fixed step further at each look, and otherwise stands until it is moved.
#[derive(Debug)]
pub struct ManualClock {
    nanos: AtomicI64,
    step_nanos: i64,
}

impl ManualClock {
    /// Starts `start` after the Unix epoch.
    pub fn new(start: Duration, step: Duration) -> Self {
        Self { nanos: AtomicI64::new(whole_nanos(start)), step_nanos: whole_nanos(step) }
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.nanos.fetch_add(whole_nanos(by), Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn unix_nanos(&self) -> i64 {
        self.nanos.fetch_add(self.step_nanos, Ordering::Relaxed)
    }
}

fn whole_nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
