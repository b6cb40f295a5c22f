//! Encoding and decoding of every on-disk record. Pure: no I/O, no clocks, no locks.

pub mod journal;
pub mod place;

pub use place::Place;
