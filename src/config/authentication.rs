//! Whether mail is from whom it says, and how others can tell that ours is.

use std::{path::PathBuf, time::Duration};

use mail::{Address, Domain};

use crate::{
    BimiUse, DkimAlgorithm, DomainPattern, SenderPattern,
    notation::{FilePath, List, Literal, Maybe, Size, Text, Time, Whole, Word, YesNo},
    schema::{Entry, choice, entry_lines, section},
};

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;

choice! {
    /// What becomes of mail that a check speaks against.
    pub enum AuthAction {
        /// it is taken; what was found stands in its `Authentication-Results` field
        Accept = "accept",
        /// it is taken, and a field `X-Authentication-Warning` says what is against it
        Tag = "tag",
        /// it is taken and held until an operator releases it (`ringpost queue`)
        Quarantine = "quarantine",
        /// 451: the client comes again
        Defer = "defer",
        /// 550
        Refuse = "refuse",
    }
}

choice! {
    /// What becomes of mail about which the DNS did not answer.
    pub enum UnknownAction {
        /// it is taken; "temperror" stands in its `Authentication-Results` field
        Accept = "accept",
        /// 451: the client comes again
        Defer = "defer",
    }
}

choice! {
    /// How a header section or a body is written before it is signed.
    pub enum Canonical {
        /// as it is
        Simple = "simple",
        /// white space and the case of field names do not matter
        Relaxed = "relaxed",
    }
}

section! {
    /// Whether mail of strangers is from whom it says: SPF (RFC 7208), DKIM (RFC 6376), ARC (RFC 8617), DMARC (RFC 9989), and the name
    /// of the client's address. It is looked at on listeners of kind "smtp"; clients that may relay and clients in `clients.allow` are spared.
    /// What was found is written into the message (RFC 8601), fields of others that bear our name are taken out, and the actions say what
    /// else becomes of it; of several the strictest counts. Where DMARC passes, those of SPF and DKIM do not count: they speak of another
    /// name than the one that people see.
    pub struct Authentication {
        /// Whether it is looked at.
        verify: bool [YesNo] = true;
        /// Our name in `Authentication-Results`. Empty: `hostname`.
        authserv_id: Option<Domain> [Maybe<Literal>] = None;
        /// Whether nothing is done beside telling what was found: the log says what would have been done.
        dry_run: bool [YesNo] = false;
        /// Mail from an address that the sender's domain does not send from (SPF: "fail").
        spf_fail: AuthAction [Word] = AuthAction::Accept;
        /// Mail from an address that it probably does not send from (SPF: "softfail").
        spf_softfail: AuthAction [Word] = AuthAction::Accept;
        /// Mail of a domain whose SPF record makes no sense (SPF: "permerror").
        spf_permerror: AuthAction [Word] = AuthAction::Accept;
        /// Mail whose signatures are all wrong (DKIM: "fail", "policy", "neutral" or "permerror", and none "pass"). Mailing lists break signatures.
        dkim_fail: AuthAction [Word] = AuthAction::Accept;
        /// Mail that fails DMARC, where its domain asks to refuse such (`p=reject`). Mailing lists and forwarding break DMARC, too.
        dmarc_reject: AuthAction [Word] = AuthAction::Accept;
        /// Mail that fails DMARC, where its domain asks to hold such in doubt (`p=quarantine`).
        dmarc_quarantine: AuthAction [Word] = AuthAction::Accept;
        /// Mail that has no author, or authors of several domains, so that DMARC cannot be applied (RFC 9989 §4.1).
        no_author: AuthAction [Word] = AuthAction::Accept;
        /// Mail whose From programs read in more than one way: none, several From fields or addresses, a group, a route, comments and quotes where
        /// none may be, an address within the local-part. This and the following three count where DMARC passes, too: who
        /// deceives has his own domain pass (docs/spoofing.md).
        deceptive_author: AuthAction [Word] = AuthAction::Tag;
        /// Mail with the address of another domain in the name beside its author's address, or with characters there that are not seen.
        /// Mailing lists write such names ("ann@example.org via List").
        deceptive_name: AuthAction [Word] = AuthAction::Tag;
        /// Mail of authors whose domain looks like another: letters of several scripts, letters that look like Latin ones, A-labels that stand
        /// for nothing, and whatever looks like a domain of `[[domain]]` or of an `[[author-rule]]` and is not.
        deceptive_domain: AuthAction [Word] = AuthAction::Tag;
        /// Mail whose header section programs read in more than one way: Subject, Date, Sender, Reply-To, Content-Type or
        /// Content-Transfer-Encoding twice with two values, lines that are no field, a space before a colon, control characters, marks
        /// in Subject that turn it around, and fields that were added to what the author's domain has signed.
        deceptive_fields: AuthAction [Word] = AuthAction::Tag;
        /// Mail that is not as it should be, and as honest senders write it, too: no Date or Message-ID (small devices), a field twice that
        /// says the same or by which nobody goes (scripts), a comma without quotes in the name of the author, characters of no width in
        /// Subject, and fields that readers show and the author's domain has not signed. What is accepted is counted all the same.
        irregular_fields: AuthAction [Word] = AuthAction::Accept;
        /// Domains whose word is believed about mail that they have passed on: where all who sealed a message (ARC, RFC 8617) since DMARC had
        /// passed are among these, its failing now is no reason to do anything, nor is SPF. For mailing lists and forwarders that one knows.
        trusted_sealers: Vec<DomainPattern> [List<Literal>] = Vec::new();
        /// The `[[dkim]]` by whose key mail of strangers is sealed as it is passed on (ARC), with what was found of it. Empty: it is not.
        seal: Option<String> [Maybe<Text>] = None;
        /// Mail about which the DNS did not answer in time, where the answer could have been one that is acted on.
        unknown: UnknownAction [Word] = UnknownAction::Accept;
        /// Whether a `Received-SPF` field is written too (RFC 7208 §9.1).
        received_spf: bool [YesNo] = true;
        /// Whether a field `X-Unsubscribe-Result` is written into mail that has a List-Unsubscribe: how its list may be left, and whether by one
        /// click (RFC 8058).
        unsubscribe_result: bool [YesNo] = true;
        /// Questions to the DNS for one message. What is not known after that counts as not answered.
        lookups_max: u32 [Whole<1, 1000>] = 60;
        /// For all answers. RFC 7208 §4.6.4 wants 20 seconds at least.
        lookup_time_max: Duration [Time<{ SECOND }, { 120 * SECOND }>] = Duration::from_secs(20);
        /// Signatures of one message that are looked at.
        signatures_max: u32 [Whole<1, 100>] = 10;
        /// The shortest RSA key that counts (RFC 8301 §3.2).
        rsa_bits_min: u32 [Whole<1024, 4096>] = 1024;
        /// Whether signatures with SHA-1 count (RFC 8301 §3.1 says that they must not).
        sha1: bool [YesNo] = false;
        /// Whether a signature of a part of the body (`l=`) counts where that part is all of it (RFC 6376 §8.2).
        body_length: bool [YesNo] = false;
        /// What is done for the picture of the author's domain (BIMI), where DMARC passes and the domain holds all its mail to that. Fields of
        /// others that show one are taken out whatever stands here.
        bimi: BimiUse [Word] = BimiUse::Off;
    }
}

