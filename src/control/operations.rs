//! The one way to ask a store for something, whoever holds it.

use super::wire::{Progress, Reply, Request};
use crate::base::Result;

/// Takes what a long operation says about its progress.
pub type ProgressSink<'a> = dyn FnMut(Progress) + 'a;

/// Something that carries out requests. Each request is atomic; several may run at once.
pub trait Operations: Send + Sync {
    /// Carries out one request; blocks until it is done and, if it changes the store, durable.
    fn perform(&self, request: &Request, progress: &mut ProgressSink<'_>) -> Result<Reply>;
}
