//! Keys for DKIM that are renewed by themselves, and who publishes them.

use std::{collections::HashMap, fmt, net::SocketAddr, path::PathBuf, time::Duration};

use mail::{Domain, Span};

use crate::{
    Config, Dkim, EndpointUrl, ListenerKind,
    notation::{FilePath, Literal, Maybe, Spelled, Text, Time, Word},
    reader::Reader,
    schema::{Entry, choice, section},
};

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;

choice! {
    /// What a key for DKIM is of.
    pub enum DkimAlgorithm {
        /// RSA with 2048 bits: everybody verifies it
        Rsa2048 = "rsa2048",
        /// RSA with 4096 bits
        Rsa4096 = "rsa4096",
        /// Ed25519 (RFC 8463), beside a key of RSA: not everybody verifies it
        Ed25519 = "ed25519",
    }
}

choice! {
    /// How a zone is changed.
    pub enum DnsProviderKind {
        /// by updates (RFC 2136), signed (TSIG, RFC 8945): BIND, Knot, PowerDNS and others
        Rfc2136 = "rfc2136",
        /// by the API of Cloudflare
        Cloudflare = "cloudflare",
    }
}

choice! {
    /// The hash of a signature under an update.
    pub enum TsigHash {
        /// HMAC-SHA-256
        HmacSha256 = "hmac-sha256",
        /// HMAC-SHA-384
        HmacSha384 = "hmac-sha384",
        /// HMAC-SHA-512
        HmacSha512 = "hmac-sha512",
    }
}

section! {
    /// How the keys of `[[dkim]]` with `rotate` are renewed: a new key is made and published, the DNS shows it for a while, mail is signed
    /// with it, and the old record goes when no mail is under way any more that was signed with it. `ringpost dkim status` says how far
    /// each is (docs/authentication.md).
    pub struct DkimRotation {
        /// Where the private keys lie, readable for the server's user alone. Empty: `dkim` in the data directory. Another has to be there and
        /// to belong to the server's user, and a unit has to let it be written to (`ReadWritePaths=`).
        directory: Option<PathBuf> [Maybe<FilePath>; Restart] = None;
        /// How often the DNS is asked for the records of all keys.
        interval: Duration [Time<{ SECOND }, { DAY }>] = Duration::from_secs(300);
        /// So long the DNS must have shown the record of a key before mail is signed with it; longer where the zone says that others may
        /// remember for longer that there was none (RFC 2308).
        settle: Duration [Time<{ SECOND }, { 30 * DAY }>] = Duration::from_secs(3_600);
        /// So long the record of a key stays after the last mail was signed with it: longer than mail waits in queues, ours
        /// (`queue.give-up`, and before that `hold-max` of listeners, where clients may have it held back) and others'.
        retire: Duration [Time<{ SECOND }, { 366 * DAY }>] = Duration::from_secs(14 * 86_400);
        /// For how long a record says after that that its key is revoked, with an empty `p=`, before it goes. Empty: it goes at once.
        revoke: Option<Duration> [Maybe<Time<{ SECOND }, { 366 * DAY }>>] = None;
        /// When a record that was published, or was to be by hand, has not been seen in the DNS for so long, the event
        /// `dkim_record_overdue` says so, once a day; later where the zone says that others may remember for longer that there was none.
        overdue: Duration [Time<{ SECOND }, { 366 * DAY }>] = Duration::from_secs(6 * 3_600);
    }
}

