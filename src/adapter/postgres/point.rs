//! Points in time: which snapshot one is reached from, how recovery is told where to end, and what cannot be reached.
//!
//! A snapshot will do when all that it holds was there at the point already. From it recovery goes on by the WAL that
//! was kept. An LSN and the end of what there is are reached by cutting the WAL there; times, transactions and
//! restore points by PostgreSQL's own recovery targets. A target past the end of the WAL would be fatal in the
//! middle of recovery, so it is refused before.

use jiff::Timestamp;

use super::super::{Span, Target};
use super::config::Metadata;
use super::controldata::ControlData;
use super::logs;
use super::lsn::{Lsn, SegmentSize};
use super::restore_points;
use super::server::Server;
use super::snapshot::SHUT_DOWN_IN_RECOVERY;
use crate::base::{Clock, Error, ErrorKind, Result};

/// A restore point is reached by the place of its record.
pub(super) const RESTORE_POINT_SETTING: &str = "recovery_target_lsn";

/// Where recovery is to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// All that is before this place.
    Lsn(Lsn),
    /// A setting of recovery.
    Setting {
        name: &'static str,
        value: String,
        /// Whether the end of the WAL is that point, when nothing that lies behind it comes before.
        or_end: bool,
    },
}

/// How a point is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// The place of the snapshot among those given.
    pub base: usize,
    pub until: Until,
    /// Whether the server must first be brought up to its source: the point lies behind what it has.
    pub needs_sync: bool,
}

/// What a snapshot holds, as far as points in time go.
pub(super) struct Base {
    end: Lsn,
    latest: Timestamp,
    transactions: Option<Transactions>,
    segment: SegmentSize,
}

/// Transactions that were seen: `xmin:xmax:running`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Transactions {
    xmin: u64,
    xmax: u64,
    running: Vec<u64>,
}

/// What a server has now.
#[derive(Default)]
struct Now {
    end: Option<Lsn>,
    last_commit: Option<Timestamp>,
    transactions: Option<Transactions>,
    /// Until when nothing can be missing that was committed.
    complete: Option<Timestamp>,
    /// Whether it can be brought further.
    can_sync: bool,
}

impl Base {
    /// `None` for a snapshot that does not say where it ends, which therefore is no base.
    pub(super) fn of(metadata: &Metadata) -> Option<Self> {
        Some(Self {
            end: metadata.end_lsn.as_ref()?.parse().ok()?,
            latest: metadata.end_time.as_ref()?.parse().ok()?,
            transactions: metadata.transactions.as_deref().and_then(Transactions::parse),
            segment: SegmentSize::new(metadata.segment_bytes)?,
        })
    }
}

impl Transactions {
    /// Reads what `txid_current_snapshot()` prints.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let mut number = || parts.next()?.parse().ok();
        let (xmin, xmax) = (number()?, number()?);
        let running = parts.next()?.split(',').filter(|part| !part.is_empty());
        Some(Self {
            xmin,
            xmax,
            running: running.map(str::parse).collect::<std::result::Result<_, _>>().ok()?,
        })
    }

    /// Whether a transaction had ended. Its number may be given without its epoch, as rows show it.
    fn has_ended(&self, xid: u64) -> bool {
        let xid = self.whole(xid);
        xid < self.xmin || (xid < self.xmax && !self.running.contains(&xid))
    }

    /// The number with its epoch, taken to be the nearest.
    fn whole(&self, xid: u64) -> u64 {
        if xid >> 32 != 0 {
            return xid;
        }
        let epoch = self.xmax >> 32;
        let candidates = [epoch.saturating_sub(1), epoch, epoch + 1].map(|epoch| epoch << 32 | xid);
        candidates.into_iter().min_by_key(|candidate| candidate.abs_diff(self.xmax)).unwrap_or(xid)
    }
}

/// Finds the way to a target. `synced`: the server was just brought up to its source.
pub(super) fn find(
    server: &Server<'_>,
    bases: &[Option<Base>],
    target: &Target,
    clock: &dyn Clock,
    synced: Option<Timestamp>,
) -> Result<Way> {
    let now = look(server, clock, synced)?;
    let name = &server.instance.name;
    if bases.iter().all(Option::is_none) {
        return Err(Error::new(
            ErrorKind::Range,
            format!("{name} has no snapshot that a point in time can be reached from: take one"),
        ));
    }
    let mut way = match target {
        Target::Snapshot => return Err(Error::invalid("a snapshot is no point in time")),
        Target::Time(text) => time(name, bases, text, &now, clock)?,
        Target::Lsn(text) => place(name, bases, text.parse()?, &now)?,
        Target::Xid(text) => transaction(name, bases, text, &now)?,
        Target::RestorePoint(point) => named(server, bases, point, &now)?,
    };
    if let (false, Some(base)) = (way.needs_sync, &bases[way.base]) {
        match &mut way.until {
            Until::Lsn(end) => check_whole(server, base, *end)?,
            // The end of what is there is the point only when nothing is missing before it.
            Until::Setting { or_end, .. } => *or_end = *or_end && is_whole(server, base, now.end)?,
        }
    }
    Ok(way)
}

