//! Pictures of domains (BIMI): how they are fetched, whom to believe about them, and how long they are kept.

use std::{path::PathBuf, time::Duration};

use crate::{
    Config,
    notation::{FilePath, List, Size, Time, Whole, YesNo},
    reader::Reader,
    schema::{choice, section},
};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const DAY: u64 = 24 * 60 * MINUTE;

choice! {
    /// What is done for the pictures of authors' domains (BIMI).
    pub enum BimiUse {
        /// nothing
        Off = "off",
        /// the domain's record is looked up, and `BIMI-Location` says what it names; whoever shows it has to judge it himself
        Record = "record",
        /// the picture is fetched and judged, and written into the message; its certificate counts where there is one
        Indicator = "indicator",
        /// likewise, and only pictures with a certificate are looked at
        Certificate = "certificate",
    }
}

section! {
    /// Pictures of domains that readers show beside mail (BIMI), where `authentication.bimi` asks for them. A core does not wait for a web
    /// server: a picture that is not known yet is fetched, and the message that asked for it goes without (`bimi=temperror`). What was
    /// fetched is kept in memory until a restart.
    pub struct Bimi {
        /// Files of the authorities that are believed about whose picture something is, in PEM: those of the authorities that issue mark
        /// certificates (VMC and CMC). There are none built in. Empty: certificates are not looked at.
        authorities: Vec<PathBuf> [List<FilePath>] = Vec::new();
        /// How long a web server may take for one of the two files.
        timeout: Duration [Time<{ SECOND }, { 300 * SECOND }>] = Duration::from_secs(10);
        /// The largest picture, unpacked. As base64 in the message it takes a third more.
        size_max: u64 [Size<1024, { 256 << 10 }>] = 32 << 10;
        /// How old a picture may be before it is fetched anew; until that has worked out, it may be as old again. A certificate that ends
        /// before ends it.
        keep: Duration [Time<{ MINUTE }, { 90 * DAY }>] = Duration::from_secs(86_400);
        /// After what was not as it should be, nobody tries again for so long.
        retry: Duration [Time<{ SECOND }, { 30 * DAY }>] = Duration::from_secs(3_600);
        /// Pictures, and failures to get one, that are kept at once. What is not asked for longest goes first.
        kept_max: u32 [Whole<10, 1_000_000>] = 10_000;
        /// Memory for all of them.
        memory_max: u64 [Size<{ 1 << 20 }, { 64 << 30 }>] = 64 << 20;
        /// Whether web servers at private and loopback addresses, and at other ports than 443, are asked. The records of strangers say
        /// who is asked: this is for trials.
        private_servers: bool [YesNo] = false;
    }
}

impl Config {
    /// Certificates cannot be asked for where nobody is believed about them.
    pub(crate) fn check_bimi(&self, reader: &mut Reader<'_>) {
        if !self.bimi.authorities.is_empty() {
            return;
        }
        let doors = self.listeners.iter().map(|listener| {
            let key = format!("listener.{}.authentication", listener.name.to_ascii_lowercase());
            (key, &listener.authentication)
        });
        for (key, rules) in doors.chain([("authentication".to_owned(), &self.authentication)]) {
            if rules.bimi == BimiUse::Certificate {
                reader.conflict(
                    &[&format!("{key}.bimi"), "authentication.bimi"],
                    "\"certificate\" takes authorities whose word counts, and `bimi.authorities` names none"
                        .to_owned(),
                    "name their files in `bimi.authorities`, or write \"indicator\"",
                );
                return;
            }
        }
    }
}

#[cfg(test)]
mod test {
    use crate::{Config, Source};

    #[test]
    fn certificates_take_somebody_who_is_believed() {
        let read =
            |text: &str| match Config::from_sources(&[Source { file: "a.toml".into(), text: text.into() }]) {
                Ok(_) => String::new(),
                Err(errors) => errors.iter().map(ToString::to_string).collect(),
            };
        let listener = "[[listener]]\nname = \"smtp\"\naddress = [\"127.0.0.1:25\"]\ntls = \"none\"\n";
        let asks = &format!("[authentication]\nbimi = \"certificate\"\n{listener}");
        let error = read(asks);
        assert!(error.contains("a.toml:2") && error.contains("bimi.authorities"), "{error}");
        assert_eq!(read(&format!("{asks}[bimi]\nauthorities = [\"m.pem\"]\n")), "");
        let error = read(&format!("{listener}authentication.bimi = \"certificate\"\n"));
        assert!(error.contains("a.toml:5") && error.contains("bimi.authorities"), "{error}");
    }
}
