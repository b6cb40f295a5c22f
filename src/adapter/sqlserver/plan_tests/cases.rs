//! Single cases with names: what a person would draw on paper.

use jiff::tz::TimeZone;

use super::super::chain::{Backup, BackupKind, Chain, Mark, Stripe, Unusable};
use super::super::guid::Guid;
use super::super::lsn::Lsn;
use super::super::plan::{EndLsn, Leave, RestorePlan, RestoreTarget, Stop};
use crate::base::ErrorKind;

/// LSNs count in hundreds here; minute `n` is when LSN `n` was written.
fn backup(id: u8, kind: BackupKind, first: u32, last: u32) -> Backup {
    let ms = i64::from(last) * 60_000;
    Backup {
        id: Guid([id; 16]),
        kind,
        copy_only: false,
        damaged: false,
        bulk_logged: false,
        first_lsn: Lsn::new(1, first, 1),
        last_lsn: Lsn::new(1, last, 1),
        base_id: (kind == BackupKind::Differential).then_some(Guid([1; 16])),
        family_id: Guid([0xfa; 16]),
        first_fork: Guid([0xf0; 16]),
        last_fork: Guid([0xf0; 16]),
        fork_point: None,
        started_ms: ms,
        finished_ms: ms,
        reaches_ms: None,
        position: 1,
        stripes: vec![Stripe { family: 1, file: format!("/b/{id}.bak") }],
        stripe_count: 1,
        marks: Vec::new(),
    }
}

fn full(id: u8, last: u32) -> Backup {
    backup(id, BackupKind::Full, last - 5, last)
}

fn log(id: u8, first: u32, last: u32) -> Backup {
    backup(id, BackupKind::Log, first, last)
}

/// Full 1 at 100, logs 2 to 4 to 200, differential 5 at 150.
fn simple() -> Vec<Backup> {
    let differential = backup(5, BackupKind::Differential, 145, 150);
    vec![full(1, 100), log(2, 95, 130), log(3, 130, 170), log(4, 170, 200), differential]
}

fn ids(plan: &RestorePlan) -> Vec<u8> {
    plan.steps.iter().map(|step| step.backup.0[0]).collect()
}

fn plan(backups: Vec<Backup>, target: &RestoreTarget) -> RestorePlan {
    Chain::new(backups).plan(target, &Leave::Recovered).unwrap_or_else(|refusal| panic!("{refusal:?}"))
}

fn at_minute(minute: i64) -> RestoreTarget {
    RestoreTarget::Time(minute * 60_000)
}

#[test]
fn the_newest_differential_saves_logs() {
    assert_eq!(ids(&plan(simple(), &RestoreTarget::Newest)), [1, 5, 3, 4]);
    assert_eq!(ids(&plan(simple(), &at_minute(140))), [1, 2, 3]);
    assert_eq!(ids(&plan(simple(), &at_minute(150))), [1, 5]);
    assert_eq!(ids(&plan(simple(), &at_minute(160))), [1, 5, 3]);
}

#[test]
fn a_time_stops_every_log_and_only_the_last_step_recovers() {
    let plan = plan(simple(), &at_minute(140));
    let stops: Vec<bool> = plan.steps.iter().map(|step| step.stop.is_some()).collect();
    assert_eq!(stops, [false, true, true]);
    assert_eq!(plan.steps[2].stop, Some(Stop::At(140 * 60_000)));
    assert_eq!(plan.end.lsn, EndLsn::Within { from: Lsn::new(1, 130, 1), to: Lsn::new(1, 170, 1) });
    assert_eq!(plan.steps[1].leave, Leave::NoRecovery);
}

#[test]
fn standby_is_the_last_step_alone() {
    let undo = Leave::Standby("/u/undo".to_owned());
    let plan = Chain::new(simple()).plan(&RestoreTarget::Newest, &undo).unwrap();
    let leaves: Vec<String> = plan.steps.iter().map(|step| step.leave.word()).collect();
    assert_eq!(leaves, ["NORECOVERY", "NORECOVERY", "NORECOVERY", "STANDBY /u/undo"]);
}

