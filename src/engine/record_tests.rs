//! Repositories, sources and groups as records: what is found and chosen, what uses them, and what is refused.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::policy_tests::Bench;
use super::sources::source_after;
use super::{ChangeRequest, Engine, NewSource, SourceChange, TokenRequest};
use crate::adapter::Secrets;
use crate::base::{ErrorKind, Result};
use crate::catalog::{Dataset, Event, Severity, SourceConfig, TokenRole};

const TIME: &str = "2026-11-20T12:00:00Z";

/// An installation that only tells its version.
fn install(programs: &Path, version: &str) {
    std::fs::create_dir_all(programs).unwrap();
    let server = programs.join("postgres");
    std::fs::write(&server, format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")).unwrap();
    std::fs::set_permissions(&server, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn run_shop_with(bench: &Bench, programs: &Path) {
    let config = json!({
        "major": 91, "programs": programs, "os_user": "postgres", "superuser": "postgres", "system_id": "1",
        "segment_bytes": 16_777_216, "settings": {}, "limits": {}, "tablespaces": [], "source": null, "slot": null,
    });
    let update = |dataset: &mut Dataset| dataset.config = config;
    bench.engine.catalog.change(|change| change.update::<Dataset>(bench.dataset.id, update)).unwrap();
}

/// Of what was found below the test's folder: name, version, present, enabled, datasets.
fn below(engine: &Engine, folder: &Path) -> Vec<(String, String, bool, bool, Vec<String>)> {
    let found = engine.repositories().unwrap().into_iter();
    let found = found.filter(|one| Path::new(&one.programs).starts_with(folder));
    found.map(|one| (one.name, one.version, one.present, one.enabled, one.datasets)).collect()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind, parts: &[&str]) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    let text = format!("{error} {}", error.hint().unwrap_or_default());
    assert!(parts.iter().all(|part| text.contains(part)), "{parts:?}: {text}");
}

#[test]
fn repositories_are_added_found_again_missed_and_removed() {
    let bench = Bench::at(TIME);
    let engine = &bench.engine;
    let folder = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| folder.path().join(name).join("bin"));
    refused(engine.add_repositories(folder.path()), ErrorKind::Precondition, &["bin/postgres"]);
    refused(engine.add_repositories(Path::new("one")), ErrorKind::Invalid, &["whole path"]);
    install(&one, "91.1");
    install(&two, "91.2");
    let added = engine.add_repositories(folder.path()).unwrap();
    assert!(added.iter().all(|one| one.added && one.enabled && one.present), "{added:?}");
    let row = |name: &str, version: &str, present| {
        (name.to_owned(), version.to_owned(), present, true, Vec::<String>::new())
    };
    let both = [row("postgres-91", "91.1", true), row("postgres-91-2", "91.2", true)];
    assert_eq!(below(engine, folder.path()), both);
    refused(engine.add_repositories(&one), ErrorKind::Exists, &["known already", "postgres-91"]);

    // A new version keeps its name, what is gone is told and stays known, and what the first look finds is no news.
    engine.refresh_own_environment().unwrap();
    let found =
        |engine: &Engine| engine.catalog.select(|event: &Event| event.kind == "REPOSITORY_FOUND").unwrap();
    assert!(found(engine).is_empty());
    install(&one, "91.7");
    std::fs::remove_dir_all(&two).unwrap();
    engine.refresh_own_environment().unwrap();
    let changed = [row("postgres-91", "91.7", true), row("postgres-91-2", "91.2", false)];
    assert_eq!(below(engine, folder.path()), changed);
    let gone = engine.catalog.select(|event: &Event| event.kind == "REPOSITORY_GONE").unwrap();
    assert!(gone.len() == 1 && gone[0].severity == Severity::Warning, "{gone:?}");
    assert!(gone[0].message.contains("postgres-91-2"), "{gone:?}");

    install(&two, "91.2");
    engine.refresh_own_environment().unwrap();
    assert_eq!(below(engine, folder.path())[1], both[1]);
    assert!(found(engine)[0].message.contains("postgres-91-2"));
    std::fs::remove_dir_all(&two).unwrap();
    engine.refresh_own_environment().unwrap();

    run_shop_with(&bench, &one);
    refused(engine.remove_repository("postgres-91"), ErrorKind::InUse, &["runs shop", "disable"]);
    engine.remove_repository("postgres-91-2").unwrap();
    run_shop_with(&bench, &PathBuf::from("/elsewhere"));
    engine.remove_repository("postgres-91").unwrap();
    engine.refresh_own_environment().unwrap();
    assert_eq!(below(engine, folder.path()), []);
    refused(engine.repository("postgres-91"), ErrorKind::NotFound, &["repository list"]);
}

#[test]
fn a_disabled_repository_is_chosen_for_no_vdb_and_runs_what_it_ran() {
    let bench = Bench::at(TIME);
    let engine = &bench.engine;
    let folder = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| folder.path().join(name).join("bin"));
    install(&one, "91.1");
    engine.add_repositories(&one).unwrap();
    run_shop_with(&bench, &one);
    assert_eq!(engine.set_repository_enabled("postgres-91", false).unwrap().datasets, ["shop"]);
    let parent = engine.dataset("shop").unwrap().config;
    let metadata = json!({
        "system_id": "1", "version": "91.1", "major": 91, "catalog_version": "1", "cluster_state": "", "timeline": 1,
        "replay_lsn": "0/1", "receive_lsn": null, "redo_lsn": "0/1", "redo_wal_file": "", "minimum_recovery_lsn": "0/0",
        "checkpoint_time": "", "last_commit_time": null, "data_checksum_version": 0, "segment_bytes": 16_777_216,
        "wal_level": "replica", "limits": {}, "tablespaces": [], "collation_versions": {}, "mode": "stopped",
    });
    let adapter = engine.adapter("postgres").unwrap();
    let programs = |config: Value| PathBuf::from(config["programs"].as_str().unwrap());
    let plan = || adapter.plan_vdb(&parent, &metadata, &Default::default());
    refused(plan(), ErrorKind::Precondition, &["PostgreSQL 91", one.to_str().unwrap(), "is disabled"]);
    // A VDB that runs with it goes on with it.
    assert_eq!(programs(adapter.plan_refresh(&parent, &parent, &metadata).unwrap()), one);
    install(&two, "91.2");
    engine.add_repositories(&two).unwrap();
    assert_eq!(programs(plan().unwrap()), two);
    engine.set_repository_enabled("postgres-91", true).unwrap();
    assert_eq!(programs(plan().unwrap()), one);
    // Told again at each start.
    engine.set_repository_enabled("postgres-91", false).unwrap();
    adapter.use_repositories(Vec::new(), Vec::new());
    assert_eq!(programs(plan().unwrap()), one);
    engine.open_environment().unwrap();
    assert_eq!(programs(plan().unwrap()), two);
}

