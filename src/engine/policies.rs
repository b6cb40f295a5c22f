//! Policies, and which datasets have which. A dataset has at most one of each kind.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Engine;
use super::names::check_name;
use crate::base::{Error, ErrorKind, Result};
use crate::catalog::{BackupSet, Dataset, Policy, PolicyBinding, PolicyKind, Retention, Role, Timeflow};
use crate::schedule::{CronSchedule, RetentionPolicy, due};

/// What the API calls its own.
const RESERVED: &str = "simulate";

/// What is asked for with a new policy.
#[derive(Clone, Debug)]
pub struct NewPolicy {
    pub name: String,
    pub kind: PolicyKind,
    pub schedule: Option<CronSchedule>,
    pub retention: Option<Retention>,
    pub quota_bytes: Option<u64>,
}

/// A policy that a dataset has.
#[derive(Clone, Debug)]
pub struct BoundPolicy {
    pub dataset: String,
    pub policy: Policy,
    pub binding: PolicyBinding,
    /// When it runs next.
    pub next: Option<Timestamp>,
}

/// A policy and who has it.
#[derive(Clone, Debug)]
pub struct PolicyView {
    pub policy: Policy,
    pub bound: Vec<BoundPolicy>,
}

/// The zone of an IANA name.
pub(super) fn zone(name: &str) -> Result<TimeZone> {
    TimeZone::get(name).map_err(|source| {
        Error::with_source(
            ErrorKind::Invalid,
            format!("time zone {name:?} is not known to this host: names are like Europe/Berlin or UTC"),
            source,
        )
    })
}

impl NewPolicy {
    /// Refuses a policy that lacks what its kind needs, or has what it cannot use.
    fn check(&self) -> Result<()> {
        check_name("policy", &self.name)?;
        if self.name == RESERVED {
            return Err(Error::invalid(format!("a policy cannot be called {RESERVED}: choose another name")));
        }
        let (schedule, retention, quota) = match self.kind {
            PolicyKind::SnapSync
            | PolicyKind::Snapshot
            | PolicyKind::Refresh
            | PolicyKind::FullBackup
            | PolicyKind::DifferentialBackup
            | PolicyKind::LogBackup => (true, false, false),
            PolicyKind::Retention => (false, true, false),
            PolicyKind::Quota => (false, false, true),
        };
        for (what, wanted, given) in [
            ("a schedule", schedule, self.schedule.is_some()),
            ("retention counts", retention, self.retention.is_some()),
            ("a size", quota, self.quota_bytes.is_some()),
        ] {
            if wanted != given {
                let word = if wanted { "needs" } else { "cannot have" };
                return Err(Error::invalid(format!("a {} policy {word} {what}", self.kind.name())));
            }
        }
        if self.quota_bytes == Some(0) {
            return Err(Error::invalid("a quota of 0 bytes would let nothing be written"));
        }
        if let Some(retention) = &self.retention {
            zone(&retention.time_zone)?;
            retention.policy.check()?;
        }
        Ok(())
    }
}

/// Refuses a policy whose kind means nothing to a dataset of this role.
pub(super) fn check_fits(policy: &Policy, role: Role) -> Result<()> {
    let fits = match policy.kind {
        PolicyKind::SnapSync => role == Role::Dsource,
        PolicyKind::Snapshot | PolicyKind::Refresh => role == Role::Vdb,
        PolicyKind::Retention | PolicyKind::Quota => true,
        PolicyKind::FullBackup | PolicyKind::DifferentialBackup | PolicyKind::LogBackup => false,
    };
    if fits {
        return Ok(());
    }
    let (has, kinds) = match role {
        Role::Dsource => ("a dSource has", "snap_sync, retention and quota"),
        Role::Vdb => ("a VDB has", "snapshot, refresh, retention and quota"),
    };
    let (name, kind) = (&policy.name, policy.kind.name());
    Err(Error::invalid(format!("policy {name} is of kind {kind}: {has} {kinds} policies")))
}