section! {
    /// What becomes of mail of strangers by some authors that does not pass DMARC, whatever their domains ask for: stricter for those that
    /// are known to sign all they send, milder for those that are known not to get it right. The first rule that is for the author counts.
    pub struct AuthorRule {
        /// In messages, and for later files to find it.
        name: String [Text] = String::new();
        /// The domains of the authors (From).
        domains: Vec<DomainPattern> [List<Literal>] = Vec::new();
        /// What becomes of such mail. With "accept" SPF and DKIM do not count either.
        not_passed: AuthAction [Word] = AuthAction::Quarantine;
    }
}

impl Entry for AuthorRule {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn sample() -> Self {
        Self {
            name: "bank".into(),
            domains: vec![DomainPattern::Exact(Domain::parse("bank.example").expect("our own text"))],
            not_passed: AuthAction::Refuse,
        }
    }
}

section! {
    /// Reports to domains on the mail of strangers that bore their names, once a day (UTC), where their records ask for them by mail (DMARC,
    /// RFC 9990): from where it came, whether it passed, and what became of it. Counted is what is verified (`authentication`). What is not told
    /// yet is kept over a stop; a crash loses a minute of it.
    pub struct DmarcReports {
        /// Whether there are any.
        enabled: bool [YesNo] = false;
        /// From whom they come, and whom to ask about them. They have to pass DMARC themselves: have a `[[dkim]]` for its domain. Empty:
        /// `postmaster` at `hostname`.
        contact: Option<Address> [Maybe<Literal>] = None;
        /// Who we are, in words. Empty: `hostname`.
        organization: Option<String> [Maybe<Text>] = None;
        /// They go out within so long after midnight, each domain's at a moment drawn by chance.
        jitter: Duration [Time<0, { 12 * HOUR }>] = Duration::from_secs(4 * 3_600);
        /// Days that may wait to be told; an operator may end one at any time. Of more the oldest is told to nobody.
        days_max: u32 [Whole<1, 1000>] = 16;
        /// Domains that are counted for. What finds no room is counted as `ringpost_dmarc_counted_total{result="untold"}`.
        domains_max: u32 [Whole<1, 10_000_000>] = 10_000;
        /// Rows of the report on one domain: messages of the same source with the same results are one row. From half of it on, signatures that
        /// are not good tell rows apart no more. What finds no room is counted, and the report says how much that is.
        rows_max: u32 [Whole<2, 10_000_000>] = 10_000;
        /// Memory for all of that, about; each core has as much beside it for what it has counted within a minute.
        size_max: u64 [Size<{ 64 << 10 }, { 64 << 30 }>] = 64 << 20;
    }
}

