//! What a VDB's users get: a role and password of its own, other names for databases, and its files.

use std::fs;

use crate::common::Run;
use crate::common::postgres::Server;
use crate::stage::Stage;

const PASSWORD: &str = "it's \\ own3r-s3cret";

#[test]
fn a_vdb_has_an_owner_of_its_own_that_refreshes_keep() {
    let stage = Stage::new();
    stage.source.query("CREATE DATABASE shop");
    let run = stage.link("prod");
    assert_eq!(run.status, 0, "{run:?}\n{}", stage.daemon_log());
    let file = stage.fixture.path("owner-password");
    fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    stage.ok([
        "vdb",
        "provision",
        "--name",
        "qa",
        "--from",
        "prod",
        "--owner",
        "Qa Owner",
        "--owner-password-file",
        file.to_str().unwrap(),
        "--rename-database",
        "shop=qa_shop",
        "--set",
        "log_statement=all",
    ]);
    let port = stage.port("qa");
    let names = "SELECT datname, pg_get_userbyid(datdba) FROM pg_database WHERE datname LIKE '%shop'";
    let ask = |sql: &str| {
        let run = Stage::try_ask(port, "Qa Owner", PASSWORD, sql);
        assert_eq!(run.status, 0, "{run:?}");
        run.stdout.trim().to_owned()
    };
    assert_eq!(ask(names), "qa_shop|Qa Owner");
    let env = stage.ok(["vdb", "env", "qa"]);
    assert!(env.contains("PGUSER='Qa Owner'"), "{env}");
    stage.source.query("CREATE DATABASE later_shop");
    stage.ok(["dsource", "snapshot", "prod"]);
    stage.ok(["vdb", "refresh", "qa"]);
    assert_eq!(ask("SELECT count(*) FROM pg_database WHERE datname IN ('qa_shop', 'later_shop')"), "2");
    // The source's own password of a role is as it was, and ours is in no log.
    assert_eq!(stage.ask(port, "SELECT 1"), "1");
    for entry in fs::read_dir(stage.state_path().join("instances")).unwrap().flatten() {
        let log = fs::read_to_string(entry.path().join("server.log")).unwrap_or_default();
        assert!(!log.contains("own3r-s3cret"), "{log}");
    }

    // Its files start without the store.
    let to = stage.fixture.path("exported");
    stage.run(["vdb", "export", "prod", "--to", to.to_str().unwrap()]).fails_with(13, &["provision a VDB"]);
    stage.ok(["vdb", "export", "qa", "--to", to.to_str().unwrap()]);
    stage.run(["vdb", "export", "qa", "--to", to.to_str().unwrap()]).fails_with(11, &["not empty"]);
    let rules = "local all all trust\n";
    fs::write(to.join("data/pg_hba.conf"), rules).unwrap();
    let exported = Server::start_on_network(&to.join("data"));
    let mut psql = exported.client("psql");
    let run = Run::of(psql.args(["-d", "qa_shop", "-XAtqc", "SELECT 1"]));
    assert_eq!(run.stdout.trim(), "1", "{run:?}");
}
