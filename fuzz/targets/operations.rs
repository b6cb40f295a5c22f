//! Sequences of operations on a whole store, with restarts and crashes, against a plain model.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stillpoint_fuzz::operation::sequence;
use stillpoint_fuzz::world::World;

const OPERATIONS_MAX: usize = 500;

fuzz_target!(|input: &[u8]| {
    let mut world = World::default();
    let operations = sequence(input, OPERATIONS_MAX);
    if std::env::var_os("FUZZ_SHOW").is_some() {
        eprintln!("{operations:#?}");
    }
    for operation in operations {
        world.run(&operation);
    }
    world.finish();
});
