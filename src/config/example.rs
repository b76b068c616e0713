//! The example file and the reference page, printed from the types.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use mail::Domain;

use crate::{
    Certificate, Config, DomainPattern, Hop, Host, Journal, ListenAddress, Listener, ListenerKind,
    ListenerTls, Route, RouteTls, Via,
    schema::{Key, Section, Shape, Takes, below},
};

/// What `ringpost init` knows about the host it makes a configuration for.
#[derive(Clone, Debug)]
pub struct ExampleOptions {
    /// The name of the host.
    pub hostname: Domain,
    /// The certificate it has made, as PEM.
    pub certificate: PathBuf,
    /// Its private key, as PEM.
    pub key: PathBuf,
    /// Where mail is kept.
    pub data_directory: PathBuf,
    /// Whether root makes it, for itself.
    pub by_root: bool,
    /// CPUs of the host.
    pub cpus: usize,
}

/// Two for each core, so that a new program finds some that the running one has not opened; never fewer than by default.
fn journal_shards(cpus: usize) -> u16 {
    Journal::default().shards.max(u16::try_from(2 * cpus).unwrap_or(4096).min(4096))
}

impl Config {
    /// A configuration to begin with, with every key explained: ports that need no privilege, relaying for
    /// this host alone, everything sent by MX.
    pub fn example(options: &ExampleOptions) -> String {
        let listener = |name: &str, port, kind, tls| Listener {
            name: name.into(),
            address: vec![ListenAddress::Tcp(SocketAddr::from(([0, 0, 0, 0], port)))],
            kind,
            tls,
            ..Listener::default()
        };
        let config = Self {
            hostname: options.hostname.clone(),
            data_directory: options.data_directory.clone(),
            allow_root: options.by_root,
            journal: Journal { shards: journal_shards(options.cpus), ..Journal::default() },
            listeners: vec![
                listener("smtp", 2525, ListenerKind::Smtp, ListenerTls::Starttls),
                listener("submissions", 2465, ListenerKind::Submission, ListenerTls::Implicit),
            ],
            certificates: vec![Certificate {
                name: "own".into(),
                certificate: options.certificate.clone(),
                key: options.key.clone(),
                domains: Vec::new(),
            }],
            routes: vec![
                Route { name: "internet".into(), domains: vec![DomainPattern::Any], ..Route::default() },
                // For the load generator's sink. Nobody can own the name (RFC 6761 §6.4).
                Route {
                    name: "loadtest".into(),
                    domains: vec![DomainPattern::Exact(
                        Domain::parse("loadtest.invalid").expect("our own text"),
                    )],
                    via: Via::Hop,
                    hosts: vec![Hop { host: Host::Address(Ipv4Addr::LOCALHOST.into()), port: 2600 }],
                    tls: RouteTls::None,
                    ..Route::default()
                },
            ],
            ..Self::default()
        };
        config.to_toml()
    }

    /// This configuration as a file that explains every key. What holds by default is commented out.
    pub fn to_toml(&self) -> String {
        let mut keys = self.describe();
        let (limits, inbound) = (self.limits.describe(), self.timeouts.inbound.describe());
        let (authentication, strangers) = (self.authentication.describe(), self.strangers.describe());
        let greylist = self.greylist.describe();
        for key in &mut keys {
            if let Shape::Entries { entries, .. } = &mut key.shape {
                for key in entries.iter_mut().flatten() {
                    match key.name.as_str() {
                        "authentication" => key.inherit(&authentication),
                        "greylist" => key.inherit(&greylist),
                        "limits" => key.inherit(&limits),
                        "strangers" => key.inherit(&strangers),
                        "timeouts" => key.inherit(&inbound),
                        _ => {}
                    }
                }
            }
        }
        let mut file = File { text: String::new() };
        file.about(Self::ABOUT);
        file.keys("", &keys);
        file.text
    }

    /// The reference page, in Markdown.
    pub fn reference() -> String {
        let mut page = String::from(HEAD);
        reference_section(&mut page, "", "", Self::ABOUT, &Self::default().describe());
        page
    }
}

const HEAD: &str = "\
# Configuration

This page is printed from the types in `src/config`; `UPDATE_GOLDEN=1 cargo test -p config` prints it anew.

`ringpost serve` reads one TOML file, and then whatever ends in `.toml` in the folder `conf.d` beside it, by
name. A later file overrides keys of an earlier one, adds sections to lists of sections (`[[…]]`), and changes
those that have the same `name`. A list of anything else is a value like others: the later one replaces it and does
not add to it. Where `clients.allow`, `clients.deny` or `senders.deny` loses an entry in that way, `ringpost check`,
the start and a reload warn of it and name both places. A key that is not listed here is a mistake, and a mistake keeps the server
from starting: `ringpost check` shows all of them with file, line and what to do. `ringpost init` makes a file
with every key in it.

`ringpost reload` (or SIGHUP, or `systemctl reload ringpost`) brings what has changed into force without a restart. Keys
with *restart* in the column of changes keep their old value until the server is started again; the reply to the reload
and the log name them. Mistakes leave everything as it was. Sessions and connections that are open go on with what held
when they were opened.
";

struct File {
    text: String,
}

/// Whether a key that says what holds anyway is printed, as a comment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Defaults {
    Shown,
    Hidden,
}

impl File {
    fn about(&mut self, about: &[&str]) {
        for line in about {
            self.line("#", line);
        }
    }

