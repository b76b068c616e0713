//! Whom tenants send nothing to: suppression lists, links by which recipients leave, what came already.

use std::{net::SocketAddr, time::Duration};

use mail::Category;

use crate::{
    Config, Secret,
    notation::{List, Literal, Maybe, Text, Time, Whole, Word},
    reader::Reader,
    schema::{choice, section},
};

const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;
const YEARS: u64 = 36_500 * DAY;

choice! {
    /// What becomes of a tenant's recipients who are on a suppression list.
    pub enum SuppressionUse {
        /// they get their mail: the list is neither asked nor fed
        None = "none",
        /// 550 5.7.1 to `RCPT`; whoever comes onto the list later fails in the queue
        Refuse = "refuse",
        /// the message is taken, and the recipient fails at once, with the category suppressed
        Drop = "drop",
    }
}

choice! {
    /// What becomes of more than a tenant's quota.
    pub enum QuotaExcess {
        /// 452 4.7.1 to `RCPT`, or 429 by HTTP, until the next hour, day or month
        Refuse = "refuse",
        /// it is taken: an event `quota_used_up` says so
        Report = "report",
    }
}

choice! {
    /// Which messages get a link to unsubscribe.
    pub enum UnsubscribeUse {
        /// none
        None = "none",
        /// those that name their list in the field `unsubscribe.field`
        Marked = "marked",
        /// all of them
        All = "all",
    }
}

choice! {
    /// What becomes of a tenant's bulk mail whose list cannot be left as RFC 8058 says.
    pub enum UnsubscribeCheck {
        /// nothing: it is not looked at
        None = "none",
        /// it is taken: an event `unsubscribe_flawed` says what is wrong, and the metrics count it
        Log = "log",
        /// 550 at the end of `DATA`, with what is wrong
        Refuse = "refuse",
    }
}

choice! {
    /// What says that a message is bulk mail.
    pub enum BulkMark {
        /// a field List-Id (RFC 2919), or the one of `unsubscribe.field`
        ListId = "list-id",
        /// a field Precedence with the value bulk or list
        Precedence = "precedence",
        /// a field Feedback-ID, by which senders tell their mailings apart
        FeedbackId = "feedback-id",
        /// the field of `queue.campaign-header`
        Campaign = "campaign",
    }
}

choice! {
    /// Whether local-parts that differ in case are two addresses.
    pub enum LocalPartCase {
        /// they are one
        Ignored = "ignored",
        /// they are two
        Kept = "kept",
    }
}

section! {
    /// Suppression lists: recipients whom a tenant sends nothing to (`tenant.suppression`), one list for each tenant and one for
    /// all. Refusals by next hops, reports, complaints and recipients who unsubscribe put people on it, and operators do
    /// (`ringpost suppression`). They are kept in the data directory, for all cores.
    pub struct Suppression {
        /// How local-parts compare. Domains compare without case.
        local_part_case: LocalPartCase [Word; Restart] = LocalPartCase::Ignored;
        /// A recipient that is refused for good, or reported as failed, is put on the list when that is about one of these
        /// (docs/reply-rules.md).
        bounce_categories: Vec<Category> [List<Word>] = vec![Category::BadMailbox, Category::InactiveMailbox];
        /// For so long. Empty: for ever.
        bounce_lifetime: Option<Duration> [Maybe<Time<{ MINUTE }, { YEARS }>>] =
            Some(Duration::from_secs(90 * 86_400));
        /// So long stays who has complained. Empty: for ever.
        complaint_lifetime: Option<Duration> [Maybe<Time<{ MINUTE }, { YEARS }>>] = None;
        /// So long stays who has unsubscribed. Empty: for ever.
        unsubscribe_lifetime: Option<Duration> [Maybe<Time<{ MINUTE }, { YEARS }>>] = None;
        /// Entries on all lists, 18 octets of memory each and some 90 on disk. When it is full, nobody is put on one any more.
        entries_max: u64 [Whole<1000, 1_000_000_000>] = 20_000_000;
    }
}

