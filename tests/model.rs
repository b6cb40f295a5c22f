//! Generated operations on a store and on a plain map, compared again and again.
//!
//! `STILLPOINT_MODEL_SEEDS` is how many seeds to try (default 100), `STILLPOINT_MODEL_FIRST` the first one.

#[path = "common/model.rs"]
mod model;
#[path = "common/operations.rs"]
mod operations;
#[path = "common/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use operations::{Operation, generate};
use world::{World, new_sim};

const OPERATIONS: usize = 100;
/// Operations between comparisons of everything.
const VERIFY_EVERY: usize = 20;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn run(operations: &[Operation]) -> Result<(), String> {
    let mut world = World::new(Arc::new(new_sim()), 512 << 10);
    for (index, operation) in operations.iter().enumerate() {
        let at = |what: String| format!("after operation {index}, {operation:?}: {what}");
        world.run(operation).map_err(at)?;
        if index % VERIFY_EVERY == VERIFY_EVERY - 1 || matches!(operation, Operation::Reopen) {
            world.verify().map_err(at)?;
        }
    }
    world.verify().map_err(|what| format!("at the end: {what}"))?;
    world.verify_counts()?;
    world.reopen()?;
    world.verify().map_err(|what| format!("after reopening: {what}"))?;
    world.verify_counts()
}

fn outcome(operations: &[Operation]) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| run(operations))) {
        Ok(result) => result.err(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            Some(text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default())
        }
    }
}

/// Leaves out what the failure does not need, in ever smaller pieces.
fn shrink(mut operations: Vec<Operation>) -> (Vec<Operation>, String) {
    let mut message = outcome(&operations).unwrap_or_default();
    let mut piece = operations.len() / 2;
    while piece > 0 {
        let mut from = 0;
        while from < operations.len() {
            let mut fewer = operations.clone();
            fewer.drain(from..(from + piece).min(operations.len()));
            match outcome(&fewer) {
                Some(failure) => (operations, message) = (fewer, failure),
                None => from += piece,
            }
        }
        piece /= 2;
    }
    (operations, message)
}

#[test]
fn a_store_does_what_a_map_does() {
    let first = number("STILLPOINT_MODEL_FIRST", 1);
    let seeds = number("STILLPOINT_MODEL_SEEDS", 100);
    for seed in first..first + seeds {
        let operations = generate(seed, OPERATIONS);
        if let Some(message) = outcome(&operations) {
            println!("seed {seed}: {message}");
            let (operations, message) = shrink(operations);
            for operation in operations {
                println!("  {operation:?}");
            }
            panic!("seed {seed}, shrunk to the above: {message}");
        }
    }
    println!("{seeds} seeds from {first} on, {OPERATIONS} operations each");
}
