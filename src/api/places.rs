//! How many requests of one token are at work at a time: each may hold a thread, and one client must not have them all.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// More than any console or script needs side by side; a third of the threads there are stays for others.
const PLACES_MAX: usize = 64;

/// The requests at work, by token.
#[derive(Clone, Default)]
pub(super) struct Places(Arc<Mutex<HashMap<u64, usize>>>);

/// One request's place; given back on drop.
pub(super) struct Place {
    places: Places,
    token: u64,
}

impl Places {
    /// `None` when the token has all it may have.
    pub(super) fn take(&self, token: u64) -> Option<Place> {
        let mut taken = self.0.lock();
        let count = taken.entry(token).or_default();
        if *count >= PLACES_MAX {
            return None;
        }
        *count += 1;
        Some(Place { places: self.clone(), token })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock();
        if let Some(count) = taken.get_mut(&self.token) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.token);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_token_has_so_many_and_no_more() {
        let places = Places::default();
        let mut held: Vec<Place> = (0..PLACES_MAX).map(|_| places.take(7).unwrap()).collect();
        assert!(places.take(7).is_none());
        let other = places.take(8).unwrap();
        held.pop();
        held.push(places.take(7).unwrap());
        drop((held, other));
        assert!(places.0.lock().is_empty());
    }
}