fn source(name: &str, group: &str) -> SourceConfig {
    serde_json::from_value(json!({
        "id": 900 + name.len(), "name": name, "group": group, "adapter": "postgres", "host": "127.0.0.1", "port": 9,
        "user": "repl", "database": "postgres", "tls": "prefer", "ca": null, "created": TIME, "version": "15.1", "identity": "7",
        "size_bytes": null, "checked": TIME,
    }))
    .unwrap()
}

#[test]
fn the_host_is_an_environment_and_a_source_on_it_a_role_of_it() {
    let bench = Bench::at(TIME);
    let found = bench.engine.environments().unwrap();
    let [here] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(here.roles, ["staging", "target"]);
    bench.engine.catalog.change(|change| change.put(&source("crm", "default"))).unwrap();
    let here = bench.engine.environment(&here.name).unwrap();
    assert_eq!(here.roles, ["source", "staging", "target"]);
    refused(bench.engine.environment("elsewhere"), ErrorKind::NotFound, &["environment list"]);
}

#[test]
fn a_source_is_kept_while_a_dsource_names_it() {
    let bench = Bench::at(TIME);
    let engine = &bench.engine;
    let (crm, erp) = (source("crm", "default"), source("erp-2", "default"));
    engine.catalog.change(|change| change.put(&crm).and_then(|()| change.put(&erp))).unwrap();
    let after = |request: ChangeRequest| {
        let shop = Dataset { source: Some(crm.id), ..bench.dataset.clone() };
        engine.catalog.change(|change| source_after(change, &shop, &request))
    };
    assert_eq!(after(ChangeRequest::default()).unwrap(), Some(crm.id));
    let named = |name: &str| ChangeRequest { source: Some(name.into()), ..Default::default() };
    assert_eq!(after(named("erp-2")).unwrap(), Some(erp.id));
    refused(after(named("nix")), ErrorKind::NotFound, &["no source nix"]);
    let by_hand = json!({ "source": { "host": "db9" } });
    assert_eq!(after(ChangeRequest { parameters: by_hand, ..Default::default() }).unwrap(), None);

    engine
        .catalog
        .change(|change| change.update::<Dataset>(bench.dataset.id, |shop| shop.source = Some(crm.id)))
        .unwrap();
    refused(engine.remove_source("crm"), ErrorKind::InUse, &["source of shop"]);
    engine.remove_source("erp-2").unwrap();
    refused(engine.remove_source("erp-2"), ErrorKind::NotFound, &["source list"]);
}

