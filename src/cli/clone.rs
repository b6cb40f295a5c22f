//! `stillpoint clone`: a writable volume from a snapshot.

use clap::Subcommand;

use super::context::Context;
use super::exit::{Outcome, Result};
use super::names::{SnapshotName, parse_name};
use super::volume::Named;
use crate::control::Request;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make a volume that shares all blocks of a snapshot
    Create {
        #[arg(value_name = "VOLUME@NAME")]
        snapshot: SnapshotName,
        /// The new volume
        #[arg(value_parser = parse_name)]
        name: String,
    },
}

pub(super) fn run(command: Command, context: &Context) -> Result<Outcome> {
    let Command::Create { snapshot: origin, name } = command;
    let shown = origin.to_string();
    let SnapshotName { volume, name: snapshot } = origin;
    context.ask(&Request::CloneCreate { volume, snapshot, name: name.clone() })?;
    context.output.show(&Named { name, origin: Some(shown) })?;
    Ok(Outcome::Done)
}