impl Engine {
    /// Keeps a policy. `Exists` when there is one of its name.
    pub fn create_policy(&self, new: NewPolicy) -> Result<Policy> {
        new.check()?;
        let created = self.now();
        self.catalog.change(|change| {
            if change.list::<Policy>()?.iter().any(|other| other.name == new.name) {
                let message = format!("there is a policy {} already", new.name);
                return Err(Error::new(ErrorKind::Exists, message));
            }
            let NewPolicy { name, kind, schedule, retention, quota_bytes } = new;
            let policy =
                Policy { id: change.next_id()?, name, kind, schedule, retention, quota_bytes, created };
            change.put(&policy)?;
            Ok(policy)
        })
    }

    /// Changes what a policy does, for all who have it. Its kind stays. Times that the old schedule missed are nobody's.
    pub fn update_policy(&self, new: NewPolicy) -> Result<PolicyView> {
        new.check()?;
        let (old, now) = (self.policy_named(&new.name)?, self.now());
        if old.kind != new.kind {
            return Err(Error::invalid(format!(
                "{} is a {} policy, and stays one: make another for {}",
                old.name,
                old.kind.name(),
                new.kind.name()
            )));
        }
        let bindings = self.catalog.select(|binding: &PolicyBinding| binding.policy == old.id)?;
        self.catalog.change(|change| {
            change.update::<Policy>(old.id, |policy| {
                policy.schedule = new.schedule.clone();
                policy.retention = new.retention.clone();
                policy.quota_bytes = new.quota_bytes;
            })?;
            if old.schedule != new.schedule {
                for binding in &bindings {
                    change.update::<PolicyBinding>(binding.id, |binding| binding.since = now)?;
                }
            }
            Ok(())
        })?;
        if old.kind == PolicyKind::Quota {
            for binding in &bindings {
                self.set_quotas(binding.dataset, new.quota_bytes)?;
            }
        }
        self.policy(&new.name)
    }

    pub(super) fn policy_named(&self, name: &str) -> Result<Policy> {
        let found = self.catalog.select(|policy: &Policy| policy.name == name)?.pop();
        found.ok_or_else(|| {
            Error::not_found(format!("there is no policy {name}: see `stillpoint policy list`"))
        })
    }

    /// All policies, oldest first.
    pub fn policies(&self) -> Result<Vec<PolicyView>> {
        self.catalog.list::<Policy>()?.into_iter().map(|policy| self.view_policy(policy)).collect()
    }

    pub fn policy(&self, name: &str) -> Result<PolicyView> {
        self.view_policy(self.policy_named(name)?)
    }

    fn view_policy(&self, policy: Policy) -> Result<PolicyView> {
        let bindings = self.catalog.select(|binding: &PolicyBinding| binding.policy == policy.id)?;
        let bound: Result<Vec<_>> =
            bindings.into_iter().map(|binding| self.bound(&policy, binding)).collect();
        Ok(PolicyView { bound: bound?, policy })
    }

    pub(super) fn bound(&self, policy: &Policy, binding: PolicyBinding) -> Result<BoundPolicy> {
        let now = self.now();
        let next = policy.schedule.as_ref().and_then(|schedule| {
            let found = due(schedule, binding.looked(), now);
            // One that is due now waits for its dataset.
            found.since.or(found.next)
        });
        let dataset = match self.catalog.get::<BackupSet>(binding.dataset)? {
            Some(set) => set.name,
            None => self.dataset_by_id(binding.dataset)?.name,
        };
        Ok(BoundPolicy { dataset, policy: policy.clone(), binding, next })
    }

