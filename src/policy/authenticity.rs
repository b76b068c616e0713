//! What becomes of a message, by what was found out of whom it is from.

use crate::{Policy, names::Domains};
use config::{AuthAction, Authentication, Config, DomainPattern, UnknownAction};
use smtp::Refusal;
use trust::{
    Author, DkimResult, DmarcPolicy, DmarcResult, KnownDomains, SpfResult, Trick, TrickKind, Tricks, Verdict,
};

/// What is done about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Treatment {
    /// What.
    pub action: AuthAction,
    /// What speaks against the message, where something is done.
    pub against: Option<Against>,
}

/// What speaks against a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// The client's address may not send for the reverse-path.
    SpfFail,
    /// It probably may not.
    SpfSoftFail,
    /// The record makes no sense.
    SpfPermError,
    /// No signature is good.
    Dkim,
    /// The author's domain asks to refuse it.
    DmarcReject,
    /// The author's domain asks to doubt it.
    DmarcQuarantine,
    /// Mail of such authors has to pass DMARC here.
    AuthorRule,
    /// There is no one author.
    NoAuthor,
    /// Its reader may be deceived.
    Deceptive(TrickKind),
    /// The DNS did not answer.
    Unknown,
}

impl Against {
    /// In logs and in the message.
    pub const fn label(self) -> &'static str {
        match self {
            Self::SpfFail => "spf-fail",
            Self::SpfSoftFail => "spf-softfail",
            Self::SpfPermError => "spf-permerror",
            Self::Dkim => "dkim-fail",
            Self::DmarcReject => "dmarc-reject",
            Self::DmarcQuarantine => "dmarc-quarantine",
            Self::AuthorRule => "author-rule",
            Self::NoAuthor => "no-author",
            Self::Deceptive(TrickKind::Author) => "deceptive-author",
            Self::Deceptive(TrickKind::Name) => "deceptive-name",
            Self::Deceptive(TrickKind::Domain) => "deceptive-domain",
            Self::Deceptive(TrickKind::Fields) => "deceptive-fields",
            Self::Deceptive(TrickKind::Irregular) => "irregular-fields",
            Self::Unknown => "unknown",
        }
    }

    const fn refusal(self) -> Refusal {
        match self {
            Self::SpfFail | Self::SpfSoftFail => Refusal::SpfFailed,
            Self::SpfPermError => Refusal::SpfBroken,
            Self::Dkim => Refusal::DkimFailed,
            Self::DmarcReject | Self::DmarcQuarantine | Self::AuthorRule => Refusal::DmarcFailed,
            Self::NoAuthor => Refusal::NoAuthor,
            Self::Deceptive(TrickKind::Fields) => Refusal::DeceptiveFields,
            Self::Deceptive(TrickKind::Irregular) => Refusal::HeaderMalformed,
            Self::Deceptive(TrickKind::Author | TrickKind::Name | TrickKind::Domain) => {
                Refusal::DeceptiveAuthor
            }
            Self::Unknown => Refusal::PolicyUnavailable,
        }
    }
}

impl Treatment {
    /// Nothing is done.
    pub const TAKEN: Self = Self { action: AuthAction::Accept, against: None };

    /// What the client is told, when the message is not taken.
    pub fn refusal(self) -> Option<Refusal> {
        match (self.action, self.against) {
            (AuthAction::Refuse, Some(against)) => Some(against.refusal()),
            (AuthAction::Defer, Some(Against::Unknown)) => Some(Refusal::PolicyUnavailable),
            (AuthAction::Defer, Some(_)) => Some(Refusal::AuthenticationDeferred),
            (AuthAction::Accept | AuthAction::Tag | AuthAction::Quarantine, _) | (_, None) => None,
        }
    }
}

impl Policy {
    /// What the rules say of a message. What may deceive its reader counts whatever proves whom it is from: that is what deceives.
    /// `tricks` is what [`Policy::tricks`] says.
    pub fn treatment(&self, verdict: &Verdict, tricks: Tricks, rules: &Authentication) -> Treatment {
        let treatment = self.by_identity(verdict, rules);
        if tricks.is_empty() || (verdict.dmarc.result != DmarcResult::Pass && is_vouched_for(verdict, rules))
        {
            return treatment;
        }
        let found = TrickKind::ALL.into_iter().filter(|kind| tricks.has(*kind));
        found.fold(treatment, |strictest, kind| {
            let action = trick_action(kind, rules);
            let is_stricter = rank(action) > rank(strictest.action);
            if is_stricter {
                Treatment { action, against: Some(Against::Deceptive(kind)) }
            } else {
                strictest
            }
        })
    }

