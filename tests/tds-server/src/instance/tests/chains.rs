//! Generated chains of backups, restored in generated orders, against a model that knows only how many rows each
//! backup holds and what it follows.

use proptest::prelude::*;

use super::World;

/// What is done to the source.
#[derive(Clone, Copy, Debug)]
enum Step {
    Commit,
    Full,
    CopyOnly,
    Differential,
    Log,
}

/// A backup as the model knows it: rows of the source by number, and its places in the log counted in steps.
#[derive(Clone, Debug)]
struct Taken {
    kind: Step,
    /// Rows that the database has after it.
    rows: usize,
    /// Which full it needs, by its index in the list.
    base: Option<usize>,
    /// Where a log begins.
    from: usize,
    /// Where roll-forward is after it.
    to: usize,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Commit),
        1 => Just(Step::Full),
        1 => Just(Step::CopyOnly),
        2 => Just(Step::Differential),
        3 => Just(Step::Log),
    ];
    proptest::collection::vec(step, 1..24)
}

/// Takes the backups; the model says which are refused.
fn take(world: &mut World, steps: &[Step]) -> Vec<Taken> {
    let mut taken: Vec<Taken> = Vec::new();
    let (mut rows, mut place, mut base, mut logged) = (0, 0, None, None);
    for step in steps {
        let file = format!("{}.bak", taken.len());
        let start = place;
        match step {
            Step::Commit => {
                assert!(world.instance.commit("a", &rows.to_string(), None));
                rows += 1;
                place += 1;
                continue;
            }
            Step::Full => {
                world.run(&format!("BACKUP DATABASE a TO DISK='{file}'"));
                base = Some(taken.len());
                logged = logged.or(Some(start));
            }
            Step::CopyOnly => {
                world.run(&format!("BACKUP DATABASE a TO DISK='{file}' WITH COPY_ONLY"));
            }
            Step::Differential if base.is_none() => {
                world.refuse(&format!("BACKUP DATABASE a TO DISK='{file}' WITH DIFFERENTIAL"), &[3035, 3013]);
                continue;
            }
            Step::Differential => {
                world.run(&format!("BACKUP DATABASE a TO DISK='{file}' WITH DIFFERENTIAL"));
            }
            Step::Log if logged.is_none() => {
                world.refuse(&format!("BACKUP LOG a TO DISK='{file}'"), &[4214, 3013]);
                continue;
            }
            Step::Log => {
                world.run(&format!("BACKUP LOG a TO DISK='{file}'"));
            }
        }
        let from = logged.unwrap_or(0);
        let to = if matches!(step, Step::Log) {
            logged = Some(place);
            place
        } else {
            // A data backup logs its checkpoint and, behind what it holds, its end.
            place += 2;
            start + 1
        };
        taken.push(Taken { kind: *step, rows, base, from, to });
    }
    taken
}

/// Restores one after the other; each good one brings exactly its rows, and what the model forbids is refused.
fn restore(world: &mut World, taken: &[Taken], order: &[usize]) -> Result<(), TestCaseError> {
    let (data, log) = (world.file("b.mdf"), world.file("b.ldf"));
    // Index of the full that was restored, and of the last backup applied.
    let mut at: Option<(usize, usize)> = None;
    for pick in order {
        let index = pick % taken.len();
        let backup = &taken[index];
        let place = format!("MOVE 'a' TO '{data}', MOVE 'a_log' TO '{log}'");
        let what = if matches!(backup.kind, Step::Log) { "LOG" } else { "DATABASE" };
        let full = matches!(backup.kind, Step::Full | Step::CopyOnly);
        let options = if full { format!("REPLACE, {place}") } else { "NORECOVERY".to_owned() };
        let sql = format!("RESTORE {what} b FROM DISK='{index}.bak' WITH NORECOVERY, {options}");
        let sql = sql.replace("NORECOVERY, NORECOVERY", "NORECOVERY");
        let answer = world.ask(&sql);
        let errors = answer.errors();
        let fits = match (backup.kind, at) {
            (Step::Full | Step::CopyOnly, _) => true,
            (_, None) => false,
            (Step::Differential, Some((full, last))) => {
                base_of(taken, full) == backup.base && taken[last].to <= backup.to
            }
            (_, Some((_, last))) => log_fits(taken, last, index),
        };
        prop_assert_eq!(errors.is_empty(), fits, "{} after {:?}: {:?}", sql, at, answer.messages);
        if !fits {
            let known = [3117, 3118, 3120, 3136, 4305, 4326];
            prop_assert!(known.contains(&errors[0]) && errors[1] == 3013, "{:?}", errors);
            continue;
        }
        let first = if full { index } else { at.map_or(index, |(first, _)| first) };
        at = Some((first, index));
        let expected: Vec<String> = (0..backup.rows).map(|row| row.to_string()).collect();
        prop_assert_eq!(world.rows("b"), expected, "{}", sql);
    }
    if at.is_some() {
        let rows = world.rows("b");
        world.run("RESTORE DATABASE b WITH RECOVERY");
        prop_assert_eq!(world.rows("b"), rows);
    }
    Ok(())
}

/// A full is its own base, but a copy-only one has that of its database.
fn base_of(taken: &[Taken], full: usize) -> Option<usize> {
    if matches!(taken[full].kind, Step::Full) { Some(full) } else { taken[full].base }
}

/// A log begins no later than where roll-forward is and goes further, or is empty and right there.
fn log_fits(taken: &[Taken], last: usize, index: usize) -> bool {
    let (at, log) = (taken[last].to, &taken[index]);
    log.from <= at && (log.to > at || log.to == at && log.from == at)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn generated_chains_restore_as_the_model_says(
        steps in steps(),
        order in proptest::collection::vec(0..1000_usize, 1..16),
    ) {
        let mut world = World::new();
        world.run("CREATE DATABASE a");
        let taken = take(&mut world, &steps);
        if !taken.is_empty() {
            restore(&mut world, &taken, &order)?;
        }
    }
}
