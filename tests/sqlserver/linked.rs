//! dSources that follow a folder of backups: the first copy, what comes later, what is missing, and what becomes of the link.

use std::path::PathBuf;

use serde_json::Value;
use stillpoint_tds_server::instance::DatabaseState;

use crate::common::Run;
use crate::stage::Stage;

/// A tenth of a second each.
const WAIT_LOOKS_MAX: usize = 600;

impl Stage {
    /// The folder that backups of production go to.
    pub(crate) fn folder(&self) -> String {
        self.fixture.path("mssql/backup").display().to_string()
    }

    /// `shop` follows the folder, with more words.
    pub(crate) fn follow(&self, words: &[&str]) -> Run {
        self.link_with("shop", &[&["--backup-path", &self.folder()], words].concat())
    }

    /// Commits a row of production and backs its log up to a file of the folder.
    pub(crate) fn commit_and_log(&self, row: &str, file: &str) -> String {
        assert!(self.instance.commit("prod", row, None));
        self.backup("prod", &format!("{file}-log"))
    }

    /// A snapshot by hand. One that the daemon takes by itself at that moment is waited for.
    pub(crate) fn snap(&self) -> Run {
        self.patient(&["dsource", "snapshot", "shop"])
    }

    /// Waits for something that the daemon does by itself.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        for _ in 0..WAIT_LOOKS_MAX {
            if is_so() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!(
            "{what} does not come: {}\n{}\n{}",
            self.ok(["dsource", "show", "shop"]),
            self.logs_of_jobs(),
            self.daemon_log()
        );
    }

    /// Runs a command again as long as the daemon is at work on the dataset by itself.
    pub(crate) fn patient(&self, words: &[&str]) -> Run {
        let mut run = self.run(words);
        self.wait("the end of a job", || {
            if run.status == 11 {
                run = self.run(words);
            }
            run.status != 11
        });
        run
    }

    /// Waits until the newest snapshot of `shop` holds a VDB of these rows; nobody asks for a snapshot.
    pub(crate) fn wait_for_rows(&self, rows: &[&str]) {
        self.wait(&format!("{rows:?}"), || self.staged() == rows);
        let redo = self.instance.restore_position("shop_staging").unwrap().redo_start.to_string();
        self.wait("the snapshot of it", || {
            self.snapshots("shop").last().is_some_and(|last| last["metadata"]["redo_start_lsn"] == redo)
        });
    }

    /// Rows that the staging database has, though nobody could read them.
    fn staged(&self) -> Vec<String> {
        self.rows("shop_staging")
    }

    fn fault(&self, code: &str) -> Option<Value> {
        let faults = self.json(["dsource", "show", "shop"])["faults"].clone();
        faults.as_array().unwrap().iter().find(|fault| fault["code"] == code).cloned()
    }
}

#[test]
fn a_folder_is_followed_from_link_to_vdb() {
    let stage = Stage::new();
    stage.production("prod", &["one"]);
    assert!(stage.instance.commit("prod", "two", None));
    stage.backup("prod", "diff");
    stage.commit_and_log("three", "a");
    let plan = stage.follow(&["--dry-run"]);
    assert_eq!(plan.status, 0, "{plan:?}");
    for word in ["1. full from", "2. differential from", "3. log from", "prod of sqlhost", "NORECOVERY"] {
        assert!(plan.stdout.contains(word), "{word}: {}", plan.stdout);
    }
    let run = stage.follow(&[]);
    assert_eq!(run.status, 0, "{run:?}\n{}", stage.daemon_log());
    assert_eq!(stage.instance.state_of("shop_staging"), Some(DatabaseState::Restoring));
    let first = stage.snapshots("shop");
    assert_eq!((first.len(), &first[0]["provisionable"]), (1, &true.into()), "{first:?}");
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    assert_eq!(stage.rows("qa"), ["one", "two", "three"]);
    // Nothing new is no snapshot.
    let run = stage.snap();
    assert_eq!(run.status, 3, "{run:?}");
    assert!(run.stdout.contains("is in a snapshot already"), "{run:?}");

    // What comes is restored and snapshotted by itself.
    stage.commit_and_log("four", "b");
    stage.wait_for_rows(&["one", "two", "three", "four"]);
    stage.ok(["vdb", "refresh", "qa"]);
    assert_eq!(stage.rows("qa"), ["one", "two", "three", "four"]);
    let shown = stage.json(["dsource", "show", "shop"]);
    assert!(shown.to_string().contains(&stage.folder()), "{shown}");

    // Disabled and enabled it goes on where it was.
    stage.ok(["dsource", "disable", "shop"]);
    assert_eq!(stage.instance.state_of("shop_staging"), None);
    stage.commit_and_log("five", "c");
    stage.ok(["dsource", "enable", "shop"]);
    stage.wait_for_rows(&["one", "two", "three", "four", "five"]);
    stage.ok(["vdb", "delete", "qa", "--yes"]);
    assert_eq!(stage.patient(&["dsource", "delete", "shop", "--yes"]).status, 0);
    assert_eq!(stage.instance.state_of("shop_staging"), None);
    assert_eq!(stage.json(["volume", "list"]), serde_json::json!([]));
}