    /// What may deceive the reader of a message: what was noted of it, and whether its author's domain looks like one that is known here.
    pub fn tricks(&self, verdict: &Verdict) -> Tricks {
        let mut tricks = verdict.tricks;
        if let Author::Domain(author) = &verdict.dmarc.author
            && self.known.is_imitated_by(author)
        {
            tricks.insert(Trick::LooksLikeKnown);
        }
        tricks
    }

    fn by_identity(&self, verdict: &Verdict, rules: &Authentication) -> Treatment {
        let Author::Domain(author) = &verdict.dmarc.author else { return treatment(verdict, rules) };
        let own = self.authors.iter().find(|(domains, _)| domains.contains(author.as_str()));
        match (own, verdict.dmarc.result) {
            (Some((_, action)), DmarcResult::Fail | DmarcResult::None | DmarcResult::PermError)
                if !is_vouched_for(verdict, rules) =>
            {
                let is_taken = *action == AuthAction::Accept;
                Treatment { action: *action, against: (!is_taken).then_some(Against::AuthorRule) }
            }
            (Some(_) | None, _) => treatment(verdict, rules),
        }
    }
}

/// Our own domains, and those of authors whom a rule is for: readers know them.
pub(crate) fn known(config: &Config) -> KnownDomains {
    let patterns = config.author_rules.iter().flat_map(|rule| &rule.domains);
    let named = patterns.filter_map(|pattern| match pattern {
        DomainPattern::Exact(domain) | DomainPattern::Below(domain) => Some(domain),
        DomainPattern::Any => None,
    });
    let own = config.domains.iter().map(|domain| &domain.name);
    KnownDomains::new(own.chain(named).map(|domain| domain.as_str()))
}

/// What is done about a trick of this kind.
pub const fn trick_action(kind: TrickKind, rules: &Authentication) -> AuthAction {
    match kind {
        TrickKind::Author => rules.deceptive_author,
        TrickKind::Name => rules.deceptive_name,
        TrickKind::Domain => rules.deceptive_domain,
        TrickKind::Fields => rules.deceptive_fields,
        TrickKind::Irregular => rules.irregular_fields,
    }
}

/// Whether those who have passed the message on are believed that it was from whom it says.
pub fn is_vouched_for(verdict: &Verdict, rules: &Authentication) -> bool {
    !rules.trusted_sealers.is_empty() && {
        let trusted = Domains::new(&rules.trusted_sealers);
        verdict.arc.vouches(|domain| trusted.contains(domain))
    }
}

/// What the rules say of a message. Of several actions the strictest counts, and of equal ones what is found first of DMARC, SPF and DKIM.
fn treatment(verdict: &Verdict, rules: &Authentication) -> Treatment {
    let dmarc = verdict.dmarc.result;
    if dmarc != DmarcResult::Pass && is_vouched_for(verdict, rules) {
        return Treatment::TAKEN;
    }
    let found = [of_dmarc(verdict, rules), of_spf(verdict, rules), of_dkim(verdict, rules)];
    let mut treatment = Treatment::TAKEN;
    for (action, against) in found.into_iter().flatten() {
        // Of the name that people see, DMARC has the last word.
        let is_overruled = dmarc == DmarcResult::Pass;
        if !is_overruled && rank(action) > rank(treatment.action) {
            treatment = Treatment { action, against: Some(against) };
        }
    }
    if treatment.refusal().is_none() && rules.unknown == UnknownAction::Defer && is_unknown(verdict, rules) {
        return Treatment { action: AuthAction::Defer, against: Some(Against::Unknown) };
    }
    treatment
}

const fn rank(action: AuthAction) -> u8 {
    match action {
        AuthAction::Accept => 0,
        AuthAction::Tag => 1,
        AuthAction::Quarantine => 2,
        AuthAction::Defer => 3,
        AuthAction::Refuse => 4,
    }
}

