//! Measuring a directory as a database would use it: the engine of `stillpoint bench`.
//!
//! Works on any mounted file system through the kernel, and on a store only through `Lineage`; must not know
//! the command line, and never opens files of the store.

pub mod cpu;
pub mod folder;
pub mod histogram;
pub mod lineage;
pub mod pages;
pub mod report;
pub mod runner;
pub mod suite;
pub mod workload;

pub use histogram::Histogram;
pub use lineage::{Lineage, LineagePoint};
pub use pages::{Fill, PageGenerator, Sequence};
pub use report::Report;
pub use runner::{Options, Subject, Surroundings, run};
