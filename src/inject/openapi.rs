//! The API's own description: OpenAPI 3.1, made of the tables that the decoder and the problems are made of.

use serde_json::{Map, Value, json};

use crate::{
    fields::{self, Object},
    problem::{Kind, type_of},
};

/// The document.
pub(crate) fn document() -> Value {
    let message = json!({"$ref": "#/components/schemas/Message"});
    let batch = json!({"$ref": "#/components/schemas/Batch"});
    let query = |name: &str, doc: &str, schema: Value| json!({"name": name, "in": "query", "required": false, "description": doc, "schema": schema});
    let take = json!({
        "operationId": "sendMessages",
        "summary": "Send a message, or several",
        "description": "A success means that the message is on stable storage and will be delivered or reported.",
        "parameters": [
            {
                "name": "Idempotency-Key", "in": "header", "required": false,
                "description": "The same key with the same request gets the same answer, and nothing is sent twice.",
                "schema": {"type": "string", "minLength": 1, "maxLength": 257}
            },
            query("envelope_from", "With message/rfc822: where reports go.", json!({"type": "string"})),
            query(
                "envelope_to",
                "With message/rfc822: who gets it; as often as needed.",
                json!({"type": "array", "items": {"type": "string"}})
            ),
        ],
        "requestBody": {"required": true, "content": {
            "application/json": {"schema": {"anyOf": [message, batch]}},
            "message/rfc822": {"schema": {"type": "string"}},
        }},
        "responses": responses(
            &[
                ("202", "Everything is taken.", json!({"anyOf": [
                    {"$ref": "#/components/schemas/Accepted"}, {"$ref": "#/components/schemas/Results"}
                ]})),
                ("207", "Some messages are taken, some are not.", json!({"$ref": "#/components/schemas/Results"})),
            ],
            Kind::ALL.iter().filter(|kind| ![Kind::NotQueued, Kind::Path].contains(kind)),
        ),
    });
    let show = json!({
        "operationId": "showMessage",
        "summary": "Where a message stands, for each recipient that has not ended",
        "parameters": [{
            "name": "id", "in": "path", "required": true, "description": "As the answer to its sending had it.",
            "schema": {"type": "string", "pattern": "^[0-9A-Z]{13}$"}
        }],
        "responses": responses(
            &[("200", "It is in the queue.", json!({"$ref": "#/components/schemas/Status"}))],
            [Kind::Unauthorized, Kind::Network, Kind::NotQueued, Kind::Method, Kind::Unknown].iter(),
        ),
    });
    let describe = json!({
        "operationId": "describe",
        "summary": "This document",
        "security": [],
        "responses": responses(&[("200", "OpenAPI 3.1.", json!({"type": "object"}))], [Kind::Method].iter()),
    });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "ringpost: mail by HTTP",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "paths": {
            "/api/v1/messages": {"post": take},
            "/api/v1/messages/{id}": {"get": show},
            "/api/v1/openapi.json": {"get": describe},
        },
        "components": {
            "securitySchemes": {"key": {
                "type": "http", "scheme": "bearer", "description": "A key that `ringpost key` has made."
            }},
            "schemas": schemas(),
        },
    })
}

