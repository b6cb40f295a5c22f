//! Requests at the level of packets: procedures, prepared statements, attentions, resets, transactions, odd framing.

use std::time::Duration;

use stillpoint_tds_server::protocol::{CONNECTIONS_MAX, Encryption, MESSAGE_BYTES_MAX};
use stillpoint_tds_server::reply::{Parameter, Part, Value};

use super::queries::wait_for_silence;
use super::raw::*;
use super::scripted::*;

const DONE: u8 = 0xFD;
const DONE_PROCEDURE: u8 = 0xFE;
const DONE_IN_PROCEDURE: u8 = 0xFF;
const MORE: u16 = 1;
const ERROR: u16 = 2;
const COUNT: u16 = 16;

fn nvarchar(name: &str, text: &str) -> Vec<u8> {
    let (name, text) = (utf16(name), utf16(text));
    let length = (text.len() as u16).to_le_bytes();
    let mut bytes = vec![(name.len() / 2) as u8];
    bytes.extend(name);
    bytes.extend([0, 0xE7, 0x40, 0x1F, 9, 4, 0xD0, 0, 0x34]);
    bytes.extend(length);
    bytes.extend(text);
    bytes
}

fn int(flags: u8, value: Option<i32>) -> Vec<u8> {
    let mut bytes = vec![0, flags, 0x26, 4];
    match value {
        None => bytes.push(0),
        Some(value) => {
            bytes.push(4);
            bytes.extend(value.to_le_bytes());
        }
    }
    bytes
}

fn call_id(id: u16, arguments: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0xFF, 0xFF];
    bytes.extend(id.to_le_bytes());
    bytes.extend([0, 0]);
    bytes.extend(arguments.concat());
    bytes
}

fn call_name(name: &str, arguments: &[Vec<u8>]) -> Vec<u8> {
    let name = utf16(name);
    let mut bytes = ((name.len() / 2) as u16).to_le_bytes().to_vec();
    bytes.extend(name);
    bytes.extend([0, 0]);
    bytes.extend(arguments.concat());
    bytes
}

fn rpc(calls: &[Vec<u8>]) -> Vec<u8> {
    packet(RPC, END, &with_headers(&calls.join(&0xFF)))
}

#[test]
fn statements_are_prepared_run_and_forgotten() {
    let (script, running) = start(Encryption::Offered);
    script.answer("UPDATE @a @b", vec![Part::Count(4)]);
    let mut raw = Raw::log_in(&running);
    let declared = nvarchar("", "@a int, @b decimal(10, 2)");
    let sql = nvarchar("", "UPDATE @a @b");
    let arguments = |value| [int(0, Some(value)), int(0, None)];
    let ran = |value| {
        let a = Parameter { name: "@a".into(), value: Value::Int(value) };
        ("UPDATE @a @b".to_owned(), vec![a, Parameter { name: "@b".into(), value: Value::Null }])
    };
    let done = Token::Done(DONE_IN_PROCEDURE, MORE | COUNT, 4);
    let end = Token::Done(DONE_PROCEDURE, 0, 0);

    // sp_prepexec, sp_prepare, sp_execute, sp_unprepare.
    let mut given = vec![int(1, None), declared.clone(), sql.clone()];
    given.extend(arguments(1));
    let returned = |handle| Token::Returned(String::new(), handle);
    assert_eq!(
        raw.ask(&rpc(&[call_id(13, &given)])),
        [done.clone(), Token::Status(0), returned(1), end.clone()]
    );
    let prepare = [int(1, None), declared.clone(), sql.clone(), int(0, Some(1))];
    assert_eq!(
        raw.ask(&rpc(&[call_name("sp_prepare", &prepare)])),
        [Token::Status(0), returned(2), end.clone()]
    );
    for handle in [1, 2] {
        let mut given = vec![int(0, Some(handle))];
        given.extend(arguments(handle * 10));
        assert_eq!(raw.ask(&rpc(&[call_id(12, &given)])), [done.clone(), Token::Status(0), end.clone()]);
    }
    assert_eq!(raw.ask(&rpc(&[call_id(15, &[int(0, Some(1))])])), [Token::Status(0), end.clone()]);
    let missing = Token::Message(8179, 1, 16, "Could not find prepared statement with handle 1.".into());
    let failed = [
        missing,
        Token::Done(DONE_IN_PROCEDURE, MORE | ERROR, 0),
        Token::Status(8179),
        Token::Done(DONE_PROCEDURE, ERROR, 0),
    ];
    assert_eq!(raw.ask(&rpc(&[call_id(12, &[int(0, Some(1))])])), failed);

    // sp_executesql, by name and by number, twice in one message.
    let given = [vec![sql.clone(), declared.clone()], arguments(5).to_vec()].concat();
    let both = rpc(&[call_id(10, &given), call_name("sys.sp_executesql", &given)]);
    let first_end = Token::Done(DONE_PROCEDURE, MORE, 0);
    let expected = [done.clone(), Token::Status(0), first_end, done, Token::Status(0), end];
    assert_eq!(raw.ask(&both), expected);
    assert_eq!(script.batches(), [ran(1), ran(10), ran(20), ran(5), ran(5)]);
}

