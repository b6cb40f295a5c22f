//! The table against the sources: every route that is registered is in it, and every body field is accounted for.

use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::api::openapi::document;

/// Body fields that name no group and no dataset to take from or to work on.
const OTHER_FIELDS: [&str; 43] = [
    "adapter",
    "at",
    "before_mark",
    "command",
    "database",
    "databases",
    "environment",
    "groups",
    "host",
    "images",
    "kind",
    "lifetime_seconds",
    "logs",
    "lsn",
    "mark",
    "mark_after",
    "name",
    "owner",
    "parameters",
    "password",
    "path",
    "point",
    "policies",
    "policy",
    "port",
    "quota_bytes",
    "rename_databases",
    "replace",
    "retention",
    "role",
    "runs",
    "schedule",
    "script",
    "secrets",
    "settings",
    "standby",
    "time",
    "time_limit_seconds",
    "tls",
    "to",
    "to_database",
    "user",
    // One of the VDB's own snapshots.
    "rewind_vdb.from",
];

fn sources() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), text)
        })
        .collect()
}

/// `METHOD /path` of each route that a source registers; an operation in the address is put in its place.
fn registered(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for part in text.split(".route(").skip(1) {
        let part = part.split("\n}").next().unwrap_or_default();
        let Some(path) = part.split('"').nth(1).filter(|path| path.starts_with('/')) else { continue };
        for method in ["get", "post", "put", "delete", "patch"] {
            let call = format!("{method}(");
            let whole = |at: usize| !part[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            if part.match_indices(&call).any(|(at, _)| whole(at)) {
                found.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    found
}

/// The words that `operate` knows: the `"word" =>` of its `match`.
fn operate_words(text: &str) -> BTreeSet<String> {
    let body = text.split("async fn operate").nth(1).unwrap().split("\nasync fn ").next().unwrap();
    let arms = body.lines().filter_map(|line| line.trim().strip_prefix('"')?.split_once('"'));
    let arms = arms.filter(|(_, rest)| ["=>", "if ", "|"].iter().any(|next| rest.trim().starts_with(next)));
    arms.map(|(word, _)| word.to_owned()).collect()
}

fn table() -> BTreeSet<String> {
    operations().iter().map(|operation| format!("{} {}", operation.method, operation.path)).collect()
}

#[test]
fn every_route_is_in_the_table() {
    let table = table();
    let mut all = BTreeSet::new();
    for (file, text) in sources() {
        for route in registered(&text) {
            if let Some(before) = route.strip_suffix("{operation}") {
                all.extend(operate_words(&text).iter().map(|word| format!("{before}{word}")));
                continue;
            }
            assert!(
                table.contains(&route),
                "{route}, which src/api/{file} registers, is not in the table of src/api/operations.rs: add a line \
                 `op(METHOD, PATH, NAME, SUMMARY, the right it needs, its answer)` there, with .query(…) and \
                 .takes::<Body>(fields that name groups and datasets), then run \
                 `cargo run -- openapi > docs/openapi.json`"
            );
            all.insert(route);
        }
    }
    let missing: Vec<_> = all.difference(&table).collect();
    assert!(
        missing.is_empty(),
        "operations on datasets that are not in the table of src/api/operations.rs: {missing:?}; add a line for each"
    );
    let gone: Vec<_> = table.difference(&all).collect();
    assert!(gone.is_empty(), "src/api/operations.rs has what no route answers: {gone:?}");
}

#[test]
fn the_walk_over_the_sources_sees_routes() {
    let text =
        "x.route(\"/v1/a/{id}\", get(one).post(two))\n.route(\n\"/v1/b\",\naxum::routing::delete(gone),\n)";
    assert_eq!(Vec::from_iter(registered(text)), ["DELETE /v1/b", "GET /v1/a/{id}", "POST /v1/a/{id}"]);
}

#[test]
fn names_and_addresses_are_unique() {
    let all = operations();
    assert_eq!(table().len(), all.len());
    assert_eq!(all.iter().map(|operation| operation.name).collect::<BTreeSet<_>>().len(), all.len());
}

#[test]
fn every_field_of_a_body_is_accounted_for() {
    let document = document();
    for operation in operations() {
        let mut generator = SchemaGenerator::default();
        let Some((body, _)) = operation.body else { continue };
        let schema = serde_json::to_value(body(&mut generator)).unwrap();
        let name = schema["$ref"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        let properties = document["components"]["schemas"][&name]["properties"].as_object().unwrap();
        for field in properties.keys() {
            let known = operation.fields.iter().any(|(known, _)| known == field || known.is_empty())
                || OTHER_FIELDS.contains(&field.as_str())
                || OTHER_FIELDS.contains(&format!("{}.{field}", operation.name).as_str());
            assert!(
                known,
                "{name}.{field}: does it name a group, or a dataset to work on or to take from? Then say so for {} in \
                 src/api/operations.rs; otherwise add it to OTHER_FIELDS of this test",
                operation.name
            );
        }
        for (field, _) in operation.fields {
            assert!(field.is_empty() || properties.contains_key(*field), "{name} has no field {field}");
        }
    }
}
