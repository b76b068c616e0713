//! What can be asked and done over HTTP, in the words of machines: OpenAPI 3.1. Its tests hold it against the router and the types.

mod more;

use axum::Json;
use bridge::Action;
use serde_json::{Map, Value, json};

use crate::tasks::TaskState;

/// The fields by which entries are chosen: name, what it takes, what it means.
const FILTER: [(&str, &str, &str); 16] = [
    ("id", "id", "The message of this queue id."),
    ("sender", "pattern", "With such a reverse-path."),
    ("recipient", "pattern", "With such an address."),
    ("destination", "text", "Bound for this destination, by its name in listings."),
    ("state", "state", "In this state."),
    ("site", "text", "Bound for this site, as `why` names it."),
    ("tenant", "text", "Mail of this tenant; of nobody in particular with an empty name."),
    (
        "campaign",
        "text",
        "Of the `[[campaign]]` of this name; where there is none, of messages that say this themselves.",
    ),
    ("priority", "class", "In this class."),
    ("older_than", "age", "Received so long ago, or longer."),
    ("younger_than", "age", "Received since then."),
    ("status", "status", "Deferred with such an enhanced status code the last time."),
    ("category", "text", "What the last refusal was about: the words of docs/reply-rules.md."),
    (
        "reply",
        "text",
        "Stands in the last reply, whatever the case of its letters, as far as replies are kept in memory.",
    ),
    (
        "subject",
        "text",
        "Stands in the Subject field as it is written. Each message that the other fields leave is read.",
    ),
    (
        "subject_hash",
        "text",
        "The SHA-256 of the Subject field, or how it begins: 8 to 64 hexadecimal digits. Messages are read likewise.",
    ),
];

/// What one may do with queued recipients, and what that is.
const ACTIONS: [(Action, &str); 6] = [
    (Action::Retry, "Try now what is deferred."),
    (Action::Hold, "Keep back, until release."),
    (Action::Release, "Let go what is held; it is tried at once."),
    (Action::Remove, "Forget, without telling the sender."),
    (Action::Reroute, "Send by the route that `to` names."),
    (Action::Count, "Change nothing: say how many are meant."),
];

/// The answer of `/api/v1/operations/openapi.json`.
pub(crate) async fn answer() -> Json<Value> {
    Json(document())
}

/// The description of all paths but those at which mail is taken in, which have their own.
pub fn document() -> Value {
    let page = reference("Page");
    let mut listed: Vec<_> =
        FILTER.iter().map(|(name, kind, doc)| query(name, doc, schema_of(kind))).collect();
    listed.push(query("cursor", "Where the page before stopped: its `next`.", json!({"type": "string"})));
    listed.push(query(
        "limit",
        "Entries at most.",
        json!({"type": "integer", "minimum": 1, "maximum": 1000}),
    ));
    let list =
        operation("listQueue", "Entries that match, page by page", listed, None, &[("200", page)], false);
    let subject = json!({"name": "subject", "in": "query", "required": true, "schema": {"type": "string"},
        "description": "A queue id, a site or a destination."});
    let why = operation(
        "explain",
        "What holds mail, until when, and what set that",
        vec![subject],
        None,
        &[("200", json!({"type": "array", "items": {"type": "object"}})), ("404", Value::Null)],
        false,
    );
    let summary = json!({"type": "object"});
    let summary = operation(
        "summarize",
        "Counts, and the largest destinations",
        vec![],
        None,
        &[("200", summary)],
        false,
    );
    let name = |doc: &str, schema: Value| json!({"name": "name", "in": "path", "required": true, "description": doc, "schema": schema});
    let show = operation(
        "showQueued",
        "A message, with all recipients that have not ended",
        vec![name("Its queue id.", schema_of("id"))],
        None,
        &[("200", reference("Entry")), ("404", Value::Null)],
        false,
    );
    let words: Vec<_> = ACTIONS.iter().map(|(action, _)| action.as_str()).collect();
    let change = operation(
        "changeQueued",
        "Do something with those that are meant, step by step: again with `cursor` until `next` is null",
        vec![name(&told(), json!({"type": "string", "enum": words}))],
        Some(reference("Change")),
        &[("200", reference("Progress")), ("400", Value::Null), ("422", Value::Null)],
        false,
    );
    let tasks = json!({"type": "array", "items": reference("Task")});
    let tasks = operation(
        "listTasks",
        "All tasks that run, and the last that have ended, the newest first",
        vec![],
        None,
        &[("200", tasks)],
        false,
    );
    let begin = operation(
        "beginTask",
        "Do something with those that are meant, in the background: mail goes first, and nobody need wait for it",
        vec![],
        Some(reference("TaskBegin")),
        &[("202", reference("Task")), ("400", Value::Null), ("429", Value::Null)],
        false,
    );
    let number = || {
        vec![json!({"name": "id", "in": "path", "required": true, "description": "Its number.",
            "schema": {"type": "integer"}})]
    };
    let known = [("200", reference("Task")), ("404", Value::Null)];
    let task = operation("showTask", "How far a task is", number(), None, &known, false);
    let cancel =
        operation("cancelTask", "End a task; what it has done stays done", number(), None, &known, false);
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "ringpost: operations",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": {
            "/api/v1/queue": {"get": list},
            "/api/v1/queue/why": {"get": why},
            "/api/v1/queue/summary": {"get": summary},
            "/api/v1/queue/{name}": {"get": show, "post": change},
            "/api/v1/queue/tasks": {"get": tasks, "post": begin},
            "/api/v1/queue/tasks/{id}": {"get": task, "delete": cancel},
        },
        "components": {
            "securitySchemes": {"token": {
                "type": "http", "scheme": "bearer", "description": "`http.token` of the configuration."
            }},
            "schemas": schemas(),
        },
    });
    if let Some(paths) = document["paths"].as_object_mut() {
        more::paths(paths);
    }
    if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
        more::schemas(schemas);
    }
    document
}

