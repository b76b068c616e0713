//! Whether the message of a stranger is from whom it says, and the signatures of our own (docs/authentication.md).
//!
//! A message is hashed while it comes in. What is found out of it, and what is signed, stands before its header section: so the
//! header section of a message that is written out before its end waits in memory, and is written last.

use std::{net::IpAddr, ops::Range, rc::Rc};

use bytes::Bytes;
use config::{AuthAction, Authentication, BulkMark};
use mail::{Envelope, QueueId, ReversePath, TenantId};
use policy::{Against, Listing, Signable, Standing, Treatment, trick_action};
use smtp::{Refusal, Role};
use trust::{
    ArcResult, Author, BodyLength, Case, Client, Digest, Digester, DkimResult, DmarcResult, Judged, Limits,
    Sha1Signatures, Signer, SpfResult, Trick, TrickKind, Tricks, Verdict, WARNING,
    authentication_results_with, received_spf, unsubscribe_result,
};
use watch::{
    AuthResult, AuthTreatment, Counted as _, Deception, UnsubscribeWay,
    events::{Doubted, Unsigned},
};

use crate::{
    bulk, dmarc_failures, dmarc_rows, facts, indicators,
    receiving::header_limits,
    settings::{Door, Settings},
    shard::{Hold, Shard},
};

/// What is to be found out, or done, about a message that comes in.
#[derive(Debug)]
pub(crate) enum Inquiry {
    /// Whether it is from whom it says; the client is known when its mail data is judged.
    Verify { rules: Rc<Authentication>, client: Option<Client> },
    /// It is ours.
    Sign,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Examined {
    /// Fields to stand before all others.
    pub(crate) fields: Vec<u8>,
    /// Places in the header section that are to be left out.
    pub(crate) cut: Vec<Range<usize>>,
    pub(crate) hold: Hold,
    pub(crate) results: Option<Results>,
    /// The domain of its author, where DMARC passes.
    pub(crate) author: Option<Box<str>>,
    /// How many signatures were made.
    pub(crate) signatures: Option<u64>,
}

/// The results in short, for the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Results {
    pub(crate) spf: AuthResult,
    pub(crate) dkim: AuthResult,
    pub(crate) dmarc: AuthResult,
    /// How its list may be left, where it says something of that.
    pub(crate) unsubscribe: Option<UnsubscribeWay>,
}

impl Inquiry {
    /// About a message of this client at this listener; none where nothing is asked.
    pub(crate) fn of(settings: &Settings, door: &Door, standing: Standing, listing: Listing) -> Option<Self> {
        match (standing, listing) {
            (Standing::Own, _) => (settings.signs() || settings.consent.checks_bulk()).then_some(Self::Sign),
            (Standing::Stranger, Listing::Unlisted) => {
                let rules = &door.authentication;
                (rules.verify && door.role == Role::Relay)
                    .then(|| Self::Verify { rules: rules.clone(), client: None })
            }
            (Standing::Stranger, Listing::Spared | Listing::Denied) => None,
        }
    }

    /// What reads the message as it comes in.
    pub(crate) fn digester(&self, settings: &Settings, door: &Door) -> Digester {
        match self {
            Self::Verify { rules, .. } => {
                Digester::new(limits(rules, door)).verifying().signing(sealer(settings, rules))
            }
            Self::Sign => {
                let limits = limits(&door.authentication, door);
                Digester::new(limits).signing(settings.signers.iter().flatten())
            }
        }
    }

    /// The client is known, and the reverse-path.
    pub(crate) fn meet(&mut self, address: Option<IpAddr>, helo: &str, mail_from: &ReversePath) {
        if let (Self::Verify { client, .. }, Some(address)) = (self, address) {
            *client = Some(Client { address, helo: helo.to_owned(), mail_from: mail_from.clone() });
        }
    }

