//! Bulk mail of tenants, and whether its recipients could leave it by one click (RFC 8058), as large providers want.
//!
//! ```text
//!  content   mark()    does it say that it is bulk mail, and does its tenant want that looked at?
//!  signed    check()   the fields as they will go out: the sender's and ours, and what the signatures cover
//! ```

use config::{BulkMark, Config, UnsubscribeCheck};
use mail::{Envelope, QueueId, ReversePath, TenantId};
use message::HeaderSummary;
use smtp::Refusal;
use trust::{Digest, UnsubscribeFlaw, unsubscribe_as_sent};
use watch::{UnsubscribeCheck as Found, events::UnsubscribeFlawed};

use crate::{intake::Intake, shard::Shard};

/// What an answer says of itself (RFC 3834 §5).
const REPLIED: &[u8] = b"auto-replied";

/// What says that a message is bulk mail.
#[derive(Debug)]
pub(crate) struct Marks {
    wanted: Vec<BulkMark>,
    list_field: Box<str>,
}

impl Marks {
    pub(crate) fn new(config: &Config) -> Self {
        let unsubscribe = &config.unsubscribe;
        Self { wanted: unsubscribe.bulk_marks.clone(), list_field: unsubscribe.field.as_str().into() }
    }

    /// The first of these marks that a header section has. `has_campaign` says whether the message names its campaign.
    fn of(&self, header: &[u8], has_campaign: bool) -> Option<BulkMark> {
        // Programs that answer mail say `Precedence: bulk`, so that nobody answers them (RFC 3834 §3.1.7, §5).
        let submitted = message::field(header, "Auto-Submitted").map(<[u8]>::trim_ascii);
        if submitted.is_some_and(|how| {
            how.len() >= REPLIED.len() && how[..REPLIED.len()].eq_ignore_ascii_case(REPLIED)
        }) {
            return None;
        }
        let has = |field| message::field(header, field).is_some_and(|value| !value.trim_ascii().is_empty());
        let is_bulk =
            |value: &[u8]| [&b"bulk"[..], b"list"].iter().any(|bulk| value.eq_ignore_ascii_case(bulk));
        let is_marked = |mark: &&BulkMark| match mark {
            BulkMark::ListId => has("List-Id") || has(&self.list_field),
            BulkMark::Precedence => {
                message::field(header, "Precedence").is_some_and(|v| is_bulk(v.trim_ascii()))
            }
            BulkMark::FeedbackId => has("Feedback-ID"),
            BulkMark::Campaign => has_campaign,
        };
        self.wanted.iter().find(is_marked).copied()
    }
}

/// What says that a message is bulk mail, where its tenant wants such mail looked at. What has no reverse-path is a
/// report or an answer.
pub(crate) fn mark(
    shard: &Shard,
    tenant: TenantId,
    reverse_path: &ReversePath,
    intake: &Intake,
    summary: &HeaderSummary,
    has_campaign: bool,
) -> Option<BulkMark> {
    let settings = shard.settings();
    settings.consent.unsubscribe_check(tenant)?;
    reverse_path.address()?;
    let header = message::content::gather(intake.content(), 0..summary.len);
    settings.consent.bulk_marks().of(&header, has_campaign)
}

/// Looks at bulk mail as it will go out: behind these signatures and fields of ours.
///
/// # Errors
/// What its sender is told, when its tenant wants it refused.
pub(crate) fn check(
    shard: &Shard,
    id: QueueId,
    envelope: &Envelope,
    mark: BulkMark,
    (signatures, added, digest): (&[u8], &[u8], &Digest),
) -> Result<(), Refusal> {
    let settings = shard.settings();
    // A reload may have changed its mind.
    let Some((tenant, check)) = settings.consent.unsubscribe_check(envelope.handling.tenant) else {
        return Ok(());
    };
    let found = unsubscribe_as_sent(signatures, added, digest);
    let metrics = &shard.metrics.inbound.unsubscribe_checks;
    let Err(flaw) = found else {
        metrics.of(Found::Sound).one();
        return Ok(());
    };
    let (counted, refusal) = means(flaw);
    metrics.of(counted).one();
    UnsubscribeFlawed {
        id: &id,
        tenant,
        from: envelope.reverse_path.address().map_or("", |address| address.as_str()),
        mark: &mark.to_string(),
        flaw: flaw.label(),
        action: &check.to_string(),
    }
    .emit(ring::clock::unix_micros());
    if check == UnsubscribeCheck::Refuse { Err(refusal) } else { Ok(()) }
}

