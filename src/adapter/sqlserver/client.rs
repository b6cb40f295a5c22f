//! Connections to SQL Server: one at a time, driven by whoever asks, with a time limit for each statement.
//!
//! A statement that is given up leaves its connection out of step with the server, so it is closed; the server rolls back.
//! Errors carry the server's number and text, which the password is never part of. Knows no databases and no engine.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tiberius::{AuthMethod, Client, ColumnData, EncryptionLevel, SqlBrowser};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};

use super::super::Task;
use super::errors::{ErrorContext, explain};
use super::{Guid, Lsn};
use crate::base::{Error, ErrorKind, Result};

const CONNECT_TIME_MAX: Duration = Duration::from_secs(15);
/// What a statement may take that only looks.
pub(super) const LOOK_TIME_MAX: Duration = Duration::from_secs(60);
/// What a statement may take that creates, drops, opens or closes a database.
pub(super) const CHANGE_TIME_MAX: Duration = Duration::from_secs(600);
/// How often the job of a long statement is asked whether it goes on.
const POLL: Duration = Duration::from_millis(200);

/// Where an instance is, and as whom it is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Address {
    pub host: String,
    /// 1433 when neither this nor a name is given.
    #[serde(default)]
    pub port: Option<u16>,
    /// A named instance, whose port SQL Server Browser tells.
    #[serde(default)]
    pub instance: Option<String>,
    pub user: String,
    #[serde(default)]
    pub encryption: Encryption,
    /// The certificates of the authorities that vouch for it, in PEM.
    #[serde(default)]
    pub ca: Option<PathBuf>,
}

/// Whether connections are encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Encryption {
    /// The certificate must be of an authority that the host or the file knows.
    #[default]
    Verified,
    /// Any certificate is taken: nobody can listen, somebody can answer in its place.
    Unverified,
    /// Only the login is encrypted.
    LoginOnly,
}

impl Address {
    /// `host,port` or `host\instance`, as SQL Server's own tools take it.
    pub(super) fn connect_string(&self) -> String {
        match (&self.instance, self.port) {
            (Some(instance), None) => format!("{}\\{instance}", self.host),
            (_, port) => format!("{},{}", self.host, port.unwrap_or(1433)),
        }
    }

    fn config(&self, password: &str) -> tiberius::Config {
        let mut config = tiberius::Config::new();
        config.host(&self.host);
        if let Some(port) = self.port {
            config.port(port);
        }
        if let Some(instance) = &self.instance {
            config.instance_name(instance);
        }
        config.application_name("stillpoint");
        config.authentication(AuthMethod::sql_server(&self.user, password));
        config.encryption(match self.encryption {
            Encryption::Verified | Encryption::Unverified => EncryptionLevel::Required,
            Encryption::LoginOnly => EncryptionLevel::Off,
        });
        match (&self.ca, self.encryption) {
            (_, Encryption::Unverified | Encryption::LoginOnly) => config.trust_cert(),
            (Some(file), Encryption::Verified) => config.trust_cert_ca(file.display().to_string()),
            (None, Encryption::Verified) => {}
        }
        config
    }
}

/// An error of the server, or the end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    /// The server's number; absent when no server said it.
    pub number: Option<u32>,
    pub text: String,
    pub kind: ErrorKind,
    /// What the statement was about.
    pub about: Box<ErrorContext>,
}

impl From<Refusal> for Error {
    /// In the words of a DBA where the number is a known one, with the server's own text under them.
    fn from(refusal: Refusal) -> Self {
        let Some(number) = refusal.number else { return Self::new(refusal.kind, refusal.text) };
        let explained = explain(number, &refusal.text, &refusal.about);
        match explained.advice.is_empty() {
            false => explained.into(),
            true => Self::new(refusal.kind, format!("SQL Server says: Msg {number}: {}", refusal.text)),
        }
    }
}

pub(super) type Asked<T> = std::result::Result<T, Refusal>;

/// One connection.
pub(super) struct Sql {
    runtime: Runtime,
    /// Absent after a statement that was given up.
    client: Option<Client<Compat<TcpStream>>>,
    server: String,
    /// What the next statements are about, for the words of their errors.
    pub about: ErrorContext,
}