#[test]
fn calls_that_are_not_known_are_refused_by_number() {
    let (script, running) = start(Encryption::Offered);
    let mut raw = Raw::log_in(&running);
    let sql = nvarchar("", "SELECT @a");
    let declared = nvarchar("", "@a int");
    let time = vec![0, 0, 0x29, 7, 5, 0, 0, 0, 0, 0];
    let mut with_time = vec![sql.clone(), declared.clone()];
    with_time.push(time);
    for (call, number, text) in [
        (call_id(2, &[]), 2812, "Could not find stored procedure 'sp_cursoropen'."),
        (call_id(99, &[]), 2812, "Could not find stored procedure '#99'."),
        (call_name("dbo.unknown", &[]), 2812, "Could not find stored procedure 'dbo.unknown'."),
        (call_id(10, &with_time), 8009, "Data type 0x29 is unknown."),
        (call_id(10, &[]), 201, "expects parameter '@stmt'"),
        (call_id(10, &[int(0, Some(1))]), 214, "Procedure expects parameter '@stmt' of type"),
        (
            call_id(10, &[sql.clone(), declared.clone()]),
            8178,
            "expects the parameter '@a', which was not supplied.",
        ),
        (
            call_id(10, &[sql.clone(), nvarchar("", ""), int(0, None)]),
            8144,
            "has too many arguments specified.",
        ),
        (
            call_id(10, &[sql.clone(), declared.clone(), int(1, None)]),
            8162,
            "\"@a\" was not declared as an OUTPUT",
        ),
        (call_id(12, &[nvarchar("", "x")]), 214, "'@handle' of type 'int'"),
    ] {
        let tokens = raw.ask(&rpc(&[call]));
        let Some(Token::Message(found, _, 16, found_text)) = tokens.first() else { panic!("{tokens:?}") };
        assert_eq!(*found, number);
        assert!(found_text.contains(text), "{found_text}");
        assert_eq!(tokens.last(), Some(&Token::Done(DONE_PROCEDURE, ERROR, 0)));
    }
    assert_eq!(script.batches(), []);
}

#[test]
fn an_attention_is_acknowledged_whenever_it_comes() {
    let (script, running) = start(Encryption::Offered);
    script.answer("wait", vec![Part::Count(1), Part::Wait(Duration::from_secs(60)), Part::Count(2)]);
    script.answer("count", vec![Part::Count(1)]);
    let mut raw = Raw::log_in(&running);
    let acknowledged = Token::Done(DONE, 0x20, 0);
    let attention = packet(ATTENTION, END, &[]);
    let counted = Token::Done(DONE, COUNT, 1);
    // Between requests, and after one that is answered already.
    assert_eq!(raw.ask(&attention), std::slice::from_ref(&acknowledged));
    assert_eq!(raw.ask(&batch("count")), std::slice::from_ref(&counted));
    // While one runs: what was told before the wait stays.
    raw.send(&batch("wait"));
    script.wait_for(&Seen::Batch("wait".into(), vec![]));
    assert_eq!(raw.ask(&attention), [Token::Done(DONE, COUNT | MORE, 1), acknowledged.clone()]);
    script.wait_for(&Seen::Stopped("wait".into()));
    // Inside of a message, which is then not run.
    raw.send(&packet(BATCH, 0, &with_headers(&utf16("cou"))));
    assert_eq!(raw.ask(&attention), std::slice::from_ref(&acknowledged));
    // A message that the client takes back itself.
    raw.send(&packet(BATCH, 0, &with_headers(&utf16("cou"))));
    raw.send(&packet(BATCH, END | 2, &utf16("nt")));
    assert_eq!(raw.ask(&batch("count")), [counted]);
    assert_eq!(script.batches().len(), 3);
    // A procedure's statements too.
    script.answer("wait again", vec![Part::Wait(Duration::from_secs(60))]);
    raw.send(&rpc(&[call_id(10, &[nvarchar("", "wait again")]), call_id(10, &[nvarchar("", "count")])]));
    script.wait_for(&Seen::Batch("wait again".into(), vec![]));
    assert_eq!(raw.ask(&attention).last(), Some(&acknowledged));
    assert_eq!(script.batches().len(), 4);
}

