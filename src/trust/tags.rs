//! Tag lists: `name=value; name=value` (RFC 6376 §3.2).

/// Why octets are no tag list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoTagList;

/// No list that is meant has more; telling names apart takes time by their square.
const TAGS_MAX: usize = 64;

/// A name and its value.
pub(crate) type Tag<'a> = (&'a [u8], &'a [u8]);

/// Reads a tag list; each value is without the white space around it.
///
/// Strict, as the signature's list has to be: "If a tag name does occur more than once, the entire tag-list is
/// invalid" (RFC 6376 §3.2).
pub(crate) fn tags(list: &[u8]) -> Result<Vec<Tag<'_>>, NoTagList> {
    let mut tags: Vec<Tag<'_>> = Vec::with_capacity(12);
    let list = list.trim_ascii();
    let list = list.strip_suffix(b";").unwrap_or(list);
    for tag in list.split(|octet| *octet == b';') {
        let (name, value) = tag_of(tag).ok_or(NoTagList)?;
        // Names are case-sensitive; no two that differ in case alone are meant well.
        if tags.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            return Err(NoTagList);
        }
        if tags.len() == TAGS_MAX {
            return Err(NoTagList);
        }
        tags.push((name, value));
    }
    Ok(tags)
}

/// The tags of a list that is read as far as it can be; of several with one name the first.
pub(crate) fn tags_loosely(list: &[u8]) -> Vec<Tag<'_>> {
    let mut tags: Vec<Tag<'_>> = Vec::new();
    for (name, value) in list.split(|octet| *octet == b';').filter_map(tag_of).take(TAGS_MAX) {
        if !tags.iter().any(|(other, _)| *other == name) {
            tags.push((name, value));
        }
    }
    tags
}

/// The value of a tag.
pub(crate) fn value_of<'a>(tags: &[Tag<'a>], name: &[u8]) -> Option<&'a [u8]> {
    tags.iter().find(|(other, _)| *other == name).map(|(_, value)| *value)
}

/// The items of a value, parted by colons.
pub(crate) fn items(value: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    value.split(|octet| *octet == b':').map(<[u8]>::trim_ascii)
}

/// The number of `t=`, `x=` and `l=`: digits and nothing else (RFC 6376 §3.5).
pub(crate) fn number(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    // More than a number can hold is later than all time.
    digits.then(|| str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX))
}

fn tag_of(tag: &[u8]) -> Option<Tag<'_>> {
    let equals = tag.iter().position(|octet| *octet == b'=')?;
    let (name, value) = (tag[..equals].trim_ascii(), tag[equals + 1..].trim_ascii());
    let valid = name.first().is_some_and(u8::is_ascii_alphabetic)
        && name.iter().all(|octet| octet.is_ascii_alphanumeric() || *octet == b'_');
    valid.then_some((name, value))
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn tag_lists_good_and_bad() {
        let list = b" v=1; a = rsa-sha256;\r\n\tb=ab=\r\n c= ; q=dns/txt ;\r\n";
        let expected: &[Tag<'_>] =
            &[(b"v", b"1"), (b"a", b"rsa-sha256"), (b"b", b"ab=\r\n c="), (b"q", b"dns/txt")];
        assert_eq!(tags(list).unwrap(), expected);
        assert_eq!(value_of(expected, b"a"), Some(b"rsa-sha256".as_slice()));
        assert_eq!(value_of(expected, b"A"), None);
        for bad in ["", ";", "v", "v=1;;a=b", "v=1; t; a=b", "v=1; V=2", "a=b; a=b", "1=a", "a b=c", "=a"] {
            assert_eq!(tags(bad.as_bytes()), Err(NoTagList), "{bad}");
        }
        assert_eq!(tags_loosely(b"v=1;;t; a=b; a=c;1=x").len(), 2);
        let many = |n: usize| (0..n).map(|i| format!("t{i}=x;")).collect::<String>();
        assert_eq!(tags(many(TAGS_MAX).as_bytes()).map(|tags| tags.len()), Ok(TAGS_MAX));
        assert_eq!(tags(many(TAGS_MAX + 1).as_bytes()), Err(NoTagList));
        assert_eq!(tags_loosely(many(TAGS_MAX + 1).as_bytes()).len(), TAGS_MAX);
    }

    #[test]
    fn numbers() {
        assert_eq!(number(b"1234"), Some(1234));
        assert_eq!(number(b"99999999999999999999999"), Some(u64::MAX));
        for bad in ["", "-1", "+1", "1 2", "0x1", "1a"] {
            assert_eq!(number(bad.as_bytes()), None, "{bad}");
        }
    }
}
