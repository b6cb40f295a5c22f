//! Time, injected.

use std::time::Duration;

/// Nanoseconds since 1970-01-01T00:00:00Z, and a monotonic counter of its own origin.
pub trait Clock: Send + Sync {
    /// Wall-clock time in nanoseconds since the Unix epoch.
    fn unix_nanos(&self) -> i64;
    /// Monotonic time; only differences mean anything.
    fn monotonic(&self) -> Duration;
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
}
