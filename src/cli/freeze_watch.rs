//! `stillpoint freeze-watch`: the process that lets a source database's writes go on when the daemon that held them ends.
//! It is told what to watch on stdin, and has a connection of its own.

use std::io::{stdin, stdout};

use super::exit::{Outcome, Result};
use crate::adapter::sqlserver::watch_freeze;

pub(super) fn run() -> Result<Outcome> {
    // Into the daemon's log, whose stderr this process has.
    if let Some(did) = watch_freeze(stdin(), &mut stdout().lock())? {
        tracing::warn!("{did}");
    }
    Ok(Outcome::Done)
}
