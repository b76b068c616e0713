//! From files to a [`Config`].

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use toml::de::DeTable;

use crate::{Config, ConfigError, Place, Places, Problem, Warning, reader::Reader, schema::Section, syntax};

/// One file and what is in it.
#[derive(Clone, Debug)]
pub struct Source {
    /// For messages; relative paths in the configuration begin at the folder of the first one.
    pub file: PathBuf,
    /// The TOML.
    pub text: String,
}

/// A configuration, and where its keys stand.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// For messages about what turns out later: a port that is in use, a file that cannot be read.
    pub places: Places,
    /// Lists of an earlier file that a later one replaced.
    replaced: Vec<Warning>,
}

impl Loaded {
    /// Reads a configuration file, and whatever ends in `.toml` in the folder `conf.d` beside it, by name.
    /// A later file overrides keys of an earlier one, adds sections to lists of sections, and changes those
    /// of the same name.
    ///
    /// # Errors
    /// Every mistake found, in the order of the files.
    pub fn read(path: &Path) -> Result<Self, Vec<ConfigError>> {
        let path = std::path::absolute(path).map_err(|error| vec![unreadable(path, &error)])?;
        let files = [path.clone()].into_iter().chain(drop_ins(&path)?);
        let (mut sources, mut errors) = (Vec::new(), Vec::new());
        for file in files {
            match read(&file) {
                Ok(text) => sources.push(Source { file, text }),
                Err(error) => errors.push(*error),
            }
        }
        let loaded = Self::from_sources(&sources);
        if errors.is_empty() {
            return loaded;
        }
        // Without one of the files, only what is wrong by itself is known to be wrong.
        let alone =
            |error: &ConfigError| !matches!(error.problem, Problem::Conflict(_) | Problem::Missing { .. });
        errors.extend(loaded.err().unwrap_or_default().into_iter().filter(alone));
        Err(errors)
    }

    /// The same, of files already read.
    ///
    /// # Errors
    /// Every mistake found, in the order of the files.
    pub fn from_sources(sources: &[Source]) -> Result<Self, Vec<ConfigError>> {
        let mut reader = Reader::new();
        let mut tables = Vec::new();
        for source in sources {
            let (table, errors) = DeTable::parse_recoverable(&source.text);
            reader.open(&source.file, &source.text);
            for error in errors {
                syntax::report(&mut reader, &source.text, error.message(), error.span().unwrap_or(0..0));
            }
            tables.push((source, table));
        }
        if !reader.errors.is_empty() {
            return Err(reader.errors);
        }
        let (mut config, mut replaced) = (Config::default(), Vec::new());
        for (source, table) in &tables {
            reader.open(&source.file, &source.text);
            let before = site_lists(&config).map(|(key, list)| (list, reader.places.of(key).cloned()));
            config.apply(table.get_ref(), &mut reader);
            for ((key, list), (lost, place)) in site_lists(&config).into_iter().zip(before) {
                replaced.extend(place.and_then(|place| replacement(key, &list, &lost, &place)));
            }
        }
        config.know_providers(&tables.iter().map(|(_, table)| table.get_ref()).collect::<Vec<_>>());
        config.inherit(&tables.iter().map(|(_, table)| table.get_ref()).collect::<Vec<_>>());
        if reader.errors.is_empty() {
            config.check(&mut reader);
        }
        if !reader.errors.is_empty() {
            return Err(reader.errors);
        }
        if let Some(folder) = sources.first().and_then(|source| source.file.parent()) {
            config.each_path(&mut |path| {
                // One that is not named is none.
                if !path.as_os_str().is_empty() {
                    *path = folder.join(&*path);
                }
            });
        }
        Ok(Self { config, places: reader.places, replaced })
    }

    /// Lists of an earlier file that a later one replaced, and not with all that was in them. A reload tells of these: whoever
    /// was turned away is not any more.
    pub fn replaced(&self) -> &[Warning] {
        &self.replaced
    }

