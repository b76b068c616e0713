//! Which messages their authors' domains are told of at once, since they failed (RFC 9991; docs/authentication.md): what the record
//! asks for, and what is handed over of a message.

use config::AuthAction;
use policy::Treatment;
use report::dmarc::{DeliveryResult, Destination, FailedSignature, Failure, FailureKind, Unaligned};
use trust::{
    Alignment, Author, Client, Digest, Dkim, DkimResult, DmarcResult, Published, Reason, SpfResult, Verdict,
    authentication_results,
};

use crate::{facts, shard::Shard};

/// Addresses of a record that are looked at.
const ADDRESSES_MAX: usize = 5;
/// Octets of what strangers call themselves.
const NAME_MAX: usize = 320;

/// Has a domain told of a message, where it wants to know of it. One that the client brings again is told of then.
pub(crate) fn tell(
    shard: &Shard,
    header_max: usize,
    (receiver, client): (&str, &Client),
    verdict: &Verdict,
    treatment: Treatment,
    digest: &Digest,
) {
    let (Some(record), Author::Domain(author)) = (&verdict.dmarc.published, &verdict.dmarc.author) else {
        return;
    };
    if record.failures_to.is_empty() || treatment.action == AuthAction::Defer {
        return;
    }
    let Some((kind, unaligned)) = asked_for(record, verdict) else { return };
    // A report on a report could go round for ever, and nobody has to be told what a program answers.
    let Some(mail_from) = client.mail_from.address().filter(|_| !is_by_a_program(digest.header())) else {
        return;
    };
    let now = facts::now();
    if !shard.failures.are_taken(now) {
        return shard.metrics.inbound.dmarc_failures_dropped.one();
    }
    let header = digest.header();
    let mut results = Vec::with_capacity(512);
    authentication_results(&mut results, receiver, client, verdict);
    let to = record.failures_to.iter().take(ADDRESSES_MAX);
    let spf = &verdict.envelope.mail_from;
    let failure = Failure {
        domain: record.domain.as_str().into(),
        author: author.as_str().into(),
        to: to.map(|to| Destination { address: to.address.clone(), size_max: to.size_max }).collect(),
        kind,
        unaligned,
        delivery: match treatment.action {
            AuthAction::Accept => DeliveryResult::Delivered,
            AuthAction::Tag | AuthAction::Quarantine | AuthAction::Defer => DeliveryResult::Policy,
            AuthAction::Refuse => DeliveryResult::Reject,
        },
        source: client.address,
        mail_from: cut(mail_from.as_str()),
        arrival: now,
        signature: failed_signature(author.as_str(), verdict).map(|dkim| FailedSignature {
            domain: cut(&dkim.domain),
            identity: cut(&dkim.identity),
            selector: cut(&dkim.selector),
        }),
        spf: (has_failed(spf.result) && is_close(author.as_str(), &spf.domain)).then(|| cut(&spf.domain)),
        results: value_of(results),
        header: header[..header.len().min(header_max)].to_vec(),
    };
    if !shard.failures.tell(failure) {
        shard.metrics.inbound.dmarc_failures_dropped.one();
    }
}

/// Whether the record asks to be told of it (`fo=`, RFC 9989 §4.7), and what there is to tell. What is not known now has not failed.
fn asked_for(record: &Published, verdict: &Verdict) -> Option<(FailureKind, Unaligned)> {
    let dmarc = &verdict.dmarc;
    let is_known = !matches!(dmarc.result, DmarcResult::None | DmarcResult::TempError);
    let has_no = |alignment| match alignment {
        Alignment::None | Alignment::NotAligned => true,
        Alignment::Aligned | Alignment::Unknown => false,
    };
    let unaligned = Unaligned { dkim: has_no(dmarc.dkim), spf: has_no(dmarc.spf) };
    let options = || record.failure_options.split(':').map(str::trim);
    let asks = |option: &str| options().any(|one| one.eq_ignore_ascii_case(option));
    let all = asks("0") && dmarc.result == DmarcResult::Fail;
    let any = asks("1") && is_known && (unaligned.dkim || unaligned.spf);
    if all || any {
        return Some((FailureKind::Dmarc, unaligned));
    }
    let failed = verdict.dkim.iter().find(|dkim| is_wrong(dkim)).filter(|_| asks("d"));
    if let Some(dkim) = failed {
        let kind = match dkim.reason {
            Some(Reason::BodyHash) => FailureKind::BodyHash,
            Some(Reason::KeyRevoked) => FailureKind::Revoked,
            Some(_) | None => FailureKind::Signature,
        };
        return Some((kind, unaligned));
    }
    (asks("s") && has_failed(verdict.envelope.mail_from.result)).then_some((FailureKind::Spf, unaligned))
}

