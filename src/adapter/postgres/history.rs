//! Timeline history files: where each timeline left the one before.
//!
//! `0000000N.history` has a line for each ancestor of timeline N, oldest first: its number, the LSN at which
//! the next one left it, and why. Knows text and numbers, no files.
//!
//! Format and rules: PostgreSQL's `src/backend/access/transam/timeline.c` (`readTimeLineHistory`,
//! `tliOfPointInHistory`).

use std::fmt;

use super::lsn::{Lsn, Timeline};

/// A history file is a line of some 50 bytes for each promotion; a larger one is none.
pub const HISTORY_BYTES_MAX: u64 = 1 << 20;

/// A timeline that another one came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ancestor {
    pub timeline: Timeline,
    /// Where the next timeline left it: its WAL counts before this place only.
    pub end: Lsn,
    /// What PostgreSQL wrote down, as `no recovery target specified`.
    pub reason: String,
}

/// The line of timelines that leads to one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineHistory {
    pub timeline: Timeline,
    /// Oldest first, timelines rising. The ends need not rise: a recovery can stop on an ancestor's part.
    pub ancestors: Vec<Ancestor>,
}

/// Why a text is no history of this timeline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the history file of timeline {timeline} is not right in line {line}: {fault}")]
pub struct HistoryError {
    pub timeline: Timeline,
    /// From 1 on.
    pub line: usize,
    pub fault: HistoryFault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryFault {
    /// The last line has no end, or there is no line: the file is still being written.
    Incomplete,
    NoTimeline,
    NoPlace,
    NotRising,
    NotBelow,
}

impl fmt::Display for HistoryFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Incomplete => "the file stops here, as one that is still being copied does",
            Self::NoTimeline => "it does not begin with the number of a timeline",
            Self::NoPlace => "the number of the timeline is not followed by an LSN",
            Self::NotRising => "the numbers of the timelines must rise",
            Self::NotBelow => "an ancestor's number must be below that of its descendant",
        })
    }
}

impl TimelineHistory {
    /// Of the first timeline, or of one whose file is not there.
    pub fn without_ancestors(timeline: Timeline) -> Self {
        Self { timeline, ancestors: Vec::new() }
    }

    /// Reads the file of `timeline`. PostgreSQL would take an empty file for a timeline without ancestors, and
    /// so go wrong on one that is being copied; here it is an error.
    pub fn parse(timeline: Timeline, text: &str) -> Result<Self, HistoryError> {
        let mut ancestors: Vec<Ancestor> = Vec::new();
        let mut line = 0;
        for part in text.split_inclusive('\n') {
            line += 1;
            let fail = |fault| Err(HistoryError { timeline, line, fault });
            let Some(content) = part.strip_suffix('\n') else {
                return fail(HistoryFault::Incomplete);
            };
            let content = content.trim();
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let ancestor = match ancestor(content) {
                Ok(ancestor) => ancestor,
                Err(fault) => return fail(fault),
            };
            if ancestors.last().is_some_and(|last| last.timeline >= ancestor.timeline) {
                return fail(HistoryFault::NotRising);
            }
            if ancestor.timeline >= timeline {
                return fail(HistoryFault::NotBelow);
            }
            ancestors.push(ancestor);
        }
        if ancestors.is_empty() {
            return Err(HistoryError { timeline, line: line.max(1), fault: HistoryFault::Incomplete });
        }
        Ok(Self { timeline, ancestors })
    }

    /// Where the line to this timeline left `ancestor`; `None` when it did not come from it.
    pub fn fork_from(&self, ancestor: Timeline) -> Option<Lsn> {
        self.ancestors.iter().find(|known| known.timeline == ancestor).map(|known| known.end)
    }

    /// The timeline whose WAL holds this place on the way to this one.
    pub fn timeline_at(&self, lsn: Lsn) -> Timeline {
        // The newest that had begun and had not ended; a timeline begins where the one before it ends.
        let mut owner = self.timeline;
        for (at, known) in self.ancestors.iter().enumerate().rev() {
            if self.begin(at + 1) <= lsn {
                break;
            }
            owner = known.timeline;
        }
        owner
    }

    /// Where the timeline of this index, this one's being the last, begins.
    fn begin(&self, index: usize) -> Lsn {
        index.checked_sub(1).map_or(Lsn::INVALID, |parent| self.ancestors[parent].end)
    }
}

fn ancestor(line: &str) -> Result<Ancestor, HistoryFault> {
    let digits = line.find(|c: char| !c.is_ascii_digit()).unwrap_or(line.len());
    let timeline = line[..digits].parse().ok().and_then(Timeline::new).ok_or(HistoryFault::NoTimeline)?;
    let rest = line[digits..].trim_start();
    if rest.len() == line.len() - digits && !rest.is_empty() {
        return Err(HistoryFault::NoTimeline);
    }
    let (place, reason) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let end = place.parse().map_err(|_| HistoryFault::NoPlace)?;
    Ok(Ancestor { timeline, end, reason: reason.trim().to_owned() })
}

