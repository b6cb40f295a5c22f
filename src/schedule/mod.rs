//! When something is due and what is kept: pure functions of a policy, a time zone, what there is, and now.
//!
//! Invariants: time comes in as an argument; the same input gives the same output; nothing is read, written or
//! waited for. Must not know: jobs, datasets, who deletes. A dry run and the explanation of a kept snapshot are
//! the same calls as the real thing, so they cannot disagree with it.

mod cron;
mod due;
mod expression;
mod field;
mod period;
mod retention;
#[cfg(test)]
mod tests;

pub use cron::CronSchedule;
pub use due::{Due, due};
pub use retention::{
    Candidate, Decision, FirstWeekday, Pin, Reason, RetentionPolicy, Verdict, evaluate, logs_kept_since,
    point_in_time_base,
};
