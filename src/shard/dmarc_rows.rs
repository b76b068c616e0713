//! What was verified of a message, as the report to its author's domain has it (RFC 9990; docs/authentication.md).

use config::{AuthAction, Authentication, DmarcReports};
use policy::{Against, Treatment};
use report::dmarc::{
    AuthResult, Destination, Disposition, Limits, Mode, Override, Policy, Published, Reason, Row, Signature,
    Spf,
};
use trust::{
    Alignment, AlignmentMode, Author, Client, Dkim, DkimResult, DmarcPolicy, DmarcResult, SpfResult, Testing,
    Verdict,
};
use watch::DmarcCounted;

use crate::{settings::to_usize, shard::Shard};

/// Addresses of a record that are kept; no more of them are looked at when reports are written.
const ADDRESSES_MAX: usize = 5;
/// Characters of `fo=`: all that it can say.
const FAILURE_OPTIONS_MAX: usize = 7;
/// Signatures of one row (RFC 9990 §3.1.3 has at most 100).
const SIGNATURES_MAX: usize = 20;

/// Why mail was taken that was to be refused.
const NOTHING_IS_DONE: &str = "nothing is done about such mail";

/// Within which bounds mail is counted, where it is.
pub(crate) fn limits(reports: &DmarcReports) -> Option<Limits> {
    reports.enabled.then(|| Limits {
        domains_max: reports.domains_max as usize,
        rows_max: reports.rows_max as usize,
        size_max: to_usize(reports.size_max),
    })
}

/// Counts a message, where a domain wants to know of it. One that the client brings again is counted then.
pub(crate) fn count(
    shard: &Shard,
    limits: Limits,
    rules: &Authentication,
    client: &Client,
    verdict: &Verdict,
    treatment: Treatment,
) {
    let (Some(record), Author::Domain(author)) = (&verdict.dmarc.published, &verdict.dmarc.author) else {
        return;
    };
    let comes_again = treatment.action == AuthAction::Defer && !rules.dry_run;
    if record.aggregate_to.is_empty() || comes_again {
        return;
    }
    let row = row(rules, client, verdict, (record, author.as_str()), treatment);
    let mut tally = shard.dmarc_tally.borrow_mut();
    tally.limits = limits;
    let counted = match tally.count(record.domain.as_str(), &published(record), row) {
        true => DmarcCounted::Counted,
        false => DmarcCounted::Untold,
    };
    shard.metrics.inbound.dmarc_counted.of(counted).one();
}

fn published(record: &trust::Published) -> Published {
    let mode = |mode| match mode {
        AlignmentMode::Relaxed => Mode::Relaxed,
        AlignmentMode::Strict => Mode::Strict,
    };
    let to = record.aggregate_to.iter().take(ADDRESSES_MAX);
    Published {
        policy: policy(record.policy),
        subdomains: policy(record.subdomains),
        nonexistent: policy(record.nonexistent),
        dkim_mode: mode(record.dkim_mode),
        spf_mode: mode(record.spf_mode),
        testing: record.testing == Testing::Yes,
        failure_options: record.failure_options.chars().take(FAILURE_OPTIONS_MAX).collect(),
        to: to.map(|to| Destination { address: to.address.clone(), size_max: to.size_max }).collect(),
    }
}

const fn policy(policy: DmarcPolicy) -> Policy {
    match policy {
        DmarcPolicy::None => Policy::None,
        DmarcPolicy::Quarantine => Policy::Quarantine,
        DmarcPolicy::Reject => Policy::Reject,
    }
}

