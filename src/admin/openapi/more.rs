//! What is answered beside the queue: one line for each method of each path, and the fields of what comes back.

use serde_json::{Map, Value, json};

use super::{object, operation, query, reference, schema_of};

/// A method of a path.
struct Endpoint {
    path: &'static str,
    method: &'static str,
    id: &'static str,
    summary: &'static str,
    /// Fields of the query: name, what it takes, what it means.
    query: &'static [(&'static str, &'static str, &'static str)],
    /// The schema of the body.
    body: Option<&'static str>,
    /// Status and schema of what comes back; problems have none.
    answers: &'static [(&'static str, &'static str)],
}

const LIMIT: (&str, &str, &str) = ("limit", "number", "So many at most.");
const CURSOR: (&str, &str, &str) = ("cursor", "text", "Where the page before stopped: its `next`.");
const ABOUT: (&str, &str, &str) = ("domain", "text", "About this domain, or what is below it.");
const KIND: (&str, &str, &str) = ("kind", "text", "dmarc, tls, failure or unread.");
const SINCE: (&str, &str, &str) =
    ("since", "text", "About what was then, or later: a time, a day, or so long ago, such as 7d.");
const UNTIL: (&str, &str, &str) = ("until", "text", "About what was before.");
const REPORTER: (&str, &str, &str) =
    ("reporter", "text", "Sent by this domain, as far as that is proven; empty for those of whom it is not.");
const BY: (&str, &str, &str) = ("by", "text", "By what senders are told apart: address or network.");

