//! The command line: one file per noun. Knows terminals; nothing below it does.

use std::process::ExitCode;

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    ExitCode::from(2)
}