#[test]
fn missing_log_is_named_and_its_coming_mends_it() {
    let stage = Stage::new();
    stage.production("prod", &["one"]);
    assert_eq!(stage.follow(&[]).status, 0);
    let missing = PathBuf::from(stage.folder()).join("prod-a-log.bak");
    let aside = stage.fixture.path("aside.trn");
    assert!(stage.instance.commit("prod", "two", None));
    stage.good(&format!("BACKUP LOG [prod] TO DISK = N'{}' WITH INIT", aside.display()));
    stage.commit_and_log("three", "b");
    stage.wait("the fault", || stage.fault("LOG_MISSING").is_some());
    let fault = stage.fault("LOG_MISSING").unwrap();
    let text = fault["message"].as_str().unwrap();
    let begins = stage.instance.restore_position("shop_staging").unwrap().redo_start.to_string();
    assert!(text.contains(&format!("log from LSN {begins} to ")), "{text}");
    assert!(text.contains("prod-b-log.bak"), "{text}");
    stage.snap().fails_with(13, &["cannot be brought up to its source", &begins, "new full"]);
    assert_eq!(stage.snapshots("shop").len(), 1);
    std::fs::rename(&aside, &missing).unwrap();
    stage.wait_for_rows(&["one", "two", "three"]);
    stage.wait("the end of the fault", || stage.fault("LOG_MISSING").is_none());
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    assert_eq!(stage.rows("qa"), stage.staged());
}

#[test]
fn a_newer_full_or_differential_leads_over_missing_log() {
    let stage = Stage::new();
    stage.production("prod", &["one"]);
    assert_eq!(stage.follow(&[]).status, 0);
    let outside = stage.fixture.path("outside.trn").display().to_string();
    let lose_log = |row: &str| {
        assert!(stage.instance.commit("prod", row, None));
        stage.good(&format!("BACKUP LOG [prod] TO DISK = N'{outside}' WITH INIT"));
    };
    lose_log("two");
    assert!(stage.instance.commit("prod", "three", None));
    stage.backup("prod", "diff");
    stage.commit_and_log("four", "a");
    stage.wait_for_rows(&["one", "two", "three", "four"]);
    let logs = stage.logs_of_jobs();
    assert!(logs.contains("restore differential prod-diff.bak"), "{logs}");
    assert_eq!(logs.matches("restore full ").count(), 1, "it goes onto the full of the link: {logs}");
    lose_log("five");
    stage.backup("prod", "second-full");
    stage.commit_and_log("six", "b");
    stage.wait_for_rows(&["one", "two", "three", "four", "five", "six"]);
    // A restore that the storage cut off takes no log any more (4320): it is begun anew.
    stage.instance.interrupt_restore("shop_staging");
    stage.commit_and_log("seven", "c");
    stage.wait_for_rows(&["one", "two", "three", "four", "five", "six", "seven"]);
    assert!(
        stage.logs_of_jobs().contains("its storage was interrupted")
            || stage.logs_of_jobs().contains("Msg 4320")
    );
    assert_eq!(
        stage.snapshots("shop").iter().filter(|found| found["provisionable"] == true).count(),
        stage.snapshots("shop").len()
    );
}

