//! Values and bytes at random, with the seed printed on a failure: rows as tiberius reads them, parameters as it sends them,
//! and clients that send anything.

use std::hash::{BuildHasher, RandomState};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, RngSeed, TestRunner};
use stillpoint_tds_server::protocol::Encryption;
use stillpoint_tds_server::reply::{Column, ColumnType, Part, Value};
use tiberius::EncryptionLevel;
use tokio::runtime::Runtime;

use super::queries::{Client, assert_rows, bind, config, connect, wait_for_silence};
use super::raw::*;
use super::scripted::*;

/// So many cases; the seed is printed, and taken from `STILLPOINT_SEED` when that is set.
fn runner(test: &str, cases: u32) -> TestRunner {
    let seed = match std::env::var("STILLPOINT_SEED") {
        Ok(seed) => seed.parse().expect("STILLPOINT_SEED is a number"),
        Err(_) => RandomState::new().hash_one(test),
    };
    println!("{test}: STILLPOINT_SEED={seed}");
    TestRunner::new(Runs {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..Runs::default()
    })
}

fn kinds() -> impl Strategy<Value = ColumnType> {
    prop_oneof![
        Just(ColumnType::Bit),
        Just(ColumnType::TinyInt),
        Just(ColumnType::SmallInt),
        Just(ColumnType::Int),
        Just(ColumnType::BigInt),
        (1u8..=38).prop_flat_map(|precision| {
            // tiberius reads no scale over 37.
            (0..=precision.min(37)).prop_map(move |scale| ColumnType::Numeric { precision, scale })
        }),
        (1u16..=4000).prop_map(|length| ColumnType::NVarChar(Some(length))),
        Just(ColumnType::NVarChar(None)),
        (1u16..=8000).prop_map(|length| ColumnType::VarBinary(Some(length))),
        Just(ColumnType::VarBinary(None)),
        Just(ColumnType::Guid),
        Just(ColumnType::DateTime),
        Just(ColumnType::Real),
    ]
}

fn values(kind: ColumnType) -> BoxedStrategy<Value> {
    let value = match kind {
        ColumnType::Bit => any::<bool>().prop_map(Value::Bit).boxed(),
        ColumnType::TinyInt => any::<u8>().prop_map(Value::TinyInt).boxed(),
        ColumnType::SmallInt => any::<i16>().prop_map(Value::SmallInt).boxed(),
        ColumnType::Int => any::<i32>().prop_map(Value::Int).boxed(),
        ColumnType::BigInt => any::<i64>().prop_map(Value::BigInt).boxed(),
        ColumnType::Numeric { precision, scale } => {
            let end = 10i128.pow(u32::from(precision));
            let numeric = move |digits| Value::Numeric { digits, precision, scale };
            (1 - end..end).prop_map(numeric).boxed()
        }
        ColumnType::NVarChar(length) => {
            let longest = usize::from(length.unwrap_or(9000)).min(9000);
            let cut = move |text: String| {
                let mut units = 0;
                let fits = |c: &char| {
                    units += c.len_utf16();
                    units <= longest
                };
                Value::NVarChar(text.chars().take_while(fits).collect())
            };
            let repeated = (any::<char>(), 0..=longest).prop_map(|(c, count)| c.to_string().repeat(count));
            prop_oneof![any::<String>(), repeated].prop_map(cut).boxed()
        }
        ColumnType::VarBinary(length) => {
            let longest = usize::from(length.unwrap_or(9000)).min(9000);
            vec(any::<u8>(), 0..=longest).prop_map(Value::VarBinary).boxed()
        }
        ColumnType::Guid => any::<[u8; 16]>().prop_map(Value::Guid).boxed(),
        // From 1753 to 9999, in steps that the type can hold.
        ColumnType::DateTime => (-53_690i64..=2_958_463, 0i64..8_640_000, 0usize..3)
            .prop_map(|(days, hundredths, rest)| {
                Value::DateTime(days * 86_400_000 + hundredths * 10 + [0, 3, 7][rest])
            })
            .boxed(),
        ColumnType::Real => any::<f32>().prop_map(Value::Real).boxed(),
    };
    prop_oneof![1 => Just(Value::Null), 3 => value].boxed()
}