    /// Finds out or signs. `added` are the fields that will stand before the message in any case; `mark` says that it is bulk mail
    /// of a tenant who wants to know how it is left.
    ///
    /// # Errors
    /// Why the message is not taken.
    pub(crate) async fn end(
        self,
        shard: &Rc<Shard>,
        id: QueueId,
        (envelope, mark): (&Envelope, Option<BulkMark>),
        digest: &Digest,
        added: &[u8],
    ) -> Result<Examined, Refusal> {
        match self {
            Self::Verify { rules, client: Some(client) } => verify(shard, id, &rules, client, digest).await,
            // Nobody without an address is a stranger.
            Self::Verify { client: None, .. } => Ok(Examined::default()),
            Self::Sign => {
                let mut fields = Vec::new();
                let (tenant, reverse_path) = (envelope.handling.tenant, &envelope.reverse_path);
                let made =
                    sign(shard, id, Signable { tenant, reverse_path, digest }, added, &mut fields).await;
                if let Some(mark) = mark {
                    bulk::check(shard, id, envelope, mark, (&fields, added, digest))?;
                }
                Ok(Examined { fields, signatures: made, ..Examined::default() })
            }
        }
    }
}

/// By whose key mail of strangers is sealed.
fn sealer<'a>(settings: &'a Settings, rules: &Authentication) -> Option<&'a Signer> {
    settings.signers.get(settings.policy.key_named(rules.seal.as_ref()?)?)?.first()
}

pub(crate) fn limits(rules: &Authentication, door: &Door) -> Limits {
    Limits {
        lookups_max: rules.lookups_max as usize,
        time_max: rules.lookup_time_max,
        header_size_max: header_limits(door).header_size_max,
        signatures_max: rules.signatures_max as usize,
        rsa_bits_min: rules.rsa_bits_min as usize,
        sha1: if rules.sha1 { Sha1Signatures::Accepted } else { Sha1Signatures::Refused },
        body_length: if rules.body_length { BodyLength::Ignored } else { BodyLength::Refused },
        ..Limits::default()
    }
}

async fn verify(
    shard: &Rc<Shard>,
    id: QueueId,
    rules: &Authentication,
    client: Client,
    digest: &Digest,
) -> Result<Examined, Refusal> {
    let began = ring::clock::now();
    let settings = shard.settings();
    let receiver = rules.authserv_id.as_ref().unwrap_or(&settings.hostname).as_str();
    let mut case = Case::open(client, receiver, digest.limits(), facts::now(), began);
    let verdict =
        judged(shard, &mut case, |case| case.judge_message(&shard.judge, digest, ring::clock::now())).await;
    let results = Results::of(&verdict);
    let tricks = settings.policy.tricks(&verdict);
    let treatment = settings.policy.treatment(&verdict, tricks, rules);
    let metrics = &shard.metrics.inbound;
    metrics.authentication.record_duration(ring::clock::now().saturating_sub(began));
    metrics.spf.of(results.spf).one();
    metrics.dmarc.of(results.dmarc).one();
    metrics.arc.of(arc_result(verdict.arc.result)).one();
    if verdict.dkim.is_empty() {
        metrics.dkim.of(AuthResult::None).one();
    }
    verdict.dkim.iter().for_each(|dkim| metrics.dkim.of(dkim_result(dkim.result)).one());
    metrics.unsubscribe_ways.of(results.unsubscribe.unwrap_or(UnsubscribeWay::None)).one();
    metrics.treatments.of(treatment_label(treatment.action)).one();
    let kinds = DECEPTIONS.iter().filter(|(kind, _)| tricks.has(*kind));
    kinds.for_each(|(_, label)| metrics.deceptions.of(*label).one());
    tell(id, rules, case.client(), &verdict, results, (treatment, tricks));
    if let Some(limits) = settings.dmarc_reports {
        dmarc_rows::count(shard, limits, rules, case.client(), &verdict, treatment);
    }
    let treatment = if rules.dry_run { Treatment::TAKEN } else { treatment };
    if let Some(header_max) = settings.dmarc_failures {
        dmarc_failures::tell(shard, header_max, (receiver, case.client()), &verdict, treatment, digest);
    }
    if let Some(refusal) = treatment.refusal() {
        return Err(refusal);
    }
    let (bimi, shown) =
        indicators::of_message(shard, rules, &mut case, digest, (&verdict, tricks)).await.unzip();
    let shown = shown.unwrap_or_default();
    let mut fields = Vec::with_capacity(1024 + shown.len());
    if let AuthAction::Tag | AuthAction::Quarantine = treatment.action {
        warn(&mut fields, receiver, treatment, tricks, rules);
    }
    if let Some(signer) = sealer(&settings, rules) {
        let _turn = shard.signing.turn().await;
        let before = fields.len();
        match signer.seal(&mut fields, digest, (receiver, case.client(), &verdict), facts::now()) {
            // A chain that has failed before is left alone.
            Ok(()) if fields.len() == before => {}
            Ok(()) => metrics.sealed.one(),
            Err(error) => {
                let key = rules.seal.as_deref().unwrap_or_default();
                Unsigned { id: &id, key, error: &error }.emit(ring::clock::unix_micros());
            }
        }
    }
    authentication_results_with(&mut fields, receiver, (case.client(), &verdict), bimi.as_ref());
    if rules.received_spf {
        received_spf(&mut fields, receiver, case.client(), &verdict.envelope.mail_from);
    }
    if let (true, Some(found)) = (rules.unsubscribe_result, &verdict.unsubscribe) {
        unsubscribe_result(&mut fields, receiver, found);
    }
    fields.extend_from_slice(&shown);
    let hold = if treatment.action == AuthAction::Quarantine { Hold::Yes } else { Hold::No };
    let cut = digest.forged_results(receiver);
    let author = match &verdict.dmarc.author {
        Author::Domain(domain) if results.dmarc == AuthResult::Pass => Some(domain.as_str().into()),
        Author::Domain(_) | Author::Missing | Author::Several => None,
    };
    Ok(Examined { fields, cut, hold, results: Some(results), author, signatures: None })
}