/// What each action does.
fn told() -> String {
    let lines: Vec<_> = ACTIONS.iter().map(|(action, doc)| format!("{}: {doc}", action.as_str())).collect();
    lines.join(" ")
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn query(name: &str, doc: &str, schema: Value) -> Value {
    json!({"name": name, "in": "query", "required": false, "description": doc, "schema": schema})
}

fn operation(
    id: &str,
    summary: &str,
    parameters: Vec<Value>,
    body: Option<Value>,
    answers: &[(&str, Value)],
    is_open: bool,
) -> Value {
    let mut responses = Map::new();
    for (status, schema) in answers {
        let (kind, schema) = if schema.is_null() {
            ("application/problem+json", reference("Problem"))
        } else {
            ("application/json", schema.clone())
        };
        let doc = if status.starts_with('2') { "Done." } else { "A problem." };
        responses
            .insert((*status).into(), json!({"description": doc, "content": {kind: {"schema": schema}}}));
    }
    let everywhere = [
        ("401", "Another token is wanted."),
        ("503", "The queue is coming back after a start, or a core is ending."),
        ("504", "A core has not answered in time."),
    ];
    for (status, doc) in everywhere.into_iter().filter(|_| !is_open) {
        let content = json!({"application/problem+json": {"schema": reference("Problem")}});
        responses.insert(status.into(), json!({"description": doc, "content": content}));
    }
    let mut operation = json!({"operationId": id, "summary": summary, "responses": responses});
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(schema) = body {
        operation["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": schema}}});
    }
    operation
}

fn schema_of(kind: &str) -> Value {
    match kind {
        "id" => json!({"type": "string", "pattern": "^[0-9A-Z]{13}$"}),
        "pattern" => json!({"type": "string",
            "description": "An address, a domain, `.` and a domain for those below it, or `<>`."}),
        "state" => json!({"enum": ["ready", "running", "deferred", "held"]}),
        "class" => json!({"enum": ["urgent", "normal", "bulk"]}),
        "age" => json!({"type": "string", "pattern": "^[0-9]+[smhdw]$"}),
        "status" => json!({"type": "string", "examples": ["4.2.2", "4.7.*"]}),
        "number" => json!({"type": "integer"}),
        "time" => json!({"type": "string", "format": "date-time"}),
        "yes-no" => json!({"type": "boolean"}),
        _ => json!({"type": "string"}),
    }
}

/// An object: its fields, and which of them are always there.
fn object(doc: &str, required: &[&str], fields: Vec<(&str, Value)>) -> Value {
    let properties: Map<_, _> = fields.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect();
    json!({"type": "object", "description": doc, "required": required, "properties": properties,
        "additionalProperties": false})
}

