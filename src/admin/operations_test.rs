//! The operations without a socket: requests into the router, scripted shards behind the door.

use axum::body::{Body, to_bytes};
use bridge::{Counts, Hatch, JournalHealth, Limits, Reason, Recipient, Stage};
use mail::{JournalShard, QueueId, Status};
use tower::ServiceExt as _;

use super::*;

/// A queue of one message, held by a shard that says so.
pub(crate) async fn shard(mut hatch: Hatch, journal: JournalHealth) {
    while let Some(request) = hatch.recv().await {
        match request {
            bridge::Request::List(listing, reply) => {
                let sender_matches = listing
                    .filter
                    .sender
                    .is_none_or(|p| p.matches(&mail::Address::parse(b"ann@example.org").unwrap()));
                let entries = if sender_matches { vec![entry()] } else { Vec::new() };
                reply.send(Page { entries, next: None });
            }
            bridge::Request::Show(id, reply) => reply.send(Some(entry()).filter(|entry| entry.id == id)),
            bridge::Request::Explain(subject, reply) => {
                let reason = Reason {
                    cause: "rate".into(),
                    text: "as much as its rate lets".into(),
                    until: Some(Timestamp::from_secs(1_000_600)),
                    set_by: Some("site.slow.message-rate".into()),
                };
                let known = subject == "site:slow";
                let explained = Explained { subject, shard: 0, reasons: vec![reason] };
                reply.send(Some(explained).filter(|_| known).into_iter().collect());
            }
            bridge::Request::Change { change, cursor, reply } => {
                // Everything takes two steps.
                let next = Some(1).filter(|_| change.selector == Selector::All && cursor == 0);
                let changed = u64::from(change.action != Action::Count);
                let progress = Progress { matched: 1, changed, looked: 512, of: 1024, next };
                reply.send(Some(progress).filter(|_| change.to.as_deref() != Some("nowhere")));
            }
            // A shard that does not answer.
            bridge::Request::Inject(_, reply) => drop(reply),
            bridge::Request::Release(_, reply) => drop(reply),
            bridge::Request::Collect(_, _, reply) => drop(reply),
            bridge::Request::Summary(_, reply) => reply.send(Summary {
                messages: 1,
                recipients: Counts { deferred: 2, ..Counts::default() },
                oldest: Some(entry().received_at),
                destinations: vec![bridge::Destination {
                    name: "mx:example.net".into(),
                    recipients: Counts { deferred: 2, ..Counts::default() },
                    attempts: 0,
                    site: Some("hosts:mx.example".into()),
                    failures: 3,
                    blocked_until: Some(Timestamp::from_secs(1_000_600)),
                }],
            }),
            bridge::Request::Health(reply) => reply.send(ShardHealth {
                shard: 0,
                stage: Stage::Serving,
                journal,
                journal_error: None,
                inbound: 1,
                outbound: 0,
                messages: 1,
                returning: None,
            }),
            bridge::Request::Reload(_, reply) => reply.send(Vec::new()),
            bridge::Request::LetGo(reply) => reply.send(Vec::new()),
            bridge::Request::Drain(_, reply) => reply.send(0),
            bridge::Request::Spare(reply) => reply.send(None),
            bridge::Request::Depart(_) => return,
            bridge::Request::TlsResults(_) | bridge::Request::DmarcResults(_) | bridge::Request::Ask(..) => {
                panic!("nobody asks for that here")
            }
        }
    }
}

pub(crate) fn entry() -> Entry {
    let recipient = |index, address: &str| Recipient {
        index,
        address: address.into(),
        state: bridge::State::Deferred,
        destination: "mx:example.net".into(),
        site: None,
        attempts: 4,
        due: Some(Timestamp::from_secs(1_000_300)),
        status: Some(Status(4, 2, 2)),
        reply: Some("452 4.2.2 mailbox\u{1b}[2J full".into()),
        category: Some("quota".into()),
    };
    Entry {
        id: QueueId::new(JournalShard(2), 7),
        received_at: Timestamp::from_secs(992_000),
        size: 4301,
        priority: bridge::Class::Normal,
        tenant: None,
        campaign: None,
        sender: "ann@example.org".into(),
        recipients_total: 2,
        recipients: vec![recipient(0, "bob@example.net"), recipient(1, "eve@example.net")],
    }
}

