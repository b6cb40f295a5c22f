//! Sequences of operations on a whole store, with restarts and crashes, against a plain model.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stillpoint_fuzz::operation::Operation;
use stillpoint_fuzz::world::World;

fuzz_target!(|operations: Vec<Operation>| {
    let mut world = World::default();
    for operation in operations.iter().take(60) {
        world.run(operation);
    }
    world.finish();
});
