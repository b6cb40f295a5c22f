//! tiberius, which the product uses: logins, every type, parameters, errors, several results, cancels.

use std::borrow::Cow;
use std::time::Duration;

use stillpoint_tds_server::protocol::{
    Browser, BrowserEntry, Encryption, PACKET_BYTES_MAX, PACKET_BYTES_MIN, Running,
};
use stillpoint_tds_server::reply::{Column, ColumnType, Message, Parameter, Part, Value};
use tiberius::error::Error;
use tiberius::{AuthMethod, ColumnData, Config, EncryptionLevel, IntoSql, Query, SqlBrowser, Uuid};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};

use super::scripted::*;

pub(crate) type Client = tiberius::Client<Compat<TcpStream>>;

pub(crate) fn config(running: &Running, encryption: EncryptionLevel) -> Config {
    let mut config = Config::new();
    config.host("127.0.0.1");
    config.port(running.port());
    config.authentication(AuthMethod::sql_server(USER, PASSWORD));
    config.encryption(encryption);
    config.trust_cert_ca_bundle(running.certificate());
    config
}

pub(crate) async fn connect(config: Config) -> Result<Client, Error> {
    let tcp = TcpStream::connect(config.get_addr()).await?;
    tcp.set_nodelay(true)?;
    tiberius::Client::connect(config, tcp.compat_write()).await
}

/// What tiberius read, as the value that was sent.
pub(crate) fn read(column: &Column, cell: &ColumnData<'_>) -> Value {
    let value = match (cell, column.kind) {
        (ColumnData::Bit(value), ColumnType::Bit) => value.map(Value::Bit),
        (ColumnData::U8(value), ColumnType::TinyInt) => value.map(Value::TinyInt),
        (ColumnData::I16(value), ColumnType::SmallInt) => value.map(Value::SmallInt),
        (ColumnData::I32(value), ColumnType::Int) => value.map(Value::Int),
        (ColumnData::I64(value), ColumnType::BigInt) => value.map(Value::BigInt),
        (ColumnData::F32(value), ColumnType::Real) => value.map(Value::Real),
        (ColumnData::Numeric(value), ColumnType::Numeric { precision, .. }) => {
            value.map(|value| Value::Numeric { digits: value.value(), precision, scale: value.scale() })
        }
        (ColumnData::String(value), ColumnType::NVarChar(_)) => {
            value.as_ref().map(|value| Value::NVarChar(value.clone().into_owned()))
        }
        (ColumnData::Binary(value), ColumnType::VarBinary(_)) => {
            value.as_ref().map(|value| Value::VarBinary(value.clone().into_owned()))
        }
        (ColumnData::Guid(value), ColumnType::Guid) => value.map(|value| Value::Guid(value.into_bytes())),
        (ColumnData::DateTime(value), ColumnType::DateTime) => value.map(|value| {
            let milliseconds = (f64::from(value.seconds_fragments()) / 0.3).round() as i64;
            Value::DateTime(i64::from(value.days()) * 86_400_000 + milliseconds)
        }),
        (cell, kind) => panic!("{cell:?} in a column of {kind:?}"),
    };
    value.unwrap_or(Value::Null)
}

/// A `datetime` parameter, for which tiberius has no other type.
struct Moment(tiberius::time::DateTime);

impl<'a> IntoSql<'a> for Moment {
    fn into_sql(self) -> ColumnData<'a> {
        ColumnData::DateTime(Some(self.0))
    }
}