#[test]
fn a_reset_gives_a_session_as_new() {
    let (script, running) = start(Encryption::Offered);
    script.answer("USE msdb", vec![Part::Database("msdb".into())]);
    script.answer("count", vec![Part::Count(1)]);
    let mut raw = Raw::log_in(&running);
    let moved = raw.ask(&batch("USE msdb"));
    let change = |new: &str, old: &str| {
        let sized = |text: &str| [vec![text.len() as u8], utf16(text)].concat();
        Token::Change(1, [sized(new), sized(old)].concat())
    };
    assert_eq!(moved, [change("msdb", "sales"), Token::Done(DONE, 0, 0)]);
    for status in [0x08, 0x10] {
        let mut request = batch("count");
        request[1] |= status;
        let tokens = raw.ask(&request);
        assert_eq!(tokens.first(), Some(&Token::Change(18, vec![0, 0])));
        assert_eq!(tokens.contains(&change("sales", "msdb")), status == 0x08, "{tokens:?}");
        assert_eq!(tokens.last(), Some(&Token::Done(DONE, COUNT, 1)));
    }
    let seen = script.seen();
    assert_eq!(seen.iter().filter(|seen| matches!(seen, Seen::Login(_))).count(), 3);
    assert_eq!(seen.iter().filter(|seen| matches!(seen, Seen::Dropped)).count(), 2);
}

#[test]
fn transactions_begin_and_end() {
    let (_, running) = start(Encryption::Offered);
    let mut raw = Raw::log_in(&running);
    let ask = |raw: &mut Raw, body: &[u8]| raw.ask(&packet(TRANSACTION, END, &with_headers(body)));
    let descriptor = |id: u8| [&[8, id][..], &[0; 7]].concat();
    let begun = |id| Token::Change(8, [descriptor(id), vec![0]].concat());
    let ended = |kind, id| Token::Change(kind, [vec![0], descriptor(id)].concat());
    let done = Token::Done(DONE, 0, 0);
    assert_eq!(ask(&mut raw, &[5, 0, 2, 0]), [begun(1), done.clone()]);
    // A commit that begins the next.
    assert_eq!(ask(&mut raw, &[7, 0, 0, 1, 2, 0]), [ended(9, 1), begun(2), done.clone()]);
    assert_eq!(ask(&mut raw, &[9, 0, 1, b'a', 0]), std::slice::from_ref(&done));
    assert_eq!(ask(&mut raw, &[8, 0, 0, 0]), [ended(10, 2), done]);
    for (body, number) in [(&[7, 0, 0, 0][..], 3902), (&[8, 0, 0, 0], 3903), (&[0, 0, 0, 0], 8501)] {
        let tokens = ask(&mut raw, body);
        assert!(matches!(tokens[0], Token::Message(found, 1, 16, _) if found == number), "{tokens:?}");
        assert_eq!(tokens[1], Token::Done(DONE, ERROR, 0));
    }
}

#[test]
fn an_error_of_class_20_ends_the_connection() {
    let (script, running) = start(Encryption::Offered);
    let killed = "Cannot continue the execution because the session is in the kill state.";
    script.answer("killed", vec![error(596, 21, 1, killed)]);
    for request in [batch("killed"), rpc(&[call_id(10, &[nvarchar("", "killed")])])] {
        let mut raw = Raw::log_in(&running);
        let tokens = raw.ask(&request);
        assert_eq!(tokens[0], Token::Message(596, 1, 21, killed.into()));
        assert!(matches!(tokens.last(), Some(Token::Done(_, ERROR, 0))), "{tokens:?}");
        assert!(raw.read_to_end().is_empty());
    }
    wait_for_silence(&running);
    assert!(running.faults().log().iter().all(|entry| entry.text.starts_with("error 596 ")));
}

#[test]
fn a_session_that_panics_ends_its_connection_alone() {
    let (script, running) = start(Encryption::Offered);
    script.answer("count", vec![Part::Count(1)]);
    let mut other = Raw::log_in(&running);
    let mut raw = Raw::log_in(&running);
    raw.send(&batch(PANIC));
    assert!(raw.read_to_end().is_empty());
    assert_eq!(other.ask(&batch("count")), [Token::Done(DONE, COUNT, 1)]);
    // The log is written before the connection is counted out.
    while running.connections() > 1 {
        std::thread::yield_now();
    }
    assert!(running.faults().log()[0].text.contains("it panicked"), "{:?}", running.faults().log());
}

