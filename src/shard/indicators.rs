//! The picture of the author's domain (BIMI): what is asserted of it, what is known of it, and who sees to it that it is known.
//!
//! Mail does not wait for a web server. What is not known yet is fetched by the pool, and the message says that it is not known.

use std::rc::Rc;

use bridge::{
    Evidence, IndicatorErrand, IndicatorFailure, IndicatorFlawed, IndicatorFound, IndicatorKey,
    IndicatorSource, IndicatorTicket,
};
use config::{Authentication, BimiUse};
use dns::Question;
use trust::{
    Asserted, Assertion, Bimi, BimiAuthority, BimiPlace, BimiResult, Case, Digest, TrickKind, Tricks,
    Verdict, bimi_fields, covers,
};
use watch::BimiCounted;

use crate::{authenticity::judged, facts, shard::Shard};

/// What is told of the picture, and the fields that show it; none where nobody asks for it.
pub(crate) async fn of_message(
    shard: &Rc<Shard>,
    rules: &Authentication,
    case: &mut Case,
    digest: &Digest,
    (verdict, tricks): (&Verdict, Tricks),
) -> Option<(Bimi, Vec<u8>)> {
    if rules.bimi == BimiUse::Off {
        return None;
    }
    let mut fields = Vec::new();
    // What honest senders write, too, shows nobody another author.
    let may_deceive = tricks.iter().any(|trick| trick.kind() != TrickKind::Irregular);
    let bimi = if !may_deceive {
        let judge = |case: &mut Case| case.judge_assertion(digest, verdict, ring::clock::now());
        match judged(shard, case, judge).await {
            Assertion::Settled(bimi) => bimi,
            Assertion::Found(asserted) => shown(shard, rules.bimi, &asserted, &mut fields),
        }
    } else {
        // What readers trust must not stand beside what deceives them.
        Bimi::skipped("the message may deceive its reader")
    };
    shard.metrics.inbound.bimi.of(counted(bimi.result)).one();
    Some((bimi, fields))
}

/// What is known of a picture.
fn shown(shard: &Rc<Shard>, wanted: BimiUse, asserted: &Asserted, fields: &mut Vec<u8>) -> Bimi {
    let record = &asserted.record;
    let none = Some(BimiAuthority::None);
    let skipped = |reason| Bimi { authority: none, ..asserted.told(BimiResult::Skipped, Some(reason)) };
    match (wanted, &record.evidence) {
        (BimiUse::Record | BimiUse::Off, evidence) => {
            bimi_fields(fields, asserted, evidence.as_ref(), None);
            return skipped("the indicator is not looked at here");
        }
        (BimiUse::Certificate, None) => return skipped("the indicator has no certificate"),
        (BimiUse::Certificate | BimiUse::Indicator, _) => {}
    }
    let evidence = record.evidence.as_ref().filter(|_| shard.settings().judges_marks);
    let places = [record.location.as_ref(), evidence];
    if places == [None, None] {
        return skipped("the indicator is in a certificate, and nobody is believed about those");
    }
    let text = |place: Option<&BimiPlace>| place.map(|place| place.as_str().into());
    let key = IndicatorKey { location: text(places[0]), evidence: text(places[1]) };
    let hosts: Vec<_> = places.into_iter().flatten().map(BimiPlace::host).collect();
    let look = shard.indicators.look(&key, &hosts, facts::now());
    if let Some(ticket) = look.ticket {
        let sources = places.map(|place| {
            let source = |place: &BimiPlace| {
                IndicatorSource::new(place.host().clone(), place.port(), place.target().into())
            };
            place.map(source)
        });
        ring::spawn(send_for(shard.clone(), ticket, sources));
    }
    match look.answer {
        None => asserted.told(BimiResult::TempError, Some("the indicator is not known yet")),
        Some(Err(failure)) => failed(asserted, &failure),
        Some(Ok(found)) => good(asserted, evidence, &found, fields),
    }
}

fn failed(asserted: &Asserted, failure: &IndicatorFailure) -> Bimi {
    let (result, authority) = match failure.of {
        IndicatorFlawed::Unavailable => (BimiResult::TempError, None),
        IndicatorFlawed::Indicator => (BimiResult::Fail, None),
        IndicatorFlawed::Evidence => (BimiResult::Fail, Some(BimiAuthority::Fail)),
    };
    Bimi { authority, ..asserted.told(result, Some(&failure.reason)) }
}

fn good(
    asserted: &Asserted,
    evidence: Option<&BimiPlace>,
    found: &IndicatorFound,
    fields: &mut Vec<u8>,
) -> Bimi {
    let authority = match &found.evidence {
        Evidence::Unnamed => BimiAuthority::None,
        Evidence::Good(names) if covers(names.iter().map(AsRef::as_ref), asserted) => BimiAuthority::Pass,
        Evidence::Good(_) => {
            let told = asserted.told(BimiResult::Fail, Some("the certificate is for another domain"));
            return Bimi { authority: Some(BimiAuthority::Fail), ..told };
        }
    };
    bimi_fields(fields, asserted, evidence, Some(&found.field));
    let told = asserted.told(BimiResult::Pass, None);
    Bimi { authority: Some(authority), hash: Some(found.hash.clone()), ..told }
}

/// Finds out where the hosts are, and has the pool go there. It judges by what it finds, so that hosts without addresses are its
/// business, too.
async fn send_for(shard: Rc<Shard>, ticket: IndicatorTicket, sources: [Option<IndicatorSource>; 2]) {
    let mut sources = sources;
    for source in sources.iter_mut().flatten() {
        let asked = [Question::aaaa(source.host.clone()), Question::a(source.host.clone())];
        let asked = asked.map(|question| shard.resolve.ask(&question));
        for answer in asked {
            source.addresses.extend(answer.await.addresses());
        }
    }
    let [location, evidence] = sources;
    shard.indicators.fetch(IndicatorErrand { location, evidence, ticket });
}

const fn counted(result: BimiResult) -> BimiCounted {
    match result {
        BimiResult::Pass => BimiCounted::Pass,
        BimiResult::None => BimiCounted::None,
        BimiResult::Fail => BimiCounted::Fail,
        BimiResult::TempError => BimiCounted::TempError,
        BimiResult::Declined => BimiCounted::Declined,
        BimiResult::Skipped => BimiCounted::Skipped,
    }
}
