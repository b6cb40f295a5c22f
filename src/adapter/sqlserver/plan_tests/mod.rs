//! Plans against the world that tries everything, on generated cases.
//!
//! `STILLPOINT_PLAN_CASES` sets how many (2,000 without it), `STILLPOINT_PLAN_SEED` the first seed. A failure prints its seed.

mod cases;
mod world;

use super::chain::{Backup, BackupKind, Chain};
use super::lsn::Lsn;
use super::plan::{EndLsn, Leave, Position, RestorePlan, RestoreTarget, Stop};
use super::refusal::Refusal;
use world::{Dice, Record, Restored, World, fork_guid, generate, position};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn plans_agree_with_trying_everything() {
    let cases = number("STILLPOINT_PLAN_CASES", 2000);
    let first = number("STILLPOINT_PLAN_SEED", 1);
    let mut counts = Counts::default();
    for seed in first..first + cases {
        let world = generate(seed, 8 + (seed % 18) as usize);
        let chain = Chain::new(world.backups.clone());
        counts.look_at(&world, &chain);
        let mut dice = Dice::new(seed ^ 0x5555);
        let tried = world.all_restored();
        for target in targets(&world, &mut dice) {
            counts.targets += 1;
            let expected = expect(&world, &tried, &target);
            let plan = chain.plan(&target, &Leave::Recovered);
            counts.reached += u64::from(plan.is_ok());
            compare(&world, &target, expected, plan, seed);
        }
        going_on_holds(&world, &chain, &tried, &mut dice, seed);
        spans_hold(&world, &chain, &mut dice, seed);
    }
    eprintln!("{cases} cases from seed {first}: {counts:?}");
    let Counts { forks, gaps, copy_only, stripes, damaged, overlaps, bulk, .. } = counts;
    let features = [forks, gaps, copy_only, stripes, damaged, overlaps, bulk];
    assert!(cases < 100 || features.iter().all(|count| count * 50 > cases), "a feature is in too few cases");
    assert!(
        counts.reached * 5 > counts.targets && counts.reached < counts.targets,
        "the cases are too easy or too hard"
    );
}

/// How much was tried; the features count the cases that have them.
#[derive(Debug, Default)]
struct Counts {
    targets: u64,
    reached: u64,
    forks: u64,
    gaps: u64,
    copy_only: u64,
    stripes: u64,
    damaged: u64,
    overlaps: u64,
    bulk: u64,
}

impl Counts {
    fn look_at(&mut self, world: &World, chain: &Chain) {
        let backups = &world.backups;
        let any = |wanted: &dyn Fn(&Backup) -> bool| u64::from(backups.iter().any(wanted));
        let overlap = |a: &Backup, b: &Backup| {
            let logs = a.kind == BackupKind::Log && b.kind == BackupKind::Log && a.id != b.id;
            logs && a.last_fork == b.last_fork && a.first_lsn < b.last_lsn && b.first_lsn < a.last_lsn
        };
        self.forks += any(&|backup| backup.fork_point.is_some());
        self.gaps += u64::from(!chain.gaps().is_empty());
        self.copy_only += any(&|backup| backup.copy_only && backup.kind == BackupKind::Full);
        self.stripes += any(&|backup| backup.stripes.len() < usize::from(backup.stripe_count));
        self.damaged += any(&|backup| backup.damaged);
        self.overlaps += any(&|a| backups.iter().any(|b| overlap(a, b)));
        self.bulk += any(&|backup| backup.bulk_logged);
    }
}

fn targets(world: &World, dice: &mut Dice) -> Vec<RestoreTarget> {
    let mut targets = vec![RestoreTarget::Newest];
    for _ in 0..4 {
        targets.push(RestoreTarget::Time(1_000_000 + dice.below((world.now - 1_000_000) as u64 + 3) as i64));
        let lsn = position(dice.below(40) as usize);
        let fork = (dice.below(2) == 0).then(|| fork_guid(dice.below(3) as u8));
        targets.push(RestoreTarget::Lsn { lsn, fork });
        let after_ms = (dice.below(2) == 0).then(|| 1_000_000 + dice.below(100) as i64);
        let name = format!("m{}", dice.below(4));
        targets.push(RestoreTarget::Mark { name, after_ms, before: dice.below(2) == 0 });
    }
    for backup in &world.backups {
        targets.push(RestoreTarget::Backup(backup.id));
        targets.push(RestoreTarget::Time(backup.until_ms()));
        targets.push(RestoreTarget::Lsn { lsn: backup.last_lsn, fork: None });
    }
    targets
}

