//! `ringpost check`: would it start, and how well would it run?

use std::{
    io::ErrorKind,
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    path::Path,
    process::ExitCode,
};

use config::{Config, ListenAddress, Listener, Loaded, Output};
use nix::unistd::{AccessFlags, Group, Uid, User, access};
use tls::{Authorities, Certificates, Identity, Public};

use crate::{
    again,
    host::{self, Finding, Memlock, Needs, Severity, Subject},
    open, privileges,
    reload::Ours,
    renewal,
    serve::{self, Patience},
    signers,
};

/// Prints what is wrong with the configuration and with the host.
pub(crate) fn check(path: &Path) -> ExitCode {
    let loaded = match Loaded::read(path) {
        Ok(loaded) => loaded,
        Err(errors) => {
            for error in &errors {
                eprintln!("error: {error}");
            }
            return refuse(path, errors.len());
        }
    };
    let config = &loaded.config;
    let cpus = serve::usable_cpus().len();
    for warning in loaded.warnings(cpus) {
        eprintln!("warning: {}: {}", loaded.places.name(&warning.key), warning.text);
    }
    let mut findings = host::findings(&needs(&loaded));
    findings.extend(reply_rules(config));
    findings.extend(certificates(config));
    findings.extend(systems(config));
    findings.extend(again::unreadable_by_user(path, config));
    // Whom there is not, is told below.
    findings.extend(again::as_server(config, || renewal::findings(config)).unwrap_or_default());
    findings.extend(users(config));
    findings.extend(programs(config));
    findings.extend(log_file(config));
    if UnixStream::connect(config.data_directory.join(admin::CONTROL_SOCKET)).is_ok() {
        println!("a server runs on this data directory: whether its ports are free was not tried");
    } else {
        findings.extend(addresses(config));
    }
    let contradictions = loaded.contradictions(cpus);
    for contradiction in &contradictions {
        eprintln!("error: {contradiction}");
    }
    for finding in &findings {
        eprintln!("{}: {}", finding.severity, finding.place(&loaded.places));
    }
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    match errors + contradictions.len() {
        0 => {
            println!("{}: good", path.display());
            ExitCode::SUCCESS
        }
        count => refuse(path, count),
    }
}

fn refuse(path: &Path, errors: usize) -> ExitCode {
    let s = if errors == 1 { "" } else { "s" };
    eprintln!("{}: {errors} error{s}; the server would not start", path.display());
    ExitCode::FAILURE
}

/// What this configuration asks of the host.
pub(crate) fn needs(loaded: &Loaded) -> Needs<'_> {
    let config = &loaded.config;
    let shards = config.cores.shards(serve::usable_cpus().len());
    let inbound: u64 = config.listeners.iter().map(|l| u64::from(l.limits.connections_max)).sum();
    let inbound = inbound.min(config.clients.connections_max.into());
    let outbound = u64::from(config.queue.attempts_max) * shards as u64;
    let journal = &config.journal;
    let segments = u64::from(journal.segments_max).saturating_mul(journal.shards.into());
    let segments = segments.min(journal.disk_max / journal.segment_size);
    // Who is root and becomes another user is not root when the shards start.
    let stays = config.user.is_none() || !Uid::effective().is_root();
    Needs {
        shards,
        ring_depth: config.ring.depth,
        io_memory: config.ring.io_memory,
        memlock: if stays && host::may_lock() { Memlock::Ignored } else { Memlock::Holds },
        files: inbound + outbound + segments + 1024,
        backlog: config.listeners.iter().map(|l| u64::from(l.backlog)).max().unwrap_or(0),
        data_directory: &config.data_directory,
        disk_max: loaded.places.of("journal.disk-max").map(|_| journal.disk_max),
    }
}

fn error(key: String, text: String) -> Finding {
    Finding { severity: Severity::Error, subject: Subject::Key(key), text }
}

/// Each certificate that cannot be used, our own or an authority's.
fn certificates(config: &Config) -> Vec<Finding> {
    let ours = Ours::new(config);
    let errors =
        ours.certificate_files().iter().filter_map(|one| Certificates::load(std::slice::from_ref(one)).err());
    let authorities = ours
        .authority_files()
        .filter_map(|one| Authorities::load(Public::Ignored, std::slice::from_ref(one)).err());
    let shown = ours.identity_files().filter_map(|(chain, key)| Identity::load(chain, key).err());
    let errors = errors.chain(authorities).chain(shown);
    let errors = errors.map(|unusable| error(open::certificate_key(config, &unusable), unusable.to_string()));
    // Keys that are renewed are the server's own.
    let own = config.dkim.iter().filter(|dkim| dkim.rotate.is_none());
    let signing = own.filter_map(|dkim| signers::one(dkim).err());
    errors.chain(signing.map(|unusable| error(unusable.key(), unusable.to_string()))).collect()
}

/// A database of autonomous systems that is none.
fn systems(config: &Config) -> Vec<Finding> {
    let unusable = Ours::new(config).systems().err();
    unusable
        .map(|unusable| error("reputation.asn-database".into(), format!("{unusable:#}")))
        .into_iter()
        .collect()
}