fn of_dmarc(verdict: &Verdict, rules: &Authentication) -> Option<(AuthAction, Against)> {
    match (&verdict.dmarc.author, verdict.dmarc.result, verdict.dmarc.policy) {
        (Author::Missing | Author::Several, _, _) => Some((rules.no_author, Against::NoAuthor)),
        (Author::Domain(_), DmarcResult::Fail, DmarcPolicy::Reject) => {
            Some((rules.dmarc_reject, Against::DmarcReject))
        }
        (Author::Domain(_), DmarcResult::Fail, DmarcPolicy::Quarantine) => {
            Some((rules.dmarc_quarantine, Against::DmarcQuarantine))
        }
        (Author::Domain(_), _, _) => None,
    }
}

fn of_spf(verdict: &Verdict, rules: &Authentication) -> Option<(AuthAction, Against)> {
    match verdict.envelope.mail_from.result {
        SpfResult::Fail => Some((rules.spf_fail, Against::SpfFail)),
        SpfResult::SoftFail => Some((rules.spf_softfail, Against::SpfSoftFail)),
        SpfResult::PermError => Some((rules.spf_permerror, Against::SpfPermError)),
        SpfResult::None | SpfResult::Neutral | SpfResult::Pass | SpfResult::TempError => None,
    }
}

/// A message without a signature is no worse than others (RFC 6376 §6.1).
fn of_dkim(verdict: &Verdict, rules: &Authentication) -> Option<(AuthAction, Against)> {
    let none_is = |result| verdict.dkim.iter().all(|dkim| dkim.result != result);
    let all_are_bad = !verdict.dkim.is_empty() && none_is(DkimResult::Pass) && none_is(DkimResult::TempError);
    all_are_bad.then_some((rules.dkim_fail, Against::Dkim))
}

/// Whether an answer that did not come could have been one that something is done about.
fn is_unknown(verdict: &Verdict, rules: &Authentication) -> bool {
    let acts = |action| action != AuthAction::Accept;
    if verdict.dmarc.result == DmarcResult::Pass {
        return false;
    }
    let dmarc = verdict.dmarc.result == DmarcResult::TempError
        && (acts(rules.dmarc_reject) || acts(rules.dmarc_quarantine));
    let spf = verdict.envelope.mail_from.result == SpfResult::TempError
        && (acts(rules.spf_fail) || acts(rules.spf_softfail));
    let dkim = verdict.dkim.iter().any(|dkim| dkim.result == DkimResult::TempError)
        && verdict.dkim.iter().all(|dkim| dkim.result != DkimResult::Pass)
        && acts(rules.dkim_fail);
    dmarc || spf || dkim
}

#[cfg(test)]
mod test {
    use trust::{
        Alignment, ArcChain, ArcDmarc, ArcResult, ArcSet, AuthorSigned, Dkim, Dmarc, EnvelopeVerdict, Iprev,
        IprevResult, KeyUse, Spf, SpfIdentity,
    };

    use super::*;

    fn verdict(spf: SpfResult, dkim: &[DkimResult], dmarc: (DmarcResult, DmarcPolicy)) -> Verdict {
        let of = |identity, result| Spf {
            result,
            identity,
            domain: "sender.example".into(),
            explanation: None,
            mechanism: None,
            problem: None,
        };
        let signature = |result: &DkimResult| Dkim {
            result: *result,
            reason: None,
            domain: "sender.example".into(),
            selector: "s".into(),
            identity: String::new(),
            algorithm: None,
            start_of_b: String::new(),
            key_use: KeyUse::Signing,
        };
        Verdict {
            envelope: EnvelopeVerdict {
                iprev: Iprev { result: IprevResult::Fail, address: [192, 0, 2, 1].into(), name: None },
                helo: of(SpfIdentity::Helo, SpfResult::None),
                mail_from: of(SpfIdentity::MailFrom, spf),
            },
            dkim: dkim.iter().map(signature).collect(),
            dmarc: Dmarc {
                result: dmarc.0,
                author: Author::Domain("author.example".parse().unwrap()),
                spf: Alignment::None,
                dkim: Alignment::None,
                policy: dmarc.1,
                published: None,
            },
            arc: ArcChain { result: ArcResult::None, reason: None, sets: Vec::new() },
            flaw: None,
            tricks: trust::Tricks::NONE,
            unsubscribe: None,
        }
    }

