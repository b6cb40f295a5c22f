//! What a test breaks: connections cut at every byte, delays, garbage, refusals.

use std::time::Duration;

use stillpoint_tds_server::protocol::{Encryption, Fault};
use stillpoint_tds_server::reply::{ColumnType, Part, Value};
use tiberius::EncryptionLevel;
use tokio::time::timeout;

use super::queries::{assert_rows, config, connect, wait_for_silence};
use super::raw::*;
use super::scripted::*;

/// What no answer may take, cut or not.
const PATIENCE: Duration = Duration::from_secs(20);

fn short_answer() -> Vec<Part> {
    let columns = vec![column("id", ColumnType::Int), column("name", ColumnType::NVarChar(None))];
    let row = |id: i32| vec![Value::Int(id), Value::NVarChar("x".repeat(12))];
    let rows = vec![row(1), row(2), vec![Value::Null, Value::Null]];
    vec![Part::Rows { columns, rows }, Part::Count(2), single("last", Value::Bit(true))]
}

#[tokio::test]
async fn an_answer_cut_at_any_byte_is_an_error() {
    let (script, running) = start(Encryption::Offered);
    script.answer("short", short_answer());
    for encryption in [EncryptionLevel::NotSupported, EncryptionLevel::On] {
        let open = async || connect(config(&running, encryption)).await.unwrap();
        let mut client = open().await;
        let before = running.faults().sent_bytes();
        assert_rows(&mut client, "short", &short_answer()).await.unwrap();
        let whole = running.faults().sent_bytes() - before;
        assert!(whole > 150, "{whole}");
        for bytes in 0..whole {
            let mut client = open().await;
            running.faults().cut_after(bytes);
            let answer = timeout(PATIENCE, assert_rows(&mut client, "short", &short_answer())).await;
            let answer =
                answer.unwrap_or_else(|_| panic!("cut after {bytes} of {whole} bytes: the client hangs"));
            assert!(answer.is_err(), "cut after {bytes} of {whole} bytes: not seen by the client");
        }
        // With the last byte the answer is whole, and the next request finds the connection cut.
        running.faults().cut_after(whole);
        assert_rows(&mut client, "short", &short_answer()).await.unwrap();
        assert!(timeout(PATIENCE, assert_rows(&mut client, "short", &[])).await.unwrap().is_err());
    }
    wait_for_silence(&running);
    let log = running.faults().log();
    assert!(log.iter().all(|entry| entry.text == "a test cut the connection"), "{log:?}");
}

#[tokio::test]
async fn a_login_cut_at_any_byte_is_an_error() {
    let (_, running) = start(Encryption::Offered);
    for encryption in [EncryptionLevel::NotSupported, EncryptionLevel::Off, EncryptionLevel::On] {
        let before = running.faults().sent_bytes();
        drop(connect(config(&running, encryption)).await.unwrap());
        let whole = running.faults().sent_bytes() - before;
        let mut bytes = 0;
        loop {
            running.faults().cut_after(bytes);
            let connected = timeout(PATIENCE, connect(config(&running, encryption))).await;
            if connected.unwrap_or_else(|_| panic!("cut after {bytes} bytes: the client hangs")).is_ok() {
                break;
            }
            bytes += 1;
        }
        // A signature in the handshake may be some bytes shorter or longer than another.
        assert!(bytes + 8 >= whole, "cut after {bytes} of {whole} bytes: not seen by the client");
        running.faults().clear();
    }
    wait_for_silence(&running);
}

#[tokio::test]
async fn answers_are_late_refused_or_garbage_as_a_test_wants() {
    let (script, running) = start(Encryption::Offered);
    let one = vec![single("a", Value::Int(1))];
    script.answer("one", one.clone());
    let faults = running.faults();
    let open = async || connect(config(&running, EncryptionLevel::On)).await;

    let mut client = open().await.unwrap();
    faults.delay_answers(Duration::from_millis(300));
    assert!(timeout(Duration::from_millis(100), assert_rows(&mut client, "one", &one)).await.is_err());
    // A cancel does not wait for the delay, and the batch was never run.
    faults.delay_answers(Duration::from_secs(60));
    let mut client = {
        faults.clear();
        let client = open().await.unwrap();
        faults.delay_answers(Duration::from_secs(60));
        client
    };
    let before = script.batches().len();
    drop(timeout(Duration::from_millis(100), client.simple_query("one")).await);
    timeout(PATIENCE, client.cancel_query()).await.unwrap().unwrap();
    assert_eq!(script.batches().len(), before);
    assert!(timeout(Duration::from_millis(200), open()).await.is_err());
    faults.clear();
    assert_rows(&mut client, "one", &one).await.unwrap();

    faults.refuse_connections(true);
    assert!(timeout(PATIENCE, open()).await.unwrap().is_err());
    assert_rows(&mut client, "one", &one).await.unwrap();
    faults.refuse_connections(false);
    drop(open().await.unwrap());

    for garbage in
        [vec![], vec![0; 100], vec![0xFF; 9000], packet(4, 1, &[0x99, 1, 2]), packet(4, 1, &[0x81, 9])]
    {
        let mut client = open().await.unwrap();
        faults.answer_garbage(garbage.clone());
        assert!(
            timeout(PATIENCE, assert_rows(&mut client, "one", &one)).await.unwrap().is_err(),
            "{garbage:x?}"
        );
        faults.answer_garbage(garbage.clone());
        assert!(timeout(PATIENCE, open()).await.unwrap().is_err(), "{garbage:x?}");
    }
    assert_rows(&mut client, "one", &one).await.unwrap();
}

#[tokio::test]
async fn a_fault_waits_for_its_statement() {
    let (script, running) = start(Encryption::Offered);
    let one = vec![single("a", Value::Int(1))];
    for sql in ["RESTORE DATABASE x", "poll"] {
        script.answer(sql, one.clone());
    }
    let faults = running.faults();
    for encryption in [EncryptionLevel::NotSupported, EncryptionLevel::On] {
        let mut poller = connect(config(&running, encryption)).await.unwrap();
        for fault in [
            Fault::CutAfter(0),
            Fault::CutAfter(1),
            Fault::CutAfter(20),
            Fault::Garbage(vec![]),
            Fault::Garbage(packet(4, 1, &[0x99])),
        ] {
            let mut client = connect(config(&running, encryption)).await.unwrap();
            faults.at_statement("RESTORE", fault.clone());
            assert_rows(&mut client, "poll", &one).await.unwrap();
            let restored = timeout(PATIENCE, async {
                let polled = assert_rows(&mut poller, "poll", &one);
                let (polled, restored) =
                    tokio::join!(polled, assert_rows(&mut client, "RESTORE DATABASE x", &one));
                polled.unwrap();
                restored
            });
            assert!(restored.await.unwrap().is_err(), "{fault:?}");
            assert_rows(&mut poller, "RESTORE DATABASE x", &one).await.unwrap();
        }
        let mut client = connect(config(&running, encryption)).await.unwrap();
        faults.at_statement("RESTORE", Fault::Delay(Duration::from_secs(60)));
        drop(timeout(Duration::from_millis(100), client.simple_query("RESTORE DATABASE x")).await);
        timeout(PATIENCE, client.cancel_query()).await.unwrap().unwrap();
        assert_rows(&mut client, "RESTORE DATABASE x", &one).await.unwrap();
    }
}