/// From where to where points can be reached, and what is missing in between.
pub(super) fn span(server: &Server<'_>, bases: &[Option<Base>], clock: &dyn Clock) -> Result<Span> {
    let now = look(server, clock, None)?;
    let Some(first) = bases.iter().flatten().next() else { return Ok(Span::default()) };
    let wal = logs::all(server)?;
    let gap = |gap: logs::Gap| format!("WAL from {} to {} is missing", gap.from, gap.to);
    Ok(Span {
        earliest_time: Some(first.latest.to_string()),
        earliest_place: Some(first.end.to_string()),
        latest_time: now.complete.or(now.last_commit).map(|time| time.to_string()),
        latest_place: now.end.or_else(|| wal.end(first.segment)).map(|end| end.to_string()),
        can_sync: now.can_sync,
        gaps: wal.gaps(first.end, first.segment).into_iter().map(gap).collect(),
    })
}

fn look(server: &Server<'_>, clock: &dyn Clock, synced: Option<Timestamp>) -> Result<Now> {
    let staging = server.config.is_staging();
    let wall = now(clock);
    let Some(sql) = server.postmaster().and_then(|_| server.connect("postgres").ok()) else {
        // A stopped database has all that it ever committed; what a standby lacks is not known.
        let complete = (!staging && !server.config.detached).then_some(wall);
        return Ok(Now { complete, end: end_at_rest(server)?, ..Now::default() });
    };
    let row = sql
        .rows(
            "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END, \
             to_char(pg_last_xact_replay_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), \
             txid_current_snapshot()",
        )?
        .into_iter()
        .next()
        .unwrap_or_default();
    let field = |at: usize| row.get(at).cloned().flatten();
    let last_commit = if staging { field(1).and_then(|text| text.parse().ok()) } else { None };
    Ok(Now {
        end: field(0).map(|text| text.parse()).transpose()?,
        last_commit,
        transactions: field(2).as_deref().and_then(Transactions::parse),
        complete: if staging { synced.or(last_commit) } else { Some(wall) },
        can_sync: server.config.source.is_some() && synced.is_none(),
    })
}

/// The wall clock.
pub(super) fn now(clock: &dyn Clock) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(clock.unix_nanos())).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Where the WAL of a cluster at rest ends, as its control file says; `None` after a crash.
fn end_at_rest(server: &Server<'_>) -> Result<Option<Lsn>> {
    let control = ControlData::read(&server.programs, &server.data())?;
    let field = match control.field("Database cluster state")? {
        SHUT_DOWN_IN_RECOVERY => "Minimum recovery ending location",
        // The record of its shutdown is the last one.
        "shut down" => "Latest checkpoint location",
        _ => return Ok(None),
    };
    control.field(field)?.parse().map(Some)
}

fn time(name: &str, bases: &[Option<Base>], text: &str, now: &Now, clock: &dyn Clock) -> Result<Way> {
    let wanted: Timestamp = text.parse().map_err(|_| {
        Error::invalid(format!(
            "{text:?} is no time: write it with its offset, as in 2026-11-21T14:03:00+01:00"
        ))
    })?;
    let wall = self::now(clock);
    if wanted > wall {
        return Err(Error::new(
            ErrorKind::Precondition,
            format!("{wanted} is in the future: it is {wall} now, and {name} cannot be further"),
        ));
    }
    let base = last(bases, |base| base.latest <= wanted).ok_or_else(|| {
        too_early(&format!("{wanted}"), name, &earliest(bases, |base| base.latest.to_string()))
    })?;
    let or_end = now.complete.is_some_and(|complete| complete >= wanted);
    let setting = Until::Setting {
        name: "recovery_target_time",
        value: wanted.strftime("%Y-%m-%d %H:%M:%S%.6f+00").to_string(),
        or_end,
    };
    let Some(last_commit) = now.last_commit.filter(|last| *last <= wanted) else {
        // With no commit seen it is not known that there is one behind the point.
        let needs_sync = now.can_sync && !or_end && now.last_commit.is_none();
        return Ok(Way { base, until: setting, needs_sync });
    };
    match (now.can_sync, now.end) {
        (true, _) => Ok(Way { base, until: setting, needs_sync: true }),
        (false, Some(end)) if or_end => Ok(Way { base, until: Until::Lsn(end), needs_sync: false }),
        _ => Err(precondition(format!(
            "{name} has no WAL up to {wanted}: the newest commit that came is of {last_commit}; supply later WAL files, \
             or name that time"
        ))),
    }
}