/// Rules for replies that cannot be used, or whose examples other rules take.
fn reply_rules(config: &Config) -> Vec<Finding> {
    match shard::reply_rules_astray(config) {
        Ok(astray) => {
            let warning = |(key, text): (String, String)| Finding {
                severity: Severity::Warning,
                subject: Subject::Key(key),
                text: format!("its example: {text}"),
            };
            astray.into_iter().map(warning).collect()
        }
        Err(unusable) => vec![error("reply-rule".into(), unusable.to_string())],
    }
}

/// Programs that cannot be run, or that others could exchange.
fn programs(config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    for program in &config.programs {
        let key = format!("program.{}", program.name.to_ascii_lowercase());
        let of = |severity, part: &str, text: String| Finding {
            severity,
            subject: Subject::Key(format!("{key}.{part}")),
            text,
        };
        let path = Path::new(program.command.first().map_or("", String::as_str));
        match path.metadata() {
            Err(why) => {
                let text = format!("{}: {why}: mail for it waits", path.display());
                found.push(of(Severity::Warning, "command", text));
            }
            Ok(file) if !file.is_file() || file.mode() & 0o111 == 0 => {
                let text = format!("{} is no program: mail for it waits; `chmod 755` it", path.display());
                found.push(of(Severity::Warning, "command", text));
            }
            Ok(file) if file.mode() & 0o022 != 0 => {
                let text = format!(
                    "{} has mode {:03o}: whoever may write it runs what he likes with the rights of this server; `chmod 755` it",
                    path.display(),
                    file.mode() & 0o777
                );
                found.push(of(Severity::Warning, "command", text));
            }
            Ok(_) => {}
        }
        if let Some(name) = &program.user {
            if !Uid::effective().is_root() {
                let text = format!("only a server that root has started runs a program as {name}");
                found.push(of(Severity::Warning, "user", text));
            } else if let Ok(None) = User::from_name(name) {
                let text = format!("there is no user `{name}` on this host: mail for it waits");
                found.push(of(Severity::Warning, "user", text));
            }
        }
        if let Some(name) = &program.group
            && let Ok(None) = Group::from_name(name)
        {
            let text = format!("there is no group `{name}` on this host: mail for it waits");
            found.push(of(Severity::Warning, "group", text));
        }
    }
    found
}

/// Whom root is to become.
fn users(config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    if !Uid::effective().is_root() {
        return found;
    }
    if config.user.is_none() && !config.allow_root {
        found.push(error("user".into(), privileges::ROOT.into()));
    }
    if let Some(name) = &config.user
        && let Ok(None) = User::from_name(name)
    {
        let text = format!("there is no user `{name}` on this host; make one with `useradd --system {name}`");
        found.push(error("user".into(), text));
    }
    if let Some(name) = &config.group
        && let Ok(None) = Group::from_name(name)
    {
        let text =
            format!("there is no group `{name}` on this host; make one with `groupadd --system {name}`");
        found.push(error("group".into(), text));
    }
    found
}

fn log_file(config: &Config) -> Option<Finding> {
    let Output::File(path) = &config.log.output else { return None };
    let (place, flags) = match path.parent() {
        Some(folder) if !path.exists() => (folder, AccessFlags::W_OK | AccessFlags::X_OK),
        Some(_) | None => (path.as_path(), AccessFlags::W_OK),
    };
    let denied = access(place, flags).err()?;
    let text = format!(
        "{} cannot be written to: {denied}; make it, or see that it belongs to this user \
         (under systemd, `LogsDirectory=` makes a folder in /var/log)",
        place.display()
    );
    Some(error("log.output".into(), text))
}

/// Each address that cannot be listened on.
fn addresses(config: &Config) -> Vec<Finding> {
    let mut patience = Patience::new();
    let mut found = Vec::new();
    let http = config.http.address.iter().map(|address| ("http.address".to_owned(), *address));
    let listeners = config.listeners.iter().flat_map(|listener| {
        let tcp = listener.address.iter().filter_map(|address| match address {
            ListenAddress::Tcp(address) => Some(*address),
            ListenAddress::Unix(_) | ListenAddress::Systemd(_) => None,
        });
        tcp.map(|address| (address_key(listener), address))
    });
    for (key, address) in listeners.chain(http) {
        let Err(failed) = serve::try_port(address, &mut patience) else { continue };
        // The unit may give the server what this user does not have.
        let denied = failed.error.kind() == ErrorKind::PermissionDenied;
        let severity = if denied { Severity::Warning } else { Severity::Error };
        found.push(Finding { severity, subject: Subject::Key(key), text: failed.to_string() });
    }
    for listener in &config.listeners {
        for address in &listener.address {
            let ListenAddress::Unix(path) = address else { continue };
            let folder = path.parent().unwrap_or(path);
            if let Err(denied) = access(folder, AccessFlags::W_OK | AccessFlags::X_OK) {
                let text = format!(
                    "no socket can be made in {}: {denied}; make the folder, and see that it belongs to this user \
                     (under systemd, `RuntimeDirectory=` makes one in /run)",
                    folder.display()
                );
                found.push(error(address_key(listener), text));
            }
        }
    }
    found
}

/// The key that says where a listener listens.
pub(crate) fn address_key(listener: &Listener) -> String {
    format!("listener.{}.address", listener.name.to_ascii_lowercase())
}
