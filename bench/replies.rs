//! What does a refusal cost: its category, by the rules that are built in? And those, made ready at the start?
//!
//! `cargo bench -p bench --bench replies`

use std::{hint::black_box, sync::Arc};

use config::Config;
use criterion::{Criterion, criterion_group, criterion_main};
use delivery::{Classifier, Endpoint, Outcome, Owner, Remote, Teller};
use mail::Status;
use smtp::client::{Answer, Reply, Stage};

fn outcome(stage: Stage, code: u16, status: Option<Status>, text: &str) -> Outcome {
    let endpoint = Endpoint::Tcp(([192, 0, 2, 1], 25).into());
    let remote = Arc::new(Remote { name: "mx.example.net".into(), endpoint, is_final: false });
    Outcome::of(&Answer::Reply(stage, Reply::new(code, status, text)), &remote, Teller::We)
}

fn replies(c: &mut Criterion) {
    let rules = shard::reply_rules(&Config::default()).expect("they are ours");
    c.bench_function("the rules made ready", |b| {
        b.iter(|| Classifier::new(rules.rules().into_iter().cloned().collect()));
    });
    let mut judge = |name: &str, outcome: &Outcome| {
        c.bench_function(name, |b| {
            b.iter(|| rules.judge(black_box(outcome), black_box("example.org"), Owner::default()))
        });
    };
    judge("delivered", &outcome(Stage::End, 250, Some(Status(2, 0, 0)), "Ok: queued as 4XYZ123ABC"));
    let unknown = "<somebody@example.org>: Recipient address rejected: User unknown in virtual mailbox table";
    judge("no such user, 87 octets", &outcome(Stage::Rcpt, 550, Some(Status(5, 1, 1)), unknown));
    let long =
        format!("[192.0.2.1] Messages from this network are not wanted. {}", "See the page. ".repeat(60));
    judge("a long text, 895 octets", &outcome(Stage::End, 554, Some(Status(5, 7, 1)), &long));
    judge("no text that is known", &outcome(Stage::Rcpt, 451, None, "qwertz"));
}

criterion_group!(benches, replies);
criterion_main!(benches);