const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/api/v1/status",
        method: "get",
        id: "status",
        summary: "Which version runs, since when, where it listens, and how each core is",
        query: &[],
        body: None,
        answers: &[("200", "Any")],
    },
    Endpoint {
        path: "/api/v1/reload",
        method: "post",
        id: "reload",
        summary: "Read the configuration again, and take what may be changed without a restart",
        query: &[],
        body: None,
        answers: &[("200", "Any"), ("422", "")],
    },
    Endpoint {
        path: "/api/v1/upgrade",
        method: "post",
        id: "upgrade",
        summary: "Have the program as it is on the disk now take over",
        query: &[],
        body: None,
        answers: &[("200", "Any"), ("422", "")],
    },
    Endpoint {
        path: "/api/v1/tls-reports",
        method: "post",
        id: "reportTls",
        summary: "Report on TLS now, and not again at the end of the day (RFC 8460)",
        query: &[],
        body: None,
        answers: &[("202", "None")],
    },
    Endpoint {
        path: "/api/v1/dmarc-reports",
        method: "post",
        id: "reportDmarc",
        summary: "Report on mail that bore the names of domains now, likewise (RFC 9990)",
        query: &[],
        body: None,
        answers: &[("202", "None")],
    },
    Endpoint {
        path: "/api/v1/sources",
        method: "get",
        id: "listSources",
        summary: "The sources that mail goes out from, and how they stand",
        query: &[],
        body: None,
        answers: &[("200", "List")],
    },
    Endpoint {
        path: "/api/v1/reputation",
        method: "get",
        id: "reputation",
        summary: "What is remembered of somebody, and what that weighs",
        query: &[("of", "text", "An address of a client, a domain, an address of mail, or AS and a number.")],
        body: None,
        answers: &[("200", "List"), ("400", "")],
    },
    Endpoint {
        path: "/api/v1/dkim",
        method: "get",
        id: "listRotations",
        summary: "Keys that renew themselves, and how far each is",
        query: &[],
        body: None,
        answers: &[("200", "List")],
    },
    Endpoint {
        path: "/api/v1/dkim/rotate",
        method: "post",
        id: "rotate",
        summary: "Renew a key before its time",
        query: &[],
        body: Some("RotationWish"),
        answers: &[("202", "RotationWish"), ("400", ""), ("404", "")],
    },
    Endpoint {
        path: "/api/v1/deliverability",
        method: "get",
        id: "lastChecks",
        summary: "What was found the last time that our domains were looked at",
        query: &[("domain", "text", "Of this one alone.")],
        body: None,
        answers: &[("200", "List"), ("400", "")],
    },
    Endpoint {
        path: "/api/v1/deliverability",
        method: "post",
        id: "check",
        summary: "Look at a domain now, as a mail tester would",
        query: &[],
        body: Some("DomainWish"),
        answers: &[("200", "Any"), ("400", "")],
    },
    Endpoint {
        path: "/api/v1/suppressions",
        method: "get",
        id: "listSuppressions",
        summary: "Who is on a suppression list; with `address`, the entry of this one",
        query: &[
            ("tenant", "text", "Of this tenant; `*`: of all."),
            ("list", "text", "Of this list."),
            ("address", "text", "Whether this address, or domain, is on it: with `tenant`."),
            ("domain", "text", "Addresses of this domain."),
            ("reason", "text", "bounce, complaint, unsubscribe or manual."),
            CURSOR,
            LIMIT,
        ],
        body: None,
        answers: &[("200", "Suppressions"), ("400", ""), ("404", "")],
    },
    Endpoint {
        path: "/api/v1/suppressions/{action}",
        method: "post",
        id: "changeSuppressions",
        summary: "Put people on a list (add), or take them off (remove)",
        query: &[],
        body: Some("Suppressions"),
        answers: &[("200", "Changed"), ("400", ""), ("404", ""), ("422", ""), ("500", ""), ("507", "")],
    },
    Endpoint {
        path: "/api/v1/greylist",
        method: "get",
        id: "greylist",
        summary: "How many wait, and how many have proven that they come back",
        query: &[],
        body: None,
        answers: &[("200", "Greylist")],
    },
    Endpoint {
        path: "/api/v1/greylist/entries",
        method: "get",
        id: "listGreylist",
        summary: "What is remembered of a client, or of mail that it brings",
        query: &[
            ("client", "text", "An address of the client."),
            ("sender", "text", "The reverse-path; empty, or <>, for the null one."),
            ("recipient", "text", "The recipient."),
        ],
        body: None,
        answers: &[("200", "List"), ("400", "")],
    },
    Endpoint {
        path: "/api/v1/greylist/clear",
        method: "post",
        id: "clearGreylist",
        summary: "Forget it",
        query: &[],
        body: Some("GreylistChoice"),
        answers: &[("200", "GreylistCleared"), ("400", "")],
    },
    Endpoint {
        path: "/api/v1/reports",
        method: "get",
        id: "listReports",
        summary: "Reports that came to us, the newest day first",
        query: &[ABOUT, KIND, SINCE, UNTIL, REPORTER, CURSOR, LIMIT],
        body: None,
        answers: &[("200", "Reports"), ("400", ""), ("500", "")],
    },
    Endpoint {
        path: "/api/v1/reports/summary",
        method: "get",
        id: "summarizeReports",
        summary: "Reports put together: who sends as a domain, and does it pass; how TLS went",
        query: &[ABOUT, KIND, SINCE, UNTIL, REPORTER, BY, LIMIT],
        body: None,
        answers: &[("200", "ReportSummary"), ("400", ""), ("500", "")],
    },
    Endpoint {
        path: "/api/v1/reports/{key}",
        method: "get",
        id: "showReport",
        summary: "One report with all that it tells, or a mail that is none",
        query: &[],
        body: None,
        answers: &[("200", "ShownReport"), ("404", ""), ("500", "")],
    },
    Endpoint {
        path: "/api/v1/queue/openapi.json",
        method: "get",
        id: "describeQueue",
        summary: "This description",
        query: &[],
        body: None,
        answers: &[("200", "Any")],
    },
    Endpoint {
        path: "/api/v1/operations/openapi.json",
        method: "get",
        id: "describe",
        summary: "This description; that of mail taken in is at /api/v1/openapi.json",
        query: &[],
        body: None,
        answers: &[("200", "Any")],
    },
    Endpoint {
        path: "/metrics",
        method: "get",
        id: "metrics",
        summary: "All metrics, in the text format of Prometheus (docs/metrics.md)",
        query: &[],
        body: None,
        answers: &[("200", "Text")],
    },
    Endpoint {
        path: "/healthz",
        method: "get",
        id: "health",
        summary: "Whether the process answers",
        query: &[],
        body: None,
        answers: &[("200", "Text")],
    },
    Endpoint {
        path: "/readyz",
        method: "get",
        id: "ready",
        summary: "Whether a load balancer should send mail here",
        query: &[],
        body: None,
        answers: &[("200", "Text"), ("503", "Text")],
    },
    // What follows is answered for strangers, by the pool.
    Endpoint {
        path: "/u/{token}",
        method: "get",
        id: "showUnsubscribe",
        summary: "A page with a button, for a recipient who follows the link of his mail",
        query: &[],
        body: None,
        answers: &[("200", "Page of HTML"), ("404", "Page of HTML"), ("429", "Page of HTML")],
    },
    Endpoint {
        path: "/u/{token}",
        method: "post",
        id: "unsubscribe",
        summary: "Leave a list: List-Unsubscribe=One-Click in a form (RFC 8058)",
        query: &[],
        body: Some("OneClick"),
        answers: &[
            ("200", "Page of HTML"),
            ("400", "Page of HTML"),
            ("404", "Page of HTML"),
            ("429", "Page of HTML"),
            ("503", "Page of HTML"),
        ],
    },
    Endpoint {
        path: "/v1/tlsrpt",
        method: "post",
        id: "postTlsReport",
        summary: "A report on TLS comes to us (RFC 8460 §3): JSON, packed or not; with `reports-in.https`",
        query: &[],
        body: Some("TlsReport"),
        answers: &[
            ("200", "Text"),
            ("201", "Text"),
            ("400", "Text"),
            ("404", "Text"),
            ("408", "Text"),
            ("413", "Text"),
            ("415", "Text"),
            ("422", "Text"),
            ("429", "Text"),
            ("503", "Text"),
        ],
    },
];

