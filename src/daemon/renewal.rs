//! What `ringpost check` says of keys for DKIM that the server renews by itself: their directory, their state, and who publishes them.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use config::{Config, Dkim};
use mail::Span;
use nix::unistd::{AccessFlags, access};
use pool::RotationSettings;
use trust::{KeyPhase, RotatedKey, RotationId, Rotations};

use crate::{
    host::{Finding, Severity, Subject},
    signers,
};

/// What stands against the renewal of keys.
pub(crate) fn findings(config: &Config) -> Vec<Finding> {
    let settings = RotationSettings::new(config);
    let state = match settings.read() {
        Ok(state) => state,
        Err(error) => {
            let file = settings.file();
            let text = format!(
                "{}: {error}; keys are not known, and mail cannot be signed with them",
                file.display()
            );
            // Without an entry that is renewed nobody needs it.
            let severity = if settings.rotates() { Severity::Error } else { Severity::Warning };
            return vec![of(severity, first_entry(config), text)];
        }
    };
    let mut found = Vec::new();
    if settings.rotates() {
        found.extend(directory(config, &settings));
        found.extend(left_over(&settings, &state));
    }
    found.extend(keys(config, &settings, &state));
    found.extend(strange(config, &settings, &state));
    found.extend(providers(config));
    found
}

fn of(severity: Severity, key: String, text: String) -> Finding {
    Finding { severity, subject: Subject::Key(key), text }
}

fn warning(key: String, text: String) -> Finding {
    of(Severity::Warning, key, text)
}

fn key_of(dkim: &Dkim, part: &str) -> String {
    format!("dkim.{}.{part}", dkim.name.to_ascii_lowercase())
}

fn renewed(config: &Config) -> impl Iterator<Item = &Dkim> {
    config.dkim.iter().filter(|dkim| dkim.rotate.is_some())
}

fn first_entry(config: &Config) -> String {
    renewed(config).next().map_or_else(|| "dkim".to_owned(), |dkim| key_of(dkim, "rotate"))
}

/// Where private keys lie: made by the server where it is its own, and there before where another was named.
fn directory(config: &Config, settings: &RotationSettings) -> Option<Finding> {
    let (path, named) = (settings.directory(), config.dkim_rotation.directory.is_some());
    let (key, shown) = ("dkim-rotation.directory".to_owned(), path.display());
    let text = match path.metadata() {
        // That the data directory can be written to is looked at for itself.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => return None,
        Err(error) => format!(
            "{shown}: {error}: no key can be made; make it for the server's user alone: `install -d -m 700 -o USER {shown}`"
        ),
        Ok(there) if !there.is_dir() => {
            format!("{shown} is no directory: no key can be made; name another, or move it away")
        }
        Ok(_) if access(&path, AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK).is_err() => {
            format!(
                "{shown} cannot be written to by the server's user: no key can be made; `chown` it to that user, or, under \
                 systemd, name it in `ReadWritePaths=`"
            )
        }
        Ok(there) if there.mode() & 0o022 != 0 => format!(
            "{shown} has mode {:03o}: others may exchange the private keys in it; `chmod 700 {shown}`",
            there.mode() & 0o777
        ),
        Ok(_) => return None,
    };
    Some(warning(key, text))
}

