//! Checks of the time zone and of the clock: points in time are asked for by it.

use std::process::{Command, Stdio};

use jiff::tz::TimeZone;

use super::Finding;

/// Whether the clock is right, as far as an answer says.
type Parse = fn(&str) -> Option<bool>;

pub(super) fn zone() -> Finding {
    const CHECK: &str = "time zone";
    let zone = TimeZone::system();
    match zone.iana_name() {
        Some(name) => Finding::ok(CHECK, name),
        None if zone == TimeZone::UTC => Finding::ok(CHECK, "UTC"),
        None => Finding::warning(
            CHECK,
            "unknown: times are shown in UTC",
            "timedatectl set-timezone ZONE, or set TZ",
        ),
    }
}

/// Whether somebody keeps the clock right. In a container nobody tells.
pub(super) fn clock() -> Finding {
    const CHECK: &str = "clock";
    let asked: [(&str, &[&str], Parse); 2] = [
        ("timedatectl", &["show", "--property=NTPSynchronized", "--value"], parse_timedatectl),
        ("chronyc", &["-c", "tracking"], parse_chronyc),
    ];
    for (program, arguments, parse) in asked {
        let Ok(output) = Command::new(program).args(arguments).stdin(Stdio::null()).output() else {
            continue;
        };
        if !output.status.success() {
            continue;
        }
        match parse(&String::from_utf8_lossy(&output.stdout)) {
            Some(true) => return Finding::ok(CHECK, format!("synchronised, as {program} says")),
            Some(false) => {
                return Finding::warning(
                    CHECK,
                    format!("not synchronised, as {program} says: points in time are off by what it is off"),
                    "timedatectl set-ntp true, or apt-get install chrony",
                );
            }
            None => {}
        }
    }
    Finding::ok(CHECK, "neither timedatectl nor chronyc tells whether it is synchronised")
}

fn parse_timedatectl(text: &str) -> Option<bool> {
    match text.trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// One line of values separated by commas; the last is the leap status.
fn parse_chronyc(text: &str) -> Option<bool> {
    let status = text.trim().rsplit_once(',')?.1;
    match status {
        "Not synchronised" => Some(false),
        "Normal" | "Insert second" | "Delete second" => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_of_both_programs_are_read() {
        assert_eq!(
            ["yes\n", "no\n", "", "n/a"].map(parse_timedatectl),
            [Some(true), Some(false), None, None]
        );
        let line = "A9FEA97B,169.254.169.123,4,1636453900.3,0.000003,0.000001,0.00001,-11.2,0.0,0.0,0.0,0.0,16.1,Normal\n";
        assert_eq!(parse_chronyc(line), Some(true));
        assert_eq!(parse_chronyc("00000000,,0,0.0,0.0,Not synchronised"), Some(false));
        assert_eq!(parse_chronyc("506 Cannot talk to daemon"), None);
    }
}
