//! Asking a server in SQL. Every statement has a time limit; answers are text, as the server prints them.

use std::path::Path;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::config::SourceAddress;
use super::tls;
use crate::base::{Error, ErrorKind, Result};

const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// What a statement may take that only looks or switches something.
pub(super) const STATEMENT_TIME_MAX: Duration = Duration::from_secs(60);

/// One connection. It drives itself while a statement runs.
pub(super) struct Sql {
    runtime: Runtime,
    client: Client,
    server: String,
}

/// The rows of an answer.
pub(super) type Rows = Vec<Vec<Option<String>>>;

impl Sql {
    /// Connects over a socket folder of ours, where the host's user is who it is.
    pub(super) fn over_socket(folder: &Path, port: u16, user: &str, database: &str) -> Result<Self> {
        let mut config = Config::new();
        config.host_path(folder).port(port).user(user).dbname(database);
        Self::connect(&config, format!("the server at port {port}"))
    }

    /// Connects over the network.
    pub(super) fn over_network(
        address: &SourceAddress,
        password: Option<&str>,
        database: &str,
    ) -> Result<Self> {
        let mut config = Config::new();
        config.host(&address.host).port(address.port).user(&address.user).dbname(database);
        config.ssl_mode(address.tls.ssl_mode());
        if let Some(password) = password {
            config.password(password);
        }
        let tls = MakeRustlsConnect::new(tls::client_config(address)?);
        Self::connect_with(&config, format!("{}:{}", address.host, address.port), tls)
    }

    fn connect(config: &Config, server: String) -> Result<Self> {
        Self::connect_with(config, server, NoTls)
    }

    fn connect_with<T>(config: &Config, server: String, tls: T) -> Result<Self>
    where
        T: MakeTlsConnect<Socket, Stream: Send + 'static>,
    {
        let mut config = config.clone();
        config.connect_timeout(CONNECT_TIME_MAX).application_name("stillpoint");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Error::io("start", "a runtime", e))?;
        let connected = runtime.block_on(async {
            match tokio::time::timeout(CONNECT_TIME_MAX, config.connect(tls)).await {
                Ok(result) => result.map_err(|e| failed(&server, &e)),
                Err(_) => Err(Error::new(
                    ErrorKind::Io,
                    format!("{server} did not answer within {} s", CONNECT_TIME_MAX.as_secs()),
                )),
            }
        });
        let (client, connection) = connected?;
        // Its end is seen by the next statement.
        runtime.spawn(async move {
            let _ = connection.await;
        });
        Ok(Self { runtime, client, server })
    }

    /// Runs statements and returns the rows of all.
    pub(super) fn rows(&self, sql: &str) -> Result<Rows> {
        self.rows_within(sql, STATEMENT_TIME_MAX)
    }

    pub(super) fn rows_within(&self, sql: &str, limit: Duration) -> Result<Rows> {
        let answer =
            self.runtime.block_on(async { tokio::time::timeout(limit, self.client.simple_query(sql)).await });
        let messages = match answer {
            Ok(result) => result.map_err(|e| failed(&self.server, &e))?,
            Err(_) => {
                let seconds = limit.as_secs();
                return Err(Error::new(
                    ErrorKind::Io,
                    format!("{} did not answer {sql:?} within {seconds} s", self.server),
                ));
            }
        };
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }

    /// The first column of the first row.
    pub(super) fn value(&self, sql: &str) -> Result<Option<String>> {
        Ok(self.rows(sql)?.into_iter().next().and_then(|row| row.into_iter().next()).flatten())
    }

    /// As `value`, when there must be one.
    pub(super) fn text(&self, sql: &str) -> Result<String> {
        self.value(sql)?
            .ok_or_else(|| Error::new(ErrorKind::Io, format!("{} answered nothing to {sql:?}", self.server)))
    }
}

/// A literal for a statement.
pub(super) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A name for a statement.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// An error of the server or of the way to it. The server's own words, with the SQLSTATE.
fn failed(server: &str, error: &tokio_postgres::Error) -> Error {
    use tokio_postgres::error::SqlState;
    let Some(told) = error.as_db_error() else {
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        return Error::new(ErrorKind::Io, format!("{server}: {error}{cause}"));
    };
    let kind = match *told.code() {
        SqlState::INVALID_PASSWORD
        | SqlState::INVALID_AUTHORIZATION_SPECIFICATION
        | SqlState::INSUFFICIENT_PRIVILEGE => ErrorKind::NotAllowed,
        SqlState::CANNOT_CONNECT_NOW => ErrorKind::Precondition,
        _ => ErrorKind::Io,
    };
    let hint = told.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
    Error::new(kind, format!("{server}: {}{hint} [{}]", told.message(), told.code().code()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_quoted() {
        assert_eq!(quote("it's"), "'it''s'");
    }
}