    fn line(&mut self, start: &str, text: &str) {
        self.text.push_str(start);
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn keys(&mut self, path: &str, keys: &[Key]) {
        self.values("", keys, Defaults::Shown);
        for key in keys {
            let path = below(path, &key.name);
            match &key.shape {
                Shape::Value { .. } => {}
                Shape::Section { about, keys } => {
                    self.line("", "");
                    self.about(about);
                    self.line("", &format!("[{path}]"));
                    self.keys(&path, keys);
                }
                Shape::Entries { about, sample, entries } => {
                    self.line("", "");
                    self.about(about);
                    if entries.is_empty() {
                        self.entry("#", &path, sample, Defaults::Shown);
                    }
                    for (at, entry) in entries.iter().enumerate() {
                        let defaults = if at == 0 { Defaults::Shown } else { Defaults::Hidden };
                        self.entry("", &path, entry, defaults);
                    }
                }
            }
        }
    }

    fn entry(&mut self, start: &str, path: &str, keys: &[Key], defaults: Defaults) {
        if defaults == Defaults::Hidden {
            self.line("", "");
        }
        self.line(start, &format!("[[{path}]]"));
        self.values(start, keys, defaults);
        for key in keys {
            match &key.shape {
                Shape::Section { keys, .. } => {
                    let said = keys.iter().any(Key::is_said);
                    if said || defaults == Defaults::Shown {
                        self.line("", "");
                        self.about(key.doc);
                        let start = if said { start } else { "#" };
                        self.line(start, &format!("[{path}.{}]", key.name));
                        // What lies over another section is explained there.
                        let defaults = if is_laid_over(key) { Defaults::Hidden } else { defaults };
                        self.values(start, keys, defaults);
                    }
                }
                Shape::Value { .. } | Shape::Entries { .. } => {}
            }
        }
    }

    fn values(&mut self, start: &str, keys: &[Key], defaults: Defaults) {
        for key in keys {
            let Shape::Value { kind, choices, current, .. } = &key.shape else { continue };
            if defaults == Defaults::Shown {
                self.line("", "");
                self.about(key.doc);
                let takes = match key.takes {
                    Takes::Reload => "",
                    Takes::Restart => "; a change takes a restart",
                };
                self.line("# ", &format!("({kind}{takes})"));
                for (word, meaning) in *choices {
                    self.line("#   ", &format!("\"{word}\":{meaning}"));
                }
            }
            if key.is_said() {
                self.line(start, &format!("{} = {current}", key.name));
            } else if defaults == Defaults::Shown {
                self.line("#", &format!("{} = {current}", key.name));
            }
        }
    }
}

impl Key {
    /// Whether it is not what holds anyway.
    fn is_said(&self) -> bool {
        match &self.shape {
            Shape::Value { default, current, .. } => default != current,
            Shape::Section { keys, .. } => keys.iter().any(Self::is_said),
            Shape::Entries { entries, .. } => !entries.is_empty(),
        }
    }

    /// What holds anyway is what stands in the section this one is laid over.
    fn inherit(&mut self, from: &[Self]) {
        let Shape::Section { keys, .. } = &mut self.shape else { return };
        for (key, from) in keys.iter_mut().zip(from) {
            if let (Shape::Value { default, .. }, Shape::Value { current, .. }) =
                (&mut key.shape, &from.shape)
            {
                default.clone_from(current);
            }
        }
    }
}

/// Whether a section within an entry lies over one that holds for all entries.
fn is_laid_over(key: &Key) -> bool {
    matches!(key.name.as_str(), "authentication" | "greylist" | "limits" | "strangers" | "timeouts")
}

fn reference_section(page: &mut String, path: &str, title: &str, about: &[&str], keys: &[Key]) {
    // Writing to a String does not fail.
    if !title.is_empty() {
        let _ = write!(page, "\n## `{title}`\n");
    }
    let _ = write!(page, "\n{}\n", about.concat().trim());
    if keys.iter().any(|key| matches!(key.shape, Shape::Value { .. })) {
        page.push_str("\n| key | type | default | change | |\n|---|---|---|---|---|\n");
    }
    for key in keys {
        let mut meaning = key.doc.concat();
        let change = match key.takes {
            Takes::Reload => "",
            Takes::Restart => "restart",
        };
        let (kind, default) = match &key.shape {
            Shape::Value { kind, choices, default, .. } => {
                for (word, words) in *choices {
                    let _ = write!(meaning, "<br>`\"{word}\"`: {}", words.trim());
                }
                // What a sample cannot do without, an entry cannot.
                let needed = title.starts_with("[[") && key.is_said();
                (kind.as_str(), if needed { "must be written".into() } else { format!("`{default}`") })
            }
            // A section laid over another one has no defaults of its own.
            Shape::Section { .. } if title.starts_with("[[") => ("section", String::new()),
            Shape::Section { .. } | Shape::Entries { .. } => continue,
        };
        let cells = [format!("`{}`", key.name), kind.to_owned(), default, change.to_owned(), meaning];
        let cells = cells.map(|cell| cell.trim().replace('|', "\\|"));
        let _ = writeln!(page, "| {} |", cells.join(" | "));
    }
    for key in keys {
        let path = below(path, &key.name);
        match &key.shape {
            Shape::Value { .. } => {}
            Shape::Section { .. } if title.starts_with("[[") && is_laid_over(key) => {}
            Shape::Section { about, keys } => {
                reference_section(page, &path, &format!("[{path}]"), about, keys);
            }
            Shape::Entries { about, sample, .. } => {
                reference_section(page, &path, &format!("[[{path}]]"), about, sample);
            }
        }
    }
}
