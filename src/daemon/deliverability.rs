//! What is looked at of a domain: made from the configuration, for the server and for `ringpost deliverability`.

use std::{
    io::{self, Write as _},
    net::IpAddr,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use config::{Config, DomainPattern, Secret, UnsubscribeUse};
use deliverability::{EgressAddress, Plan, Severity, UnsubscribeLinks, is_open};
use dns::{CodePattern, Name};
use mail::{Address, Domain, Timestamp};
use pool::{Asking, Checking, Stub};
use tenancy::{Links, Scope};
use trust::{DnsList, Limits, ListSubject, Signer};

use crate::{
    ConfigArgument, host, open,
    reload::Ours,
    signers::{self, Signers},
};

#[derive(Args)]
pub(crate) struct DeliverabilityArguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// The domain, as it stands in the addresses of authors.
    #[arg(value_parser = domain)]
    domain: Name,
    /// Answer in JSON: one object.
    #[arg(long)]
    json: bool,
    /// Do not connect to the domain's mail hosts.
    #[arg(long)]
    no_connect: bool,
    /// End with 3 for warnings, too.
    #[arg(long)]
    strict: bool,
}

/// Look-ups of one domain: so many in any case, and so many more for each address.
const LOOKUPS: usize = 400;
const LOOKUPS_OF_ADDRESS: usize = 40;
/// More addresses than these are not looked at.
const ADDRESSES_MAX: usize = 200;
/// For all look-ups of a domain, and what is fetched between them.
const TIME_MAX: Duration = Duration::from_secs(90);

/// How it ends when something is found that is bad enough.
const FOUND: u8 = 3;

