//! The question before something is destroyed.

use std::io::{self, BufRead, IsTerminal, Write};

use super::exit::{Failure, Result};
use crate::base::{Error, ErrorKind};

/// Shows what `action` will take with it and asks. With `yes` nothing is asked; without a terminal to ask on
/// it is refused, so that a script must say what it means.
pub(super) fn confirm(yes: bool, action: &str, consequences: &[String]) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::new(
            ErrorKind::Precondition,
            format!("{action} was not confirmed: stdin is no terminal to ask on"),
        )
        .hint("add --yes"));
    }
    let mut question = format!("{action}\n");
    for line in consequences {
        question.push_str("  ");
        question.push_str(line);
        question.push('\n');
    }
    question.push_str("Go on? [y/N] ");
    let mut answer = String::new();
    io::stderr()
        .lock()
        .write_all(question.as_bytes())
        .and_then(|()| io::stdin().lock().read_line(&mut answer))
        .map_err(|e| Error::io("ask on", "the terminal", e))?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::new(ErrorKind::Precondition, format!("{action} was not confirmed: nothing was changed"))
        .hint("answer y, or add --yes"))
}