fn row(
    rules: &Authentication,
    client: &Client,
    verdict: &Verdict,
    (record, author): (&trust::Published, &str),
    treatment: Treatment,
) -> Row {
    let (dmarc, spf) = (&verdict.dmarc, &verdict.envelope.mail_from);
    let (disposition, reasons) = outcome(rules, verdict, record, treatment);
    let mut signatures: Vec<&Dkim> = verdict.dkim.iter().filter(|dkim| !dkim.domain.is_empty()).collect();
    signatures.sort_by_key(|dkim| rank(dkim, author));
    signatures.truncate(SIGNATURES_MAX);
    Row {
        source: client.address,
        disposition,
        dkim_aligned: dmarc.dkim == Alignment::Aligned,
        spf_aligned: dmarc.spf == Alignment::Aligned,
        reasons,
        header_from: author.into(),
        envelope_from: client
            .mail_from
            .address()
            .map_or_else(Box::default, |address| address.domain_str().to_lowercase().into()),
        dkim: signatures.into_iter().map(signature).collect(),
        spf: Spf {
            domain: spf.domain.to_lowercase().into(),
            result: match spf.result {
                SpfResult::None => AuthResult::None,
                SpfResult::Neutral => AuthResult::Neutral,
                SpfResult::Pass => AuthResult::Pass,
                SpfResult::Fail => AuthResult::Fail,
                SpfResult::SoftFail => AuthResult::SoftFail,
                SpfResult::TempError => AuthResult::TempError,
                SpfResult::PermError => AuthResult::PermError,
            },
            reason: spf.problem.map(|problem| problem.to_string().into()),
        },
    }
}

fn signature(dkim: &Dkim) -> Signature {
    Signature {
        domain: dkim.domain.as_str().into(),
        selector: dkim.selector.to_lowercase().into(),
        result: match dkim.result {
            DkimResult::Pass => AuthResult::Pass,
            DkimResult::Fail => AuthResult::Fail,
            DkimResult::Neutral => AuthResult::Neutral,
            DkimResult::Policy => AuthResult::Policy,
            DkimResult::TempError => AuthResult::TempError,
            DkimResult::PermError => AuthResult::PermError,
        },
        reason: dkim.reason.map(|reason| reason.to_string().into()),
    }
}

/// The order that RFC 9990 §3.1.3 prefers.
fn rank(dkim: &Dkim, author: &str) -> u8 {
    let within = |name: &str, domain: &str| name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    match dkim.result {
        DkimResult::Pass if dkim.domain == author => 0,
        DkimResult::Pass if within(author, &dkim.domain) || within(&dkim.domain, author) => 1,
        DkimResult::Pass => 2,
        DkimResult::Fail
        | DkimResult::Neutral
        | DkimResult::Policy
        | DkimResult::TempError
        | DkimResult::PermError => 3,
    }
}

/// What became of the message, and why that is not what the policy asks for, if it is not.
fn outcome(
    rules: &Authentication,
    verdict: &Verdict,
    record: &trust::Published,
    treatment: Treatment,
) -> (Disposition, Vec<Reason>) {
    let dmarc = &verdict.dmarc;
    let requested = match dmarc.policy {
        DmarcPolicy::None => Disposition::None,
        DmarcPolicy::Quarantine => Disposition::Quarantine,
        DmarcPolicy::Reject => Disposition::Reject,
    };
    if dmarc.result == DmarcResult::Pass {
        let is_enforcing = requested != Disposition::None;
        return (if is_enforcing { Disposition::Pass } else { Disposition::None }, Vec::new());
    }
    let disposition = match treatment.action {
        _ if rules.dry_run => Disposition::None,
        AuthAction::Accept | AuthAction::Tag | AuthAction::Defer => Disposition::None,
        AuthAction::Quarantine => Disposition::Quarantine,
        AuthAction::Refuse => Disposition::Reject,
    };
    let reason = |kind, comment: &str| Reason { kind, comment: comment.into() };
    let mut reasons = Vec::new();
    let is_author = matches!(&dmarc.author, Author::Domain(author) if *author == record.domain);
    let stated = if is_author { [record.policy; 2] } else { [record.subdomains, record.nonexistent] };
    if record.testing == Testing::Yes && stated != [DmarcPolicy::None; 2] {
        reasons.push(reason(Override::PolicyTestMode, "t=y"));
    }
    if dmarc.result == DmarcResult::TempError {
        reasons.push(reason(Override::Other, "not all that was looked up was answered"));
    } else if disposition != requested
        && treatment == Treatment::TAKEN
        && policy::is_vouched_for(verdict, rules)
    {
        reasons.push(reason(Override::TrustedForwarder, "arc=pass"));
    } else if disposition != requested {
        let words = match treatment.against {
            _ if rules.dry_run => "nothing is done about any mail yet",
            // A warning about something else is no answer to what the domain asked for.
            Some(Against::Deceptive(_)) if treatment.action == AuthAction::Tag => NOTHING_IS_DONE,
            Some(against) => against.label(),
            None => NOTHING_IS_DONE,
        };
        reasons.push(reason(Override::LocalPolicy, words));
    }
    (disposition, reasons)
}

