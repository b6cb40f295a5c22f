//! Every operation of the table, asked for by each role and by nobody, over the routes themselves.

use axum::{Extension, Router};
use serde_json::json;
use tower::ServiceExt;

use super::*;
use crate::api::operations::{Answer, operations};
use crate::api::{Via, router};
use crate::base::{SeededRandom, SimStorage, SystemClock};
use crate::catalog::{
    BackupSet, BackupSetState, Catalog, DatasetState, Group, Job, JobKind, JobStatus, SourceConfig,
};
use crate::engine::{Names, Parts, TokenRequest};

/// An engine without adapters over a simulated store: what is allowed gets as far as the engine, and no further.
struct Bench {
    engine: Arc<Engine>,
    _folder: tempfile::TempDir,
}

/// Group `mine` has the source `crm`, the dSource `shop` and the VDB `qa` with a job each; group `theirs` has
/// `others-crm`, `other` and `others-qa`.
fn bench() -> Bench {
    let folder = tempfile::Builder::new().prefix("sp").tempdir().unwrap();
    let engine = Engine::open(Parts {
        catalog: Catalog::open(&SimStorage::new()).unwrap(),
        storage: Arc::new(SimStorage::new()),
        adapters: Vec::new(),
        volumes: Arc::new(Names::default()),
        store: "/store".into(),
        state: folder.path().join("state"),
        clock: Arc::new(SystemClock),
        random: Arc::new(SeededRandom::new(1)),
        jobs_max: 1,
        kept_mount: None,
    })
    .unwrap();
    let datasets = [
        (101, "shop", "mine", Role::Dsource),
        (102, "qa", "mine", Role::Vdb),
        (103, "other", "theirs", Role::Dsource),
        (104, "others-qa", "theirs", Role::Vdb),
    ];
    for (id, name, group, role) in datasets {
        let dataset = Dataset {
            id,
            name: name.into(),
            group: group.into(),
            role,
            adapter: "none".into(),
            config: Value::Null,
            state: DatasetState::Active,
            created: engine.now(),
            port: u16::try_from(id).unwrap(),
            timeflow: None,
            locked: false,
            images: false,
            source: None,
            mount_base: None,
        };
        let job = Job {
            dataset: Some(id),
            status: JobStatus::Completed,
            ended: Some(engine.now()),
            group: Some(group.into()),
            ..Job::queued(id + 100, JobKind::DbStart, name, engine.now())
        };
        engine.catalog().change(|change| change.put(&dataset).and_then(|()| change.put(&job))).unwrap();
    }
    for (id, name, group) in [(301, "crm", "mine"), (302, "others-crm", "theirs")] {
        let source = SourceConfig {
            id,
            name: name.into(),
            group: group.into(),
            adapter: "none".into(),
            host: "db".into(),
            port: 1,
            user: "repl".into(),
            database: "db".into(),
            tls: "prefer".into(),
            ca: None,
            created: engine.now(),
            version: String::new(),
            identity: String::new(),
            size_bytes: None,
            checked: engine.now(),
        };
        let group = Group { id: id + 100, name: group.into(), created: engine.now() };
        engine.catalog().change(|change| change.put(&source).and_then(|()| change.put(&group))).unwrap();
    }
    for (id, name, group) in [(501, "erp", "mine"), (502, "others-erp", "theirs")] {
        let set = BackupSet {
            id,
            name: name.into(),
            group: group.into(),
            adapter: "none".into(),
            config: Value::Null,
            volume: name.into(),
            state: BackupSetState::Active,
            created: engine.now(),
            failed_fulls: Default::default(),
            changes_lost: Default::default(),
            held: Default::default(),
        };
        engine.catalog().change(|change| change.put(&set)).unwrap();
    }
    Bench { engine, _folder: folder }
}

impl Bench {
    fn token(&self, name: &str, role: TokenRole, groups: &[&str]) -> String {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let request = TokenRequest { name: name.into(), role, groups, lifetime: None };
        self.engine.create_token(&request).unwrap().1
    }

