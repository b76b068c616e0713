//! All rotations of keys, and how they are written down.
//!
//! ```text
//!  ringpost-dkim-keys 1
//!  rotation example.org rsa2048 20261129 1 - shop      domain · kind · day and number of the last name ·
//!                                                      + where a new key is wished for · entry
//!  publisher ns                                        where a provider publishes
//!  key rp-20261129-rsa2048 signing 1764387000000000 0 3600 - v=DKIM1; …
//!                                                      selector · phase · since (µs) · waited (ms) · absence (s) ·
//!                                                      x where the private key is gone · record
//!  end
//! ```

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use mail::Timestamp;

use crate::{KeyKind, KeyPhase, RotatedKey, Rotation, RotationId};

/// All rotations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rotations(pub BTreeMap<RotationId, Rotation>);

/// A line that says nothing, by its number; the end of the text where it is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {0} makes no sense")]
pub struct NoRotations(pub usize);

const HEAD: &str = "ringpost-dkim-keys 1";

impl Rotations {
    /// The key of an entry that signs, if there is one.
    pub fn signing(&self, id: &RotationId) -> Option<&RotatedKey> {
        self.0.get(id)?.signing()
    }

    /// Which keys sign.
    pub fn all_signing(&self) -> BTreeMap<&RotationId, &str> {
        self.0.iter().filter_map(|(id, rotation)| Some((id, &*rotation.signing()?.selector))).collect()
    }

    /// As text.
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEAD}\n");
        for (id, rotation) in &self.0 {
            let wish = if rotation.wished { '+' } else { '-' };
            let (day, number) = rotation.last;
            // Writing to a String does not fail.
            let _ = writeln!(
                text,
                "rotation {} {} {day} {number} {wish} {}",
                id.domain,
                id.kind.as_str(),
                id.entry
            );
            if let Some(publisher) = &rotation.publisher {
                let _ = writeln!(text, "publisher {publisher}");
            }
            for key in &rotation.keys {
                let RotatedKey { selector, record, phase, since, waited, absence, erased, .. } = key;
                let _ = writeln!(
                    text,
                    "key {selector} {} {} {} {} {} {record}",
                    phase.as_str(),
                    since.0,
                    waited.as_millis(),
                    absence.as_secs(),
                    if *erased { 'x' } else { '-' }
                );
            }
        }
        text + "end\n"
    }

    /// What [`Rotations::to_text`] has written.
    ///
    /// # Errors
    /// [`NoRotations`] names the line that is none.
    pub fn from_text(text: &str) -> Result<Self, NoRotations> {
        let mut lines = text.lines().zip(1..);
        match lines.next() {
            Some((HEAD, _)) => {}
            _ => return Err(NoRotations(1)),
        }
        let mut all = BTreeMap::new();
        let mut current: Option<(RotationId, Rotation)> = None;
        for (line, number) in lines {
            let wrong = NoRotations(number);
            let (what, rest) = line.split_once(' ').unwrap_or((line, ""));
            match (what, &mut current) {
                ("rotation", current) => all.extend(current.replace(head(rest).ok_or(wrong)?)),
                ("publisher", Some((_, rotation))) => rotation.publisher = Some(rest.into()),
                ("key", Some((_, rotation))) => rotation.keys.push(key(rest).ok_or(wrong)?),
                ("end", _) => {
                    all.extend(current);
                    return Ok(Self(all));
                }
                _ => return Err(wrong),
            }
        }
        Err(NoRotations(text.lines().count() + 1))
    }
}

fn head(line: &str) -> Option<(RotationId, Rotation)> {
    let mut words = line.splitn(6, ' ');
    let mut word = || words.next();
    let (domain, kind, day, number, wish, entry) = (word()?, word()?, word()?, word()?, word()?, word()?);
    let kind = KeyKind::ALL.into_iter().find(|other| other.as_str() == kind)?;
    let last = (day.parse().ok()?, number.parse().ok()?);
    let id = RotationId { entry: entry.into(), domain: domain.into(), kind };
    Some((id, Rotation { last, wished: wish == "+", ..Rotation::default() }))
}

fn key(line: &str) -> Option<RotatedKey> {
    let mut words = line.splitn(7, ' ');
    let mut word = || words.next();
    let (selector, phase, since, waited, absence, erased) =
        (word()?, word()?, word()?, word()?, word()?, word()?);
    // It becomes the name of a file.
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.');
    if selector.is_empty() || !selector.bytes().all(is_plain) {
        return None;
    }
    let phase = KeyPhase::ALL.into_iter().find(|other| other.as_str() == phase)?;
    Some(RotatedKey {
        record: word()?.into(),
        phase,
        waited: Duration::from_millis(waited.parse().ok()?),
        absence: Duration::from_secs(absence.parse().ok()?),
        erased: erased == "x",
        ..RotatedKey::new(selector.into(), Timestamp(since.parse().ok()?))
    })
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut rotations = Rotations::default();
        let id = |entry: &str, kind| RotationId { entry: entry.into(), domain: "example.org".into(), kind };
        let mut keys = vec![RotatedKey::new("rp-1".into(), Timestamp(7))];
        for (place, phase) in KeyPhase::ALL.into_iter().enumerate() {
            keys.push(RotatedKey {
                record: "v=DKIM1; k=rsa; p=AA+/==".into(),
                phase,
                waited: Duration::from_millis(1_500),
                absence: Duration::from_secs(300),
                erased: place % 2 == 0,
                ..RotatedKey::new(format!("rp-{place}").into(), Timestamp(8))
            });
        }
        let publisher = Some("name server".into());
        let whole = Rotation { keys, last: (20_261_129, 3), wished: true, publisher, ..Rotation::default() };
        rotations.0.insert(id("two words", KeyKind::Rsa4096), whole);
        rotations.0.insert(id("two words", KeyKind::Ed25519), Rotation::default());
        let text = rotations.to_text();
        assert_eq!(Rotations::from_text(&text), Ok(rotations), "{text}");
        // Whatever is missing at the end is missed.
        for (at, _) in text.char_indices().skip(1).filter(|(at, _)| *at < text.len() - 1) {
            assert!(Rotations::from_text(&text[..at]).is_err(), "{}", &text[..at]);
        }
        for bad in
            ["key ../x signing 1 2 3 - v", "key a unheard 1 2 3 - v", "key a signing 1 2", "what", "key"]
        {
            let text = format!("{HEAD}\nrotation example.org rsa2048 1 1 - e\n{bad}\nend\n");
            assert_eq!(Rotations::from_text(&text), Err(NoRotations(3)), "{bad}");
        }
    }
}