/// Private keys that do not fit what the state says of them.
fn keys(config: &Config, settings: &RotationSettings, state: &Rotations) -> Vec<Finding> {
    let mut found = Vec::new();
    for dkim in renewed(config) {
        let of_entry = RotationSettings { dkim: vec![dkim.clone()], ..settings.clone() };
        if let Err(unusable) = signers::load(&of_entry) {
            found.push(of(Severity::Error, unusable.key(), unusable.to_string()));
        }
    }
    for (id, key) in all(state) {
        let (at, file) = (entry_key(config, id), settings.key_file(&id.domain, &key.selector));
        let shown = file.display();
        if let Ok(there) = file.metadata()
            && there.mode() & 0o077 != 0
        {
            let text = format!(
                "{shown} has mode {:03o}: others may read a private key, and sign as {}; `chmod 600 {shown}`, and if others have had \
                 the rights for it, have a new one: `ringpost dkim rotate {}`",
                there.mode() & 0o777,
                id.domain,
                id.entry
            );
            found.push(warning(at.clone(), text));
        }
        if matches!(key.phase, KeyPhase::Made | KeyPhase::Published | KeyPhase::Shown)
            && let Err(flaw) = pool::read_key(&file, &key.record)
        {
            let text = format!(
                "{shown}: {flaw}: the server makes another in its place, which takes until the DNS has shown that; or restore it \
                 from a backup"
            );
            found.push(warning(at, text));
        }
    }
    found
}

/// What the state has that the configuration does not, any more.
fn strange(config: &Config, settings: &RotationSettings, state: &Rotations) -> Vec<Finding> {
    let known: BTreeSet<RotationId> =
        renewed(config).flat_map(RotationSettings::ids).map(|(id, _)| id).collect();
    let mut found = Vec::new();
    for (id, rotation) in state.0.iter().filter(|(id, one)| !known.contains(*id) && !one.is_empty()) {
        let Some(signing) = rotation.signing() else { continue };
        let again = renewed(config).any(|dkim| dkim.name.eq_ignore_ascii_case(&id.entry));
        let then = if again {
            "it signs until a key of another algorithm does"
        } else {
            "it signs no more, and mail goes without until another is shown"
        };
        let text = format!(
            "{}: no [[dkim]] with `rotate` is called `{}` and has {} of {} any more: the key at {} retires ({then}), and its record goes \
             after {}; put the entry back where that is not meant",
            settings.file().display(),
            id.entry,
            id.kind.as_str(),
            id.domain,
            signing.selector,
            Span(settings.rotation.retire)
        );
        found.push(warning(entry_key(config, id), text));
    }
    for (id, rotation) in &state.0 {
        let Some(name) = rotation.publisher.as_deref().filter(|name| config.dns_provider(name).is_none())
        else {
            continue;
        };
        // One that the configuration has is published by what that says.
        if known.contains(id) || rotation.is_empty() {
            continue;
        }
        let text = format!(
            "the records of {} were published by `{name}`, and no [[dns-provider]] is called that any more: they are to be taken away \
             by hand; keep it until `ringpost dkim status` does not name them",
            id.domain
        );
        found.push(warning("dns-provider".to_owned(), text));
    }
    found
}

/// Private keys that nobody knows of: the state was lost, or is another's.
fn left_over(settings: &RotationSettings, state: &Rotations) -> Option<Finding> {
    if settings.rotation.directory.is_some() {
        // Others may keep theirs beside them.
        return None;
    }
    let known: BTreeSet<PathBuf> =
        all(state).map(|(id, key)| settings.key_file(&id.domain, &key.selector)).collect();
    let files = fs::read_dir(settings.directory()).ok()?.filter_map(Result::ok).map(|file| file.path());
    let is_key = |file: &Path| file.extension().is_some_and(|extension| extension == "pem");
    let mut strangers: Vec<_> = files.filter(|file| is_key(file) && !known.contains(file)).collect();
    strangers.sort();
    let first = strangers.first()?;
    let more = match strangers.len() - 1 {
        0 => String::new(),
        count => format!(" (and {count} more there)"),
    };
    let text = format!(
        "{}{more}: {} does not know this private key; restore that from the backup that the key is from, or remove the key",
        first.display(),
        settings.file().display()
    );
    Some(warning("dkim-rotation.directory".to_owned(), text))
}

