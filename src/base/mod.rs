//! Identifiers, clock, random and the `Storage` seam: the only code that touches store files.
//!
//! Everything above takes these as arguments, so that tests can fail, crash and replay them.

pub mod clock;
pub mod error;
pub mod lock;
mod map;
pub mod random;
pub mod real;
pub mod sim;
pub mod storage;
pub mod table;
pub mod throttle;
pub mod user;

pub use clock::{Clock, SimClock, SystemClock};
pub use error::{Error, ErrorKind, Result, kind_name, kind_of_name, kinds};
pub use lock::StoreLock;
pub use random::{Random, SeededRandom, SystemRandom};
pub use real::RealStorage;
pub use sim::SimStorage;
pub use storage::{MappedBytes, OpenMode, SpaceInfo, Storage, StorageFile, check_name};
pub use table::{TableFile, guarded, open_table};
pub use throttle::Throttle;
pub use user::OsUser;