pub(crate) fn run(arguments: &DeliverabilityArguments) -> anyhow::Result<ExitCode> {
    let loaded = open::loaded(&arguments.config.config)?;
    let mut config = loaded.config.clone();
    config.deliverability.connect &= !arguments.no_connect;
    let ours = Ours::new(&config);
    let checking = ours.checking_alone(Arc::new(config.clone())).map_err(|error| error.placed(&loaded))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start a thread")?;
    let at = Timestamp(ring::clock::unix_micros());
    let report = runtime.block_on(async {
        let asking = Asking::Own(Box::new(Stub::new(shard::resolver(&config.dns))));
        pool::check_domain(&checking, &arguments.domain, asking, at).await
    });
    let mut out = io::stdout().lock();
    if arguments.json {
        serde_json::to_writer(&mut out, &report)?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    let bad = if arguments.strict { Severity::Warn } else { Severity::Fail };
    Ok(if report.worst() >= bad { ExitCode::from(FOUND) } else { ExitCode::SUCCESS })
}

fn domain(text: &str) -> Result<Name, String> {
    let parsed = Domain::parse(text).map_err(|error| error.to_string())?;
    if parsed.literal().is_some() {
        return Err("that is an address, and no domain".to_owned());
    }
    Name::parse(text).map_err(|error| error.to_string())
}

/// What there is to say of any domain.
pub(crate) fn plans(config: Arc<Config>, signers: Signers) -> Arc<dyn Fn(&Name) -> Plan + Send + Sync> {
    Arc::new(move |domain| plan(&config, &signers, domain))
}

/// The domains that are looked at by and by.
pub(crate) fn domains(config: &Config) -> Vec<Name> {
    config.deliverability.domains.iter().filter_map(|domain| Name::parse(domain.as_str()).ok()).collect()
}

fn plan(config: &Config, signers: &[Box<[Signer]>], domain: &Name) -> Plan {
    let addresses = addresses(config);
    let bounces = config.bounces.domain.as_ref().filter(|_| config.routes.iter().any(|route| route.verp));
    let forwarded = config.srs.domain.as_ref().filter(|_| config.routes.iter().any(|route| route.srs));
    let reverse_paths = bounces.into_iter().chain(forwarded);
    let signing = config.dkim.iter().zip(signers).filter(|(dkim, _)| signs(dkim, domain));
    let own = config.dnsbls.iter().filter_map(own_list);
    let lists = own.chain(config.dns_lists.iter().filter_map(shard::dns_list));
    let lists: Vec<DnsList> = lists.collect();
    let lookups_max = LOOKUPS + addresses.len() * (LOOKUPS_OF_ADDRESS + 2 * lists.len());
    Plan {
        domain: domain.clone(),
        addresses,
        reverse_paths: reverse_paths.filter_map(|path| Name::parse(path.as_str()).ok()).collect(),
        signers: signing.flat_map(|(_, signers)| signers.iter().cloned()).collect(),
        lists,
        unsubscribe: links(config, domain),
        port: config.deliverability.port,
        connects: config.deliverability.connect,
        limits: Limits { lookups_max, time_max: TIME_MAX, ..Limits::default() },
    }
}

/// Whether mail of tenants gets links, with one of the first of them as it would be in mail to postmaster.
fn links(config: &Config, domain: &Name) -> UnsubscribeLinks {
    let unsubscribe = &config.unsubscribe;
    let Some(url) = &unsubscribe.url else { return UnsubscribeLinks::Unconfigured };
    let user = config.tenants.iter().find(|tenant| tenant.unsubscribe != UnsubscribeUse::None);
    let link = user.and_then(|tenant| {
        let nobody = Address::new("postmaster", &Domain::parse(domain.as_str()).ok()?).ok()?;
        let links = Links::new(url, unsubscribe.secrets.iter().map(Secret::expose));
        links.link(&Scope::tenant(&tenant.name), &nobody)
    });
    link.map_or(UnsubscribeLinks::Unused, UnsubscribeLinks::Used)
}

/// From where mail leaves, as the world sees it, each address once.
fn addresses(config: &Config) -> Vec<EgressAddress> {
    let mut found: Vec<EgressAddress> = Vec::new();
    let hostname = config.hostname.as_str();
    let mut add = |addresses: &[IpAddr], ehlo: &str, from: String| {
        for address in addresses {
            let address = address.to_canonical();
            if found.len() < ADDRESSES_MAX && !found.iter().any(|known| known.address == address) {
                found.push(EgressAddress { address, ehlo: ehlo.to_owned(), from: from.clone() });
            }
        }
    };
    for source in &config.sources {
        let seen = if source.public_address.is_empty() { &source.address } else { &source.public_address };
        let ehlo = source.ehlo_name.as_ref().map_or(hostname, Domain::as_str);
        add(seen, ehlo, format!("the source {}", source.name));
    }
    for route in &config.routes {
        add(&route.source_address, hostname, format!("the route {}", route.name));
    }
    add(&config.deliverability.addresses, hostname, "this host".to_owned());
    if found.is_empty() {
        let open: Vec<IpAddr> = host::addresses().into_iter().filter(|own| is_open(*own)).collect();
        for address in open {
            found.push(EgressAddress { address, ehlo: hostname.to_owned(), from: "this host".to_owned() });
        }
    }
    found
}

/// Whether a key signs mail of some author of the domain.
fn signs(dkim: &config::Dkim, domain: &Name) -> bool {
    let is_it = |other: &Domain| Name::parse(other.as_str()).is_ok_and(|other| other == *domain);
    if dkim.authors.is_empty() {
        return dkim.domain.as_ref().is_some_and(is_it);
    }
    dkim.authors.iter().any(|pattern| match pattern {
        DomainPattern::Any => true,
        DomainPattern::Exact(exact) => is_it(exact),
        DomainPattern::Below(parent) => Name::parse(parent.as_str())
            .is_ok_and(|parent| parent != *domain && domain.is_within(parent.as_str())),
    })
}

/// A list that our addresses may be on.
fn own_list(list: &config::Dnsbl) -> Option<DnsList> {
    let codes = list.answers.iter().filter_map(|net| match (net.network(), net.broadcast()) {
        (IpAddr::V4(low), IpAddr::V4(high)) => {
            Some((CodePattern { low: low.octets(), high: high.octets(), bits: [0; 4] }, None))
        }
        _ => None,
    });
    Some(DnsList {
        name: list.name.as_str().into(),
        zone: Name::parse(list.zone.as_ref()?.as_str()).ok()?,
        subjects: vec![ListSubject::Ipv4, ListSubject::Ipv6],
        weight: 10,
        codes: codes.collect(),
        explains: true,
    })
}

impl Ours {
    /// How domains are looked at by a program that is no server: of all that lies in files it needs the keys and the
    /// authorities alone.
    fn checking_alone(&self, config: Arc<Config>) -> Result<Checking, crate::reload::PapersError> {
        let signers = signers::load(&self.rotation)?;
        self.checking(config, (&self.authorities()?, &self.marks()?), signers)
    }
}

#[cfg(test)]
mod test {
    use config::{Loaded, Source};

    use super::*;

    fn config(text: &str) -> Config {
        let text =
            format!("{text}[[listener]]\nname = \"l\"\naddress = [\"127.0.0.1:2525\"]\ntls = \"none\"\n");
        let source = Source { file: "ringpost.toml".into(), text };
        Loaded::from_sources(&[source]).unwrap_or_else(|errors| panic!("{errors:?}")).config
    }

    #[test]
    fn from_where_mail_leaves() {
        let config = config(
            "hostname = \"mx.example.org\"\n[deliverability]\naddresses = [\"192.0.2.9\", \"192.0.2.2\"]\n\
             [[source]]\nname = \"a\"\naddress = [\"10.0.0.1\"]\npublic-address = [\"192.0.2.1\"]\nehlo-name = \
                 \"a.example.org\"\n\
             [[source]]\nname = \"b\"\naddress = [\"192.0.2.2\", \"2001:db8::2\"]\n",
        );
        let found: Vec<_> = addresses(&config)
            .into_iter()
            .map(|own| format!("{} {} {}", own.address, own.ehlo, own.from))
            .collect();
        assert_eq!(
            found,
            [
                "192.0.2.1 a.example.org the source a",
                "192.0.2.2 mx.example.org the source b",
                "2001:db8::2 mx.example.org the source b",
                "192.0.2.9 mx.example.org this host",
            ]
        );
    }

    #[test]
    fn which_keys_are_for_a_domain() {
        let dkim = |authors: &[&str]| {
            let authors: Vec<_> = authors.iter().map(|author| format!("\"{author}\"")).collect();
            let entry = format!(
                "[[dkim]]\nname = \"k\"\ndomain = \"example.org\"\nselector = \"s\"\nkey = \"k.pem\"\nauthors = [{}]\n",
                authors.join(", ")
            );
            config(&entry).dkim.remove(0)
        };
        let signs = |authors: &[&str], domain: &str| signs(&dkim(authors), &Name::parse(domain).unwrap());
        assert!(signs(&[], "example.org") && !signs(&[], "a.example.org"));
        assert!(signs(&["*.example.org"], "a.example.org") && !signs(&["*.example.org"], "example.org"));
        assert!(!signs(&["*.example.org"], "badexample.org"));
        assert!(signs(&["*"], "example.com") && signs(&["example.net", "example.com"], "example.com"));
    }

    #[test]
    fn lists_of_our_addresses() {
        let config = config(
            "[[dnsbl]]\nname = \"b\"\nzone = \"bl.example\"\nanswers = [\"127.0.0.2/32\", \"127.0.1.0/24\"]\n",
        );
        let list = own_list(&config.dnsbls[0]).unwrap();
        let counts = |code: [u8; 4]| list.codes.iter().any(|(pattern, _)| pattern.fits(code.into()));
        assert!(counts([127, 0, 0, 2]) && counts([127, 0, 1, 77]));
        assert!(!counts([127, 0, 0, 3]) && !counts([127, 0, 2, 1]));
    }
}
