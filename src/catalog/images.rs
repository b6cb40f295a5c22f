//! Images: snapshots whose recovery is done already.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Record;

/// A volume that holds a snapshot's database recovered and shut down in order, so that a clone of it starts at once.
/// It can be made again at any time: nothing depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    pub id: u64,
    pub dataset: u64,
    /// The snapshot it was made of.
    pub snapshot: u64,
    pub volume: String,
    pub state: ImageState,
    pub created: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageState {
    /// A crash leaves it so; the next start removes it.
    Building,
    Ready,
}

impl Record for Image {
    const KIND: &'static str = "image";
    const VERSION: u32 = 1;

    fn id(&self) -> u64 {
        self.id
    }
}
