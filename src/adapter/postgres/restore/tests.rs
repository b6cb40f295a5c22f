//! The restore command on folders of hand-made segments, and the verdicts on the chain.

use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use tempfile::TempDir;

use super::super::compression::tests::encode;
use super::super::lsn::Lsn;
use super::super::wal::tests::{SIZE, SYSTEM_ID, expected, name, segment};
use super::*;
use crate::base::SimClock;

const GRACE: Duration = Duration::from_secs(30);
/// Long after the files were made.
const START: Duration = Duration::from_secs(4_000_000_000);

/// A WAL folder, a state file and PostgreSQL's place for what it is given.
struct Archive {
    folder: TempDir,
    config: RestoreConfig,
    clock: SimClock,
}

impl Archive {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = RestoreConfig {
            wal_directory: folder.path().join("wal"),
            state_file: folder.path().join("state.json"),
            system_id: SYSTEM_ID,
            major: 15,
            segment_size: SIZE,
            grace_seconds: GRACE.as_secs(),
        };
        fs::create_dir(&config.wal_directory).unwrap();
        fs::create_dir(folder.path().join("pg_wal")).unwrap();
        Self { folder, config, clock: SimClock::new(START, Duration::ZERO) }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.config.wal_directory.join(file)
    }

    fn destination(&self) -> PathBuf {
        self.folder.path().join("pg_wal/RECOVERYXLOG")
    }

    fn put(&self, file: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(file), bytes).unwrap();
    }

    /// Puts right segments there.
    fn supply(&self, names: &[&str]) {
        for file in names {
            self.put(file, segment(&expected(name(file))));
        }
    }

    fn ask(&self, file: &str) -> RestoreResult {
        let _ = fs::remove_file(self.destination());
        let result =
            restore(&self.config, file, &self.destination(), "000000010000000000000001", &self.clock);
        let given = self.destination().exists();
        assert_eq!(given, result.status == RestoreStatus::Restored, "{result:?}");
        let left: Vec<_> = fs::read_dir(self.folder.path().join("pg_wal")).unwrap().collect();
        assert_eq!(left.len(), usize::from(given), "{left:?}");
        result
    }

    #[track_caller]
    fn status(&self, file: &str, status: RestoreStatus) {
        assert_eq!(self.ask(file).status, status, "{file}: {:?}", self.state());
    }

    fn state(&self) -> ChainState {
        ChainState::load(&self.config.state_file).unwrap()
    }

    fn verdict(&self) -> ChainVerdict {
        self.verdict_at(None)
    }

    fn verdict_at(&self, replayed: Option<Lsn>) -> ChainVerdict {
        look(&self.config, replayed, &self.clock).unwrap()
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

const ONE: &str = "000000010000000000000001";
const TWO: &str = "000000010000000000000002";
const THREE: &str = "000000010000000000000003";
const FIVE: &str = "000000010000000000000005";

#[track_caller]
fn broken(verdict: &ChainVerdict) -> (&str, &BreakReason, String) {
    match verdict {
        ChainVerdict::Broken { file, reason, .. } => (file, reason, verdict.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_are_given_plain_and_compressed() {
    let archive = Archive::new();
    let bytes = segment(&expected(name(ONE)));
    for compression in Compression::ALL {
        let file = format!("{ONE}{}", compression.ending());
        archive.put(&file, encode(compression, &bytes));
        archive.status(ONE, RestoreStatus::Restored);
        assert_eq!(fs::read(archive.destination()).unwrap(), bytes);
        fs::remove_file(archive.path(&file)).unwrap();
    }
    let state = archive.state();
    assert_eq!((state.expected, state.redo), (Some(name(ONE)), Some(name(ONE))));
    assert_eq!((state.verdict.as_str(), state.sentence), ("fine", None));
    assert_eq!(check(&archive.config, name(ONE)).unwrap_err().kind, WalFaultKind::Missing);
    archive.supply(&[ONE]);
    assert_eq!(check(&archive.config, name(ONE)), Ok(()));
}

#[test]
fn a_file_that_may_yet_come_is_waited_for() {
    let archive = Archive::new();
    archive.supply(&[ONE]);
    archive.status(ONE, RestoreStatus::Restored);
    for _ in 0..100 {
        let result = archive.ask(TWO);
        assert_eq!((result.status, result.message), (RestoreStatus::NotThere, None));
        // PostgreSQL looks for new timelines in between.
        archive.status("00000002.history", RestoreStatus::NotThere);
        archive.pass(5);
    }
    assert_eq!(archive.verdict().code(), "waiting");
    assert_eq!(archive.state().wanted.unwrap().since_unix_ms, 4_000_000_000_000);
    archive.supply(&[TWO]);
    archive.status(TWO, RestoreStatus::Restored);
    assert_eq!(archive.verdict(), ChainVerdict::Fine);
}

#[test]
fn a_gap_breaks_the_chain_after_the_grace_and_mends_itself() {
    let archive = Archive::new();
    archive.supply(&[ONE]);
    archive.status(TWO, RestoreStatus::NotThere);
    // Idle for an hour; then files come in the wrong order, which is no break yet.
    archive.pass(3600);
    archive.supply(&[THREE, FIVE]);
    archive.status(TWO, RestoreStatus::NotThere);
    assert_eq!(archive.verdict().code(), "waiting");
    archive.pass(29);
    archive.status(TWO, RestoreStatus::NotThere);
    assert_eq!(archive.verdict().code(), "waiting");
    archive.pass(1);
    let result = archive.ask(TWO);
    assert_eq!(result.status, RestoreStatus::NotThere);
    let said = result.message.unwrap();
    assert!(said.contains(TWO) && said.contains("2 later ones from 000000010000000000000003 on"), "{said}");
    let verdict = archive.verdict();
    assert_eq!(broken(&verdict).0, TWO);
    assert_eq!(archive.state().verdict, "broken");
    // Said once.
    assert_eq!(archive.ask(TWO).message, None);
    archive.supply(&[TWO]);
    assert_eq!(archive.verdict().code(), "waiting");
    archive.status(TWO, RestoreStatus::Restored);
    assert_eq!(archive.verdict(), ChainVerdict::Fine);
}

#[test]
fn a_restart_that_goes_back_forgets_no_gap() {
    let archive = Archive::new();
    archive.supply(&[ONE, THREE]);
    archive.status(TWO, RestoreStatus::NotThere);
    archive.pass(30);
    archive.status(ONE, RestoreStatus::Restored);
    archive.status(TWO, RestoreStatus::NotThere);
    assert_eq!(broken(&archive.verdict()).0, TWO);
    archive.status(ONE, RestoreStatus::Restored);
    assert_eq!(broken(&archive.verdict()).0, TWO);
}

#[test]
fn a_gap_that_streaming_has_filled_is_none() {
    let archive = Archive::new();
    archive.supply(&[THREE]);
    archive.status(TWO, RestoreStatus::NotThere);
    archive.pass(60);
    let end = name(THREE).start(SIZE).unwrap();
    assert_eq!(archive.verdict_at(Some(Lsn(end.0 - 1))).code(), "broken");
    assert_eq!(archive.verdict_at(Some(end)), ChainVerdict::Fine);
}

#[test]
fn wrong_files_break_the_chain_at_once() {
    let archive = Archive::new();
    let right = segment(&expected(name(TWO)));
    let cases: [(&str, Vec<u8>, &str); 5] = [
        (TWO, segment(&expected(name(THREE))), "wrong_segment"),
        (TWO, [&right[..], b"x"].concat(), "too_long"),
        (TWO, vec![b'x'; 1 << 20], "bad_magic"),
        (
            "000000010000000000000002.gz",
            encode(Compression::Gzip, &segment(&expected(name(ONE)))),
            "wrong_segment",
        ),
        ("000000010000000000000002.xz", right, "unsupported_compression"),
    ];
    for (file, bytes, expected_code) in cases {
        archive.put(file, &bytes);
        let result = archive.ask(TWO);
        assert_eq!(result.status, RestoreStatus::Wrong);
        let said = result.message.unwrap();
        let verdict = archive.verdict();
        let (_, reason, sentence) = broken(&verdict);
        assert!(matches!(reason, BreakReason::Wrong { code, .. } if code == expected_code), "{reason:?}");
        assert!(sentence.contains(file) && sentence == said, "{sentence}");
        fs::remove_file(archive.path(file)).unwrap();
        assert_eq!(archive.verdict().code(), "waiting");
        archive.status(TWO, RestoreStatus::NotThere);
    }
}

#[test]
fn a_wrong_file_beside_a_right_one_is_passed_over() {
    let archive = Archive::new();
    let right = segment(&expected(name(TWO)));
    // As while gunzip works: the plain one grows.
    archive.put(TWO, &right[..1000]);
    archive.put("000000010000000000000002.gz", encode(Compression::Gzip, &right));
    archive.status(TWO, RestoreStatus::Restored);
    assert_eq!(check(&archive.config, name(TWO)), Ok(()));
}

#[test]
fn an_unfinished_file_has_the_grace_from_its_last_change() {
    let archive = Archive::new();
    let right = segment(&expected(name(TWO)));
    for kept in [1, 1000, 500_000] {
        archive.put(TWO, &right[..kept]);
        archive.status(TWO, RestoreStatus::NotThere);
        archive.pass(29);
        archive.status(TWO, RestoreStatus::NotThere);
        assert_eq!(archive.verdict().code(), "waiting");
    }
    archive.pass(1);
    let said = archive.ask(TWO).message.unwrap();
    assert!(said.contains("has 500000 bytes where a segment has 1048576"), "{said}");
    assert!(matches!(broken(&archive.verdict()).1, BreakReason::Wrong { code, .. } if code == "too_short"));
    archive.put(TWO, &right);
    assert_eq!(archive.verdict().code(), "waiting");
    archive.status(TWO, RestoreStatus::Restored);
}

#[test]
fn a_file_that_is_filled_after_it_was_made_is_waited_for() {
    let archive = Archive::new();
    let mut bytes = segment(&expected(name(TWO)));
    bytes[8192 * 50..].fill(0);
    archive.put(TWO, &bytes);
    let modified = FileSeen::of(&archive.path(TWO)).unwrap().modified_unix_ms;
    let at = |millis: i64| {
        let start = Duration::from_millis(u64::try_from(modified + millis).unwrap());
        let clock = SimClock::new(start, Duration::ZERO);
        restore(&archive.config, TWO, &archive.destination(), "", &clock)
    };
    assert_eq!(at(500).status, RestoreStatus::NotThere);
    assert_eq!(archive.state().wanted.unwrap().asked[0].fault.as_ref().unwrap().code, "settling");
    // However short the grace is.
    let hasty = RestoreConfig { grace_seconds: 0, ..archive.config.clone() };
    let verdict = look(&hasty, None, &archive.clock).unwrap();
    assert_eq!(verdict.code(), "waiting");
    assert_eq!(at(2000).status, RestoreStatus::Restored);
    // One that is full to its end need not settle.
    archive.supply(&[TWO]);
    assert_eq!(at(0).status, RestoreStatus::Restored);
}

#[test]
fn a_segment_that_is_asked_for_again_and_again_is_damaged_inside() {
    let archive = Archive::new();
    archive.supply(&[ONE, TWO]);
    // Restarts, each of which gets further, are none.
    for _ in 0..10 {
        archive.status(ONE, RestoreStatus::Restored);
        archive.status(TWO, RestoreStatus::Restored);
        archive.status(THREE, RestoreStatus::NotThere);
        archive.pass(30);
    }
    assert_eq!(archive.verdict().code(), "waiting");
    archive.supply(&[THREE]);
    for _ in 0..6 {
        // The damaged record begins in the segment before.
        archive.status(TWO, RestoreStatus::Restored);
        archive.status(THREE, RestoreStatus::Restored);
        assert_eq!(archive.verdict(), ChainVerdict::Fine);
        archive.pass(5);
    }
    let verdict = archive.verdict();
    assert!(broken(&verdict).2.contains("a record in it is damaged"), "{verdict}");
    let past = name("000000010000000000000004").start(SIZE).unwrap();
    assert_eq!(archive.verdict_at(Some(past)), ChainVerdict::Fine);
    // Replaced while staging is stopped.
    archive.put(THREE, segment(&expected(name(THREE))));
    assert_eq!(archive.verdict().code(), "waiting");
    archive.status(THREE, RestoreStatus::Restored);
    assert_eq!(archive.verdict(), ChainVerdict::Fine);
}

#[test]
fn a_new_timeline_is_followed() {
    let archive = Archive::new();
    let fork = name(THREE).start(SIZE).unwrap();
    let on_two = |file: &str| file.replacen("00000001", "00000002", 1);
    archive.status(THREE, RestoreStatus::NotThere);
    archive.put("00000002.history", format!("1\t{}\tno recovery target specified\n", Lsn(fork.0 + 100)));
    archive.status("00000002.history", RestoreStatus::Restored);
    let given = fs::read_to_string(archive.destination()).unwrap();
    assert_eq!(given, format!("1\t{}\tno recovery target specified\n", Lsn(fork.0 + 100)));
    // PostgreSQL asks for the newer timeline's first, then for the old one's, of which only a part is there.
    archive.put(&format!("{THREE}.partial"), "x");
    for _ in 0..100 {
        archive.status(&on_two(THREE), RestoreStatus::NotThere);
        archive.status(THREE, RestoreStatus::NotThere);
        archive.pass(5);
        assert_eq!(archive.verdict().code(), "waiting");
    }
    assert_eq!(archive.state().wanted.unwrap().since_unix_ms, 4_000_000_000_000);
    // The old primary went on and archived its own continuation: not what the source has.
    archive.supply(&[THREE]);
    archive.status(&on_two(THREE), RestoreStatus::NotThere);
    archive.status(THREE, RestoreStatus::NotThere);
    // A later one of the new timeline makes it a gap.
    let later = on_two(FIVE);
    archive.put(&later, "x");
    archive.status(&on_two(THREE), RestoreStatus::NotThere);
    archive.status(THREE, RestoreStatus::NotThere);
    archive.pass(30);
    let verdict = archive.verdict();
    let (file, reason, said) = broken(&verdict);
    assert_eq!(file, on_two(THREE));
    assert!(
        matches!(reason, BreakReason::Missing { partial: Some(part), .. } if *part == name(THREE))
            && said.contains(&later),
        "{said}"
    );
    // The new timeline's first segment begins with pages of the old one.
    let two = name(&on_two(THREE));
    let mut bytes = segment(&expected(two));
    bytes[4] = 1;
    archive.put(&two.to_string(), bytes);
    archive.status(&two.to_string(), RestoreStatus::Restored);
    assert_eq!(archive.verdict(), ChainVerdict::Fine);
}

#[test]
fn a_segment_that_ends_at_the_fork_is_given() {
    // As after an orderly switchover.
    let archive = Archive::new();
    let fork = name("000000010000000000000004").start(SIZE).unwrap();
    archive.put("00000002.history", format!("1\t{fork}\tx\n"));
    archive.supply(&[THREE]);
    archive.status("000000020000000000000003", RestoreStatus::NotThere);
    archive.status(THREE, RestoreStatus::Restored);
}

#[test]
fn staging_past_the_fork_is_said() {
    let archive = Archive::new();
    archive.status(THREE, RestoreStatus::NotThere);
    let fork = Lsn(name(TWO).start(SIZE).unwrap().0 + 100);
    archive.put("00000002.history", format!("1\t{fork}\tx\n"));
    archive.status(THREE, RestoreStatus::NotThere);
    assert_eq!(archive.verdict().code(), "waiting");
    archive.pass(30);
    let verdict = archive.verdict();
    let (_, reason, said) = broken(&verdict);
    assert!(matches!(reason, BreakReason::PastFork { fork: at, .. } if *at == fork), "{reason:?}");
    assert!(said.contains("timeline 2") && said.contains(&fork.to_string()), "{said}");
}

#[test]
fn a_history_that_is_not_right_is_not_given() {
    let archive = Archive::new();
    archive.put("00000002.history", "1\t0/3");
    archive.status("00000002.history", RestoreStatus::NotThere);
    assert_eq!(archive.verdict(), ChainVerdict::Fine);
    archive.pass(30);
    assert!(broken(&archive.verdict()).2.contains("line 1"));
    archive.put("00000002.history", "one\n");
    archive.status("00000002.history", RestoreStatus::Wrong);
    assert!(broken(&archive.verdict()).2.contains("00000002.history"));
    fs::remove_file(archive.path("00000002.history")).unwrap();
    assert_eq!(archive.verdict(), ChainVerdict::Fine);
    archive.put("00000002.history", "one\n");
    archive.put("00000002.history.gz", encode(Compression::Gzip, b"1\t0/3\tx\n"));
    archive.status("00000002.history", RestoreStatus::Restored);
    assert_eq!(archive.verdict(), ChainVerdict::Fine);
}

#[test]
fn our_own_failures_are_told_apart() {
    let archive = Archive::new();
    archive.status("RECOVERYXLOG", RestoreStatus::Failed);
    archive.supply(&[ONE]);
    fs::write(&archive.config.state_file, "no JSON").unwrap();
    archive.status(ONE, RestoreStatus::Restored);
    assert_eq!(archive.state().trouble, None);
    // A state that cannot be written holds back no WAL.
    let config =
        RestoreConfig { state_file: archive.folder.path().join("none/state"), ..archive.config.clone() };
    let result = restore(&config, ONE, &archive.destination(), "", &archive.clock);
    assert_eq!(result.status, RestoreStatus::Restored);
    assert!(result.message.unwrap().contains("none/state"));
    assert_eq!(
        restore(&config, TWO, &archive.destination(), "", &archive.clock).status,
        RestoreStatus::Failed
    );

    fs::remove_dir_all(&archive.config.wal_directory).unwrap();
    let result = archive.ask(TWO);
    assert_eq!((result.status, result.exit_code()), (RestoreStatus::Failed, 3));
    assert!(archive.state().trouble.unwrap().contains("WAL folder"));

    let path = archive.folder.path().join("config.json");
    assert_eq!(run_restore(&path, ONE, &archive.destination(), ONE).exit_code(), 3);
    fs::write(&path, serde_json::to_vec(&archive.config).unwrap()).unwrap();
    assert_eq!(RestoreConfig::load(&path).unwrap(), archive.config);
    fs::create_dir(&archive.config.wal_directory).unwrap();
    archive.supply(&[ONE]);
    assert_eq!(run_restore(&path, ONE, &archive.destination(), ONE).exit_code(), 0);
}

#[test]
fn a_file_that_may_not_be_read_is_wrong_at_once() {
    if rustix::process::geteuid().is_root() {
        // Root reads all; a folder under its name is not read either.
        let archive = Archive::new();
        fs::create_dir(archive.path(TWO)).unwrap();
        archive.status(TWO, RestoreStatus::Wrong);
        assert!(broken(&archive.verdict()).2.contains("no regular file"));
        return;
    }
    let archive = Archive::new();
    archive.supply(&[TWO]);
    fs::set_permissions(archive.path(TWO), fs::Permissions::from_mode(0o000)).unwrap();
    archive.status(TWO, RestoreStatus::Wrong);
    assert!(broken(&archive.verdict()).2.contains("may not be read"));
}

#[test]
fn a_folder_of_many_files_is_listed_by_names_alone() {
    let archive = Archive::new();
    for log in 0..20 {
        for number in 0..1000 {
            fs::File::create(archive.path(&format!("00000001{log:08X}{number:08X}"))).unwrap();
        }
    }
    let missing = "000000010000000A000003E8";
    archive.status(missing, RestoreStatus::NotThere);
    let wanted = archive.state().wanted.unwrap();
    let later = wanted.later.unwrap();
    assert_eq!(later.segments, 9000);
    assert_eq!(later.first, Some(name("000000010000000B00000000")));
    assert_eq!(later.last, Some(name("0000000100000013000003E7")));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    /// Whatever is asked and supplied: no verdict but of a file that was asked for, a break only with cause,
    /// and a file that is there and right is given.
    #[test]
    fn verdicts_have_causes(steps in proptest::collection::vec((0_u32..6, 0_u8..4, 0_u64..40), 1..25)) {
        let archive = Archive::new();
        let mut asked = Vec::new();
        for (number, action, seconds) in steps {
            let file = format!("0000000100000000{number:08X}");
            match action {
                0 => archive.supply(&[&file]),
                1 => archive.put(&file, "short"),
                2 => { let _ = fs::remove_file(archive.path(&file)); }
                _ => {
                    let right = check(&archive.config, name(&file)).is_ok();
                    let status = archive.ask(&file).status;
                    prop_assert_eq!(status == RestoreStatus::Restored, right);
                    asked.push(file);
                }
            }
            archive.pass(seconds);
            match archive.verdict() {
                ChainVerdict::Fine => {}
                ChainVerdict::Waiting { file, .. } => prop_assert!(asked.contains(&file)),
                ChainVerdict::Broken { file, reason, since_unix_ms } => {
                    prop_assert!(asked.contains(&file));
                    prop_assert!(archive.clock.unix_nanos() / 1_000_000 - since_unix_ms >= 30_000);
                    let there = archive.path(&file).exists();
                    let missing = matches!(reason, BreakReason::Missing { .. });
                    prop_assert_eq!(there, !missing);
                }
            }
        }
    }
}