/// Whoever reloads: every other time, the configuration is wrong.
fn reloads() -> mpsc::Sender<ReloadRequest> {
    let (sender, mut receiver) = crate::reload_requests();
    tokio::spawn(async move {
        let answers = [
            Ok(crate::Reloaded {
                pending: vec!["cores.count".into(), "listener.smtp.address".into()],
                stranded: vec![bridge::Stranded { destination: "hop:192.0.2.1:25".into(), recipients: 3 }],
                warnings: vec!["c.toml:3:1: clients.deny: replaces the list".into()],
            }),
            Err("c.toml:3:1: limits.x: unknown key".to_owned()),
            Ok(crate::Reloaded::default()),
        ];
        for answer in answers {
            let request: Option<ReloadRequest> = receiver.recv().await;
            let _ = request.map(|reply| reply.send(answer));
        }
    });
    sender
}

/// Whoever starts new programs: the first cannot serve.
fn upgrades() -> mpsc::Sender<UpgradeRequest> {
    let (sender, mut receiver) = crate::upgrade_requests();
    tokio::spawn(async move {
        let upgraded = crate::Upgraded { version: "0.2.0".into(), pid: 7 };
        for answer in [Err("c.toml:1:1: hostname: expected a name".to_owned()), Ok(upgraded)] {
            let request: Option<UpgradeRequest> = receiver.recv().await;
            let _ = request.map(|reply| reply.send(answer));
        }
    });
    sender
}

pub(crate) fn operations(journal: JournalHealth) -> Operations {
    let (door, hatches) = Door::new(1, Limits::default());
    for hatch in hatches {
        tokio::spawn(shard(hatch, journal));
    }
    let facts = Facts {
        version: "0.1.0",
        started_at: Timestamp::from_secs(10),
        data_dir: "/var/lib/ringpost".into(),
        listeners: vec![Listener { name: "smtp".into(), address: "[::]:2525".into() }],
        clock: || Timestamp::from_secs(70),
        metrics: Arc::new(|| "ringpost_up 1\n".into()),
        reloads: reloads(),
        upgrades: upgrades(),
        sources: Arc::new(Vec::new),
        report_now: ReportNow::default(),
        tenancy: bridge::Tenancy::new(tenancy::CaseOfLocalParts::Ignored, 1).0,
        knows_tenant: Arc::new(|name| name == "shop"),
        strangers: Strangers::default(),
        reputation_rules: Arc::new(|| ReputationRules {
            mode: config::ReputationUse::Off,
            asn_weight_max: 2,
            sample: 20,
            weight_max: 4,
        }),
        rotations: crate::Rotations::default(),
        deliverability: Deliverability::new().0,
    };
    Operations::new(door, facts)
}

