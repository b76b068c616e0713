//! Whole numbers that may be negative.

use toml::{Spanned, de::DeValue};

use crate::{
    notation::{Notation, digits},
    reader::Reader,
};

/// A whole number between two bounds, both allowed.
pub(crate) struct Signed<const MIN: i64, const MAX: i64>;

impl<const MIN: i64, const MAX: i64> Notation<i32> for Signed<MIN, MAX> {
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Option<i32> {
        const { assert!(MIN >= i32::MIN as i64 && MAX <= i32::MAX as i64, "the bounds do not fit the type") };
        let number = digits(value, i64::from_str_radix).filter(|number| (MIN..=MAX).contains(number));
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
