//! What the target `operations` is made of: a plain model of volumes, and a world that runs one sequence of
//! operations on a store over simulated storage and on the model.

pub mod model;
pub mod operation;
pub mod world;
