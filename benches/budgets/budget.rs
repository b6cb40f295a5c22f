//! The budgets of `design.md`, what was measured against them, and the verdicts.

use std::fmt::Write as _;

use serde::Serialize;

/// Which side of the limit is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    Higher,
    Lower,
}

/// One line of the table.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Budget {
    pub id: &'static str,
    pub what: &'static str,
    pub unit: &'static str,
    pub must: f64,
    pub aim: f64,
    pub better: Better,
}

const fn budget(
    id: &'static str,
    what: &'static str,
    unit: &'static str,
    better: Better,
    must: f64,
    aim: f64,
) -> Budget {
    Budget { id, what, unit, must, aim, better }
}

use Better::{Higher, Lower};

pub const BUDGETS: [Budget; 19] = [
    budget("rw-ext4", "pgbench read-write, tps / ext4", "", Higher, 0.75, 1.0),
    budget("rw-btrfs", "pgbench read-write, tps / Btrfs on a loop device", "", Higher, 1.5, 3.0),
    budget("ro-ext4", "pgbench select-only, warm, tps / ext4", "", Higher, 0.9, 1.0),
    budget("load", "pgbench -i load, ext4 time / ours", "", Higher, 0.5, 0.9),
    budget("rw-snapshots", "read-write with a snapshot every 5 s, tps / without", "", Higher, 0.85, 0.95),
    budget("scan", "sequential read of cold data, MB/s / ext4", "", Higher, 0.5, 1.0),
    budget("snapshot", "snapshot (store alone), median", "ms", Lower, 10.0, 2.0),
    budget("clone", "clone (store alone), median", "ms", Lower, 10.0, 2.0),
    budget("lineage-count", "the same at 1,000 snapshots and clones", "times", Lower, 1.5, 1.1),
    budget("lineage-data", "the same at 100 times the data", "times", Lower, 1.5, 1.1),
    budget("vdb-start", "VDB from a snapshot to first answered query, under load", "s", Lower, 2.0, 0.5),
    budget("vdb-disk", "disk taken by a fresh running VDB", "MiB", Lower, 16.0, 1.0),
    budget("update", "1 % of pages updated at random in a clone: stored / changed", "", Lower, 2.0, 1.2),
    budget("restore", "a second restore of the same database, bytes added / size", "%", Lower, 2.0, 0.5),
    budget("ratio", "pgbench database, logical / physical", "", Higher, 2.0, 3.0),
    budget("memory", "daemon memory, 100 GiB logical", "MiB", Lower, 512.0, 256.0),
    budget("open", "open after kill -9 with a full journal", "s", Lower, 3.0, 1.0),
    budget("p99-gc", "foreground p99 while collecting / without", "times", Lower, 2.0, 1.2),
    budget("p99-scrub", "foreground p99 while scrubbing / without", "times", Lower, 2.0, 1.2),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As good as aimed for.
    Aim,
    /// As good as it must be.
    Must,
    Below,
}

impl Budget {
    pub fn verdict(&self, measured: f64) -> Verdict {
        let reaches = |limit: f64| match self.better {
            Higher => measured >= limit,
            Lower => measured <= limit,
        };
        match (reaches(self.aim), reaches(self.must)) {
            (true, _) => Verdict::Aim,
            (false, true) => Verdict::Must,
            (false, false) => Verdict::Below,
        }
    }
}

/// The figure of one budget, and how it came about.
#[derive(Debug, Serialize)]
pub struct Finding {
    pub budget: Budget,
    pub measured: f64,
    pub verdict: Verdict,
    pub detail: String,
}

/// Something measured that has no budget.
#[derive(Debug, Serialize)]
pub struct Note {
    pub section: &'static str,
    pub text: String,
}

/// What a section could not do, and why.
#[derive(Debug, Serialize)]
pub struct Gap {
    pub section: &'static str,
    pub reason: String,
    /// It was tried and went wrong, as opposed to left out.
    pub failed: bool,
}

#[derive(Debug, Default, Serialize)]
pub struct Findings {
    pub findings: Vec<Finding>,
    pub notes: Vec<Note>,
    pub gaps: Vec<Gap>,
}

impl Findings {
    /// Adds the figure of the budget `id`.
    pub fn add(&mut self, id: &str, measured: f64, detail: String) {
        let Some(budget) = BUDGETS.iter().find(|budget| budget.id == id) else {
            debug_assert!(false, "no budget {id}");
            return;
        };
        let verdict = budget.verdict(measured);
        self.findings.push(Finding { budget: *budget, measured, verdict, detail });
    }

    pub fn note(&mut self, section: &'static str, text: String) {
        self.notes.push(Note { section, text });
    }

    pub fn gap(&mut self, section: &'static str, reason: String, failed: bool) {
        self.gaps.push(Gap { section, reason, failed });
    }

    /// The table in the order of `design.md`, lines not measured included, then notes and gaps.
    pub fn table(&self) -> String {
        let mut out = format!("{:<62} {:>12} {:>8} {:>8}  VERDICT\n", "WHAT", "MEASURED", "MUST", "AIM");
        for budget in &BUDGETS {
            let found = self.findings.iter().find(|finding| finding.budget.id == budget.id);
            let measured = found.map_or_else(
                || "-".to_owned(),
                |finding| format!("{} {}", figure(finding.measured), budget.unit),
            );
            let verdict = match found.map(|finding| finding.verdict) {
                None => "not measured",
                Some(Verdict::Aim) => "aim",
                Some(Verdict::Must) => "must",
                Some(Verdict::Below) => "BELOW",
            };
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "{:<62} {:>12} {:>8} {:>8}  {verdict}",
                budget.what,
                measured.trim_end(),
                figure(budget.must),
                figure(budget.aim)
            );
        }
        let _ = writeln!(out, "\nHow:");
        for finding in &self.findings {
            let _ = writeln!(out, "  {}: {}", finding.budget.id, finding.detail);
        }
        for note in &self.notes {
            let _ = writeln!(out, "  {}: {}", note.section, note.text);
        }
        for gap in &self.gaps {
            let state = if gap.failed { "FAILED" } else { "skipped" };
            let _ = writeln!(out, "  {} {state}: {}", gap.section, gap.reason);
        }
        out
    }
}

/// Three significant digits or so.
pub fn figure(value: f64) -> String {
    match value.abs() {
        magnitude if magnitude >= 100.0 => format!("{value:.0}"),
        magnitude if magnitude >= 10.0 => format!("{value:.1}"),
        magnitude if magnitude >= 0.1 || magnitude == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