fn rows() -> impl Strategy<Value = Part> {
    vec(kinds(), 1..20).prop_flat_map(|kinds| {
        let row: Vec<_> = kinds.iter().map(|kind| values(*kind)).collect();
        let columns: Vec<Column> =
            kinds.iter().enumerate().map(|(at, kind)| column(&format!("c{at}"), *kind)).collect();
        vec(row, 1..8).prop_map(move |rows| Part::Rows { columns: columns.clone(), rows })
    })
}

#[test]
fn rows_of_any_values_are_read_as_they_were_sent() {
    let runtime = Runtime::new().unwrap();
    let (script, running) = start(Encryption::Offered);
    let sizes =
        [(EncryptionLevel::NotSupported, 512), (EncryptionLevel::On, 4096), (EncryptionLevel::Off, 32_767)];
    let mut clients: Vec<Client> = Vec::new();
    for (encryption, size) in sizes {
        let mut config = config(&running, encryption);
        config.packet_size(size);
        clients.push(runtime.block_on(connect(config)).unwrap());
    }
    let clients = parking_lot::Mutex::new(clients);
    let mut runner = runner("rows", 150);
    let ran = runner.run(&vec(rows(), 1..3), |parts| {
        script.answer("any", parts.clone());
        for client in clients.lock().iter_mut() {
            runtime
                .block_on(assert_rows(client, "any", &parts))
                .map_err(|error| TestCaseError::fail(error.to_string()))?;
        }
        Ok(())
    });
    ran.unwrap();
}

#[test]
fn parameters_of_any_values_come_as_they_were_sent() {
    let runtime = Runtime::new().unwrap();
    let (script, running) = start(Encryption::Offered);
    let client =
        tokio::sync::Mutex::new(runtime.block_on(connect(config(&running, EncryptionLevel::On))).unwrap());
    let mut runner = runner("parameters", 300);
    let ran = runner.run(&vec(kinds().prop_flat_map(values), 1..12), |sent| {
        let mut query = tiberius::Query::new(ECHO);
        sent.iter().for_each(|value| bind(&mut query, value));
        let answered =
            runtime.block_on(async { query.query(&mut *client.lock().await).await?.into_results().await });
        prop_assert!(answered.is_ok(), "{answered:?}");
        let (_, parameters) = script.batches().pop().unwrap();
        prop_assert_eq!(parameters.len(), sent.len());
        for (found, sent) in parameters.iter().zip(&sent) {
            match (&found.value, sent) {
                // tiberius knows no precision but that of the digits.
                (
                    Value::Numeric { digits, scale, .. },
                    Value::Numeric { digits: sent, scale: sent_scale, .. },
                ) => {
                    prop_assert_eq!((digits, scale), (sent, sent_scale));
                }
                (Value::Real(found), Value::Real(sent)) => prop_assert_eq!(found.to_bits(), sent.to_bits()),
                (found, sent) => prop_assert_eq!(found, sent),
            }
        }
        Ok(())
    });
    ran.unwrap();
}

