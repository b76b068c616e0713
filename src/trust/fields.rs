//! The fields of a header section, by their places.
//!
//! A line ends with CRLF and with nothing else, as everywhere in this house. (mail-auth's own reader takes a bare
//! LF for a line end, and a line without a colon for the end of the header section: `common/headers.rs`,
//! `scan_field`. Whoever writes such a line before the `From` would have his mail judged as if it had none.)

use std::{mem, ops::Range};

use memchr::memmem;

/// A field: from its name to behind its CRLF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    start: usize,
    /// Where the name ends, without white space before the colon.
    name_end: usize,
    /// Where the value begins.
    value: usize,
    end: usize,
}

impl Field {
    /// The name as it is written.
    pub(crate) fn name<'a>(&self, header: &'a [u8]) -> &'a [u8] {
        &header[self.start..self.name_end]
    }

    /// All behind the colon, with the CRLF.
    pub(crate) fn value<'a>(&self, header: &'a [u8]) -> &'a [u8] {
        &header[self.value..self.end]
    }

    /// The octets of the whole field.
    pub(crate) const fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    /// Whether something stands between the name and the colon.
    pub(crate) const fn has_space_before_colon(&self) -> bool {
        self.name_end + 1 < self.value
    }

    /// Whether it has that name; case is of no matter (RFC 5322 §1.2.2).
    pub(crate) fn is(&self, header: &[u8], name: &str) -> bool {
        self.name(header).eq_ignore_ascii_case(name.as_bytes())
    }
}

/// The fields of a header section, first to last. Lines that are no field are left out.
pub(crate) fn fields(header: &[u8]) -> impl Iterator<Item = Field> {
    let mut start = 0;
    // A line that begins with white space continues the one before (RFC 5322 §2.2.3).
    let ends = memmem::find_iter(header, b"\r\n").map(|at| at + 2);
    let ends = ends.filter(|end| !matches!(header.get(*end), Some(b' ' | b'\t'))).chain([header.len()]);
    ends.filter_map(move |end| field(header, mem::replace(&mut start, end), end))
}

fn field(header: &[u8], start: usize, end: usize) -> Option<Field> {
    let colon = memchr::memchr(b':', &header[start..end])?;
    // White space before the colon is obsolete syntax, to be understood (RFC 5322 §4.5).
    let name = header[start..start + colon].trim_ascii_end();
    let valid = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    valid.then_some(Field { start, name_end: start + name.len(), value: start + colon + 1, end })
}

#[cfg(test)]
mod test {
    use super::*;

    fn check(header: &str, expected: &[(&str, &str)]) {
        let header = header.as_bytes();
        let found: Vec<_> = fields(header)
            .map(|field| (field.name(header), field.value(header)))
            .map(|(name, value)| (str::from_utf8(name).unwrap(), str::from_utf8(value).unwrap()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn fields_of_a_header_section() {
        check("", &[]);
        check("A: b\r\nc:d\r\n", &[("A", " b\r\n"), ("c", "d\r\n")]);
        check("A: b\r\n c\r\n\td\r\nE:\r\n", &[("A", " b\r\n c\r\n\td\r\n"), ("E", "\r\n")]);
        check("A : b", &[("A", " b")]);
    }

    #[test]
    fn what_is_no_field_hides_none() {
        check("no colon\r\nFrom: x\r\n", &[("From", " x\r\n")]);
        check(" continues nothing: x\r\nFrom: x\r\n", &[("From", " x\r\n")]);
        check(": no name\r\ntwo words: x\r\nFrom: x\r\n", &[("From", " x\r\n")]);
        // A bare LF ends no line, so that nothing behind it is a field.
        check("A: b\nFrom: x\r\n", &[("A", " b\nFrom: x\r\n")]);
        check("A: b\rFrom: x\r\n", &[("A", " b\rFrom: x\r\n")]);
    }
}
