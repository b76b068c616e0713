//! Reports of others that come to us by mail and HTTPS: at which addresses, about whom, and how much of them is kept.

use std::{net::SocketAddr, time::Duration};

use mail::{Address, Domain};

use crate::{
    Config, DomainPattern,
    notation::{List, Literal, Maybe, Size, Time, Whole, Word, YesNo},
    reader::Reader,
    schema::{choice, section},
};

const DAY: u64 = 24 * 3_600 * 1_000;

choice! {
    /// Which mail to addresses for reports goes on to somebody.
    pub enum ForwardedReports {
        /// what is no report, or none that could be read or is wanted
        Unread = "unread",
        /// all of it
        All = "all",
    }
}

section! {
    /// Reports that others send us: on mail that bore the names of our domains (DMARC aggregate reports, RFC 9990
    /// and 7489), on TLS with our hosts (RFC 8460), and on single messages that failed (RFC 6591, 9991). They are
    /// read, kept and put together; `ringpost reports` shows them. See reports.md.
    pub struct ReportsIn {
        /// The addresses that they come to: those in the `rua=` and `ruf=` of your records, such as
        /// "dmarc@example.org". Mail to them is taken from anybody, is for nobody else, and is never sent back.
        /// Empty: there are none.
        addresses: Vec<Address> [List<Literal>] = Vec::new();
        /// About which domains reports are kept: "example.org", "*.example.org". Anybody can write a report about
        /// anything: what is about others is kept as mail that is none. Empty: about any.
        domains: Vec<DomainPattern> [List<Literal>] = Vec::new();
        /// To whom a copy of such mail goes as well. Empty: to nobody; it is kept with the reports, and can be
        /// looked at there.
        forward: Option<Address> [Maybe<Literal>] = None;
        /// Which of it does.
        forwarded: ForwardedReports [Word] = ForwardedReports::Unread;
        /// How long they are kept, counted from the end of what they are about.
        keep: Duration [Time<{ DAY }, { 3650 * DAY }>] = Duration::from_secs(400 * 86_400);
        /// Disk for all of them, packed. When there is more, the oldest goes of whoever has sent most.
        disk_max: u64 [Size<{ 1 << 20 }, { 1 << 40 }>] = 256 << 20;
        /// How many are kept at most, likewise. Each is a file.
        reports_max: u32 [Whole<100, 10_000_000>] = 100_000;
        /// Mail that is larger is no report.
        mail_max: u64 [Size<{ 64 << 10 }, { 256 << 20 }>] = 16 << 20;
        /// What is packed in it is no report when it has more octets than that unpacked. Two are read at a time, each
        /// in up to six times that memory, if somebody wants to waste it.
        expanded_max: u64 [Size<{ 64 << 10 }, { 1 << 30 }>] = 32 << 20;
        /// Rows of a report that are kept one by one; what is beyond is counted.
        rows_max: u32 [Whole<100, 10_000_000>] = 100_000;
        /// Whether reports on TLS are taken by HTTPS as well (RFC 8460 §3), at /v1/tlsrpt: `rua=https://…/v1/tlsrpt`.
        /// Anybody may post there, and nothing proves who it is: say `domains`.
        https: bool [YesNo] = false;
        /// Posts in a second, all together. More get 429, and come again.
        posts_max: u32 [Whole<1, 1_000_000>] = 10;
        /// Where they are taken, and nothing else is answered. HTTP without TLS: put it behind something that has it.
        /// They are taken on `http.address` and `http.mail-address` anyway.
        http_address: Vec<SocketAddr> [List<Literal>; Restart] = Vec::new();
    }
}

impl Config {
    pub(crate) fn check_reports_in(&self, reader: &mut Reader<'_>) {
        let ReportsIn { addresses, forward, .. } = &self.reports_in;
        let same = |one: &Address, other: &Address| one.as_str().eq_ignore_ascii_case(other.as_str());
        if let Some(forward) =
            forward.as_ref().filter(|forward| addresses.iter().any(|one| same(one, forward)))
        {
            let problem =
                format!("{forward} is one of the addresses itself: its mail would go round for ever");
            let keys = ["reports-in.forward", "reports-in.addresses"];
            reader.conflict(&keys, problem, "name somebody who reads mail");
        }
        let is_within = |domain: &Option<Domain>| {
            let domain = domain.as_ref()?;
            addresses.iter().find(|address| address.domain() == *domain)
        };
        for (key, domain) in [("bounces.domain", &self.bounces.domain), ("srs.domain", &self.srs.domain)] {
            if let Some(address) = is_within(domain) {
                let problem = format!("{address} is of `{key}`, which is for nothing else");
                reader.conflict(&["reports-in.addresses", key], problem, "take an address of another domain");
            }
        }
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::Source;

    const LEAST: &str = "[[listener]]\nname = \"a\"\naddress = [\"127.0.0.1:0\"]\ntls = \"none\"\n";

    fn parse(more: &str) -> Result<Config, Vec<String>> {
        let source = Source { file: "c.toml".into(), text: format!("{LEAST}{more}") };
        Config::from_sources(&[source]).map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn addresses_are_checked() {
        let config = parse(
            "[reports-in]\naddresses = [\"dmarc@example.org\"]\ndomains = [\"*.example.org\"]\nforward = \"ann@example.org\"\n",
        )
        .unwrap();
        assert_eq!(config.reports_in.addresses.len(), 1);
        assert_eq!(config.warnings(2).iter().filter(|one| one.key == "reports-in.addresses").count(), 0);
        let unproven =
            parse("[authentication]\nverify = false\n[reports-in]\naddresses = [\"dmarc@example.org\"]\n");
        let warnings = unproven.unwrap().warnings(2);
        assert!(warnings.iter().any(|one| one.key == "reports-in.addresses"), "{warnings:?}");
        let wrong = |more: &str, key: &str| {
            let errors = parse(more).unwrap_err();
            assert!(errors.iter().any(|error| error.contains(key)), "{errors:?}");
        };
        wrong("[reports-in]\naddresses = [\"dmarc\"]\n", "reports-in.addresses");
        let round = "[reports-in]\naddresses = [\"dmarc@example.org\"]\nforward = \"DMARC@example.org\"\n";
        wrong(round, "would go round for ever");
        let bounces =
            "[bounces]\ndomain = \"b.example.org\"\n[reports-in]\naddresses = [\"dmarc@b.example.org\"]\n";
        wrong(bounces, "which is for nothing else");
        let srs = "[srs]\ndomain = \"f.example.org\"\n[reports-in]\naddresses = [\"dmarc@f.example.org\"]\n";
        wrong(srs, "which is for nothing else");
        wrong("[reports-in]\ndisk-max = \"1KiB\"\n", "reports-in.disk-max");
    }
}