/// Adds a value as a parameter of its type.
pub(crate) fn bind(query: &mut Query<'_>, value: &Value) {
    match value.clone() {
        Value::Null => query.bind(Option::<i32>::None),
        Value::Bit(value) => query.bind(value),
        Value::TinyInt(value) => query.bind(value),
        Value::SmallInt(value) => query.bind(value),
        Value::Int(value) => query.bind(value),
        Value::BigInt(value) => query.bind(value),
        Value::Real(value) => query.bind(value),
        Value::NVarChar(value) => query.bind(value),
        Value::VarBinary(value) => query.bind(value),
        Value::Guid(value) => query.bind(Uuid::from_bytes(value)),
        Value::Numeric { digits, scale, .. } => {
            query.bind(tiberius::numeric::Numeric::new_with_scale(digits, scale));
        }
        Value::DateTime(milliseconds) => {
            let days = milliseconds.div_euclid(86_400_000);
            let ticks = (milliseconds.rem_euclid(86_400_000) * 3 + 5) / 10;
            query.bind(Moment(tiberius::time::DateTime::new(days as i32, ticks as u32)));
        }
    }
}

/// Runs a statement and compares all result sets with what the script holds of them.
pub(crate) async fn assert_rows(client: &mut Client, sql: &str, parts: &[Part]) -> Result<(), Error> {
    let results = client.simple_query(sql).await?.into_results().await?;
    let sets = parts.iter().filter_map(|part| match part {
        Part::Rows { columns, rows } if !rows.is_empty() => Some((columns, rows)),
        _ => None,
    });
    let sets: Vec<_> = sets.collect();
    let results: Vec<_> = results.into_iter().filter(|rows| !rows.is_empty()).collect();
    assert_eq!(results.len(), sets.len(), "{sql}");
    for (found, (columns, expected)) in results.iter().zip(sets) {
        assert_eq!(found.len(), expected.len(), "{sql}");
        for (found, expected) in found.iter().zip(expected) {
            let names: Vec<&str> = found.columns().iter().map(tiberius::Column::name).collect();
            assert_eq!(names, columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>());
            let cells = found.cells().zip(columns).map(|((_, cell), column)| read(column, cell));
            assert_eq!(&cells.collect::<Vec<_>>(), expected);
        }
    }
    Ok(())
}

