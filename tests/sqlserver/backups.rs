//! Source databases backed up and restored in all forms, through the test server.

use std::path::PathBuf;

use serde_json::Value;
use stillpoint_tds_server::instance::DatabaseState;

use crate::common::Run;
use crate::stage::{PASSWORD, Stage};

impl Stage {
    /// Protects databases of the instance: all of it when none is named.
    pub(crate) fn protect(&self, name: &str, databases: &[&str]) -> Run {
        let named: Vec<&str> = databases.iter().flat_map(|database| ["--database", database]).collect();
        self.set("protect", name, &named)
    }

    /// Makes a set of the instance, or says it anew.
    pub(crate) fn set(&self, verb: &str, name: &str, more: &[&str]) -> Run {
        let port = self.server.as_ref().unwrap().port().to_string();
        let mut words = vec!["backup", verb, name, "--instance-port", &port, "--login", "stage"];
        words.extend(["--encryption", "unverified", "--user", "nobody"]);
        words.extend(more);
        self.run(&words)
    }

    /// An instance with the database `prod` that holds `one`, protected as `erp`.
    pub(crate) fn protected() -> Self {
        let stage = Self::new();
        stage.good("CREATE DATABASE [prod]");
        stage.commit("prod", "one");
        let run = stage.protect("erp", &["prod"]);
        assert_eq!(run.status, 0, "{run:?}\n{}", stage.daemon_log());
        stage
    }

    #[track_caller]
    pub(crate) fn commit(&self, database: &str, row: &str) {
        assert!(self.instance.commit(database, row, None), "{database} takes no writes");
    }

    /// Backs up, and returns the restore points there are then.
    #[track_caller]
    pub(crate) fn back_up(&self, name: &str, kind: &str) -> Vec<Value> {
        let mut words = vec!["backup", "run", name];
        let option = format!("--{kind}");
        if !kind.is_empty() {
            words.push(&option);
        }
        let run = self.run(&words);
        assert_eq!(run.status, 0, "{run:?}\n{}", self.daemon_log());
        self.points(name)
    }

    pub(crate) fn points(&self, name: &str) -> Vec<Value> {
        self.json(["backup", "list", name]).as_array().unwrap().clone()
    }

    #[track_caller]
    pub(crate) fn restore(&self, words: &[&str]) {
        let run = self.run(&[&["backup", "restore", "erp"], words].concat());
        assert_eq!(run.status, 0, "{run:?}\n{}", self.daemon_log());
    }

    /// The log of the newest job.
    pub(crate) fn last_log(&self) -> String {
        let jobs = self.json(["job", "list"]);
        let newest = jobs.as_array().unwrap().iter().filter_map(|job| job["id"].as_u64()).max().unwrap();
        self.run(&["job", "log", &newest.to_string()]).stdout
    }
}

pub(crate) fn id(point: &Value) -> String {
    point["id"].as_u64().unwrap().to_string()
}

/// Where a restore point's files are.
pub(crate) fn folder(stage: &Stage, point: &Value) -> PathBuf {
    let (volume, snapshot) = point["snapshot"].as_str().unwrap().split_once('@').unwrap();
    let folder = point["folder"].as_str().unwrap();
    stage.fixture.mount_path().join(volume).join(".snapshots").join(snapshot).join(folder)
}

#[test]
fn backups_are_made_in_their_order() {
    let stage = Stage::protected();
    // Asked for nothing: the first is a full, and says why.
    let points = stage.back_up("erp", "");
    assert_eq!((points.len(), &points[0]["kind"]), (1, &"full".into()), "{points:?}");
    assert_eq!(points[0]["conversions"][0]["code"], "no_full");
    let log = stage.last_log();
    let mut rest = log.as_str();
    for step in [
        "step: check the instance",
        "step: estimate",
        "step: filesets: 2",
        "step: full backup of prod",
        "step: read the backup of prod back",
        "step: write agent.json",
        "step: write document.json",
        "step: write writer.json",
        "step: write the sentinel",
    ] {
        let at = rest.find(step).unwrap_or_else(|| panic!("no {step} in order: {log}"));
        rest = &rest[at..];
    }
    let names = ["full.bak", "agent.json", "document.json", "writer.json", "sentinel.json"];
    let full_folder = folder(&stage, &points[0]);
    for name in names {
        assert!(full_folder.join(name).is_file(), "{name}");
    }
    assert!(!std::fs::read_to_string(full_folder.join("document.json")).unwrap().contains(PASSWORD));
}

