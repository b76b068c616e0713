//! JSON as it was written: nothing is overwritten by a second field of the same name, and strings without escapes are
//! not copied.

use std::{borrow::Cow, cell::Cell, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as text.
    Number(String),
    /// A string.
    Text(Cow<'a, str>),
    /// An array.
    List(Vec<Json<'a>>),
    /// An object; no name stands twice.
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

/// The text is not JSON, or not ours to read.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct JsonError(#[from] serde_json::Error);

impl<'a> Json<'a> {
    /// Reads a text with at most so many values in it.
    pub(crate) fn parse(text: &'a [u8], values_max: usize) -> Result<Self, JsonError> {
        let left = Cell::new(values_max);
        let mut reader = serde_json::Deserializer::from_slice(text);
        let value = Seed(&left).deserialize(&mut reader)?;
        reader.end()?;
        Ok(value)
    }

    /// The word for what it is.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

#[derive(Clone, Copy)]
struct Seed<'s>(&'s Cell<usize>);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json<'de>, D::Error> {
        let left = self.0.get().checked_sub(1);
        self.0.set(left.ok_or_else(|| D::Error::custom("it has too many values (http.json-values-max)"))?);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json<'de>, E> {
        Ok(Json::Number(value.to_string()))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json<'de>, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = access.next_element_seed(self)? {
            list.push(value);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some(name) = access.next_key_seed(self)? {
            let Json::Text(name) = name else { return Err(A::Error::custom("a name is a string")) };
            fields.push((name, access.next_value_seed(self)?));
        }
        let mut names: Vec<&str> = fields.iter().map(|(name, _): &(Cow<'_, str>, _)| &**name).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(A::Error::custom(format_args!("{:?} stands twice in one object", pair[0])));
        }
        Ok(Json::Object(fields))
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn error(text: &str) -> String {
        Json::parse(text.as_bytes(), 10).unwrap_err().to_string()
    }

    #[test]
    fn values_are_read() {
        let value = Json::parse(br#"{"a": [1, -2.5, true, null], "b": "x\n"}"#, 10).unwrap();
        let Json::Object(fields) = value else { panic!() };
        assert_eq!(fields[0].0, "a");
        let numbers = ["1", "-2.5"].map(|number| Json::Number(number.into()));
        let [one, two] = numbers;
        assert_eq!(fields[0].1, Json::List(vec![one, two, Json::Bool(true), Json::Null]));
        assert_eq!(fields[1].1, Json::Text("x\n".into()));
        let text = br#""plain""#;
        assert!(matches!(Json::parse(text, 1).unwrap(), Json::Text(Cow::Borrowed("plain"))));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_not() {
        assert!(error(r#"{"to": 1, "cc": 2, "to": 3}"#).contains("\"to\" stands twice"));
        assert!(error("[1] [2]").contains("trailing"));
        assert!(error("[1,2,3,4,5,6,7,8,9,10]").contains("too many values"));
        assert!(
            error(&"[".repeat(10_000)).contains("values") || error(&"[".repeat(10_000)).contains("recursion")
        );
        for broken in ["", "{", "{\"a\"}", "\"\\ud800\"", "\"\x01\"", "nul", "{1:2}"] {
            error(broken);
        }
        assert!(Json::parse(b"\"\xFF\"", 10).is_err());
    }
}
