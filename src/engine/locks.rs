//! Which operations on a dataset may run side by side. A conflicting one is refused at once, naming the job.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::base::{Error, ErrorKind, Result};

/// Who looks at a dataset or tidies up, and is done in a moment.
pub(super) const LOOKING: &str = "a look at its server";
pub(super) const PRUNING: &str = "removing old logs";

/// What an operation does to a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// Makes something from one of its snapshots: beside everything but `Replace`.
    Use,
    /// Works on its server: one at a time.
    Operate,
    /// Changes what it consists of, or removes it: alone.
    Replace,
}

/// What is held of each dataset, and for whom.
#[derive(Clone, Default)]
pub(super) struct Locks(Arc<Mutex<HashMap<u64, Holds>>>);

/// Who holds a dataset, how, and as what others are told.
type Holds = Vec<(u64, Hold, String)>;

/// A hold; given back on drop.
pub(super) struct Held {
    locks: Locks,
    token: u64,
    datasets: Vec<u64>,
}

impl Locks {
    /// Takes all of these holds or none. `what` is told to those who come after. `token` must be unique.
    pub(super) fn take(&self, token: u64, what: &str, wanted: &[(u64, Hold)]) -> Result<Held> {
        let mut held = self.0.lock();
        for (dataset, hold) in wanted {
            let others = held.get(dataset).into_iter().flatten();
            let conflict = others.into_iter().find(|(_, other, _)| !may_share(*hold, *other));
            if let Some((_, _, other)) = conflict {
                return Err(Error::new(
                    ErrorKind::InUse,
                    format!("{other} is at work on it: wait until that has ended, and try again"),
                ));
            }
        }
        for (dataset, hold) in wanted {
            held.entry(*dataset).or_default().push((token, *hold, what.to_owned()));
        }
        Ok(Held {
            locks: self.clone(),
            token,
            datasets: wanted.iter().map(|(dataset, _)| *dataset).collect(),
        })
    }
}

impl Locks {
    /// Whether all that keeps these holds from being taken will pass in a moment, without having been asked for.
    pub(super) fn will_pass(&self, wanted: &[(u64, Hold)]) -> bool {
        let held = self.0.lock();
        wanted.iter().all(|(dataset, hold)| {
            let mut others = held.get(dataset).into_iter().flatten();
            others.all(|(_, other, what)| {
                may_share(*hold, *other) || [LOOKING, PRUNING].contains(&what.as_str())
            })
        })
    }

    /// Passes what one token holds of a dataset on to another one, without a moment in between.
    pub(super) fn hand_over(&self, from: u64, token: u64, what: &str, dataset: u64, hold: Hold) -> Held {
        let mut held = self.0.lock();
        let holds = held.entry(dataset).or_default();
        holds.retain(|(other, _, _)| *other != from);
        holds.push((token, hold, what.to_owned()));
        Held { locks: self.clone(), token, datasets: vec![dataset] }
    }
}

fn may_share(one: Hold, other: Hold) -> bool {
    matches!((one, other), (Hold::Use, Hold::Use | Hold::Operate) | (Hold::Operate, Hold::Use))
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.locks.0.lock();
        for dataset in &self.datasets {
            if let Some(holds) = held.get_mut(dataset) {
                holds.retain(|(token, _, _)| *token != self.token);
                if holds.is_empty() {
                    held.remove(dataset);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_is_passed_on() {
        let locks = Locks::default();
        let link = locks.take(1, "job 1", &[(7, Hold::Replace)]).unwrap();
        let sync = locks.hand_over(1, 2, "job 2", 7, Hold::Operate);
        drop(link);
        assert!(locks.take(3, "job 3", &[(7, Hold::Operate)]).is_err());
        drop(locks.take(4, "job 4", &[(7, Hold::Use)]).unwrap());
        drop(sync);
        let _free = locks.take(5, "job 5", &[(7, Hold::Replace)]).unwrap();
    }

    #[test]
    fn what_nobody_asked_for_is_waited_for() {
        let locks = Locks::default();
        let _look = locks.take(1, LOOKING, &[(7, Hold::Use)]).unwrap();
        assert!(locks.take(2, "job 2", &[(7, Hold::Replace)]).is_err());
        assert!(locks.will_pass(&[(7, Hold::Replace), (8, Hold::Operate)]));
        let _job = locks.take(3, "job 3", &[(7, Hold::Operate)]).unwrap();
        assert!(!locks.will_pass(&[(8, Hold::Use), (7, Hold::Replace)]));
        assert!(locks.will_pass(&[(7, Hold::Use)]));
    }

    #[test]
    fn holds_conflict_as_they_must() {
        let locks = Locks::default();
        let snapshot = locks.take(1, "job 1", &[(7, Hold::Operate)]).unwrap();
        let provision = locks.take(2, "job 2", &[(7, Hold::Use), (8, Hold::Replace)]).unwrap();
        let _other = locks.take(3, "job 3", &[(7, Hold::Use)]).unwrap();
        let refused = locks.take(4, "job 4", &[(9, Hold::Operate), (7, Hold::Operate)]).err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::InUse);
        assert!(refused.message().contains("job 1"), "{refused}");
        // Nothing of a refused request stays.
        drop(locks.take(5, "job 5", &[(9, Hold::Replace)]).unwrap());
        assert!(locks.take(6, "job 6", &[(8, Hold::Use)]).is_err());
        drop(snapshot);
        drop(provision);
        let _again = locks.take(7, "job 7", &[(7, Hold::Operate), (8, Hold::Use)]).unwrap();
        assert!(locks.take(8, "job 8", &[(7, Hold::Replace)]).is_err());
    }
}
