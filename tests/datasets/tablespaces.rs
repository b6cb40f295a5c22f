//! Tablespaces of a source on the same host: staging and VDBs have their own folders, and the source's stay as they are.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::common::postgres::give;
use crate::stage::Stage;

/// Every file below a folder, by inode and content.
fn contents(folder: &Path) -> BTreeMap<PathBuf, (u64, Vec<u8>)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            all.extend(contents(&path));
        } else {
            all.insert(path.clone(), (entry.metadata().unwrap().ino(), fs::read(&path).unwrap()));
        }
    }
    all
}

fn make_tablespace(stage: &Stage, name: &str) -> PathBuf {
    let folder = stage.fixture.path(name);
    fs::create_dir(&folder).unwrap();
    give(&folder);
    stage.source.query(&format!("CREATE TABLESPACE {name} LOCATION '{}'", folder.display()));
    stage
        .source
        .query(&format!("CREATE TABLE in_{name} TABLESPACE {name} AS SELECT generate_series(1, 5000) AS id"));
    folder
}

#[test]
fn tablespaces_made_before_and_after_the_link_never_meet_the_sources_files() {
    let stage = Stage::new();
    let early = make_tablespace(&stage, "early");
    let run = stage.link("shop");
    assert_eq!(run.status, 0, "{run:?}\n{}", stage.daemon_log());
    let late = make_tablespace(&stage, "late");
    stage.source.query("CHECKPOINT");
    let before = [contents(&early), contents(&late)];
    assert!(before.iter().all(|files| !files.is_empty()));

    // The record that makes the tablespace stops the standby, which is then started with a folder for it.
    let total =
        |port| stage.number(port, "SELECT (SELECT sum(id) FROM in_early) + (SELECT sum(id) FROM in_late)");
    let staging = u16::try_from(stage.json(["dsource", "show", "shop"])["port"].as_u64().unwrap()).unwrap();
    while Stage::try_ask(staging, "app", crate::stage::APP_PASSWORD, "SELECT 1 FROM in_late LIMIT 1").status
        != 0
    {}
    assert_eq!(total(staging), 2 * 12_502_500);
    stage.ok(["dsource", "snapshot", "shop"]);
    stage.ok(["vdb", "provision", "--name", "qa", "--from", "shop"]);
    let port = stage.port("qa");
    assert_eq!(total(port), 2 * 12_502_500);
    stage.ask(port, "UPDATE in_early SET id = 0");
    stage.ask(port, "UPDATE in_late SET id = 0");
    stage.ok(["vdb", "snapshot", "qa"]);
    assert_eq!(total(port), 0);

    stage.source.query("CHECKPOINT");
    assert!([contents(&early), contents(&late)] == before, "the source's files are not as they were");
    assert_eq!(stage.source.number("SELECT sum(id) FROM in_early"), 12_502_500);
    // And what they are on the volume.
    let volume = stage.json(["vdb", "show", "qa"])["volume"].as_str().unwrap().to_owned();
    let own = stage.fixture.mount_path().join(volume).join("tablespaces");
    assert_eq!(fs::read_dir(own).unwrap().count(), 2);
}
