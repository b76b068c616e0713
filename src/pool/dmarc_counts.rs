//! What was counted of mail that bore the names of domains, as it is kept until it is told (RFC 9990).

use bridge::Door;
use report::dmarc::{Published, Row, Tally};
use serde::{Deserialize, Serialize};

use crate::counts::{Counts, Tallied, line};

/// The days of DMARC that are not told yet.
pub type DmarcCounts = Counts<Tally>;

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Line {
    /// The record of a domain, and how many of its messages are in no row.
    Domain { domain: String, untold: u64, published: Published },
    /// So many messages of a domain have this in common.
    Row { domain: String, count: u64, row: Row },
}

impl Tallied for Tally {
    const FILE: &'static str = "dmarc-results.";
    const OF: &'static str = "DMARC";

    async fn collect(door: &Door) -> Self {
        door.dmarc_results().await
    }

    fn is_empty(&self) -> bool {
        self.is_empty()
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
        let mut lines = Vec::new();
        for (domain, tally) in self.domains() {
            let (domain, published) = (domain.to_owned(), tally.published.clone());
            lines.push(line(&Line::Domain { domain: domain.clone(), untold: tally.untold, published }));
            for (row, count) in tally.rows() {
                lines.push(line(&Line::Row { domain: domain.clone(), count, row: row.clone() }));
            }
        }
        lines
    }

    fn read_line(&mut self, line: &str) -> Option<()> {
        match serde_json::from_str(line).ok()? {
            Line::Domain { domain, untold, published } => self.add_untold(&domain, &published, untold),
            Line::Row { domain, count, row } => {
                // The line of the domain stands before its rows.
                let published = self.get(&domain)?.published.clone();
                self.add_row(&domain, &published, row, count);
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod test {
    use mail::Timestamp;
    use report::dmarc::{
        AuthResult, Destination, Disposition, Limits, Mode, Override, Policy, Reason, Signature, Spf,
    };

    use super::*;
    use crate::counts::{Day, own, read_text};

    const HOUR: u64 = 3_600_000_000;

    fn tally(domain: &str) -> Tally {
        let published = Published {
            policy: Policy::Reject,
            subdomains: Policy::None,
            nonexistent: Policy::Quarantine,
            dkim_mode: Mode::Relaxed,
            spf_mode: Mode::Strict,
            testing: true,
            failure_options: "1".into(),
            to: vec![Destination { address: "r@example.org".into(), size_max: Some(7) }],
        };
        let row = Row {
            source: "2001:db8::1".parse().unwrap(),
            disposition: Disposition::Reject,
            dkim_aligned: false,
            spf_aligned: true,
            reasons: vec![Reason { kind: Override::PolicyTestMode, comment: "t=y".into() }],
            header_from: "a.test".into(),
            envelope_from: "\"odd\"\n.test".into(),
            dkim: vec![Signature {
                domain: "a.test".into(),
                selector: "s".into(),
                result: AuthResult::PermError,
                reason: None,
            }],
            spf: Spf { domain: "a.test".into(), result: AuthResult::SoftFail, reason: Some("so".into()) },
        };
        let mut tally = Tally::default();
        tally.untold = 7;
        tally.count(domain, &published, row.clone());
        tally.count(domain, &published, row.clone());
        tally.count(domain, &published, Row { source: [192, 0, 2, 1].into(), ..row });
        tally.add_untold(domain, &published, 3);
        tally
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
        // A line that is damaged costs what it says; rows whose domain is not known say nothing.
        let damaged = text.replacen("\"reject\"", "\"rejoice\"", 1).replace("192.0.2.1", "192.0.2");
        let mut read = Vec::<Day<Tally>>::new();
        assert_eq!(read_text(&damaged, &mut read), 1 + 2 + 1);
        assert_eq!(read.iter().map(|day| day.tally.domains().count()).collect::<Vec<_>>(), [0, 1]);
        let headless: String = text.lines().skip(1).take(2).map(|line| format!("{line}\n")).collect();
        assert_eq!(read_text::<Tally>(&headless, &mut Vec::new()), 2);
    }

    #[tokio::test]
    async fn of_too_many_days_the_oldest_is_told_to_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let counts = DmarcCounts::new(directory.path(), || Timestamp(30 * HOUR));
        for second in 0..3 {
            counts.put(tally("a.test")).await;
            counts.end(Timestamp(30 * HOUR + second * 1_000_000), 2).await;
        }
        let kept: Vec<_> = counts.over(0).await.into_iter().map(|(number, day)| (number, day.to)).collect();
        let at = |second: u64| Some(Timestamp(30 * HOUR + second * 1_000_000));
        assert_eq!(kept, [(1, at(1)), (2, at(2))]);
        // A shorter list holds from the next day on.
        counts.put(tally("a.test")).await;
        counts.end(Timestamp(30 * HOUR + 9_000_000), 1).await;
        assert_eq!(counts.over(0).await.len(), 1);
    }

    /// What one process has written is within bounds already: whoever reads it has none of its own.
    #[tokio::test]
    async fn a_restart_keeps_it_all() {
        let directory = tempfile::tempdir().unwrap();
        let counts = |clock| DmarcCounts::new(directory.path(), clock);
        let before = counts(|| Timestamp(30 * HOUR));
        let limits = Limits { domains_max: 1, rows_max: 2, size_max: 1 << 20 };
        for domain in ["a.test", "b.test"] {
            let mut tally = tally(domain);
            tally.limits = limits;
            before.put(tally).await;
        }
        let after = counts(|| Timestamp(31 * HOUR));
        after.take_over().await;
        let day = after.running().await.unwrap();
        // A report is about a day from its beginning on.
        assert_eq!((day.from, day.to), (Timestamp(24 * HOUR), None));
        assert_eq!(day.tally.untold, 7 + 7 + 3 + 3);
        assert_eq!(day.tally.get("a.test").unwrap().rows().len(), 2);
        // An operator ends it, and the next begins behind it.
        after.end(Timestamp(31 * HOUR), 16).await;
        after.put(tally("a.test")).await;
        assert_eq!(after.running().await.unwrap().from, Timestamp(31 * HOUR));
        let [(number, over)] = &after.over(0).await[..] else { panic!("one day") };
        assert_eq!(over.to, Some(Timestamp(31 * HOUR)));
        after.told(*number, |tally| tally.remove("a.test")).await;
        after.forget(*number).await;
        let last = counts(|| Timestamp(32 * HOUR));
        last.take_over().await;
        assert!(last.over(0).await.is_empty());
        assert!(own::<Tally>(directory.path()).exists());
    }
}
