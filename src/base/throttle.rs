//! Keeping background work to a rate, so that it leaves disk and processor to the foreground.

use std::sync::Arc;
use std::time::Duration;

use super::clock::Clock;

/// Work between two looks at the clock, in bytes.
const STEP_BYTES: u64 = 128 << 10;
/// The longest single pause: a caller that asks whether to stop gets to do so.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Lets through so many bytes a second.
pub struct Throttle {
    clock: Arc<dyn Clock>,
    /// `None` is as fast as it goes.
    bytes_per_second: Option<u64>,
    began: Duration,
    done: u64,
    looked: u64,
}

impl Throttle {
    pub fn new(clock: &Arc<dyn Clock>, bytes_per_second: Option<u64>) -> Self {
        let began = clock.monotonic();
        Self { clock: clock.clone(), bytes_per_second, began, done: 0, looked: 0 }
    }

    /// Takes note of work done, and pauses when it went too fast.
    pub fn spend(&mut self, bytes: u64) {
        self.done += bytes;
        let Some(rate) = self.bytes_per_second else { return };
        if self.done - self.looked < STEP_BYTES {
            return;
        }
        self.looked = self.done;
        let due = Duration::from_secs_f64(self.done as f64 / rate.max(1) as f64);
        let ahead = due.saturating_sub(self.clock.monotonic().saturating_sub(self.began));
        if !ahead.is_zero() {
            self.clock.sleep(ahead.min(PAUSE_MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::SimClock;

    #[test]
    fn work_takes_its_time() {
        let clock: Arc<dyn Clock> = Arc::new(SimClock::new(Duration::ZERO, Duration::ZERO));
        let mut throttle = Throttle::new(&clock, Some(10 << 20));
        (0..200).for_each(|_| throttle.spend(128 << 10));
        assert_eq!(clock.monotonic().as_millis(), 2500);
        let mut throttle = Throttle::new(&clock, None);
        throttle.spend(1 << 40);
        assert_eq!(clock.monotonic().as_millis(), 2500);
    }
}