#[test]
fn stripes_appended_sets_copies_and_compressed_backups() {
    let stage = Stage::new();
    stage.production("prod", &["one"]);
    std::fs::remove_file(stage.fixture.path("mssql/backup/prod-full.bak")).unwrap();
    let folder = stage.folder();
    stage.good("CREATE DATABASE [other]");
    stage.backup("other", "full");
    stage.good(&format!(
        "BACKUP DATABASE [prod] TO DISK = N'{folder}/s1.bak', DISK = N'{folder}/s2.bak' WITH FORMAT"
    ));
    for row in ["two", "three"] {
        assert!(stage.instance.commit("prod", row, None));
        stage.good(&format!("BACKUP LOG [prod] TO DISK = N'{folder}/logs.trn'"));
    }
    assert!(stage.instance.commit("prod", "four", None));
    stage.good(&format!("BACKUP LOG [prod] TO DISK = N'{folder}/packed.trn' WITH COMPRESSION, INIT"));
    stage.good(&format!("BACKUP DATABASE [prod] TO DISK = N'{folder}/copy.bak' WITH COPY_ONLY, INIT"));
    stage.follow(&[]).fails_with(2, &["backups of several databases", "--source-database", "other, prod"]);
    stage.follow(&["--source-database", "none"]).fails_with(10, &["no backup of database none"]);
    let run = stage.follow(&["--source-database", "prod", "--staging-database", "staged"]);
    assert_eq!(run.status, 0, "{run:?}\n{}", stage.daemon_log());
    assert_eq!(stage.rows("staged"), ["one", "two", "three", "four"]);
    // One that is encrypted is asked for, too, and needs its certificate.
    stage.instance.encrypt_backups(Some("0xAB"));
    assert!(stage.instance.commit("prod", "five", None));
    stage.good(&format!("BACKUP LOG [prod] TO DISK = N'{folder}/secret.trn' WITH INIT"));
    stage.wait("a job that says what is missing", || {
        stage.logs_of_jobs().contains("this server has no certificate for backup")
    });
    stage.instance.add_certificate("0xAB");
    assert_eq!(stage.snap().status, 0);
    assert_eq!(stage.rows("staged"), ["one", "two", "three", "four", "five"]);
}

#[test]
fn a_link_to_a_folder_is_refused_for_what_it_cannot_restore() {
    let stage = Stage::new();
    let none = stage.fixture.path("nothing");
    std::fs::create_dir(&none).unwrap();
    stage
        .link_with("shop", &["--backup-path", none.to_str().unwrap()])
        .fails_with(10, &["there are no backups of SQL Server in"]);
    stage
        .link_with("shop", &["--backup-path", "/no/such/folder"])
        .fails_with(10, &["cannot read /no/such/folder"]);
    let folder = stage.folder();
    stage.good(&format!(
        "CREATE DATABASE [docs] ON PRIMARY (NAME = N'docs', FILENAME = N'{folder}/docs.mdf'), \
         FILEGROUP [fs] CONTAINS FILESTREAM (NAME = N'docs_fs', FILENAME = N'{folder}/docs_fs') \
         LOG ON (NAME = N'docs_log', FILENAME = N'{folder}/docs.ldf')"
    ));
    stage.backup("docs", "full");
    stage.follow(&[]).fails_with(13, &["file docs_fs of docs holds FILESTREAM"]);
    // Damage that only the server sees is told in its words, and nothing is left.
    let full = stage.production("prod", &["one"]);
    let mut bytes = std::fs::read(&full).unwrap();
    let rows = bytes.windows(9).rposition(|at| at == b"committed").unwrap();
    bytes[rows] ^= 1;
    std::fs::write(&full, bytes).unwrap();
    stage
        .follow(&["--source-database", "prod"])
        .fails_with(1, &["prod-full.bak is damaged", "Msg 3189", "copy it again"]);
    assert_eq!(stage.instance.state_of("shop_staging"), None);
    assert_eq!(stage.json(["volume", "list"]), serde_json::json!([]));
}

#[test]
fn a_link_is_cancelled_inside_its_restore_and_leaves_nothing() {
    let stage = Stage::new();
    stage.production("prod", &["one"]);
    stage.instance.set_pace(600, std::time::Duration::from_millis(100));
    let run = stage.follow(&["--no-wait"]);
    assert_eq!(run.status, 0, "{run:?}");
    stage.wait("the restore", || {
        stage.instance.state_of("shop_staging") == Some(DatabaseState::Restoring)
            && stage.json(["job", "list"])[0]["bytes_done"].as_u64().is_some_and(|bytes| bytes > 0)
    });
    let job = stage.json(["job", "list"])[0]["id"].to_string();
    stage.ok(["job", "cancel", job.trim_matches('"')]);
    stage.instance.set_pace(1, std::time::Duration::ZERO);
    stage.wait("the end of the job", || {
        stage.json(["job", "list"])[0]["status"].as_str().is_some_and(|status| status == "cancelled")
    });
    assert_eq!(stage.instance.state_of("shop_staging"), None);
    assert_eq!(stage.json(["volume", "list"]), serde_json::json!([]));
    assert_eq!(stage.follow(&[]).status, 0);
}

