//! `ringpost key`: an API key, and the lines of the configuration that make it known.

use std::io::{self, Write as _};

use anyhow::Context;
use aws_lc_rs::rand;
use clap::Args;
use config::{ApiKey, DomainPattern};
use mail::{Address, Domain};

#[derive(Args)]
pub(crate) struct KeyArguments {
    /// What it is called in the configuration and in logs.
    name: String,
    /// A domain it may send from, as often as needed: "example.org", "*.example.org" for what is below it, "*" for all.
    #[arg(long, value_name = "DOMAIN", value_parser = domain_pattern)]
    domain: Vec<DomainPattern>,
    /// An address it may send from, as often as needed.
    #[arg(long, value_name = "ADDRESS", value_parser = address, required_unless_present = "domain")]
    address: Vec<Address>,
}

pub(crate) fn run(arguments: &KeyArguments) -> anyhow::Result<()> {
    let mut random = [0; 32];
    rand::fill(&mut random).ok().context("the system gives no random octets")?;
    let key = inject::key_from(&random);
    let entry = ApiKey {
        name: arguments.name.clone(),
        hash: Some(inject::hash_of(&key)),
        domains: arguments.domain.clone(),
        addresses: arguments.address.clone(),
        ..ApiKey::default()
    };
    // The key alone on stderr, so that stdout can be appended to a file of conf.d.
    eprintln!("The key, for its owner; it cannot be shown again:\n\n  {key}\n");
    eprintln!("For the configuration, such as conf.d/api-keys.toml; then `systemctl reload ringpost`:\n");
    io::stdout().lock().write_all(entry.lines().as_bytes())?;
    Ok(())
}

fn domain_pattern(text: &str) -> Result<DomainPattern, String> {
    let domain = |text: &str| Domain::parse(text).map_err(|error| error.to_string());
    match text.strip_prefix("*.") {
        _ if text == "*" => Ok(DomainPattern::Any),
        Some(below) => domain(below).map(DomainPattern::Below),
        None => domain(text).map(DomainPattern::Exact),
    }
}

fn address(text: &str) -> Result<Address, String> {
    Address::parse(text.as_bytes()).map_err(|error| error.to_string())
}