section! {
    /// Who changes a zone for us, for `[[dkim]]` with `publish`. Secrets are in files, read each time: a change takes no reload.
    pub struct DnsProvider {
        /// By which others name it; in logs too.
        name: String [Text] = String::new();
        /// How the zone is changed.
        kind: DnsProviderKind [Word] = DnsProviderKind::Rfc2136;
        /// The zone, such as "example.org", or "_domainkey.example.org" where that is one of its own. Empty: the domain of the key.
        zone: Option<ZoneName> [Maybe<Literal>] = None;
        /// With "rfc2136": the primary server of the zone. It is asked by TCP.
        server: Option<SocketAddr> [Maybe<Literal>] = None;
        /// With "rfc2136": the name of the secret, as the server has it. Empty: updates are not signed, which a server should take from the
        /// loopback alone.
        tsig_name: Option<Domain> [Maybe<Literal>] = None;
        /// With "rfc2136": the hash, as the server has it.
        tsig_algorithm: TsigHash [Word] = TsigHash::HmacSha256;
        /// The file of the secret, one line: of TSIG in base64, or the token of an API. Others may not read it (`chmod 600`, or 640 for a
        /// group of its own), nor its group write it; else it is not used.
        secret_file: Option<PathBuf> [Maybe<FilePath>] = None;
        /// With "cloudflare": where the API is.
        url: EndpointUrl [Literal] = cloudflare();
        /// How long others may remember a record (TTL).
        ttl: Duration [Time<{ SECOND }, { DAY }>] = Duration::from_secs(300);
        /// How long a change may take.
        timeout: Duration [Time<{ SECOND }, { 600 * SECOND }>] = Duration::from_secs(30);
    }
}

fn cloudflare() -> EndpointUrl {
    EndpointUrl::parse("https://api.cloudflare.com/client/v4").expect("our own text")
}

/// The name of a zone, in lower case. Other than that of a host it may have `_` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneName(Box<str>);

impl ZoneName {
    /// As it is asked for.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Spelled for ZoneName {
    const KIND: &'static str = "zone";
    const EXPECTED: &'static str = "the name of a zone, such as \"example.org\"";

    fn parse(text: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(plain);
        if text.len() <= 253 && text.split('.').all(is_label) {
            Ok(Self(text.to_ascii_lowercase().into()))
        } else {
            Err("write labels of letters, digits, `-` and `_`, with dots between them".into())
        }
    }

    fn spell(&self) -> String {
        self.0.to_string()
    }
}

impl Entry for DnsProvider {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn sample() -> Self {
        Self {
            name: "ns1".into(),
            server: Some(SocketAddr::from(([192, 0, 2, 53], 53))),
            tsig_name: Domain::parse("ringpost.example.org").ok(),
            secret_file: Some("ns1.secret".into()),
            ..Self::default()
        }
    }
}

impl Dkim {
    /// The selector of a key that is begun on this day (20261129), as the how manieth.
    pub fn selector_of(&self, algorithm: DkimAlgorithm, day: u32, number: u32) -> String {
        let date = format!("{day:08}");
        let name = self.selector.replace("{date}", &date).replace("{algorithm}", &algorithm.to_string());
        if number > 1 { format!("{name}-{number}") } else { name }
    }
}

impl Config {
    /// The provider of this name.
    pub fn dns_provider(&self, name: &str) -> Option<&DnsProvider> {
        self.dns_providers.iter().find(|provider| provider.name.eq_ignore_ascii_case(name))
    }

