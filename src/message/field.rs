//! Single fields of a header section that is there as a whole, by their names.

use memchr::memmem;

/// The value of the first field with this name, folded as it is; none when there is none.
///
/// A line ends with CRLF and with nothing else, as in [`crate::HeaderScan`].
pub fn field<'a>(header: &'a [u8], name: &str) -> Option<&'a [u8]> {
    each_field(header, name).next()
}

/// The values of all fields with this name, in their order.
pub(crate) fn each_field<'a>(header: &'a [u8], name: &str) -> impl Iterator<Item = &'a [u8]> {
    fields(header)
        .filter(move |(other, _)| other.eq_ignore_ascii_case(name.as_bytes()))
        .map(|(_, value)| value)
}

/// The names and values of all fields, in their order; lines that are no field are left out.
pub fn fields(header: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = header;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (line, after) = unfolded(rest);
            rest = if line.is_empty() { &[] } else { after };
            if let Some(colon) = memchr::memchr(b':', line) {
                // White space before the colon is the obsolete syntax (RFC 5322 §4.5).
                return Some((line[..colon].trim_ascii_end(), &line[colon + 1..]));
            }
        }
        None
    })
}

/// What a `List-Id` says, or a field like it: what stands between the last angle brackets, or all of it (RFC 2919 §2), without
/// white space at its ends; none when nothing is left, or what no identifier has.
pub fn list_name(value: &[u8], len_max: usize) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    let inner = text.rsplit_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(inner, _)| inner);
    let name = inner.unwrap_or(text).trim();
    let sound = !name.is_empty() && name.len() <= len_max && !name.chars().any(char::is_control);
    sound.then(|| name.to_owned())
}

/// A field's value as one line, at most so many octets of it, without white space at its ends; none when nothing is left, or when it is no
/// text.
pub fn one_line(value: &[u8], len_max: usize) -> Option<Box<str>> {
    // Line breaks, and white space before the first word, are not among what is kept.
    const LOOKED_AT: usize = 998;
    let value = &value[..value.len().min(LOOKED_AT)];
    let octets = value.iter().filter(|octet| !matches!(octet, b'\r' | b'\n'));
    let octets: Vec<u8> = octets.map(|octet| if *octet == b'\t' { b' ' } else { *octet }).collect();
    let text = match std::str::from_utf8(&octets) {
        Ok(text) => text,
        // Cut in the middle of a character.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&octets[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let text = text.trim();
    let text = text[..text.floor_char_boundary(len_max)].trim_end();
    let sound = !text.is_empty() && !text.chars().any(char::is_control);
    sound.then(|| text.into())
}

/// A field with its continuations, without the last CRLF, and what follows.
fn unfolded(octets: &[u8]) -> (&[u8], &[u8]) {
    for end in memmem::find_iter(octets, b"\r\n") {
        let after = &octets[end + 2..];
        if !matches!(after.first(), Some(b' ' | b'\t')) {
            return (&octets[..end], after);
        }
    }
    (octets, &[])
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_value_is_one_line_of_text() {
        for (field, expected) in [
            (&b" spring-2026"[..], Some("spring-2026")),
            (b" a\r\n b \r\n", Some("a b")),
            ("\tFrühling ".as_bytes(), Some("Frühling")),
            (b"", None),
            (b" \r\n ", None),
            (b" a\x00b", None),
            (b" a\r\n\tb", Some("a b")),
            (b" a\x7fb", None),
            (b" \xff", None),
        ] {
            assert_eq!(one_line(field, 128).as_deref(), expected, "{field:?}");
        }
        let long = one_line(format!(" {}", "é".repeat(1000)).as_bytes(), 127).unwrap();
        assert_eq!(&*long, "é".repeat(63));
    }

    #[test]
    fn fields_are_found_by_name() {
        let header = b"Subject: x\r\nlist-id : The\r\n\tnews <n@x\r\n >\r\nEmpty:\r\nA: List-Unsubscribe: y\r\n\r\nIn-Body: z\r\n";
        let text = |name| field(header, name).map(|value| String::from_utf8_lossy(value).into_owned());
        assert_eq!(text("LIST-ID").as_deref(), Some(" The\r\n\tnews <n@x\r\n >"));
        assert_eq!(text("Empty").as_deref(), Some(""));
        for name in ["List-Unsubscribe", "List", "In-Body", "Sub"] {
            assert_eq!(text(name), None, "{name}");
        }
        assert_eq!(field(b"A: b", "a"), Some(&b" b"[..]));
        assert_eq!(field(b"A", "a"), None);
    }

    #[test]
    fn lists_are_named_by_what_is_in_brackets() {
        for (value, expected) in [
            (" News of the week <news.example.org>", Some("news.example.org")),
            (" \"<odd>\" < spring sale >\r\n", Some("spring sale")),
            (" news ", Some("news")),
            (" a < b", Some("a < b")),
            ("", None),
            (" <>", None),
            (" a\r\n b", None),
            (" <0123456789abcdefghijk>", None),
        ] {
            assert_eq!(list_name(value.as_bytes(), 20).as_deref(), expected, "{value:?}");
        }
        assert_eq!(list_name(&[0xff], 20), None);
    }
}
