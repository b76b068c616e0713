//! How a host is to be proven before it is given mail, and by whose word.
//!
//! What the route asks for is the least. Above that, the domain may ask for more: by TLSA records of its hosts, which DNSSEC
//! proves (RFC 7672), or by a policy (RFC 8461). Where there are records, they are what counts: a policy does not make up for
//! records that do not match (RFC 8461 §2), and a host that its records prove needs no authority beside them.

use std::sync::Arc;

use dns::Name;
use mail::Status;
use smtp::client::TlsLevel;

use crate::{
    Demand, Outcome,
    dane::DaneHost,
    sts::{Mode, Policy},
};

/// Whether TLSA records are looked for and kept to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DaneUse {
    /// They are not.
    #[default]
    Off,
    /// They are, where there are any: opportunistic DANE (RFC 7672 §2).
    WherePublished,
    /// They are, and a host without is left out.
    Required,
}

/// Whether MTA-STS policies are looked for and kept to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StsUse {
    /// They are not.
    #[default]
    Off,
    /// They are, where a domain has one.
    WherePublished,
}

/// What a connection is held to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protection {
    /// How much TLS.
    pub tls: TlsLevel,
    /// Why, and by whose word the host is proven.
    pub basis: Basis,
}

/// Why a connection has the TLS that it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Basis {
    /// The route says so. Where it wants a certificate, one of the authorities has to have issued it.
    #[default]
    Route,
    /// The TLSA records of the host.
    Dane(Arc<DaneHost>),
    /// The host has TLSA records, and none that could be used: TLS it is, with anybody (RFC 7672 §2.2).
    DaneUnusable,
    /// The policy of the domain, which an authority has to confirm the host for.
    Sts(Arc<Policy>),
    /// The policy of the domain, which wants to hear of what would have failed.
    StsTesting(Arc<Policy>),
}

/// By which the protection of a connection is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsPolicy {
    /// The route: none.
    None,
    /// The route: with anybody, where it is offered.
    Opportunistic,
    /// The route: with anybody.
    Required,
    /// The route, or the mail (`REQUIRETLS`): an authority vouches for the host.
    Verified,
    /// TLSA records (RFC 7672).
    Dane,
    /// TLSA records that are of no use: with anybody.
    DaneUnusable,
    /// The domain's policy (RFC 8461).
    Sts,
    /// The domain's policy, which is being tried.
    StsTesting,
}

/// What the DNS says of the TLSA records of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Published {
    /// There are none, or nothing proves that there are.
    Nothing,
    /// There are, and none counts.
    Unusable,
    /// These.
    Records(Arc<DaneHost>),
}

/// What holds for all hosts of an attempt.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) tls: TlsLevel,
    pub(crate) demand: Demand,
    pub(crate) dane: DaneUse,
    /// The policy of the domain, when it has one.
    pub(crate) policy: Option<Arc<Policy>>,
}

/// "Cryptographic failure" (RFC 3463 §3.8), which another day may not have.
const NOT_PROVEN: Status = Status(4, 7, 5);
/// "Security features not supported" (RFC 3463 §3.8).
const NOT_SUPPORTED: Status = Status(4, 7, 4);

impl Terms {
    /// Whether the domain says by a policy which hosts it has, and means it.
    pub(crate) fn is_enforced(&self) -> bool {
        self.policy.as_ref().is_some_and(|policy| policy.mode == Mode::Enforce)
    }

    /// What a host is held to, by its name and its records; or why it is left out.
    pub(crate) fn of(&self, host: Option<&Name>, published: Published) -> Result<Protection, Outcome> {
        if let Published::Records(records) = published {
            return Ok(Protection { tls: self.at_least(TlsLevel::Verified), basis: Basis::Dane(records) });
        }
        let unusable = published == Published::Unusable;
        if self.dane == DaneUse::Required {
            let what =
                if unusable { "TLSA records that are of any use" } else { "TLSA records that DNSSEC proves" };
            let host = host.map_or("the host", Name::as_str);
            return Err(Outcome::deferred(
                NOT_SUPPORTED,
                None,
                format_args!("DANE is required: {host} has no {what}"),
            ));
        }
        match &self.policy {
            Some(policy) if policy.mode == Mode::Enforce => {
                if let Some(host) = host.filter(|host| !policy.names(host)) {
                    let text =
                        format_args!("the MTA-STS policy of the domain does not name the mail host {host}");
                    return Err(Outcome::deferred(NOT_PROVEN, None, text));
                }
                let basis = Basis::Sts(Arc::clone(policy));
                Ok(Protection { tls: self.at_least(TlsLevel::Verified), basis })
            }
            _ if unusable => {
                Ok(Protection { tls: self.at_least(TlsLevel::Required), basis: Basis::DaneUnusable })
            }
            Some(policy) if policy.mode == Mode::Testing => Ok(Protection {
                tls: self.at_least(TlsLevel::None),
                basis: Basis::StsTesting(Arc::clone(policy)),
            }),
            Some(_) | None => Ok(Protection { tls: self.at_least(TlsLevel::None), basis: Basis::Route }),
        }
    }

    /// The most that anybody asks for.
    fn at_least(&self, least: TlsLevel) -> TlsLevel {
        let own = match self.demand {
            Demand::None | Demand::Waived => self.tls,
            Demand::Required | Demand::Preferred => TlsLevel::Demanded,
        };
        [own, least].into_iter().max_by_key(|level| rank(*level)).unwrap_or(own)
    }
}