    fn router(&self, via: Via) -> Router {
        router(Arc::clone(&self.engine)).layer(Extension(via))
    }

    async fn ask(&self, token: Option<&str>, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        self.ask_with(token, method, path, body, &[]).await
    }

    async fn ask_with(
        &self,
        token: Option<&str>,
        method: &str,
        path: &str,
        body: Value,
        headers: &[(&str, &str)],
    ) -> (StatusCode, Value) {
        let text = if body.is_null() { Vec::new() } else { serde_json::to_vec(&body).unwrap() };
        let mut request =
            Request::builder().method(method).uri(path).header("content-type", "application/json");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(text)).unwrap();
        let response = self.router(Via::Network).oneshot(request).await.unwrap();
        let status = response.status();
        let kind = response.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
        if kind.as_deref() == Some("text/event-stream") {
            return (status, Value::Null);
        }
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let value: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status.is_client_error() {
            assert_eq!(kind.as_deref(), Some("application/problem+json"), "{method} {path}: {value}");
            assert_eq!(value["status"], status.as_u16(), "{method} {path}");
            assert!(value["code"].is_string() && value["detail"].is_string(), "{method} {path}: {value}");
        }
        (status, value)
    }
}

/// A request for an operation about a dataset, or a body that names it.
fn request(operation: &Operation, dataset: &str, group: &str) -> (String, Value) {
    let job = match dataset {
        "shop" => "201",
        "qa" => "202",
        "other" => "203",
        _ => "204",
    };
    let source = if group == "mine" { "crm" } else { "others-crm" };
    let name = match operation.about {
        About::Dataset => dataset,
        About::Source => source,
        About::BackupSet if group == "mine" => "erp",
        About::BackupSet => "others-erp",
        About::Group => group,
        About::Nothing | About::Job => "nobody",
    };
    let path = operation
        .path
        .replace("{name}", name)
        .replace("{id}", job)
        .replace("{snapshot}", "none")
        .replace("{policy}", "none");
    let mut body = json!({});
    for (field, names) in operation.fields {
        body[*field] = match names {
            Field::Group => group.into(),
            Field::Source | Field::Target => format!("{dataset}@none").into(),
            Field::SourceConfig => source.into(),
            Field::HostFile => continue,
            Field::Hooks => json!([]),
            Field::Adapter => "none".into(),
            Field::Hook | Field::Parameters | Field::Settings => continue,
        };
    }
    (path, if operation.body.is_some() { body } else { Value::Null })
}

/// What the roles are said to do: written here a second time, by other words than the table's.
fn may(role: TokenRole, operation: &Operation, is_vdb: bool) -> bool {
    let reads = operation.method == "GET";
    // And what is written anywhere on the host.
    let writes = [
        "create_policy",
        "update_policy",
        "delete_policy",
        "create_hook_template",
        "delete_hook_template",
        "export_vdb",
    ];
    let host = ["/v1/repositories", "/v1/environments"];
    let of_host = host.iter().any(|path| operation.path.starts_with(path));
    let of_groups = operation.path.starts_with("/v1/groups");
    let of_tokens = operation.path.starts_with("/v1/tokens")
        || writes.contains(&operation.name)
        || ((of_host || of_groups) && !reads);
    let of_vdbs = [
        "provision_vdb",
        "refresh_vdb",
        "rewind_vdb",
        "undo_vdb",
        "start_dataset",
        "stop_dataset",
        "take_snapshot",
        "verify_snapshot",
        "check_snapshot_files",
        "make_bookmark",
        "delete_dataset",
        "cancel_job",
    ];
    match role {
        TokenRole::Admin => true,
        TokenRole::Operator => !of_tokens,
        // Of the source of a provision it needs no more than to see it.
        TokenRole::User if operation.name == "provision_vdb" => true,
        TokenRole::User | TokenRole::Viewer if operation.name == "simulate_policy" => true,
        TokenRole::User => (reads && !of_tokens && !of_host) || (is_vdb && of_vdbs.contains(&operation.name)),
        TokenRole::Viewer => reads && !of_tokens && !of_host,
    }
}