fn responses<'k>(successes: &[(&str, &str, Value)], kinds: impl Iterator<Item = &'k Kind>) -> Value {
    let mut responses = Map::new();
    for (status, doc, schema) in successes {
        let content = json!({"application/json": {"schema": schema}});
        responses.insert((*status).to_owned(), json!({"description": doc, "content": content}));
    }
    for kind in kinds {
        let status = kind.status().as_u16().to_string();
        let known = responses.entry(status).or_insert_with(|| {
            let content =
                json!({"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}});
            let mut response = json!({"description": "", "content": content});
            if *kind == Kind::Busy || *kind == Kind::RateLimited || kind.status().is_server_error() {
                let doc = "Seconds to wait before trying again.";
                response["headers"] =
                    json!({"Retry-After": {"description": doc, "schema": {"type": "integer"}}});
            }
            response
        });
        let before = known["description"].as_str().unwrap_or_default().to_owned();
        known["description"] = format!("{before} {}", kind.title()).trim_start().into();
    }
    Value::Object(responses)
}

fn schemas() -> Value {
    let mut schemas = Map::new();
    for object in fields::OBJECTS {
        schemas.insert(object.name.to_owned(), schema(object));
    }
    let string = |doc: &str| json!({"type": "string", "description": doc});
    let integer = |doc: &str| json!({"type": "integer", "description": doc});
    let mailbox = json!({
        "description": "An address, with or without a name.",
        "anyOf": [
            {"type": "string", "examples": ["ann@example.org", "Ann Example <ann@example.org>"]},
            {"$ref": "#/components/schemas/MailboxObject"},
        ],
    });
    schemas.insert("Mailbox".into(), mailbox);
    let one: Value = serde_json::from_str(fields::MAILBOX_ONE).unwrap_or_default();
    let mailboxes = json!({
        "description": "A mailbox, an array of them, or a string with several.",
        "anyOf": [one, {"type": "array", "items": one}],
    });
    schemas.insert("Mailboxes".into(), mailboxes);
    let accepted = json!({
        "type": "object",
        "required": ["id", "recipients", "size", "location"],
        "properties": {
            "id": string("Its name, in the log and in the queue."),
            "recipients": integer("How many get it."),
            "size": integer("Octets, without the fields that the server puts in front."),
            "location": string("Where its status is."),
            "index": integer("Its place in the request, where there are several."),
        },
    });
    schemas.insert("Accepted".into(), accepted);
    schemas.insert(
        "Results".into(),
        json!({
            "type": "object",
            "required": ["accepted", "refused", "messages"],
            "properties": {
                "accepted": integer("Messages that were taken."),
                "refused": integer("Messages that were not."),
                "messages": {"type": "array", "items": {"anyOf": [
                    {"$ref": "#/components/schemas/Accepted"},
                    {
                        "type": "object",
                        "required": ["index", "problem"],
                        "properties": {
                            "index": integer("Its place in the request."),
                            "problem": {"$ref": "#/components/schemas/Problem"},
                        },
                    },
                ]}},
            },
        }),
    );
    schemas.insert("Problem".into(), json!({
        "type": "object",
        "description": "RFC 9457.",
        "required": ["type", "title", "status", "detail", "remedy"],
        "properties": {
            "type": {"type": "string", "enum": Kind::ALL.iter().map(|kind| type_of(*kind)).collect::<Vec<_>>()},
            "title": string("What kind of problem it is."),
            "status": integer("The status."),
            "detail": string("What the problem is."),
            "remedy": string("What to do about it."),
            "retry_after": integer("Seconds to wait before trying again."),
            "errors": {"type": "array", "items": {
                "type": "object",
                "required": ["pointer", "detail", "remedy"],
                "properties": {
                    "pointer": string("The place in the request, as a JSON pointer (RFC 6901)."),
                    "detail": string("What is wrong there."),
                    "remedy": string("What to do about it."),
                },
            }},
            "smtp": {
                "type": "object",
                "description": "What a client of SMTP would have been told.",
                "required": ["code", "status", "reason"],
                "properties": {
                    "code": integer("The reply code."),
                    "status": string("The enhanced status code."),
                    "reason": string("As in docs/replies.md and the metrics."),
                },
            },
        },
    }));
    schemas.insert(
        "Status".into(),
        json!({
            "type": "object",
            "required": ["id", "received_at", "size", "sender", "recipients_total", "recipients"],
            "properties": {
                "id": string("Its name."),
                "received_at": string("When it was taken."),
                "size": integer("Octets, with the fields that the server puts in front."),
                "sender": string("The reverse-path."),
                "recipients_total": integer("How many have not ended."),
                "recipients": {"type": "array", "items": {
                    "type": "object",
                    "required": ["address", "state", "attempts"],
                    "properties": {
                        "index": integer("The place in the envelope."),
                        "address": string("Who."),
                        "state": {"type": "string", "enum": ["ready", "running", "deferred", "held"]},
                        "destination": string("Where the mail goes."),
                        "attempts": integer("How often it was tried."),
                        "due": string("When it is tried next."),
                        "status": string("The last enhanced status code."),
                        "reply": string("What the next hop said last."),
                    },
                }},
            },
        }),
    );
    Value::Object(schemas)
}

fn schema(object: &Object) -> Value {
    let properties: Map<_, _> = object
        .fields
        .iter()
        .map(|field| {
            let mut schema: Value = serde_json::from_str(field.schema).unwrap_or_default();
            // Beside a reference too: OpenAPI 3.1 allows it.
            schema["description"] = field.doc.into();
            (field.name.to_owned(), schema)
        })
        .collect();
    json!({
        "type": "object",
        "description": object.doc,
        "properties": properties,
        "required": object.required,
        "additionalProperties": false,
    })
}
