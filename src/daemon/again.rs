//! What must be readable once more: a reload and a renewal read the configuration, certificates and keys with fewer rights
//! than a start by root has.

use std::{ffi::CString, fs::OpenOptions, path::Path};

use config::{Config, Loaded, Problem};
use nix::unistd::{Group, Uid, User, getegid, getgroups, initgroups, setegid, seteuid, setgroups};

use crate::host::{Finding, Severity, Subject};

/// The files that this process, as it is now, cannot read.
pub(crate) fn unreadable(path: &Path, config: &Config) -> Vec<Finding> {
    let found = |subject, what: String| Finding { severity: Severity::Warning, subject, text: what };
    let user = user_name();
    let of_config = Loaded::read(path).err().unwrap_or_default();
    let of_config = of_config.into_iter().filter(|error| matches!(error.problem, Problem::Unreadable(_)));
    let of_config = of_config
        .map(|error| found(Subject::Host("reload"), format!("user `{user}` will not be able to: {error}")));
    let of_papers = papers(config).into_iter().filter_map(|(key, file)| {
        let error = OpenOptions::new().read(true).open(file).err()?;
        let shown = file.display();
        let text = format!(
            "{shown} cannot be read again by user `{user}`: {error}; reload and renewal will fail until it can: give it \
             to a group of that user (`chgrp GROUP {shown}; chmod g+r {shown}`), which may enter every folder above it"
        );
        Some(found(Subject::Key(key), text))
    });
    of_config.chain(of_papers).collect()
}

/// The same for the user that root is to become.
pub(crate) fn unreadable_by_user(path: &Path, config: &Config) -> Vec<Finding> {
    let (true, Some(name)) = (Uid::effective().is_root(), &config.user) else { return Vec::new() };
    as_user(name, config.group.as_deref(), || unreadable(path, config)).unwrap_or_default()
}

/// Looks with the rights that the server has once it runs.
pub(crate) fn as_server<T>(config: &Config, look: impl FnOnce() -> T) -> anyhow::Result<T> {
    match &config.user {
        Some(name) if Uid::effective().is_root() => as_user(name, config.group.as_deref(), look),
        Some(_) | None => Ok(look()),
    }
}

/// Every file that is read again, with the key that names it.
fn papers(config: &Config) -> Vec<(String, &Path)> {
    let mut papers = Vec::new();
    for certificate in &config.certificates {
        let name = certificate.name.to_ascii_lowercase();
        papers.push((format!("certificate.{name}.certificate"), certificate.certificate.as_path()));
        papers.push((format!("certificate.{name}.key"), certificate.key.as_path()));
    }
    for (key, files) in [
        ("outbound-tls.authorities", &config.outbound_tls.authorities),
        ("relay.authorities", &config.relay.authorities),
    ] {
        papers.extend(files.iter().map(|file| (key.to_owned(), file.as_path())));
    }
    let routes = config.routes.iter().map(|it| ("route", &it.name, &it.client_certificate, &it.client_key));
    let sources =
        config.sources.iter().map(|it| ("source", &it.name, &it.client_certificate, &it.client_key));
    for (kind, name, certificate, key) in routes.chain(sources) {
        let name = name.to_ascii_lowercase();
        for (word, file) in [("client-certificate", certificate), ("client-key", key)] {
            papers.extend(file.iter().map(|file| (format!("{kind}.{name}.{word}"), file.as_path())));
        }
    }
    for dkim in config.dkim.iter().filter(|dkim| dkim.rotate.is_none()) {
        papers.push((format!("dkim.{}.key", dkim.name.to_ascii_lowercase()), dkim.key.as_path()));
    }
    papers
}

fn user_name() -> String {
    let uid = Uid::effective();
    User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

/// Looks with the rights of a user. For a process of root that has no thread but this one.
fn as_user<T>(name: &str, group: Option<&str>, look: impl FnOnce() -> T) -> anyhow::Result<T> {
    // That there is none of that name is told elsewhere.
    let user = User::from_name(name)?.ok_or_else(|| anyhow::anyhow!("no user"))?;
    let group = match group {
        None => user.gid,
        Some(group) => Group::from_name(group)?.ok_or_else(|| anyhow::anyhow!("no group"))?.gid,
    };
    let (own, own_group, groups) = (Uid::effective(), getegid(), getgroups()?);
    initgroups(&CString::new(name)?, group)?;
    setegid(group)?;
    seteuid(user.uid)?;
    let seen = look();
    seteuid(own)?;
    setegid(own_group)?;
    setgroups(&groups)?;
    Ok(seen)
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn every_file_that_a_key_names_is_looked_at() {
        let config = Config {
            certificates: vec![config::Certificate {
                name: "Own".into(),
                certificate: "/nonexistent/c.pem".into(),
                key: "/nonexistent/k.pem".into(),
                ..config::Certificate::default()
            }],
            relay: config::Relay {
                authorities: vec!["/nonexistent/a.pem".into()],
                ..config::Relay::default()
            },
            ..Config::default()
        };
        let found = unreadable(Path::new("/nonexistent/ringpost.toml"), &config);
        let subjects: Vec<_> = found.into_iter().map(|finding| finding.subject).collect();
        let key = |key: &str| Subject::Key(key.to_owned());
        assert_eq!(
            subjects,
            [
                Subject::Host("reload"),
                key("certificate.own.certificate"),
                key("certificate.own.key"),
                key("relay.authorities"),
            ]
        );
    }
}