fn place(name: &str, bases: &[Option<Base>], wanted: Lsn, now: &Now) -> Result<Way> {
    let base = last(bases, |base| base.end <= wanted).ok_or_else(|| {
        too_early(&format!("LSN {wanted}"), name, &earliest(bases, |base| base.end.to_string()))
    })?;
    let Some(end) = now.end else {
        return Err(precondition(format!(
            "where the WAL of {name} ends is not known, as its server does not run: start it first"
        )));
    };
    let beyond = Some(end).filter(|end| wanted > *end);
    if let (Some(end), false) = (beyond, now.can_sync) {
        return Err(Error::new(
            ErrorKind::Precondition,
            format!("LSN {wanted} is not reached yet: the WAL of {name} ends at {end}"),
        ));
    }
    Ok(Way { base, until: Until::Lsn(wanted), needs_sync: beyond.is_some() })
}

fn transaction(name: &str, bases: &[Option<Base>], text: &str, now: &Now) -> Result<Way> {
    let wanted: u64 =
        text.parse().map_err(|_| Error::invalid(format!("{text:?} is no transaction: give its number")))?;
    let open = |base: &Base| base.transactions.as_ref().is_some_and(|seen| !seen.has_ended(wanted));
    let base = last(bases, open).ok_or_else(|| {
        let first = earliest(bases, |base| base.latest.to_string());
        too_early(&format!("transaction {wanted}"), name, &first)
    })?;
    let unseen = now.transactions.as_ref().is_some_and(|seen| !seen.has_ended(wanted));
    if unseen && !now.can_sync {
        return Err(Error::new(
            ErrorKind::Precondition,
            format!("transaction {wanted} has not ended in the WAL that {name} has"),
        ));
    }
    // Recovery knows numbers without their epoch.
    let value = (wanted & 0xFFFF_FFFF).to_string();
    let until = Until::Setting { name: "recovery_target_xid", value, or_end: false };
    Ok(Way { base, until, needs_sync: unseen })
}

fn named(server: &Server<'_>, bases: &[Option<Base>], wanted: &str, now: &Now) -> Result<Way> {
    let name = &server.instance.name;
    let first = bases.iter().flatten().next().map_or(Lsn::INVALID, |base| base.end);
    let size = bases.iter().flatten().next().map_or(SegmentSize::DEFAULT, |base| base.segment);
    let known = restore_points::list(server, first, size)?;
    // The same name may come again: the last one is meant.
    let Some((at, _)) = known.iter().rev().find(|(_, found)| found == wanted) else {
        if now.can_sync {
            let base = last(bases, |_| true).unwrap_or(0);
            let until =
                Until::Setting { name: RESTORE_POINT_SETTING, value: wanted.to_owned(), or_end: false };
            return Ok(Way { base, until, needs_sync: true });
        }
        let mut names: Vec<&str> = known.iter().map(|(_, name)| name.as_str()).collect();
        names.dedup();
        let there =
            if names.is_empty() { "there is none".into() } else { format!("there are {}", names.join(", ")) };
        return Err(Error::not_found(format!(
            "{name} has no restore point {wanted:?} in its WAL from {first} on: {there}"
        )));
    };
    let base = last(bases, |base| base.end <= *at)
        .ok_or_else(|| too_early(wanted, name, &earliest(bases, |base| base.end.to_string())))?;
    // By its place: the same name may be there more than once on the way.
    let until = Until::Setting { name: RESTORE_POINT_SETTING, value: at.to_string(), or_end: false };
    Ok(Way { base, until, needs_sync: false })
}

/// Whether all WAL from a snapshot on is there, up to where its server stands.
fn is_whole(server: &Server<'_>, base: &Base, end: Option<Lsn>) -> Result<bool> {
    let wal = logs::all(server)?;
    let reaches = end.is_none_or(|end| wal.end(base.segment).is_some_and(|last| last >= end));
    Ok(reaches && wal.gaps(base.end, base.segment).is_empty())
}

/// Refuses a way with a hole in it, and names the nearest points.
fn check_whole(server: &Server<'_>, base: &Base, end: Lsn) -> Result<()> {
    let gap = logs::all(server)?.gaps(base.end, base.segment).into_iter().find(|gap| gap.from < end);
    gap.map_or(Ok(()), |gap| {
        Err(precondition(format!(
            "WAL of {} from {} to {} is missing: the nearest points before {end} end at {}",
            server.instance.name, gap.from, gap.to, gap.from
        )))
    })
}

fn last(bases: &[Option<Base>], will_do: impl Fn(&Base) -> bool) -> Option<usize> {
    bases.iter().rposition(|base| base.as_ref().is_some_and(&will_do))
}