/// What a client sends in a whole conversation, packet by packet.
fn conversation() -> Vec<Vec<u8>> {
    let sql = utf16("SELECT @a");
    let mut call = vec![0xFF, 0xFF, 10, 0, 0, 0, 0, 0, 0xE7, 18, 0, 9, 4, 0xD0, 0, 0x34, 18, 0];
    call.extend(sql);
    call.extend([0, 0, 0xE7, 0xFF, 0xFF, 9, 4, 0xD0, 0, 0x34, 12, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0, 0]);
    call.extend(utf16("@a int"));
    call.extend([0, 0, 0, 0, 2]);
    call.extend(utf16("@a"));
    call.extend([0, 0x6C, 9, 10, 2, 5, 1, 1, 2, 3, 4]);
    call.extend([0, 0, 0x6F, 8, 8, 1, 2, 3, 0, 5, 6, 7, 0]);
    call.extend([0, 0, 0x2A, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
    vec![
        prelogin(),
        login(USER, PASSWORD),
        batch("one"),
        packet(RPC, END, &with_headers(&call)),
        packet(TRANSACTION, END, &with_headers(&[5, 0, 2, 0])),
        packet(ATTENTION, END, &[]),
        batch("one"),
    ]
}

#[derive(Clone, Debug)]
enum Mutation {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    End(prop::sample::Index),
    Swap(prop::sample::Index, prop::sample::Index),
}

fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let index = any::<prop::sample::Index>;
    let interesting = prop_oneof![any::<u8>(), Just(0), Just(0xFF), Just(0x7F), Just(0xFE)];
    let mutation = prop_oneof![
        6 => (index(), interesting).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        1 => (index(), vec(any::<u8>(), 1..40)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        1 => (index(), 1usize..40).prop_map(|(at, count)| Mutation::Remove(at, count)),
        1 => index().prop_map(Mutation::End),
        1 => (index(), index()).prop_map(|(a, b)| Mutation::Swap(a, b)),
    ];
    vec(mutation, 0..5)
}

/// Mutates the payload of one packet and mends its length, or the whole conversation as it is.
fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    if bytes.is_empty() {
        return;
    }
    let length = bytes.len();
    match mutation {
        Mutation::Set(at, byte) => bytes[at.index(length)] = *byte,
        Mutation::Insert(at, inserted) => {
            let at = at.index(length);
            bytes.splice(at..at, inserted.iter().copied());
        }
        Mutation::Remove(at, count) => {
            let at = at.index(length);
            bytes.drain(at..(at + count).min(length));
        }
        Mutation::End(at) => bytes.truncate(at.index(length)),
        Mutation::Swap(a, b) => bytes.swap(a.index(length), b.index(length)),
    }
}

#[test]
fn a_client_that_sends_anything_does_no_harm() {
    let (script, running) = start(Encryption::Offered);
    script.answer("one", vec![Part::Count(1)]);
    let mut runner = runner("bytes", 3000);
    let strategy = (any::<prop::sample::Index>(), any::<bool>(), mutations());
    let ran = runner.run(&strategy, |(which, mends, mutations)| {
        let mut packets = conversation();
        let mut sent = if mends {
            let count = packets.len();
            let chosen = &mut packets[which.index(count)];
            let (kind, mut payload) = (chosen[0], chosen.split_off(8));
            mutations.iter().for_each(|mutation| mutate(&mut payload, mutation));
            // A LOGIN7 says its own length too.
            if kind == 0x10 && payload.len() >= 4 {
                let length = payload.len() as u32;
                payload[..4].copy_from_slice(&length.to_le_bytes());
            }
            *chosen = packet(kind, END, &payload);
            packets.concat()
        } else {
            packets.concat()
        };
        if !mends {
            mutations.iter().for_each(|mutation| mutate(&mut sent, mutation));
        }
        let mut raw = Raw::open(&running);
        // The server may end the connection before it has read all.
        let _ = std::io::Write::write_all(&mut raw.0, &sent);
        let _ = raw.0.shutdown(std::net::Shutdown::Write);
        raw.read_to_end();
        let log = running.faults().log();
        let harmed = |text: &str| text.contains("panicked") || text.contains("not served to its end");
        prop_assert!(!log.iter().any(|entry| harmed(&entry.text)), "{log:?}");
        Ok(())
    });
    ran.unwrap();
    assert_eq!(Raw::log_in(&running).ask(&batch("one")), [Token::Done(0xFD, 0x10, 1)]);
    wait_for_silence(&running);
}