#[test]
fn a_copy_only_full_starts_and_is_no_base() {
    let mut backups = simple();
    backups[0].copy_only = true;
    assert_eq!(ids(&plan(backups.clone(), &at_minute(190))), [1, 2, 3, 4]);
    let refusal =
        Chain::new(backups).plan(&RestoreTarget::Backup(Guid([5; 16])), &Leave::Recovered).unwrap_err();
    assert!(refusal.reason.contains("is based on"), "{}", refusal.reason);
}

#[test]
fn a_gap_is_named_with_both_sides_and_the_points_beside_it() {
    let mut backups = simple();
    backups.retain(|backup| ![3, 5].contains(&backup.id.0[0]));
    let refusal = Chain::new(backups).plan(&at_minute(180), &Leave::Recovered).unwrap_err();
    let error = refusal.about("sales", &TimeZone::UTC);
    assert_eq!(error.kind(), ErrorKind::Precondition);
    let lsn = |block| Lsn::new(1, block, 1).to_string();
    assert!(
        error.message().contains(&format!("log from LSN {} to {} is missing", lsn(130), lsn(170))),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("1970-01-01T02:10:00+00:00"), "{:?}", error.hint());
}

#[test]
fn a_missing_stripe_is_named() {
    let mut backups = simple();
    backups[2].stripe_count = 3;
    backups.retain(|backup| backup.id.0[0] != 5);
    let refusal =
        Chain::new(backups).plan(&RestoreTarget::Backup(Guid([4; 16])), &Leave::Recovered).unwrap_err();
    assert_eq!(refusal.gaps[0].unusable, [(Guid([3; 16]), Unusable::MissingStripes(vec![2, 3]))]);
    let text = refusal.describe(&TimeZone::UTC);
    assert!(text.contains("would fill it but lacks the file of stripe 2, 3"), "{text}");
}

#[test]
fn an_empty_log_is_passed_over() {
    let mut backups = simple();
    backups.push(log(7, 130, 130));
    assert_eq!(ids(&plan(backups.clone(), &at_minute(140))), [1, 2, 3]);
    let refusal =
        Chain::new(backups).plan(&RestoreTarget::Backup(Guid([7; 16])), &Leave::Recovered).unwrap_err();
    assert!(refusal.reason.contains("has nothing"), "{}", refusal.reason);
}

/// The database was restored to LSN 150 and went on: log 6 is on the new fork, logs 3 and 4 on the old one.
fn forked() -> Vec<Backup> {
    let mut backups = simple();
    let mut after = log(6, 130, 190);
    after.last_fork = Guid([0xf1; 16]);
    after.fork_point = Some(Lsn::new(1, 150, 1));
    after.started_ms = 260 * 60_000;
    after.finished_ms = after.started_ms;
    backups.retain(|backup| backup.id.0[0] != 5);
    backups.push(after);
    backups
}

#[test]
fn the_fork_that_lived_at_a_time_is_taken() {
    assert_eq!(ids(&plan(forked(), &RestoreTarget::Newest)), [1, 2, 6]);
    assert_eq!(ids(&plan(forked(), &at_minute(180))), [1, 2, 3, 4]);
    assert_eq!(ids(&plan(forked(), &at_minute(250))), [1, 2, 6]);
    let lsn = Lsn::new(1, 180, 1);
    assert_eq!(ids(&plan(forked(), &RestoreTarget::Lsn { lsn, fork: None })), [1, 2, 6]);
    assert_eq!(ids(&plan(forked(), &RestoreTarget::Lsn { lsn, fork: Some(Guid([0xf0; 16])) })), [1, 2, 3, 4]);
    let spans = Chain::new(forked()).spans();
    assert_eq!(spans.iter().map(|span| span.to.ms / 60_000).collect::<Vec<_>>(), [200, 260]);
}

