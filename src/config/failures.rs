//! Reports to domains on single messages that bore their names and failed.

use std::time::Duration;

use mail::Address;

use crate::{
    Secret,
    notation::{Literal, Maybe, Size, Time, Whole, YesNo},
    schema::section,
};

const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;

section! {
    /// Reports to domains on single messages of strangers that bore their names and did not prove it, at once, where their records ask for
    /// them by mail (`ruf=`, `fo=`; DMARC, RFC 9991). Told is who brought the message, what was found, and the fields of its header section
    /// that say how it came: local-parts of addresses are hashed (RFC 6590), names and all that was written are left out. None is written
    /// about what is a report itself, or an answer by a program.
    pub struct DmarcFailures {
        /// Whether there are any. What a domain learns of mail by others, which only bore its name, is for those who run this to weigh.
        enabled: bool [YesNo] = false;
        /// From whom they come, and whom to ask about them. They have to pass DMARC themselves: have a `[[dkim]]` for its domain. Empty:
        /// `postmaster` at `hostname`.
        contact: Option<Address> [Maybe<Literal>] = None;
        /// What local-parts are hashed with: the same person is the same word as long as it stays. Empty: a key is drawn at each start.
        redaction_key: Option<Secret> [Maybe<Literal>] = None;
        /// Whether the Subject is told, too, with the local-parts of addresses in it hashed.
        subject: bool [YesNo] = false;
        /// Of the header section so much is looked at, and shown.
        header_max: u64 [Size<1024, { 64 << 10 }>] = 16 << 10;
        /// Messages that are alike (of the same author, from the same address, that fail for the same reason) are told once in so long;
        /// the next report says how many there were (`Incidents`).
        repeat: Duration [Time<0, { DAY }>] = Duration::from_secs(3_600);
        /// Reports in all, within an hour. What is more is left out.
        hourly_max: u32 [Whole<1, 1_000_000>] = 100;
        /// Within a day (UTC).
        daily_max: u32 [Whole<1, 1_000_000>] = 1_000;
        /// Messages that bore the name of one domain and are told, within an hour.
        domain_hourly_max: u32 [Whole<1, 1_000_000>] = 10;
        /// Within a day.
        domain_daily_max: u32 [Whole<1, 1_000_000>] = 50;
        /// Reports to addresses of one domain, within an hour: one may take those about many.
        destination_hourly_max: u32 [Whole<1, 1_000_000>] = 20;
        /// Within a day.
        destination_daily_max: u32 [Whole<1, 1_000_000>] = 100;
        /// Domains, destinations and kinds of messages of which it is remembered how many there were, each. When there is no room, there is no report.
        tracked_max: u32 [Whole<1, 1_000_000>] = 10_000;
    }
}