    /// Removes a policy that no dataset has.
    pub fn delete_policy(&self, name: &str) -> Result<()> {
        let policy = self.policy_named(name)?;
        self.catalog.change(|change| {
            let mut users = Vec::new();
            for binding in change.list::<PolicyBinding>()? {
                if binding.policy == policy.id
                    && let Some(dataset) = change.get::<Dataset>(binding.dataset)?
                {
                    users.push(dataset.name);
                }
                if binding.policy == policy.id
                    && let Some(set) = change.get::<BackupSet>(binding.dataset)?
                {
                    users.push(set.name);
                }
            }
            if !users.is_empty() {
                let message = format!("{} have policy {name}: take it from them first", users.join(", "));
                return Err(Error::new(ErrorKind::InUse, message));
            }
            change.remove::<Policy>(policy.id)
        })
    }

    /// The policies of a dataset.
    pub fn policies_of(&self, dataset: &str) -> Result<Vec<BoundPolicy>> {
        let dataset = self.dataset(dataset)?;
        let bindings = self.bindings_of(dataset.id)?;
        bindings.into_iter().map(|(policy, binding)| self.bound(&policy, binding)).collect()
    }

    pub(super) fn bindings_of(&self, dataset: u64) -> Result<Vec<(Policy, PolicyBinding)>> {
        let mut found = Vec::new();
        for binding in self.catalog.select(|binding: &PolicyBinding| binding.dataset == dataset)? {
            // Gone when it was deleted a moment ago.
            if let Some(policy) = self.catalog.get::<Policy>(binding.policy)? {
                found.push((policy, binding));
            }
        }
        Ok(found)
    }

    /// Refuses names of policies that a dataset of this role cannot have together.
    pub(super) fn check_policies(&self, role: Role, names: &[String]) -> Result<()> {
        let mut kinds: Vec<(PolicyKind, &String)> = Vec::new();
        for name in names {
            let policy = self.policy_named(name)?;
            check_fits(&policy, role)?;
            if let Some((kind, other)) = kinds.iter().find(|(kind, _)| *kind == policy.kind) {
                return Err(Error::invalid(format!(
                    "{other} and {name} are both {} policies: a dataset has one of each kind",
                    kind.name()
                )));
            }
            kinds.push((policy.kind, name));
        }
        Ok(())
    }

    /// Gives a dataset a policy; no error when it has it already.
    pub fn apply_policy(&self, policy: &str, dataset: &str) -> Result<()> {
        self.bind_policy(&self.dataset(dataset)?, policy)
    }

    pub(super) fn bind_policy(&self, dataset: &Dataset, name: &str) -> Result<()> {
        let policy = self.policy_named(name)?;
        check_fits(&policy, dataset.role)?;
        let since = self.now();
        self.catalog.change(|change| {
            for other in change.list::<PolicyBinding>()? {
                let found = change.get::<Policy>(other.policy)?;
                if other.dataset != dataset.id || found.as_ref().is_none_or(|found| found.kind != policy.kind) {
                    continue;
                }
                if other.policy == policy.id {
                    return Ok(());
                }
                let found = found.map_or_else(String::new, |found| found.name);
                return Err(Error::new(
                    ErrorKind::Exists,
                    format!(
                        "{0} has the {1} policy {found} already: `stillpoint policy remove {found} {0}` first",
                        dataset.name,
                        policy.kind.name()
                    ),
                ));
            }
            if change.get::<Dataset>(dataset.id)?.is_none() || change.get::<Policy>(policy.id)?.is_none() {
                return Err(Error::not_found(format!("{} or {name} has just been deleted", dataset.name)));
            }
            let id = change.next_id()?;
            let (policy, dataset) = (policy.id, dataset.id);
            change.put(&PolicyBinding { id, policy, dataset, since, last_run: None, last_job: None })
        })?;
        if policy.quota_bytes.is_some() {
            self.set_quotas(dataset.id, policy.quota_bytes)?;
        }
        Ok(())
    }

    /// Takes a policy from a dataset.
    pub fn unapply_policy(&self, policy: &str, dataset: &str) -> Result<()> {
        let (policy, dataset) = (self.policy_named(policy)?, self.dataset(dataset)?);
        let found = self.bindings_of(dataset.id)?.into_iter().find(|(found, _)| found.id == policy.id);
        let (_, binding) = found.ok_or_else(|| {
            Error::not_found(format!("{} does not have policy {}", dataset.name, policy.name))
        })?;
        self.catalog.change(|change| change.remove::<PolicyBinding>(binding.id))?;
        if policy.kind == PolicyKind::Quota {
            self.set_quotas(dataset.id, None)?;
        }
        Ok(())
    }

