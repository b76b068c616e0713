//! Who comes for the first time is asked to come again.

use std::time::Duration;

use mail::Domain;

use crate::{
    DomainPattern,
    notation::{List, Literal, Maybe, Time, Whole, Word, YesNo},
    schema::{choice, section},
    signed::Signed,
};

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;

choice! {
    /// What it means for greylisting that the sender's domain sends from the client's address (SPF: "pass").
    pub enum GreySpf {
        /// the domain stands in the place of the client's network: so whichever of its hosts comes again, it is the same
        Pool = "pool",
        /// the mail is not greylisted
        Pass = "pass",
        /// nothing
        Ignore = "ignore",
    }
}

section! {
    /// Greylisting (RFC 6647), on listeners of kind "smtp": a stranger that brings mail of a sender to a recipient for the first time
    /// gets 451, and is known when it comes again. What is remembered is where the client comes from (its network, see
    /// `clients.network-v4` and `clients.network-v6`), the reverse-path without numbers and details, and the recipient. Clients
    /// that may relay, clients in `clients.allow` and those for whom a `[[dns-list]]` speaks are spared, and so is mail to
    /// postmaster. With the null reverse-path, the 451 comes at DATA. See strangers.md.
    pub struct Greylist {
        /// Whether there is any.
        enabled: bool [YesNo] = false;
        /// Who comes again sooner than that is put off again. Most come again after some minutes, some after an hour.
        delay: Duration [Time<{ SECOND }, { DAY }>] = Duration::from_secs(300);
        /// Who comes again later than that comes for the first time.
        window: Duration [Time<{ 10 * SECOND }, { 30 * DAY }>] = Duration::from_secs(2 * 86_400);
        /// How long it is remembered that somebody came again as it should, since it came last.
        lifetime: Duration [Time<{ HOUR }, { 366 * DAY }>] = Duration::from_secs(36 * 86_400);
        /// A network (or a domain, see `spf`) from which so many senders and recipients have proven good waits no more, whatever it
        /// brings. Empty: each of them waits.
        clients_after: Option<u32> [Maybe<Whole<1, 1_000_000>>] = Some(5);
        /// Only those with a sum of so much or more against them (`[strangers]`) are greylisted. Empty: all.
        score_min: Option<i32> [Maybe<Signed<-10_000, 10_000>>] = None;
        /// What SPF means for it. It is looked up for those alone who are not known.
        spf: GreySpf [Word] = GreySpf::Pool;
        /// Large senders that do come again, from whichever host: they are not greylisted. A domain of the reverse-path counts where
        /// SPF passes for it, a name of the client's address where it leads back to it.
        pass: Vec<DomainPattern> [List<Literal>] = large_senders();
        /// Whether nobody is put off, and the log alone says who would have been.
        dry_run: bool [YesNo] = false;
    }
}

/// Whose mail comes from so many hosts that it may never come twice from one network.
const LARGE_SENDERS: [&str; 40] = [
    "gmail.com",
    "googlemail.com",
    "google.com",
    "*.google.com",
    "outlook.com",
    "*.outlook.com",
    "hotmail.com",
    "live.com",
    "msn.com",
    "microsoft.com",
    "yahoo.com",
    "*.yahoo.com",
    "aol.com",
    "*.aol.com",
    "icloud.com",
    "me.com",
    "mac.com",
    "apple.com",
    "*.apple.com",
    "gmx.net",
    "*.gmx.net",
    "gmx.de",
    "web.de",
    "*.web.de",
    "t-online.de",
    "*.t-online.de",
    "proton.me",
    "*.protonmail.ch",
    "*.messagingengine.com",
    "*.zoho.com",
    "*.amazonses.com",
    "*.sendgrid.net",
    "*.mailgun.net",
    "*.mandrillapp.com",
    "*.mcsv.net",
    "*.postmarkapp.com",
    "*.facebook.com",
    "*.linkedin.com",
    "github.com",
    "*.github.com",
];

fn large_senders() -> Vec<DomainPattern> {
    let domain = |text: &str| Domain::parse(text).expect("our own text");
    let pattern = |text: &&str| match text.strip_prefix("*.") {
        Some(above) => DomainPattern::Below(domain(above)),
        None => DomainPattern::Exact(domain(text)),
    };
    LARGE_SENDERS.iter().map(pattern).collect()
}
