//! Plans and refusals as a person reads them: which files, in which order, to which LSN.
//!
//! Times come in the zone of the caller's choice, with their offsets. Must not know statements: what is sent to a server is
//! written elsewhere from the same plan.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::chain::Unusable;
use super::plan::{EndLsn, Leave, RestorePlan, Step, Stop};
use super::refusal::{Offer, Refusal};
use super::spans::Gap;
use crate::base::{Error, ErrorKind};

/// RFC 3339 with the zone's offset, to the second.
pub(super) fn time(ms: i64, zone: &TimeZone) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(time) => time.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        Err(_) => format!("{ms} ms"),
    }
}

impl Leave {
    /// As RESTORE has it.
    pub fn word(&self) -> String {
        match self {
            Self::Recovered => "RECOVERY".to_owned(),
            Self::NoRecovery => "NORECOVERY".to_owned(),
            Self::Standby(undo) => format!("STANDBY {undo}"),
        }
    }
}

impl RestorePlan {
    /// One line a step, then where it ends.
    pub fn describe(&self, zone: &TimeZone) -> String {
        let mut text = String::new();
        for (number, step) in self.steps.iter().enumerate() {
            let _ = writeln!(text, "{}. {}", number + 1, step.describe(zone));
        }
        let end = match self.end.lsn {
            EndLsn::Before(lsn) => format!("ends with all before LSN {lsn}, {}", time(self.end.ms, zone)),
            EndLsn::Through(lsn) => format!("ends with LSN {lsn}, {}", time(self.end.ms, zone)),
            EndLsn::Within { from, to } => {
                format!("ends at {}, between LSN {from} and {to}", time(self.end.ms, zone))
            }
        };
        let _ = write!(text, "{end}, on recovery fork {}", self.end.fork);
        text
    }
}

impl Step {
    fn describe(&self, zone: &TimeZone) -> String {
        let files: Vec<&str> = self.files.iter().map(|stripe| stripe.file.as_str()).collect();
        let stop = match &self.stop {
            None => String::new(),
            Some(Stop::At(ms)) => format!(", stop at {}", time(*ms, zone)),
            Some(Stop::AtMark { name, after_ms }) => {
                format!(", stop after mark {name} of {}", time(*after_ms, zone))
            }
            Some(Stop::BeforeMark { name, after_ms }) => {
                format!(", stop before mark {name} of {}", time(*after_ms, zone))
            }
            Some(Stop::BeforeLsn(lsn)) => format!(", stop before LSN {lsn}"),
        };
        format!(
            "{} from {} (file {}), LSN {} to {}, until {}{stop}, {}",
            self.kind.word(),
            files.join(" + "),
            self.position,
            self.first_lsn,
            self.last_lsn,
            time(self.until_ms, zone),
            self.leave.word(),
        )
    }
}

impl Gap {
    /// What is missing, and between which backups.
    pub fn describe(&self, zone: &TimeZone) -> String {
        let mut text = format!(
            "log from LSN {} to {} is missing: backup {} ends there at {}, log backup {} of {} begins behind it",
            self.from,
            self.to,
            self.after,
            time(self.after_ms, zone),
            self.before,
            time(self.before_ms, zone),
        );
        for (id, why) in &self.unusable {
            let _ = write!(text, "; backup {id} would fill it but {}", why.describe());
        }
        text
    }
}

impl Unusable {
    /// What follows the backup's name in a sentence.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Damaged => "is damaged".to_owned(),
            Self::MissingStripes(families) => {
                let families: Vec<String> = families.iter().map(u16::to_string).collect();
                format!("lacks the file of stripe {}", families.join(", "))
            }
            Self::BadLsns => "ends before it begins".to_owned(),
            Self::Empty => "has nothing: no log was written since the one before".to_owned(),
        }
    }
}

impl Refusal {
    /// Reason, gaps, what cannot be used, and the nearest points; one line each.
    pub fn describe(&self, zone: &TimeZone) -> String {
        let mut lines = vec![self.reason.clone()];
        lines.extend(self.gaps.iter().map(|gap| gap.describe(zone)));
        let told = |id| self.gaps.iter().any(|gap| gap.unusable.iter().any(|(known, _)| known == id));
        let unusable = self.unusable.iter().filter(|(id, _)| !told(id));
        lines.extend(unusable.map(|(id, why)| format!("backup {id} {}", why.describe())));
        lines.join("\n")
    }

    /// The points nearby, or what to do when there are none.
    fn advice(&self, zone: &TimeZone) -> String {
        let offer = |offer: &Offer| format!("{} (LSN {})", time(offer.ms, zone), offer.lsn);
        let offers: Vec<String> = self.before.iter().chain(&self.after).map(offer).collect();
        match offers.is_empty() {
            true => "add a full backup that is whole".to_owned(),
            false => format!("restore to {}, or add the backups that are missing", offers.join(" or ")),
        }
    }

    /// As an error about restoring `database`.
    pub fn about(&self, database: &str, zone: &TimeZone) -> Error {
        let message = format!("cannot restore {database} to that point: {}", self.describe(zone));
        Error::new(ErrorKind::Precondition, message).with_hint(self.advice(zone))
    }
}
