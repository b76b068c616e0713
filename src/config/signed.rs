//! Whole numbers that may be negative.

use toml::{Spanned, de::DeValue};

use crate::{notation::Notation, reader::Reader};

/// A whole number between two bounds, both allowed.
pub(crate) struct Signed<const MIN: i64, const MAX: i64>;

impl<const MIN: i64, const MAX: i64> Notation<i32> for Signed<MIN, MAX> {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<i32> {
        const { assert!(MIN >= i32::MIN as i64 && MAX <= i32::MAX as i64, "the bounds do not fit the type") };
        let number = match value.get_ref() {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
            DeValue::String(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => None,
        };
        let number = number.filter(|number| (MIN..=MAX).contains(number));
        let number = number.and_then(|number| i32::try_from(number).ok());
        if number.is_none() {
            reader.wrong(
                value,
                format!("a whole number from {MIN} to {MAX}"),
                "write it without quotes".into(),
            );
        }
        number
    }

    fn write(value: &i32) -> String {
        value.to_string()
    }

    fn kind() -> String {
        format!("whole number, {MIN} to {MAX}")
    }
}