const fn is_wrong(dkim: &Dkim) -> bool {
    match dkim.result {
        DkimResult::Fail | DkimResult::Neutral | DkimResult::Policy | DkimResult::PermError => true,
        DkimResult::Pass | DkimResult::TempError => false,
    }
}

const fn has_failed(result: SpfResult) -> bool {
    match result {
        SpfResult::Fail | SpfResult::SoftFail | SpfResult::PermError => true,
        SpfResult::None | SpfResult::Neutral | SpfResult::Pass | SpfResult::TempError => false,
    }
}

/// The signature that should have stood by the author: his own before one of his organization.
fn failed_signature<'a>(author: &str, verdict: &'a Verdict) -> Option<&'a Dkim> {
    let wrong = || verdict.dkim.iter().filter(|dkim| is_wrong(dkim) && !dkim.domain.is_empty());
    wrong().find(|dkim| dkim.domain == author).or_else(|| wrong().find(|dkim| is_close(author, &dkim.domain)))
}

/// Whether one of two domains is the other, or below it.
fn is_close(author: &str, domain: &str) -> bool {
    let within = |name: &str, domain: &str| {
        name.len() > domain.len()
            && name.ends_with(domain)
            && name.as_bytes()[name.len() - domain.len() - 1] == b'.'
    };
    let domain = domain.to_ascii_lowercase();
    !domain.is_empty() && (author == domain || within(author, &domain) || within(&domain, author))
}

/// Whether a message says that it was written by a program on account of another (RFC 3834 §5), or that it is a report.
fn is_by_a_program(header: &[u8]) -> bool {
    const REPORT: &[u8] = b"multipart/report";
    message::fields(header).any(|(name, value)| {
        let value = value.trim_ascii();
        if name.eq_ignore_ascii_case(b"Auto-Submitted") {
            let word = value.split(|octet| !octet.is_ascii_alphanumeric() && *octet != b'-').next();
            return word.is_some_and(|word| !word.is_empty() && !word.eq_ignore_ascii_case(b"no"));
        }
        name.eq_ignore_ascii_case(b"Content-Type")
            && value.get(..REPORT.len()).is_some_and(|head| head.eq_ignore_ascii_case(REPORT))
    })
}

fn cut(text: &str) -> Box<str> {
    text[..text.floor_char_boundary(NAME_MAX)].into()
}

/// What stands behind the colon of a field.
fn value_of(mut field: Vec<u8>) -> Vec<u8> {
    let colon = field.iter().position(|octet| *octet == b':');
    field.split_off(colon.map_or(0, |colon| colon + 1))
}

#[cfg(test)]
mod test {
    use trust::{
        AlignmentMode, ArcChain, ArcResult, Dmarc, DmarcPolicy, EnvelopeVerdict, Iprev, IprevResult, KeyUse,
        Spf, SpfIdentity, Testing,
    };

    use super::*;

    fn record(failure_options: &str) -> Published {
        Published {
            domain: "example.org".parse().unwrap(),
            policy: DmarcPolicy::Reject,
            subdomains: DmarcPolicy::Reject,
            nonexistent: DmarcPolicy::Reject,
            dkim_mode: AlignmentMode::Relaxed,
            spf_mode: AlignmentMode::Relaxed,
            testing: Testing::No,
            failure_options: failure_options.into(),
            aggregate_to: Vec::new(),
            failures_to: Vec::new(),
        }
    }

    fn signature(domain: &str, result: DkimResult, reason: Option<Reason>) -> Dkim {
        Dkim {
            result,
            reason,
            domain: domain.into(),
            selector: "s".into(),
            identity: String::new(),
            algorithm: None,
            start_of_b: String::new(),
            key_use: KeyUse::Signing,
        }
    }

    fn verdict(result: DmarcResult, dkim: Alignment, spf: Alignment) -> Verdict {
        let of = |identity| Spf {
            result: SpfResult::Pass,
            identity,
            domain: "example.org".into(),
            explanation: None,
            mechanism: None,
            problem: None,
        };
        Verdict {
            envelope: EnvelopeVerdict {
                iprev: Iprev { result: IprevResult::Fail, address: [192, 0, 2, 1].into(), name: None },
                helo: of(SpfIdentity::Helo),
                mail_from: of(SpfIdentity::MailFrom),
            },
            dkim: Vec::new(),
            dmarc: Dmarc {
                result,
                author: Author::Domain("example.org".parse().unwrap()),
                spf,
                dkim,
                policy: DmarcPolicy::Reject,
                published: None,
            },
            arc: ArcChain { result: ArcResult::None, reason: None, sets: Vec::new() },
            flaw: None,
            tricks: trust::Tricks::NONE,
            unsubscribe: None,
        }
    }

