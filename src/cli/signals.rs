//! Signals that ask the process to end, turned into a value to look at or wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::exit::{Failure, Result};
use crate::base::{Error, ErrorKind};

/// The signals that ask for an orderly end.
const ENDING: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// Set when an ending signal came. A second one ends the process at once.
#[derive(Clone)]
pub(super) struct Interrupted(Arc<AtomicBool>);

impl Interrupted {
    /// Takes over the ending signals.
    pub(super) fn watch() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in ENDING {
            // In this order: the second signal finds the flag set and ends the process.
            signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&flag))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
                .map_err(|e| Error::io("watch for", "signals", e))?;
        }
        Ok(Self(flag))
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Fails once an ending signal came.
    pub(super) fn check(&self) -> Result<()> {
        if self.is_set() {
            return Err(Failure::new(ErrorKind::Io, "interrupted").hint("run it again"));
        }
        Ok(())
    }
}

/// The ending signals as a sequence to wait on.
pub(super) fn ending_signals() -> Result<Signals> {
    Ok(Signals::new(ENDING).map_err(|e| Error::io("watch for", "signals", e))?)
}