    /// Limits every volume that a dataset has.
    fn set_quotas(&self, dataset: u64, bytes: Option<u64>) -> Result<()> {
        for timeflow in self.catalog.select(|timeflow: &Timeflow| timeflow.dataset == dataset)? {
            match self.volumes.set_quota(&timeflow.volume, bytes) {
                // Not made yet, or going.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// Limits a timeflow's new volume as its dataset's policy says.
    pub(super) fn limit_volume(&self, timeflow: &Timeflow) -> Result<()> {
        let policies = self.bindings_of(timeflow.dataset)?;
        match policies.iter().find_map(|(policy, _)| policy.quota_bytes) {
            Some(bytes) => self.volumes.set_quota(&timeflow.volume, Some(bytes)),
            None => Ok(()),
        }
    }

    /// How long a dataset's snapshots and logs are kept, in days of which zone; `None` when nothing says so, and all
    /// are kept.
    pub(super) fn retention_of(&self, dataset: &Dataset) -> Result<Option<(RetentionPolicy, TimeZone)>> {
        let policies = self.bindings_of(dataset.id)?;
        let found = policies.into_iter().find_map(|(policy, _)| policy.retention);
        found.map(|retention| Ok((retention.policy, zone(&retention.time_zone)?))).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(kind: PolicyKind) -> NewPolicy {
        NewPolicy { name: "p".into(), kind, schedule: None, retention: None, quota_bytes: None }
    }

    #[test]
    fn a_policy_has_what_its_kind_needs_and_no_more() {
        let schedule = CronSchedule::parse("@hourly", "UTC").unwrap();
        for kind in PolicyKind::ALL {
            let bare = new(kind).check().unwrap_err();
            assert!(bare.message().contains("needs"), "{kind:?}: {bare}");
            let scheduled = NewPolicy { schedule: Some(schedule.clone()), ..new(kind) }.check();
            let timed = !matches!(kind, PolicyKind::Retention | PolicyKind::Quota);
            assert_eq!(scheduled.is_ok(), timed, "{kind:?}");
        }
        assert!(NewPolicy { quota_bytes: Some(1), ..new(PolicyKind::Quota) }.check().is_ok());
        assert!(NewPolicy { quota_bytes: Some(0), ..new(PolicyKind::Quota) }.check().is_err());
        let nowhere = Retention {
            policy: serde_json::from_str(r#"{"daily": 1}"#).unwrap(),
            time_zone: "Atlantis/Nowhere".into(),
        };
        let error = NewPolicy { retention: Some(nowhere), ..new(PolicyKind::Retention) }.check().unwrap_err();
        assert!(error.message().contains("Atlantis"), "{error}");
        let named = NewPolicy { name: RESERVED.into(), ..new(PolicyKind::Quota) };
        assert!(named.check().is_err());
    }

    #[test]
    fn policies_fit_their_datasets() {
        let fits = |kind, role| {
            let policy = Policy {
                id: 1,
                name: "p".into(),
                kind,
                schedule: None,
                retention: None,
                quota_bytes: None,
                created: Timestamp::UNIX_EPOCH,
            };
            check_fits(&policy, role).is_ok()
        };
        let of = |role| PolicyKind::ALL.into_iter().filter(|kind| fits(*kind, role)).collect::<Vec<_>>();
        assert_eq!(of(Role::Dsource), [PolicyKind::SnapSync, PolicyKind::Retention, PolicyKind::Quota]);
        assert_eq!(
            of(Role::Vdb),
            [PolicyKind::Snapshot, PolicyKind::Refresh, PolicyKind::Retention, PolicyKind::Quota]
        );
    }
}