/// Providers whose secret cannot be used.
fn providers(config: &Config) -> Vec<Finding> {
    let used = |name: &str| {
        renewed(config).any(|dkim| dkim.publish.as_deref().is_some_and(|one| one.eq_ignore_ascii_case(name)))
    };
    let providers = config.dns_providers.iter().filter(|provider| used(&provider.name));
    let unusable = providers.filter_map(|provider| {
        let why = pool::check_provider(provider).err()?;
        let key = format!("dns-provider.{}.secret-file", provider.name.to_ascii_lowercase());
        Some(warning(
            key,
            format!("{why}: no record is published with it; the server's user has to be able to read it"),
        ))
    });
    unusable.collect()
}

fn all(state: &Rotations) -> impl Iterator<Item = (&RotationId, &RotatedKey)> {
    state.0.iter().flat_map(|(id, rotation)| rotation.keys().iter().map(move |key| (id, key)))
}

fn entry_key(config: &Config, id: &RotationId) -> String {
    let dkim = renewed(config).find(|dkim| dkim.name.eq_ignore_ascii_case(&id.entry));
    dkim.map_or_else(|| "dkim".to_owned(), |dkim| key_of(dkim, "rotate"))
}

#[cfg(test)]
mod test {
    use std::{os::unix::fs::PermissionsExt as _, time::Duration};

    use config::{DkimAlgorithm, DnsProvider};

    use super::*;

    struct Desk {
        folder: tempfile::TempDir,
        config: Config,
    }

    impl Desk {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let dkim = Dkim {
                name: "Org".into(),
                domain: mail::Domain::parse("example.org").ok(),
                selector: "rp-{date}".into(),
                rotate: Some(Duration::from_secs(86_400)),
                algorithms: vec![DkimAlgorithm::Ed25519],
                publish: Some("ns".into()),
                ..Dkim::default()
            };
            let secret = folder.path().join("secret");
            let provider =
                DnsProvider { name: "NS".into(), secret_file: Some(secret), ..DnsProvider::default() };
            let config = Config {
                data_directory: folder.path().to_owned(),
                dkim: vec![dkim],
                dns_providers: vec![provider],
                ..Config::default()
            };
            let desk = Self { folder, config };
            desk.write("secret", "c2VjcmV0\n", 0o600);
            desk
        }