section! {
    /// Links by which recipients leave a list with one click (List-Unsubscribe, RFC 8058), in messages of tenants with
    /// `unsubscribe`. The link names tenant, list and recipient, sealed; who follows it and says so is put on the suppression list.
    pub struct Unsubscribe {
        /// What links begin with: where the open network reaches /u/ of an address below or of `http.address`, such as
        /// `https://news.example.org/u`. Empty: there are no links.
        url: Option<String> [Maybe<Text>] = None;
        /// What links are sealed with: the first. Links that others of these have sealed hold too, so that a secret can be exchanged. The
        /// same on every host that sends for the tenants.
        secrets: Vec<Secret> [List<Literal>] = Vec::new();
        /// The header field that names a message's list. Its value is what is left: leaving one list is leaving no other.
        field: String [Text] = "List-Id".into();
        /// What says that a message of a tenant is bulk mail, for `tenant.unsubscribe-check`. Where receipts have one of these as well, take it out.
        bulk_marks: Vec<BulkMark> [List<Word>] =
            vec![BulkMark::ListId, BulkMark::Precedence, BulkMark::FeedbackId, BulkMark::Campaign];
        /// Requests to links in a second, all together. More get 429 and come again.
        requests_max: u32 [Whole<1, 1_000_000>] = 500;
        /// Where links are answered, and nothing else is. HTTP without TLS: put it behind something that has it. They
        /// are answered on `http.address` and `http.mail-address` anyway.
        address: Vec<SocketAddr> [List<Literal>; Restart] = Vec::new();
    }
}

section! {
    /// What came already, of tenants with a `duplicate-window`.
    pub struct Duplicates {
        /// Recipients of messages that are remembered at once, some 100 bytes each; then the older half is forgotten.
        entries_max: u64 [Whole<1000, 1_000_000_000>] = 1_000_000;
    }
}

impl Config {
    pub(crate) fn check_consent(&self, reader: &mut Reader<'_>) {
        let unsubscribe = &self.unsubscribe;
        if let Some(url) = &unsubscribe.url {
            let sound = url.strip_prefix("https://").is_some_and(|rest| {
                !rest.is_empty()
                    && rest.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"\\?#,".contains(&byte))
            });
            if !sound || url.len() > 200 {
                let problem = format!("\"{url}\" is no URL that a link can begin with");
                let remedy = "write one such as \"https://news.example.org/u\": RFC 8058 wants HTTPS";
                reader.conflict(&["unsubscribe.url"], problem, remedy);
            }
            if unsubscribe.secrets.is_empty() {
                let remedy = "add unsubscribe.secrets = [\"…\"], a random text of 32 characters";
                reader.conflict(
                    &["unsubscribe.url"],
                    "links need a secret, and there is none".into(),
                    remedy,
                );
            }
        }
        let field = &unsubscribe.field;
        let is_name = |byte: u8| byte.is_ascii_graphic() && byte != b':';
        if field.is_empty() || field.len() > 38 || !field.bytes().all(is_name) {
            let problem = format!("\"{field}\" is no name of a header field of up to 38 characters");
            reader.conflict(&["unsubscribe.field"], problem, "write one such as \"List-Id\"");
        }
        if self.suppression.bounce_categories.contains(&Category::Suppressed) {
            let problem = "who is on the list would stay there for ever anew".into();
            reader.conflict(&["suppression.bounce-categories"], problem, "take \"suppressed\" out");
        }
        for tenant in &self.tenants {
            let key = format!("tenant.{}", tenant.name.to_ascii_lowercase());
            if tenant.unsubscribe != UnsubscribeUse::None && unsubscribe.url.is_none() {
                let problem = format!("unsubscribe = \"{}\", and it is not said where", tenant.unsubscribe);
                reader.conflict(&[&format!("{key}.unsubscribe")], problem, "set `unsubscribe.url`");
            }
            if tenant.unsubscribe != UnsubscribeUse::None && tenant.suppression == SuppressionUse::None {
                let problem = "recipients could leave, and would get mail all the same".to_owned();
                let keys = [&*format!("{key}.unsubscribe"), &format!("{key}.suppression")];
                reader.conflict(&keys, problem, "set suppression = \"refuse\" or \"drop\" as well");
            }
            if tenant.unsubscribe_check == UnsubscribeCheck::Refuse && self.dkim.is_empty() {
                let problem = "nothing is signed, so that all of its bulk mail would be refused".to_owned();
                let remedy =
                    "have a [[dkim]] for the domains of its authors, or set unsubscribe-check = \"log\"";
                reader.conflict(&[&format!("{key}.unsubscribe-check")], problem, remedy);
            }
            if tenant.unsubscribe_check != UnsubscribeCheck::None && unsubscribe.bulk_marks.is_empty() {
                let problem = "bulk mail is looked at, and nothing says which mail that is".to_owned();
                let keys = ["unsubscribe.bulk-marks", &format!("{key}.unsubscribe-check")];
                reader.conflict(&keys, problem, "name what says so: bulk-marks = [\"list-id\"]");
            }
            if tenant.name == "*" || tenant.name.len() > 200 {
                let problem = "a tenant's name has up to 200 characters, and is not *".into();
                reader.conflict(&[&format!("{key}.name")], problem, "name it by a word");
            }
        }
    }
}