/// Whoever may ask without a token.
fn is_open(path: &str) -> bool {
    !path.starts_with("/api/")
}

/// Adds the paths to those of the queue.
pub(super) fn paths(paths: &mut Map<String, Value>) {
    for endpoint in ENDPOINTS {
        let mut parameters: Vec<_> =
            endpoint.query.iter().map(|(name, kind, doc)| query(name, doc, schema_of(kind))).collect();
        if let Some((_, name)) = endpoint.path.split_once('{') {
            let name = name.trim_end_matches('}');
            parameters.push(json!({"name": name, "in": "path", "required": true, "schema": part(name)}));
        }
        let body = endpoint.body.filter(|body| !content(body).is_string()).map(reference);
        let described: Vec<_> = endpoint
            .answers
            .iter()
            .map(|(status, name)| (*status, if name.is_empty() { Value::Null } else { answer(name) }))
            .collect();
        let mut said =
            operation(endpoint.id, endpoint.summary, parameters, body, &described, is_open(endpoint.path));
        if let Some(Value::String(kind)) = endpoint.body.map(content) {
            said["requestBody"] =
                json!({"required": true, "content": {kind: {"schema": {"type": "string"}}}});
        }
        for (status, name) in endpoint.answers {
            match *name {
                "Text" => said["responses"][*status]["content"] = media("text/plain"),
                "Page of HTML" => said["responses"][*status]["content"] = media("text/html"),
                "None" => {
                    drop(said["responses"][*status].as_object_mut().and_then(|one| one.remove("content")))
                }
                _ => {}
            }
        }
        if is_open(endpoint.path) {
            said["security"] = json!([]);
        }
        paths.entry(endpoint.path).or_insert_with(|| json!({}))[endpoint.method] = said;
    }
}

/// The media type of a body that is no JSON of ours.
fn content(body: &str) -> Value {
    match body {
        "OneClick" => "application/x-www-form-urlencoded".into(),
        "TlsReport" => "application/tlsrpt+gzip".into(),
        _ => Value::Null,
    }
}

fn media(kind: &str) -> Value {
    json!({kind: {"schema": {"type": "string"}}})
}