#[cfg(test)]
mod test {
    use policy::Against;
    use trust::{ArcChain, ArcResult, Dmarc, EnvelopeVerdict, Iprev, IprevResult, KeyUse, SpfIdentity};

    use super::*;

    fn verdict(author: &str, result: DmarcResult, policy: DmarcPolicy, testing: Testing) -> Verdict {
        let spf = |identity| trust::Spf {
            result: SpfResult::PermError,
            identity,
            domain: "Bounce.Example".into(),
            explanation: None,
            mechanism: None,
            problem: Some(trust::SpfProblem::ManyRecords),
        };
        let signature = |domain: &str, result| Dkim {
            result,
            reason: (result != DkimResult::Pass).then_some(trust::Reason::HeaderTooLong),
            domain: domain.into(),
            selector: "S1".into(),
            identity: String::new(),
            algorithm: None,
            start_of_b: String::new(),
            key_use: KeyUse::Signing,
        };
        Verdict {
            envelope: EnvelopeVerdict {
                iprev: Iprev { result: IprevResult::Fail, address: [192, 0, 2, 1].into(), name: None },
                helo: spf(SpfIdentity::Helo),
                mail_from: spf(SpfIdentity::MailFrom),
            },
            dkim: vec![
                signature("", DkimResult::PermError),
                signature("list.example", DkimResult::Fail),
                signature("list.example", DkimResult::Pass),
                signature("example.org", DkimResult::Pass),
                signature("sub.example.org", DkimResult::Pass),
            ],
            dmarc: Dmarc {
                result,
                author: Author::Domain(author.parse().unwrap()),
                spf: Alignment::Unknown,
                dkim: Alignment::Aligned,
                policy,
                published: Some(trust::Published {
                    domain: "example.org".parse().unwrap(),
                    policy: DmarcPolicy::Reject,
                    subdomains: DmarcPolicy::Quarantine,
                    nonexistent: DmarcPolicy::None,
                    dkim_mode: AlignmentMode::Strict,
                    spf_mode: AlignmentMode::Relaxed,
                    testing,
                    failure_options: "1:d:s:1:d:s".into(),
                    aggregate_to: vec![
                        trust::ReportAddress {
                            address: "r@example.org".into(),
                            size_max: Some(7)
                        };
                        9
                    ],
                    failures_to: Vec::new(),
                }),
            },
            arc: ArcChain { result: ArcResult::None, reason: None, sets: Vec::new() },
            flaw: None,
            tricks: trust::Tricks::NONE,
            unsubscribe: None,
        }
    }

    fn told(
        dry_run: bool,
        verdict: &Verdict,
        treatment: Treatment,
    ) -> (Disposition, Vec<(Override, String)>) {
        let rules = Authentication { dry_run, ..Authentication::default() };
        let record = verdict.dmarc.published.as_ref().unwrap();
        let (disposition, reasons) = outcome(&rules, verdict, record, treatment);
        (disposition, reasons.into_iter().map(|reason| (reason.kind, reason.comment.into())).collect())
    }

