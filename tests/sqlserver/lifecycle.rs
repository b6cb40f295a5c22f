//! A staging database from its link to a VDB, and what becomes of both.

use stillpoint_tds_server::instance::DatabaseState;

use crate::stage::{PASSWORD, Stage};

#[test]
fn staging_push_from_link_to_vdb() {
    let stage = Stage::new();
    let full = stage.production("prod", &["one", "two"]);
    let run = stage.link("shop", "shop_staging");
    assert_eq!(run.status, 3, "{run:?}\n{}", stage.daemon_log());
    assert_eq!(stage.instance.state_of("shop_staging"), Some(DatabaseState::Online));
    let first = stage.snapshots("shop");
    assert_eq!((first.len(), &first[0]["provisionable"]), (1, &false.into()), "{first:?}");
    stage
        .run(&["vdb", "provision", "--name", "qa", "--from", "shop"])
        .fails_with(13, &["it is empty", "shop_staging"]);

    // Whoever keeps it in sync restores; nothing new is no snapshot.
    stage.restore_full("shop", "shop_staging", "prod", &full);
    stage.ok(["dsource", "snapshot", "shop"]);
    let run = stage.run(&["dsource", "snapshot", "shop"]);
    assert_eq!(run.status, 3, "{run:?}");
    assert!(run.stdout.contains("is in a snapshot already"), "{run:?}");
    assert_eq!(stage.snapshots("shop").len(), 2);

    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    assert_eq!(stage.instance.state_of("qa"), Some(DatabaseState::Online));
    assert_eq!(stage.rows("qa"), ["one", "two"]);
    assert_eq!(stage.instance.state_of("shop_staging"), Some(DatabaseState::Restoring), "it is left alone");

    // The next log goes on from where the staging database is; the VDB is its own.
    assert!(stage.instance.commit("prod", "three", None));
    let log = stage.backup("prod", "log");
    stage.good(&format!("RESTORE LOG [shop_staging] FROM DISK = N'{log}' WITH NORECOVERY"));
    assert!(stage.instance.commit("qa", "mine", None));
    stage.ok(["dsource", "snapshot", "shop"]);
    assert_eq!(stage.rows("qa"), ["one", "two", "mine"]);
    stage.ok(["vdb", "refresh", "qa"]);
    assert_eq!(stage.rows("qa"), ["one", "two", "three"]);
    stage.ok(["vdb", "undo", "qa"]);
    assert_eq!(stage.rows("qa"), ["one", "two", "mine"]);

    // Its own snapshot is one of held writes, and a VDB of it attaches.
    stage.ok(["vdb", "snapshot", "qa"]);
    assert_eq!(stage.instance.frozen(), Vec::<String>::new());
    let own = stage.snapshots("qa").pop().unwrap();
    assert_eq!(
        (&own["metadata"]["frozen"], &own["metadata"]["state"]),
        (&true.into(), &"ONLINE".into()),
        "{own}"
    );
    stage.ok(["vdb", "provision", "--name", "child", "--from", "qa"]);
    assert_eq!(stage.rows("child"), ["one", "two", "mine"]);
    assert!(stage.instance.commit("qa", "later", None));
    let name = own["snapshot"].as_str().unwrap().split_once('@').unwrap().1.to_owned();
    stage.ok(["vdb", "rewind", "qa", "--to", &name]);
    assert_eq!(stage.rows("qa"), ["one", "two", "mine"]);
    stage.ok(["timeflow", "verify", own["snapshot"].as_str().unwrap()]);

    stage.ok(["vdb", "stop", "child"]);
    assert_eq!(stage.instance.state_of("child"), None);
    stage.ok(["vdb", "start", "child"]);
    assert_eq!(stage.rows("child"), ["one", "two", "mine"]);
    let env = stage.ok(["vdb", "env", "child"]);
    assert!(env.contains("SQLCMDDBNAME='child'") && !env.contains(PASSWORD), "{env}");

    for name in ["child", "qa"] {
        stage.ok(["vdb", "delete", name, "--yes"]);
        assert_eq!(stage.instance.state_of(name), None);
    }
    stage.ok(["dsource", "delete", "shop", "--yes"]);
    assert_eq!(stage.instance.state_of("shop_staging"), None);
    assert_eq!(stage.json(["volume", "list"]), serde_json::json!([]));
}

