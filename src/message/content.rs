//! Content as slices: lengths and ranges, without copying a byte.

use std::ops::Range;

use bytes::Bytes;

/// How many octets all slices hold.
pub fn len(content: &[Bytes]) -> usize {
    content.iter().map(Bytes::len).sum()
}

/// The slices of a range of the content; what lies behind its end is left out.
pub fn slice(content: &[Bytes], range: Range<usize>) -> Vec<Bytes> {
    let mut slices = Vec::new();
    let mut start = 0;
    for part in content {
        let from = range.start.saturating_sub(start).min(part.len());
        let to = range.end.saturating_sub(start).min(part.len());
        if from < to {
            slices.push(part.slice(from..to));
        }
        start += part.len();
    }
    slices
}

/// The octets of a range in one piece: for short ranges such as a field's value.
pub fn gather(content: &[Bytes], range: Range<usize>) -> Vec<u8> {
    slice(content, range).concat()
}

/// Whether the octets occur anywhere, also across slices.
pub fn contains(content: &[Bytes], needle: &[u8]) -> bool {
    let finder = memchr::memmem::Finder::new(needle);
    // The last octets before a seam, and the first behind it.
    let mut seam: Vec<u8> = Vec::with_capacity(needle.len() * 2);
    for part in content {
        if finder.find(part).is_some() {
            return true;
        }
        let keep = needle.len().saturating_sub(1);
        seam.extend_from_slice(&part[..part.len().min(keep)]);
        if finder.find(&seam).is_some() {
            return true;
        }
        if part.len() > keep {
            seam.clear();
            seam.extend_from_slice(&part[part.len() - keep..]);
        } else {
            let surplus = seam.len().saturating_sub(keep);
            seam.drain(..surplus);
        }
    }
    false
}

#[cfg(test)]
mod test {
    use super::*;

    fn cut(text: &'static str, at: &[usize]) -> Vec<Bytes> {
        let bytes = Bytes::from_static(text.as_bytes());
        let ends = at.iter().copied().chain([text.len()]);
        let mut from = 0;
        ends.map(|to| bytes.slice(std::mem::replace(&mut from, to)..to)).collect()
    }

    #[test]
    fn a_range_is_the_same_however_the_content_is_cut() {
        for at in [&[][..], &[1], &[4, 4, 5], &[1, 2, 3, 4, 5, 6, 7]] {
            let content = cut("abcdefghij", at);
            assert_eq!(len(&content), 10);
            assert_eq!(gather(&content, 3..7), b"defg");
            assert_eq!(gather(&content, 8..99), b"ij");
            assert_eq!(gather(&content, 5..5), b"");
        }
    }

    #[test]
    fn a_needle_is_found_across_any_seam() {
        for i in 0..10 {
            for j in i..10 {
                let content = cut("abcdefghij", &[i, j]);
                for needle in ["abc", "defg", "hij", "j", "abcdefghij"] {
                    assert!(contains(&content, needle.as_bytes()), "{needle} {i} {j}");
                }
                for needle in ["ac", "jk", "ba", "cde "] {
                    assert!(!contains(&content, needle.as_bytes()), "{needle} {i} {j}");
                }
            }
        }
    }
}
