//! What `stillpoint bench` found: medians of the runs, their spread, and the ratio to the folder beneath.
//!
//! The serialised form is the JSON of `-o json`. Must not know how anything was measured.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::lineage::LineagePoint;
use super::workload::Outcome;

/// All results of one invocation.
#[derive(Debug, Serialize)]
pub struct Report {
    pub mount: String,
    pub beneath: Option<String>,
    pub file_bytes: u64,
    pub fill: String,
    pub runs: usize,
    pub seed: u64,
    /// Whether cold tests also dropped what the host caches of the files beneath.
    pub host_caches_dropped: bool,
    pub results: Vec<TestResult>,
    pub lineage: Vec<LineageResult>,
    pub skipped: Vec<Skipped>,
}

/// A test that did not run, and why.
#[derive(Debug, Serialize)]
pub struct Skipped {
    pub test: String,
    pub reason: String,
}

#[derive(Debug, Serialize)]
pub struct TestResult {
    pub test: String,
    pub mount: Measured,
    pub beneath: Option<Measured>,
    /// Operations a second on the mount over those beneath.
    pub ratio: Option<f64>,
}

/// Medians over the runs; latencies in microseconds.
#[derive(Debug, Serialize)]
pub struct Measured {
    pub iops: f64,
    pub mib_per_second: f64,
    /// (highest - lowest) / median of the runs' operations a second.
    pub spread: f64,
    pub p50_us: f64,
    pub p95_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
    /// Of the measuring and the mounting process together; None when the tick was too coarse to see it.
    pub cpu_seconds_per_gib: Option<f64>,
}

/// Latency of one more snapshot and clone with `count` there, in microseconds.
#[derive(Debug, Serialize)]
pub struct LineageResult {
    pub count: u64,
    pub samples: u64,
    pub snapshot_p50_us: f64,
    pub snapshot_p99_us: f64,
    pub snapshot_max_us: f64,
    pub clone_p50_us: f64,
    pub clone_p99_us: f64,
    pub clone_max_us: f64,
}

impl Measured {
    /// Of one test's runs, at least one.
    pub fn of(outcomes: &[Outcome]) -> Self {
        let median_of = |value: &dyn Fn(&Outcome) -> f64| median(outcomes.iter().map(value).collect());
        let iops = |outcome: &Outcome| outcome.operations as f64 / seconds(outcome.elapsed);
        let gib = |outcome: &Outcome| (outcome.bytes as f64 / f64::from(1 << 30)).max(f64::MIN_POSITIVE);
        let rates: Vec<f64> = outcomes.iter().map(iops).collect();
        let highest = rates.iter().copied().fold(0.0, f64::max);
        let lowest = rates.iter().copied().fold(f64::INFINITY, f64::min);
        let middle = median(rates);
        let processor = median_of(&|outcome| outcome.processor.as_secs_f64() / gib(outcome));
        Self {
            iops: middle,
            mib_per_second: median_of(&|outcome| {
                outcome.bytes as f64 / f64::from(1 << 20) / seconds(outcome.elapsed)
            }),
            spread: if middle > 0.0 { (highest - lowest) / middle } else { 0.0 },
            p50_us: median_of(&|outcome| micros(outcome.latency.median())),
            p95_us: median_of(&|outcome| micros(outcome.latency.quantile(0.95))),
            p99_us: median_of(&|outcome| micros(outcome.latency.quantile(0.99))),
            max_us: median_of(&|outcome| micros(outcome.latency.max())),
            cpu_seconds_per_gib: (processor > 0.0).then_some(processor),
        }
    }
}

impl TestResult {
    pub fn new(test: &str, mount: &[Outcome], beneath: &[Outcome]) -> Self {
        let mount = Measured::of(mount);
        let beneath = (!beneath.is_empty()).then(|| Measured::of(beneath));
        let ratio =
            beneath.as_ref().filter(|beneath| beneath.iops > 0.0).map(|beneath| mount.iops / beneath.iops);
        Self { test: test.to_owned(), mount, beneath, ratio }
    }
}

