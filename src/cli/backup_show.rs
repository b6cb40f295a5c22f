//! Backup sets, restore points and plans as tables.

use serde::Serialize;

use super::output::{Show, Table, format_list};
use super::sizes::format_bytes;
use crate::api::{BackupSet, RestorePlan, RestorePoint, WhyPoint};

/// Backup sets as a list.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Sets(pub Vec<BackupSet>);

impl Show for Sets {
    fn table(&self) -> Table {
        let mut table = Table::new(&["NAME", "GROUP", "DATABASES", ">POINTS", "POLICIES"]);
        for set in &self.0 {
            let names: Vec<String> = set.databases.iter().map(|one| one.name.clone()).collect();
            let points: usize = set.databases.iter().map(|one| one.restore_points).sum();
            table.row(vec![
                set.name.clone(),
                set.group.clone(),
                format_list(&names),
                points.to_string(),
                format_list(&set.policies),
            ]);
        }
        table
    }
}

impl Show for BackupSet {
    fn table(&self) -> Table {
        let mut table = Table::facts();
        table.fact("name", &self.name);
        table.fact("group", &self.group);
        table.fact("adapter", &self.adapter);
        table.fact("volume", &self.volume);
        table.fact("created", &self.created);
        for database in &self.databases {
            let reach = match (&database.earliest, &database.latest) {
                (Some(from), Some(to)) if from == to => format!(", {from}"),
                (Some(from), Some(to)) => format!(", from {from} to {to}"),
                _ => String::new(),
            };
            table.fact(
                "database",
                format!("{}: {} restore points{reach}", database.name, database.restore_points),
            );
            for gap in &database.gaps {
                table.fact("gap", gap);
            }
            if let Some(failed) = &database.failed_full {
                table.fact("last full", format!("failed: {failed}"));
            }
        }
        table.fact("policies", format_list(&self.policies));
        if !self.held.is_empty() {
            table.fact("writes held", format_list(&self.held));
        }
        table
    }
}

/// Restore points as a list.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Points(pub Vec<RestorePoint>);

impl Show for Points {
    fn table(&self) -> Table {
        let mut table =
            Table::new(&[">ID", "DATABASE", "KIND", "TAKEN", ">SIZE", "CONVERTED", "DATA", "VERDICT"]);
        for point in &self.0 {
            let codes: Vec<String> = point.conversions.iter().map(|one| one.code.clone()).collect();
            table.row(vec![
                point.id.to_string(),
                point.database.clone(),
                point.kind.clone(),
                point.taken.clone(),
                format_bytes(point.bytes),
                format_list(&codes),
                if point.cut.is_some() { "cut of its volume" } else { "backup file" }.to_owned(),
                point.verdict.clone().unwrap_or_else(|| "-".into()),
            ]);
        }
        table
    }
}

impl Show for RestorePoint {
    fn table(&self) -> Table {
        let mut table = Table::facts();
        table.fact("restore point", self.id.to_string());
        table.fact("backup set", &self.backup_set);
        table.fact("database", &self.database);
        table.fact("kind", &self.kind);
        if self.asked != self.kind {
            table.fact("asked for", &self.asked);
        }
        for one in &self.conversions {
            table.fact("converted", format!("{}: {}", one.code, one.text));
        }
        table.fact("taken", &self.taken);
        table.fact("snapshot", &self.snapshot);
        if let Some(cut) = &self.cut {
            table.fact("cut of its volume", cut);
        }
        for (name, bytes) in &self.files {
            table.fact("file", format!("{}/{name}, {}", self.folder, format_bytes(*bytes)));
        }
        for (name, value) in &self.facts {
            table.fact(name, value);
        }
        table.fact("job", self.job.to_string());
        if let (Some(verdict), Some(checked)) = (&self.verdict, &self.checked) {
            table.fact("checked", format!("{checked}: {verdict}"));
        }
        for problem in &self.problems {
            table.fact("problem", problem);
        }
        table
    }
}

impl Show for WhyPoint {
    fn table(&self) -> Table {
        let mut table = Table::facts();
        table.fact("restore point", self.restore_point.to_string());
        table.fact("retention", self.retention.clone().unwrap_or_else(|| "-".into()));
        let kept = match (self.kept, self.broken) {
            (true, _) => "kept",
            (false, true) => "cannot be restored",
            (false, false) => "goes with the next retention",
        };
        table.fact("verdict", kept);
        for reason in &self.reasons {
            table.fact("reason", reason);
        }
        table
    }
}

/// A restore that is only planned.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct Plan(pub RestorePlan);

impl Show for Plan {
    fn table(&self) -> Table {
        let mut table = Table::new(&["PLAN"]);
        for step in &self.0.steps {
            table.row(vec![step.clone()]);
        }
        table.note("nothing was done: leave out --plan-only to do it".into());
        table
    }
}