#[tokio::test]
async fn every_operation_asks_for_its_right() {
    for operation in operations() {
        for (dataset, group, is_vdb) in [("shop", "mine", false), ("qa", "mine", true)] {
            // A fresh engine each: what is allowed changes it.
            let bench = bench();
            let (path, body) = request(&operation, dataset, group);
            let (status, _) = bench.ask(None, operation.method, &path, body.clone()).await;
            let open = operation.name == "openapi";
            assert_eq!(
                status == StatusCode::UNAUTHORIZED,
                !open,
                "{} without a token: {status}",
                operation.name
            );
            let (status, _) = bench.ask(Some("stp_1_00"), operation.method, &path, body.clone()).await;
            assert_eq!(
                status == StatusCode::UNAUTHORIZED,
                !open,
                "{} with a wrong one: {status}",
                operation.name
            );
            for (name, role, groups) in [
                ("viewer", TokenRole::Viewer, &["mine"][..]),
                ("viewer-of-all", TokenRole::Viewer, &[]),
                ("user", TokenRole::User, &["mine"]),
                ("operator", TokenRole::Operator, &["theirs", "mine"]),
                ("admin", TokenRole::Admin, &[]),
            ] {
                let token = bench.token(name, role, groups);
                let (status, answer) = bench.ask(Some(&token), operation.method, &path, body.clone()).await;
                let refused = status == StatusCode::FORBIDDEN;
                assert_eq!(
                    refused,
                    !may(role, &operation, is_vdb),
                    "{} {path} by {name}: {status} {answer}",
                    operation.name
                );
                assert_ne!(status, StatusCode::UNAUTHORIZED, "{} by {name}", operation.name);
            }
        }
    }
}

#[tokio::test]
async fn another_groups_datasets_are_not_there() {
    for operation in operations() {
        let scoped = operation.about != About::Nothing || !operation.fields.is_empty();
        if !scoped || operation.needs == Needs::Administer {
            continue;
        }
        for dataset in ["other", "others-qa"] {
            let bench = bench();
            let token = bench.token("operator", TokenRole::Operator, &["mine"]);
            let (path, body) = request(&operation, dataset, "theirs");
            let (status, answer) = bench.ask(Some(&token), operation.method, &path, body).await;
            // A group is named by who asks, so it is no secret that there is one.
            let by_group = operation.fields.iter().any(|(_, names)| *names == Field::Group);
            let expected = if by_group { StatusCode::FORBIDDEN } else { StatusCode::NOT_FOUND };
            assert_eq!(status, expected, "{} {path} {answer}", operation.name);
        }
    }
    // Data of another group is not to be had by way of one's own.
    let bench = bench();
    let token = bench.token("operator", TokenRole::Operator, &["mine"]);
    for (path, body) in [
        ("/v1/vdbs", json!({ "name": "x", "group": "mine", "from": "other" })),
        ("/v1/datasets/qa/refresh", json!({ "from": "other@none" })),
        ("/v1/bookmarks", json!({ "name": "x", "snapshot": "other@none" })),
    ] {
        let (status, answer) = bench.ask(Some(&token), "POST", path, body).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert!(
            answer["detail"].as_str().unwrap().contains("that token operator may see"),
            "{path}: {answer}"
        );
    }
}

