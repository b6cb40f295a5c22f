//! Clients of others: FreeTDS's `tsql`, and Microsoft's ODBC driver as PyPI's `mssql-python` brings it. What they send of
//! themselves must be understood, and what they read must be what was sent. `tests/install` fetches both.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use stillpoint_tds_server::protocol::{Encryption, Running};
use stillpoint_tds_server::reply::{Parameter, Part, Value};

use super::queries::wait_for_silence;
use super::scripted::*;

/// Seconds that a client may take.
const SECONDS: &str = "60";

/// The folder that cargo builds into.
fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned()
}

/// Runs a client with this input; what it printed, errors too.
fn run(program: &Path, arguments: &[&str], environment: &[(&str, &str)], input: &str) -> String {
    let name = program.display();
    let mut client = Command::new("timeout")
        .arg(SECONDS)
        .arg(program)
        .args(arguments)
        .envs(environment.iter().copied())
        // The clients take text in the locale's encoding.
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{name} cannot be run: {error}"));
    client.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = client.wait_with_output().unwrap();
    assert_ne!(output.status.code(), Some(127), "{name} is not there: run `bash tests/install`");
    assert_ne!(output.status.code(), Some(124), "{name} did not end within {SECONDS} s");
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8(text).unwrap()
}

/// A tsql that logs in, runs the batches, and prints what came.
fn tsql(running: &Running, encryption: &str, password: &str, batches: &[&str]) -> String {
    let folder = target().join("tmp");
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join(format!("freetds-{}-{encryption}.conf", running.port()));
    let port = running.port();
    let conf =
        format!("[test]\nhost = 127.0.0.1\nport = {port}\ntds version = 7.4\nencryption = {encryption}\n");
    std::fs::write(&file, conf).unwrap();
    let input: String =
        batches.iter().map(|batch| format!("{batch}\ngo\n")).chain(["exit\n".to_owned()]).collect();
    let arguments = ["-S", "test", "-U", USER, "-P", password, "-D", "sales", "-o", "q", "-t", "|"];
    let printed = run(Path::new("tsql"), &arguments, &[("FREETDSCONF", file.to_str().unwrap())], &input);
    std::fs::remove_file(file).unwrap();
    printed
}

/// The batches that both clients run.
fn script(script: &Script) {
    let failed = [
        error(4305, 16, 3, "The log in this backup set is too recent, ä€."),
        error(3013, 16, 1, "RESTORE LOG is terminating abnormally."),
    ];
    let several = vec![
        single("first", Value::Int(1)),
        Part::Count(12),
        error(3211, 0, 1, "50 percent processed."),
        single("second", Value::NVarChar("zwei".into())),
        single("none", Value::Null),
    ];
    // tsql sends the end of the line with a batch.
    for end in ["", "\n"] {
        script.answer(&format!("SELECT all{end}"), vec![all_types()]);
        script.answer(&format!("RESTORE LOG{end}"), failed.to_vec());
        script.answer(&format!("several{end}"), several.clone());
        script.answer(&format!("count{end}"), vec![Part::Count(12)]);
        script.answer(&format!("USE msdb{end}"), vec![Part::Database("msdb".into())]);
    }
}

const DECIMALS: &str =
    "1|200|-12345|-2000000000|-9223372036854775808|34000000020000037|-12345678.90|datafile ä € 𝄞|";