    pub(crate) fn check_rotation(&self, reader: &mut Reader<'_>) {
        let mut patterns = HashMap::new();
        for dkim in &self.dkim {
            let key = format!("dkim.{}", dkim.name.to_ascii_lowercase());
            let at = |name: &str| format!("{key}.{name}");
            if dkim.rotate.is_none() {
                if dkim.key.as_os_str().is_empty() {
                    let remedy =
                        "name the file of the private key; or have keys made and renewed: rotate = \"90d\"";
                    reader.missing(&key, "key = \"key.pem\"", remedy);
                }
                if dkim.publish.is_some() {
                    let problem = "a key of a file is published by hand".into();
                    reader.conflict(&[&at("publish")], problem, "set `rotate`, or leave it out");
                }
                continue;
            }
            if !dkim.key.as_os_str().is_empty() {
                let problem = "keys are made where there is `rotate`, and this is one of yours".into();
                let remedy = "leave out `rotate`; or keep this entry until `ringpost dkim status` says that the keys of a new \
                              one are signing";
                reader.conflict(&[&at("key"), &at("rotate")], problem, remedy);
            }
            if dkim.algorithms.is_empty() {
                let remedy = "say what its keys are of, or leave it out";
                reader.missing(&key, "algorithms = [\"rsa2048\"]", remedy);
            }
            for (place, algorithm) in dkim.algorithms.iter().enumerate() {
                if dkim.algorithms[..place].contains(algorithm) {
                    let problem = format!("\"{algorithm}\" is named twice");
                    reader.conflict(&[&at("algorithms")], problem, "name each once");
                }
            }
            let name = dkim.selector_of(DkimAlgorithm::Rsa2048, 20_261_129, 10_000);
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            let is_label = |label: &str| !label.is_empty() && label.len() <= 63;
            if !dkim.selector.contains("{date}") {
                let problem = format!("all keys would be published at \"{}\"", dkim.selector);
                reader.conflict(&[&at("selector")], problem, "write \"rp-{date}-{algorithm}\"");
            } else if !name.bytes().all(plain) || !name.split('.').all(is_label) {
                let problem = format!("\"{name}\" would be no part of a domain name");
                reader.conflict(&[&at("selector")], problem, "write \"rp-{date}-{algorithm}\"");
            }
            if let (Some(domain), Some(other)) =
                (&dkim.domain, patterns.insert((dkim.domain.clone(), dkim.selector.clone()), key.clone()))
            {
                let problem = format!("`{other}` has keys of {domain} at the same selectors");
                reader.conflict(&[&at("selector")], problem, "give one of them another pattern");
            }
            match dkim.publish.as_deref().map(|name| (name, self.dns_provider(name))) {
                Some((name, None)) => {
                    let problem = format!("there is no `[[dns-provider]]` with the name {name}");
                    reader.conflict(&[&at("publish")], problem, "name one that there is");
                }
                Some((name, Some(provider))) => {
                    if let (Some(zone), Some(domain)) = (&provider.zone, &dkim.domain)
                        && !format!("._domainkey.{domain}").ends_with(&format!(".{zone}"))
                    {
                        let problem = format!("{domain} is not in {zone}, which is the zone of {name}");
                        reader.conflict(&[&at("publish")], problem, "name the provider of its zone");
                    }
                }
                None => {}
            }
        }
        for provider in &self.dns_providers {
            let key = format!("dns-provider.{}", provider.name.to_ascii_lowercase());
            match provider.kind {
                DnsProviderKind::Rfc2136 => {
                    if provider.server.is_none() {
                        reader.missing(
                            &key,
                            "server = \"192.0.2.53:53\"",
                            "say where the server of the zone is",
                        );
                    }
                    if provider.tsig_name.is_some() != provider.secret_file.is_some() {
                        let problem = "a secret has a name and a file".into();
                        let keys = [format!("{key}.tsig-name"), format!("{key}.secret-file")];
                        reader.conflict(&keys.each_ref().map(|key| &**key), problem, "give both, or none");
                    }
                }
                DnsProviderKind::Cloudflare => {
                    if provider.secret_file.is_none() {
                        let remedy = "name the file of a token that may edit the zone";
                        reader.missing(&key, "secret-file = \"cloudflare.token\"", remedy);
                    }
                    if !provider.url.secure && !provider.url.is_loopback() {
                        let problem = "the token would go through the net in clear".into();
                        reader.conflict(&[&format!("{key}.url")], problem, "write https://");
                    }
                }
            }
        }
    }

