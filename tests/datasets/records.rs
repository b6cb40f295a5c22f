//! Environments, repositories, sources and groups beside real databases: what is kept of them is used, and refused
//! while it is in use.

use std::fs;

use serde_json::{Value, json};

use crate::lifecycle::{assert_secret_is_nowhere, wait_until_active};
use crate::stage::{PASSWORD, Stage, free_port};

const NEW_PASSWORD: &str = "another-s3cret";

impl Stage {
    fn add_source(&self, name: &str, group: &str) -> crate::common::Run {
        let port = self.source.port().to_string();
        self.run([
            "source",
            "add",
            "postgres",
            "--name",
            name,
            "--group",
            group,
            "--host",
            "127.0.0.1",
            "--port",
            &port,
            "--user",
            "repl",
            "-o",
            "json",
        ])
    }

    /// Links by the name of a source, without its password anywhere near.
    fn link_by_source(&self, name: &str, source: &str, group: &str) -> crate::common::Run {
        let port = free_port().to_string();
        self.fixture.run([
            "dsource",
            "link",
            "postgres",
            "--name",
            name,
            "--group",
            group,
            "--initiated-backup",
            "--source",
            source,
            "--staging-port",
            &port,
        ])
    }

    fn event_messages(&self, kind: &str) -> Vec<String> {
        let list = self.json(["event", "list"]);
        let found = list.as_array().unwrap().iter().filter(|event| event["kind"] == kind);
        found.map(|event| event["message"].as_str().unwrap().to_owned()).collect()
    }

    /// The repository that a dataset runs with.
    fn repository_of(&self, dataset: &str) -> Value {
        let list = self.json(["repository", "list"]);
        let runs = |one: &&Value| one["datasets"].as_array().unwrap().contains(&json!(dataset));
        list.as_array().unwrap().iter().find(runs).unwrap_or_else(|| panic!("{dataset}: {list}")).clone()
    }
}

#[test]
fn a_dsource_is_linked_by_its_source_and_keeps_it() {
    let stage = Stage::new();
    let wrong = stage.fixture.path("wrong");
    fs::write(&wrong, "wrong\n").unwrap();
    let port = stage.source.port().to_string();
    let add = [
        "source",
        "add",
        "postgres",
        "--name",
        "crm",
        "--host",
        "127.0.0.1",
        "--port",
        &port,
        "--user",
        "repl",
    ];
    let with_file = add.iter().copied().chain(["--password-file", wrong.to_str().unwrap()]);
    stage.fixture.run(with_file).fails_with(12, &["source crm", "check the password", "repl"]);
    assert_eq!(stage.json(["source", "list"]), json!([]));
    stage.link_by_source("shop", "crm", "sales").fails_with(10, &["no source crm", "source list"]);

    let added = stage.add_source("crm", "sales").json();
    let identity = stage.source.query("SELECT system_identifier FROM pg_control_system()");
    assert_eq!(added["identity"], identity.trim(), "{added}");
    assert!(added["size_bytes"].as_u64().unwrap() > 1 << 20 && added["has_password"] == true, "{added}");
    assert_eq!(stage.event_messages("GROUP_CREATED"), ["group sales was made"]);
    stage.add_source("crm", "sales").fails_with(11, &["a source crm already"]);
    let link = stage.link_by_source("shop", "crm", "ops");
    assert_eq!(link.status, 0, "{link:?}\n{}", stage.daemon_log());
    let shown = stage.json(["dsource", "show", "shop"]);
    assert_eq!((&shown["source"], &shown["group"]), (&json!("crm"), &json!("ops")));
    assert_eq!(stage.json(["source", "show", "crm"])["datasets"], json!(["shop"]));
    stage.run(["source", "remove", "crm"]).fails_with(11, &["source of shop"]);
    stage.run(["group", "remove", "ops"]).fails_with(11, &["datasets shop"]);
    assert_eq!(stage.json(["group", "rename", "ops", "operations"])["datasets"], json!(["shop"]));
    assert_eq!(stage.json(["dsource", "show", "shop"])["group"], "operations");
    assert_secret_is_nowhere(&stage);

    // A new password is given to the source once, and taken over from there.
    stage.source.query(&format!("ALTER ROLE repl PASSWORD '{NEW_PASSWORD}'"));
    stage.run(["source", "check", "crm"]).fails_with(12, &["source crm", "check the password"]);
    let file = stage.fixture.path("password");
    fs::write(&file, format!("{NEW_PASSWORD}\n")).unwrap();
    let configure = ["source", "configure", "crm", "--password-file", file.to_str().unwrap()];
    let told = stage.ok(configure);
    assert!(told.contains("dsource configure shop --source crm"), "{told}");
    stage.fixture.ok(["source", "check", "crm"]);
    stage.fixture.ok(["dsource", "configure", "shop", "--source", "crm"]);
    stage.fixture.ok(["dsource", "snapshot", "shop"]);
    let elsewhere = ["source", "configure", "crm", "--host", "localhost"];
    stage.fixture.run(elsewhere).fails_with(2, &["repl at 127.0.0.1", "alone"]);

    // A restart changes nothing; an address by hand lets go of the source.
    stage.stop_daemon();
    stage.start_daemon();
    wait_until_active(&stage, "shop");
    assert_eq!(stage.json(["dsource", "show", "shop"])["source"], "crm");
    stage.fixture.ok(["dsource", "detach", "shop"]);
    assert_eq!(stage.json(["dsource", "show", "shop"])["source"], "crm");
    let by_hand = ["dsource", "attach", "shop", "--source-host", "localhost"];
    stage.fixture.ok(by_hand);
    assert_eq!(stage.json(["dsource", "show", "shop"])["source"], Value::Null);
    stage.ok(["source", "remove", "crm"]);
    stage.run(["source", "show", "crm"]).fails_with(10, &["no source crm"]);
    stage.ok(["dsource", "delete", "shop", "--yes"]);
    stage.ok(["group", "remove", "operations"]);
    assert_secret_is_nowhere(&stage);
    let secrets = fs::read_dir(stage.state_path().join("secrets")).unwrap().count();
    assert_eq!(secrets, 0, "a removed source's password stays");
    assert!(!stage.daemon_log().contains(PASSWORD));
}