#[tokio::test]
async fn programs_of_hooks_are_an_admins() {
    let bench = bench();
    let admin = bench.token("admin", TokenRole::Admin, &[]);
    let operator = bench.token("operator", TokenRole::Operator, &["mine"]);
    let user = bench.token("user", TokenRole::User, &["mine"]);
    let template = json!({
        "name": "mail", "script": "echo {{to}}", "parameters": { "to": "whom" }, "secrets": ["KEY"],
    });
    let (status, answer) = bench.ask(Some(&admin), "POST", "/v1/hook-templates", template).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let hook = |extra: Value| {
        let mut hook = json!({ "name": "h", "point": "pre_stop" });
        hook.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        hook
    };
    let of_template = json!({ "template": "mail", "values": { "to": "x" }, "secrets": { "KEY": "k" } });
    let with = |field: &str, value: Value| {
        let mut hook = hook(of_template.clone());
        hook[field] = value;
        hook
    };
    let refused = [
        hook(json!({ "script": "id" })),
        hook(json!({ "command": ["/bin/id"] })),
        with("user", json!("root")),
        with("environment", json!({ "LD_PRELOAD": "/tmp/x.so" })),
        with("secrets", json!({ "LD_PRELOAD": "/tmp/x.so" })),
    ];
    for body in refused {
        let (status, answer) = bench.ask(Some(&operator), "PUT", "/v1/datasets/qa/hooks", body.clone()).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{body}: {answer}");
        let provision = json!({ "name": "x", "group": "mine", "from": "shop", "hooks": [body] });
        for token in [&operator, &user] {
            let (status, answer) = bench.ask(Some(token), "POST", "/v1/vdbs", provision.clone()).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{provision}: {answer}");
        }
    }
    let good = hook(of_template);
    let (status, answer) = bench.ask(Some(&user), "PUT", "/v1/datasets/qa/hooks", good.clone()).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{answer}");
    let (status, answer) = bench.ask(Some(&operator), "PUT", "/v1/datasets/qa/hooks", good).await;
    assert_ne!(status, StatusCode::FORBIDDEN, "{answer}");
}

#[tokio::test]
async fn commands_of_applications_are_an_admins() {
    let bench = bench();
    let operator = bench.token("operator", TokenRole::Operator, &["mine"]);
    let of_commands = |dataset: &mut Dataset| dataset.adapter = RUNS_COMMANDS.into();
    bench.engine.catalog().change(|change| change.update::<Dataset>(101, of_commands)).unwrap();
    let link = json!({ "name": "x", "group": "mine", "adapter": RUNS_COMMANDS, "parameters": {} });
    let variable = json!({ "LD_PRELOAD": "/tmp/x.so" });
    let refused = [
        ("/v1/dsources", link.clone()),
        ("/v1/dsources/plan", link),
        ("/v1/datasets/shop/configure", json!({ "parameters": { "commands": { "thaw": "id" } } })),
        ("/v1/datasets/shop/configure/plan", json!({ "parameters": { "settings": variable } })),
        ("/v1/vdbs", json!({ "name": "x", "group": "mine", "from": "shop", "settings": variable })),
    ];
    for (path, body) in refused {
        let (status, answer) = bench.ask(Some(&operator), "POST", path, body).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}: {answer}");
    }
    // What names no command is an operator's as ever.
    for (path, body) in [
        ("/v1/datasets/shop/configure", json!({ "images": false })),
        ("/v1/datasets/qa/configure", json!({ "parameters": { "settings": {} } })),
        ("/v1/vdbs", json!({ "name": "x", "group": "mine", "from": "shop" })),
    ] {
        let (status, answer) = bench.ask(Some(&operator), "POST", path, body).await;
        assert_ne!(status, StatusCode::FORBIDDEN, "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_kept_password_is_used_in_its_group_and_sent_nowhere_else() {
    let bench = bench();
    let operator = bench.token("operator", TokenRole::Operator, &["mine"]);
    let moved = json!({ "parameters": { "source": { "host": "db9" } } });
    for kind in ["configure", "attach", "resync", "configure/plan", "attach/plan", "resync/plan"] {
        let path = format!("/v1/datasets/shop/{kind}");
        let (status, answer) = bench.ask(Some(&operator), "POST", &path, moved.clone()).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}: {answer}");
        let mut with_password = moved.clone();
        with_password["secrets"] = json!({ "source_password": "own" });
        let (status, answer) = bench.ask(Some(&operator), "POST", &path, with_password).await;
        assert_ne!(status, StatusCode::FORBIDDEN, "{path}: {answer}");
        let (status, answer) =
            bench.ask(Some(&operator), "POST", &path, json!({ "source": "others-crm" })).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}: {answer}");
        assert!(answer["detail"].as_str().unwrap().contains("no source others-crm"), "{answer}");
    }
    // What lies on the host is read as root, so it is an admin's to name.
    let ca = json!({ "name": "x", "group": "mine", "adapter": "none", "ca": "/etc/shadow" });
    for path in ["/v1/sources", "/v1/sources/crm/configure"] {
        let (status, answer) = bench.ask(Some(&operator), "POST", path, ca.clone()).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{path}: {answer}");
    }
    let link =
        json!({ "name": "x", "group": "mine", "adapter": "none", "source": "others-crm", "parameters": {} });
    for path in ["/v1/dsources", "/v1/dsources/plan"] {
        let (status, answer) = bench.ask(Some(&operator), "POST", path, link.clone()).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}: {answer}");
    }
}

