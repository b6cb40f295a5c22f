//! Latencies counted in log-linear buckets: bounded memory, under 1.6 % error, mergeable between threads.
//!
//! Must not know what was timed.

use std::time::Duration;

/// Buckets per power of two; the relative error of a reading is at most its inverse.
const SUB_BUCKET_BITS: u32 = 6;
const SUB_BUCKETS: usize = 1 << SUB_BUCKET_BITS;
/// Values of up to 2^64 ns: the first group is linear, each later one covers one power of two.
const BUCKETS: usize = (64 - SUB_BUCKET_BITS as usize + 1) * SUB_BUCKETS;

/// Counts of durations in nanoseconds.
#[derive(Clone)]
pub struct Histogram {
    buckets: Box<[u64]>,
    count: u64,
    max_nanos: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS].into_boxed_slice(), count: 0, max_nanos: 0 }
    }
}

impl Histogram {
    pub fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(nanos)] += 1;
        self.count += 1;
        self.max_nanos = self.max_nanos.max(nanos);
    }

    /// Adds all of `other`'s readings.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max_nanos = self.max_nanos.max(other.max_nanos);
    }

    /// How many readings there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest reading, exact.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max_nanos)
    }

    /// The smallest recorded value that `fraction` (0 to 1) of the readings do not exceed; zero when empty.
    pub fn quantile(&self, fraction: f64) -> Duration {
        let wanted = ((self.count as f64 * fraction.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(upper_bound(bucket).min(self.max_nanos));
            }
        }
        self.max()
    }

    pub fn median(&self) -> Duration {
        self.quantile(0.5)
    }
}

fn bucket_of(nanos: u64) -> usize {
    let magnitude = (u64::BITS - nanos.leading_zeros()).saturating_sub(SUB_BUCKET_BITS);
    if magnitude == 0 {
        return nanos as usize;
    }
    // The top SUB_BUCKET_BITS + 1 bits, of which the first is always set.
    let shift = magnitude - 1;
    let within = (nanos >> shift) as usize - SUB_BUCKETS;
    magnitude as usize * SUB_BUCKETS + within
}

/// The largest value that falls into `bucket`.
fn upper_bound(bucket: usize) -> u64 {
    let magnitude = bucket / SUB_BUCKETS;
    let within = (bucket % SUB_BUCKETS) as u64;
    if magnitude == 0 {
        return within;
    }
    let shift = magnitude as u32 - 1;
    let low = (SUB_BUCKETS as u64 + within) << shift;
    low + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_falls_into_a_bucket_that_holds_it_closely() {
        let mut value = 1u64;
        while value < u64::MAX / 3 {
            for near in [value - 1, value, value + 1] {
                let bound = upper_bound(bucket_of(near));
                assert!(bound >= near, "{near} above its bucket's bound {bound}");
                assert!(bound - near <= near / 63 + 1, "{near} too far from {bound}");
            }
            value = value.saturating_mul(3) / 2 + 1;
        }
        assert!(bucket_of(u64::MAX) < BUCKETS);
    }

    #[test]
    fn quantiles_of_a_known_series() {
        let mut histogram = Histogram::default();
        for micros in 1..=1000 {
            histogram.record(Duration::from_micros(micros));
        }
        let close = |fraction, micros: f64| {
            let got = histogram.quantile(fraction).as_nanos() as f64 / 1000.0;
            assert!((got - micros).abs() / micros < 0.02, "quantile {fraction} is {got}, not {micros}");
        };
        close(0.5, 500.0);
        close(0.95, 950.0);
        close(0.99, 990.0);
        assert_eq!(histogram.max(), Duration::from_millis(1));
        assert_eq!(histogram.count(), 1000);
    }

    #[test]
    fn merging_equals_recording_in_one() {
        let (mut left, mut right, mut all) =
            (Histogram::default(), Histogram::default(), Histogram::default());
        for nanos in (0..100_000).step_by(37) {
            let target = if nanos % 2 == 0 { &mut left } else { &mut right };
            target.record(Duration::from_nanos(nanos));
            all.record(Duration::from_nanos(nanos));
        }
        left.merge(&right);
        assert_eq!(left.buckets, all.buckets);
        assert_eq!((left.count, left.max_nanos), (all.count, all.max_nanos));
    }

    #[test]
    fn an_empty_histogram_reads_zero() {
        assert_eq!(Histogram::default().quantile(0.99), Duration::ZERO);
    }
}
