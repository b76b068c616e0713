//! Reading one file after the other: where we are, what was wrong, and where each key stood.

use std::{ops::Range, path::Path};

use toml::{
    Spanned,
    de::{DeString, DeValue},
};

use crate::{
    Config, ConfigError, Place, Places, Problem,
    schema::{Key, Section as _, Shape, below},
};

/// At most so many mistakes are told: a file that is not a configuration at all has no end of them.
const ERRORS_MAX: usize = 50;

/// What walks through the files of one configuration.
pub(crate) struct Reader<'a> {
    file: &'a Path,
    text: &'a str,
    path: Vec<String>,
    /// What was wrong so far.
    pub(crate) errors: Vec<ConfigError>,
    /// Where each key stood last.
    pub(crate) places: Places,
}

impl<'a> Reader<'a> {
    /// At the start of the first file.
    pub(crate) fn new() -> Self {
        Self {
            file: Path::new(""),
            text: "",
            path: Vec::new(),
            errors: Vec::new(),
            places: Places::default(),
        }
    }

    /// Goes on to the next file.
    pub(crate) fn open(&mut self, file: &'a Path, text: &'a str) {
        (self.file, self.text) = (file, text);
    }

    /// Goes into a key.
    pub(crate) fn enter(&mut self, key: &Spanned<DeString<'_>>) {
        self.enter_named(key.get_ref(), key.span());
    }

    /// Goes into an entry of an array of tables.
    pub(crate) fn enter_named(&mut self, name: &str, span: Range<usize>) {
        self.path.push(shown(name));
        let place = self.place(span);
        self.places.note(self.key(), place);
    }

    /// Comes out again.
    pub(crate) fn leave(&mut self) {
        self.path.pop();
    }

    /// The value is not what this key wants.
    pub(crate) fn wrong(&mut self, value: &Spanned<DeValue<'_>>, expected: String, remedy: String) {
        let found = found(value.get_ref());
        self.report(value.span(), Problem::Value { expected, found }, remedy);
    }

    /// The section has no such key.
    pub(crate) fn unknown_key(&mut self, span: Range<usize>, known: &[String]) {
        let key = self.path.last().map_or("", String::as_str);
        let written = key.to_ascii_lowercase().replace('_', "-");
        let near = known.iter().map(|name| (distance(&written, name), name)).min();
        let remedy = match (near, homes(&written)) {
            (Some((0 | 1, name)), _) => format!("did you mean `{name}`?"),
            (_, Some(homes)) => homes,
            (Some((distance, name)), None) if distance <= 1 + key.len() / 4 => {
                format!("did you mean `{name}`?")
            }
            (Some(_) | None, None) => format!("known here: {}", known.join(", ")),
        };
        self.report(span, Problem::UnknownKey, remedy);
    }

    /// Notes a mistake at the key we are in.
    pub(crate) fn report(&mut self, span: Range<usize>, problem: Problem, remedy: String) {
        self.report_at(self.key(), span, problem, remedy);
    }

    /// Notes a mistake at another key, once.
    pub(crate) fn report_at(&mut self, key: String, span: Range<usize>, problem: Problem, remedy: String) {
        let place = Some(self.place(span));
        self.push(ConfigError { place, key, problem, remedy });
    }

    /// Notes a mistake, once.
    pub(crate) fn push(&mut self, error: ConfigError) {
        if self.errors.len() < ERRORS_MAX && !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    /// The file we are in.
    pub(crate) fn file(&self) -> &Path {
        self.file
    }

    fn key(&self) -> String {
        self.path.join(".")
    }

    fn place(&self, span: Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Place {
            file: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// In which sections there is a key of that name.
fn homes(name: &str) -> Option<String> {
    fn walk(name: &str, section: String, path: &str, keys: &[Key], found: &mut Vec<String>) {
        if keys.iter().any(|key| key.name == name) {
            found.push(section);
        }
        for key in keys {
            let path = below(path, &key.name);
            match &key.shape {
                Shape::Value { .. } => {}
                Shape::Section { keys, .. } => walk(name, format!("in [{path}]"), &path, keys, found),
                Shape::Entries { sample, .. } => {
                    walk(name, format!("in a [[{path}]]"), &path, sample, found);
                }
            }
        }
    }
    let mut found = Vec::new();
    walk(name, "before the first section".to_owned(), "", &Config::default().describe(), &mut found);
    // The widest first.
    found.sort_by_key(|section| section.matches('.').count());
    (!found.is_empty()).then(|| format!("there is a `{name}` {}", found.join(" and ")))
}

/// What somebody wrote, short enough for a message, on one line.
pub(crate) fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 60;
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut short: String = text.chars().take(SHOWN_MAX).map(visible).collect();
    if text.chars().count() > SHOWN_MAX {
        short.push('…');
    }
    short
}

fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("\"{}\"", shown(text)),
        DeValue::Integer(number) => format!("the number {}", shown(&number.to_string())),
        DeValue::Float(number) => format!("the number {}", shown(&number.to_string())),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(value) => format!("the date {value}"),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

/// How many characters to change, add or drop.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
