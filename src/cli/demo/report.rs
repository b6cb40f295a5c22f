//! What the demo showed.

use std::time::Duration;

use serde::Serialize;

use super::super::output::{Show, Table};
use super::super::sizes::format_bytes;
use crate::control::{StatsRow, VolumeRow};

/// The demo's result.
#[derive(Serialize)]
pub(super) struct Report {
    pub postgres_major: u32,
    pub scale: u32,
    pub load_seconds: f64,
    pub snapshot_milliseconds: f64,
    pub clone_milliseconds: f64,
    /// From the clone command to the first answered query, crash recovery included.
    pub clone_ready_seconds: f64,
    pub source: Database,
    pub clone: Database,
    /// Rows the source's load had written before the snapshot was asked for, and after it was there.
    pub history_rows_before_snapshot: u64,
    pub history_rows_after_snapshot: u64,
    pub store: StatsRow,
}

/// One of the two databases.
#[derive(Serialize)]
pub(super) struct Database {
    pub port: u16,
    pub accounts: u64,
    pub history_rows: u64,
    /// Whether the sums over accounts, tellers, branches and history agree.
    pub sums_agree: bool,
    pub logical_bytes: u64,
    pub referenced_bytes: u64,
    pub unique_bytes: u64,
}

impl Database {
    pub(super) fn new(port: u16, counts: Counts, volume: &VolumeRow) -> Self {
        Self {
            port,
            accounts: counts.accounts,
            history_rows: counts.history_rows,
            sums_agree: counts.sums_agree,
            logical_bytes: volume.logical_bytes,
            referenced_bytes: volume.referenced_bytes,
            unique_bytes: volume.unique_bytes,
        }
    }
}

/// What a server answered about its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    pub accounts: u64,
    pub history_rows: u64,
    pub sums_agree: bool,
}

impl Counts {
    /// One statement, so one instant: pgbench moves the same amount in all four tables within a transaction.
    pub(super) const QUERY: &str = "SELECT (SELECT count(*) FROM pgbench_accounts), \
        (SELECT count(*) FROM pgbench_history), \
        (SELECT coalesce(sum(delta), 0) FROM pgbench_history) \
          = ALL (ARRAY[(SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers), \
                       (SELECT sum(bbalance) FROM pgbench_branches)])";

    /// Reads `accounts|history|t`.
    pub(super) fn parse(answer: &str) -> Option<Self> {
        let mut fields = answer.split('|');
        Some(Self {
            accounts: fields.next()?.parse().ok()?,
            history_rows: fields.next()?.parse().ok()?,
            sums_agree: fields.next()? == "t",
        })
    }
}

/// Milliseconds with a fraction.
pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl Show for Report {
    fn table(&self) -> Table {
        let mut table = Table::new(&["", ">SOURCE", ">CLONE"]);
        let mut row = |name: &str, value: &dyn Fn(&Database) -> String| {
            table.row(vec![name.into(), value(&self.source), value(&self.clone)]);
        };
        row("port", &|database| database.port.to_string());
        row("accounts", &|database| database.accounts.to_string());
        row("transactions", &|database| database.history_rows.to_string());
        row("sums agree", &|database| if database.sums_agree { "yes".into() } else { "NO".into() });
        row("logical", &|database| format_bytes(database.logical_bytes));
        row("referenced", &|database| format_bytes(database.referenced_bytes));
        row("unique", &|database| format_bytes(database.unique_bytes));
        let mut one = |name: &str, value: String| table.row(vec![name.into(), value]);
        one("load", format!("{:.1} s", self.load_seconds));
        one("snapshot", format!("{:.1} ms", self.snapshot_milliseconds));
        one("clone", format!("{:.1} ms", self.clone_milliseconds));
        one("clone answers", format!("{:.2} s", self.clone_ready_seconds));
        one("store logical", format_bytes(self.store.logical_bytes));
        one("store physical", format_bytes(self.store.physical_bytes));
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let counts = Counts { accounts: 100_000, history_rows: 17, sums_agree: true };
        assert_eq!(Counts::parse("100000|17|t"), Some(counts));
        assert_eq!(Counts::parse("100000|17"), None);
        assert_eq!(Counts::parse(""), None);
    }
}
