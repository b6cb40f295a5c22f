//! Whether the chain of WAL files is whole: what PostgreSQL waits for against what the folder holds.
//!
//! PostgreSQL waits in silence for whatever it is not given, so a file that is late and one that will never
//! come look the same to it. They differ in what else is in the folder. `analyse` is pure: a listing, what the
//! restore command remembers, the time.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::compression::Compression;
use super::super::history::TimelineHistory;
use super::super::lsn::{Lsn, SegmentName, SegmentSize, Timeline, WalFileName};
use super::folder::{candidates, read_history};
use super::state::{ChainState, Delivered, FileSeen, LaterFiles, Wanted};
use crate::base::{Error, Result};

/// A segment that is asked for so often in a row is one that PostgreSQL cannot replay; a restart asks once
/// more.
pub(super) const REPEATS_MIN: u32 = 4;
/// History files that are read for one listing, the newest first.
const HISTORIES_MAX: usize = 64;

/// What a WAL folder holds.
#[derive(Clone, Debug, Default)]
pub struct FolderListing {
    pub folder: PathBuf,
    /// Sorted, each once, whether plain or compressed.
    pub segments: Vec<SegmentName>,
    /// Sorted.
    pub partials: Vec<SegmentName>,
    /// Those that could be read and are right.
    pub histories: BTreeMap<Timeline, TimelineHistory>,
    /// The files of the names that the state waits for.
    pub wanted: Vec<FileSeen>,
    /// Whether the file that was given last is still the same.
    pub delivered_unchanged: bool,
    /// Whether a history file that was not right is so still.
    pub history_faulty: bool,
}

impl FolderListing {
    /// Reads the names in the folder, the histories of timelines after those that the state waits for, and what
    /// the files it waits for look like. Nothing else is opened or looked at, so thousands of files cost
    /// little.
    pub fn read(folder: &Path, state: &ChainState) -> Result<Self> {
        let shown = folder.display().to_string();
        let mut listing = Self { folder: folder.to_owned(), ..Self::default() };
        let mut histories = Vec::new();
        let entries = fs::read_dir(folder).map_err(|e| Error::io("list the WAL folder", &shown, e))?;
        for entry in entries {
            let entry = entry.map_err(|e| Error::io("list the WAL folder", &shown, e))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            match WalFileName::parse(Compression::split(name).0) {
                Some(WalFileName::Segment(name)) => listing.segments.push(name),
                Some(WalFileName::Partial(name)) => listing.partials.push(name),
                Some(WalFileName::History(timeline)) => histories.push(timeline),
                _ => {}
            }
        }
        for names in [&mut listing.segments, &mut listing.partials] {
            names.sort_unstable();
            names.dedup();
        }
        let delivered = state.delivered.as_ref().map(|last| &last.file);
        let now = delivered.and_then(|seen| FileSeen::of(&folder.join(&seen.file)));
        listing.delivered_unchanged = delivered.is_some() && delivered == now.as_ref();
        let faulty = state.history_fault.as_ref().and_then(|fault| WalFileName::parse(&fault.file));
        if let Some(WalFileName::History(timeline)) = faulty {
            listing.history_faulty = read_history(folder, timeline).is_err();
        }
        let Some(wanted) = &state.wanted else { return Ok(listing) };
        let newest = newest(wanted).map(|name| name.timeline);
        histories.retain(|timeline| Some(*timeline) > newest);
        histories.sort_unstable();
        histories.dedup();
        for timeline in histories.into_iter().rev().take(HISTORIES_MAX) {
            if let Ok(Some(history)) = read_history(folder, timeline) {
                listing.histories.insert(timeline, history);
            }
        }
        for asked in wanted.asked.iter().filter(|asked| !asked.is_superseded()) {
            let paths = candidates(folder, &asked.name.to_string());
            listing.wanted.extend(paths.iter().filter_map(|(path, _)| FileSeen::of(path)));
        }
        Ok(listing)
    }