#[tokio::test]
async fn lists_hold_what_may_be_seen() {
    let bench = bench();
    let mine = bench.token("mine", TokenRole::Viewer, &["mine"]);
    let all = bench.token("all", TokenRole::Viewer, &[]);
    for (path, names) in [("/v1/dsources", ["shop", "other"]), ("/v1/vdbs", ["qa", "others-qa"])] {
        let (_, list) = bench.ask(Some(&mine), "GET", path, Value::Null).await;
        assert_eq!(list.as_array().unwrap().len(), 1, "{list}");
        assert_eq!(list[0]["name"], names[0]);
        let (_, list) = bench.ask(Some(&all), "GET", path, Value::Null).await;
        assert_eq!(list.as_array().unwrap().len(), 2);
        let (_, page) = bench.ask(Some(&all), "GET", &format!("{path}?limit=1&after=102"), Value::Null).await;
        assert_eq!(page[0]["name"], names[1], "{page}");
    }
    let (_, jobs) = bench.ask(Some(&mine), "GET", "/v1/jobs", Value::Null).await;
    let targets: Vec<_> = jobs.as_array().unwrap().iter().map(|job| job["target"].clone()).collect();
    assert_eq!(targets, ["shop", "qa"]);
    let (_, jobs) = bench.ask(Some(&all), "GET", "/v1/jobs?limit=2&before=204", Value::Null).await;
    assert_eq!(jobs.as_array().unwrap().iter().map(|job| job["id"].clone()).collect::<Vec<_>>(), [202, 203]);
    // Making these tokens was an event of no group.
    let (_, events) = bench.ask(Some(&mine), "GET", "/v1/events", Value::Null).await;
    assert_eq!(events, json!([]));
    let (_, events) = bench.ask(Some(&all), "GET", "/v1/events", Value::Null).await;
    assert_eq!(events.as_array().unwrap().len(), 2);
    for (path, names) in [("/v1/sources", ["crm", "others-crm"]), ("/v1/groups", ["mine", "theirs"])] {
        let (_, list) = bench.ask(Some(&mine), "GET", path, Value::Null).await;
        let found: Vec<_> = list.as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
        assert_eq!(found, names[..1], "{list}");
        let (_, list) = bench.ask(Some(&all), "GET", path, Value::Null).await;
        assert_eq!(list.as_array().unwrap().len(), 2, "{list}");
    }
    // Who has rights in a group is an admin's to know.
    let admin = bench.token("admin", TokenRole::Admin, &[]);
    for (token, names) in [(&mine, json!([])), (&admin, json!(["mine"]))] {
        let (_, group) = bench.ask(Some(token), "GET", "/v1/groups/mine", Value::Null).await;
        assert_eq!((&group["tokens"], &group["datasets"]), (&names, &json!(["shop", "qa"])), "{group}");
    }
}