/// Asks the DNS for what a judgement misses, until it is made.
pub(crate) async fn judged<T>(shard: &Shard, case: &mut Case, judge: impl Fn(&mut Case) -> Judged<T>) -> T {
    loop {
        match judge(case) {
            Judged::Known(judgement) => return judgement,
            Judged::Missing(questions) => {
                let deadline = case.deadline();
                let learn = |question, answer| case.learn(question, answer);
                shard.resolve.ask_all(questions, deadline, learn).await;
            }
        }
    }
}

/// What is counted of each kind.
const DECEPTIONS: [(TrickKind, Deception); 5] = [
    (TrickKind::Author, Deception::Author),
    (TrickKind::Name, Deception::Name),
    (TrickKind::Domain, Deception::Domain),
    (TrickKind::Fields, Deception::Fields),
    (TrickKind::Irregular, Deception::Irregular),
];

/// Writes what speaks against a message, and all that may deceive its reader and that something is done about.
fn warn(fields: &mut Vec<u8>, receiver: &str, treatment: Treatment, tricks: Tricks, rules: &Authentication) {
    let mut line = |text: &str| {
        fields.extend_from_slice(format!("{WARNING}: {receiver}: {text}\r\n").as_bytes());
    };
    match treatment.against {
        Some(Against::Deceptive(_)) | None => {}
        Some(against) => line(against.label()),
    }
    for (kind, _) in DECEPTIONS {
        if tricks.has(kind) && trick_action(kind, rules) != AuthAction::Accept {
            let told = told(tricks, |trick| trick.kind() == kind);
            line(&format!("{} ({told})", Against::Deceptive(kind).label()));
        }
    }
}

/// Those of them that are asked for, in words.
fn told(tricks: Tricks, is_asked_for: impl Fn(Trick) -> bool) -> String {
    let words: Vec<_> = tricks.iter().filter(|trick| is_asked_for(*trick)).map(Trick::as_str).collect();
    words.join(", ")
}