    /// What lies beyond the place that is waited for, on the timelines it was asked for and those that came
    /// from the newest of them.
    pub(super) fn later(&self, wanted: &Wanted) -> Option<LaterFiles> {
        let place = newest(wanted)?;
        let mut timelines: Vec<Timeline> = wanted.asked.iter().map(|asked| asked.name.timeline).collect();
        let children: Vec<Timeline> = self.children(place.timeline).map(|(timeline, _)| timeline).collect();
        timelines.extend(&children);
        timelines.sort_unstable();
        timelines.dedup();
        let mut later = LaterFiles { segments: 0, first: None, last: None, child: children.last().copied() };
        for timeline in timelines {
            let from = self.segments.partition_point(|name| *name <= place.on(timeline));
            let to = self.segments.partition_point(|name| name.timeline <= timeline);
            let Some(found) = self.segments.get(from..to).filter(|found| !found.is_empty()) else { continue };
            later.segments += found.len() as u64;
            let nearer = |a: SegmentName, b: SegmentName| if b.is_beyond(a) { a } else { b };
            let further = |a: SegmentName, b: SegmentName| if a.is_beyond(b) { a } else { b };
            later.first = Some(later.first.map_or(found[0], |first| nearer(first, found[0])));
            let end = found[found.len() - 1];
            later.last = Some(later.last.map_or(end, |last| further(last, end)));
        }
        (later.segments > 0 || later.child.is_some()).then_some(later)
    }

    /// Timelines that came from this one, with the place where they left it.
    fn children(&self, parent: Timeline) -> impl Iterator<Item = (Timeline, Lsn)> {
        let later = self.histories.iter().filter(move |(timeline, _)| **timeline > parent);
        later.filter_map(move |(timeline, history)| Some((*timeline, history.fork_from(parent)?)))
    }
}

/// The wanted place's name on the newest timeline that it was asked for: PostgreSQL tries that first, and where
/// it has one of its own, the segment of the timeline before was never completed.
fn newest(wanted: &Wanted) -> Option<SegmentName> {
    wanted.asked.iter().map(|asked| asked.name).max()
}

/// The verdict on the chain, which displays as a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainVerdict {
    /// PostgreSQL has all it asked for.
    Fine,
    /// It waits for a file that may yet come.
    Waiting { file: String, since_unix_ms: i64 },
    /// It waits for a file that will not come, or not be right, by itself.
    Broken { file: String, reason: BreakReason, since_unix_ms: i64 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BreakReason {
    /// It is absent, and later ones are there.
    Missing { folder: PathBuf, later: LaterFiles, partial: Option<SegmentName> },
    /// It is there and is not right.
    Wrong { code: String, sentence: String },
    /// The source went on on a timeline that left this one before the place that staging has reached.
    PastFork { child: Timeline, fork: Lsn, parent: Timeline },
    /// It was given and PostgreSQL asks for it again and again.
    NotReplayed { times: u32 },
}

impl ChainVerdict {
    /// `fine`, `waiting` or `broken`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Waiting { .. } => "waiting",
            Self::Broken { .. } => "broken",
        }
    }
}

/// What the verdict depends on besides the files.
#[derive(Clone, Copy, Debug)]
pub struct ChainMoment {
    pub now_unix_ms: i64,
    pub grace: Duration,
    pub size: SegmentSize,
    /// How far staging has replayed, where it can be asked: a file before that place is no longer needed, as
    /// when streaming brought its content.
    pub replayed: Option<Lsn>,
}

impl ChainMoment {
    fn past_grace(&self, since_unix_ms: i64) -> bool {
        let passed = u64::try_from(self.now_unix_ms.saturating_sub(since_unix_ms)).unwrap_or(0);
        Duration::from_millis(passed) >= self.grace
    }

    fn has_passed(&self, name: SegmentName) -> bool {
        let end = name.start(self.size).and_then(|start| start.checked_add(self.size.bytes()));
        self.replayed.zip(end).is_some_and(|(replayed, end)| replayed >= end)
    }
}

/// Judges the chain.
///
/// A wrong file breaks it at once; one that is absent while later ones are there, or that looks unfinished,
/// breaks it when it has been so for the grace. A file that came or changed since the restore command saw it is
/// waited for: PostgreSQL asks again within seconds, or when it is started.
pub fn analyse(listing: &FolderListing, state: &ChainState, moment: &ChainMoment) -> ChainVerdict {
    if let Some(history) = state.history_fault.as_ref().filter(|_| listing.history_faulty)
        && (!history.fault.in_progress || moment.past_grace(history.since_unix_ms))
    {
        let reason = wrong(&history.fault.code, &history.fault.sentence);
        return ChainVerdict::Broken {
            file: history.file.clone(),
            reason,
            since_unix_ms: history.since_unix_ms,
        };
    }
    let Some((wanted, expected)) = state.wanted.as_ref().and_then(|wanted| Some((wanted, newest(wanted)?)))
    else {
        return not_replayed(listing, state.delivered.as_ref(), moment);
    };
    if moment.has_passed(expected) {
        return ChainVerdict::Fine;
    }
    let waiting = ChainVerdict::Waiting { file: expected.to_string(), since_unix_ms: wanted.since_unix_ms };
    let mut present = false;
    for asked in wanted.asked.iter().rev().filter(|asked| !asked.is_superseded()) {
        let name = asked.name.to_string();
        let seen: Vec<&FileSeen> =
            listing.wanted.iter().filter(|seen| seen.file.starts_with(&name)).collect();
        let unchanged = seen.iter().copied().eq(&asked.seen);
        if let Some(fault) = asked.lasting_fault().filter(|_| unchanged)
            && (!fault.in_progress || moment.past_grace(asked.since_unix_ms))
        {
            let reason = wrong(&fault.code, &fault.sentence);
            return ChainVerdict::Broken { file: name, reason, since_unix_ms: asked.since_unix_ms };
        }
        present |= !seen.is_empty();
    }
    if present {
        return waiting;
    }
    absent(listing, wanted, expected, moment).unwrap_or(waiting)
}