/// What trying everything found best, by the order that `plan` promises.
struct Expected {
    restored: Restored,
    terminal: usize,
    partial: bool,
    key: (i64, i64, usize),
}

/// The fork on which the last record that a database has was written.
fn record_fork(restored: &Restored) -> super::guid::Guid {
    restored.past.last().map_or(super::guid::Guid::NONE, Record::fork_guid)
}

impl Record {
    fn fork_guid(&self) -> super::guid::Guid {
        fork_guid(self.fork_number())
    }
}

fn expect(world: &World, tried: &[Restored], target: &RestoreTarget) -> Option<Expected> {
    let until = |at: usize| world.backups[at].until_ms();
    let mut found: Vec<Expected> = Vec::new();
    for state in tried {
        let last = *state.steps.last().unwrap();
        let length = state.past.len();
        let whole = |key: (i64, i64)| Expected {
            restored: state.clone(),
            terminal: last,
            partial: false,
            key: (key.0, key.1, length),
        };
        match target {
            RestoreTarget::Newest => found.push(whole((until(last), 0))),
            RestoreTarget::Backup(id) if world.backups[last].id == *id => found.push(whole((until(last), 0))),
            RestoreTarget::Time(ms)
                if until(last) == *ms && state.steps.iter().all(|at| until(*at) <= *ms) =>
            {
                found.push(whole((-until(last), 1)));
            }
            RestoreTarget::Lsn { lsn, fork }
                if position(length) == *lsn && fork.is_none_or(|fork| fork == record_fork(state)) =>
            {
                found.push(whole((until(last), 1)));
            }
            _ => {}
        }
        for log in 0..world.backups.len() {
            found.extend(stop_inside(world, state, log, target));
        }
    }
    // The best, and among equals the one from the newest data backup with the fewest steps.
    found
        .into_iter()
        .max_by_key(|one| (one.key, one.restored.data_at, std::cmp::Reverse(one.restored.steps.len())))
}

/// Stops in a log that leads on from `state`, all that the target allows.
fn stop_inside(world: &World, state: &Restored, log: usize, target: &RestoreTarget) -> Vec<Expected> {
    let until = |at: usize| world.backups[at].until_ms();
    let made = |restored: Option<Restored>, key: (i64, i64), whole: usize| {
        restored.map(|restored| Expected {
            restored,
            terminal: log,
            partial: true,
            key: (key.0, key.1, whole),
        })
    };
    let full_length = world.truths[log].past.len();
    let one = match target {
        RestoreTarget::Time(ms) if until(log) > *ms && state.steps.iter().all(|at| until(*at) <= *ms) => {
            let restored = world.restore_until(state, log, |_, record| record.ms > *ms);
            made(restored, (-until(log), 0), full_length)
        }
        RestoreTarget::Lsn { lsn, fork } => {
            let inside = position(state.past.len()) < *lsn && *lsn < position(full_length);
            let restored =
                world.restore_until(state, log, |place, _| position(place) >= *lsn).filter(|_| inside);
            let restored = restored.filter(|restored| fork.is_none_or(|fork| fork == record_fork(restored)));
            made(restored, (until(log), 0), full_length)
        }
        RestoreTarget::Mark { name, after_ms, before } => {
            return marks_inside(world, state, log, (name, *after_ms, *before));
        }
        _ => None,
    };
    one.into_iter().collect()
}

fn marks_inside(
    world: &World,
    state: &Restored,
    log: usize,
    mark: (&str, Option<i64>, bool),
) -> Vec<Expected> {
    let (name, after_ms, before) = mark;
    let past = &world.truths[log].past;
    let wanted = |record: &Record| {
        record.mark.is_some_and(|mark| format!("m{mark}") == name)
            && after_ms.is_none_or(|after| record.ms >= after)
    };
    let places = (state.past.len()..past.len()).filter(|&place| wanted(&past[place]));
    let stops = places.filter_map(|place| {
        let restored =
            world.restore_until(state, log, |at, _| if before { at >= place } else { at > place })?;
        let (ms, until) = (past[place].ms, world.backups[log].until_ms());
        // The first after a time is by the smaller; the newest by the greater.
        let key = if after_ms.is_some() { (-ms, -until, 0) } else { (ms, until, 0) };
        Some(Expected { restored, terminal: log, partial: true, key })
    });
    stops.collect()
}

