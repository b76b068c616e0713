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