pub(crate) async fn ask(
    router: Router,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: &str,
) -> (u16, String) {
    let mut request = axum::http::Request::builder().method(method).uri(path);
    request = request.header("content-type", "application/json");
    if let Some(token) = token {
        request = request.header("authorization", token);
    }
    let response = router.oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn everything_answers_on_the_control_socket() {
    let router = operations(JournalHealth::Healthy).everything();
    let id = entry().id;
    let show = format!("/api/v1/queue/{id}");
    for (method, path, body, status, part) in [
        ("GET", "/metrics", "", 200, "ringpost_up 1"),
        ("GET", "/healthz", "", 200, "ok"),
        ("GET", "/api/v1/sources", "", 200, "[]"),
        ("GET", "/readyz", "", 200, "ready"),
        ("GET", "/api/v1/status", "", 200, r#""uptime_seconds":60"#),
        ("GET", "/api/v1/status", "", 200, r#""stage":"serving""#),
        ("GET", "/api/v1/queue", "", 200, r#""next":null"#),
        ("GET", "/api/v1/queue?sender=example.org&limit=5&state=held", "", 200, "ann@example.org"),
        ("GET", "/api/v1/queue?sender=example.net", "", 200, r#"{"entries":[],"next":null}"#),
        ("GET", &show, "", 200, r#""recipients_total":2"#),
        ("GET", "/api/v1/queue/summary", "", 200, r#""messages":1"#),
        ("GET", "/api/v1/queue/why?subject=site%3Aslow", "", 200, r#""set_by":"site.slow.message-rate""#),
        ("GET", "/api/v1/queue/why?subject=mx%3Aa.test", "", 404, "name a queue id, or a site"),
        ("GET", "/api/v1/queue/why", "", 400, "subject"),
        (
            "POST",
            "/api/v1/queue/retry",
            r#"{"selector":"all"}"#,
            200,
            r#"{"matched":2,"changed":2,"looked":1024,"of":1024,"next":null}"#,
        ),
        ("POST", "/api/v1/queue/count", r#"{"selector":"all"}"#, 200, r#"{"matched":2,"changed":0,"#),
        ("POST", "/api/v1/queue/reroute", r#"{"selector":"all","to":"backup"}"#, 200, r#""changed":2"#),
        ("POST", "/api/v1/queue/reroute", r#"{"selector":"all","to":"nowhere"}"#, 422, "by its `name`"),
        ("POST", "/api/v1/queue/reroute", r#"{"selector":"all"}"#, 400, "no route is chosen"),
        ("GET", "/api/v1/queue/tasks", "", 200, "[]"),
        ("GET", "/api/v1/queue/tasks/7", "", 404, "see /api/v1/queue/tasks"),
        ("DELETE", "/api/v1/queue/tasks/7", "", 404, "no task 7"),
        (
            "POST",
            "/api/v1/queue/tasks",
            r#"{"action":"hold","selector":{"matching":{}}}"#,
            400,
            "nothing is chosen",
        ),
        (
            "GET",
            "/api/v1/queue?older_than=2h&category=quota&status=4.2.*&priority=bulk&site=a&tenant=",
            "",
            200,
            "ann",
        ),
        ("GET", "/api/v1/queue?older_than=2", "", 400, "write an age"),
        ("GET", "/api/v1/queue?category=full", "", 400, "no such category"),
        (
            "POST",
            "/api/v1/queue/remove",
            r#"{"selector":{"matching":{"state":"held"}}}"#,
            200,
            r#""changed":1"#,
        ),
        // What goes wrong says what to do.
        ("GET", "/api/v1/queue/0000000000000", "", 404, "search the log"),
        ("GET", "/api/v1/queue/xyz", "", 400, "13 characters"),
        ("GET", "/api/v1/queue?sender=a%20b", "", 400, "write an address"),
        ("GET", "/api/v1/queue?from=a", "", 400, "known are id, sender"),
        ("GET", "/api/v1/queue?cursor=18446744073709551615", "", 400, "start again without"),
        ("POST", "/api/v1/queue/retry", r#"{"selector":{"matching":{}}}"#, 400, "nothing is chosen"),
        ("POST", "/api/v1/queue/retry", "{}", 400, "the body is wrong"),
        ("POST", "/api/v1/queue/shred", r#"{"selector":"all"}"#, 404, "nothing at this path"),
        ("DELETE", "/api/v1/queue", "", 405, "read with GET"),
        ("GET", "/nowhere", "", 404, "see /metrics"),
    ] {
        let answer = ask(router.clone(), method, path, None, body).await;
        assert!(answer.0 == status && answer.1.contains(part), "{method} {path} {body}: {answer:?}");
    }
}

#[tokio::test]
async fn a_shard_that_cannot_keep_mail_is_not_ready() {
    let router = operations(JournalHealth::Full).everything();
    let answer = ask(router, "GET", "/readyz", None, "").await;
    assert_eq!(answer, (503, "shard 0: serving, journal full\n".into()));
}

#[tokio::test]
async fn a_stopped_shard_is_not_ready_but_the_process_is_alive() {
    let (door, hatches) = Door::new(1, Limits::default());
    drop(hatches);
    let facts = operations(JournalHealth::Healthy).0.facts.clone();
    let router = Operations::new(door, facts).everything();
    for (path, status) in
        [("/readyz", 503), ("/healthz", 200), ("/api/v1/status", 200), ("/api/v1/queue", 503)]
    {
        assert_eq!(ask(router.clone(), "GET", path, None, "").await.0, status, "{path}");
    }
}

#[tokio::test]
async fn an_upgrade_says_who_serves_and_who_has_not_ended() {
    let operations = operations(JournalHealth::Healthy);
    let router = operations.everything();
    for (status, parts) in [
        (422, ["the running program stays: c.toml:1:1", "upgrade again"]),
        (200, ["\"version\":\"0.2.0\"", "\"pid\":7"]),
        (503, ["the server stops", "start it again"]),
    ] {
        let answer = ask(router.clone(), "POST", "/api/v1/upgrade", None, "{}").await;
        assert!(answer.0 == status && parts.iter().all(|part| answer.1.contains(part)), "{answer:?}");
    }
    let before = crate::Predecessor { version: "0.1.0".into(), pid: 6, sessions: 3 };
    operations.set_predecessor(Some(before));
    let standing = ask(router.clone(), "GET", "/api/v1/status", None, "").await.1;
    assert!(
        standing.contains("\"predecessor\":{\"version\":\"0.1.0\",\"pid\":6,\"sessions\":3}"),
        "{standing}"
    );
    operations.set_predecessor(None);
    assert!(!ask(router, "GET", "/api/v1/status", None, "").await.1.contains("predecessor"));
}

#[tokio::test]
async fn a_reload_says_what_came_of_it() {
    let router = operations(JournalHealth::Healthy).everything();
    for (status, part) in [
        (
            200,
            r#"{"pending":["cores.count","listener.smtp.address"],"stranded":[{"destination":"hop:192.0.2.1:25","recipients":3}],"warnings":["c.toml:3:1: clients.deny: replaces the list"]}"#,
        ),
        (422, "the configuration stays as it was: c.toml:3:1: limits.x: unknown key"),
        (200, r#"{"pending":[],"stranded":[],"warnings":[]}"#),
        (503, "the server stops"),
    ] {
        let answer = ask(router.clone(), "POST", "/api/v1/reload", None, "{}").await;
        assert!(answer.0 == status && answer.1.contains(part), "{answer:?}");
    }
    assert_eq!(ask(router, "GET", "/api/v1/reload", None, "").await.0, 405);
}

#[tokio::test]
async fn a_port_guards_the_queue() {
    let operations = operations(JournalHealth::Healthy);
    let router = operations.guarded();
    for (path, token, status) in [
        ("/metrics", None, 200),
        ("/readyz", None, 200),
        ("/api/v1/queue", None, 403),
        ("/api/v1/status", Some("Bearer "), 403),
    ] {
        let answer = ask(router.clone(), "GET", path, token, "").await;
        assert_eq!(answer.0, status, "{path} {token:?}: {}", answer.1);
    }
    assert_eq!(ask(router.clone(), "POST", "/api/v1/reload", None, "{}").await.0, 403);
    operations.set_token(Some(Secret::new("abc123")));
    let with = router;
    for (router, path, token, status) in [
        (&with, "/metrics", None, 200),
        (&with, "/api/v1/queue", None, 401),
        (&with, "/api/v1/queue", Some("Bearer abc12"), 401),
        (&with, "/api/v1/queue", Some("Bearer abc124"), 401),
        (&with, "/api/v1/queue", Some("Basic abc123"), 401),
        (&with, "/api/v1/queue", Some("bearer abc123"), 200),
        (&with, "/api/v1/queue/summary", Some("Bearer abc123"), 200),
        (&with, "/api/v1/queue/0000000000000", None, 401),
    ] {
        let answer = ask(router.clone(), "GET", path, token, "").await;
        assert_eq!(answer.0, status, "{path} {token:?}: {}", answer.1);
    }
    let body = r#"{"selector":"all"}"#;
    assert_eq!(ask(with.clone(), "POST", "/api/v1/queue/remove", None, body).await.0, 401);
    operations.set_token(Some(Secret::new("another")));
    assert_eq!(ask(with.clone(), "GET", "/api/v1/queue", Some("Bearer abc123"), "").await.0, 401);
    assert_eq!(ask(with.clone(), "GET", "/api/v1/queue", Some("Bearer another"), "").await.0, 200);
    operations.set_token(Some(Secret::new("")));
    assert_eq!(ask(with, "GET", "/api/v1/queue", Some("Bearer "), "").await.0, 401);
}

#[tokio::test]
async fn a_task_runs_to_its_end_by_itself() {
    let router = operations(JournalHealth::Healthy).everything();
    let begin = |body: &'static str| ask(router.clone(), "POST", "/api/v1/queue/tasks", None, body);
    let (status, text) = begin(r#"{"action":"hold","selector":"all","by":"ann\u001b"}"#).await;
    assert_eq!(status, 202, "{text}");
    let task: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&task["id"], &task["state"]), (&1.into(), &"running".into()), "{task}");
    assert_eq!(task["by"], "ann (control socket)");
    let ended = async |path: &str| loop {
        let (_, text) = ask(router.clone(), "GET", path, None, "").await;
        let task: serde_json::Value = serde_json::from_str(&text).unwrap();
        if task["state"] != "running" {
            break task;
        }
        tokio::task::yield_now().await;
    };
    let task = ended("/api/v1/queue/tasks/1").await;
    assert_eq!((&task["state"], &task["changed"], &task["matched"]), (&"done".into(), &2.into(), &2.into()));
    assert_eq!((&task["looked"], &task["of"]), (&1024.into(), &1024.into()), "{task}");
    // A dry run changes nothing, and says how many it would be about.
    begin(r#"{"action":"remove","selector":"all","dry_run":true}"#).await;
    let task = ended("/api/v1/queue/tasks/2").await;
    assert_eq!(
        (&task["action"], &task["changed"], &task["matched"]),
        (&"remove".into(), &0.into(), &2.into())
    );
    begin(r#"{"action":"reroute","to":"nowhere","selector":"all"}"#).await;
    let task = ended("/api/v1/queue/tasks/3").await;
    assert_eq!((&task["state"], &task["changed"]), (&"failed".into(), &0.into()), "{task}");
    assert!(task["error"].as_str().unwrap().contains("no route"), "{task}");
    // What has ended cannot be cancelled any more.
    let (status, text) = ask(router.clone(), "DELETE", "/api/v1/queue/tasks/1", None, "").await;
    assert!(status == 200 && text.contains(r#""state":"done""#), "{text}");
}

/// A shard that gets no further.
async fn endless(mut hatch: Hatch) {
    while let Some(request) = hatch.recv().await {
        if let bridge::Request::Change { cursor, reply, .. } = request {
            let next = Some(cursor.max(1));
            reply.send(Some(Progress { matched: 1, changed: 1, looked: 1, of: 1 << 20, next }));
        }
    }
}

#[tokio::test]
async fn tasks_are_bounded_and_can_be_cancelled() {
    let (door, hatches) = Door::new(2, Limits::default());
    for hatch in hatches {
        tokio::spawn(endless(hatch));
    }
    let facts = operations(JournalHealth::Healthy).0.facts.clone();
    let router = Operations::new(door, facts).everything();
    let body = r#"{"action":"retry","selector":"all"}"#;
    for _ in 0..4 {
        assert_eq!(ask(router.clone(), "POST", "/api/v1/queue/tasks", None, body).await.0, 202);
    }
    let (status, text) = ask(router.clone(), "POST", "/api/v1/queue/tasks", None, body).await;
    assert!(status == 429 && text.contains("cancel one"), "{text}");
    ask(router.clone(), "DELETE", "/api/v1/queue/tasks/2", None, "").await;
    loop {
        let (_, text) = ask(router.clone(), "GET", "/api/v1/queue/tasks/2", None, "").await;
        if text.contains(r#""state":"cancelled""#) {
            break;
        }
        assert!(text.contains(r#""state":"running""#), "{text}");
        tokio::task::yield_now().await;
    }
    assert_eq!(ask(router.clone(), "POST", "/api/v1/queue/tasks", None, body).await.0, 202);
    let (_, text) = ask(router, "GET", "/api/v1/queue/tasks", None, "").await;
    let tasks: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let ids: Vec<_> = tasks.iter().map(|task| task["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [5, 4, 3, 2, 1]);
    assert_eq!(tasks[0]["of"].as_u64().unwrap() % (1 << 20), 0);
}