/// Tells of a message that something is done about.
fn tell(
    id: QueueId,
    rules: &Authentication,
    client: &Client,
    verdict: &Verdict,
    results: Results,
    (treatment, tricks): (Treatment, Tricks),
) {
    let Some(against) = treatment.against.filter(|_| Doubted::enabled()) else { return };
    let author = match &verdict.dmarc.author {
        Author::Domain(domain) => Some(domain.as_str()),
        Author::Missing | Author::Several => None,
    };
    let tricks = match against {
        Against::Deceptive(kind) => Some(told(tricks, |trick| trick.kind() == kind)),
        Against::SpfFail
        | Against::SpfSoftFail
        | Against::SpfPermError
        | Against::Dkim
        | Against::DmarcReject
        | Against::DmarcQuarantine
        | Against::AuthorRule
        | Against::NoAuthor
        | Against::Unknown => None,
    };
    Doubted {
        id: &id,
        client: &client.address,
        from: client.mail_from.address().map_or("", |address| address.as_str()),
        author,
        against: against.label(),
        tricks: tricks.as_deref(),
        action: treatment_label(treatment.action).label(),
        dry_run: if rules.dry_run { "yes" } else { "no" },
        spf: results.spf.label(),
        dkim: results.dkim.label(),
        dmarc: results.dmarc.label(),
    }
    .emit(ring::clock::unix_micros());
}

/// Signs with each key that is for the message; says how many did, where one is.
async fn sign(
    shard: &Rc<Shard>,
    id: QueueId,
    message: Signable<'_>,
    added: &[u8],
    out: &mut Vec<u8>,
) -> Option<u64> {
    let (settings, digest) = (shard.settings(), message.digest);
    let (mut made, mut keys) = (0, 0_u32);
    let signers =
        |key: usize| settings.signers.get(key).into_iter().flatten().map(move |signer| (key, signer));
    for (key, signer) in settings.policy.keys(message).flat_map(signers) {
        keys += 1;
        let turn = shard.signing.turn().await;
        let mut signature = Vec::with_capacity(1024);
        match signer.sign(&mut signature, digest, added, facts::now()) {
            Ok(()) => {
                made += 1;
                signature.append(out);
                *out = signature;
                shard.metrics.inbound.signed.one();
                shard
                    .metrics
                    .inbound
                    .signing
                    .record_duration(ring::clock::now().saturating_sub(turn.began()));
            }
            Err(error) => {
                shard.metrics.inbound.unsigned.one();
                let name = settings.policy.key_name(key);
                Unsigned { id: &id, key: name, error: &error }.emit(ring::clock::unix_micros());
            }
        }
    }
    (keys > 0).then_some(made)
}

/// The signatures of a message that we have written ourselves; nobody's in particular.
pub(crate) async fn sign_own(shard: &Rc<Shard>, id: QueueId, content: &[Bytes]) -> Option<Bytes> {
    let settings = shard.settings();
    if !settings.signs() {
        return None;
    }
    let mut digester = Digester::new(Limits::default()).signing(settings.signers.iter().flatten());
    content.iter().for_each(|slice| digester.push(slice));
    let digest = digester.finish();
    let mut fields = Vec::new();
    let message = Signable { tenant: TenantId::NOBODY, reverse_path: &ReversePath::Null, digest: &digest };
    sign(shard, id, message, &[], &mut fields).await;
    (!fields.is_empty()).then(|| fields.into())
}

/// What is left of content when these places of it are left out, which are in order and do not overlap.
pub(crate) fn without(content: Vec<Bytes>, cut: &[Range<usize>]) -> Vec<Bytes> {
    if cut.is_empty() {
        return content;
    }
    let (mut kept, mut start) = (Vec::with_capacity(content.len() + cut.len()), 0);
    for slice in content {
        let end = start + slice.len();
        let mut at = start;
        for place in cut.iter().filter(|place| place.start < end && place.end > start) {
            if place.start > at {
                kept.push(slice.slice(at - start..place.start - start));
            }
            at = at.max(place.end.min(end));
        }
        if at < end {
            kept.push(slice.slice(at - start..));
        }
        start = end;
    }
    kept
}

