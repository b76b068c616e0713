//! Whether sources are fit for use: looked at now and then by one core for all, and told at once by whoever finds out.

use std::{net::IpAddr, rc::Rc, time::Duration};

use delivery::egress::{Found, Listing, Standing};
use dns::{ListAnswer, Name, Question};
use watch::events::{SourceListed, SourceLowered, SourceOut, SourceUnlisted, SourceUsed};

use crate::{
    egress::{self, Outlet},
    facts, outlet,
    shard::Shard,
};

/// How often it is looked whether something is due.
const ROUND: Duration = Duration::from_secs(1);

/// Looks at all sources, as often as it is wanted, for as long as the core lives.
pub(crate) async fn watch(shard: Rc<Shard>) {
    while !shard.is_stopping() {
        let settings = shard.settings();
        let (sources, now) = (&settings.egress, facts::now());
        for outlet in sources.outlets() {
            if shard.egress.claim(&format!("source {}", outlet.source.name), sources.probe_interval, now) {
                let (shard, outlet, patience) = (shard.clone(), outlet.clone(), sources.probe_timeout);
                ring::spawn(async move { probe(&shard, &outlet, patience).await });
            }
            for address in outlet.listable() {
                for list in &sources.lists {
                    let what = format!("list {} {} {address}", list.name, outlet.source.name);
                    if shard.egress.claim(&what, sources.list_interval, now) {
                        ring::spawn(ask(shard.clone(), outlet.clone(), address, list.name.clone()));
                    }
                }
            }
        }
        drop(settings);
        ring::sleep(ROUND).await;
    }
}

async fn probe(shard: &Rc<Shard>, outlet: &Outlet, patience: Duration) {
    let found = match outlet::probe(&outlet.source, patience).await {
        Ok(()) => Found::Fit,
        Err(trouble) => Found::Unfit(trouble),
    };
    report(shard, &outlet.source.name, found);
}

/// Asks a list about an address. One that does not answer says nothing, and what it has said before holds.
async fn ask(shard: Rc<Shard>, outlet: Rc<Outlet>, address: IpAddr, name: Box<str>) {
    let settings = shard.settings();
    let Some(list) = settings.egress.lists.iter().find(|list| list.name == name) else { return };
    let Ok(asked) = Name::of_listed_address(address, &list.zone) else { return };
    let answer = shard.resolve.ask(&Question::a(asked)).await;
    let answers: Vec<IpAddr> = match ListAnswer::read(&answer) {
        ListAnswer::Codes(codes) => {
            codes.into_iter().map(IpAddr::V4).filter(|code| list.counts(*code)).collect()
        }
        ListAnswer::Unlisted => Vec::new(),
        ListAnswer::Refused(_) | ListAnswer::Failed(_) => return,
    };
    let listing = (!answers.is_empty()).then(|| Listing {
        address,
        list: list.name.clone(),
        answers,
        severity: list.severity,
    });
    report(&shard, &outlet.source.name, Found::Asked(address, list.name.clone(), listing));
}

/// Something was found about a source: all cores hear of it, and people.
pub(crate) fn report(shard: &Rc<Shard>, source: &str, found: Found) {
    if !shard.settings().egress.outlets().any(|outlet| *outlet.source.name == *source) {
        // A reload has taken it away meanwhile.
        return;
    }
    let change = shard.egress.found(source, found, facts::now());
    let at = ring::clock::unix_micros();
    if let Some(Listing { address, list, answers, .. }) = &change.listed {
        let answers: Vec<_> = answers.iter().map(ToString::to_string).collect();
        SourceListed { source, address, list, answer: &answers.join(",") }.emit(at);
    }
    if let Some(Listing { address, list, .. }) = &change.unlisted {
        SourceUnlisted { source, address, list }.emit(at);
    }
    let Some(standing) = change.standing else { return };
    let why = shard.egress.why(source).map_or_else(String::new, |(why, _)| why);
    match standing {
        Standing::Out => SourceOut { source, reason: &why }.emit(at),
        Standing::Lowered => SourceLowered { source, reason: &why }.emit(at),
        Standing::In => SourceUsed { source }.emit(at),
    }
    egress::on_changed(shard);
}