#[test]
fn a_disabled_staging_database_goes_on_where_it_was() {
    let (stage, _) = Stage::restored();
    let before = stage.instance.restore_position("shop_staging").unwrap();
    stage.ok(["dsource", "disable", "shop"]);
    assert_eq!(stage.instance.state_of("shop_staging"), None);
    stage.ok(["dsource", "enable", "shop"]);
    assert_eq!(stage.instance.restore_position("shop_staging").unwrap(), before);
    assert!(stage.instance.commit("prod", "two", None));
    let log = stage.backup("prod", "log");
    stage.good(&format!("RESTORE LOG [shop_staging] FROM DISK = N'{log}' WITH NORECOVERY"));
    stage.ok(["dsource", "snapshot", "shop"]);
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    assert_eq!(stage.rows("qa"), ["one", "two"]);

    // Somebody made a database of that name meanwhile: the storage is there, and the job says what was left out.
    stage.ok(["dsource", "disable", "shop"]);
    stage.good("CREATE DATABASE [shop_staging]");
    let run = stage.run(&["dsource", "enable", "shop"]);
    assert_eq!(run.status, 3, "{run:?}");
    assert!(run.stdout.contains("SKIP_ATTACH_OPERATION"), "{run:?}");
    stage.good("DROP DATABASE [shop_staging]");
    stage.ok(["dsource", "disable", "shop"]);
    stage.ok(["dsource", "enable", "shop"]);
    assert_eq!(stage.instance.state_of("shop_staging"), Some(DatabaseState::Restoring));
}

#[test]
fn a_daemon_that_comes_back_takes_its_databases_up() {
    let (stage, _) = Stage::restored();
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    stage.stop_daemon();
    assert_eq!(stage.instance.state_of("qa"), None);
    stage.start_daemon();
    while stage.instance.state_of("qa") != Some(DatabaseState::Online)
        || stage.instance.state_of("shop_staging") != Some(DatabaseState::Restoring)
    {
        std::thread::yield_now();
    }
    assert_eq!(stage.rows("qa"), ["one"]);
    assert!(stage.instance.commit("qa", "two", None));
    stage.ok(["vdb", "snapshot", "qa"]);
}

#[test]
fn a_detached_dsource_provisions_and_is_attached_under_another_name() {
    let (stage, _) = Stage::restored();
    let files = stage.snapshots("shop")[1]["metadata"]["files"].clone();
    stage.ok(["dsource", "detach", "shop"]);
    assert_eq!(stage.instance.state_of("shop_staging"), None);
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    assert_eq!(stage.rows("qa"), ["one"]);
    stage.ok(["dsource", "attach", "shop", "--staging-database", "shop_again"]);
    assert_eq!(stage.instance.state_of("shop_again"), Some(DatabaseState::Restoring));
    assert!(stage.instance.commit("prod", "two", None));
    let log = stage.backup("prod", "log");
    stage.good(&format!("RESTORE LOG [shop_again] FROM DISK = N'{log}' WITH NORECOVERY"));
    stage.ok(["dsource", "snapshot", "shop"]);
    // The files are called as before.
    assert_eq!(stage.snapshots("shop")[2]["metadata"]["files"], files);
    stage.ok(["vdb", "refresh", "qa"]);
    assert_eq!(stage.rows("qa"), ["one", "two"]);
    stage.run(&["dsource", "resync", "shop"]).fails_with(13, &["staging push", "restore a full backup"]);
    stage.run(&["dsource", "configure", "shop", "--set", "a=b"]).fails_with(2, &["no settings"]);
}

#[test]
fn a_hook_restores_what_came() {
    let (stage, full) = Stage::linked();
    // As sqlcmd would do it, with a client that this host has.
    let script = stage.fixture.path("restore.sh");
    let text = format!(
        "set -e\nfolder=$STAGING_MOUNT_BASE/DATA/db\n\
         printf '%s\\ngo\\n' \"RESTORE DATABASE [$STAGING_DATABASE_NAME] FROM DISK = N'{full}' WITH NORECOVERY, REPLACE, \
         MOVE N'prod' TO N'$folder/s.mdf', MOVE N'prod_log' TO N'$folder/s.ldf'\" |\n\
         tsql -H 127.0.0.1 -p \"${{CONNECT_STRING#*,}}\" -U \"$SQLCMDUSER\" -P \"$SQLCMDPASSWORD\"\n"
    );
    std::fs::write(&script, text).unwrap();
    let script = script.to_str().unwrap().to_owned();
    stage.ok([
        "hook", "add", "shop", "--point", "pre_sync", "--name", "restore", "--script", &script, "--user",
        "root",
    ]);
    let run = stage.run(&["dsource", "snapshot", "shop"]);
    assert_eq!(run.status, 0, "{run:?}");
    assert_eq!(stage.instance.state_of("shop_staging"), Some(DatabaseState::Restoring));
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    assert_eq!(stage.rows("qa"), ["one"]);
    // What a user sees of it all, with --nocapture.
    for job in stage.json(["job", "list"]).as_array().unwrap() {
        println!(
            "{} of {}:\n{}",
            job["kind"],
            job["target"],
            stage.ok(["job", "log", &job["id"].to_string()])
        );
    }
}