    const NONE: (DmarcResult, DmarcPolicy) = (DmarcResult::None, DmarcPolicy::None);
    const REJECT: (DmarcResult, DmarcPolicy) = (DmarcResult::Fail, DmarcPolicy::Reject);

    fn strict() -> Authentication {
        Authentication {
            spf_fail: AuthAction::Refuse,
            spf_softfail: AuthAction::Tag,
            spf_permerror: AuthAction::Tag,
            dkim_fail: AuthAction::Defer,
            dmarc_reject: AuthAction::Refuse,
            dmarc_quarantine: AuthAction::Quarantine,
            no_author: AuthAction::Refuse,
            unknown: UnknownAction::Defer,
            ..Authentication::default()
        }
    }

    #[test]
    fn what_is_asked_for_is_done_and_nothing_else() {
        use DkimResult::{Fail as Bad, Pass as Good, TempError as Unsure};
        let unknown = (DmarcResult::TempError, DmarcPolicy::None);
        let doubted = (DmarcResult::Fail, DmarcPolicy::Quarantine);
        let passed = (DmarcResult::Pass, DmarcPolicy::Reject);
        for (spf, dkim, dmarc, action, against) in [
            (SpfResult::None, &[][..], NONE, AuthAction::Accept, None),
            (SpfResult::Fail, &[], NONE, AuthAction::Refuse, Some(Against::SpfFail)),
            (SpfResult::SoftFail, &[], NONE, AuthAction::Tag, Some(Against::SpfSoftFail)),
            (SpfResult::PermError, &[], NONE, AuthAction::Tag, Some(Against::SpfPermError)),
            // Whoever forwards mail fails SPF; the signature shows whose it is.
            (SpfResult::Fail, &[Good], passed, AuthAction::Accept, None),
            (SpfResult::Pass, &[Bad], passed, AuthAction::Accept, None),
            (SpfResult::None, &[Bad, Bad], NONE, AuthAction::Defer, Some(Against::Dkim)),
            (SpfResult::None, &[Bad, Good], NONE, AuthAction::Accept, None),
            (SpfResult::None, &[], REJECT, AuthAction::Refuse, Some(Against::DmarcReject)),
            (SpfResult::None, &[], doubted, AuthAction::Quarantine, Some(Against::DmarcQuarantine)),
            (SpfResult::Fail, &[Bad], REJECT, AuthAction::Refuse, Some(Against::DmarcReject)),
            (SpfResult::Fail, &[], doubted, AuthAction::Refuse, Some(Against::SpfFail)),
            (SpfResult::TempError, &[], NONE, AuthAction::Defer, Some(Against::Unknown)),
            (SpfResult::None, &[Bad, Unsure], NONE, AuthAction::Defer, Some(Against::Unknown)),
            (SpfResult::None, &[], unknown, AuthAction::Defer, Some(Against::Unknown)),
            // What is known is enough.
            (SpfResult::Fail, &[], unknown, AuthAction::Refuse, Some(Against::SpfFail)),
            (SpfResult::TempError, &[Good], passed, AuthAction::Accept, None),
        ] {
            let verdict = verdict(spf, dkim, dmarc);
            let expected = Treatment { action, against };
            assert_eq!(treatment(&verdict, &strict()), expected, "{spf:?} {dkim:?} {dmarc:?}");
            assert_eq!(treatment(&verdict, &Authentication::default()), Treatment::TAKEN);
        }
    }

    #[test]
    fn who_has_passed_it_on_may_be_believed() {
        let mut passed_on = verdict(SpfResult::Fail, &[DkimResult::Fail], REJECT);
        let set = ArcSet {
            domain: "lists.example".into(),
            selector: "s".into(),
            dmarc: ArcDmarc::Pass,
            author: AuthorSigned::Yes,
        };
        passed_on.arc = ArcChain { result: ArcResult::Pass, reason: None, sets: vec![set] };
        let rules = |sealers: &str| Authentication {
            trusted_sealers: vec![config::DomainPattern::Exact(sealers.parse().unwrap())],
            ..strict()
        };
        assert_eq!(treatment(&passed_on, &rules("lists.example")), Treatment::TAKEN);
        assert_eq!(treatment(&passed_on, &rules("other.example")).action, AuthAction::Refuse);
        passed_on.arc.result = ArcResult::Fail;
        assert_eq!(treatment(&passed_on, &rules("lists.example")).action, AuthAction::Refuse);
    }

