//! `stillpoint completion`: the script that teaches a shell this command line.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::context::Context;
use super::exit::{Outcome, Result};

#[derive(Args)]
pub(super) struct Arguments {
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> Result<Outcome> {
    let mut script = Vec::new();
    let mut command = super::Arguments::command();
    clap_complete::generate(arguments.shell, &mut command, "stillpoint", &mut script);
    context.output.text(&String::from_utf8_lossy(&script))?;
    Ok(Outcome::Done)
}
