//! The instance through its own interface: statements in, parts out.

mod backups;
mod catalog;
mod chains;
mod databases;
mod forks;
mod freeze;
mod fuzz;
mod restores;
mod sessions;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Config, Instance, ManualClock};
use crate::reply::{Login, Message, Parameter, Part, Server, Session, Value};

/// 2026-01-05T08:00:00Z.
const START: Duration = Duration::from_secs(1_767_600_000);

/// An instance with its folders and a session of `sa`.
pub(super) struct World {
    pub instance: Instance,
    pub clock: Arc<ManualClock>,
    pub folder: tempfile::TempDir,
    session: Box<dyn Session>,
}

/// What a batch answered.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub rows: Vec<Vec<Value>>,
    pub columns: Vec<crate::reply::Column>,
    pub messages: Vec<Message>,
    pub waits: usize,
    pub database: Option<String>,
}

impl Answer {
    /// Numbers of the errors, in order.
    pub(super) fn errors(&self) -> Vec<i32> {
        self.messages.iter().filter(|message| message.class > 10).map(|message| message.number).collect()
    }

    /// Numbers of the information, in order.
    pub(super) fn infos(&self) -> Vec<i32> {
        self.messages.iter().filter(|message| message.class <= 10).map(|message| message.number).collect()
    }

    /// The only value.
    pub(super) fn one(&self) -> Value {
        assert_eq!((self.rows.len(), self.errors()), (1, vec![]), "{self:?}");
        self.rows[0][0].clone()
    }

    pub(super) fn text(&self) -> String {
        match self.one() {
            Value::NVarChar(text) => text,
            other => panic!("{other:?}"),
        }
    }
}

pub(super) fn ask(session: &mut dyn Session, sql: &str, parameters: &[Parameter]) -> Answer {
    let mut answer = Answer::default();
    session.batch(sql, parameters, &mut |part| {
        match part {
            Part::Rows { columns, rows } => (answer.columns, answer.rows) = (columns, rows),
            Part::Message(message) => answer.messages.push(message),
            Part::Wait(_) => answer.waits += 1,
            Part::Database(name) => answer.database = Some(name),
            Part::Count(_) => {}
        }
        true
    });
    answer
}

pub(super) fn config(folder: &std::path::Path, clock: &Arc<ManualClock>) -> Config {
    let mut config = Config::new(folder, Arc::clone(clock) as Arc<dyn super::Clock>);
    config.model_pages = 64;
    config.durable = false;
    config
}

pub(super) fn login(instance: &Instance, user: &str, password: &str) -> Result<Box<dyn Session>, Message> {
    let login = Login { user: user.to_owned(), password: password.to_owned(), ..Login::default() };
    instance.login(&login)
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(START, Duration::from_millis(10)));
        let mut config = config(folder.path(), &clock);
        change(&mut config);
        let instance = Instance::new(config);
        let session = login(&instance, "sa", "sa").unwrap();
        Self { instance, clock, folder, session }
    }

    pub(super) fn ask(&mut self, sql: &str) -> Answer {
        ask(self.session.as_mut(), sql, &[])
    }

    /// Runs a batch that must be good.
    pub(super) fn run(&mut self, sql: &str) -> Answer {
        let answer = self.ask(sql);
        assert!(answer.errors().is_empty(), "{sql}: {:?}", answer.messages);
        answer
    }

    /// Runs a batch that must fail with these errors.
    pub(super) fn refuse(&mut self, sql: &str, errors: &[i32]) -> Answer {
        let answer = self.ask(sql);
        assert_eq!(answer.errors(), errors, "{sql}: {:?}", answer.messages);
        answer
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn file(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub(super) fn second(&self) -> Box<dyn Session> {
        login(&self.instance, "sa", "sa").unwrap()
    }

    /// A database with one transaction per name.
    pub(super) fn database(&mut self, name: &str, rows: &[&str]) {
        self.run(&format!("CREATE DATABASE [{name}]"));
        for row in rows {
            assert!(self.instance.commit(name, row, None));
        }
    }

    /// Names of the transactions of a database.
    pub(super) fn rows(&self, name: &str) -> Vec<String> {
        self.instance.transactions(name).into_iter().map(|row| row.name).collect()
    }
}