#[test]
fn tsql_reads_all_types_results_and_errors() {
    for (server, encryptions) in [
        (Encryption::Offered, &["off", "request", "require"][..]),
        (Encryption::Required, &["request", "require"]),
        (Encryption::NotSupported, &["off", "request"]),
    ] {
        let (scripted, running) = start(server);
        script(&scripted);
        for encryption in encryptions {
            let batches = ["SELECT all", "several", "RESTORE LOG", "USE msdb", "unknown"];
            let printed = tsql(&running, encryption, PASSWORD, &batches);
            let told = format!("{server:?} {encryption}:\n{printed}");
            let blob: String = (0..9000u32).map(|at| format!("{:02x}", at as u8)).collect();
            for expected in [
                "bit|tiny|small|int|big|lsn|money|name|text|bytes|blob|guid|date|real\n",
                DECIMALS,
                &"long ".repeat(2000),
                &format!("|0001ff|{blob}|6F961"),
                "|Nov 21 2026 05:45PM|12.5\n",
                &["NULL"; 14].join("|"),
                "first\n1\n",
                "second\nzwei\n",
                "none\nNULL\n",
                "50 percent processed.",
                "Msg 4305 (severity 16, state 3) from STILLPOINT Line 1:",
                "The log in this backup set is too recent, ä€.",
                "Msg 3013 (severity 16, state 1) from STILLPOINT Line 1:",
                "RESTORE LOG is terminating abnormally.",
                "Msg 50000 (severity 16, state 7) from STILLPOINT Line 1:",
            ] {
                assert!(printed.contains(expected), "no {expected:?} in {told}");
            }
            let (first, second) = (printed.find("Msg 4305").unwrap(), printed.find("Msg 3013").unwrap());
            assert!(first < second, "{told}");
        }
        wait_for_silence(&running);
        assert_eq!(running.faults().log(), []);
        let logins: Vec<_> =
            scripted.seen().into_iter().filter(|seen| matches!(seen, Seen::Login(_))).collect();
        assert_eq!(logins.len(), encryptions.len());
        let Seen::Login(login) = &logins[0] else { unreachable!() };
        assert_eq!((login.password.as_str(), login.database.as_str()), (PASSWORD, "sales"));
    }
}

#[test]
fn tsql_is_refused_as_sql_server_does() {
    let (_, running) = start(Encryption::Offered);
    let printed = tsql(&running, "require", "wrong", &[]);
    assert!(printed.contains("Msg 18456 (severity 14, state 1) from STILLPOINT"), "{printed}");
    assert!(printed.contains("Login failed for user 'sa'."), "{printed}");
    let (_, running) = start(Encryption::NotSupported);
    let printed = tsql(&running, "require", PASSWORD, &[]);
    assert!(printed.contains("Adaptive Server connection failed"), "{printed}");
    let (_, running) = start(Encryption::Required);
    let printed = tsql(&running, "off", PASSWORD, &[]);
    assert!(printed.contains("Adaptive Server connection failed"), "{printed}");
}

/// Runs `mssql.py`, a statement with its parameters a line; a line of JSON for each.
fn odbc(running: &Running, encrypt: &str, mode: &str, lines: &[&str]) -> Vec<String> {
    let default = target().join("mssql-python/bin/python");
    let python = std::env::var_os("MSSQL_PYTHON").map_or(default, PathBuf::from);
    assert!(python.exists(), "{} is not there: run `bash tests/install`", python.display());
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/protocol/mssql.py");
    let password = PASSWORD.replace('}', "}}");
    let certificate = target().join("tmp").join(format!("certificate-{}.pem", running.port()));
    std::fs::create_dir_all(certificate.parent().unwrap()).unwrap();
    std::fs::write(&certificate, running.certificate()).unwrap();
    // Strict encryption takes no certificate on trust.
    let trust = match encrypt {
        "strict" => format!("ServerCertificate={}", certificate.display()),
        _ => "TrustServerCertificate=yes".to_owned(),
    };
    let connection = format!(
        "Server=127.0.0.1,{};UID={USER};PWD={{{password}}};Database=sales;Encrypt={encrypt};{trust}",
        running.port()
    );
    let printed = run(&python, &[program.to_str().unwrap(), mode, &connection], &[], &lines.join("\n"));
    std::fs::remove_file(certificate).unwrap();
    let answers: Vec<String> = printed.lines().map(str::to_owned).collect();
    assert_eq!(answers.len(), lines.len(), "{printed}");
    answers
}

