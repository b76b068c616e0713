//! What strangers have done before: learned from what becomes of their mail, and one more weight for what becomes of the next.

use std::{fmt, net::IpAddr, rc::Rc};

use bridge::Strangers;
use config::ReputationUse;
use mail::{Address, Category, Envelope, ReversePath};
use smtp::Refusal;
use strangers::{Deed, Origin, Subject};
use trust::SpfResult;
use watch::AuthResult;

use crate::{
    facts,
    greylist::{self, Waiting},
    screening::Stranger,
    settings::Door,
    shard::Shard,
};

/// What somebody's deeds weigh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weighed {
    /// What is added to the sum.
    pub(crate) weight: i32,
    /// What it would be: of address, network, autonomous system, domain and sender, the heaviest.
    seen: i32,
    of: &'static str,
}

impl Weighed {
    /// Whether there is anything to tell.
    pub(crate) const fn is_news(self) -> bool {
        self.seen != 0
    }
}

impl fmt::Display for Weighed {
    /// ` reputation:network:+3`; nothing where there is none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_news() { write!(f, " reputation:{}:{:+}", self.of, self.seen) } else { Ok(()) }
    }
}

/// Whether anything is learned at a listener.
pub(crate) const fn is_on(rules: &config::Reputation) -> bool {
    !matches!(rules.mode, ReputationUse::Off)
}

/// The address itself, as an origin.
fn address_of(address: IpAddr) -> Origin<'static> {
    Origin::of(address, 32, 128)
}

/// What it weighs that a stranger has done before.
pub(crate) async fn weigh(
    shard: &Rc<Shard>,
    door: &Door,
    stranger: Stranger<'_>,
    waiting: &mut Waiting,
) -> Weighed {
    let settings = shard.settings();
    let rules = &settings.reputation;
    let Some(address) = stranger.address.filter(|_| is_on(rules)) else { return Weighed::default() };
    let strangers = &shard.strangers;
    let most = rules.weight_max.cast_signed();
    let mut subjects = vec![
        ("address", Subject::Client(address_of(address)), most),
        ("network", Subject::Client(strangers.origin(address)), most),
    ];
    if let Some(number) = strangers.system(address) {
        subjects.push(("system", Subject::System(number), rules.asn_weight_max.cast_signed()));
    }
    // Of a name that anybody can give, nothing is believed.
    if let Some(sender) = stranger.sender.and_then(ReversePath::address)
        && greylist::envelope(shard, door, stranger, waiting)
            .await
            .is_some_and(|e| e.mail_from.result == SpfResult::Pass)
    {
        subjects.push(("domain", Subject::Domain(sender.domain_str()), most));
        subjects.push(("sender", Subject::Sender(sender), most));
    }
    let now = facts::now();
    let reputation = strangers.reputation();
    let mut heaviest = Weighed::default();
    for (of, subject, max) in subjects {
        let counts = reputation.counts(reputation.key(subject), now);
        let seen = counts.map_or(0, |counts| counts.weight(rules.sample, max));
        if seen.unsigned_abs() > heaviest.seen.unsigned_abs() {
            heaviest = Weighed { weight: 0, seen, of };
        }
    }
    match rules.mode {
        ReputationUse::Score => Weighed { weight: heaviest.seen, ..heaviest },
        ReputationUse::Watch | ReputationUse::Off => heaviest,
    }
}

/// A stranger at this address has done something.
fn learn_of_client(strangers: &Strangers, address: IpAddr, deed: Deed) {
    let reputation = strangers.reputation();
    let clients = [address_of(address), strangers.origin(address)].map(Subject::Client);
    for subject in clients.into_iter().chain(strangers.system(address).map(Subject::System)) {
        reputation.learn(reputation.key(subject), deed, facts::now());
    }
}

/// Lists of the DNS speak against it.
pub(crate) fn on_listed(shard: &Shard, address: Option<IpAddr>) {
    if let Some(address) = address.filter(|_| is_on(&shard.settings().reputation)) {
        learn_of_client(&shard.strangers, address, Deed::Listed);
    }
}

/// It got this refusal.
pub(crate) fn on_refused(shard: &Shard, address: Option<IpAddr>, refusal: Refusal) {
    let deed = if refusal == Refusal::NoSuchRecipient {
        Deed::Unknown
    } else if [Refusal::SpfFailed, Refusal::DkimFailed, Refusal::DmarcFailed].contains(&refusal) {
        Deed::Unproven
    } else {
        return;
    };
    if let Some(address) = address.filter(|_| is_on(&shard.settings().reputation)) {
        learn_of_client(&shard.strangers, address, deed);
    }
}

/// A recipient of a message is refused for good where it went.
pub(crate) fn on_failed(shard: &Shard, envelope: &Envelope, category: Category) {
    // The message itself says who brought it: for as long as it lives, and over a restart.
    let Some(address) = envelope.handling.origin.filter(|_| is_on(&shard.settings().reputation)) else {
        return;
    };
    match category {
        Category::BadMailbox => learn_of_client(&shard.strangers, address, Deed::Unknown),
        Category::SpamContent | Category::Authentication => {
            learn_of_client(&shard.strangers, address, Deed::Bounced);
        }
        // It is about us, or the recipient, or the way.
        Category::InactiveMailbox
        | Category::Quota
        | Category::BadDomain
        | Category::Dns
        | Category::Connection
        | Category::Tls
        | Category::SpamReputation
        | Category::Policy
        | Category::Rate
        | Category::Greylisted
        | Category::TooLarge
        | Category::Protocol
        | Category::MessageFormat
        | Category::Relaying
        | Category::Loop
        | Category::Expired
        | Category::AutoReply
        | Category::System
        | Category::Other
        | Category::Suppressed => {}
    }
}

/// What is known of a message that was accepted.
pub(crate) struct Taken<'a> {
    pub(crate) address: IpAddr,
    pub(crate) sender: Option<&'a Address>,
    /// SPF and DMARC, where they were looked at.
    pub(crate) results: Option<(AuthResult, AuthResult)>,
    /// The domain of the author.
    pub(crate) author: Option<&'a str>,
}

/// Mail of it was accepted.
pub(crate) fn on_accepted(shard: &Shard, taken: &Taken<'_>) {
    let Taken { address, sender, results, author } = *taken;
    let (spf, dmarc) = results.unzip();
    if dmarc == Some(AuthResult::Fail) || spf == Some(AuthResult::Fail) && dmarc != Some(AuthResult::Pass) {
        return learn_of_client(&shard.strangers, address, Deed::Unproven);
    }
    learn_of_client(&shard.strangers, address, Deed::Accepted);
    let (reputation, now) = (shard.strangers.reputation(), facts::now());
    let learn = |subject| reputation.learn(reputation.key(subject), Deed::Accepted, now);
    let domain = sender.filter(|_| spf == Some(AuthResult::Pass));
    if let Some(sender) = domain {
        learn(Subject::Sender(sender));
        learn(Subject::Domain(sender.domain_str()));
    }
    let is_other =
        |author: &&str| domain.is_none_or(|sender| !author.eq_ignore_ascii_case(sender.domain_str()));
    if let Some(author) = author.filter(|_| dmarc == Some(AuthResult::Pass)).filter(is_other) {
        learn(Subject::Domain(author));
    }
}