impl From<&LineagePoint> for LineageResult {
    fn from(point: &LineagePoint) -> Self {
        Self {
            count: point.count,
            samples: point.snapshot.count(),
            snapshot_p50_us: micros(point.snapshot.median()),
            snapshot_p99_us: micros(point.snapshot.quantile(0.99)),
            snapshot_max_us: micros(point.snapshot.max()),
            clone_p50_us: micros(point.clone.median()),
            clone_p99_us: micros(point.clone.quantile(0.99)),
            clone_max_us: micros(point.clone.max()),
        }
    }
}

impl Report {
    /// The report as text for people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_table(&mut text);
        text
    }

    fn write_table(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "{:<25} {:<8} {:>9} {:>9} {:>7} {:>9} {:>9} {:>9} {:>9} {:>9} {:>6}",
            "TEST",
            "ON",
            "IOPS",
            "MiB/s",
            "SPREAD",
            "P50 us",
            "P95 us",
            "P99 us",
            "MAX us",
            "CPU s/GiB",
            "RATIO"
        )?;
        for result in &self.results {
            let ratio = result.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
            write_row(out, &result.test, "mount", &result.mount, &ratio)?;
            if let Some(beneath) = &result.beneath {
                write_row(out, "", "beneath", beneath, "")?;
            }
        }
        if !self.lineage.is_empty() {
            writeln!(out)?;
            writeln!(
                out,
                "{:>9} {:>12} {:>12} {:>12} {:>12} {:>12} {:>12}",
                "SNAPSHOTS",
                "SNAP P50 us",
                "SNAP P99 us",
                "SNAP MAX us",
                "CLONE P50 us",
                "CLONE P99 us",
                "CLONE MAX us"
            )?;
        }
        for point in &self.lineage {
            writeln!(
                out,
                "{:>9} {:>12.0} {:>12.0} {:>12.0} {:>12.0} {:>12.0} {:>12.0}",
                point.count,
                point.snapshot_p50_us,
                point.snapshot_p99_us,
                point.snapshot_max_us,
                point.clone_p50_us,
                point.clone_p99_us,
                point.clone_max_us
            )?;
        }
        for skipped in &self.skipped {
            writeln!(out, "{:<25} skipped: {}", skipped.test, skipped.reason)?;
        }
        Ok(())
    }
}

fn write_row(out: &mut String, test: &str, on: &str, measured: &Measured, ratio: &str) -> std::fmt::Result {
    let processor =
        measured.cpu_seconds_per_gib.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
    writeln!(
        out,
        "{test:<25} {on:<8} {:>9.0} {:>9.1} {:>6.0}% {:>9.1} {:>9.1} {:>9.1} {:>9.0} {processor:>9} {ratio:>6}",
        measured.iops,
        measured.mib_per_second,
        measured.spread * 100.0,
        measured.p50_us,
        measured.p95_us,
        measured.p99_us,
        measured.max_us,
    )
}

/// The middle value; the mean of the two middle ones of an even number; 0 of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        length if length % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64().max(1e-9)
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::histogram::Histogram;

    fn outcome(operations: u64, millis: u64) -> Outcome {
        let mut latency = Histogram::default();
        latency.record(Duration::from_micros(500));
        Outcome {
            operations,
            bytes: operations * 8192,
            elapsed: Duration::from_millis(millis),
            latency,
            processor: Duration::from_millis(10),
        }
    }

    #[test]
    fn the_median_of_runs_counts() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
        assert_eq!(median(Vec::new()), 0.0);
        let mount = [outcome(1000, 1000), outcome(3000, 1000), outcome(2000, 1000)];
        let result = TestResult::new("t", &mount, &[outcome(4000, 1000)]);
        assert_eq!((result.mount.iops, result.mount.spread, result.ratio), (2000.0, 1.0, Some(0.5)));
    }

    #[test]
    fn the_table_shows_results_and_what_was_skipped() {
        let report = Report {
            mount: "/m".into(),
            beneath: None,
            file_bytes: 1,
            fill: "database".into(),
            runs: 1,
            seed: 1,
            host_caches_dropped: false,
            results: vec![TestResult::new("append-sync", &[outcome(100, 1000)], &[])],
            lineage: Vec::new(),
            skipped: vec![Skipped { test: "snapshot-clone".into(), reason: "no store".into() }],
        };
        let table = report.table();
        assert!(table.contains("append-sync") && table.contains("skipped: no store"), "{table}");
    }
}