#[test]
fn the_odbc_driver_reads_all_types_results_and_errors() {
    let long = "long ".repeat(2000);
    let blob: String = (0..9000u32).map(|at| format!("{:02x}", at as u8)).collect();
    let all = format!(
        "[{{\"columns\": [\"bit\", \"tiny\", \"small\", \"int\", \"big\", \"lsn\", \"money\", \"name\", \"text\", \
         \"bytes\", \"blob\", \"guid\", \"date\", \"real\"], \"rows\": [[true, 200, -12345, -2000000000, \
         -9223372036854775808, {{\"decimal\": \"34000000020000037\"}}, {{\"decimal\": \"-12345678.90\"}}, \
         \"datafile ä € 𝄞\", \"{long}\", {{\"bytes\": \"0001ff\"}}, {{\"bytes\": \"{blob}\"}}, \
         {{\"uuid\": \"6f9619ff-8b86-d011-b42d-00c04fc964ff\"}}, {{\"datetime\": \"2026-11-21 17:45:12.347000\"}}, \
         12.5], [{}]]}}]",
        ["null"; 14].join(", ")
    );
    // The Python package keeps the count of the set before; what the driver has of a count alone is below.
    let several = "[{\"columns\": [\"first\"], \"rows\": [[1]]}, {\"count\": 1}, \
                   {\"columns\": [\"second\"], \"rows\": [[\"zwei\"]]}, {\"columns\": [\"none\"], \"rows\": [[null]]}]";
    for (server, encrypt) in [
        (Encryption::Offered, "no"),
        (Encryption::Offered, "yes"),
        (Encryption::Offered, "strict"),
        (Encryption::Required, "no"),
        (Encryption::Required, "yes"),
        (Encryption::NotSupported, "no"),
    ] {
        let (scripted, running) = start(server);
        script(&scripted);
        let lines = ["[\"SELECT all\"]", "[\"several\"]", "[\"USE msdb\"]", "[\"count\"]"];
        let answers = odbc(&running, encrypt, "query", &lines);
        let expected = [all.as_str(), several, "[{\"count\": -1}]", "[{\"count\": 12}]"];
        for (answer, expected) in answers.iter().zip(expected) {
            assert!(answer == expected, "{server:?} {encrypt}:\n{answer}\n{expected}");
        }
        wait_for_silence(&running);
        assert_eq!(running.faults().log(), [], "{server:?} {encrypt}");
    }
}

#[test]
fn the_odbc_driver_tells_errors_with_number_class_and_state() {
    let (scripted, running) = start(Encryption::Offered);
    script(&scripted);
    let answers = odbc(&running, "yes", "diagnose", &["RESTORE LOG", "SELECT all", "unknown"]);
    let expected = [
        "[[4305, 16, 3, 1, \"STILLPOINT\", \"The log in this backup set is too recent, ä€.\"], \
         [3013, 16, 1, 1, \"STILLPOINT\", \"RESTORE LOG is terminating abnormally.\"]]",
        "[]",
        "[[50000, 16, 7, 1, \"STILLPOINT\", \"The statement is not known: unknown\"]]",
    ];
    assert_eq!(answers, expected);
}