fn wrong(code: &str, sentence: &str) -> BreakReason {
    BreakReason::Wrong { code: code.to_owned(), sentence: sentence.to_owned() }
}

fn not_replayed(
    listing: &FolderListing,
    delivered: Option<&Delivered>,
    moment: &ChainMoment,
) -> ChainVerdict {
    let again = delivered.filter(|last| last.times >= REPEATS_MIN && !moment.has_passed(last.name));
    let Some(last) = again.filter(|last| moment.past_grace(last.first_at_unix_ms)) else {
        return ChainVerdict::Fine;
    };
    let (file, since_unix_ms) = (last.name.to_string(), last.first_at_unix_ms);
    if !listing.delivered_unchanged {
        return ChainVerdict::Waiting { file, since_unix_ms };
    }
    ChainVerdict::Broken { file, reason: BreakReason::NotReplayed { times: last.times }, since_unix_ms }
}

/// The break by an absent file, if it is one.
fn absent(
    listing: &FolderListing,
    wanted: &Wanted,
    expected: SegmentName,
    moment: &ChainMoment,
) -> Option<ChainVerdict> {
    let later = listing.later(wanted)?;
    let since = wanted.later_since_unix_ms.filter(|since| moment.past_grace(*since))?;
    let parent = expected.timeline;
    let reached = expected.start(moment.size)?;
    let passed = listing.children(parent).filter(|(_, fork)| *fork < reached).last();
    let reason = match passed {
        Some((child, fork)) => BreakReason::PastFork { child, fork, parent },
        None => BreakReason::Missing {
            folder: listing.folder.clone(),
            later,
            partial: wanted.asked.iter().map(|asked| asked.name).find(|name| listing.partials.contains(name)),
        },
    };
    Some(ChainVerdict::Broken { file: expected.to_string(), reason, since_unix_ms: since })
}

impl fmt::Display for ChainVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fine => f.write_str("all WAL files that PostgreSQL asked for were there"),
            Self::Waiting { file, .. } => write!(f, "PostgreSQL waits for the WAL file {file}"),
            Self::Broken { file, reason, .. } => reason.tell(file, f),
        }
    }
}

impl BreakReason {
    fn tell(&self, file: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { folder, later, partial } => {
                write!(f, "the WAL file {file} is missing in {}, where ", folder.display())?;
                match (later.first, later.child) {
                    (Some(first), _) if later.segments == 1 => write!(f, "the later {first} is")?,
                    (Some(first), _) => write!(f, "{} later ones from {first} on are", later.segments)?,
                    (None, Some(child)) => write!(f, "the history of the later timeline {child} is")?,
                    (None, None) => f.write_str("later ones are")?,
                }
                f.write_str(" already; ")?;
                if let Some(partial) = partial {
                    write!(f, "its beginning is there as {partial}.partial, which is never completed; ")?;
                }
                f.write_str("put it there and staging goes on by itself, or resync the dSource")
            }
            Self::Wrong { sentence, .. } => write!(
                f,
                "{sentence}; replace {file} by the right one and staging goes on by itself, or resync the dSource"
            ),
            Self::PastFork { child, fork, parent } => write!(
                f,
                "the source went on on timeline {child}, which left timeline {parent} at {fork}, before the WAL \
                 file {file} that staging has reached; roll staging back to a snapshot from before {fork}, or resync the dSource"
            ),
            Self::NotReplayed { times } => write!(
                f,
                "the WAL file {file} was given to PostgreSQL {times} times and it asks for it again: a record in it is \
                 damaged, see the log of staging; replace it by the right one, or resync the dSource"
            ),
        }
    }
}
