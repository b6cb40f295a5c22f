//! Time, injected.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Nanoseconds since 1970-01-01T00:00:00Z, and a monotonic counter of its own origin.
pub trait Clock: Send + Sync {
    /// Wall-clock time in nanoseconds since the Unix epoch.
    fn unix_nanos(&self) -> i64;
    /// Monotonic time; only differences mean anything.
    fn monotonic(&self) -> Duration;
    /// Waits.
    fn sleep(&self, duration: Duration);
}

/// The host's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn unix_nanos(&self) -> i64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        now.tv_sec * 1_000_000_000 + now.tv_nsec
    }

    fn monotonic(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or(0))
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// A clock for tests that goes a fixed step further at each look, and nowhere in between.
#[derive(Debug)]
pub struct SimClock {
    nanos: AtomicU64,
    step_nanos: u64,
}

impl SimClock {
    /// Starts `start` after the Unix epoch.
    pub fn new(start: Duration, step: Duration) -> Self {
        Self { nanos: AtomicU64::new(whole_nanos(start)), step_nanos: whole_nanos(step) }
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.nanos.fetch_add(whole_nanos(by), Ordering::Relaxed);
    }

    fn look(&self) -> u64 {
        self.nanos.fetch_add(self.step_nanos, Ordering::Relaxed)
    }
}

impl Clock for SimClock {
    fn unix_nanos(&self) -> i64 {
        i64::try_from(self.look()).unwrap_or(i64::MAX)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.look())
    }

    fn sleep(&self, duration: Duration) {
        self.advance(duration);
    }
}

fn whole_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simulated_time_passes_by_looks_and_by_hand() {
        let clock = SimClock::new(Duration::from_secs(100), Duration::from_nanos(3));
        assert_eq!(clock.unix_nanos(), 100_000_000_000);
        assert_eq!(clock.monotonic(), Duration::from_nanos(100_000_000_003));
        clock.advance(Duration::from_secs(1));
        assert_eq!(clock.unix_nanos(), 101_000_000_006);
    }

    #[test]
    fn the_hosts_clocks_go_forward() {
        let first = SystemClock.monotonic();
        assert!(SystemClock.monotonic() >= first);
        assert!(SystemClock.unix_nanos() > 1_700_000_000_000_000_000);
    }
}