fn schemas() -> Value {
    let of = |kind: &str, doc: &str| {
        let mut schema = schema_of(kind);
        schema["description"] = doc.into();
        schema
    };
    let or_null = |kind: &str| json!({"anyOf": [schema_of(kind), {"type": "null"}]});
    let filter = object(
        "Whom it is about: who fits all that is given. One field at least.",
        &[],
        FILTER.iter().map(|(name, kind, doc)| (*name, of(kind, doc))).collect(),
    );
    let selector = json!({"anyOf": [
        {"const": "all"},
        {"type": "object", "required": ["matching"], "properties": {"matching": reference("Filter")}},
    ]});
    let to =
        of("text", "With `reroute`: the name of the route; empty for the one of the recipient's domain.");
    let change = object(
        "A change.",
        &["selector"],
        vec![
            ("selector", reference("Selector")),
            ("to", to.clone()),
            ("cursor", of("text", "Where the step before stopped: its `next`.")),
        ],
    );
    let words: Vec<_> = ACTIONS.iter().map(|(action, _)| action.as_str()).collect();
    let action = json!({"enum": words, "description": told()});
    let begin = object(
        "A task to begin.",
        &["action", "selector"],
        vec![
            ("action", action.clone()),
            ("selector", reference("Selector")),
            ("to", to.clone()),
            ("dry_run", of("yes-no", "Change nothing: count.")),
            ("by", of("text", "Who asks, by their own word, for the log.")),
        ],
    );
    let counts = |more: Vec<(&'static str, Value)>| {
        let mut fields = vec![
            ("matched", of("number", "Recipients that were meant.")),
            ("changed", of("number", "Recipients that were changed.")),
            ("looked", of("number", "Entries that were looked at,")),
            ("of", of("number", "of so many.")),
        ];
        fields.extend(more);
        fields
    };
    let progress = object(
        "How far a change has come.",
        &["matched", "changed", "looked", "of", "next"],
        counts(vec![("next", or_null("text"))]),
    );
    let states = [TaskState::Running, TaskState::Done, TaskState::Cancelled, TaskState::Failed];
    let task = object(
        "A task, and how far it is.",
        &[
            "id", "action", "dry_run", "selector", "by", "state", "matched", "changed", "looked", "of",
            "began_at",
        ],
        counts(vec![
            ("id", of("number", "Its number.")),
            ("action", action),
            ("dry_run", of("yes-no", "Whether it only counts.")),
            ("to", to),
            ("selector", reference("Selector")),
            ("by", of("text", "Who began it, and from where.")),
            ("state", json!({"enum": states.map(TaskState::as_str)})),
            (
                "resumed",
                json!({"type": "integer", "description": "How often it was begun anew after a stop; not there: never."}),
            ),
            ("began_at", schema_of("time")),
            ("ended_at", schema_of("time")),
            ("error", of("text", "Why it could not go on.")),
        ]),
    );
    let entry = object(
        "A message, or those of its recipients that match.",
        &["id", "received_at", "size", "priority", "sender", "recipients_total", "recipients"],
        vec![
            ("id", schema_of("id")),
            ("received_at", schema_of("time")),
            ("size", of("number", "Octets of content.")),
            ("priority", schema_of("class")),
            ("tenant", schema_of("text")),
            (
                "campaign",
                of("text", "What it says which campaign it is of, in the field `queue.campaign-header`."),
            ),
            ("sender", of("text", "The reverse-path; empty for the null reverse-path.")),
            ("recipients_total", of("number", "How many match; a listing shows some of them.")),
            ("recipients", json!({"type": "array", "items": reference("Recipient")})),
        ],
    );
    let recipient = object(
        "A recipient that has not ended.",
        &["index", "address", "state", "destination", "attempts"],
        vec![
            ("index", of("number", "Its place in the envelope.")),
            ("address", schema_of("text")),
            ("state", schema_of("state")),
            ("destination", schema_of("text")),
            ("site", schema_of("text")),
            ("attempts", of("number", "How many have ended.")),
            ("due", of("time", "When it is tried next.")),
            ("status", of("text", "Why it was deferred last.")),
            ("reply", of("text", "What the next hop said, as far as that is kept in memory.")),
            ("category", of("text", "What that is about.")),
        ],
    );
    let entries = json!({"type": "array", "items": reference("Entry")});
    let page = object("A page.", &["entries", "next"], vec![("entries", entries), ("next", or_null("text"))]);
    let problem = object(
        "What is wrong, and what to do (RFC 9457).",
        &["type", "title", "status", "detail", "remedy"],
        vec![
            ("type", schema_of("text")),
            ("title", schema_of("text")),
            ("status", schema_of("number")),
            ("detail", schema_of("text")),
            ("remedy", schema_of("text")),
        ],
    );
    json!({
        "Filter": filter, "Selector": selector, "Change": change, "TaskBegin": begin, "Progress": progress,
        "Task": task, "Entry": entry, "Recipient": recipient, "Page": page, "Problem": problem,
    })
}