/// Waits until no connection is left; fails after ten seconds.
pub(crate) fn wait_for_silence(running: &Running) {
    for _ in 0..1000 {
        if running.connections() == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{} connections are left", running.connections());
}

fn server_error<T>(result: Result<T, Error>) -> tiberius::error::TokenError {
    match result {
        Err(Error::Server(error)) => error,
        Err(other) => panic!("not an error of the server: {other:?}"),
        Ok(_) => panic!("no error"),
    }
}

#[tokio::test]
async fn every_type_comes_with_and_without_tls() {
    for server in [Encryption::Offered, Encryption::Required, Encryption::NotSupported] {
        let (script, running) = start(server);
        let parts = vec![all_types(), Part::Count(3), all_types(), single("one", Value::Int(1))];
        script.answer("SELECT all", parts.clone());
        for client in [
            EncryptionLevel::NotSupported,
            EncryptionLevel::Off,
            EncryptionLevel::On,
            EncryptionLevel::Required,
            EncryptionLevel::Strict,
        ] {
            let connected = connect(config(&running, client)).await;
            let refused = match server {
                // With `Off` tiberius takes this answer for a promise of TLS.
                Encryption::NotSupported => client != EncryptionLevel::NotSupported,
                Encryption::Required => client == EncryptionLevel::NotSupported,
                Encryption::Offered => false,
            };
            if refused {
                assert!(connected.is_err(), "{server:?} {client:?}");
                continue;
            }
            let mut client = connected.unwrap_or_else(|error| panic!("{server:?} {client:?}: {error}"));
            assert_rows(&mut client, "SELECT all", &parts).await.unwrap();
            client.close().await.unwrap();
        }
        wait_for_silence(&running);
    }
}

#[tokio::test]
async fn packets_have_the_size_that_was_agreed_upon() {
    let (script, running) = start(Encryption::Offered);
    script.answer("SELECT all", vec![all_types()]);
    for size in [0, 1, PACKET_BYTES_MIN as u32, 4097, PACKET_BYTES_MAX as u32, u32::MAX] {
        for encryption in [EncryptionLevel::NotSupported, EncryptionLevel::On] {
            let mut config = config(&running, encryption);
            config.packet_size(size);
            // tiberius refuses an answer of the server that is out of bounds itself.
            let mut client = connect(config).await.unwrap();
            assert_rows(&mut client, "SELECT all", &[all_types()]).await.unwrap();
        }
    }
    // A request of many packets.
    let long = format!("SELECT '{}'", "x".repeat(100_000));
    script.answer(&long, vec![single("a", Value::Int(7))]);
    let mut config = config(&running, EncryptionLevel::On);
    config.packet_size(512);
    let mut client = connect(config).await.unwrap();
    assert_rows(&mut client, &long, &[single("a", Value::Int(7))]).await.unwrap();
}

#[tokio::test]
async fn parameters_come_as_they_were_sent() {
    let (script, running) = start(Encryption::Offered);
    let mut client = connect(config(&running, EncryptionLevel::On)).await.unwrap();
    let guid = *b"0123456789abcdef";
    let values = [
        Value::Bit(true),
        Value::TinyInt(255),
        Value::SmallInt(i16::MIN),
        Value::Int(i32::MIN),
        Value::BigInt(i64::MAX),
        Value::Real(-0.25),
        Value::NVarChar("C:\\ä€𝄞".to_owned()),
        Value::NVarChar("y".repeat(70_000)),
        Value::NVarChar(String::new()),
        Value::VarBinary((0..=255).collect()),
        Value::VarBinary(vec![7; 70_000]),
        Value::Guid(guid),
        Value::Numeric { digits: -34_000_000_020_000_037, precision: 25, scale: 3 },
        Value::Numeric { digits: 10i128.pow(37), precision: 38, scale: 0 },
        Value::DateTime(4_004_271_912_347),
        Value::Null,
    ];
    let mut query = Query::new(ECHO);
    values.iter().for_each(|value| bind(&mut query, value));
    let rows = query.query(&mut client).await.unwrap().into_first_result().await.unwrap();
    let (sql, parameters) = script.batches().pop().unwrap();
    assert_eq!(sql, ECHO);
    for (place, (Parameter { name, value }, expected)) in parameters.iter().zip(&values).enumerate() {
        assert_eq!(*name, format!("@P{}", place + 1));
        match (value, expected) {
            (
                Value::Numeric { digits, scale, .. },
                Value::Numeric { digits: expected, scale: expected_scale, .. },
            ) => {
                assert_eq!((digits, scale), (expected, expected_scale));
            }
            _ => assert_eq!(value, expected),
        }
    }
    assert_eq!(parameters.len(), values.len());
    let names: Vec<_> = rows[0].columns().iter().map(tiberius::Column::name).collect();
    assert_eq!(names[..2], ["@P1", "@P2"]);
    assert_eq!(rows[0].get::<&str, _>("@P7"), Some("C:\\ä€𝄞"));
}

#[tokio::test]
async fn errors_have_their_number_class_state_and_text() {
    let (script, running) = start(Encryption::Offered);
    let text =
        "The log in this backup set begins at LSN 37000000024000001, which is too recent. € ".repeat(20);
    let info = Part::Message(Message {
        number: 3211,
        class: 0,
        state: 1,
        text: "5 percent processed.".into(),
        line: 1,
    });
    let failed = Part::Message(Message { number: 4305, class: 16, state: 2, text: text.clone(), line: 42 });
    let parts = vec![info.clone(), failed, error(3013, 16, 1, "RESTORE LOG is terminating abnormally.")];
    script.answer("RESTORE LOG", parts);
    let mut client = connect(config(&running, EncryptionLevel::On)).await.unwrap();
    for by_call in [false, true] {
        let result = if by_call {
            client.query("RESTORE LOG", &[&1i32]).await.map(drop)
        } else {
            match client.simple_query("RESTORE LOG").await {
                Ok(stream) => stream.into_results().await.map(drop),
                Err(error) => Err(error),
            }
        };
        let found = server_error(result);
        assert_eq!((found.code(), found.class(), found.state(), found.line()), (4305, 16, 2, 42));
        assert_eq!((found.message(), found.server(), found.procedure()), (text.as_str(), "STILLPOINT", ""));
        // The connection goes on.
        script.answer("info", vec![info.clone(), single("a", Value::Int(3)), info.clone()]);
        assert_rows(&mut client, "info", &[single("a", Value::Int(3))]).await.unwrap();
    }
    // An error after rows: they come first.
    script.answer("late", vec![single("a", Value::Int(3)), error(50001, 16, 9, "late")]);
    let mut stream = client.simple_query("late").await.unwrap();
    let mut rows = 0;
    let late = loop {
        match futures_util::TryStreamExt::try_next(&mut stream).await {
            Ok(Some(item)) => rows += usize::from(item.as_row().is_some()),
            Ok(None) => panic!("no error"),
            Err(error) => break server_error::<()>(Err(error)),
        }
    };
    assert_eq!((rows, late.code(), late.state()), (1, 50001, 9));
}

#[tokio::test]
async fn counts_and_databases_are_told() {
    let (script, running) = start(Encryption::Offered);
    script.answer("USE msdb", vec![Part::Database("msdb".into()), Part::Count(2), Part::Count(40)]);
    script.answer("nothing", vec![]);
    let mut config = config(&running, EncryptionLevel::Off);
    config.database("sales");
    config.application_name("stillpoint");
    let mut client = connect(config).await.unwrap();
    let counts = client.execute("USE msdb", &[]).await.unwrap();
    assert_eq!(counts.rows_affected(), [2, 40]);
    assert_eq!(client.execute("nothing", &[]).await.unwrap().total(), 0);
    client.simple_query("nothing").await.unwrap().into_results().await.unwrap();
    let Seen::Login(login) = script.seen().remove(0) else { panic!("{:?}", script.seen()) };
    assert_eq!((login.user.as_str(), login.password.as_str()), (USER, PASSWORD));
    assert_eq!((login.database.as_str(), login.application.as_str()), ("sales", "stillpoint"));
}

#[tokio::test]
async fn a_wrong_password_is_error_18456() {
    let (_, running) = start(Encryption::Offered);
    let mut config = config(&running, EncryptionLevel::On);
    config.authentication(AuthMethod::sql_server(USER, "wrong"));
    let error = server_error(connect(config).await);
    assert_eq!((error.code(), error.class(), error.state()), (18456, 14, 1));
    assert_eq!(error.message(), "Login failed for user 'sa'.");
    wait_for_silence(&running);
    assert!(running.faults().log()[0].text.contains("18456"), "{:?}", running.faults().log());
}

#[tokio::test]
async fn a_cancelled_batch_ends_and_the_connection_goes_on() {
    let (script, running) = start(Encryption::Offered);
    let minute = Part::Wait(Duration::from_secs(60));
    script.answer("wait", vec![minute.clone(), Part::Count(1)]);
    script.answer("rows", vec![all_types(), minute, Part::Count(1)]);
    // More than the sockets hold: the client cancels in the middle of the rows.
    let Part::Rows { columns, rows } = all_types() else { unreachable!() };
    script.answer("many", vec![Part::Rows { columns, rows: vec![rows; 1000].concat() }, Part::Count(1)]);
    script.answer("next", vec![single("a", Value::Int(5))]);
    for encryption in [EncryptionLevel::NotSupported, EncryptionLevel::On] {
        let mut client = connect(config(&running, encryption)).await.unwrap();
        for sql in ["wait", "rows", "many"] {
            let started = tokio::time::timeout(Duration::from_millis(200), client.simple_query(sql)).await;
            drop(started);
            tokio::time::timeout(Duration::from_secs(10), client.cancel_query()).await.unwrap().unwrap();
            assert_rows(&mut client, "next", &[single("a", Value::Int(5))]).await.unwrap();
            if sql != "many" {
                script.wait_for(&Seen::Stopped(sql.to_owned()));
            }
        }
    }
    assert_eq!(running.faults().log(), []);
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_batch() {
    let (script, mut running) = start(Encryption::Offered);
    script.answer("wait", vec![Part::Wait(Duration::from_secs(60))]);
    let mut client = connect(config(&running, EncryptionLevel::On)).await.unwrap();
    drop(tokio::time::timeout(Duration::from_millis(200), client.simple_query("wait")).await);
    drop(client);
    script.wait_for(&Seen::Stopped("wait".to_owned()));
    script.wait_for(&Seen::Dropped);
    wait_for_silence(&running);
    assert!(running.faults().log()[0].text.contains("while its request ran"), "{:?}", running.faults().log());

    // So does the end of the server.
    let mut client = connect(config(&running, EncryptionLevel::On)).await.unwrap();
    drop(tokio::time::timeout(Duration::from_millis(200), client.simple_query("wait")).await);
    running.stop();
    let ends = script.seen().iter().filter(|seen| **seen == Seen::Stopped("wait".to_owned())).count();
    assert_eq!(ends, 2);
    assert_eq!(script.seen().last(), Some(&Seen::Dropped));
    assert!(TcpStream::connect(("127.0.0.1", running.port())).await.is_err());
}

#[tokio::test]
async fn transactions_are_told() {
    let (script, running) = start(Encryption::Offered);
    script.answer("next", vec![single("a", Value::Int(5))]);
    let mut client = connect(config(&running, EncryptionLevel::On)).await.unwrap();
    client.begin_transaction().await.unwrap();
    assert_rows(&mut client, "next", &[single("a", Value::Int(5))]).await.unwrap();
    client.commit_transaction().await.unwrap();
    client.begin_transaction().await.unwrap();
    client.save_transaction(Cow::Borrowed("here")).await.unwrap();
    client.rollback_transaction().await.unwrap();
    assert_eq!(server_error(client.rollback_transaction().await).code(), 3903);
    assert_eq!(server_error(client.commit_transaction().await).code(), 3902);
}

#[tokio::test]
async fn an_instance_is_found_by_its_name() {
    let (script, running) = start(Encryption::Offered);
    script.answer("next", vec![single("a", Value::Int(5))]);
    let entry = |instance: &str, port| BrowserEntry {
        server: "STILLPOINT".into(),
        instance: instance.into(),
        version: "16.0.4135.4".into(),
        port,
    };
    let browser = Browser::start(vec![entry("OTHER", 1), entry("SQL2022", running.port())]).unwrap();
    let mut config = config(&running, EncryptionLevel::On);
    config.port(browser.port());
    config.instance_name("sql2022");
    let tcp = TcpStream::connect_named(&config).await.unwrap();
    let mut client = tiberius::Client::connect(config.clone(), tcp.compat_write()).await.unwrap();
    assert_rows(&mut client, "next", &[single("a", Value::Int(5))]).await.unwrap();
    config.instance_name("none");
    assert!(TcpStream::connect_named(&config).await.is_err());

    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut answer = [0; 2000];
    for request in [&[][..], &[9], &[0xFF; 200], &[4], b"\x04sql", &[3]] {
        socket.send_to(request, ("127.0.0.1", browser.port())).unwrap();
    }
    let length = socket.recv(&mut answer).unwrap();
    let text = String::from_utf8_lossy(&answer[3..length]).into_owned();
    let port = running.port();
    assert_eq!(
        text,
        format!(
            "ServerName;STILLPOINT;InstanceName;OTHER;IsClustered;No;Version;16.0.4135.4;tcp;1;;\
             ServerName;STILLPOINT;InstanceName;SQL2022;IsClustered;No;Version;16.0.4135.4;tcp;{port};;"
        )
    );
    assert_eq!((answer[0], usize::from(u16::from_le_bytes([answer[1], answer[2]]))), (5, length - 3));
}