    /// RFC 9989 §4.7, `fo=`.
    #[test]
    fn a_record_is_told_what_it_asks_for() {
        use Alignment::{Aligned, None as Nothing, NotAligned, Unknown};
        let both = Unaligned { dkim: true, spf: true };
        let (dkim, spf) = (Unaligned { dkim: true, spf: false }, Unaligned { dkim: false, spf: true });
        for (options, result, of_dkim, of_spf, expected) in [
            ("0", DmarcResult::Fail, Nothing, NotAligned, Some(both)),
            ("0", DmarcResult::Pass, Nothing, Aligned, None),
            ("1", DmarcResult::Pass, Nothing, Aligned, Some(dkim)),
            ("1", DmarcResult::Pass, Aligned, NotAligned, Some(spf)),
            ("1", DmarcResult::Pass, Aligned, Aligned, None),
            ("1", DmarcResult::Pass, Aligned, Unknown, None),
            ("d : 1", DmarcResult::Fail, Nothing, Nothing, Some(both)),
            ("0:1", DmarcResult::TempError, Nothing, Unknown, None),
            ("d:s", DmarcResult::Fail, Nothing, Nothing, None),
        ] {
            let told = asked_for(&record(options), &verdict(result, of_dkim, of_spf));
            let expected = expected.map(|unaligned| (FailureKind::Dmarc, unaligned));
            assert_eq!(told, expected, "{options} {result:?} {of_dkim:?} {of_spf:?}");
        }
    }

    #[test]
    fn it_may_ask_for_what_dmarc_does_not_mind() {
        let good = || verdict(DmarcResult::Pass, Alignment::Aligned, Alignment::Aligned);
        let signed = |result, reason| {
            let dkim = vec![
                signature("example.org", DkimResult::Pass, None),
                signature("list.example", result, reason),
            ];
            Verdict { dkim, ..good() }
        };
        let kind =
            |options: &str, verdict: &Verdict| asked_for(&record(options), verdict).map(|(kind, _)| kind);
        for (result, reason, expected) in [
            (DkimResult::Fail, Some(Reason::Signature), Some(FailureKind::Signature)),
            (DkimResult::Fail, Some(Reason::BodyHash), Some(FailureKind::BodyHash)),
            (DkimResult::PermError, Some(Reason::KeyRevoked), Some(FailureKind::Revoked)),
            (DkimResult::TempError, None, None),
            (DkimResult::Pass, None, None),
        ] {
            assert_eq!(kind("d", &signed(result, reason)), expected, "{result:?}");
            assert_eq!(kind("0:1:s", &signed(result, reason)), None);
        }
        let mut forwarded = good();
        for (result, expected) in [
            (SpfResult::Fail, Some(FailureKind::Spf)),
            (SpfResult::SoftFail, Some(FailureKind::Spf)),
            (SpfResult::TempError, None),
            (SpfResult::None, None),
        ] {
            forwarded.envelope.mail_from.result = result;
            assert_eq!(kind("s", &forwarded), expected, "{result:?}");
            assert_eq!(kind("0:1:d", &forwarded), None);
        }
    }

    #[test]
    fn programs_and_reports_are_known_by_their_fields() {
        for (header, expected) in [
            ("From: a\r\n", false),
            ("Auto-Submitted: no\r\n", false),
            ("Auto-Submitted: NO (really)\r\n", false),
            ("auto-submitted : auto-replied; x=y\r\n", true),
            ("Auto-Submitted: no\r\nAuto-Submitted: auto-generated\r\n", true),
            ("Content-Type: multipart/mixed\r\n", false),
            ("Content-Type:\r\n Multipart/Report; report-type=feedback-report\r\n", true),
        ] {
            assert_eq!(is_by_a_program(header.as_bytes()), expected, "{header}");
        }
    }

    #[test]
    fn the_signature_that_is_told_is_the_authors() {
        let of = |domains: &[(&str, DkimResult)]| {
            let dkim = domains.iter().map(|(domain, result)| signature(domain, *result, None)).collect();
            let verdict = Verdict { dkim, ..verdict(DmarcResult::Fail, Alignment::None, Alignment::None) };
            failed_signature("news.example.org", &verdict).map(|dkim| dkim.domain.clone())
        };
        let (bad, good) = (DkimResult::Fail, DkimResult::Pass);
        assert_eq!(of(&[("list.example", bad), ("example.org", bad)]).as_deref(), Some("example.org"));
        assert_eq!(
            of(&[("example.org", bad), ("news.example.org", bad)]).as_deref(),
            Some("news.example.org")
        );
        assert_eq!(
            of(&[("list.example", bad), ("badexample.org", bad), ("", bad), ("example.org", good)]),
            None
        );
    }
}
