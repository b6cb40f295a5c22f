//! Bytes of the journal file: its header page, batches and records, and the `Start` that roots keep.

/// Number of a record: starts at 1, rises by 1, never repeats in the life of a journal file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

/// Where replay begins. Opaque to whoever keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Identity of the journal file; the one given to `journal::create`.
    pub journal: [u8; 16],
    /// Batches of a lower epoch are not part of what follows.
    pub epoch: u64,
    /// Number of the first record to replay.
    pub seq: Seq,
    /// Logical offset: ring bytes consumed since creation, never taken modulo the ring.
    pub offset: u64,
}

impl Start {
    pub const BYTES: usize = 40;

    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..16].copy_from_slice(&self.journal);
        bytes[16..24].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.seq.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.offset.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8; Self::BYTES]) -> Self {
        let (journal, numbers) = bytes.split_at(16);
        let number = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&numbers[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let mut id = [0; 16];
        id.copy_from_slice(journal);
        Self { journal: id, epoch: number(0), seq: Seq(number(8)), offset: number(16) }
    }
}
