//! An instance with a production database and its backups, and a daemon beside it. Both end with the test.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use stillpoint_tds_server::instance::{Clock, Config, Instance, ManualClock};
use stillpoint_tds_server::protocol::{Options, Running};
use stillpoint_tds_server::reply::{Login, Part, Server, Session};

use crate::common::{Fixture, Run};

pub(crate) const PASSWORD: &str = "kept-s3cret-kept";
/// 2026-01-05T08:00:00Z.
const START: Duration = Duration::from_secs(1_767_600_000);

pub(crate) struct Stage {
    pub(crate) instance: Instance,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) server: Option<Running>,
    pub(crate) fixture: Fixture,
}

impl Stage {
    /// An instance of SQL Server 2022, and a running daemon.
    pub(crate) fn new() -> Self {
        let clock = Arc::new(ManualClock::new(START, Duration::from_millis(10)));
        Self::with(Arc::<ManualClock>::clone(&clock), clock)
    }

    /// The same with a clock of the test's choice; the stage's own moves nothing.
    pub(crate) fn with_clock(time: Arc<dyn Clock>) -> Self {
        Self::with(time, Arc::new(ManualClock::new(START, Duration::from_millis(10))))
    }

    fn with(time: Arc<dyn Clock>, clock: Arc<ManualClock>) -> Self {
        let fixture = Fixture::new();
        let mut config = Config::new(&fixture.path("mssql"), time);
        config.model_pages = 64;
        let instance = Instance::new(config);
        instance.add_login("stage", PASSWORD, &[], &["sysadmin"]);
        let server = Running::start(Arc::new(instance.clone()), Options::default()).unwrap();
        let stage = Self { instance, clock, server: Some(server), fixture };
        stage.start_daemon();
        stage
    }

    /// The same with the database `prod` that holds `one`, and `shop` linked by the staging database `shop_staging`; the full
    /// backup of `prod` beside it. The first snapshot is of an empty database, which is a warning.
    pub(crate) fn linked() -> (Self, String) {
        let stage = Self::new();
        let full = stage.production("prod", &["one"]);
        let run = stage.link("shop", "shop_staging");
        assert_eq!(run.status, 3, "{run:?}\n{}", stage.daemon_log());
        (stage, full)
    }

    /// The same with that backup restored and snapshotted.
    pub(crate) fn restored() -> (Self, String) {
        let (stage, full) = Self::linked();
        stage.restore_full("shop", "shop_staging", "prod", &full);
        stage.ok(["dsource", "snapshot", "shop"]);
        (stage, full)
    }

    pub(crate) fn start_daemon(&self) {
        let mount = self.fixture.mount_path();
        let run = self.run(&["daemon", "--background", "--mount", mount.to_str().unwrap()]);
        assert_eq!(run.status, 0, "{run:?}\n{}", self.daemon_log());
    }

    /// Ends the daemon in order, and waits for its end.
    pub(crate) fn stop_daemon(&self) {
        self.fixture.end();
    }

    pub(crate) fn daemon_log(&self) -> String {
        std::fs::read_to_string(self.fixture.store_path().join("daemon.log")).unwrap_or_default()
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        let mut command = self.fixture.command(arguments);
        command.env("STILLPOINT_STATE", self.fixture.path("state"));
        Run::of(command.env("STILLPOINT_SOURCE_PASSWORD", PASSWORD))
    }

    #[track_caller]
    pub(crate) fn ok<const N: usize>(&self, arguments: [&str; N]) -> String {
        let run = self.run(&arguments);
        assert_eq!(run.status, 0, "{run:?}\n{}", self.daemon_log());
        run.stdout
    }

    #[track_caller]
    pub(crate) fn json<const N: usize>(&self, arguments: [&str; N]) -> Value {
        Run::of(self.fixture.command(arguments).args(["-o", "json"])).json()
    }

