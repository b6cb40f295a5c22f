//! How long one more snapshot and one more clone take when there are many already.
//!
//! Must not know how the store is reached: the library and the control socket both stand behind `Lineage`.

use std::time::Duration;

use super::histogram::Histogram;
use crate::base::{Clock, Result};

/// Snapshots and clones of one volume.
pub trait Lineage {
    fn create_snapshot(&self, snapshot: &str) -> Result<()>;
    fn destroy_snapshot(&self, snapshot: &str) -> Result<()>;
    fn create_clone(&self, snapshot: &str, clone: &str) -> Result<()>;
    fn destroy_clone(&self, clone: &str) -> Result<()>;
}

/// Latencies with `count` snapshots and as many clones there.
#[derive(Clone, Default)]
pub struct LineagePoint {
    pub count: u64,
    pub snapshot: Histogram,
    pub clone: Histogram,
}

/// Measures at each of the ascending `counts` of snapshots, `samples` times each.
///
/// `touch` changes the volume a little before each snapshot, as a snapshot of nothing new may cost less.
/// `prefix` begins all names. What was made is destroyed at the end, also after an error.
pub fn measure(
    lineage: &dyn Lineage,
    touch: &mut dyn FnMut() -> Result<()>,
    counts: &[u64],
    samples: u64,
    prefix: &str,
    clock: &dyn Clock,
) -> Result<Vec<LineagePoint>> {
    let mut line = Line::new(lineage, prefix, clock);
    let mut points = Vec::new();
    for &count in counts {
        line.raise(count, touch)?;
        let mut point = LineagePoint { count, ..LineagePoint::default() };
        for _ in 0..samples {
            line.sample(touch, &mut point)?;
        }
        points.push(point);
    }
    Ok(points)
}

/// A growing number of snapshots of one volume, each with a clone, numbered from 0. Destroyed when dropped.
pub struct Line<'a> {
    lineage: &'a dyn Lineage,
    prefix: &'a str,
    clock: &'a dyn Clock,
    snapshots: u64,
    clones: u64,
}

impl<'a> Line<'a> {
    pub fn new(lineage: &'a dyn Lineage, prefix: &'a str, clock: &'a dyn Clock) -> Self {
        Self { lineage, prefix, clock, snapshots: 0, clones: 0 }
    }

    /// Adds snapshots and clones until one more would be number `count`.
    pub fn raise(&mut self, count: u64, touch: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        while self.snapshots + 1 < count {
            touch()?;
            self.create()?;
        }
        Ok(())
    }

    /// Makes and destroys one more snapshot and clone; their latencies go into `point`.
    pub fn sample(&mut self, touch: &mut dyn FnMut() -> Result<()>, point: &mut LineagePoint) -> Result<()> {
        touch()?;
        let (snapshot, clone) = self.create()?;
        point.snapshot.record(snapshot);
        point.clone.record(clone);
        self.destroy_last()
    }

    fn create(&mut self) -> Result<(Duration, Duration)> {
        let snapshot = format!("{}s{}", self.prefix, self.snapshots);
        let clone = format!("{}c{}", self.prefix, self.clones);
        let begun = self.clock.monotonic();
        self.lineage.create_snapshot(&snapshot)?;
        let between = self.clock.monotonic();
        self.snapshots += 1;
        self.lineage.create_clone(&snapshot, &clone)?;
        let ended = self.clock.monotonic();
        self.clones += 1;
        Ok((between - begun, ended - between))
    }

    fn destroy_last(&mut self) -> Result<()> {
        if self.clones == self.snapshots && self.clones > 0 {
            self.clones -= 1;
            self.lineage.destroy_clone(&format!("{}c{}", self.prefix, self.clones))?;
        }
        if self.snapshots > 0 {
            self.snapshots -= 1;
            self.lineage.destroy_snapshot(&format!("{}s{}", self.prefix, self.snapshots))?;
        }
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        while self.snapshots > 0 {
            if let Err(error) = self.destroy_last() {
                tracing::warn!("a snapshot or clone of the measurement is left: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Error, SystemClock};
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    #[derive(Default)]
    struct Names {
        present: RefCell<BTreeSet<String>>,
        most: RefCell<usize>,
        refuse_at: Option<usize>,
    }

    impl Names {
        fn add(&self, name: &str) -> Result<()> {
            let mut present = self.present.borrow_mut();
            if self.refuse_at.is_some_and(|limit| present.len() >= limit) {
                return Err(Error::invalid("enough"));
            }
            assert!(present.insert(name.to_owned()), "{name} twice");
            let mut most = self.most.borrow_mut();
            *most = present.len().max(*most);
            Ok(())
        }

        fn remove(&self, name: &str) -> Result<()> {
            assert!(self.present.borrow_mut().remove(name), "{name} is not there");
            Ok(())
        }
    }

    impl Lineage for Names {
        fn create_snapshot(&self, snapshot: &str) -> Result<()> {
            self.add(snapshot)
        }
        fn destroy_snapshot(&self, snapshot: &str) -> Result<()> {
            self.remove(snapshot)
        }
        fn create_clone(&self, snapshot: &str, clone: &str) -> Result<()> {
            assert!(self.present.borrow().contains(snapshot));
            self.add(clone)
        }
        fn destroy_clone(&self, clone: &str) -> Result<()> {
            self.remove(clone)
        }
    }

    #[test]
    fn the_last_sample_is_number_count_and_nothing_is_left() {
        let names = Names::default();
        let mut touches = 0;
        let mut touch = || {
            touches += 1;
            Ok(())
        };
        let points = measure(&names, &mut touch, &[1, 10], 5, "p", &SystemClock).unwrap();
        assert_eq!(points.iter().map(|point| point.count).collect::<Vec<_>>(), [1, 10]);
        assert!(points.iter().all(|point| point.snapshot.count() == 5 && point.clone.count() == 5));
        assert_eq!((*names.most.borrow(), touches), (20, 5 + 9 + 5));
        assert!(names.present.borrow().is_empty());
    }

    #[test]
    fn nothing_is_left_after_an_error_either() {
        for limit in [0, 1, 6, 7] {
            let names = Names { refuse_at: Some(limit), ..Names::default() };
            assert!(measure(&names, &mut || Ok(()), &[100], 1, "", &SystemClock).is_err());
            assert!(names.present.borrow().is_empty(), "limit {limit}");
        }
    }
}
