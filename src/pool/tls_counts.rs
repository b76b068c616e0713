//! How TLS went with the hosts of domains, as it is kept until it is told (RFC 8460).

use std::{net::IpAddr, sync::Arc};

use bridge::Door;
use delivery::{
    sts::Policy,
    tally::{Detail, PolicyTally, Reported, Tally, TlsResult},
};
use dns::Name;
use serde::{Deserialize, Serialize};

use crate::counts::{Counts, Tallied, line};

/// The days of TLS that are not told yet.
pub type TlsCounts = Counts<Tally>;

impl Tallied for Tally {
    const FILE: &'static str = "tls-results.";
    const OF: &'static str = "TLS";

    async fn collect(door: &Door) -> Self {
        door.tls_results().await
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn merge(&mut self, other: Self) {
        self.merge(other);
    }

    fn untold(&self) -> u64 {
        self.untold
    }

    fn set_untold(&mut self, untold: u64) {
        self.untold = untold;
    }

    fn lines(&self) -> Vec<String> {
        self.domains().map(|(domain, tally)| line(&written(domain, tally))).collect()
    }

    fn read_line(&mut self, line: &str) -> Option<()> {
        let (domain, tally) = policy(serde_json::from_str(line).ok()?)?;
        self.add(&domain, tally);
        Some(())
    }
}

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Line {
    /// How it went by one policy of a domain.
    Policy {
        domain: String,
        kind: Kind,
        of: String,
        text: Vec<String>,
        successes: u64,
        failures: u64,
        details: Vec<Failure>,
    },
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Tlsa,
    Sts,
    /// The policy could not be had.
    StsUnread,
    None,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Failure {
    result: String,
    from: Option<IpAddr>,
    host: Option<Box<str>>,
    to: Option<IpAddr>,
    reason: Option<Box<str>>,
    count: u64,
}

fn written(domain: &Name, tally: &PolicyTally) -> Line {
    let (kind, of, text) = match &tally.policy {
        Reported::Tlsa(base, records) => {
            (Kind::Tlsa, base, records.iter().map(ToString::to_string).collect())
        }
        Reported::Sts(of, Some(policy)) => (Kind::Sts, of, vec![policy.to_string()]),
        Reported::Sts(of, None) => (Kind::StsUnread, of, Vec::new()),
        Reported::NotFound(of) => (Kind::None, of, Vec::new()),
    };
    let failure = |(detail, count): &(Detail, u64)| Failure {
        result: detail.result.as_str().to_owned(),
        from: detail.from,
        host: detail.host.clone(),
        to: detail.to,
        reason: detail.reason.clone(),
        count: *count,
    };
    Line::Policy {
        domain: domain.to_string(),
        kind,
        of: of.to_string(),
        text,
        successes: tally.successes,
        failures: tally.failures,
        details: tally.details.iter().map(failure).collect(),
    }
}

fn policy(line: Line) -> Option<(Name, PolicyTally)> {
    let Line::Policy { domain, kind, of, text, successes, failures, details } = line;
    let of = Name::parse(&of).ok()?;
    let policy = match kind {
        Kind::Tlsa => Reported::Tlsa(of, text.into_iter().map(Into::into).collect()),
        Kind::Sts => Reported::Sts(of, Some(Arc::new(Policy::parse(text.first()?.as_bytes()).ok()?))),
        Kind::StsUnread => Reported::Sts(of, None),
        Kind::None => Reported::NotFound(of),
    };
    let detail = |failure: Failure| {
        let Failure { result, from, host, to, reason, count } = failure;
        Some((Detail { result: TlsResult::parse(&result)?, from, host, to, reason }, count))
    };
    let details: Vec<_> = details.into_iter().map(detail).collect::<Option<_>>()?;
    let told = details.iter().try_fold(0_u64, |sum, (_, count)| sum.checked_add(*count))?;
    if told > failures || successes.checked_add(failures).is_none() {
        return None;
    }
    Some((Name::parse(&domain).ok()?, PolicyTally { policy, successes, failures, details }))
}

#[cfg(test)]
mod test {
    use std::{fs, path::Path};

    use mail::Timestamp;

    use super::*;
    use crate::counts::{Day, midnight_after, own, read_text};

    const FILE: &str = Tally::FILE;
    const HOUR: u64 = 3_600_000_000;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn tally(domain: &str) -> Tally {
        let mut tally = Tally::default();
        tally.untold = 7;
        let domain = name(domain);
        let body = b"version: STSv1\nmode: testing\nmx: *.a.test\nmax_age: 1000\n";
        let policy = Arc::new(Policy::parse(body).unwrap());
        let detail = Detail {
            result: TlsResult::CertificateExpired,
            from: Some([192, 0, 2, 1].into()),
            host: Some("mx.a.test".into()),
            to: None,
            reason: Some("it \"ended\"\nlong ago".into()),
        };
        tally.succeeded(&domain, Reported::Sts(domain.clone(), Some(policy.clone())));
        tally.failed(&domain, Reported::Sts(domain.clone(), Some(policy)), detail.clone());
        tally.failed(&domain, Reported::Sts(domain.clone(), None), detail.clone());
        tally.failed(&domain, Reported::Tlsa(name("mx.a.test"), vec!["3 1 1 07".into()]), detail);
        tally.succeeded(&domain, Reported::NotFound(domain.clone()));
        tally
    }

    fn at_noon() -> Timestamp {
        Timestamp(12 * HOUR)
    }

    fn next_day() -> Timestamp {
        Timestamp(25 * HOUR)
    }

    fn counts(directory: &Path, clock: fn() -> Timestamp) -> TlsCounts {
        TlsCounts::new(directory, clock)
    }

    #[test]
    fn days_end_at_midnight() {
        let at = |text| Timestamp::from_rfc3339(text).unwrap();
        for (now, next) in [
            ("2026-11-29T00:00:00Z", "2026-11-30T00:00:00Z"),
            ("2026-11-29T23:59:59Z", "2026-11-30T00:00:00Z"),
            ("2026-12-31T12:00:00Z", "2027-01-01T00:00:00Z"),
        ] {
            assert_eq!(midnight_after(at(now)), at(next));
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let days = [
            Day { from: Timestamp(1), to: Some(Timestamp(2)), tally: tally("a.test") },
            Day { from: Timestamp(3), to: None, tally: tally("b.test") },
        ];
        let text: String = days.iter().map(Day::<Tally>::to_text).collect();
        let mut read = Vec::<Day<Tally>>::new();
        assert_eq!(read_text(&text, &mut read), 0);
        assert_eq!(read, days);
        // A line that is damaged costs what it says, and no more.
        let damaged =
            text.replace("\"tlsa\"", "\"rubbish\"").replace("certificate-expired", "certificate-expirec");
        let mut read = Vec::<Day<Tally>>::new();
        assert_eq!(read_text(&damaged, &mut read), 6);
        assert_eq!(read.iter().map(|day| day.tally.domains().count()).collect::<Vec<_>>(), [1, 1]);
        let headless: String = text.lines().skip(1).take(2).collect();
        assert_eq!(read_text::<Tally>(&headless, &mut Vec::new()), 1);
        let much = r#"{"policy":{"domain":"a.test","kind":"none","of":"a.test","text":[],"successes":1,"failures":18446744073709551615,"details":[]}}"#;
        let mut read = Vec::<Day<Tally>>::new();
        assert_eq!(
            read_text(&format!("{{\"day\":{{\"from\":1,\"to\":null,\"untold\":0}}}}\n{much}\n"), &mut read),
            1
        );
    }

    #[tokio::test]
    async fn a_day_goes_on_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let before = counts(directory.path(), at_noon);
        before.take_over().await;
        before.put(tally("a.test")).await;
        let after = counts(directory.path(), || Timestamp(13 * HOUR));
        after.take_over().await;
        let day = after.running().await.unwrap();
        // It is about the day from its beginning on.
        assert_eq!((day.from, &day.tally), (Timestamp(0), &tally("a.test")));
        // What was counted once is not counted again, and what is added is kept as well.
        after.put(tally("b.test")).await;
        after.take_over().await;
        assert_eq!(after.running().await.unwrap().tally.domains().count(), 8);
    }

    #[tokio::test]
    async fn a_day_that_ended_while_nobody_was_there_is_told() {
        let directory = tempfile::tempdir().unwrap();
        counts(directory.path(), at_noon).put(tally("a.test")).await;
        let after = counts(directory.path(), next_day);
        after.take_over().await;
        assert!(after.running().await.is_none());
        let [(number, day)] = &after.over(0).await[..] else { panic!("one day") };
        assert_eq!((day.from, day.to), (Timestamp(0), Some(Timestamp(24 * HOUR - 1_000_000))));
        // Told of by half, and then stopped.
        after.told(*number, |tally| tally.remove(&name("a.test"))).await;
        after.end(next_day(), 16).await;
        after.put(Tally::default()).await;
        let last = counts(directory.path(), next_day);
        last.take_over().await;
        assert_eq!(last.over(0).await[0].1.tally.domains().count(), 0);
        last.forget(0).await;
        assert!(last.over(0).await.is_empty());
        let late = counts(directory.path(), || Timestamp(100 * HOUR));
        late.take_over().await;
        assert!(late.over(0).await.is_empty() && late.running().await.is_none());
    }

    #[tokio::test]
    async fn whoever_takes_over_has_what_both_counted() {
        let directory = tempfile::tempdir().unwrap();
        let day = Day { from: Timestamp(HOUR), to: None, tally: tally("a.test") };
        let theirs = directory.path().join(format!("{FILE}1"));
        fs::write(&theirs, day.to_text()).unwrap();
        fs::write(directory.path().join(format!("{FILE}1.new")), "half of i").unwrap();
        let ours = counts(directory.path(), at_noon);
        ours.put(tally("a.test")).await;
        ours.take_over().await;
        let day = ours.running().await.unwrap();
        let mut both = tally("a.test");
        both.merge(tally("a.test"));
        assert_eq!((day.from, &day.tally), (Timestamp(0), &both));
        let left: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [own::<Tally>(directory.path())]);
        let again = counts(directory.path(), at_noon);
        again.take_over().await;
        assert_eq!(again.running().await.unwrap(), day);
    }
}
