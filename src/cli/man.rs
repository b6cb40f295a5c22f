//! `stillpoint man`: a manual page for every command, made from the arguments it takes.

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use super::context::Context;
use super::exit::{Outcome, Result};
use crate::base::Error;

#[derive(Args)]
pub(super) struct Arguments {
    /// The folder to write the pages to; made if it is not there
    directory: PathBuf,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<Outcome> {
    let shown = arguments.directory.display().to_string();
    std::fs::create_dir_all(&arguments.directory).map_err(|e| Error::io("create", &shown, e))?;
    clap_mangen::generate_to(super::Arguments::command(), &arguments.directory)
        .map_err(|e| Error::io("write pages to", &shown, e))?;
    context.output.text(&format!("the pages are in {shown}\n"))?;
    Ok(Outcome::Done)
}