#[test]
fn a_disabled_repository_is_not_chosen_and_an_added_one_is() {
    let stage = Stage::new();
    let environments = stage.json(["environment", "list"]);
    let host = environments[0]["name"].as_str().unwrap().to_owned();
    assert_eq!(environments.as_array().unwrap().len(), 1, "{environments}");
    assert!(!environments[0]["repositories"].as_array().unwrap().is_empty(), "{environments}");
    stage.run(["environment", "show", "elsewhere"]).fails_with(10, &["no environment elsewhere"]);
    let run = stage.link("shop");
    assert_eq!(run.status, 0, "{run:?}\n{}", stage.daemon_log());
    let packaged = stage.repository_of("shop");
    let name = packaged["name"].as_str().unwrap();
    let programs = packaged["programs"].as_str().unwrap();
    stage.run(["repository", "remove", name]).fails_with(11, &["runs shop"]);

    // Across a restart, what runs with it goes on, and nothing new does.
    stage.ok(["repository", "disable", name]);
    stage.stop_daemon();
    stage.start_daemon();
    wait_until_active(&stage, "shop");
    stage.ok(["dsource", "snapshot", "shop"]);
    let provision = ["vdb", "provision", "--name", "qa", "--from", "shop"];
    stage.run(provision).fails_with(13, &[programs, "is disabled", "repository list"]);
    stage.link("other").fails_with(13, &[programs, "is disabled"]);
    assert_eq!(stage.volumes().iter().filter(|volume| volume.starts_with("other")).count(), 0);

    // Another folder of the same version takes its place.
    let own = stage.fixture.path("own");
    fs::create_dir(&own).unwrap();
    stage.run(["repository", "add", "--path", own.to_str().unwrap()]).fails_with(13, &["bin/postgres"]);
    std::os::unix::fs::symlink(programs, own.join("bin")).unwrap();
    let added = stage.json(["repository", "add", "--path", own.to_str().unwrap()]);
    let other = added[0]["name"].as_str().unwrap();
    assert_eq!(other, format!("{name}-2"));
    stage.ok(provision);
    assert_eq!(stage.repository_of("qa")["name"], other);
    assert_eq!(stage.number(stage.port("qa"), "SELECT 1"), 1);
    stage.run(["repository", "remove", other]).fails_with(11, &["runs qa"]);
    stage.ok(["repository", "enable", name]);
    stage.ok(["vdb", "delete", "qa", "--yes"]);

    // One that is gone is told, and can be forgotten.
    fs::remove_file(own.join("bin")).unwrap();
    let found = stage.json(["environment", "refresh", &host]);
    let gone = found.as_array().unwrap().iter().find(|one| one["name"] == other).unwrap();
    assert_eq!(gone["present"], false, "{gone}");
    stage.ok(["repository", "remove", other]);
    stage.run(["repository", "enable", other]).fails_with(10, &["no repository"]);
    stage.run(["repository", "remove", name]).fails_with(11, &["runs shop"]);
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    assert_eq!(stage.repository_of("qa")["name"], name);
}