fn compare(
    world: &World,
    target: &RestoreTarget,
    expected: Option<Expected>,
    plan: Result<RestorePlan, Box<Refusal>>,
    seed: u64,
) {
    let (expected, plan) = match (expected, plan) {
        (None, Err(refusal)) => return refusal_holds(world, target, &refusal, seed),
        (Some(expected), Ok(plan)) => (expected, plan),
        (expected, plan) => {
            let steps = expected.map(|expected| expected.restored.steps);
            panic!("seed {seed}, {target:?}: expected {steps:?}, planned {plan:?}\n{:#?}", world.backups);
        }
    };
    let what =
        || format!("seed {seed}, {target:?}: expected {:?}, planned {plan:#?}", expected.restored.steps);
    let place = |id| world.backups.iter().position(|backup| backup.id == id).unwrap();
    let steps: Vec<usize> = plan.steps.iter().map(|step| place(step.backup)).collect();
    assert_eq!(steps.last(), Some(&expected.terminal), "{}", what());
    assert_eq!(steps.len(), expected.restored.steps.len(), "{}", what());
    // Carried out, the plan gives the same database, and every step but the last leaves it restoring.
    let done = carry_out(world, &plan, &steps).unwrap_or_else(|| panic!("{}", what()));
    assert_eq!(done.past, expected.restored.past, "{}", what());
    assert_eq!(done.data_at, expected.restored.data_at, "{}", what());
    let last = plan.steps.last().unwrap();
    assert_eq!((last.stop.is_some(), &last.leave), (expected.partial, &Leave::Recovered), "{}", what());
    assert!(plan.steps[..steps.len() - 1].iter().all(|step| step.leave == Leave::NoRecovery));
    let reached = position(done.past.len());
    match plan.end.lsn {
        EndLsn::Before(lsn) => assert_eq!(lsn, reached, "{}", what()),
        EndLsn::Through(lsn) => assert_eq!(lsn, position(done.past.len() - 1), "{}", what()),
        EndLsn::Within { from, to } => assert!(from <= reached && reached <= to, "{}", what()),
    }
    if !matches!(plan.end.lsn, EndLsn::Within { .. }) && !done.past.is_empty() {
        assert_eq!(plan.end.fork, record_fork(&done), "{}", what());
    }
}

/// Runs the steps of a plan as written, stop clauses and all.
fn carry_out(world: &World, plan: &RestorePlan, steps: &[usize]) -> Option<Restored> {
    let mut state: Option<Restored> = None;
    for (step, &at) in plan.steps.iter().zip(steps) {
        state = match (&step.stop, &state) {
            (None, _) => world.restore(state.as_ref(), at),
            (Some(_), None) => None,
            (Some(stop), Some(onto)) => {
                // A log that does not reach the stop is restored whole, bulk-logged or not.
                let whole = matches!(stop, Stop::At(ms) if world.backups[at].until_ms() <= *ms);
                if whole { world.restore(Some(onto), at) } else { stop_at(world, onto, at, stop) }
            }
        };
        state.as_ref()?;
    }
    state
}

fn stop_at(world: &World, onto: &Restored, at: usize, stop: &Stop) -> Option<Restored> {
    let marked = |record: &Record, name: &str, after: i64| {
        record.ms >= after && record.mark.is_some_and(|mark| format!("m{mark}") == name)
    };
    let past = &world.truths[at].past;
    let first = |name: &str, after: i64| {
        (onto.past.len()..past.len()).find(|&place| marked(&past[place], name, after))
    };
    match stop {
        Stop::At(ms) => world.restore_until(onto, at, |_, record| record.ms > *ms),
        Stop::BeforeLsn(lsn) => world.restore_until(onto, at, |place, _| position(place) >= *lsn),
        Stop::AtMark { name, after_ms } => {
            let place = first(name, *after_ms)?;
            world.restore_until(onto, at, |at, _| at > place)
        }
        Stop::BeforeMark { name, after_ms } => {
            let place = first(name, *after_ms)?;
            world.restore_until(onto, at, |at, _| at >= place)
        }
    }
}

