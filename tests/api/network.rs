//! TCP with and without TLS, tokens, and the document.

use serde_json::Value;

use crate::client::Daemon;

#[test]
fn over_tls_with_a_token() {
    let daemon = Daemon::with_tls(&["--listen", "127.0.0.1:0"]);
    assert!(daemon.url.starts_with("https://127.0.0.1:") && !daemon.url.ends_with(":0"), "{}", daemon.url);
    assert_eq!(daemon.fixture.json(["status"])["api"], daemon.url.as_str());
    let token = daemon.token("console", "admin", &[]);
    assert_eq!(daemon.ask(Some(&token), "GET", "/v1/dsources", "").json(200), Value::Array(Vec::new()));
    let refused = daemon.ask(None, "GET", "/v1/dsources", "");
    assert_eq!(refused.json(401)["code"], "unauthorized");
    assert!(refused.head.contains("www-authenticate: bearer"), "{refused:?}");

    // Somebody who speaks no TLS, or says nothing, holds up nobody.
    let address = daemon.url.split_once("://").unwrap().1;
    let _silent = std::net::TcpStream::connect(address).unwrap();
    let mut plain = std::net::TcpStream::connect(address).unwrap();
    std::io::Write::write_all(&mut plain, b"GET /v1/dsources HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    assert_eq!(daemon.ask(Some(&token), "GET", "/v1/vdbs", "").status, 200);

    // The command line goes on without a token, by the socket.
    assert_eq!(daemon.fixture.json(["dsource", "list"]), Value::Array(Vec::new()));
    daemon.fixture.ok(["token", "revoke", "console"]);
    assert_eq!(daemon.ask(Some(&token), "GET", "/v1/dsources", "").status, 401);
    assert!(daemon.connect().is_ok());
    daemon.stop();
    assert!(daemon.connect().is_err());
}

#[test]
fn tokens_are_told_once_and_kept_as_hashes() {
    let daemon = Daemon::start(&["--listen", "127.0.0.1:0"]);
    let token = daemon.token("operator-1", "operator", &["shop", "crm"]);
    let secret = token.rsplit('_').next().unwrap();
    assert_eq!(secret.len(), 64);
    let list = daemon.fixture.json(["token", "list"]);
    assert_eq!(list[0]["groups"], serde_json::json!(["shop", "crm"]));
    assert!(!list.to_string().contains(secret));
    daemon
        .fixture
        .run(["token", "create", "operator-1", "--role", "viewer"])
        .fails_with(11, &["operator-1", "revoke"]);
    daemon.fixture.run(["token", "create", "x", "--role", "user"]).fails_with(2, &["group"]);
    daemon
        .fixture
        .run(["token", "create", "x", "--role", "viewer", "--expires", "soon"])
        .fails_with(2, &["30d"]);
    daemon.fixture.run(["token", "revoke", "nobody"]).fails_with(10, &["nobody"]);

    // What it may do, and that a refusal says so.
    assert_eq!(daemon.ask(Some(&token), "GET", "/v1/events", "").status, 200);
    let refused = daemon.ask(Some(&token), "GET", "/v1/tokens", "").json(403);
    assert!(
        refused["detail"].as_str().unwrap().contains("operator-1") && refused["hint"].is_string(),
        "{refused}"
    );
    let body = r#"{"name":"x","group":"other","from":"none"}"#;
    assert_eq!(daemon.ask(Some(&token), "POST", "/v1/vdbs", body).status, 403);
    let body = r#"{"name":"x","group":"shop","from":"none"}"#;
    assert_eq!(daemon.ask(Some(&token), "POST", "/v1/vdbs", body).status, 404);

    daemon.stop();
    let log = daemon.log();
    assert!(log.contains("refused: POST /v1/vdbs: 403: token operator-1"), "{log}");
    for file in ["catalog.redb", "daemon.log"] {
        let bytes = std::fs::read(daemon.fixture.store_path().join(file)).unwrap();
        let held = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
        assert!(!held, "{file} holds the token");
    }
}

#[test]
fn only_loopback_without_tls() {
    let daemon = Daemon::start(&["--listen", "127.0.0.1:0"]);
    daemon.stop();
    daemon.try_launch(&["--listen", "0.0.0.0:0"]).fails_with(2, &["without TLS", "--tls-certificate"]);
    daemon.try_launch(&["--listen", "localhost"]).fails_with(2, &["localhost"]);
    daemon.try_launch(&["--listen", "127.0.0.1:0", "--tls-key", "/x"]).fails_with(2, &["tls.certificate"]);
    let key = daemon.fixture.path("key");
    std::fs::write(&key, "no key").unwrap();
    let files = [
        "--listen",
        "127.0.0.1:0",
        "--tls-certificate",
        key.to_str().unwrap(),
        "--tls-key",
        key.to_str().unwrap(),
    ];
    daemon.try_launch(&files).fails_with(2, &["no certificate"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    daemon.try_launch(&["--listen", &address]).fails_with(11, &[&address]);
    // What was refused left no mount behind.
    assert!(daemon.fixture.mounting_process().is_none());
}

#[test]
fn the_document_is_served_and_every_address_answers() {
    let daemon = Daemon::start(&["--listen", "127.0.0.1:0"]);
    let served = daemon.ask(None, "GET", "/v1/openapi.json", "");
    let committed =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json")).unwrap();
    assert!(served.body == committed, "the served document is not docs/openapi.json");
    let token = daemon.token("admin", "admin", &[]);
    let document: Value = serde_json::from_str(&served.body).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().unwrap() {
            if path.ends_with("/stream") || path == "/v1/openapi.json" {
                continue;
            }
            let real = path.replace("{name}", "none").replace("{id}", "999999").replace("{snapshot}", "none");
            let method = method.to_uppercase();
            let answer = daemon.ask(Some(&token), &method, &real, "");
            assert!(answer.status != 405 && answer.status != 0, "{method} {path}: {answer:?}");
            assert!(answer.status < 500, "{method} {path}: {answer:?}");
            let documented = operation["responses"].as_object().unwrap();
            if answer.status < 300 {
                assert!(documented.contains_key(&answer.status.to_string()), "{method} {path}: {answer:?}");
            } else {
                assert!(answer.head.contains("application/problem+json"), "{method} {path}: {answer:?}");
                let problem = answer.json(answer.status);
                assert_eq!(problem["status"], answer.status, "{problem}");
                // Nothing is said of an address that is there as if it were not.
                assert_ne!(problem["detail"], "there is no such address in this API", "{method} {path}");
            }
            assert_eq!(daemon.ask(None, &method, &real, "").status, 401, "{method} {path}");
        }
    }
}