impl Results {
    fn of(verdict: &Verdict) -> Self {
        // The best of them: what one proves is proven.
        let rank = |result: &AuthResult| match result {
            AuthResult::Pass => 0,
            AuthResult::TempError => 1,
            AuthResult::Policy => 2,
            AuthResult::Neutral => 3,
            AuthResult::Fail | AuthResult::SoftFail => 4,
            AuthResult::PermError => 5,
            AuthResult::None => 6,
        };
        let signatures = verdict.dkim.iter().map(|dkim| dkim_result(dkim.result));
        Self {
            spf: match verdict.envelope.mail_from.result {
                SpfResult::None => AuthResult::None,
                SpfResult::Neutral => AuthResult::Neutral,
                SpfResult::Pass => AuthResult::Pass,
                SpfResult::Fail => AuthResult::Fail,
                SpfResult::SoftFail => AuthResult::SoftFail,
                SpfResult::TempError => AuthResult::TempError,
                SpfResult::PermError => AuthResult::PermError,
            },
            dkim: signatures.min_by_key(rank).unwrap_or(AuthResult::None),
            dmarc: match verdict.dmarc.result {
                DmarcResult::None => AuthResult::None,
                DmarcResult::Pass => AuthResult::Pass,
                DmarcResult::Fail => AuthResult::Fail,
                DmarcResult::TempError => AuthResult::TempError,
                DmarcResult::PermError => AuthResult::PermError,
            },
            unsubscribe: verdict.unsubscribe.as_ref().map(|found| match found.way {
                trust::UnsubscribeWay::OneClick => UnsubscribeWay::OneClick,
                trust::UnsubscribeWay::Link => UnsubscribeWay::Link,
                trust::UnsubscribeWay::Mail => UnsubscribeWay::Mail,
                trust::UnsubscribeWay::Unusable => UnsubscribeWay::Unusable,
            }),
        }
    }
}

const fn arc_result(result: ArcResult) -> AuthResult {
    match result {
        ArcResult::None => AuthResult::None,
        ArcResult::Pass => AuthResult::Pass,
        ArcResult::Fail => AuthResult::Fail,
        ArcResult::TempError => AuthResult::TempError,
    }
}

const fn dkim_result(result: DkimResult) -> AuthResult {
    match result {
        DkimResult::Pass => AuthResult::Pass,
        DkimResult::Fail => AuthResult::Fail,
        DkimResult::Neutral => AuthResult::Neutral,
        DkimResult::Policy => AuthResult::Policy,
        DkimResult::TempError => AuthResult::TempError,
        DkimResult::PermError => AuthResult::PermError,
    }
}

pub(crate) const fn treatment_label(action: AuthAction) -> AuthTreatment {
    match action {
        AuthAction::Accept => AuthTreatment::Accept,
        AuthAction::Tag => AuthTreatment::Tag,
        AuthAction::Quarantine => AuthTreatment::Quarantine,
        AuthAction::Defer => AuthTreatment::Defer,
        AuthAction::Refuse => AuthTreatment::Refuse,
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn places_are_left_out_wherever_slices_begin() {
        const TEXT: &[u8] = b"0123456789abcdef";
        const CUTS: [&[(usize, usize)]; 5] =
            [&[], &[(0, 3)], &[(2, 5), (5, 6), (9, 16)], &[(0, 16)], &[(1, 2), (15, 16)]];
        for cut in CUTS {
            let cut: Vec<_> = cut.iter().map(|(start, end)| *start..*end).collect();
            let expected: Vec<u8> = (0..TEXT.len())
                .filter(|at| !cut.iter().any(|place| place.contains(at)))
                .map(|at| TEXT[at])
                .collect();
            for size in 1..=TEXT.len() {
                let content = TEXT.chunks(size).map(Bytes::from_static).collect();
                let kept = without(content, &cut);
                assert_eq!(kept.concat(), expected, "{cut:?} {size}");
                assert!(cut.is_empty() || kept.iter().all(|slice| !slice.is_empty()));
            }
        }
    }
}
