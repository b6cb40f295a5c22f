//! Why a snapshot is kept, and what policies would do: the same questions as those of the real run, and nothing done.

use jiff::Timestamp;

use super::Engine;
use super::policies::{check_fits, zone};
use super::retention::SnapshotVerdict;
use crate::base::{Error, Result};
use crate::catalog::{Policy, PolicyKind, Snapshot};

/// Runs of a schedule that are told at most.
const RUNS_MAX: usize = 100;

/// What is asked of a dry run.
#[derive(Clone, Debug, Default)]
pub struct SimulationRequest {
    /// Absent: only the runs of a policy are asked for.
    pub dataset: Option<String>,
    /// In the place of the one that the dataset has; it need not have it.
    pub policy: Option<String>,
    /// The moment that is asked about: now when absent.
    pub at: Option<Timestamp>,
    /// How many runs of a schedule to tell.
    pub runs: usize,
}

/// What would happen.
#[derive(Clone, Debug)]
pub struct Simulation {
    pub at: Timestamp,
    /// The retention policy that judges; none keeps all.
    pub retention: Option<String>,
    pub verdicts: Vec<SnapshotVerdict>,
    /// Timeflows of the past that would go.
    pub timeflows: Vec<u64>,
    pub runs: Vec<ScheduledRuns>,
}

/// When a policy runs after that moment.
#[derive(Clone, Debug)]
pub struct ScheduledRuns {
    pub policy: Policy,
    /// RFC 3339 with the offset that the schedule's zone has then.
    pub times: Vec<String>,
}

impl Engine {
    /// Why a snapshot is kept, or that the next retention removes it; and the name of the policy that says so.
    pub fn why(&self, spec: &str) -> Result<(SnapshotVerdict, Option<String>)> {
        let (dataset, _, snapshot) = self.find_snapshot(spec)?;
        let request = SimulationRequest { dataset: Some(dataset.name.clone()), ..Default::default() };
        let simulated = self.simulate(&request)?;
        let found = simulated.verdicts.into_iter().find(|verdict| verdict.snapshot.id == snapshot.id);
        let verdict = found.ok_or_else(|| Error::not_found(format!("{spec} has just been destroyed")))?;
        Ok((verdict, simulated.retention))
    }

    /// What policies would do of a dataset, by the same calls as the real thing.
    pub fn simulate(&self, request: &SimulationRequest) -> Result<Simulation> {
        let at = request.at.unwrap_or_else(|| self.now());
        let named = request.policy.as_deref().map(|name| self.policy_named(name)).transpose()?;
        let mut simulation =
            Simulation { at, retention: None, verdicts: Vec::new(), timeflows: Vec::new(), runs: Vec::new() };
        let mut policies: Vec<Policy> = named.iter().cloned().collect();
        match &request.dataset {
            Some(name) => {
                let dataset = self.dataset(name)?;
                if let Some(policy) = &named {
                    check_fits(policy, dataset.role)?;
                }
                let bound = self.bindings_of(dataset.id)?.into_iter().map(|(policy, _)| policy);
                // The named one takes the place of the one of its kind.
                let kind = named.as_ref().map(|policy| policy.kind);
                policies.extend(bound.filter(|policy| Some(policy.kind) != kind));
                self.judge_into(&mut simulation, &dataset, &policies)?;
            }
            None if named.is_none() => {
                return Err(Error::invalid("name a dataset, a policy, or both: nothing to simulate"));
            }
            None => {}
        }
        let runs = request.runs.min(RUNS_MAX);
        for policy in policies {
            if let Some(schedule) = &policy.schedule {
                let after = |time: &Timestamp| schedule.next_after(*time);
                let times = std::iter::successors(schedule.next_after(at), after).take(runs);
                let shown = |time: Timestamp| {
                    time.to_zoned(schedule.zone().clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
                };
                let times = times.map(shown).collect();
                simulation.runs.push(ScheduledRuns { policy, times });
            }
        }
        Ok(simulation)
    }

    fn judge_into(
        &self,
        simulation: &mut Simulation,
        dataset: &crate::catalog::Dataset,
        policies: &[Policy],
    ) -> Result<()> {
        let stock = self.stock(dataset)?;
        let judge = policies.iter().find(|policy| policy.kind == PolicyKind::Retention);
        let Some((policy, retention)) = judge.and_then(|policy| Some((policy, policy.retention.as_ref()?)))
        else {
            let verdict = |snapshot: Snapshot| {
                let mut reasons = vec![format!("{} has no retention policy", dataset.name)];
                reasons.extend(stock.pins_of(snapshot.id));
                SnapshotVerdict { snapshot, reasons }
            };
            simulation.verdicts = self.snapshots_of(dataset.id)?.into_iter().map(verdict).collect();
            return Ok(());
        };
        simulation.retention = Some(policy.name.clone());
        let verdicts = stock.judge(&retention.policy, &zone(&retention.time_zone)?, simulation.at);
        simulation.timeflows = stock.spent(&verdicts).iter().map(|timeflow| timeflow.id).collect();
        simulation.verdicts = verdicts;
        Ok(())
    }
}
