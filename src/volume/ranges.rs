//! A set of page numbers kept as disjoint ranges.

use std::collections::BTreeMap;

/// Ranges `from..to`, merged where they touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RangeSet {
    ranges: BTreeMap<u64, u64>,
}

impl RangeSet {
    pub(crate) fn insert(&mut self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        let (mut from, mut to) = (from, to);
        let touching: Vec<u64> = self
            .ranges
            .range(..=to)
            .rev()
            .take_while(|(_, end)| **end >= from)
            .map(|(start, _)| *start)
            .collect();
        for start in touching {
            if let Some(end) = self.ranges.remove(&start) {
                from = from.min(start);
                to = to.max(end);
            }
        }
        self.ranges.insert(from, to);
    }

    /// The end of the range that holds `page`.
    pub(crate) fn end_of(&self, page: u64) -> Option<u64> {
        let (_, end) = self.ranges.range(..=page).next_back()?;
        (*end > page).then_some(*end)
    }

    /// Whether one range holds all of `from..to`.
    pub(crate) fn covers(&self, from: u64, to: u64) -> bool {
        self.end_of(from).is_some_and(|end| end >= to)
    }

    /// Whether any page of `from..to` is in the set.
    pub(crate) fn touches(&self, from: u64, to: u64) -> bool {
        self.end_of(from).is_some() || self.ranges.range(from..to).next().is_some()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().map(|(from, to)| (*from, *to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_a_plain_set(inserts in prop::collection::vec((0u64..60, 0u64..12), 0..20)) {
            let mut set = RangeSet::default();
            let mut plain = std::collections::BTreeSet::new();
            for (from, length) in inserts {
                set.insert(from, from + length);
                plain.extend(from..from + length);
            }
            for page in 0..80 {
                prop_assert_eq!(set.end_of(page).is_some(), plain.contains(&page));
            }
            let ranges: Vec<_> = set.iter().collect();
            prop_assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0));
            prop_assert_eq!(set.touches(10, 20), (10..20).any(|page| plain.contains(&page)));
        }
    }
}