#[test]
fn what_an_interrupted_operation_left_is_put_right() {
    let (stage, _) = Stage::restored();
    let before = stage.instance.restore_position("shop_staging").unwrap();
    let volume = stage.volume("shop");
    let (aside, folder) = (volume.join("DATA/aside"), volume.join("DATA/db"));
    let goes_on = || {
        stage.ok(["dsource", "enable", "shop"]);
        assert_eq!(stage.instance.restore_position("shop_staging").unwrap(), before);
        assert!(!aside.exists());
    };

    // Before the drop, and somebody restored since: what lies aside is old.
    std::fs::create_dir(&aside).unwrap();
    std::fs::write(aside.join("1"), "old").unwrap();
    stage.ok(["dsource", "disable", "shop"]);
    goes_on();
    // After the drop.
    stage.ok(["dsource", "disable", "shop"]);
    std::fs::create_dir(&aside).unwrap();
    let places = [(1, "shop_staging.mdf"), (2, "shop_staging_log.ldf")];
    for (number, file) in places {
        std::fs::rename(folder.join(file), aside.join(number.to_string())).unwrap();
    }
    goes_on();
    // After the new database was made, which has the files' places.
    stage.ok(["dsource", "disable", "shop"]);
    std::fs::create_dir(&aside).unwrap();
    for (number, file) in places {
        std::fs::rename(folder.join(file), aside.join(number.to_string())).unwrap();
    }
    let shown = folder.display();
    stage.good(&format!(
        "CREATE DATABASE [shop_staging] ON PRIMARY (NAME = N'prod', FILENAME = N'{shown}/shop_staging.mdf') \
         LOG ON (NAME = N'prod_log', FILENAME = N'{shown}/shop_staging_log.ldf')"
    ));
    goes_on();
    // In the middle of putting them under it.
    stage.ok(["dsource", "disable", "shop"]);
    std::fs::create_dir(&aside).unwrap();
    for (number, file) in places {
        std::fs::rename(folder.join(file), aside.join(number.to_string())).unwrap();
    }
    stage.good(&format!(
        "CREATE DATABASE [shop_staging] ON PRIMARY (NAME = N'prod', FILENAME = N'{shown}/shop_staging.mdf') \
         LOG ON (NAME = N'prod_log', FILENAME = N'{shown}/shop_staging_log.ldf'); \
         ALTER DATABASE [shop_staging] SET OFFLINE WITH ROLLBACK IMMEDIATE"
    ));
    std::fs::rename(aside.join("1"), folder.join("shop_staging.mdf")).unwrap();
    goes_on();
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    assert_eq!(stage.rows("qa"), ["one"]);
}

#[test]
fn a_changed_password_reaches_the_vdbs() {
    let (stage, _) = Stage::restored();
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    stage.ok(["vdb", "snapshot", "qa"]);
    stage.ok(["vdb", "provision", "--name", "child", "--from", "qa"]);
    let file = stage.fixture.path("password");
    std::fs::write(&file, "an0ther-s3cret").unwrap();
    let file = file.to_str().unwrap();
    let configure = ["dsource", "configure", "shop", "--password-file", file];
    stage.run(&configure).fails_with(12, &["check user and password"]);
    stage.good("ALTER LOGIN [stage] WITH PASSWORD = N'an0ther-s3cret'");
    stage.run(&["vdb", "stop", "child"]).fails_with(12, &["Login failed"]);
    stage.ok(configure);
    assert_eq!(stage.instance.state_of("shop_staging"), Some(DatabaseState::Restoring));
    for name in ["qa", "child"] {
        stage.ok(["vdb", "stop", name]);
        stage.ok(["vdb", "start", name]);
        assert_eq!(stage.rows(name), ["one"]);
    }
}