#[test]
fn there_are_no_more_connections_than_the_bound() {
    let (script, running) = start(Encryption::Offered);
    let mut open: Vec<Raw> = (0..CONNECTIONS_MAX).map(|_| Raw::log_in(&running)).collect();
    assert_eq!(running.connections(), CONNECTIONS_MAX);
    assert!(Raw::open(&running).read_to_end().is_empty());
    drop(open.pop());
    script.wait_for(&Seen::Dropped);
    while running.connections() == CONNECTIONS_MAX {
        std::thread::yield_now();
    }
    Raw::log_in(&running);
    assert!(
        running.faults().log()[0].text.contains("there are 128 connections"),
        "{:?}",
        running.faults().log()
    );
}

#[test]
fn several_errors_and_counts_come_in_their_order() {
    let (script, running) = start(Encryption::Offered);
    let abnormal = "RESTORE LOG is terminating abnormally.";
    let parts = vec![
        error(3211, 0, 1, "5 percent processed."),
        Part::Count(7),
        error(4305, 16, 1, "too recent"),
        error(3013, 16, 1, abnormal),
        Part::Count(8),
        error(0, 10, 1, "printed"),
    ];
    script.answer("many", parts);
    script.answer("failed", vec![error(4305, 16, 1, "too recent"), error(3013, 16, 1, abnormal)]);
    let mut raw = Raw::log_in(&running);
    let said = |number, class, text: &str| Token::Message(number, 1, class, text.into());
    let many = [
        said(3211, 0, "5 percent processed."),
        Token::Done(DONE, COUNT | MORE, 7),
        said(4305, 16, "too recent"),
        said(3013, 16, abnormal),
        Token::Done(DONE, ERROR | MORE, 0),
        Token::Done(DONE, COUNT | MORE, 8),
        said(0, 10, "printed"),
        Token::Done(DONE, 0, 0),
    ];
    assert_eq!(raw.ask(&batch("many")), many);
    let failed = [said(4305, 16, "too recent"), said(3013, 16, abnormal), Token::Done(DONE, ERROR, 0)];
    assert_eq!(raw.ask(&batch("failed")), failed);
}

#[test]
fn what_is_out_of_bounds_ends_the_connection_with_a_reason() {
    let (_, running) = start(Encryption::Offered);
    let mut expected = Vec::new();
    let mut wrong = |bytes: &[u8], reason: &'static str, raw: Option<Raw>| {
        let mut raw = raw.unwrap_or_else(|| Raw::log_in(&running));
        raw.send(bytes);
        raw.0.shutdown(std::net::Shutdown::Write).unwrap();
        raw.read_to_end();
        expected.push(reason);
    };
    wrong(&[BATCH, END, 0, 7, 0, 0, 0, 0], "packet length: 0x7 is not understood", None);
    wrong(&[BATCH, END, 0xFF, 0xFF, 0, 0, 0, 0], "packet: 65535 is over the bound of 32767", None);
    wrong(&packet(0x07, END, &[]), "packet kind: 0x7 is not understood", None);
    wrong(&packet(BATCH, END, &[]), "SQL batch: ends after 0 bytes, 4 more are needed at offset 0", None);
    wrong(&packet(BATCH, END, &[0xFF; 8]), "SQL batch: ends after", None);
    wrong(&packet(BATCH, END, &with_headers(b"a")), "SQL batch: not UTF-16", None);
    wrong(&packet(BATCH, END, &with_headers(&[0, 0xD8])), "SQL batch: not UTF-16", None);
    wrong(
        &[packet(BATCH, 0, &[1]), packet(RPC, END, &[2])].concat(),
        "expected the kind of the packet before",
        None,
    );
    wrong(&batch("x")[..20], "ended the connection inside a message", None);
    wrong(&rpc(&[vec![5, 0, b'a', 0]]), "RPC: ends after", None);
    wrong(&packet(TRANSACTION, END, &with_headers(&[4, 0])), "transaction request: 0x4", None);
    wrong(&[batch("wait"), batch("x")].concat(), "x", None);
    wrong(&batch("x"), "expected PRELOGIN", Some(Raw::open(&running)));
    wrong(
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "packet kind: 0x47 is not understood, expected one of a client",
        Some(Raw::open(&running)),
    );
    wrong(&packet(0x12, END, &[1, 0, 9, 0, 1, 0xFF]), "PRELOGIN: ends after", Some(Raw::open(&running)));
    let mut long = Vec::new();
    for _ in 0..=MESSAGE_BYTES_MAX / 32_000 {
        long.extend(packet(BATCH, 0, &[0; 32_000]));
    }
    wrong(&long, "message: 16800000 is over the bound of 16777216", None);
    wait_for_silence(&running);
    let log = running.faults().log();
    let texts: Vec<&str> = log.iter().map(|entry| entry.text.as_str()).collect();
    assert_eq!(texts.len(), expected.len(), "{texts:#?}");
    for (text, reason) in texts.iter().zip(expected) {
        assert!(text.contains(reason) || reason == "x", "{text:?} without {reason:?}");
    }
}
