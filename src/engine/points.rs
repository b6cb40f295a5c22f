//! What a VDB is made from: a snapshot, or a point in time behind one; and the logs that lead there.

use jiff::Timestamp;
use serde_json::Value;

use super::Engine;
use super::locks::Hold;
use crate::adapter::{History, Span, Target};
use crate::base::{Error, ErrorKind, Result};
use crate::catalog::{Dataset, Snapshot, Timeflow, TimeflowState};

/// A snapshot, and how far to go on from it.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub parent: Dataset,
    pub timeflow: Timeflow,
    pub snapshot: Snapshot,
    pub target: Target,
    /// What the parent's server is held for meanwhile.
    pub hold: Hold,
}

impl Origin {
    /// How it is called: `shop@2026-…`, or `shop at LSN 0/5000028`.
    pub(super) fn shown(&self) -> String {
        let name = &self.parent.name;
        match &self.target {
            Target::Snapshot => format!("{name}@{}", self.snapshot.name),
            Target::Time(time) => format!("{name} at {time}"),
            Target::Lsn(lsn) => format!("{name} at LSN {lsn}"),
            Target::Xid(xid) => format!("{name} at transaction {xid}"),
            Target::RestorePoint(point) => format!("{name} at restore point {point}"),
        }
    }
}

impl Engine {
    /// What is meant by `DATASET@SNAPSHOT`, `DATASET@BOOKMARK`, or `DATASET` with a target.
    pub(super) fn find_origin(&self, spec: &str, target: &Target) -> Result<Origin> {
        if *target == Target::Snapshot {
            let (parent, timeflow, snapshot) = self.find_snapshot(spec)?;
            super::provision::check_provisionable(&parent, &snapshot)?;
            return Ok(Origin { parent, timeflow, snapshot, target: Target::Snapshot, hold: Hold::Use });
        }
        if spec.contains('@') {
            return Err(Error::invalid(format!(
                "{spec} is a snapshot: a point in time is one of a dataset, which chooses the snapshot itself"
            )));
        }
        let parent = self.dataset(spec)?;
        let mut refused = None;
        for timeflow in self.timeflows_by_age(&parent)? {
            let over = timeflow.retired.is_some_and(|retired| is_after(target, retired));
            if over {
                continue;
            }
            match self.find_in(&parent, timeflow, target) {
                Ok(origin) => return Ok(origin),
                // Not in this one: perhaps in an older one. What the current one says is what is told.
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Range) => {
                    refused.get_or_insert(e);
                }
                Err(e) => return Err(e),
            }
        }
        Err(match refused {
            Some(e) if e.kind() == ErrorKind::Range => Error::new(ErrorKind::Precondition, e.message()),
            Some(e) => e,
            None => no_timeflow(&parent),
        })
    }

    fn find_in(&self, parent: &Dataset, timeflow: Timeflow, target: &Target) -> Result<Origin> {
        let snapshots = self.bases(&timeflow)?;
        let instance = self.instance(parent, &timeflow)?;
        let bases: Vec<&Value> = snapshots.iter().map(|snapshot| &snapshot.metadata).collect();
        let history = History { instance: &instance, bases };
        let point = self.adapter(&parent.adapter)?.find_point(&history, target)?;
        let snapshot = snapshots.into_iter().nth(point.base).ok_or_else(|| no_timeflow(parent))?;
        // Bringing it up to its source is work on its server.
        let hold = if point.needs_sync { Hold::Operate } else { Hold::Use };
        Ok(Origin { parent: parent.clone(), timeflow, snapshot, target: target.clone(), hold })
    }

    /// From where to where points in time of a dataset can be reached, the current timeflow first.
    pub fn spans(&self, name: &str) -> Result<Vec<(Timeflow, Span)>> {
        let dataset = self.dataset(name)?;
        let adapter = self.adapter(&dataset.adapter)?;
        let span = |timeflow: Timeflow| {
            let snapshots = self.bases(&timeflow)?;
            let instance = self.instance(&dataset, &timeflow)?;
            let bases = snapshots.iter().map(|snapshot| &snapshot.metadata).collect();
            let span = adapter.span(&History { instance: &instance, bases })?;
            Ok((timeflow, span))
        };
        self.timeflows_by_age(&dataset)?.into_iter().map(span).collect()
    }

    /// The snapshots of a timeflow that something can be made of, oldest first.
    pub(super) fn bases(&self, timeflow: &Timeflow) -> Result<Vec<Snapshot>> {
        let mut found = self.snapshots_of(timeflow.dataset)?;
        found.retain(|snapshot| snapshot.timeflow == timeflow.id && snapshot.unprovisionable.is_none());
        Ok(found)
    }

    /// A dataset's timeflows, the current one first, then the last one before it.
    fn timeflows_by_age(&self, dataset: &Dataset) -> Result<Vec<Timeflow>> {
        let mut found = self.catalog.select(|timeflow: &Timeflow| {
            timeflow.dataset == dataset.id
                && matches!(timeflow.state, TimeflowState::Current | TimeflowState::Retired)
        })?;
        found.sort_by_key(|timeflow| {
            let retired = timeflow.retired.filter(|_| timeflow.state == TimeflowState::Retired);
            (retired.is_some(), std::cmp::Reverse((retired, timeflow.id)))
        });
        Ok(found)
    }

    /// Makes the volume for a timeflow's logs. One of that name that is there already is somebody else's.
    pub(super) fn make_log_volume(&self, timeflow: &Timeflow) -> Result<()> {
        let Some(volume) = &timeflow.log_volume else { return Ok(()) };
        let made = self.volumes.create(volume);
        if made.as_ref().is_err_and(|e| e.kind() == ErrorKind::Exists) {
            self.catalog.change(|change| {
                change.update::<Timeflow>(timeflow.id, |timeflow| timeflow.log_volume = None)
            })?;
        }
        made
    }
}

/// Whether a target lies behind an instant, as far as it can be told.
fn is_after(target: &Target, instant: Timestamp) -> bool {
    match target {
        Target::Time(text) => text.parse::<Timestamp>().is_ok_and(|time| time > instant),
        _ => false,
    }
}

fn no_timeflow(dataset: &Dataset) -> Error {
    Error::new(ErrorKind::Precondition, format!("{} has no timeflow with that point", dataset.name))
}
