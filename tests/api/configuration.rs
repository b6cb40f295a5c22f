//! The daemon's configuration file, checked, shown, and run with.

use crate::client::Daemon;
use crate::common::{Fixture, Run, stillpoint};

#[test]
fn a_file_is_checked_and_shown() {
    let fixture = Fixture::new();
    let file = fixture.path("stillpoint.toml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "store = \"store\"\nmount = \"mnt\"\njobs_max = 2\n").unwrap();
    fixture.ok(["config", "check", path]);
    let mut command = stillpoint();
    command.env("STILLPOINT_JOBS_MAX", "3").args(["config", "show", "--config", path, "-o", "json"]);
    let shown = Run::of(&mut command).json();
    let find = |key: &str| shown.as_array().unwrap().iter().find(|setting| setting["key"] == key).unwrap();
    assert_eq!(find("store")["value"], fixture.store_path().to_str().unwrap());
    assert_eq!(find("store")["from"], path);
    assert_eq!(find("jobs_max")["value"], "3");
    assert_eq!(find("jobs_max")["from"], "environment STILLPOINT_JOBS_MAX");
    assert_eq!(find("log_keep_days")["from"], "default");

    std::fs::write(&file, "store = \"store\"\nmuont = \"mnt\"\n").unwrap();
    fixture.run(["config", "check", path]).fails_with(2, &["line 2", "muont", path]);
    std::fs::write(&file, "listen = \"0.0.0.0:7433\"\n").unwrap();
    fixture.run(["config", "check", path]).fails_with(2, &["without TLS"]);
    fixture.run(["config", "check", "/no/such"]).fails_with(10, &["/no/such"]);
}

#[test]
fn a_daemon_runs_by_its_file() {
    let fixture = Fixture::new();
    let file = fixture.path("stillpoint.toml");
    let text = "store = \"store\"\nmount = \"mnt\"\nstate = \"state\"\nlisten = \"127.0.0.1:0\"\n";
    std::fs::write(&file, text).unwrap();
    let mut command = stillpoint();
    command.args(["daemon", "--background", "-o", "json", "--config", file.to_str().unwrap()]);
    // Paths are the file's, not the caller's.
    command.current_dir("/");
    let started = Run::of(&mut command).json();
    let url = started["api"].as_str().unwrap().to_owned();
    assert!(url.starts_with("http://127.0.0.1:"), "{started}");
    let daemon = Daemon { fixture, url, certificate: None };
    let token = daemon.token("t", "viewer", &[]);
    assert_eq!(daemon.ask(Some(&token), "GET", "/v1/vdbs", "").status, 200);
    assert!(daemon.fixture.path("state").join("jobs").is_dir());
}

#[test]
fn pages_of_the_manual_are_written() {
    let fixture = Fixture::new();
    let folder = fixture.path("man");
    fixture.ok(["man", folder.to_str().unwrap()]);
    let page = std::fs::read_to_string(folder.join("stillpoint-token-create.1")).unwrap();
    assert!(page.contains("stillpoint token create") || page.contains("token\\-create"), "{page}");
}