    /// What works, but not as somebody may think: [`Config::warnings`], and what is known of the files alone.
    pub fn warnings(&self, cpus_usable: usize) -> Vec<Warning> {
        let mut warnings = self.config.warnings(cpus_usable);
        warnings.extend(self.replaced.iter().cloned());
        warnings
    }
}

impl Config {
    /// [`Loaded::read`], for whoever has no use for the places.
    ///
    /// # Errors
    /// Every mistake found, in the order of the files.
    pub fn load(path: &Path) -> Result<Self, Vec<ConfigError>> {
        Loaded::read(path).map(|loaded| loaded.config)
    }

    /// Where mail is kept, whatever else is wrong with the configuration: for whoever asks a server that runs.
    ///
    /// # Errors
    /// When the file itself cannot be read.
    pub fn data_directory(path: &Path) -> Result<PathBuf, Vec<ConfigError>> {
        let path = std::path::absolute(path).map_err(|error| vec![unreadable(path, &error)])?;
        let main = read(&path).map_err(|error| vec![*error])?;
        let others = drop_ins(&path).unwrap_or_default();
        let texts = [main].into_iter().chain(others.iter().filter_map(|file| read(file).ok()));
        let mut directory = Self::default().data_directory;
        for text in texts {
            let (table, _) = DeTable::parse_recoverable(&text);
            let said = table.get_ref().get("data-directory").and_then(|value| value.get_ref().as_str());
            directory = said.filter(|said| !said.is_empty()).map_or(directory, PathBuf::from);
        }
        Ok(path.parent().map_or_else(|| directory.clone(), |folder| folder.join(&directory)))
    }

    /// [`Loaded::from_sources`], for whoever has no use for the places.
    ///
    /// # Errors
    /// Every mistake found, in the order of the files.
    pub fn from_sources(sources: &[Source]) -> Result<Self, Vec<ConfigError>> {
        Loaded::from_sources(sources).map(|loaded| loaded.config)
    }

