//! What strangers have done is remembered for a while.

use std::{path::PathBuf, time::Duration};

use crate::{
    notation::{FilePath, Maybe, Time, Whole, Word},
    schema::{choice, section},
};

const HOUR: u64 = 3_600 * 1_000;

choice! {
    /// What is done with what is known of strangers' deeds.
    pub enum ReputationUse {
        /// nothing, and nothing is learned
        Off = "off",
        /// it is learned, and the log says what it would weigh
        Watch = "watch",
        /// it is learned, and is one more weight in the sum of `[strangers]`
        Score = "score",
    }
}

section! {
    /// What strangers have done, over all listeners of kind "smtp": accepted mail speaks for a client's address and network, for a
    /// sender and his domain (where SPF passes), and for an author's domain (where DMARC passes); being on a list of the DNS, mail that
    /// is not from whom it says, recipients that do not exist, and mail that next hops refuse as spam speak against the address and the network. It fades, and
    /// `ringpost reputation` shows what it is made of. See strangers.md.
    pub struct Reputation {
        /// What is done with it.
        mode: ReputationUse [Word] = ReputationUse::Off;
        /// After so long, half of it is left.
        half_life: Duration [Time<{ HOUR }, { 366 * 24 * HOUR }>] = Duration::from_secs(7 * 86_400);
        /// So many deeds have to be left before they weigh anything; an entry on a list and a bounce count as two.
        sample: u32 [Whole<1, 4000>] = 20;
        /// What it weighs at most, against a stranger or for it: where all that was done was bad, or all of it good.
        weight_max: u32 [Whole<1, 1000>] = 4;
        /// A database of autonomous systems, in the format of MaxMind (GeoLite2-ASN, DB-IP ASN, IPinfo): with it they have a reputation, too,
        /// as networks have. It is read whole, and anew when it changes (`tls.watch-interval`). Empty: there is none.
        asn_database: Option<PathBuf> [Maybe<FilePath>] = None;
        /// What that of an autonomous system weighs at most: it stands for very many who have nothing else in common.
        asn_weight_max: u32 [Whole<0, 1000>] = 2;
        /// Addresses, networks, domains and senders that are remembered, some 40 bytes each. When there are more, those go first of whom
        /// least is left.
        entries_max: u64 [Whole<1024, 1_000_000_000>] = 1_000_000;
    }
}