#[cfg(test)]
mod test {
    use std::collections::BTreeSet;

    use bridge::{Filter, JournalHealth};

    use super::*;
    use crate::operations::test::{ask, entry, operations};

    fn keys(value: &Value) -> BTreeSet<String> {
        value.as_object().unwrap_or_else(|| panic!("{value}")).keys().cloned().collect()
    }

    /// That an answer has the fields that the document tells of, and no other.
    fn check(document: &Value, name: &str, answer: &Value) {
        let schema = &document["components"]["schemas"][name];
        let (told, got) = (keys(&schema["properties"]), keys(answer));
        assert!(got.is_subset(&told), "{name}: {got:?} of {told:?}");
        let required: BTreeSet<_> = schema["required"]
            .as_array()
            .unwrap()
            .iter()
            .map(|key| key.as_str().unwrap().to_owned())
            .collect();
        assert!(required.is_subset(&got), "{name}: {required:?} in {got:?}");
    }

    #[tokio::test]
    async fn the_document_is_true() {
        let router = operations(JournalHealth::Healthy).everything();
        let json = async |method: &'static str, path: &str, body: &'static str| {
            let (status, text) = ask(router.clone(), method, path, None, body).await;
            (status, serde_json::from_str::<Value>(&text).unwrap_or_else(|_| panic!("{path}: {text}")))
        };
        let (status, document) = json("GET", "/api/v1/queue/openapi.json", "").await;
        assert_eq!((status, &document["openapi"]), (200, &"3.1.0".into()));
        // Each path and method is there, and each answer with a status that is told.
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                if !path.starts_with("/api/v1/queue") {
                    continue;
                }
                let id = if method == "post" { "hold".to_owned() } else { entry().id.to_string() };
                let path = path.replace("{name}", &id).replace("{id}", "1");
                let body = if path.ends_with("tasks") {
                    r#"{"action":"hold","selector":"all"}"#
                } else {
                    r#"{"selector":"all"}"#
                };
                let method = method.to_uppercase().leak();
                let (status, answer) = json(
                    method,
                    &format!("{path}?subject=site:slow").replace("queue?subject=site:slow", "queue"),
                    body,
                )
                .await;
                assert!(operation["responses"][status.to_string()].is_object(), "{method} {path}: {status}");
                assert_ne!(answer["detail"], "there is nothing at this path", "{method} {path}");
            }
        }
        let (_, page) = json("GET", "/api/v1/queue", "").await;
        check(&document, "Page", &page);
        let (_, entry) = json("GET", &format!("/api/v1/queue/{}", entry().id), "").await;
        check(&document, "Entry", &entry);
        check(&document, "Recipient", &entry["recipients"][0]);
        let (_, progress) = json("POST", "/api/v1/queue/count", r#"{"selector":"all"}"#).await;
        check(&document, "Progress", &progress);
        let body = r#"{"action":"reroute","selector":"all","to":"backup","dry_run":false,"by":"ann"}"#;
        check(&document, "TaskBegin", &serde_json::from_str(body).unwrap());
        let (status, task) = json("POST", "/api/v1/queue/tasks", body).await;
        assert_eq!(status, 202, "{task}");
        check(&document, "Task", &task);
        let (_, problem) = json("GET", "/api/v1/queue/tasks/99", "").await;
        check(&document, "Problem", &problem);
        // What one may choose by is what a filter has, and a listing takes it.
        let whole = Filter {
            id: Some(self::entry().id),
            sender: "<>".parse().ok(),
            recipient: "example.org".parse().ok(),
            destination: Some("a".into()),
            state: Some(bridge::State::Held),
            site: Some("a".into()),
            tenant: Some("a".into()),
            campaign: Some("a".into()),
            priority: Some(bridge::Class::Bulk),
            older_than: "1h".parse().ok(),
            younger_than: "2h".parse().ok(),
            status: "4.2.2".parse().ok(),
            category: "quota".parse().ok(),
            reply: Some("a".into()),
            subject: Some("a".into()),
            subject_hash: "01234567".parse().ok(),
        };
        let whole = serde_json::to_value(whole).unwrap();
        assert_eq!(keys(&document["components"]["schemas"]["Filter"]["properties"]), keys(&whole));
        for (name, value) in whole.as_object().unwrap() {
            let value = value.as_str().unwrap().replace('<', "%3C").replace('>', "%3E");
            let (status, answer) = json("GET", &format!("/api/v1/queue?{name}={value}"), "").await;
            assert_eq!(status, 200, "{name}: {answer}");
        }
    }
}
