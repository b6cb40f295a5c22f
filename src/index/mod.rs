//! Content id to place: bounded hints that deduplication starts from.
//!
//! Must not know segments' contents: a candidate may be wrong, and the caller verifies the full id.

use crate::format::Place;

/// Candidates of one id, at most `Candidates::MAX`.
#[derive(Clone, Copy, Debug)]
pub struct Candidates {
    places: [Place; Self::MAX],
    count: usize,
}

impl Candidates {
    pub const MAX: usize = 8;
}

impl std::ops::Deref for Candidates {
    type Target = [Place];

    fn deref(&self) -> &[Place] {
        &self.places[..self.count]
    }
}

/// A bounded map from block id to candidate places.
pub struct HintTable {}

impl HintTable {
    pub fn new(_max_bytes: usize) -> Self {
        Self {}
    }

    pub fn insert(&self, _id: &[u8; 32], _place: Place) {}

    pub fn candidates(&self, _id: &[u8; 32]) -> Candidates {
        Candidates { places: [Place { segment: 0, slot: 0 }; Candidates::MAX], count: 0 }
    }

    pub fn remove(&self, _id: &[u8; 32], _place: Place) {}

    pub fn len(&self) -> u64 {
        0
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn memory_bytes(&self) -> usize {
        0
    }

    pub fn clear(&self) {}
}