    /// What is less than it should be, where keys are renewed.
    pub(crate) fn rotation_warnings(&self) -> Vec<(String, String)> {
        let mut warnings = Vec::new();
        let rotation = &self.dkim_rotation;
        let Some(every) = self.dkim.iter().filter_map(|dkim| dkim.rotate).min() else { return warnings };
        // It is signed when it is taken, and may be held back before it waits.
        let held = self.listeners.iter().filter(|listener| {
            listener.kind == ListenerKind::Submission && listener.extensions.futurerelease
        });
        let (hold, listener) = held
            .map(|listener| (listener.limits.hold_max, Some(listener.name.as_str())))
            .max()
            .unwrap_or_default();
        if rotation.retire < self.queue.give_up + hold {
            let held = listener.map(|name| {
                let key = format!("listener.{}.limits.hold-max", name.to_ascii_lowercase());
                format!(", after it was held back for up to {} (`{key}`)", Span(hold))
            });
            let text = format!(
                "mail waits up to {} in the queue (`queue.give-up`){}, and cannot be verified when the record of its key is gone \
                 after {}",
                Span(self.queue.give_up),
                held.unwrap_or_default(),
                Span(rotation.retire)
            );
            warnings.push(("dkim-rotation.retire".to_owned(), text));
        }
        // Of one rotation there are at most 16.
        let stays = rotation.retire + rotation.revoke.unwrap_or_default();
        if stays > every * 12 {
            let text = format!(
                "keys are renewed each {}, and each stays for {} after that: more than a dozen would be there at once, and no \
                 more are made",
                Span(every),
                Span(stays)
            );
            warnings.push(("dkim-rotation.retire".to_owned(), text));
        }
        warnings
    }
}

#[cfg(test)]
mod test {
    use super::*;
    use crate::Source;

    const REST: &str = "[[listener]]\nname = \"smtp\"\naddress = [\"127.0.0.1:25\"]\ntls = \"none\"\n";