#[test]
fn a_password_goes_to_its_own_address_alone() {
    let bench = Bench::at(TIME);
    let engine = &bench.engine;
    let crm = source("crm", "default");
    engine.catalog.change(|change| change.put(&crm)).unwrap();
    let password = |text: &str| Secrets([("source_password".to_owned(), text.to_owned())].into());
    engine.secrets.put(crm.id, &password("hidden")).unwrap();
    for change in [
        SourceChange { host: Some("db9".into()), ..Default::default() },
        SourceChange { port: Some(7), ..Default::default() },
        SourceChange { user: Some("other".into()), ..Default::default() },
        SourceChange { tls: Some("disable".into()), ..Default::default() },
    ] {
        refused(engine.configure_source("crm", change), ErrorKind::Invalid, &["repl at 127.0.0.1:9 alone"]);
    }
    refused(
        engine.configure_source("crm", SourceChange::default()),
        ErrorKind::Invalid,
        &["what is to change"],
    );
    // What a dataset had for another source does not go to one that has no password.
    let change = ChangeRequest { source: Some("crm".into()), parameters: json!({}), ..Default::default() };
    let taken = engine.change_with_source(&bench.dataset, &change).unwrap();
    assert_eq!(taken.secrets.get("source_password"), Some("hidden"));
    assert_eq!(
        taken.parameters["source"],
        json!({ "host": "127.0.0.1", "port": 9, "user": "repl", "database": "postgres", "tls": "prefer", "ca": null })
    );
    engine.secrets.remove(crm.id).unwrap();
    let taken = engine.change_with_source(&bench.dataset, &change).unwrap();
    assert_eq!(taken.secrets.get("source_password"), Some(""));
    let both = ChangeRequest { secrets: password("x"), ..change.clone() };
    refused(engine.change_with_source(&bench.dataset, &both), ErrorKind::Invalid, &["leave out"]);
    let other = Dataset { adapter: "command".into(), ..bench.dataset.clone() };
    refused(engine.change_with_source(&other, &change), ErrorKind::Invalid, &["adapter postgres"]);
}

