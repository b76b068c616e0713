//! Whether a source is fit for use: told of what probes and attempts found, and of lists of the DNS.

use std::{fmt, net::IpAddr};

use mail::Timestamp;

use super::Standing;

/// Why a source cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// This host does not have the address.
    NotPlumbed(Box<str>),
    /// The proxy does not connect for us.
    Proxy(Box<str>),
}

/// An address that is on a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The address.
    pub address: IpAddr,
    /// The list.
    pub list: Box<str>,
    /// What it answered.
    pub answers: Vec<IpAddr>,
    /// What is done about it.
    pub severity: Severity,
}

/// What is done about an address that is on a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Somebody is told.
    Alarm,
    /// The source has less.
    Lower,
    /// It is not used.
    Stop,
}

/// What was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Address and proxy are as they should be.
    Fit,
    /// They are not.
    Unfit(Trouble),
    /// What this list says of this address.
    Asked(IpAddr, Box<str>, Option<Listing>),
}

/// What is known of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    trouble: Option<(Trouble, Timestamp)>,
    listings: Vec<(Listing, Timestamp)>,
}

/// What a finding has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// How it stands now, if not as before.
    pub standing: Option<Standing>,
    /// It is on a list, and was not.
    pub listed: Option<Listing>,
    /// It is on this list no more.
    pub unlisted: Option<Listing>,
}

impl Health {
    /// Takes a finding in.
    pub fn on_found(&mut self, finding: Finding, now: Timestamp) -> Change {
        let before = self.standing();
        let mut change = Change::default();
        match finding {
            Finding::Fit => self.trouble = None,
            Finding::Unfit(trouble) => {
                let since = self.trouble.take().map_or(now, |(_, since)| since);
                self.trouble = Some((trouble, since));
            }
            Finding::Asked(address, list, answer) => {
                let is_it =
                    |known: &&(Listing, Timestamp)| known.0.address == address && known.0.list == list;
                let known = self.listings.iter().find(is_it).cloned();
                self.listings.retain(|known| !is_it(&known));
                match (known, answer) {
                    (None, None) => {}
                    (None, Some(listing)) => {
                        change.listed = Some(listing.clone());
                        self.listings.push((listing, now));
                    }
                    (Some((_, since)), Some(listing)) => self.listings.push((listing, since)),
                    (Some((listing, _)), None) => change.unlisted = Some(listing),
                }
            }
        }
        change.standing = Some(self.standing()).filter(|standing| *standing != before);
        change
    }

    /// Whatever is not asked any more is forgotten: says how it stands now, if not as before.
    pub fn retain(&mut self, is_asked: impl Fn(IpAddr, &str) -> bool) -> Option<Standing> {
        let before = self.standing();
        self.listings.retain(|(listing, _)| is_asked(listing.address, &listing.list));
        Some(self.standing()).filter(|standing| *standing != before)
    }

    /// Whether it is fit for use.
    pub fn standing(&self) -> Standing {
        if self.trouble.is_some() {
            return Standing::Out;
        }
        let worst = self.listings.iter().map(|(listing, _)| listing.severity).max();
        match worst {
            None | Some(Severity::Alarm) => Standing::In,
            Some(Severity::Lower) => Standing::Lowered,
            Some(Severity::Stop) => Standing::Out,
        }
    }

    /// The lists that it is on.
    pub fn listings(&self) -> impl Iterator<Item = &Listing> {
        self.listings.iter().map(|(listing, _)| listing)
    }

    /// Why it is not, or has less, in words, and since when.
    pub fn why(&self) -> Option<(String, Timestamp)> {
        if let Some((trouble, since)) = &self.trouble {
            return Some((trouble.to_string(), *since));
        }
        let serious = self.listings.iter().filter(|(listing, _)| listing.severity > Severity::Alarm);
        let (worst, since) = serious.max_by_key(|(listing, _)| listing.severity)?;
        Some((worst.to_string(), *since))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPlumbed(why) => write!(f, "this host does not have its address: {why}"),
            Self::Proxy(why) => write!(f, "its proxy does not serve: {why}"),
        }
    }
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answers: Vec<_> = self.answers.iter().map(ToString::to_string).collect();
        write!(f, "{} is on the list {} ({})", self.address, self.list, answers.join(", "))
    }
}
