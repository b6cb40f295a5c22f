//! A `Server` whose answers are written down beforehand: a statement's text gives parts. It records what it was asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stillpoint_tds_server::protocol::{Encryption, Options, Running};
use stillpoint_tds_server::reply::{
    Column, ColumnType, Login, Message, Parameter, Part, Server, Session, Value,
};

pub(crate) const USER: &str = "sa";
pub(crate) const PASSWORD: &str = "pässword;{1}";

/// A statement that gives its parameters back as one row, each in a column of its type.
pub(crate) const ECHO: &str = "SELECT the parameters";

/// A statement at which the session panics, as one with a mistake in it does.
pub(crate) const PANIC: &str = "PANIC";

/// What a session was asked, and how it ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Seen {
    Login(Login),
    Batch(String, Vec<Parameter>),
    /// The sink said that the client took the batch back or is gone.
    Stopped(String),
    Dropped,
}

#[derive(Default)]
pub(crate) struct Script {
    answers: Mutex<HashMap<String, Vec<Part>>>,
    seen: Mutex<Vec<Seen>>,
}

impl Script {
    pub(crate) fn answer(&self, sql: &str, parts: Vec<Part>) {
        self.answers.lock().insert(sql.to_owned(), parts);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    pub(crate) fn batches(&self) -> Vec<(String, Vec<Parameter>)> {
        let seen = self.seen.lock();
        let batches = seen.iter().filter_map(|seen| match seen {
            Seen::Batch(sql, parameters) => Some((sql.clone(), parameters.clone())),
            _ => None,
        });
        batches.collect()
    }

    /// Waits until something was seen; fails after ten seconds.
    pub(crate) fn wait_for(&self, wanted: &Seen) {
        for _ in 0..1000 {
            if self.seen.lock().contains(wanted) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("not seen: {wanted:?}, but {:?}", self.seen());
    }
}

struct Behind(Arc<Script>);

struct ScriptedSession {
    script: Arc<Script>,
    database: String,
}

impl Server for Behind {
    fn login(&self, login: &Login) -> Result<Box<dyn Session>, Message> {
        self.0.seen.lock().push(Seen::Login(login.clone()));
        if login.user != USER || login.password != PASSWORD {
            let text = format!("Login failed for user '{}'.", login.user);
            return Err(Message { number: 18456, class: 14, state: 1, text, line: 1 });
        }
        let database = if login.database.is_empty() { "master" } else { &login.database }.to_owned();
        Ok(Box::new(ScriptedSession { script: Arc::clone(&self.0), database }))
    }
}

impl Session for ScriptedSession {
    fn batch(&mut self, sql: &str, parameters: &[Parameter], sink: &mut dyn FnMut(Part) -> bool) {
        self.script.seen.lock().push(Seen::Batch(sql.to_owned(), parameters.to_vec()));
        assert_ne!(sql, PANIC);
        let parts = if sql.starts_with(ECHO) {
            Some(echo(parameters))
        } else {
            self.script.answers.lock().get(sql).cloned()
        };
        let parts =
            parts.unwrap_or_else(|| vec![error(50000, 16, 7, &format!("The statement is not known: {sql}"))]);
        for part in parts {
            if let Part::Database(database) = &part {
                self.database.clone_from(database);
            }
            if !sink(part) {
                self.script.seen.lock().push(Seen::Stopped(sql.to_owned()));
                return;
            }
        }
    }

    fn version(&self) -> (u8, u8, u16) {
        (16, 0, 4135)
    }

    fn database(&self) -> String {
        self.database.clone()
    }
}

impl Drop for ScriptedSession {
    fn drop(&mut self) {
        self.script.seen.lock().push(Seen::Dropped);
    }
}

fn echo(parameters: &[Parameter]) -> Vec<Part> {
    let columns = parameters
        .iter()
        .map(|parameter| Column { name: parameter.name.clone(), kind: kind_of(&parameter.value) })
        .collect();
    vec![Part::Rows { columns, rows: vec![parameters.iter().map(|given| given.value.clone()).collect()] }]
}

/// The type of a column that holds this value.
pub(crate) fn kind_of(value: &Value) -> ColumnType {
    match value {
        Value::Null => ColumnType::NVarChar(Some(1)),
        Value::Bit(_) => ColumnType::Bit,
        Value::TinyInt(_) => ColumnType::TinyInt,
        Value::SmallInt(_) => ColumnType::SmallInt,
        Value::Int(_) => ColumnType::Int,
        Value::BigInt(_) => ColumnType::BigInt,
        Value::Numeric { precision, scale, .. } => {
            ColumnType::Numeric { precision: *precision, scale: *scale }
        }
        Value::NVarChar(_) => ColumnType::NVarChar(None),
        Value::VarBinary(_) => ColumnType::VarBinary(None),
        Value::Guid(_) => ColumnType::Guid,
        Value::DateTime(_) => ColumnType::DateTime,
        Value::Real(_) => ColumnType::Real,
    }
}

pub(crate) fn column(name: &str, kind: ColumnType) -> Column {
    Column { name: name.to_owned(), kind }
}

pub(crate) fn error(number: i32, class: u8, state: u8, text: &str) -> Part {
    Part::Message(Message { number, class, state, text: text.to_owned(), line: 1 })
}

/// A result set of one column and one row.
pub(crate) fn single(name: &str, value: Value) -> Part {
    Part::Rows { columns: vec![column(name, kind_of(&value))], rows: vec![vec![value]] }
}

pub(crate) fn start(encryption: Encryption) -> (Arc<Script>, Running) {
    let script = Arc::new(Script::default());
    let options = Options { encryption, ..Options::default() };
    let running = Running::start(Arc::new(Behind(Arc::clone(&script))), options).unwrap();
    (script, running)
}

/// One row with a value of each type, and one of nulls.
pub(crate) fn all_types() -> Part {
    let columns = vec![
        column("bit", ColumnType::Bit),
        column("tiny", ColumnType::TinyInt),
        column("small", ColumnType::SmallInt),
        column("int", ColumnType::Int),
        column("big", ColumnType::BigInt),
        column("lsn", ColumnType::Numeric { precision: 25, scale: 0 }),
        column("money", ColumnType::Numeric { precision: 10, scale: 2 }),
        column("name", ColumnType::NVarChar(Some(128))),
        column("text", ColumnType::NVarChar(None)),
        column("bytes", ColumnType::VarBinary(Some(16))),
        column("blob", ColumnType::VarBinary(None)),
        column("guid", ColumnType::Guid),
        column("date", ColumnType::DateTime),
        column("real", ColumnType::Real),
    ];
    let values = vec![
        Value::Bit(true),
        Value::TinyInt(200),
        Value::SmallInt(-12_345),
        Value::Int(-2_000_000_000),
        Value::BigInt(i64::MIN),
        Value::Numeric { digits: 34_000_000_020_000_037, precision: 25, scale: 0 },
        Value::Numeric { digits: -1_234_567_890, precision: 10, scale: 2 },
        Value::NVarChar("datafile ä € 𝄞".to_owned()),
        Value::NVarChar("long ".repeat(2000)),
        Value::VarBinary(vec![0, 1, 0xFF]),
        Value::VarBinary((0..9000).map(|at| at as u8).collect()),
        Value::Guid([
            0x6F, 0x96, 0x19, 0xFF, 0x8B, 0x86, 0xD0, 0x11, 0xB4, 0x2D, 0x00, 0xC0, 0x4F, 0xC9, 0x64, 0xFF,
        ]),
        // 2026-11-21 17:45:12.347
        Value::DateTime(4_004_271_912_347),
        Value::Real(12.5),
    ];
    let nulls = vec![Value::Null; values.len()];
    Part::Rows { columns, rows: vec![values, nulls] }
}