#[test]
fn a_daemon_that_is_killed_inside_a_restore_goes_on() {
    let stage = Stage::new();
    stage.production("prod", &["one"]);
    assert_eq!(stage.follow(&[]).status, 0);
    let outside = stage.fixture.path("outside.trn");
    assert!(stage.instance.commit("prod", "two", None));
    stage.good(&format!("BACKUP LOG [prod] TO DISK = N'{}' WITH INIT", outside.display()));
    stage.instance.set_pace(600, std::time::Duration::from_millis(100));
    std::fs::rename(&outside, PathBuf::from(stage.folder()).join("late.trn")).unwrap();
    stage.wait("the restore", || stage.logs_of_jobs().contains("restore log late.trn"));
    stage.fixture.kill();
    stage.instance.set_pace(1, std::time::Duration::ZERO);
    stage.start_daemon();
    stage.wait_for_rows(&["one", "two"]);
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    assert_eq!(stage.rows("qa"), ["one", "two"]);
}

#[test]
fn a_dsource_is_converted_both_ways_and_resynchronized() {
    let (stage, _) = Stage::restored();
    let folder = stage.folder();
    stage.commit_and_log("two", "a");
    stage.ok(["dsource", "configure", "shop", "--backup-path", &folder]);
    stage.wait_for_rows(&["one", "two"]);
    // Back again: nothing is restored by itself, and resync is no more.
    assert_eq!(stage.patient(&["dsource", "configure", "shop", "--staging-push"]).status, 0);
    let log = stage.commit_and_log("three", "b");
    stage.wait_idle();
    assert_eq!(stage.rows("shop_staging"), ["one", "two"]);
    stage.run(&["dsource", "resync", "shop"]).fails_with(13, &["staging push"]);
    stage.good(&format!("RESTORE LOG [shop_staging] FROM DISK = N'{log}' WITH NORECOVERY"));
    assert_eq!(stage.snap().status, 0);
    // Another database's backups are refused, unless it begins anew.
    stage.good("CREATE DATABASE [other]");
    assert!(stage.instance.commit("other", "else", None));
    stage.backup("other", "full");
    let other = ["--backup-path", &folder, "--source-database", "other"];
    stage
        .run(&[&["dsource", "configure", "shop"][..], &other].concat())
        .fails_with(13, &["of another database", "resync"]);
    // Detached, and attached to the folder.
    stage.ok(["dsource", "detach", "shop"]);
    stage.ok(["dsource", "attach", "shop", "--backup-path", &folder, "--source-database", "prod"]);
    stage.commit_and_log("four", "c");
    stage.wait_for_rows(&["one", "two", "three", "four"]);
    let before = stage.snapshots("shop").len();
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    stage.backup("prod", "newest-full");
    assert_eq!(stage.patient(&["dsource", "resync", "shop"]).status, 0);
    assert_eq!(stage.rows("shop_staging"), ["one", "two", "three", "four"]);
    stage.wait_idle();
    assert!(stage.snapshots("shop").len() > before, "the snapshots stay");
    stage.commit_and_log("five", "d");
    stage.wait_for_rows(&["one", "two", "three", "four", "five"]);
    stage.ok(["vdb", "refresh", "qa"]);
    assert_eq!(stage.rows("qa"), ["one", "two", "three", "four", "five"]);
}

