//! Running a user's script at a named point of an operation.
//!
//! Invariants: the script sees the environment it is given and nothing of this process's; its output is bounded
//! and holds no secret's value; its time is bounded, and what it leaves running is ended (`Runner::run` says what is
//! not). Must not know: what the operation is, where variables and secrets come from, where output is kept.

mod definition;
mod family;
mod mask;
mod output;
mod point;
mod process;
mod program;
mod run_file;
mod runner;
mod template;
#[cfg(test)]
mod tests;

pub use definition::{Hook, Program, Secrets, Variable};
pub use point::{DatasetKind, HookPoint};
pub use runner::{Limits, Outcome, Runner};
pub use template::{HookTemplate, Placement};