        fn write(&self, name: &str, text: &str, mode: u32) {
            let file = self.folder.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, text).unwrap();
            fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
        }

        /// A state with one key, and the private key of it.
        fn key(&self, entry: &str, phase: &str) {
            let pem = trust::new_key(trust::KeyKind::Ed25519).unwrap();
            let record = trust::record(&pem).unwrap();
            self.write("dkim/rp-1.example.org.pem", &pem, 0o600);
            fs::set_permissions(self.folder.path().join("dkim"), fs::Permissions::from_mode(0o700)).unwrap();
            let state = format!(
                "ringpost-dkim-keys 1\nrotation example.org ed25519 20261129 1 - {entry}\npublisher ns\n\
                 key rp-1 {phase} 1764387000000000 0 0 - {record}\nend\n"
            );
            self.write("dkim-keys", &state, 0o644);
        }

        /// What is found, as severity, key and text.
        fn found(&self) -> Vec<(Severity, String, String)> {
            let subject = |subject| match subject {
                Subject::Key(key) => key,
                Subject::Host(what) => what.to_owned(),
            };
            let found = findings(&self.config).into_iter();
            found.map(|finding| (finding.severity, subject(finding.subject), finding.text)).collect()
        }

        #[track_caller]
        fn finds(&self, severity: Severity, key: &str, texts: &[&str]) {
            let found = self.found();
            let [(found_severity, found_key, text)] = &found[..] else { panic!("{found:?}") };
            assert_eq!((*found_severity, found_key.as_str()), (severity, key), "{text}");
            for one in texts {
                assert!(text.contains(one), "{text}");
            }
        }
    }

    #[test]
    fn what_is_good_says_nothing() {
        let desk = Desk::new();
        assert_eq!(desk.found(), []);
        for phase in ["signing", "shown", "published", "retiring"] {
            desk.key("org", phase);
            assert_eq!(desk.found(), [], "{phase}");
        }
    }

    #[test]
    fn the_directory_of_keys() {
        let mut desk = Desk::new();
        desk.key("org", "signing");
        let directory = desk.folder.path().join("dkim");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        desk.finds(Severity::Warning, "dkim-rotation.directory", &["mode 777", "chmod 700"]);
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
        desk.write("dkim/rp-0.example.org.pem", "", 0o600);
        desk.finds(
            Severity::Warning,
            "dkim-rotation.directory",
            &["rp-0.example.org.pem", "dkim-keys does not know"],
        );
        fs::remove_file(desk.folder.path().join("dkim-keys")).unwrap();
        desk.finds(
            Severity::Warning,
            "dkim-rotation.directory",
            &["rp-0.example.org.pem (and 1 more there)"],
        );
        let named = desk.folder.path().join("keys");
        desk.config.dkim_rotation.directory = Some(named.clone());
        desk.finds(Severity::Warning, "dkim-rotation.directory", &["keys", "install -d -m 700"]);
        fs::write(&named, "").unwrap();
        desk.finds(Severity::Warning, "dkim-rotation.directory", &["is no directory"]);
    }

    #[test]
    fn the_state_and_its_keys() {
        let desk = Desk::new();
        desk.write("dkim-keys", "what\n", 0o644);
        desk.finds(Severity::Error, "dkim.org.rotate", &["dkim-keys: line 1 makes no sense", "restore it"]);
        let file = desk.folder.path().join("dkim/rp-1.example.org.pem");
        desk.key("org", "signing");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        desk.finds(
            Severity::Warning,
            "dkim.org.rotate",
            &["mode 640", "chmod 600", "ringpost dkim rotate org"],
        );
        // A key of another day than the state: its signatures would be wrong, and the DNS would show nothing of that.
        let other = trust::new_key(trust::KeyKind::Ed25519).unwrap();
        desk.write("dkim/rp-1.example.org.pem", &other, 0o600);
        desk.finds(
            Severity::Error,
            "dkim.org.rotate",
            &["not the key that is published", "restore it", "dkim-keys"],
        );
        fs::remove_file(&file).unwrap();
        desk.finds(
            Severity::Error,
            "dkim.org.rotate",
            &["rp-1.example.org.pem", "cannot be read", "take its line out"],
        );
        desk.key("org", "shown");
        fs::remove_file(&file).unwrap();
        desk.finds(Severity::Warning, "dkim.org.rotate", &["makes another in its place"]);
        // Nobody misses one that signs no more.
        desk.key("org", "retiring");
        fs::remove_file(&file).unwrap();
        assert_eq!(desk.found(), []);
    }

    #[test]
    fn a_state_of_another_configuration() {
        let mut desk = Desk::new();
        desk.key("shop", "signing");
        desk.finds(Severity::Warning, "dkim", &["`shop`", "example.org", "mail goes without", "14d"]);
        desk.key("org", "signing");
        desk.config.dkim[0].algorithms = vec![DkimAlgorithm::Rsa2048];
        desk.finds(Severity::Warning, "dkim.org.rotate", &["until a key of another algorithm does"]);
        desk.key("org", "leaving");
        desk.config.dns_providers.clear();
        desk.finds(Severity::Warning, "dns-provider", &["`ns`", "by hand"]);
    }

    #[test]
    fn secrets_of_providers() {
        let desk = Desk::new();
        for (text, mode, why) in [
            ("c2VjcmV0\n", 0o644, "mode 644"),
            ("no base64!\n", 0o600, "not in base64"),
            ("\n", 0o600, "it is empty"),
        ] {
            desk.write("secret", text, mode);
            desk.finds(Severity::Warning, "dns-provider.ns.secret-file", &["secret: ", why]);
        }
        fs::remove_file(desk.folder.path().join("secret")).unwrap();
        desk.finds(Severity::Warning, "dns-provider.ns.secret-file", &["No such file"]);
    }
}