    #[test]
    fn authors_may_be_treated_otherwise() {
        let text = "[[author-rule]]\nname = \"a\"\ndomains = [\"author.example\"]\nnot-passed = \"refuse\"\n\
                    [[author-rule]]\nname = \"b\"\ndomains = [\"*\"]\nnot-passed = \"accept\"\n\
                    [[listener]]\nname = \"smtp\"\naddress = [\"127.0.0.1:25\"]\ntls = \"none\"\n";
        let source = config::Source { file: "a".into(), text: text.into() };
        let policy = Policy::new(&config::Config::from_sources(&[source]).unwrap());
        let lax = Authentication::default();
        let none = verdict(SpfResult::Pass, &[], NONE);
        let expected = Treatment { action: AuthAction::Refuse, against: Some(Against::AuthorRule) };
        assert_eq!(policy.treatment(&none, Tricks::NONE, &lax), expected);
        let passed = verdict(SpfResult::Pass, &[], (DmarcResult::Pass, DmarcPolicy::None));
        assert_eq!(policy.treatment(&passed, Tricks::NONE, &lax), Treatment::TAKEN);
        let mut other = verdict(SpfResult::Fail, &[], REJECT);
        other.dmarc.author = Author::Domain("other.example".parse().unwrap());
        assert_eq!(policy.treatment(&other, Tricks::NONE, &strict()), Treatment::TAKEN);
        // What is not known for now is for `unknown` to say.
        let unknown = verdict(SpfResult::Pass, &[], (DmarcResult::TempError, DmarcPolicy::None));
        assert_eq!(policy.treatment(&unknown, Tricks::NONE, &strict()).against, Some(Against::Unknown));
    }

    #[test]
    fn what_honest_senders_write_too_is_let_be_unless_it_is_asked_for() {
        let policy = Policy::new(
            &Config::from_sources(&[config::Source {
                file: "a".into(),
                text: "[[listener]]\nname = \"smtp\"\naddress = [\"127.0.0.1:25\"]\ntls = \"none\"\n".into(),
            }])
            .unwrap(),
        );
        let passed = verdict(SpfResult::Pass, &[], (DmarcResult::Pass, DmarcPolicy::None));
        let asked = Authentication { irregular_fields: AuthAction::Refuse, ..Authentication::default() };
        for trick in Trick::ALL {
            let mut tricks = Tricks::NONE;
            tricks.insert(trick);
            let by_default = policy.treatment(&passed, tricks, &Authentication::default());
            let by_rule = policy.treatment(&passed, tricks, &asked);
            let against = Some(Against::Deceptive(trick.kind()));
            if trick.kind() == TrickKind::Irregular {
                assert_eq!(by_default, Treatment::TAKEN, "{trick:?}");
                assert_eq!(by_rule, Treatment { action: AuthAction::Refuse, against }, "{trick:?}");
                assert_eq!(by_rule.refusal(), Some(Refusal::HeaderMalformed));
            } else {
                assert_eq!(by_default, Treatment { action: AuthAction::Tag, against }, "{trick:?}");
                assert_eq!(by_rule, by_default, "{trick:?}");
            }
        }
    }

    #[test]
    fn mail_without_an_author() {
        let mut verdict = verdict(SpfResult::Pass, &[], NONE);
        for author in [Author::Missing, Author::Several] {
            verdict.dmarc.author = author;
            let found = treatment(&verdict, &strict());
            assert_eq!((found.against, found.refusal()), (Some(Against::NoAuthor), Some(Refusal::NoAuthor)));
        }
    }

    #[test]
    fn what_clients_are_told() {
        for (action, against, refusal) in [
            (AuthAction::Refuse, Against::DmarcReject, Some(Refusal::DmarcFailed)),
            (AuthAction::Refuse, Against::SpfFail, Some(Refusal::SpfFailed)),
            (AuthAction::Defer, Against::SpfFail, Some(Refusal::AuthenticationDeferred)),
            (AuthAction::Defer, Against::Unknown, Some(Refusal::PolicyUnavailable)),
            (AuthAction::Quarantine, Against::Dkim, None),
            (AuthAction::Tag, Against::Dkim, None),
        ] {
            assert_eq!(Treatment { action, against: Some(against) }.refusal(), refusal);
        }
    }
}