    fn read(dkim: &str, more: &str) -> Result<Config, String> {
        let text = format!("[[dkim]]\nname = \"d\"\ndomain = \"example.org\"\n{dkim}\n{more}\n{REST}");
        Config::from_sources(&[Source { file: "/etc/ringpost/a.toml".into(), text }])
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    const PROVIDER: &str = "[[dns-provider]]\nname = \"ns\"\nserver = \"192.0.2.53:53\"";

    #[test]
    fn rotations_good_and_bad() {
        let good = "selector = \"rp-{date}-{algorithm}\"\nrotate = \"90d\"\nalgorithms = [\"rsa2048\", \"ed25519\"]\npublish = \"NS\"";
        let config = read(good, PROVIDER).unwrap();
        // What is not named is no path, and the folder of the configuration is none of them.
        assert!(config.paths().iter().all(|path| path.file_name().is_some() && !path.ends_with("ringpost")));
        let of = |day, number| config.dkim[0].selector_of(DkimAlgorithm::Ed25519, day, number);
        assert_eq!(
            (of(20_261_129, 1), of(20_261_129, 12)),
            ("rp-20261129-ed25519".into(), "rp-20261129-ed25519-12".into())
        );
        assert!(config.dns_provider("Ns").is_some());
        // What is delegated is often no more than that.
        for zone in ["example.org", "Org", "_domainkey.Example.org"] {
            read(good, &format!("{PROVIDER}\nzone = \"{zone}\"")).unwrap();
        }
        for (dkim, more, said) in [
            ("selector = \"s\"", "", "have keys made and renewed"),
            (
                "selector = \"s\"\nkey = \"k\"\npublish = \"ns\"",
                PROVIDER,
                "a key of a file is published by hand",
            ),
            ("selector = \"s-{date}\"\nkey = \"k\"\nrotate = \"90d\"", "", "this is one of yours"),
            ("selector = \"s\"\nrotate = \"90d\"", "", "all keys would be published at \"s\""),
            ("selector = \"{date} x\"\nrotate = \"90d\"", "", "would be no part of a domain name"),
            ("selector = \"{date}..x\"\nrotate = \"90d\"", "", "would be no part of a domain name"),
            ("selector = \"{date}\"\nrotate = \"90d\"\nalgorithms = []", "", "say what its keys are of"),
            (
                "selector = \"{date}\"\nrotate = \"90d\"\nalgorithms = [\"rsa2048\", \"rsa2048\"]",
                "",
                "is named twice",
            ),
            ("selector = \"{date}\"\nrotate = \"90d\"\nalgorithms = [\"dsa\"]", "", "\"rsa4096\""),
            (
                "selector = \"{date}\"\nrotate = \"90d\"\npublish = \"other\"",
                PROVIDER,
                "there is no `[[dns-provider]]`",
            ),
            (
                "selector = \"{date}\"\nrotate = \"90d\"\npublish = \"ns\"",
                "[[dns-provider]]\nname = \"ns\"\nserver = \"192.0.2.53:53\"\nzone = \"example.com\"",
                "is not in example.com",
            ),
            (
                "selector = \"{date}\"\nrotate = \"90d\"\npublish = \"ns\"",
                "[[dns-provider]]\nname = \"ns\"\nserver = \"192.0.2.53:53\"\nzone = \"_domainkey.mail.example.org\"",
                "is not in _domainkey.mail.example.org",
            ),
            (
                "selector = \"{date}\"\nrotate = \"90d\"",
                "[[dns-provider]]\nname = \"ns\"",
                "say where the server of the zone is",
            ),
            (
                "selector = \"{date}\"\nrotate = \"90d\"",
                "[[dns-provider]]\nname = \"ns\"\nserver = \"192.0.2.53:53\"\ntsig-name = \"k\"",
                "a secret has a name and a file",
            ),
            (
                "selector = \"{date}\"\nrotate = \"90d\"",
                "[[dns-provider]]\nname = \"cf\"\nkind = \"cloudflare\"",
                "a token that may edit the zone",
            ),
            (
                "selector = \"{date}\"\nrotate = \"90d\"",
                "[[dns-provider]]\nname = \"cf\"\nkind = \"cloudflare\"\nsecret-file = \"t\"\nurl = \"http://192.0.2.1/\"",
                "in clear",
            ),
            (
                "selector = \"{date}\"\nrotate = \"90d\"",
                "[[dkim]]\nname = \"e\"\ndomain = \"example.org\"\nselector = \"{date}\"\nrotate = \"90d\"",
                "at the same selectors",
            ),
        ] {
            let errors = read(dkim, more).expect_err(said);
            assert!(errors.contains(said) && errors.lines().count() <= 2, "{said}: {errors}");
        }
    }

    #[test]
    fn records_stay_as_long_as_mail_waits() {
        let warned = |more: &str| {
            let config = read("selector = \"{date}\"\nrotate = \"90d\"", more).unwrap();
            config.rotation_warnings().len()
        };
        assert_eq!(warned(""), 0);
        assert_eq!(warned("[dkim-rotation]\nretire = \"1d\""), 1);
        // Who may have mail held back for a week has it signed a week before it goes.
        let submission = "[[listener]]\nname = \"sub\"\nkind = \"submission\"\naddress = [\"127.0.0.1:587\"]\ntls = \"none\"\n";
        assert_eq!(warned(submission), 0);
        let week = |more: &str| format!("[dkim-rotation]\nretire = \"7d\"\n{submission}{more}");
        assert_eq!(warned(&week("")), 1);
        assert_eq!(warned(&week("[listener.extensions]\nfuturerelease = false\n")), 0);
        assert_eq!(warned(&week("[listener.limits]\nhold-max = \"1d\"\n")), 0);
        assert_eq!(warned("[dkim-rotation]\nretire = \"366d\"\nrevoke = \"366d\""), 0);
        let often = read("selector = \"{date}\"\nrotate = \"1d\"", "").unwrap();
        assert_eq!(often.rotation_warnings().len(), 1, "a dozen keys at once");
    }
}
