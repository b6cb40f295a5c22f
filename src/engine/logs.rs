//! How long logs are kept: those that lead to a point in time within the retention stay, with the snapshot they go on
//! from.

use std::sync::Arc;

use jiff::tz::TimeZone;

use super::Engine;
use super::locks::{Hold, PRUNING};
use crate::base::Result;
use crate::catalog::{Dataset, Timeflow, TimeflowState};
use crate::schedule::{Candidate, RetentionPolicy, logs_kept_since, point_in_time_base};

/// Days of logs of a dataset without a retention policy.
const LOG_DAYS: u32 = 7;

impl Engine {
    /// Removes the logs that no point in time within the retention needs. A dataset that a job is at work on is left for
    /// the next time.
    pub fn prune_logs(self: &Arc<Self>) -> Result<()> {
        for dataset in self.catalog.list::<Dataset>()? {
            let token = self.catalog.change(|change| change.next_id())?;
            let Ok(_held) = self.locks.take(token, PRUNING, &[(dataset.id, Hold::Replace)]) else {
                continue;
            };
            if let Err(e) = self.prune_logs_of(&dataset) {
                tracing::warn!("the old logs of {} stay: {e}", dataset.name);
            }
        }
        Ok(())
    }

    fn prune_logs_of(&self, dataset: &Dataset) -> Result<()> {
        let without =
            || (RetentionPolicy { log_days: LOG_DAYS, ..RetentionPolicy::default() }, TimeZone::UTC);
        let (policy, zone) = self.retention_of(dataset)?.unwrap_or_else(without);
        let since = logs_kept_since(&policy, &zone, self.now());
        let timeflows = self.catalog.select(|timeflow: &Timeflow| {
            timeflow.dataset == dataset.id
                && timeflow.log_volume.is_some()
                && matches!(timeflow.state, TimeflowState::Current | TimeflowState::Retired)
        })?;
        for timeflow in timeflows {
            let snapshots = self.bases(&timeflow)?;
            let candidates: Vec<Candidate<u64>> = snapshots
                .iter()
                .map(|snapshot| Candidate { id: snapshot.id, taken: snapshot.taken, pins: Vec::new() })
                .collect();
            let base = point_in_time_base(&candidates, since);
            let Some(base) = snapshots.iter().find(|snapshot| Some(&snapshot.id) == base) else { continue };
            let instance = self.instance(dataset, &timeflow)?;
            let removed = self.adapter(&dataset.adapter)?.prune_logs(&instance, &base.metadata)?;
            if removed > 0 {
                tracing::info!("{removed} logs of {} from before {} removed", dataset.name, base.name);
            }
        }
        Ok(())
    }
}