    /// Links a staging database that is kept in sync by restores.
    pub(crate) fn link(&self, name: &str, database: &str) -> Run {
        self.link_with(name, &["--staging-push", "--staging-database", database])
    }

    /// Links with these words besides those that every link here has.
    pub(crate) fn link_with(&self, name: &str, words: &[&str]) -> Run {
        let port = self.server.as_ref().unwrap().port().to_string();
        let link = ["dsource", "link", "sqlserver", "--name", name];
        let instance =
            ["--instance-port", &port, "--login", "stage", "--encryption", "unverified", "--user", "nobody"];
        self.run(&[&link[..], words, &instance[..]].concat())
    }

    /// Runs a batch as an administrator would, and returns the numbers of its errors.
    pub(crate) fn sql(&self, batch: &str) -> Vec<i32> {
        let mut session = self.session();
        let mut errors = Vec::new();
        session.batch(batch, &[], &mut |part| {
            if let Part::Message(message) = part
                && message.class > 10
            {
                errors.push(message.number);
            }
            true
        });
        errors
    }

    pub(crate) fn session(&self) -> Box<dyn Session> {
        let login = Login { user: "sa".into(), password: "sa".into(), ..Login::default() };
        self.instance.login(&login).unwrap()
    }

    #[track_caller]
    pub(crate) fn good(&self, batch: &str) {
        assert_eq!(self.sql(batch), Vec::<i32>::new(), "{batch}");
    }

    /// A database of production with these transactions, and a full backup of it at the path returned.
    pub(crate) fn production(&self, name: &str, rows: &[&str]) -> String {
        self.good(&format!("CREATE DATABASE [{name}]"));
        for row in rows {
            assert!(self.instance.commit(name, row, None));
        }
        self.backup(name, "full")
    }

    /// A backup of this kind: `full`, `diff`, `log`, or a name with that at its end.
    pub(crate) fn backup(&self, name: &str, kind: &str) -> String {
        let path = self.fixture.path(&format!("mssql/backup/{name}-{kind}.bak")).display().to_string();
        self.good(&match kind {
            kind if kind.ends_with("log") => format!("BACKUP LOG [{name}] TO DISK = N'{path}' WITH INIT"),
            kind if kind.ends_with("diff") => {
                format!("BACKUP DATABASE [{name}] TO DISK = N'{path}' WITH DIFFERENTIAL, INIT")
            }
            _ => format!("BACKUP DATABASE [{name}] TO DISK = N'{path}' WITH INIT"),
        });
        path
    }

    /// The volume of a dataset, which is its mount base.
    pub(crate) fn volume(&self, dataset: &str) -> PathBuf {
        let shown = self.json(["vdb", "show", dataset]);
        self.fixture.mount_path().join(shown["volume"].as_str().unwrap())
    }

    /// Restores a full backup of `source` into a staging database, as the seed's sample does.
    pub(crate) fn restore_full(&self, dataset: &str, database: &str, source: &str, path: &str) {
        let folder = self.volume(dataset).join("DATA/db");
        let folder = folder.display();
        self.good(&format!(
            "RESTORE DATABASE [{database}] FROM DISK = N'{path}' WITH NORECOVERY, REPLACE, \
             MOVE N'{source}' TO N'{folder}/{database}.mdf', MOVE N'{source}_log' TO N'{folder}/{database}_log.ldf'"
        ));
    }

    /// Names of the transactions that a database has.
    pub(crate) fn rows(&self, database: &str) -> Vec<String> {
        self.instance.transactions(database).into_iter().map(|row| row.name).collect()
    }

    pub(crate) fn snapshots(&self, dataset: &str) -> Vec<Value> {
        self.json(["timeflow", "list", dataset]).as_array().unwrap().clone()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // It lets go of the files on the mount.
        self.instance.stop();
        if let Some(mut server) = self.server.take() {
            server.stop();
        }
        if self.fixture.mounting_process().is_some() {
            self.stop_daemon();
        }
    }
}