/// As what a flaw is counted, and what its sender is told.
const fn means(flaw: UnsubscribeFlaw) -> (Found, Refusal) {
    match flaw {
        UnsubscribeFlaw::Missing => (Found::Missing, Refusal::UnsubscribeMissing),
        UnsubscribeFlaw::Repeated => (Found::Repeated, Refusal::UnsubscribeMalformed),
        UnsubscribeFlaw::TooLong => (Found::TooLong, Refusal::UnsubscribeMalformed),
        UnsubscribeFlaw::Syntax => (Found::Syntax, Refusal::UnsubscribeMalformed),
        UnsubscribeFlaw::Space => (Found::Space, Refusal::UnsubscribeMalformed),
        UnsubscribeFlaw::Insecure => (Found::Insecure, Refusal::UnsubscribeMalformed),
        UnsubscribeFlaw::NoLink => (Found::NoLink, Refusal::UnsubscribeMalformed),
        UnsubscribeFlaw::SeveralLinks => (Found::SeveralLinks, Refusal::UnsubscribeMalformed),
        UnsubscribeFlaw::Host => (Found::Host, Refusal::UnsubscribeMalformed),
        UnsubscribeFlaw::Example => (Found::Example, Refusal::UnsubscribeMalformed),
        UnsubscribeFlaw::NoPost => (Found::NoPost, Refusal::UnsubscribePost),
        UnsubscribeFlaw::PostRepeated => (Found::PostRepeated, Refusal::UnsubscribePost),
        UnsubscribeFlaw::PostValue => (Found::PostValue, Refusal::UnsubscribePost),
        UnsubscribeFlaw::Unsigned => (Found::Unsigned, Refusal::UnsubscribeUnsigned),
    }
}

#[cfg(test)]
mod test {
    use watch::Counted as _;

    use super::*;

    #[test]
    fn what_says_that_it_is_bulk_mail() {
        let marks = |list: &str| {
            let text = format!(
                "[unsubscribe]\nfield = \"X-List\"\n{list}[[listener]]\nname = \"l\"\naddress = [\"127.0.0.1:25\"]\ntls = \"none\"\n"
            );
            let source = config::Source { file: "c.toml".into(), text };
            Marks::new(&config::Config::from_sources(&[source]).unwrap())
        };
        let all = marks("");
        for (header, campaign, expected) in [
            ("Subject: x\r\n", false, None),
            ("Subject: x\r\n", true, Some(BulkMark::Campaign)),
            ("List-Id: <a.example>\r\n", false, Some(BulkMark::ListId)),
            ("X-List: a\r\n", false, Some(BulkMark::ListId)),
            ("List-Id: \r\n", false, None),
            ("Precedence: Bulk\r\n", false, Some(BulkMark::Precedence)),
            ("precedence:list \r\n", true, Some(BulkMark::Precedence)),
            ("Precedence: first-class\r\n", false, None),
            ("Feedback-ID: 1:2:3:shop\r\n", false, Some(BulkMark::FeedbackId)),
            ("Precedence: bulk\r\nAuto-Submitted: auto-replied (vacation)\r\n", false, None),
            ("Precedence: bulk\r\nAuto-Submitted: auto-generated\r\n", false, Some(BulkMark::Precedence)),
            // How its list is left does not say that it is of one.
            ("List-Unsubscribe: <mailto:a@example.org>\r\n", false, None),
        ] {
            assert_eq!(all.of(header.as_bytes(), campaign), expected, "{header}");
        }
        let some = marks("bulk-marks = [\"precedence\"]\n");
        assert_eq!(some.of(b"List-Id: <a.example>\r\nFeedback-ID: 1\r\n", true), None);
    }

    #[test]
    fn each_flaw_has_a_name_of_its_own() {
        for flaw in UnsubscribeFlaw::ALL {
            assert_eq!(means(flaw).0.label(), flaw.label());
        }
    }
}