#[test]
fn what_is_no_source_is_not_kept() {
    let bench = Bench::at(TIME);
    let new = |host: &str, port: u16| NewSource {
        name: "crm".into(),
        group: "sales".into(),
        adapter: "postgres".into(),
        host: host.into(),
        port,
        user: "repl".into(),
        database: "postgres".into(),
        tls: "prefer".into(),
        ca: None,
        password: Some("hidden".into()),
    };
    assert!(!format!("{:?}", new("db", 1)).contains("hidden"));
    for (host, port) in [("", 1), ("a b", 1), ("a\nb", 1), ("db", 0)] {
        refused(bench.engine.add_source(new(host, port)), ErrorKind::Invalid, &["source crm"]);
    }
    let odd = NewSource { name: "a/b".into(), ..new("db", 1) };
    refused(bench.engine.add_source(odd), ErrorKind::Invalid, &["no name for a source"]);
    let odd = NewSource { group: "a b".into(), ..new("db", 1) };
    refused(bench.engine.add_source(odd), ErrorKind::Invalid, &["no name for a group"]);
    let odd = NewSource { adapter: "nix".into(), ..new("db", 1) };
    refused(bench.engine.add_source(odd), ErrorKind::Invalid, &["no adapter nix"]);
    assert!(bench.engine.sources().unwrap().is_empty());
    assert!(bench.engine.groups().unwrap().iter().all(|group| group.name != "sales"));
}

#[test]
fn a_group_is_renamed_wherever_it_is_named_and_removed_when_it_is_empty() {
    let bench = Bench::at(TIME);
    let engine = &bench.engine;
    let groups = vec!["other".to_owned(), "default".to_owned()];
    let token = TokenRequest { name: "ci".into(), role: TokenRole::User, groups, lifetime: None };
    engine.create_token(&token).unwrap();
    engine.catalog.change(|change| change.put(&source("crm", "default"))).unwrap();
    engine.event(Severity::Info, "TEST", Some(bench.dataset.id), None, "of shop");
    refused(engine.create_group("other"), ErrorKind::Exists, &["group other already"]);
    refused(engine.create_group("a b"), ErrorKind::Invalid, &["no name for a group"]);
    refused(engine.rename_group("default", "other"), ErrorKind::Exists, &["a group other already"]);
    refused(engine.rename_group("nix", "new"), ErrorKind::NotFound, &["no group nix"]);
    let token = engine.tokens().unwrap().pop().unwrap();
    assert!(engine.token_is_valid(token.id, &token.groups).unwrap());
    let shop = engine.rename_group("default", "sales").unwrap();
    assert_eq!(
        (shop.datasets, shop.sources, shop.tokens),
        (vec!["shop".to_owned()], vec!["crm".into()], vec!["ci".into()])
    );
    assert_eq!(engine.dataset("shop").unwrap().group, "sales");
    assert_eq!(engine.tokens().unwrap()[0].groups, ["other", "sales"]);
    assert!(!engine.token_is_valid(token.id, &token.groups).unwrap(), "a stream of before goes on");
    let of = |group: &str| {
        engine.catalog.select(|event: &Event| event.group.as_deref() == Some(group)).unwrap().len()
    };
    assert_eq!((of("default"), of("sales")), (0, 1));

    let full = ["datasets shop", "sources crm", "tokens ci"];
    refused(engine.remove_group("sales"), ErrorKind::InUse, &full);
    engine.revoke_token("ci").unwrap();
    engine.remove_source("crm").unwrap();
    refused(engine.remove_group("sales"), ErrorKind::InUse, &["datasets shop"]);
    engine.forget(bench.dataset.id).unwrap();
    engine.remove_group("sales").unwrap();
    // Whoever is given a new group of this name does not see the old one's past.
    assert_eq!(of("sales"), 0);
    refused(engine.group("sales"), ErrorKind::NotFound, &["group list"]);
    let names: Vec<String> = engine.groups().unwrap().into_iter().map(|group| group.name).collect();
    assert_eq!(names, ["other"]);
}