section! {
    /// A key that mail of ours is signed with (DKIM, RFC 6376): what clients bring that may relay, programs by HTTP, and reports of our
    /// own. All keys that are for a message sign it, one after the other: so RSA and Ed25519 (RFC 8463), or the keys of two
    /// domains. `ringpost dkim` makes a key, and says what to publish. With `rotate` the server makes keys by itself, and renews them
    /// (`dkim-rotation`): then there is no `key`, and `selector` is a pattern.
    pub struct Dkim {
        /// In messages, logs and metrics, and for later files to find it.
        name: String [Text] = String::new();
        /// Whose key it is (`d=`).
        domain: Option<Domain> [Maybe<Literal>] = None;
        /// Where under that domain it is published (`s=`). With `rotate`: a pattern, "rp-{date}-{algorithm}", in which {date} is the day that
        /// a key is begun, 20261129, and {algorithm} one of `algorithms`. A second key of a day has "-2" behind it.
        selector: String [Text] = String::new();
        /// The file of the private key, in PEM: RSA with 2048 bits or more, or Ed25519.
        key: PathBuf [FilePath] = PathBuf::new();
        /// How long a key signs before another one is made, which takes its place when the DNS shows it. Empty: `key` is renewed by hand.
        rotate: Option<Duration> [Maybe<Time<{ SECOND }, { 3_660 * 24 * HOUR }>>] = None;
        /// With `rotate`: what keys are of. There is a key of each, and each signs.
        algorithms: Vec<DkimAlgorithm> [List<Word>] = vec![DkimAlgorithm::Rsa2048];
        /// With `rotate`: the `[[dns-provider]]` that publishes the records. Empty: somebody does by hand, and is told what.
        publish: Option<String> [Maybe<Text>] = None;
        /// Whose mail is signed: domains of authors, as the From field has them. Empty: `domain` itself.
        authors: Vec<DomainPattern> [List<Literal>] = Vec::new();
        /// Only mail of these tenants. Empty: of all.
        tenants: Vec<String> [List<Text>] = Vec::new();
        /// Only mail with such a reverse-path: "ann@example.org", "example.org", "*.example.org". Empty: with any.
        senders: Vec<SenderPattern> [List<Literal>] = Vec::new();
        /// Only mail with this field: "X-Brand: news". Who sends it chooses the key by it. Empty: with or without.
        when: Option<String> [Maybe<Text>] = None;
        /// How the header section is written before it is signed.
        header: Canonical [Word] = Canonical::Relaxed;
        /// How the body is.
        body: Canonical [Word] = Canonical::Relaxed;
        /// Fields that are signed, all of each name, beside From, those of `sealed` and the links to leave a list (RFC 8058 §4). Empty:
        /// those that RFC 6376 §5.4.1 names.
        fields: Vec<String> [List<Text>] = Vec::new();
        /// Fields that are signed once more than they are there, so that nobody can add one (RFC 6376 §8.15); From always is. Empty: those
        /// that readers show, and Content-Type.
        sealed: Vec<String> [List<Text>] = Vec::new();
        /// For how long a signature holds (`x=`). Empty: for as long as the key is published.
        lifetime: Option<Duration> [Maybe<Time<{ HOUR }, { 366 * 24 * HOUR }>>] = None;
        /// For whom it is made (`i=`), within `domain`: "@news.example.org". Empty: for the domain.
        identity: Option<String> [Maybe<Text>] = None;
    }
}

impl Dkim {
    /// The entry as it stands in a configuration: what differs from what holds anyway.
    pub fn lines(&self) -> String {
        entry_lines("dkim", self)
    }
}

impl Entry for Dkim {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn sample() -> Self {
        Self {
            name: "example.org".into(),
            domain: Domain::parse("example.org").ok(),
            selector: "s2026".into(),
            key: PathBuf::from("dkim/s2026.example.org.pem"),
            ..Self::default()
        }
    }
}