#[test]
fn several_files_filegroups_and_folders() {
    let stage = Stage::new();
    let data = stage.fixture.path("mssql/data");
    for folder in ["a", "b"] {
        std::fs::create_dir(data.join(folder)).unwrap();
    }
    let data = data.display();
    stage.good(&format!(
        "CREATE DATABASE [prod] ON PRIMARY (NAME = N'p1', FILENAME = N'{data}/a/part.ndf'), \
         (NAME = N'p2', FILENAME = N'{data}/b/part.ndf'), \
         FILEGROUP [more] (NAME = N'p3', FILENAME = N'{data}/b/more.ndf') \
         LOG ON (NAME = N'l', FILENAME = N'{data}/prod.ldf')"
    ));
    assert!(stage.instance.commit("prod", "one", None));
    stage.backup("prod", "full");
    let run = stage.follow(&[]);
    assert_eq!(run.status, 0, "{run:?}\n{}", stage.daemon_log());
    let metadata = stage.snapshots("shop")[0]["metadata"].clone();
    let mut paths: Vec<&str> =
        metadata["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["DATA/db/3_part.ndf", "DATA/db/more.ndf", "DATA/db/part.ndf", "DATA/db/prod.ldf"]);
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    assert_eq!(stage.rows("qa"), ["one"]);
    stage.ok(["vdb", "snapshot", "qa"]);
    stage.ok(["vdb", "provision", "--name", "child", "--from", "qa"]);
    assert_eq!(stage.rows("child"), ["one"]);

    // A file that came since has its place, too, when the log that made it is restored.
    stage.good(&format!("ALTER DATABASE [prod] ADD FILE (NAME = N'p5', FILENAME = N'{data}/b/prod.ldf')"));
    stage.commit_and_log("two", "a");
    stage.wait_for_rows(&["one", "two"]);
    let metadata = stage.snapshots("shop").pop().unwrap()["metadata"].clone();
    assert!(metadata["files"].to_string().contains("DATA/db/5_prod.ldf"), "{metadata}");
    stage.ok(["vdb", "refresh", "qa", "--from", "shop"]);
    assert_eq!(stage.rows("qa"), ["one", "two"]);

    // By staging push into folders below DATA/db.
    let run = stage.link("push", "push_staging");
    assert_eq!(run.status, 3, "{run:?}");
    let folder = stage.volume("push").join("DATA/db");
    for below in ["x", "x/y"] {
        std::fs::create_dir(folder.join(below)).unwrap();
    }
    let (full, folder) = (format!("{}/prod-full.bak", stage.folder()), folder.display());
    stage.good(&format!(
        "RESTORE DATABASE [push_staging] FROM DISK = N'{full}' WITH NORECOVERY, REPLACE, \
         MOVE N'p1' TO N'{folder}/x/p1.mdf', MOVE N'p2' TO N'{folder}/x/y/p2.ndf', \
         MOVE N'p3' TO N'{folder}/p3.ndf', MOVE N'l' TO N'{folder}/x/l.ldf'"
    ));
    stage.ok(["dsource", "snapshot", "push"]);
    stage.ok(["vdb", "provision", "--name", "sub", "--from", "push"]);
    assert_eq!(stage.rows("sub"), ["one"]);
    stage.ok(["vdb", "stop", "sub"]);
    stage.ok(["vdb", "start", "sub"]);
    stage.ok(["dsource", "disable", "push"]);
    stage.ok(["dsource", "enable", "push"]);
    assert_eq!(stage.instance.state_of("push_staging"), Some(DatabaseState::Restoring));
}

#[test]
fn a_clone_that_is_not_taken_up_is_restored_from_its_backups() {
    let stage = Stage::new();
    let full = stage.production("prod", &["one"]);
    stage.commit_and_log("two", "a");
    assert_eq!(stage.follow(&[]).status, 0);
    stage.instance.fail_next_with("SET ONLINE", 5120);
    let run = stage.run(&["vdb", "provision", "--name", "qa", "--from", "shop"]);
    assert_eq!(run.status, 3, "{run:?}\n{}", stage.daemon_log());
    assert!(run.stdout.contains("restored from backups instead"), "{run:?}");
    assert_eq!(stage.rows("qa"), ["one", "two"]);
    assert_eq!(stage.instance.state_of("qa"), Some(DatabaseState::Online));
    // Where the backups are gone the error says so, and nothing is left.
    std::fs::remove_file(full).unwrap();
    stage.instance.fail_next_with("SET ONLINE", 5120);
    stage
        .run(&["vdb", "provision", "--name", "qb", "--from", "shop"])
        .fails_with(1, &["Msg 5120", "no longer in"]);
    assert_eq!(stage.instance.state_of("qb"), None);
}

impl Stage {
    /// Waits until no job runs or waits, and everything was looked at once more.
    pub(crate) fn wait_idle(&self) {
        for _ in 0..2 {
            std::thread::sleep(std::time::Duration::from_secs(3));
            while self
                .json(["job", "list"])
                .as_array()
                .unwrap()
                .iter()
                .any(|job| ["queued", "running"].contains(&job["status"].as_str().unwrap_or_default()))
            {
                std::thread::yield_now();
            }
        }
    }

    /// The logs of all jobs.
    pub(crate) fn logs_of_jobs(&self) -> String {
        let jobs = self.json(["job", "list"]);
        let ids = jobs.as_array().unwrap().iter().map(|job| job["id"].to_string());
        ids.map(|id| self.run(&["job", "log", id.trim_matches('"')]).stdout).collect()
    }
}
