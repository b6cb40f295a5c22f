//! Generated lives of a journal against a plain list: appends, commits, checkpoints, restarts and crashes.

use proptest::prelude::*;

use super::*;
use crate::base::sim::Landing;

const FILE_BYTES: u64 = 132 << 10;

#[derive(Clone, Debug)]
enum Step {
    /// Records of these lengths under one reservation.
    Append(Vec<usize>),
    Commit,
    Position,
    /// Keeps the last position as the start; releases it, unless the crash came between.
    Checkpoint {
        released: bool,
    },
    Shutdown,
    /// The process dies: what was written is in the page cache.
    Kill,
    /// The host dies in the n-th operation of a commit, or when idle.
    Crash {
        operation: u64,
        seed: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length = prop_oneof![8 => 0..200_usize, 4 => 0..9000_usize, 1 => 20_000..32_000_usize];
    let step = prop_oneof![
        12 => prop::collection::vec(length, 1..4).prop_map(Step::Append),
        8 => Just(Step::Commit),
        2 => Just(Step::Position),
        3 => any::<bool>().prop_map(|released| Step::Checkpoint { released }),
        1 => Just(Step::Shutdown),
        2 => Just(Step::Kill),
        4 => (0..4_u64, any::<u64>()).prop_map(|(operation, seed)| Step::Crash { operation, seed }),
    ];
    prop::collection::vec(step, 1..80)
}

struct World {
    storage: SimStorage,
    journal: Arc<Journal>,
    start: Start,
    position: Start,
    /// All records ever appended that are not lost; record `n` at `n - 1`.
    records: Vec<Vec<u8>>,
    durable: usize,
    life: u32,
}

impl World {
    fn new() -> Self {
        let (storage, start) = created(FILE_BYTES);
        let (journal, _) = reopen(&storage, start, INLINE).unwrap();
        Self { storage, journal, start, position: start, records: Vec::new(), durable: 0, life: 0 }
    }

    fn append(&mut self, lengths: &[usize]) {
        let total: usize = lengths.iter().sum();
        let mut reservation = match self.journal.reserve(total as u64, lengths.len() as u32) {
            Ok(reservation) => reservation,
            Err(error) if error.kind() == ErrorKind::NoSpace => {
                self.position = self.journal.position();
                self.checkpoint(true);
                self.journal.reserve(total as u64, lengths.len() as u32).unwrap()
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Invalid);
                return;
            }
        };
        for length in lengths {
            let bytes = payload(&format!("{} of life {} ", self.records.len(), self.life), *length);
            let (head, tail) = bytes.split_at(length / 3);
            let seq = self.journal.append(&mut reservation, &[head, tail]);
            self.records.push(bytes);
            assert_eq!(seq.0, self.records.len() as u64);
        }
        assert!(self.journal.used_bytes() < FILE_BYTES - PAGE);
    }

    fn checkpoint(&mut self, released: bool) {
        self.start = self.position;
        self.durable = self.durable.max(self.start.seq.0 as usize - 1);
        if released {
            self.journal.release(&self.start);
        }
    }

    fn commit(&mut self) -> Result<()> {
        self.journal.commit(Seq(self.records.len() as u64))?;
        self.durable = self.records.len();
        Ok(())
    }

    fn crash(&mut self, operation: u64, seed: u64) {
        self.storage.crash_at(self.storage.operations() + operation);
        let _ = self.commit();
        self.storage = self.storage.after_crash(Landing::Random(seed));
        self.restart();
    }

    fn restart(&mut self) {
        let (journal, replayed) = reopen(&self.storage, self.start, INLINE).unwrap();
        let first = self.start.seq.0;
        let next = first + replayed.len() as u64;
        assert!(next > self.durable as u64, "{} durable, {next} comes next", self.durable);
        assert!(next <= self.records.len() as u64 + 1);
        for (at, (seq, bytes)) in replayed.iter().enumerate() {
            assert_eq!(*seq, first + at as u64);
            assert_eq!(bytes, &self.records[*seq as usize - 1]);
        }
        self.records.truncate(next as usize - 1);
        self.durable = self.records.len();
        self.life += 1;
        self.journal = journal;
        self.position = self.journal.position();
        assert_eq!(self.position.seq.0, next);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Append(lengths) => self.append(&lengths),
            Step::Commit => self.commit().unwrap(),
            Step::Position => self.position = self.journal.position(),
            Step::Checkpoint { released } => self.checkpoint(released),
            Step::Shutdown => {
                self.journal.shut_down().unwrap();
                self.durable = self.records.len();
                self.restart();
            }
            Step::Kill => self.restart(),
            Step::Crash { operation, seed } => self.crash(operation, seed),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn nothing_acknowledged_is_lost_and_nothing_else_comes_back(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.restart();
    }
}