#[test]
fn a_bulk_logged_log_is_all_or_nothing() {
    let mut backups = simple();
    backups[3].bulk_logged = true;
    assert_eq!(ids(&plan(backups.clone(), &RestoreTarget::Newest)), [1, 5, 3, 4]);
    let refusal = Chain::new(backups.clone()).plan(&at_minute(180), &Leave::Recovered).unwrap_err();
    assert!(refusal.reason.contains("bulk-logged"), "{}", refusal.reason);
    let points = (refusal.before.unwrap().ms / 60_000, refusal.after.unwrap().ms / 60_000);
    assert_eq!(points, (170, 200));
    assert_eq!(Chain::new(backups).spans()[0].holes, [(170 * 60_000, 200 * 60_000)]);
    let mut backups = simple();
    backups[1].bulk_logged = true;
    let stops: Vec<bool> =
        plan(backups, &at_minute(140)).steps.iter().map(|step| step.stop.is_some()).collect();
    assert_eq!(stops, [false, false, true]);
}

#[test]
fn marks_with_and_without_their_transaction() {
    let mut backups = simple();
    for (at, block) in [(1, 110), (2, 160)] {
        let mark =
            Mark { name: "release".to_owned(), lsn: Lsn::new(1, block, 3), ms: i64::from(block) * 60_000 };
        backups[at].marks.push(mark);
    }
    let mark = |after_ms, before| RestoreTarget::Mark { name: "release".to_owned(), after_ms, before };
    assert_eq!(ids(&plan(backups.clone(), &mark(None, false))), [1, 5, 3]);
    let first = plan(backups.clone(), &mark(Some(0), true));
    assert_eq!((ids(&first), first.end.lsn), (vec![1, 2], EndLsn::Before(Lsn::new(1, 110, 3))));
    let other = RestoreTarget::Mark { name: "relaese".to_owned(), after_ms: None, before: false };
    let refusal = Chain::new(backups).plan(&other, &Leave::Recovered).unwrap_err();
    assert!(refusal.reason.ends_with("there are release"), "{}", refusal.reason);
}

#[test]
fn the_text_says_files_order_and_end() {
    let text = plan(simple(), &at_minute(160)).describe(&TimeZone::get("Europe/Berlin").unwrap());
    let expected = "1. full from /b/1.bak (file 1), LSN 1000000009500001 to 1000000010000001, until \
                    1970-01-01T02:40:00+01:00, NORECOVERY\n2. differential from /b/5.bak (file 1), LSN \
                    1000000014500001 to 1000000015000001, until 1970-01-01T03:30:00+01:00, NORECOVERY\n3. log from \
                    /b/3.bak (file 1), LSN 1000000013000001 to 1000000017000001, until 1970-01-01T03:50:00+01:00, \
                    stop at 1970-01-01T03:40:00+01:00, RECOVERY\nends at 1970-01-01T03:40:00+01:00, between LSN \
                    1000000015000001 and 1000000017000001, on recovery fork F0F0F0F0-F0F0-F0F0-F0F0-F0F0F0F0F0F0";
    assert_eq!(text, expected);
}

#[test]
fn backups_of_another_database_link_to_nothing() {
    let mut backups = simple();
    backups[3].family_id = Guid([0xfb; 16]);
    assert_eq!(ids(&plan(backups, &RestoreTarget::Newest)), [1, 5, 3]);
    let refusal = Chain::new(Vec::new()).plan(&RestoreTarget::Newest, &Leave::Recovered).unwrap_err();
    assert!(refusal.reason.contains("no full backup"));
}

#[test]
fn a_long_chain_is_planned_at_once() {
    let mut backups = vec![full(1, 100)];
    backups.extend((0..20_000u32).map(|at| {
        let mut log = log(2, 100 + at, 101 + at);
        log.id.0[..4].copy_from_slice(&at.to_le_bytes());
        log
    }));
    let plan = plan(backups, &RestoreTarget::Newest);
    assert_eq!(plan.steps.len(), 20_001);
}