/// A full, a differential and two logs of `prod`.
fn with_points() -> (Stage, Vec<Value>) {
    let stage = Stage::protected();
    stage.back_up("erp", "");
    stage.commit("prod", "two");
    let points = stage.back_up("erp", "");
    assert_eq!(points[1]["kind"], "differential");
    assert!(points[1]["conversions"].as_array().unwrap().is_empty());
    stage.commit("prod", "three");
    assert!(stage.instance.commit("prod", "four", Some(("release", "before the release"))));
    stage.commit("prod", "five");
    let points = stage.back_up("erp", "log");
    assert_eq!(points[2]["kind"], "log");
    stage.commit("prod", "six");
    let points = stage.back_up("erp", "log");
    (stage, points)
}

#[test]
fn a_database_is_restored_to_any_point() {
    let (stage, points) = with_points();
    // The plan first, then as a database, from each kind of point.
    let plan = stage.json(["backup", "restore", "erp", "--to-database", "copy", "--plan-only"]);
    let taken: Vec<Value> =
        vec![&points[0], &points[1], &points[2], &points[3]].into_iter().map(|p| p["id"].clone()).collect();
    assert_eq!(plan["restore_points"], Value::Array(taken), "{plan}");
    assert!(
        plan["steps"]
            .as_array()
            .unwrap()
            .iter()
            .any(|step| step.as_str().unwrap().contains("ends with all before LSN"))
    );
    assert_eq!(stage.instance.state_of("copy"), None, "only planned");
    stage.restore(&["--to-database", "copy"]);
    assert_eq!(stage.rows("copy"), ["one", "two", "three", "four", "five", "six"]);
    stage.restore(&["--to-database", "of_full", "--point", &id(&points[0])]);
    assert_eq!(stage.rows("of_full"), ["one"]);
    stage.restore(&["--to-database", "of_diff", "--point", &id(&points[1])]);
    assert_eq!(stage.rows("of_diff"), ["one", "two"]);

    // A mark with and without its transaction, a time, an LSN, and left in STANDBY.
    stage.restore(&["--to-database", "at_mark", "--mark", "release"]);
    assert_eq!(stage.rows("at_mark"), ["one", "two", "three", "four"]);
    stage.restore(&["--to-database", "before_mark", "--mark", "release", "--before"]);
    assert_eq!(stage.rows("before_mark"), ["one", "two", "three"]);
    let rows = stage.instance.transactions("prod");
    let nanos = rows[4].committed;
    let time = jiff::Timestamp::from_nanosecond(i128::from(nanos)).unwrap();
    let after_five = (time + jiff::SignedDuration::from_millis(5)).to_string();
    stage.restore(&["--to-database", "at_time", "--time", &after_five]);
    assert_eq!(stage.rows("at_time"), ["one", "two", "three", "four", "five"]);
    stage.restore(&["--to-database", "at_lsn", "--lsn", &rows[3].commit.to_string()]);
    assert_eq!(stage.rows("at_lsn"), ["one", "two", "three"]);
    stage.restore(&["--to-database", "waits", "--time", &after_five, "--standby"]);
    assert_eq!(stage.rows("waits"), ["one", "two", "three", "four", "five"]);
    assert_eq!(stage.instance.state_of("waits"), Some(DatabaseState::Online));
    assert!(!stage.instance.commit("waits", "no", None), "STANDBY takes no writes");

    // Over the old one only when asked, and not over another by accident.
    stage
        .run(&["backup", "restore", "erp", "--to-database", "copy"])
        .fails_with(11, &["has a database copy already"]);
    stage.commit("prod", "lost");
    stage.restore(&["--to-database", "prod", "--replace", "--yes", "--point", &id(&points[1])]);
    assert_eq!(stage.rows("prod"), ["one", "two"]);
}