    #[test]
    fn what_is_not_what_was_asked_for_has_a_reason() {
        use Disposition::{None, Pass, Quarantine, Reject};
        use DmarcPolicy as Asked;
        use DmarcResult as Result;
        use Override::{LocalPolicy, Other, PolicyTestMode};
        let done = |action, against| Treatment { action, against: Some(against) };
        let (dmarc, spf) = (Against::DmarcReject, Against::SpfFail);
        let nothing = Treatment::TAKEN;
        for (result, asked, testing, dry_run, treatment, disposition, reasons) in [
            (Result::Pass, Asked::Reject, Testing::No, false, nothing, Pass, &[][..]),
            (Result::Pass, Asked::None, Testing::No, false, nothing, None, &[]),
            (Result::Fail, Asked::None, Testing::No, false, nothing, None, &[]),
            (Result::Fail, Asked::Reject, Testing::No, false, done(AuthAction::Refuse, dmarc), Reject, &[]),
            (
                Result::Fail,
                Asked::Reject,
                Testing::No,
                false,
                done(AuthAction::Quarantine, dmarc),
                Quarantine,
                &[(LocalPolicy, "dmarc-reject")],
            ),
            (
                Result::Fail,
                Asked::Reject,
                Testing::No,
                true,
                done(AuthAction::Refuse, dmarc),
                None,
                &[(LocalPolicy, "nothing is done about any mail yet")],
            ),
            (
                Result::Fail,
                Asked::Reject,
                Testing::No,
                false,
                nothing,
                None,
                &[(LocalPolicy, "nothing is done about such mail")],
            ),
            (
                Result::Fail,
                Asked::None,
                Testing::No,
                false,
                done(AuthAction::Refuse, spf),
                Reject,
                &[(LocalPolicy, "spf-fail")],
            ),
            (
                Result::Fail,
                Asked::Quarantine,
                Testing::Yes,
                false,
                done(AuthAction::Quarantine, Against::DmarcQuarantine),
                Quarantine,
                &[(PolicyTestMode, "t=y")],
            ),
            (
                Result::TempError,
                Asked::Reject,
                Testing::No,
                false,
                nothing,
                None,
                &[(Other, "not all that was looked up was answered")],
            ),
        ] {
            let found = told(dry_run, &verdict("example.org", result, asked, testing), treatment);
            let reasons: Vec<_> = reasons.iter().map(|(kind, words)| (*kind, (*words).to_owned())).collect();
            assert_eq!(found, (disposition, reasons), "{result:?} {asked:?} {treatment:?}");
        }
    }

    #[test]
    fn a_row_says_what_was_found() {
        let verdict = verdict("a.example.org", DmarcResult::Pass, DmarcPolicy::Quarantine, Testing::No);
        let record = verdict.dmarc.published.as_ref().unwrap();
        let client = Client {
            address: [192, 0, 2, 1].into(),
            helo: "client.example".into(),
            mail_from: mail::ReversePath::Address("Ann@Bounce.Example".parse().unwrap()),
        };
        let rules = Authentication::default();
        let row = row(&rules, &client, &verdict, (record, "a.example.org"), Treatment::TAKEN);
        assert_eq!((row.dkim_aligned, row.spf_aligned), (true, false));
        assert_eq!((&*row.header_from, &*row.envelope_from), ("a.example.org", "bounce.example"));
        let signatures: Vec<_> =
            row.dkim.iter().map(|s| (&*s.domain, &*s.selector, s.result, s.reason.is_some())).collect();
        assert_eq!(
            signatures,
            [
                ("example.org", "s1", AuthResult::Pass, false),
                ("list.example", "s1", AuthResult::Pass, false),
                ("sub.example.org", "s1", AuthResult::Pass, false),
                ("list.example", "s1", AuthResult::Fail, true),
            ]
        );
        assert_eq!((&*row.spf.domain, row.spf.result), ("bounce.example", AuthResult::PermError));
        assert_eq!(row.spf.reason.as_deref(), Some("more than one record"));
        let published = published(record);
        assert_eq!((published.to.len(), &*published.failure_options), (ADDRESSES_MAX, "1:d:s:1"));
        assert_eq!((published.policy, published.dkim_mode), (Policy::Reject, Mode::Strict));
    }
}