#[tokio::test]
async fn a_token_ends_by_revocation_and_in_time() {
    let bench = bench();
    let request = TokenRequest {
        name: "short".into(),
        role: TokenRole::Admin,
        groups: Vec::new(),
        lifetime: Some(std::time::Duration::from_millis(30)),
    };
    let short = bench.engine.create_token(&request).unwrap().1;
    let (status, list) = bench.ask(Some(&short), "GET", "/v1/tokens", Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    let secret = short.rsplit('_').next().unwrap();
    assert!(!list.to_string().contains(secret));
    tokio::time::sleep(std::time::Duration::from_millis(40)).await;
    let (status, problem) = bench.ask(Some(&short), "GET", "/v1/tokens", Value::Null).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(problem["detail"].as_str().unwrap().contains("has expired"), "{problem}");

    let kept = bench.token("kept", TokenRole::Admin, &[]);
    // The right number with another secret.
    let mut forged = kept.clone();
    let last = if forged.pop() == Some('0') { '1' } else { '0' };
    forged.push(last);
    assert_eq!(bench.ask(Some(&forged), "GET", "/v1/tokens", Value::Null).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(
        bench.ask(Some(&kept), "DELETE", "/v1/tokens/kept", Value::Null).await.0,
        StatusCode::NO_CONTENT
    );
    assert_eq!(bench.ask(Some(&kept), "GET", "/v1/tokens", Value::Null).await.0, StatusCode::UNAUTHORIZED);
    let again = TokenRequest { lifetime: None, ..request };
    assert_eq!(bench.engine.create_token(&again).unwrap_err().kind(), ErrorKind::Exists);
    for (role, groups) in [(TokenRole::User, &[][..]), (TokenRole::Operator, &[]), (TokenRole::Admin, &["a"])]
    {
        let groups = groups.iter().map(|group: &&str| (*group).to_owned()).collect();
        let request = TokenRequest { name: "bad".into(), role, groups, lifetime: None };
        assert_eq!(bench.engine.create_token(&request).unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[tokio::test]
async fn bad_requests_are_problems() {
    let bench = bench();
    let token = bench.token("admin", TokenRole::Admin, &[]);
    for operation in operations().into_iter().filter(|operation| operation.body.is_some()) {
        for body in [json!({ "no such field": 1 }), json!([1]), json!("text")] {
            let (path, _) = request(&operation, "qa", "mine");
            let (status, answer) = bench.ask(Some(&token), operation.method, &path, body.clone()).await;
            assert!(
                [StatusCode::BAD_REQUEST, StatusCode::UNPROCESSABLE_ENTITY].contains(&status),
                "{} {body}: {status} {answer}",
                operation.name
            );
        }
    }
    for (method, path, status) in [
        ("GET", "/v1/none", 404),
        ("PATCH", "/v1/vdbs", 405),
        ("GET", "/v1/jobs/abc", 400),
        ("GET", "/v1/jobs?limit=abc", 400),
        ("POST", "/v1/datasets/qa/explode", 404),
        ("GET", "/v1/datasets/none", 404),
    ] {
        let (found, answer) = bench.ask(Some(&token), method, path, Value::Null).await;
        assert_eq!(found.as_u16(), status, "{method} {path}: {answer}");
    }
}

#[tokio::test]
async fn a_key_finds_its_job() {
    let bench = bench();
    let token = bench.token("user", TokenRole::User, &["mine"]);
    let other = bench.token("another", TokenRole::User, &["mine"]);
    let key = [("idempotency-key", "k1")];
    let path = "/v1/datasets/qa/stop";
    let (status, first) = bench.ask_with(Some(&token), "POST", path, Value::Null, &key).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{first}");
    // Without the key a second stop is refused, as the first one waits.
    assert_eq!(bench.ask(Some(&token), "POST", path, Value::Null).await.0, StatusCode::CONFLICT);
    let (status, again) = bench.ask_with(Some(&token), "POST", path, Value::Null, &key).await;
    assert_eq!((status, &again), (StatusCode::ACCEPTED, &first));
    let (status, problem) =
        bench.ask_with(Some(&token), "POST", "/v1/datasets/qa/start", Value::Null, &key).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
    // A key is its holder's own.
    assert_eq!(bench.ask_with(Some(&other), "POST", path, Value::Null, &key).await.0, StatusCode::CONFLICT);
    let long = "x".repeat(256);
    let (status, _) =
        bench.ask_with(Some(&token), "POST", path, Value::Null, &[("idempotency-key", &long)]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_jobs_stream_tells_its_log_and_its_end() {
    let bench = bench();
    let token = bench.token("user", TokenRole::User, &["mine"]);
    let (_, accepted) = bench.ask(Some(&token), "POST", "/v1/datasets/qa/stop", Value::Null).await;
    let path = format!("/v1/jobs/{}/stream", accepted["job"]);
    let follow = |from: Option<&str>| {
        let mut request = Request::builder().uri(&path).header("authorization", format!("Bearer {token}"));
        if let Some(from) = from {
            request = request.header("last-event-id", from);
        }
        bench.router(Via::Network).oneshot(request.body(Body::empty()).unwrap())
    };
    let response = follow(None).await.unwrap();
    let workers = bench.engine.start_jobs().unwrap();
    let text = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let text = String::from_utf8(text.to_vec()).unwrap();
    // It fails, as there is no timeflow.
    for part in
        ["event: log", "no timeflow", "event: job", "\"status\":\"failed\"", "event: end\ndata: \"failed\""]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let last = text.lines().filter_map(|line| line.strip_prefix("id: ")).next_back().unwrap();
    let again = to_bytes(follow(Some(last)).await.unwrap().into_body(), 1 << 20).await.unwrap();
    let again = String::from_utf8(again.to_vec()).unwrap();
    assert!(!again.contains("event: log") && again.contains("event: end"), "{again}");
    bench.engine.end_jobs();
    for worker in workers {
        worker.join().unwrap();
    }
}

#[tokio::test]
async fn the_control_socket_needs_no_token() {
    let bench = bench();
    for (via, status) in [(Some(Via::ControlSocket), 200), (Some(Via::Network), 401), (None, 401)] {
        let request = Request::builder().uri("/v1/tokens").body(Body::empty()).unwrap();
        let router = router(Arc::clone(&bench.engine));
        let router = match via {
            Some(via) => router.layer(Extension(via)),
            None => router,
        };
        let response = router.oneshot(request).await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{via:?}");
        assert_eq!(response.headers()["cache-control"], "no-store");
    }
}

#[test]
fn answers_that_are_jobs_are_asked_for_by_post_or_delete() {
    for operation in operations().iter().filter(|operation| matches!(operation.answer, Answer::Job)) {
        assert!(["POST", "DELETE"].contains(&operation.method), "{}", operation.name);
    }
}

#[tokio::test]
async fn lists_in_the_place_of_objects_are_refused_everywhere() {
    let bench = bench();
    let token = bench.token("operator", TokenRole::Operator, &["mine"]);
    for operation in operations() {
        if operation.fields.is_empty() {
            continue;
        }
        let path = operation.path.replace("{name}", "qa").replace("{snapshot}", "x").replace("{id}", "1");
        let (status, _) = bench.ask(Some(&token), operation.method, &path, json!(["theirs"])).await;
        assert!(status.is_client_error(), "{} {}: {status}", operation.method, operation.path);
    }
    let body = json!({ "name": "n", "from": "qa", "hooks": [["h", "post_start", "#!/bin/sh"]] });
    let (status, _) = bench.ask(Some(&token), "POST", "/v1/vdbs", body).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}
