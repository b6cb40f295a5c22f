//! Events as they happen, over TCP and by the command line; streams end with the daemon.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;
use stillpoint::base::Clock;

use crate::client::{Daemon, Reading};

/// The next event of a stream: its id and what it says.
fn next(stream: &mut Reading) -> Option<(u64, Value)> {
    loop {
        let chunk = stream.chunk()?;
        let field = |name: &str| {
            chunk.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
        };
        if let (Some(id), Some(data)) = (field("id"), field("data")) {
            assert_eq!(field("event").as_deref(), Some("event"), "{chunk}");
            return Some((id.parse().unwrap(), serde_json::from_str(&data).unwrap()));
        }
    }
}

#[test]
fn events_come_as_they_happen_and_again_after_a_break() {
    let daemon = Daemon::start(&["--listen", "127.0.0.1:0"]);
    let all = daemon.token("all", "viewer", &[]);
    let few = daemon.token("few", "viewer", &["shop"]);

    let mut stream = daemon.begin(Some(&all), "GET", "/v1/events/stream", "", &[]);
    assert_eq!(stream.status, 200, "{}", stream.head);
    assert!(stream.head.contains("text/event-stream"), "{}", stream.head);
    daemon.token("first", "viewer", &[]);
    let (first, event) = next(&mut stream).unwrap();
    assert_eq!((&event["kind"], &event["id"]), (&"TOKEN_CREATED".into(), &first.into()));
    daemon.token("second", "viewer", &[]);
    let (second, event) = next(&mut stream).unwrap();
    assert!(second > first && event["message"].as_str().unwrap().contains("second"), "{event}");
    drop(stream);

    // A token's end is its streams' end: of what happens then, nothing is told.
    let brief = daemon.token("brief", "viewer", &[]);
    let mut theirs = daemon.begin(Some(&brief), "GET", "/v1/events/stream", "", &[]);
    daemon.fixture.ok(["token", "revoke", "brief"]);
    let told: Vec<String> = std::iter::from_fn(|| theirs.chunk()).collect();
    assert!(told.iter().any(|chunk| chunk.contains("no longer valid")), "{told:?}");
    assert!(told.iter().all(|chunk| !chunk.contains("TOKEN_REVOKED")), "{told:?}");

    daemon.fixture.ok(["token", "revoke", "second"]);
    let id = first.to_string();
    let mut stream =
        daemon.begin(Some(&all), "GET", "/v1/events/stream?after=0", "", &[("last-event-id", &id)]);
    assert_eq!(next(&mut stream).unwrap().0, second);
    let kinds = [(); 3].map(|()| next(&mut stream).unwrap().1["kind"].clone());
    assert_eq!(kinds, ["TOKEN_CREATED", "TOKEN_REVOKED", "TOKEN_REVOKED"]);
    let mut from_start = daemon.begin(Some(&all), "GET", "/v1/events/stream?after=0", "", &[]);
    assert!(next(&mut from_start).unwrap().0 < first);

    // Of no group, so nothing for who is bound to one.
    let mut bound = daemon.begin(Some(&few), "GET", "/v1/events/stream?after=0", "", &[]);
    let mut waiting = daemon.begin(Some(&all), "GET", "/v1/events/stream", "", &[]);
    let clock = stillpoint::base::SystemClock;
    let started = clock.monotonic();
    daemon.stop();
    assert!((clock.monotonic() - started).as_secs() < 10, "open streams hold up the end");
    assert!(next(&mut bound).is_none());
    assert!(next(&mut waiting).is_none());
}

#[test]
fn the_command_line_watches_events() {
    let daemon = Daemon::start(&[]);
    daemon.fixture.ok(["token", "create", "first", "--role", "admin"]);
    let mut watch = daemon
        .fixture
        .command(["event", "watch", "--after", "0", "-o", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut read = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert!(read()["message"].as_str().unwrap().contains("first"));
    daemon.fixture.ok(["token", "revoke", "first"]);
    assert_eq!(read()["kind"], "TOKEN_REVOKED");
    daemon.stop();
    assert_eq!(watch.wait().unwrap().code(), Some(0));
    let fixture = &daemon.fixture;
    fixture.run(["event", "watch"]).fails_with(13, &["no daemon runs"]);
}

#[test]
fn a_removal_asked_for_again_finds_its_job() {
    let daemon = Daemon::start(&["--listen", "127.0.0.1:0"]);
    let words = ["--quiesce", "true", "--thaw", "true", "--user", "nobody", "--group", "shop"];
    let link = ["dsource", "link", "command", "--name", "app"];
    daemon.fixture.ok(link.into_iter().chain(words));
    let operator = daemon.token("operator", "operator", &["shop"]);
    let other = daemon.token("other", "operator", &["shop"]);
    let key = [("idempotency-key", "once")];
    let delete = |token: &str, headers: &[(&str, &str)]| {
        daemon.begin(Some(token), "DELETE", "/v1/datasets/app", "", headers).whole()
    };
    let job = delete(&operator, &key).json(202)["job"].clone();
    daemon.fixture.ok(["job", "watch", &job.to_string()]);
    assert_eq!(delete(&operator, &key).json(202)["job"], job);
    assert_eq!(delete(&operator, &[]).status, 404);
    assert_eq!(delete(&other, &key).status, 404);
}
