//! The OpenAPI 3.1 document, written from the table of operations and the types of the wire.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::operations::{Answer, Needs, Operation, operations};
use super::problem::{MEDIA_TYPE, Problem, status_of};
use super::types::Accepted;
use crate::base::{kind_name, kinds};

const ABOUT: &str = "dSources, VDBs, snapshots, jobs and events of one Stillpoint daemon. \
    What takes time answers 202 with the number of a job. Times are RFC 3339 in UTC, sizes are bytes. \
    Over the network each request needs `Authorization: Bearer TOKEN`; over the control socket of the store, root and \
    the store's owner need none.";

/// The document.
pub(super) fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for operation in operations() {
        let described = describe(&operation, &mut generator);
        let entry = paths.entry(operation.path).or_insert_with(|| json!({}));
        entry[operation.method.to_lowercase()] = described;
    }
    let problem = generator.subschema_for::<Problem>();
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Stillpoint",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": { "Problem": {
                "description": format!("What went wrong (RFC 9457). Codes and their statuses: {}.", codes()),
                "content": { MEDIA_TYPE: { "schema": problem } },
            }},
            "securitySchemes": { "token": {
                "type": "http",
                "scheme": "bearer",
                "description": "Made with `stillpoint token create`.",
            }},
        },
    })
}

/// The document as it is served and committed.
pub fn document_text() -> String {
    let mut text = format!("{:#}", document());
    text.push('\n');
    text
}

fn codes() -> String {
    let mut codes: Vec<String> =
        kinds().map(|kind| format!("`{}` {}", kind_name(kind), status_of(kind).as_u16())).collect();
    codes.extend(
        [
            "`unauthorized` 401",
            "`method_not_allowed` 405",
            "`too_many_requests` 429",
            "`bad_request` other of 4xx",
        ]
        .map(str::to_owned),
    );
    codes.join(", ")
}

fn describe(operation: &Operation, generator: &mut SchemaGenerator) -> Value {
    let mut parameters = path_parameters(operation.path);
    for parameter in operation.query {
        parameters.push(json!({
            "name": parameter.name,
            "in": "query",
            "description": parameter.about,
            "schema": { "type": parameter.kind },
        }));
    }
    if matches!(operation.answer, Answer::Job) {
        parameters.push(json!({
            "name": "Idempotency-Key",
            "in": "header",
            "description": "The same request with the same key within 24 hours answers with the same job.",
            "schema": { "type": "string", "maxLength": 255 },
        }));
    }
    let mut described = json!({
        "operationId": operation.name,
        "summary": operation.summary,
        "description": who(operation.needs),
        "parameters": parameters,
        "responses": responses(operation, generator),
    });
    if operation.needs == Needs::Nothing {
        described["security"] = json!([]);
    }
    if let Some((body, optional)) = operation.body {
        let schema = body(generator);
        described["requestBody"] =
            json!({ "required": !optional, "content": { "application/json": { "schema": schema } } });
    }
    described
}

fn who(needs: Needs) -> &'static str {
    match needs {
        Needs::Nothing => "Needs no token.",
        Needs::View => "Needs a viewer, user or operator of the group, or an admin.",
        Needs::UseVdb => {
            "Needs a user of the group if it is about a VDB, otherwise an operator, or an admin."
        }
        Needs::Operate => "Needs an operator of the group, or an admin.",
        Needs::Administer => "Needs an admin.",
    }
}

/// What stands in braces in the address.
fn path_parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names
        .map(|name| {
            let kind = if name == "id" { "integer" } else { "string" };
            json!({ "name": name, "in": "path", "required": true, "schema": { "type": kind } })
        })
        .collect()
}

fn responses(operation: &Operation, generator: &mut SchemaGenerator) -> Value {
    let content = |schema| json!({ "application/json": { "schema": schema } });
    let (status, described) = match operation.answer {
        Answer::Job => (
            "202",
            json!({ "description": "Accepted; the job carries it out.", "content": content(generator.subschema_for::<Accepted>()) }),
        ),
        Answer::Json(schema) => {
            let mut described = json!({ "description": "Done.", "content": content(schema(generator)) });
            if operation.query.iter().any(|parameter| parameter.name == "limit") {
                described["headers"] = json!({ "Link": {
                    "description": "The addresses of the pages around this one: `rel=\"next\"`, `rel=\"prev\"` (RFC 8288).",
                    "schema": { "type": "string" },
                }});
            }
            ("200", described)
        }
        Answer::Created(schema) => {
            ("201", json!({ "description": "Made.", "content": content(schema(generator)) }))
        }
        Answer::NoContent => ("204", json!({ "description": "Done." })),
        Answer::Stream(about) => (
            "200",
            json!({ "description": about, "content": { "text/event-stream": { "schema": { "type": "string" } } } }),
        ),
        Answer::Document => (
            "200",
            json!({ "description": "OpenAPI 3.1.", "content": { "application/json": { "schema": { "type": "object" } } } }),
        ),
    };
    json!({ status: described, "default": { "$ref": "#/components/responses/Problem" } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_document_is_current() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == document_text(),
            "docs/openapi.json is not what the code says: run `cargo run -- openapi > docs/openapi.json`"
        );
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(map) => {
                    found.extend(map.get("$ref").and_then(|text| text.as_str()).map(str::to_owned));
                    map.values().for_each(|value| references(value, found));
                }
                Value::Array(list) => list.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 20);
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }
}