#[test]
fn files_are_had_and_what_is_damaged_is_told() {
    let (stage, points) = with_points();
    let before = stage.rows("prod");
    // As files, from a full and from a differential through Rst_prod; the files are a whole database.
    for (name, point, rows) in [("f", &points[0], &["one"][..]), ("d", &points[1], &["one", "two"])] {
        let to = stage.fixture.path(&format!("mssql/{name}"));
        stage.restore(&["--files", to.to_str().unwrap(), "--point", &id(point)]);
        assert_eq!(stage.instance.state_of("Rst_prod"), None);
        let files = format!("{0}/prod_prod.mdf') , (FILENAME = N'{0}/prod_prod_log.ldf", to.display());
        stage.good(&format!("CREATE DATABASE [{name}] ON (FILENAME = N'{files}') FOR ATTACH"));
        assert_eq!(stage.rows(name), rows);
    }

    // Each kind is checked by the server; what is damaged is told.
    for point in &points {
        stage.ok(["backup", "verify", "erp", &id(point)]);
    }
    let shown = stage.json(["backup", "show", "erp", &id(&points[0])]);
    assert_eq!(shown["verdict"], "sound", "{shown}");
    stage.instance.fail_next_with("VERIFYONLY", 3189);
    stage.run(&["backup", "verify", "erp", &id(&points[0])]).fails_with(1, &["is damaged", "Msg 3189"]);
    assert_eq!(stage.json(["backup", "show", "erp", &id(&points[0])])["verdict"], "damaged");

    stage.ok(["backup", "unprotect", "erp", "--yes"]);
    assert_eq!(stage.json(["volume", "list"]), serde_json::json!([]));
    assert_eq!(stage.rows("prod"), before, "the source is left alone");
}