    /// Adds the rules that come with the program, behind those of the operator; one of the same name lies over ours.
    fn know_providers(&mut self, tables: &[&DeTable<'_>]) {
        if !self.queue.provider_rules {
            return;
        }
        for mut shipped in shipped_sites() {
            match self.sites.iter_mut().find(|site| site.name.eq_ignore_ascii_case(&shipped.name)) {
                None => self.sites.push(shipped),
                Some(site) => {
                    let entries = tables.iter().filter_map(|table| table.get("site")?.get_ref().as_array());
                    for table in entries.flatten().filter_map(|entry| entry.get_ref().as_table()) {
                        let name = table.get("name").and_then(|name| name.get_ref().as_str());
                        if name.is_some_and(|name| name.eq_ignore_ascii_case(&site.name)) {
                            // Whatever is wrong in it was told when it was read first.
                            shipped.apply(table, &mut Reader::new());
                        }
                    }
                    *site = shipped;
                }
            }
        }
    }

    /// What a listener does not say of limits, timeouts, verification and strangers is as it is everywhere. Known only when all files
    /// are read: so what listeners do say is laid over that once more.
    fn inherit(&mut self, tables: &[&DeTable<'_>]) {
        for listener in &mut self.listeners {
            listener.authentication = self.authentication.clone();
            listener.strangers = self.strangers.clone();
            listener.greylist = self.greylist.clone();
            listener.limits = self.limits.clone();
            listener.timeouts = self.timeouts.inbound.clone();
            let same_name = |table: &&DeTable<'_>| {
                let name = table.get("name").and_then(|name| name.get_ref().as_str());
                name.is_some_and(|name| name.eq_ignore_ascii_case(&listener.name))
            };
            let entries = tables.iter().filter_map(|table| table.get("listener")?.get_ref().as_array());
            let said = entries.flatten().filter_map(|entry| entry.get_ref().as_table()).filter(same_name);
            let said: Vec<_> = said.collect();
            // Whatever is wrong in them was told when they were read first.
            let mut silent = Reader::new();
            for table in said {
                let own = table.get("authentication").and_then(|value| value.get_ref().as_table());
                if let Some(authentication) = own {
                    listener.authentication.apply(authentication, &mut silent);
                }
                if let Some(strangers) = table.get("strangers").and_then(|value| value.get_ref().as_table()) {
                    listener.strangers.apply(strangers, &mut silent);
                }
                if let Some(greylist) = table.get("greylist").and_then(|value| value.get_ref().as_table()) {
                    listener.greylist.apply(greylist, &mut silent);
                }
                if let Some(limits) = table.get("limits").and_then(|value| value.get_ref().as_table()) {
                    listener.limits.apply(limits, &mut silent);
                }
                if let Some(timeouts) = table.get("timeouts").and_then(|value| value.get_ref().as_table()) {
                    listener.timeouts.apply(timeouts, &mut silent);
                }
            }
        }
    }
}

/// The rules for providers that come with the program.
pub(crate) const PROVIDERS: &str = include_str!("providers.toml");

fn shipped_sites() -> Vec<crate::Site> {
    let table = DeTable::parse(PROVIDERS).expect("our own text");
    let (mut config, mut reader) = (Config::default(), Reader::new());
    config.apply(table.get_ref(), &mut reader);
    assert!(reader.errors.is_empty(), "our own text: {:?}", reader.errors);
    config.sites
}

/// The lists that several files may each want to add to, and what is in them. It matters who is no longer turned away.
fn site_lists(config: &Config) -> [(&'static str, Vec<String>); 3] {
    fn texts<T: ToString>(list: &[T]) -> Vec<String> {
        list.iter().map(T::to_string).collect()
    }
    [
        ("clients.allow", texts(&config.clients.allow)),
        ("clients.deny", texts(&config.clients.deny)),
        ("senders.deny", texts(&config.senders.deny)),
    ]
}

/// What to say when a file has the list anew, and not all that was in it before.
fn replacement(key: &str, list: &[String], before: &[String], place: &Place) -> Option<Warning> {
    let lost = before.iter().find(|entry| !list.contains(entry))?;
    let text = format!(
        "replaces the list at {place}, and {lost} is no longer in it: a later file does not add to a list; \
         write all of it at one of the two places"
    );
    Some(Warning { key: key.to_owned(), text })
}

fn read(path: &Path) -> Result<String, Box<ConfigError>> {
    let bytes = fs::read(path).map_err(|error| unreadable(path, &error))?;
    String::from_utf8(bytes).map_err(|error| syntax::not_utf8(path, &error).into())
}

fn unreadable(path: &Path, error: &std::io::Error) -> ConfigError {
    let remedies = [
        (ErrorKind::NotFound, "`ringpost init` makes a configuration to begin with"),
        (ErrorKind::PermissionDenied, "see that this user may read it, and enter every folder above it"),
        (ErrorKind::IsADirectory, "name the file in it"),
    ];
    let remedy = remedies.iter().find(|(kind, _)| *kind == error.kind());
    let remedy = remedy.map_or("see that it can be read", |(_, remedy)| remedy);
    ConfigError {
        place: None,
        key: String::new(),
        problem: Problem::Unreadable(format!("{}: {error}", path.display())),
        remedy: remedy.into(),
    }
}

/// The files of `conf.d`, sorted by name; none when there is no such folder.
fn drop_ins(path: &Path) -> Result<Vec<PathBuf>, Vec<ConfigError>> {
    let folder = path.with_file_name("conf.d");
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(vec![unreadable(&folder, &error)]),
    };
    let mut files = Vec::new();
    for entry in entries {
        let file = entry.map_err(|error| vec![unreadable(&folder, &error)])?.path();
        let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && file.extension().is_some_and(|extension| extension == "toml") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}
