//! Files that are not TOML, or not even text: where, which key, and what to do about it.

use std::{ops::Range, path::Path, string::FromUtf8Error};

use crate::{
    ConfigError, Place, Problem,
    reader::{Reader, shown},
    schema::below,
};

/// Tells of a place where the parser could not go on.
pub(crate) fn report(reader: &mut Reader<'_>, text: &str, message: &str, span: Range<usize>) {
    let lines = Lines { text };
    let at = lines.number(span.start);
    // What follows on the same line follows from the first mistake.
    if reader
        .errors
        .last()
        .and_then(|error| error.place.as_ref())
        .is_some_and(|place| place.file == reader.file() && place.line == at)
    {
        return;
    }
    let key = lines.key(at);
    if message == "duplicate key" {
        let first = lines.first(at);
        let remedy = if lines.is_header(at) {
            "keep one, and write all its keys below it"
        } else {
            "keep one of the two"
        };
        return reader.report_at(key, span, Problem::Twice { first }, remedy.into());
    }
    let (message, remedy) = match message.split_once(", expected") {
        Some((message @ "string values must be quoted", _)) => {
            let value = text.get(span.start..).unwrap_or_default();
            let end = value.find(['\n', '\r', '#', ',', ']', ' ']).unwrap_or(value.len());
            let remedy = match shown(&value[..end]) {
                nothing if nothing.is_empty() => "write the value behind the equals sign".to_owned(),
                text => format!("write \"{text}\""),
            };
            (message, remedy)
        }
        Some((message @ "key with no value", _)) => (message, "write key = value".to_owned()),
        Some(_) | None => (message, String::new()),
    };
    reader.report_at(key, span, Problem::Syntax(message.to_owned()), remedy);
}

/// What to say of a file that is not UTF-8, as TOML must be.
pub(crate) fn not_utf8(file: &Path, error: &FromUtf8Error) -> ConfigError {
    let bytes = error.as_bytes();
    let offset = error.utf8_error().valid_up_to();
    let before = String::from_utf8_lossy(&bytes[..offset]);
    let line = before.rsplit('\n').next().unwrap_or_default();
    let remedy = match bytes {
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => "this is UTF-16: save it as UTF-8",
        _ => "save it as UTF-8; from Latin-1, `iconv -f LATIN1 -t UTF-8` makes it so",
    };
    ConfigError {
        place: Some(Place {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: line.chars().count() + 1,
        }),
        key: String::new(),
        problem: Problem::NotUtf8 { byte: bytes.get(offset).copied().unwrap_or_default(), offset },
        remedy: remedy.into(),
    }
}

/// A file as lines, counted from 1, with no more understanding than a reader's eye has.
struct Lines<'a> {
    text: &'a str,
}

impl Lines<'_> {
    fn number(&self, offset: usize) -> usize {
        self.text.as_bytes()[..offset.min(self.text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn line(&self, number: usize) -> &str {
        self.text.split('\n').nth(number - 1).unwrap_or_default().trim()
    }

    fn is_header(&self, number: usize) -> bool {
        self.line(number).starts_with('[')
    }

    /// The name of the section that the line opens.
    fn header(&self, number: usize) -> &str {
        let line = self.line(number).trim_start_matches('[');
        line.split([']', '#']).next().unwrap_or_default().trim()
    }

    /// What stands before the equals sign.
    fn name(&self, number: usize) -> Option<&str> {
        let (name, _) = self.line(number).split_once('=')?;
        let name = name.trim().trim_matches(['"', '\'']);
        (!name.is_empty() && !name.starts_with('#')).then_some(name)
    }

    /// The line that opens the section in which this one is.
    fn opening(&self, number: usize) -> Option<usize> {
        (1..=number).rev().find(|line| self.is_header(*line))
    }

    fn key(&self, number: usize) -> String {
        let section = self.opening(number).map_or("", |line| self.header(line));
        let name = self.name(number).filter(|_| !self.is_header(number));
        shown(&name.map_or_else(|| section.to_owned(), |name| below(section, name)))
    }

    /// Where the key or section of this line was written first.
    fn first(&self, number: usize) -> Option<usize> {
        if self.is_header(number) {
            let section = self.header(number);
            let is_part = |line: usize| {
                let rest = self.name(line).and_then(|name| name.strip_prefix(section));
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            return (1..number).find(|line| match self.opening(*line) {
                Some(opening) => opening == *line && self.header(*line) == section,
                None => is_part(*line),
            });
        }
        let name = self.name(number)?;
        let from = self.opening(number).unwrap_or(1);
        (from..number).find(|line| self.name(*line) == Some(name))
    }
}