#[test]
fn what_cannot_be_backed_up_or_restored_says_why() {
    let stage = Stage::protected();
    stage.protect("none", &["nowhere"]).fails_with(10, &["has no database nowhere"]);
    stage.protect("temp", &["tempdb"]).fails_with(2, &["tempdb is never backed up"]);
    stage.protect("erp", &["prod"]).fails_with(11, &["there is a backup set erp already"]);
    stage.run(&["backup", "run", "erp", "--log"]).fails_with(13, &["no full backup", "no log backup yet"]);
    stage.run(&["backup", "restore", "erp", "--to-database", "x"]).fails_with(10, &["no restore point yet"]);
    // A login that lacks rights is told each, with the statement that gives it; with them it is enough.
    stage.instance.add_login("weak", PASSWORD, &[], &[]);
    let weak = |name: &str| {
        let port = stage.server.as_ref().unwrap().port().to_string();
        let words = ["backup", "protect", name, "--instance-port", &port, "--login", "weak"];
        stage.run(
            &[&words[..], &["--encryption", "unverified", "--user", "nobody", "--database", "prod"]].concat(),
        )
    };
    weak("w")
        .fails_with(12, &["weak lacks rights", "GRANT CREATE ANY DATABASE TO [weak]", "dbo.logmarkhistory"]);
    stage.good(
        "GRANT CREATE ANY DATABASE TO [weak]; GRANT VIEW SERVER STATE TO [weak]; USE msdb; \
         GRANT SELECT ON dbo.logmarkhistory TO [weak]",
    );
    weak("w").fails_with(12, &["USE [prod]; CREATE USER [weak]", "db_backupoperator"]);
    stage.good(
        "USE [prod]; CREATE USER [weak] FOR LOGIN [weak]; ALTER ROLE db_backupoperator ADD MEMBER [weak]",
    );
    let run = weak("w");
    assert_eq!(run.status, 0, "{run:?}");
    assert_eq!(stage.back_up("w", "").len(), 1);

    let points = stage.back_up("erp", "full");
    stage.good("CREATE DATABASE [plain]; ALTER DATABASE [plain] SET RECOVERY SIMPLE");
    let run = stage.protect("all", &[]);
    assert_eq!(run.status, 0, "{run:?}");
    stage
        .run(&["backup", "run", "all", "--log", "--database", "plain"])
        .fails_with(13, &["recovery model is simple"]);
    let every = stage.back_up("all", "full");
    let names: Vec<&str> = every.iter().map(|point| point["database"].as_str().unwrap()).collect();
    assert_eq!(names, ["master", "model", "msdb", "prod", "plain"], "tempdb never");

    // A time before all, a mark that is not there, an error of the server with its text under it.
    let at = ["backup", "restore", "erp", "--to-database", "x"];
    stage
        .run(&[&at[..], &["--time", "2020-01-01T00:00:00Z"]].concat())
        .fails_with(13, &["before the end of the first full"]);
    stage.run(&[&at[..], &["--mark", "nope"]].concat()).fails_with(13, &["there is no mark nope"]);
    stage.run(&[&at[..], &["--point", "99999"]].concat()).fails_with(10, &["99999"]);
    stage.instance.fail_next_with("BACKUP DATABASE", 3201);
    let run = stage.run(&["backup", "run", "erp", "--full"]);
    run.fails_with(1, &["cannot open backup", "Msg 3201"]);
    assert_eq!(stage.points("erp").len(), points.len(), "a failed backup leaves no point");
    stage.instance.fail_next_with("RESTORE DATABASE", 5120);
    stage.run(&at).fails_with(1, &["open or create a file", "Msg 5120"]);
    assert_eq!(stage.instance.state_of("x"), None, "nothing half restored is left");
}

#[test]
fn a_gap_is_named_and_the_way_ends_before_it() {
    let stage = Stage::protected();
    stage.back_up("erp", "full");
    stage.commit("prod", "two");
    stage.back_up("erp", "log");
    // Somebody else's log backup takes its part of the log away.
    stage.commit("prod", "three");
    stage.backup("prod", "log");
    stage.commit("prod", "four");
    let points = stage.back_up("erp", "log");
    let set = stage.json(["backup", "show", "erp"]);
    let gaps = set["databases"][0]["gaps"].as_array().unwrap().clone();
    assert!(gaps[0].as_str().unwrap().contains("is missing"), "{set}");
    let last = id(points.last().unwrap());
    stage
        .run(&["backup", "restore", "erp", "--to-database", "x", "--point", &last])
        .fails_with(13, &["no line of backups leads there", "is missing", "restore to "]);
    // The newest that is reached is not the newest there is, and the plan says so.
    let plan = stage.json(["backup", "restore", "erp", "--to-database", "x", "--plan-only"]);
    assert!(plan["steps"].to_string().contains("not reached: log from LSN"), "{plan}");
    stage.restore(&["--to-database", "x"]);
    assert_eq!(stage.rows("x"), ["one", "two"]);
    // A differential goes over it.
    stage.back_up("erp", "differential");
    let plan = stage.json(["backup", "restore", "erp", "--to-database", "y", "--plan-only"]);
    assert!(!plan["steps"].to_string().contains("not reached"), "{plan}");
    stage.restore(&["--to-database", "y"]);
    assert_eq!(stage.rows("y"), ["one", "two", "three", "four"]);

    // Who is in a database that is to be replaced is named, and stays.
    let mut session = stage.session();
    session.batch("USE [y]", &[], &mut |_| true);
    stage
        .run(&["backup", "restore", "erp", "--to-database", "y", "--replace", "--yes"])
        .fails_with(11, &["y is in use by session", "Msg 3101"]);
    drop(session);
    stage.restore(&["--to-database", "y", "--replace", "--yes"]);
}
