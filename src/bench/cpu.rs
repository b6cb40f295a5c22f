//! Processor time of this process and of the one that serves the mount, as the kernel counts it.
//!
//! Kernel threads that write back for a file system are in neither figure.

use std::fs;
use std::time::Duration;

/// User and system time of process `pid`, its ended threads included; None when it is gone.
pub fn of_process(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks = parse_ticks(&stat)?;
    let per_second = rustix::param::clock_ticks_per_second();
    Some(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// Time of this process and of `mounting`, where known.
pub fn total(mounting: Option<u32>) -> Duration {
    let own = of_process(std::process::id()).unwrap_or_default();
    own + mounting.and_then(of_process).unwrap_or_default()
}

/// Fields 14 and 15 of proc_pid_stat(5); the second field may hold blanks and parentheses.
fn parse_ticks(stat: &str) -> Option<u64> {
    let after_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_confuse() {
        let stat = "12 (a) b (c)) S 1 12 12 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 1 0 5 6 7";
        assert_eq!(parse_ticks(stat), Some(300));
        assert_eq!(parse_ticks("12 (cut"), None);
    }

    #[test]
    fn own_time_is_known() {
        assert!(of_process(std::process::id()).is_some());
    }
}