#[test]
fn the_odbc_driver_sends_parameters_and_prepares() {
    let (scripted, running) = start(Encryption::Offered);
    let types = "5, \"text\", \"ä€𝄞\", {\"bytes\": \"00ff\"}, {\"decimal\": \"12.50\"}, \
                 {\"uuid\": \"6f9619ff-8b86-d011-b42d-00c04fc964ff\"}, \
                 {\"datetime\": \"2026-11-21 17:45:12.347000\"}, 1.5, true, null, 5000000000";
    let marks = ["?"; 11].join(", ");
    let lines = [
        format!("[\"{ECHO} {marks}\", {types}]"),
        format!("[\"{ECHO} ?\", 70000]"),
        format!("[\"{ECHO} ?\", \"{}\"]", "x".repeat(10_000)),
        "[\"unknown ?\", 1]".to_owned(),
        format!("[\"{ECHO} ?\", -1]"),
    ];
    let answers = odbc(&running, "yes", "query", &lines.each_ref().map(String::as_str));
    let names: Vec<String> = (1..=11).map(|at| format!("\"@P{at}\"")).collect();
    assert_eq!(answers[0], format!("[{{\"columns\": [{}], \"rows\": [[{types}]]}}]", names.join(", ")));
    assert_eq!(answers[1], "[{\"columns\": [\"@P1\"], \"rows\": [[70000]]}]");
    assert_eq!(answers[2], format!("[{{\"columns\": [\"@P1\"], \"rows\": [[\"{}\"]]}}]", "x".repeat(10_000)));
    assert!(answers[3].contains("The statement is not known: unknown @P1"), "{}", answers[3]);
    assert_eq!(answers[4], "[{\"columns\": [\"@P1\"], \"rows\": [[-1]]}]");

    let (sql, parameters) = scripted.batches().remove(0);
    let placed: Vec<String> = (1..=11).map(|at| format!("@P{at}")).collect();
    assert_eq!(sql, format!("{ECHO} {}", placed.join(", ")));
    let guid =
        [0x6F, 0x96, 0x19, 0xFF, 0x8B, 0x86, 0xD0, 0x11, 0xB4, 0x2D, 0x00, 0xC0, 0x4F, 0xC9, 0x64, 0xFF];
    let values = [
        Value::TinyInt(5),
        Value::NVarChar("text".into()),
        Value::NVarChar("ä€𝄞".into()),
        Value::VarBinary(vec![0, 255]),
        Value::Numeric { digits: 1250, precision: 4, scale: 2 },
        Value::Guid(guid),
        Value::DateTime(4_004_271_912_347),
        Value::Real(1.5),
        Value::Bit(true),
        Value::Null,
        Value::BigInt(5_000_000_000),
    ];
    let expected: Vec<_> =
        placed.into_iter().zip(values).map(|(name, value)| Parameter { name, value }).collect();
    assert_eq!(parameters, expected);
    assert_eq!(running.faults().log(), []);
}

#[test]
fn the_odbc_driver_is_refused_as_sql_server_does() {
    let (_, running) = start(Encryption::NotSupported);
    let answer = odbc(&running, "yes", "query", &["[\"SELECT all\"]"]).remove(0);
    assert!(
        answer.contains("\"login\"") && answer.contains("Encryption not supported on SQL Server"),
        "{answer}"
    );
}

#[test]
fn the_odbc_driver_cancels_what_takes_too_long() {
    let (scripted, running) = start(Encryption::Offered);
    script(&scripted);
    scripted.answer("wait", vec![Part::Wait(Duration::from_secs(60)), Part::Count(1)]);
    let answers = odbc(&running, "yes", "limit", &["[\"wait\"]", "[\"count\"]"]);
    assert!(answers[0].contains("Query timeout expired"), "{}", answers[0]);
    assert_eq!(answers[1], "[{\"count\": 12}]");
    assert!(scripted.seen().contains(&Seen::Stopped("wait".into())));
    assert_eq!(running.faults().log(), []);
}

#[test]
fn the_odbc_driver_resets_connections_of_its_pool() {
    let (scripted, running) = start(Encryption::Offered);
    script(&scripted);
    let lines = ["[\"USE msdb\"]", "[\"count\"]", "[\"count\"]"];
    let answers = odbc(&running, "yes", "pool", &lines);
    assert_eq!(answers[1..], ["[{\"count\": 12}]", "[{\"count\": 12}]"]);
    let batches: Vec<String> = scripted.batches().into_iter().map(|(sql, _)| sql).collect();
    assert_eq!(batches, ["USE msdb", "count", "count"]);
    let logins = scripted.seen().iter().filter(|seen| matches!(seen, Seen::Login(_))).count();
    assert_eq!(logins, 3);
    wait_for_silence(&running);
    assert_eq!(running.faults().log(), []);
}
