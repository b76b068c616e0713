//! `ringpost dkim`: a key that mail is signed with, the record to publish, and the lines of the configuration.

use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use config::Dkim;
use deliverability::Record;
use mail::Domain;
use trust::{Key, KeyKind, Signer, SignerOptions};

use crate::{ConfigArgument, open};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct DkimArguments {
    #[command(subcommand)]
    renewed: Option<Renewed>,
    #[command(flatten)]
    new: Option<NewKey>,
}

/// Keys that the server renews by itself.
#[derive(Subcommand)]
enum Renewed {
    /// Say how far the keys are that the server renews by itself: what each waits for, and what is to be published.
    #[command(after_help = "Example:\n  ringpost dkim status --config /etc/ringpost/ringpost.toml")]
    Status {
        #[command(flatten)]
        config: ConfigArgument,
        #[command(flatten)]
        status: admin::DkimStatusArgs,
    },
    /// Have a new key made before its time. It signs when the DNS has shown it for long enough, as any other.
    #[command(
        after_help = "Example:\n  ringpost dkim rotate example.org --config /etc/ringpost/ringpost.toml"
    )]
    Rotate {
        #[command(flatten)]
        config: ConfigArgument,
        #[command(flatten)]
        rotate: admin::DkimRotateArgs,
    },
}

/// A key that is kept in a file.
#[derive(Args)]
struct NewKey {
    /// The domain that signs.
    #[arg(value_parser = domain)]
    domain: Domain,
    /// Where the public key is published: at SELECTOR._domainkey.DOMAIN. A new key wants a new one.
    selector: String,
    /// The file of the private key. It is made, for its owner and group alone; a key that is there already is kept.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// What a new key is of.
    #[arg(long, value_enum, default_value_t = Kind::Rsa2048)]
    kind: Kind,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// RSA with 2048 bits: everybody verifies it
    Rsa2048,
    /// RSA with 4096 bits
    Rsa4096,
    /// Ed25519 (RFC 8463), beside a key of RSA: not everybody verifies it
    Ed25519,
}

pub(crate) fn run(arguments: &DkimArguments) -> anyhow::Result<()> {
    let out = &mut io::stdout().lock();
    let new = match arguments {
        DkimArguments { renewed: Some(Renewed::Status { config, status }), .. } => {
            return Ok(admin::dkim_status(status, &open::data_directory(&config.config)?, out)?);
        }
        DkimArguments { renewed: Some(Renewed::Rotate { config, rotate }), .. } => {
            return Ok(admin::dkim_rotate(rotate, &open::data_directory(&config.config)?, out)?);
        }
        DkimArguments { new: Some(new), .. } => new,
        DkimArguments { .. } => bail!("say for which domain: ringpost dkim DOMAIN SELECTOR --key FILE"),
    };
    let NewKey { domain, selector, key: file, kind } = new;
    let shown = file.display();
    let (pem, made) = match fs::read_to_string(file) {
        Ok(pem) => (pem, false),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let kind = match kind {
                Kind::Rsa2048 => KeyKind::Rsa2048,
                Kind::Rsa4096 => KeyKind::Rsa4096,
                Kind::Ed25519 => KeyKind::Ed25519,
            };
            (trust::new_key(kind)?, true)
        }
        Err(error) => bail!("{shown}: {error}"),
    };
    let key = Key::parse(&pem).with_context(|| format!("{shown}"))?;
    // Before a file is made: what cannot be signed with is of no use.
    Signer::new(key, domain, selector, SignerOptions::default())?;
    let record = trust::record(&pem).with_context(|| format!("{shown}"))?;
    if made {
        write(file, &pem).with_context(|| format!("{shown}"))?;
        eprintln!("made {shown}\n");
    }
    let name = dns::Name::parse(&format!("{selector}._domainkey.{domain}"))?;
    eprintln!(
        "To publish in the DNS, before mail is signed with the key:\n\n{}\n",
        Record::text(name, record)
    );
    eprintln!("For the configuration, such as conf.d/dkim.toml; then `systemctl reload ringpost`:\n");
    let entry = Dkim {
        name: format!("{selector}.{domain}"),
        domain: Some(domain.clone()),
        selector: selector.clone(),
        key: std::path::absolute(file).unwrap_or_else(|_| file.clone()),
        ..Dkim::default()
    };
    out.write_all(entry.lines().as_bytes())?;
    Ok(())
}

/// Nobody but the owner and the group may read it, at no time.
fn write(file: &Path, pem: &str) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(file)?;
    file.write_all(pem.as_bytes())?;
    file.sync_all()
}

fn domain(text: &str) -> Result<Domain, String> {
    Domain::parse(text).map_err(|error| error.to_string())
}
