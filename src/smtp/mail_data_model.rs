//! The rules of RFC 5321 §4.5.2, one octet at a time: what the scanner of mail data is compared with.

use super::Findings;

/// What is found in mail data.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) content: Vec<u8>,
    /// Octets up to the end, if it came.
    pub(crate) end: Option<usize>,
    pub(crate) findings: Findings,
}

pub(crate) fn scan(wire: &[u8]) -> Found {
    let mut content = Vec::new();
    let mut end = None;
    for at in 0..wire.len() {
        let line_start = at == 0 || wire[..at].ends_with(b"\r\n");
        if line_start && wire[at..].starts_with(b".\r\n") {
            end = Some(at + 3);
            break;
        }
        if !(line_start && wire[at] == b'.') {
            content.push(wire[at]);
        }
    }
    // What may still become the end is held back.
    if end.is_none() && (wire == b".\r" || wire.ends_with(b"\r\n.\r")) {
        content.pop();
    }
    let findings = findings(&wire[..end.unwrap_or(wire.len())], &content);
    Found { content, end, findings }
}

fn findings(seen: &[u8], content: &[u8]) -> Findings {
    // A CR at the end may get its LF.
    let bare_cr = |i: usize| seen[i] == b'\r' && seen.get(i + 1).is_some_and(|next| *next != b'\n');
    let bare_lf = |i: usize| seen[i] == b'\n' && (i == 0 || seen[i - 1] != b'\r');
    let long = |line: &[u8]| line.len() > 1000 || line.len() == 1000 && !line.ends_with(b"\n");
    Findings {
        size: content.len() as u64,
        bare_cr: (0..seen.len()).any(bare_cr),
        bare_lf: (0..seen.len()).any(bare_lf),
        nul: seen.contains(&0),
        eight_bit: !seen.is_ascii(),
        long_line: content.split_inclusive(|b| *b == b'\n').any(long),
        open_end: false,
    }
}