impl Sql {
    /// Connects and logs in.
    pub(super) fn connect(address: &Address, password: &str) -> Asked<Self> {
        let server = address.connect_string();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| lost(&server, &e.to_string()))?;
        let config = address.config(password);
        let by_name = address.instance.is_some() && address.port.is_none();
        let connecting = async {
            let tcp = match by_name {
                true => TcpStream::connect_named(&config).await?,
                false => TcpStream::connect(config.get_addr()).await?,
            };
            tcp.set_nodelay(true)?;
            Client::connect(config, tcp.compat_write()).await
        };
        let connected = runtime.block_on(async { tokio::time::timeout(CONNECT_TIME_MAX, connecting).await });
        match connected {
            Ok(Ok(client)) => {
                Ok(Self { runtime, client: Some(client), server, about: ErrorContext::default() })
            }
            Ok(Err(e)) => Err(refusal(&server, &e)),
            Err(_) => Err(lost(&server, &format!("no answer within {} s", CONNECT_TIME_MAX.as_secs()))),
        }
    }

    /// Runs a batch and returns the rows of its last result.
    pub(super) fn rows(&mut self, sql: &str) -> Asked<Vec<Row>> {
        self.run(sql, LOOK_TIME_MAX, &mut || Ok(()))
    }

    /// Runs a statement that changes a database.
    pub(super) fn change(&mut self, sql: &str) -> Asked<()> {
        self.run(sql, CHANGE_TIME_MAX, &mut || Ok(())).map(drop)
    }

    /// Runs a statement for as long as its job goes on.
    pub(super) fn long(&mut self, sql: &str, task: &dyn Task) -> Asked<Vec<Row>> {
        self.run(sql, Duration::MAX, &mut || task.check())
    }

    /// Runs a statement that must end soon.
    pub(super) fn within(&mut self, sql: &str, limit: Duration) -> Asked<Vec<Row>> {
        self.run(sql, limit, &mut || Ok(()))
    }

    /// Runs a statement for as long as `check` says so, which is asked now and then.
    pub(super) fn watched(&mut self, sql: &str, check: &mut dyn FnMut() -> Result<()>) -> Asked<Vec<Row>> {
        self.run(sql, Duration::MAX, check)
    }

    fn run(&mut self, sql: &str, limit: Duration, check: &mut dyn FnMut() -> Result<()>) -> Asked<Vec<Row>> {
        let Some(mut client) = self.client.take() else {
            return Err(lost(&self.server, "the connection was closed"));
        };
        let server = self.server.clone();
        let (rows, client) = self.runtime.block_on(async {
            let asking = async {
                let stream = client.simple_query(sql).await?;
                let results = stream.into_results().await?;
                Ok::<_, tiberius::error::Error>(results.into_iter().next_back().unwrap_or_default())
            };
            tokio::pin!(asking);
            let end = tokio::time::sleep(limit.min(Duration::from_secs(10 * 365 * 86_400)));
            tokio::pin!(end);
            loop {
                tokio::select! {
                    answer = &mut asking => break match answer {
                        Ok(rows) => (Ok(rows), true),
                        // After a server's error the connection goes on.
                        Err(e @ tiberius::error::Error::Server(_)) => (Err(refusal(&server, &e)), true),
                        Err(e) => (Err(refusal(&server, &e)), false),
                    },
                    () = &mut end => break (
                        Err(lost(&server, &format!("no answer to a statement within {} s", limit.as_secs()))),
                        false,
                    ),
                    () = tokio::time::sleep(POLL) => if let Err(e) = check() {
                        break (Err(Refusal { number: None, text: e.message().to_owned(), kind: e.kind(), about: Box::default() }), false);
                    },
                }
            }
        })
        .keep(client);
        self.client = client;
        let rows = rows.map(|rows: Vec<tiberius::Row>| rows.into_iter().map(Row::of).collect());
        rows.map_err(|refusal: Refusal| Refusal { about: Box::new(self.about.clone()), ..refusal })
    }
}

/// Puts a client beside an answer, unless its connection is out of step.
trait Keep<T> {
    fn keep<C>(self, client: C) -> (T, Option<C>);
}

impl<T> Keep<T> for (T, bool) {
    fn keep<C>(self, client: C) -> (T, Option<C>) {
        (self.0, self.1.then_some(client))
    }
}

fn lost(server: &str, why: &str) -> Refusal {
    let text = format!("SQL Server at {server}: {why}");
    Refusal { number: None, text, kind: ErrorKind::Io, about: Box::default() }
}

fn refusal(server: &str, error: &tiberius::error::Error) -> Refusal {
    match error {
        tiberius::error::Error::Server(token) => {
            let kind = match token.code() {
                18456 | 229 | 262 | 297 | 300 | 916 => ErrorKind::NotAllowed,
                _ => ErrorKind::Failed,
            };
            let text = token.message().to_owned();
            Refusal { number: Some(token.code()), text, kind, about: Box::default() }
        }
        other => lost(server, &other.to_string()),
    }
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    Number {
        digits: i128,
        scale: u8,
    },
    Guid(Guid),
    /// Milliseconds since 1970-01-01 on the server's own wall clock.
    Time(i64),
}

/// One row, by column name.
#[derive(Clone, Debug)]
pub(super) struct Row(Vec<(String, Cell)>);

impl Row {
    fn of(row: tiberius::Row) -> Self {
        let names: Vec<String> = row.columns().iter().map(|column| column.name().to_owned()).collect();
        Self(names.into_iter().zip(row.into_iter().map(|data| cell(&data))).collect())
    }