impl fmt::Display for TimelineHistory {
    /// The file's text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for known in &self.ancestors {
            writeln!(f, "{}\t{}\t{}", known.timeline, known.end, known.reason)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn timeline(number: u32) -> Timeline {
        Timeline::new(number).unwrap()
    }

    fn history(text: &str) -> TimelineHistory {
        TimelineHistory::parse(timeline(9), text).unwrap()
    }

    #[test]
    fn the_servers_own_file_is_read() {
        let text = "1\t0/3000148\tno recovery target specified\n\n# by hand\n2\t0/5000000\tbefore 2026-01-01 00:00:00+00\n";
        let read = history(text);
        assert_eq!(read.fork_from(timeline(1)), Some(Lsn(0x300_0148)));
        assert_eq!(read.fork_from(timeline(2)), Some(Lsn(0x500_0000)));
        assert_eq!(read.fork_from(timeline(9)), None);
        assert_eq!(read.ancestors[1].reason, "before 2026-01-01 00:00:00+00");
        let owners =
            [0, 0x300_0147, 0x300_0148, 0x4FF_FFFF, 0x500_0000].map(|at| read.timeline_at(Lsn(at)).get());
        assert_eq!(owners, [1, 1, 2, 2, 9]);
        assert_eq!(TimelineHistory::without_ancestors(timeline(1)).timeline_at(Lsn(1)), timeline(1));
    }

    #[test]
    fn a_recovery_that_stopped_on_an_ancestors_part_is_no_error() {
        let read = history("1\t0/5000000\tx\n2\t0/3000000\ty\n");
        // As PostgreSQL has it: the newest timeline that has begun.
        let owners = [0x200_0000, 0x400_0000, 0x600_0000].map(|at| read.timeline_at(Lsn(at)).get());
        assert_eq!(owners, [1, 9, 9]);
    }

    #[test]
    fn faults_name_their_line() {
        for (text, line, fault) in [
            ("", 1, HistoryFault::Incomplete),
            ("# nothing\n", 1, HistoryFault::Incomplete),
            ("1\t0/3000148\tno recovery target specified", 1, HistoryFault::Incomplete),
            ("1\t0/3\tx\n2\t0/30", 2, HistoryFault::Incomplete),
            ("x\t0/3\n", 1, HistoryFault::NoTimeline),
            ("0\t0/3\n", 1, HistoryFault::NoTimeline),
            ("1x\t0/3\n", 1, HistoryFault::NoTimeline),
            ("99999999999\t0/3\n", 1, HistoryFault::NoTimeline),
            ("1\n", 1, HistoryFault::NoPlace),
            ("1\t3\n", 1, HistoryFault::NoPlace),
            ("\n1\t0/3\n1\t0/4\n", 3, HistoryFault::NotRising),
            ("9\t0/3\n", 1, HistoryFault::NotBelow),
        ] {
            let error = TimelineHistory::parse(timeline(9), text).unwrap_err();
            assert_eq!((error.line, error.fault), (line, fault), "{text:?}");
            assert!(error.to_string().contains(&format!("line {line}")), "{error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

        #[test]
        fn a_history_comes_back(ends in proptest::collection::vec(any::<u64>(), 1..20), at in any::<u64>()) {
            let ancestors = ends.iter().zip(1..).map(|(end, number)| Ancestor {
                timeline: timeline(number),
                end: Lsn(*end),
                reason: "no recovery target specified".into(),
            });
            let whole = TimelineHistory { timeline: timeline(21), ancestors: ancestors.collect() };
            let read = TimelineHistory::parse(timeline(21), &whole.to_string()).unwrap();
            prop_assert_eq!(&read, &whole);
            // The rule as PostgreSQL states it: newest first, begun and not ended.
            let spans = (0..=ends.len()).rev().find(|&index| {
                let begin = if index == 0 { 0 } else { ends[index - 1] };
                begin <= at && ends.get(index).is_none_or(|end| at < *end)
            });
            if let Some(index) = spans {
                let expected = if index == ends.len() { 21 } else { index as u32 + 1 };
                prop_assert_eq!(read.timeline_at(Lsn(at)).get(), expected);
            }
        }

        #[test]
        fn any_text_is_a_history_or_an_error(text in "[0-9A-F/\t\n#x é]{0,80}") {
            if let Ok(read) = TimelineHistory::parse(timeline(7), &text) {
                prop_assert_eq!(TimelineHistory::parse(timeline(7), &read.to_string()).unwrap(), read);
            }
        }
    }
}