/// A part of a path.
fn part(name: &str) -> Value {
    match name {
        "action" => json!({"enum": ["add", "remove"]}),
        "key" => json!({"type": "string", "pattern": "^[0-9a-f]{24}$"}),
        _ => json!({"type": "string"}),
    }
}

fn answer(name: &str) -> Value {
    match name {
        "Any" | "None" => json!({"type": "object"}),
        "List" => json!({"type": "array", "items": {"type": "object"}}),
        "Text" | "Page of HTML" => json!({"type": "string"}),
        name => reference(name),
    }
}

/// Adds what bodies and answers have in them.
pub(super) fn schemas(schemas: &mut Map<String, Value>) {
    let text = || schema_of("text");
    let number = || schema_of("number");
    let list = |of: Value| json!({"type": "array", "items": of});
    let texts = |names: &[&'static str]| names.iter().map(|name| (*name, text())).collect::<Vec<_>>();
    let mut add = |name: &str, schema: Value| drop(schemas.insert(name.into(), schema));
    add(
        "Suppression",
        object(
            "Somebody on a suppression list.",
            &["tenant", "address"],
            texts(&["tenant", "list", "address", "reason", "since", "until", "note"]),
        ),
    );
    let page = vec![("entries", list(reference("Suppression"))), ("next", text())];
    add("Suppressions", object("Entries, and where the next page begins.", &["entries"], page));
    add("Changed", object("So many were changed.", &["changed"], vec![("changed", number())]));
    let counts = ["waiting", "proven", "clients", "evicted"];
    let fields = counts.map(|name| (name, number())).to_vec();
    add("Greylist", object("How much is remembered.", &counts, fields));
    let fields = texts(&["client", "sender", "recipient"]);
    add("GreylistChoice", object("A client, and mail that it brings.", &["client"], fields));
    add("GreylistCleared", object("So many are forgotten.", &["cleared"], vec![("cleared", number())]));
    add("RotationWish", object("Which key.", &["key"], texts(&["key"])));
    add("DomainWish", object("Which domain.", &["domain"], texts(&["domain"])));
    add("ReportHead", head("What a report says it is.", &[], Vec::new()));
    let content = ("content", json!({"type": "string", "contentEncoding": "base64"}));
    let told =
        ("told", json!({"type": "object", "description": "dmarc, tls or failure, with what it tells."}));
    add("ShownReport", head("A report.", &[], vec![told, content]));
    let cut = json!({"type": "boolean", "description": "There are more than were looked at."});
    let page = vec![("reports", list(reference("ReportHead"))), ("next", text()), ("cut", cut.clone())];
    add("Reports", object("A page.", &["reports", "cut"], page));
    let numbers = ["reports", "messages", "passed", "sessions", "failed_sessions", "others"];
    let lists = ["sources", "reporters", "policies", "failures"];
    let mut fields = numbers.map(|name| (name, number())).to_vec();
    fields.extend(lists.map(|name| (name, list(json!({"type": "object"})))));
    fields.extend(texts(&["begin", "end"]));
    fields.push(("cut", cut));
    let required: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
    add("ReportSummary", object("Reports put together.", &required, fields));
}

/// The fields of a report, and more.
fn head(doc: &str, required: &[&str], more: Vec<(&'static str, Value)>) -> Value {
    let always = [
        "key",
        "kind",
        "domain",
        "organization",
        "contact",
        "id",
        "begin",
        "end",
        "reporter",
        "proof",
        "from",
        "received",
        "mail",
    ];
    let counts = ["messages", "failed"];
    let mut fields: Vec<_> = always.iter().map(|name| (*name, schema_of("text"))).collect();
    fields.extend(counts.map(|name| (name, schema_of("number"))));
    fields.push(("reason", schema_of("text")));
    fields.extend(more);
    object(doc, &[&always[..], &counts, required].concat(), fields)
}

#[cfg(test)]
mod test {
    use std::collections::BTreeSet;

    use axum::{body::Body, http::Request};
    use bridge::JournalHealth;
    use report::received::{Head, Summary};
    use tower::ServiceExt as _;

    use super::*;
    use crate::{
        openapi::document,
        operations::{all, test::operations},
    };

    /// Each path that is answered is described with all of its methods, and nothing else is.
    #[tokio::test]
    async fn what_is_answered_is_described() {
        let operations = operations(JournalHealth::Healthy);
        let document = document();
        let paths = document["paths"].as_object().unwrap();
        let known: BTreeSet<&str> = all().known().iter().copied().collect();
        for path in &known {
            let place = path.replace("{id}", "1").replace(['{', '}'], "");
            // Nobody answers OPTIONS: which methods there are is said instead (RFC 9110 §15.5.6).
            let request = Request::options(&place).body(Body::empty()).unwrap();
            let router = all().into_router().with_state(operations.clone());
            let answer = router.oneshot(request).await.unwrap();
            assert_eq!(answer.status(), 405, "{path}");
            let allowed = answer.headers()["allow"].to_str().unwrap().to_ascii_lowercase();
            let allowed: BTreeSet<_> = allowed.split(',').filter(|method| *method != "head").collect();
            let described = paths.get(*path).unwrap_or_else(|| panic!("{path} is not described"));
            let described: BTreeSet<_> = described.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(described, allowed, "{path}");
        }
        let described: BTreeSet<&str> = paths.keys().map(String::as_str).collect();
        let elsewhere: Vec<_> = described.difference(&known).copied().collect();
        // Those of the pool are held against its routes there.
        assert_eq!(elsewhere, ["/u/{token}", "/v1/tlsrpt"]);
    }

    #[test]
    fn ids_are_unique_and_references_lead_somewhere() {
        let document = document();
        let mut ids = BTreeSet::new();
        for path in document["paths"].as_object().unwrap().values() {
            for operation in path.as_object().unwrap().values() {
                assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{operation}");
            }
        }
        let text = document.to_string();
        for name in text.split("#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
    }

    #[test]
    fn the_fields_are_those_of_the_types() {
        let document = document();
        let keys =
            |value: &Value| -> BTreeSet<String> { value.as_object().unwrap().keys().cloned().collect() };
        let schema = |name: &str| keys(&document["components"]["schemas"][name]["properties"]);
        let of_head = json!({
            "key": "0", "kind": "unread", "domain": "", "organization": "o", "contact": "", "id": "1", "begin": "",
            "end": "", "messages": 1, "failed": 0, "reporter": "", "proof": "none", "from": "", "received": "",
            "mail": "x", "reason": "why"
        });
        let head: Head = serde_json::from_value(of_head).unwrap();
        assert_eq!(schema("ReportHead"), keys(&serde_json::to_value(&head).unwrap()));
        assert_eq!(schema("ReportSummary"), keys(&serde_json::to_value(Summary::default()).unwrap()));
        let shown = crate::ShownReport { head, told: None, content: Some(String::new()) };
        let fields = keys(&serde_json::to_value(&shown).unwrap());
        assert!(fields.is_subset(&schema("ShownReport")), "{fields:?}");
    }

    #[tokio::test]
    async fn answers_have_the_fields_that_are_described() {
        let router = operations(JournalHealth::Healthy).everything();
        let document = document();
        let properties =
            |name: &str| document["components"]["schemas"][name]["properties"].as_object().unwrap();
        let (_, text) =
            crate::operations::test::ask(router.clone(), "GET", "/api/v1/greylist", None, "").await;
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            properties("Greylist").keys().collect::<Vec<_>>(),
            answer.as_object().unwrap().keys().collect::<Vec<_>>()
        );
        // An entry has these fields and no other: what is not known is refused.
        let word = |name: &String| (name.clone(), if name == "reason" { "manual" } else { "x" }.into());
        let whole: Map<String, Value> = properties("Suppression").keys().map(word).collect();
        let entry: crate::suppression::EntryBody = serde_json::from_value(whole.clone().into()).unwrap();
        assert_eq!(serde_json::to_value(&entry).unwrap(), Value::from(whole));
        let (status, text) =
            crate::operations::test::ask(router, "GET", "/api/v1/operations/openapi.json", None, "").await;
        assert_eq!((status, serde_json::from_str::<Value>(&text).unwrap()), (200, document));
    }
}