    fn cell(&self, name: &str) -> Result<&Cell> {
        let found = self.0.iter().find(|(column, _)| column == name);
        found.map(|(_, cell)| cell).ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, format!("SQL Server's answer has no column {name}"))
        })
    }

    fn other(name: &str, cell: &Cell) -> Error {
        Error::new(ErrorKind::Unsupported, format!("SQL Server's column {name} holds {cell:?}"))
    }

    /// A text; absent when it is NULL. Trailing spaces of fixed length are not part of it.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>> {
        match self.cell(name)? {
            Cell::Null => Ok(None),
            Cell::Text(text) => Ok(Some(text.trim_end().to_owned())),
            other => Err(Self::other(name, other)),
        }
    }

    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>> {
        match self.cell(name)? {
            Cell::Null => Ok(None),
            Cell::Integer(value) => Ok(Some(*value)),
            other => Err(Self::other(name, other)),
        }
    }

    /// A number that later versions have a column for; absent when this one has none.
    pub(super) fn optional_integer(&self, name: &str) -> Option<i64> {
        self.integer(name).ok().flatten()
    }

    /// A number of bytes: `bigint`, or `numeric` without a fraction.
    pub(super) fn whole(&self, name: &str) -> Result<Option<u64>> {
        match self.cell(name)? {
            Cell::Null => Ok(None),
            Cell::Integer(value) => Ok(u64::try_from(*value).ok()),
            Cell::Number { digits, scale: 0 } => Ok(u64::try_from(*digits).ok()),
            other => Err(Self::other(name, other)),
        }
    }

    pub(super) fn real(&self, name: &str) -> Result<Option<f64>> {
        match self.cell(name)? {
            Cell::Null => Ok(None),
            Cell::Real(value) => Ok(Some(*value)),
            other => Err(Self::other(name, other)),
        }
    }

    /// Whether a bit is set; NULL is not.
    pub(super) fn flag(&self, name: &str) -> Result<bool> {
        Ok(self.integer(name)? == Some(1))
    }

    /// A count of bytes, which the server keeps as a whole `numeric` or a `bigint`.
    pub(super) fn size(&self, name: &str) -> Result<Option<u64>> {
        match self.cell(name)? {
            Cell::Null => Ok(None),
            Cell::Integer(value) => Ok(u64::try_from(*value).ok()),
            Cell::Number { digits, scale: 0 } => Ok(u64::try_from(*digits).ok()),
            other => Err(Self::other(name, other)),
        }
    }

    pub(super) fn guid(&self, name: &str) -> Result<Option<Guid>> {
        match self.cell(name)? {
            Cell::Null => Ok(None),
            Cell::Guid(guid) => Ok(Some(*guid)),
            other => Err(Self::other(name, other)),
        }
    }

    pub(super) fn lsn(&self, name: &str) -> Result<Option<Lsn>> {
        match self.cell(name)? {
            Cell::Null => Ok(None),
            Cell::Number { digits, scale: 0 } => {
                let number = u128::try_from(*digits).map_err(|_| Self::other(name, &Cell::Null))?;
                Lsn::from_numeric(number).map(Some)
            }
            other => Err(Self::other(name, other)),
        }
    }

    /// Milliseconds since 1970-01-01 on the server's wall clock.
    pub(super) fn time(&self, name: &str) -> Result<Option<i64>> {
        match self.cell(name)? {
            Cell::Null => Ok(None),
            Cell::Time(time) => Ok(Some(*time)),
            other => Err(Self::other(name, other)),
        }
    }
}

/// Days between 1900-01-01, which `datetime` counts from, and 1970-01-01.
const EPOCH_DAYS: i64 = 25_567;

fn cell(data: &ColumnData<'_>) -> Cell {
    let or = |cell: Option<Cell>| cell.unwrap_or(Cell::Null);
    match data {
        ColumnData::U8(value) => or(value.map(|value| Cell::Integer(value.into()))),
        ColumnData::I16(value) => or(value.map(|value| Cell::Integer(value.into()))),
        ColumnData::I32(value) => or(value.map(|value| Cell::Integer(value.into()))),
        ColumnData::I64(value) => or(value.map(Cell::Integer)),
        ColumnData::Bit(value) => or(value.map(|value| Cell::Integer(value.into()))),
        ColumnData::F32(value) => or(value.map(|value| Cell::Real(value.into()))),
        ColumnData::F64(value) => or(value.map(Cell::Real)),
        ColumnData::String(value) => or(value.as_ref().map(|value| Cell::Text(value.to_string()))),
        ColumnData::Guid(value) => or(value.and_then(|value| value.to_string().parse().ok()).map(Cell::Guid)),
        ColumnData::Numeric(value) => {
            or(value.map(|value| Cell::Number { digits: value.value(), scale: value.scale() }))
        }
        ColumnData::DateTime(value) => or(value.map(|value| {
            // In three hundredths of a second.
            let millis = i64::from(value.seconds_fragments()) * 10 / 3;
            Cell::Time((i64::from(value.days()) - EPOCH_DAYS) * 86_400_000 + millis)
        })),
        other => Cell::Text(format!("{other:?}")),
    }
}