/// What is offered instead can be restored.
fn refusal_holds(world: &World, target: &RestoreTarget, refusal: &Refusal, seed: u64) {
    let chain = Chain::new(world.backups.clone());
    for offer in refusal.before.iter().chain(&refusal.after) {
        let plan = chain.plan(&RestoreTarget::Backup(offer.backup), &Leave::Recovered);
        assert!(plan.is_ok(), "seed {seed}, {target:?}: offered {offer:?}");
        if let RestoreTarget::Time(_) = target {
            assert!(
                chain.plan(&RestoreTarget::Time(offer.ms), &Leave::Recovered).is_ok(),
                "seed {seed}: {offer:?}"
            );
        }
    }
    assert!(!refusal.reason.is_empty());
}

/// From a database that is restoring, logs lead exactly as far as trying all of them does.
fn going_on_holds(world: &World, chain: &Chain, tried: &[Restored], dice: &mut Dice, seed: u64) {
    let Some(state) = tried.get(dice.below(tried.len() as u64) as usize) else { return };
    let last = *state.steps.last().unwrap();
    let backup = &world.backups[last];
    let (lsn, fork, family_id, ms) = (backup.last_lsn, backup.last_fork, backup.family_id, backup.until_ms());
    let at = Position { lsn, fork, family_id, ms };
    let logs = |at: usize| world.backups[at].kind == BackupKind::Log;
    let (mut open, mut best) = (vec![state.clone()], (ms, lsn));
    while let Some(next) = open.pop() {
        let end = &world.backups[*next.steps.last().unwrap()];
        best = best.max((end.until_ms(), end.last_lsn));
        let logs = (0..world.backups.len()).filter(|at| logs(*at));
        open.extend(logs.filter_map(|log| world.restore(Some(&next), log)));
    }
    let plan = chain.plan_from(&at, &RestoreTarget::Newest, &Leave::NoRecovery).unwrap();
    let mut now = state.clone();
    for step in &plan.steps {
        let log = world.backups.iter().position(|backup| backup.id == step.backup).unwrap();
        now = world.restore(Some(&now), log).unwrap_or_else(|| panic!("seed {seed}: {at:?}, {plan:?}"));
    }
    assert_eq!(
        (plan.end.ms, plan.end.lsn),
        (best.0, EndLsn::Before(best.1)),
        "seed {seed}: {at:?}, {plan:?}"
    );
    assert_eq!(position(now.past.len()), best.1, "seed {seed}: {at:?}");
}

/// Every time in a span can be planned, and every time that can be planned is in a span.
fn spans_hold(world: &World, chain: &Chain, dice: &mut Dice, seed: u64) {
    let spans = chain.spans();
    for _ in 0..6 {
        let ms = 1_000_000 + dice.below((world.now - 1_000_000) as u64 + 3) as i64;
        let inside: Vec<_> = spans.iter().filter(|span| span.from.ms <= ms && ms <= span.to.ms).collect();
        let free =
            |span: &&&super::spans::RestoreSpan| span.holes.iter().all(|(from, to)| ms <= *from || ms >= *to);
        let planned = chain.plan(&RestoreTarget::Time(ms), &Leave::NoRecovery).is_ok();
        assert!(
            planned || !inside.iter().any(|span| free(&span)),
            "seed {seed}: {ms} is in a span, no plan: {spans:?}"
        );
        assert!(!planned || !inside.is_empty(), "seed {seed}: {ms} has a plan, but is in no span: {spans:?}");
    }
    for gap in chain.gaps() {
        assert!(gap.from < gap.to, "seed {seed}: {gap:?}");
        let before: Option<&Backup> = world.backups.iter().find(|backup| backup.id == gap.before);
        assert_eq!(
            before.map(|log| (log.kind, log.first_lsn)),
            Some((BackupKind::Log, gap.to)),
            "seed {seed}"
        );
        assert!(gap.from > Lsn::ZERO);
    }
}