/// How strong a level is, beside others.
pub(crate) const fn rank(level: TlsLevel) -> u8 {
    match level {
        TlsLevel::None => 0,
        TlsLevel::Opportunistic => 1,
        TlsLevel::Required => 2,
        TlsLevel::Verified => 3,
        TlsLevel::Demanded => 4,
    }
}

impl Protection {
    /// What it is called.
    pub const fn policy(&self) -> TlsPolicy {
        TlsPolicy::of(&self.basis, self.tls)
    }
}

impl TlsPolicy {
    /// By which this level of TLS came about.
    pub const fn of(basis: &Basis, tls: TlsLevel) -> Self {
        match (basis, tls) {
            (Basis::Dane(_), _) => Self::Dane,
            (Basis::DaneUnusable, _) => Self::DaneUnusable,
            (Basis::Sts(_), _) => Self::Sts,
            (Basis::StsTesting(_), _) => Self::StsTesting,
            (Basis::Route, TlsLevel::None) => Self::None,
            (Basis::Route, TlsLevel::Opportunistic) => Self::Opportunistic,
            (Basis::Route, TlsLevel::Required) => Self::Required,
            (Basis::Route, TlsLevel::Verified | TlsLevel::Demanded) => Self::Verified,
        }
    }

    /// One word for the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Opportunistic => "opportunistic",
            Self::Required => "required",
            Self::Verified => "verified",
            Self::Dane => "dane",
            Self::DaneUnusable => "dane-unusable",
            Self::Sts => "sts",
            Self::StsTesting => "sts-testing",
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn policy(mode: &str) -> Arc<Policy> {
        let text = format!("version: STSv1\nmode: {mode}\nmx: *.good.test\nmax_age: 9\n");
        Arc::new(Policy::parse(text.as_bytes()).unwrap())
    }

    /// Who says what, and what comes of it.
    #[test]
    fn what_counts_before_what() {
        use DaneUse::{Off, Required as Always, WherePublished};
        use TlsLevel::{Demanded, None as No, Opportunistic, Required, Verified};
        let base = Name::parse("mx.good.test").unwrap();
        let records = || {
            let names = vec![base.clone()];
            Published::Records(Arc::new(DaneHost { base: base.clone(), names, records: Vec::new() }))
        };
        let check =
            |(tls, dane, mode, host): (TlsLevel, DaneUse, &str, &str), published: Published, expected| {
                let policy = (!mode.is_empty()).then(|| policy(mode));
                let terms = Terms { tls, demand: Demand::None, dane, policy };
                let host = Name::parse(host).unwrap();
                let found = terms.of(Some(&host), published.clone());
                let found = match &found {
                    Ok(protection) => Ok((protection.tls, protection.policy().as_str())),
                    Err(outcome) => Err(outcome.report().status.1),
                };
                assert_eq!(found, expected, "{tls:?} {dane:?} {mode} {host} {published:?}");
                let strict = Terms { demand: Demand::Required, ..terms };
                if let Ok(protection) = strict.of(Some(&host), published) {
                    assert_eq!(protection.tls, Demanded);
                }
            };
        let (good, bad) = ("mx.good.test", "mx.bad.test");
        let nothing = Published::Nothing;
        let unusable = Published::Unusable;
        check((Opportunistic, Off, "", bad), nothing.clone(), Ok((Opportunistic, "opportunistic")));
        check((No, Off, "", bad), nothing.clone(), Ok((No, "none")));
        check((Verified, Off, "", bad), nothing.clone(), Ok((Verified, "verified")));
        // DANE.
        check((Opportunistic, WherePublished, "", bad), records(), Ok((Verified, "dane")));
        check((Opportunistic, WherePublished, "", bad), unusable.clone(), Ok((Required, "dane-unusable")));
        check(
            (Opportunistic, WherePublished, "", bad),
            nothing.clone(),
            Ok((Opportunistic, "opportunistic")),
        );
        check((Required, Always, "", bad), records(), Ok((Verified, "dane")));
        check((Required, Always, "", bad), unusable.clone(), Err(7));
        check((Required, Always, "enforce", good), nothing.clone(), Err(7));
        // MTA-STS.
        check((Opportunistic, WherePublished, "enforce", good), nothing.clone(), Ok((Verified, "sts")));
        check((Opportunistic, WherePublished, "enforce", bad), nothing.clone(), Err(7));
        check(
            (Opportunistic, WherePublished, "testing", bad),
            nothing.clone(),
            Ok((Opportunistic, "sts-testing")),
        );
        check(
            (Opportunistic, WherePublished, "none", bad),
            nothing.clone(),
            Ok((Opportunistic, "opportunistic")),
        );
        check((Required, Off, "testing", good), nothing.clone(), Ok((Required, "sts-testing")));
        check((Verified, Off, "enforce", bad), nothing, Err(7));
        // Both: the records count, whatever the policy says of the host; without any that do, the policy.
        check((Opportunistic, WherePublished, "enforce", bad), records(), Ok((Verified, "dane")));
        check((Opportunistic, WherePublished, "enforce", bad), unusable.clone(), Err(7));
        check((Opportunistic, WherePublished, "enforce", good), unusable.clone(), Ok((Verified, "sts")));
        check((Opportunistic, WherePublished, "testing", bad), unusable, Ok((Required, "dane-unusable")));
    }
}