fn earliest(bases: &[Option<Base>], shown: impl Fn(&Base) -> String) -> String {
    bases.iter().flatten().next().map(shown).unwrap_or_default()
}

fn too_early(what: &str, name: &str, first: &str) -> Error {
    Error::new(
        ErrorKind::Range,
        format!(
            "{what} is too early: the earliest point of {name} is {first}, where its first snapshot ends"
        ),
    )
}

fn precondition(message: String) -> Error {
    Error::new(ErrorKind::Precondition, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::SimClock;

    fn base(end: &str, latest: &str, transactions: &str) -> Option<Base> {
        Some(Base {
            end: end.parse().unwrap(),
            latest: latest.parse().unwrap(),
            transactions: Transactions::parse(transactions),
            segment: SegmentSize::DEFAULT,
        })
    }

    fn bases() -> Vec<Option<Base>> {
        vec![
            base("0/3000000", "1970-01-01T00:00:10Z", "700:703:701"),
            None,
            base("0/5000000", "1970-01-01T00:00:20Z", "720:720:"),
        ]
    }

    fn follower() -> Now {
        Now {
            end: Some("0/6000000".parse().unwrap()),
            last_commit: Some("1970-01-01T00:00:30Z".parse().unwrap()),
            transactions: Transactions::parse("730:731:"),
            complete: Some("1970-01-01T00:00:30Z".parse().unwrap()),
            can_sync: false,
        }
    }

    #[test]
    fn the_last_snapshot_that_holds_nothing_later_is_the_base() {
        let clock = SimClock::new(std::time::Duration::from_secs(60), std::time::Duration::ZERO);
        let at = |text: &str| time("shop", &bases(), text, &follower(), &clock);
        assert_eq!(at("1970-01-01T00:00:19.999999Z").unwrap().base, 0);
        assert_eq!(at("1970-01-01T00:00:20Z").unwrap().base, 2);
        let within = at("1970-01-01T01:00:25+01:00").unwrap();
        let value = "1970-01-01 00:00:25.000000+00".to_owned();
        assert_eq!(within.until, Until::Setting { name: "recovery_target_time", value, or_end: true });
        let early = at("1970-01-01T00:00:09Z").unwrap_err();
        assert!(early.message().contains("the earliest point of shop is 1970-01-01T00:00:10Z"), "{early}");
        let future = at("1970-01-01T00:02:00Z").unwrap_err();
        assert!(future.message().contains("is in the future"), "{future}");
        assert!(at("yesterday").unwrap_err().message().contains("with its offset"));
    }

    #[test]
    fn what_did_not_come_yet_is_no_point() {
        let clock = SimClock::new(std::time::Duration::from_secs(60), std::time::Duration::ZERO);
        let late = "1970-01-01T00:00:40Z";
        let error = time("shop", &bases(), late, &follower(), &clock).unwrap_err();
        assert!(
            error.message().contains("the newest commit that came is of 1970-01-01T00:00:30Z"),
            "{error}"
        );
        let behind = Now { can_sync: true, ..follower() };
        assert!(time("shop", &bases(), late, &behind, &clock).unwrap().needs_sync);
        let synced = Now { complete: Some("1970-01-01T00:00:59Z".parse().unwrap()), ..follower() };
        let way = time("shop", &bases(), late, &synced, &clock).unwrap();
        assert_eq!((way.until, way.needs_sync), (Until::Lsn("0/6000000".parse().unwrap()), false));
    }

    #[test]
    fn places_and_transactions_choose_by_what_the_snapshot_holds() {
        let at = |text: &str| place("shop", &bases(), text.parse().unwrap(), &follower());
        assert_eq!(at("0/4FFFFFF").unwrap().base, 0);
        assert_eq!(at("0/5000000").unwrap().base, 2);
        assert!(at("0/2000000").unwrap_err().message().contains("0/3000000"));
        assert!(at("0/7000000").unwrap_err().message().contains("ends at 0/6000000"));
        let of = |text: &str| transaction("shop", &bases(), text, &follower());
        assert_eq!(of("701").unwrap().base, 0);
        assert_eq!(of("725").unwrap().base, 2);
        assert!(of("702").unwrap_err().message().contains("too early"));
        assert!(of("731").unwrap_err().message().contains("has not ended"));
    }

    #[test]
    fn a_transaction_is_known_without_its_epoch() {
        let seen = Transactions::parse("8589934600:8589934610:8589934605").unwrap();
        assert!(seen.has_ended(8_589_934_601) && seen.has_ended(9));
        assert!(!seen.has_ended(13) && !seen.has_ended(8_589_934_611));
        assert!(seen.has_ended(4_294_967_290));
        assert_eq!(Transactions::parse("1:2"), None);
    }
}
