use std::fmt;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Number;

/// An integer that a peer sent. REST, Socket.IO, AMQP and the claims of tokens read integers with this type only, so that
/// the same text has the same meaning everywhere.
///
/// JSON Schema (2020-12, validation 6.1.1) defines an integer by its value: `1.0` and `10e-1` are 1, `-0` is 0. A
/// number that is written with a fraction or an exponent is exact up to 2^53 (RFC 8259, 6). A larger one is not an
/// integer here, because the sender could have meant another value. A JSON string is not an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Integer(i128);

impl Integer {
    /// 2^53: up to this value `f64` represents every integer.
    const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

    /// `None` if the number is not an integer.
    pub fn of(number: &Number) -> Option<Self> {
        let whole = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
        whole.map(Self).or_else(|| Self::of_float(number.as_f64()?))
    }

    fn of_float(number: f64) -> Option<Self> {
        let is_integer = number.fract() == 0.0 && number.abs() <= Self::MAX_EXACT;
        #[expect(clippy::cast_possible_truncation, reason = "a whole number below 2^54")]
        is_integer.then_some(Self(number as i128))
    }

    /// Parses a text, such as a query parameter, by the grammar of JSON: no space, no `+`, no leading zeros.
    /// `None` if it is not an integer.
    pub fn parse(text: &str) -> Option<Self> {
        let begins_and_ends_with_a_digit = text.ends_with(|c: char| c.is_ascii_digit())
            && text.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit());
        if begins_and_ends_with_a_digit { serde_json::from_str(text).ok() } else { None }
    }

    /// The integer as another type. `None` if it is out of range.
    pub fn to<T: TryFrom<i128>>(self) -> Option<T> {
        T::try_from(self.0).ok()
    }
}

impl fmt::Display for Integer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IntegerVisitor;

        impl Visitor<'_> for IntegerVisitor {
            type Value = Integer;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Integer, E> {
                Ok(Integer(number.into()))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Integer, E> {
                Ok(Integer(number.into()))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Integer, E> {
                Integer::of_float(number)
                    .ok_or_else(|| E::invalid_value(Unexpected::Float(number), &self))
            }
        }

        deserializer.deserialize_any(IntegerVisitor)
    }
}

/// Deserializes a count or a revision. For `#[serde(deserialize_with)]`.
pub(super) fn unsigned<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let integer = Integer::deserialize(deserializer)?;
    integer.to().ok_or_else(|| D::Error::custom("not in the range of 64 bits without a sign"))
}

/// JSON texts with their values; `None` if the text is not an integer. Every inbound adapter and the token verifier are
/// tested with them.
#[cfg(test)]
pub(crate) const CASES: [(&str, Option<i128>); 32] = [
    ("0", Some(0)),
    ("1", Some(1)),
    ("1.0", Some(1)),
    ("1e0", Some(1)),
    ("10e-1", Some(1)),
    ("100", Some(100)),
    ("1E+2", Some(100)),
    ("101", Some(101)),
    ("-0", Some(0)),
    ("-0.0", Some(0)),
    ("-1", Some(-1)),
    ("-1.0", Some(-1)),
    ("1e3", Some(1_000)),
    ("9007199254740992.0", Some(9_007_199_254_740_992)),
    ("9007199254740993", Some(9_007_199_254_740_993)),
    ("9223372036854775807", Some(i64::MAX as i128)),
    ("18446744073709551615", Some(u64::MAX as i128)),
    ("9007199254740994.0", None),
    ("18446744073709551616", None),
    ("1e16", None),
    ("1e300", None),
    // JSON has no limit for exponents, but a reader may have one (RFC 8259, 6).
    ("1e400", None),
    ("-1e400", None),
    ("1e-400", Some(0)),
    ("1.5", None),
    ("1e-1", None),
    ("true", None),
    ("[1]", None),
    ("{\"count\":1}", None),
    ("\"one\"", None),
    ("\"\"", None),
    ("\" \"", None),
];

/// Texts that are not integers, though some parsers accept them. U+0665 is the Arabic digit five.
#[cfg(test)]
pub(crate) const NOT_INTEGERS: [&str; 14] =
    ["", " 5", "5 ", "+5", "05", "-05", "5.", ".5", "0x5", "5_0", "5,0", "--5", "NaN", "\u{665}"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integer_is_read_by_its_value() {
        for (json, integer) in CASES {
            let read = serde_json::from_str::<Integer>(json).ok();
            assert_eq!(read.map(|it| it.0), integer, "{json}");
            let number = serde_json::from_str::<Number>(json).ok();
            assert_eq!(number.as_ref().and_then(Integer::of), read, "{json}");
            assert_eq!(Integer::parse(json), read, "{json}");
        }
        assert!(serde_json::from_str::<Integer>("\"5\"").is_err());
    }

    #[test]
    fn text_has_the_grammar_of_a_json_number() {
        for text in NOT_INTEGERS {
            assert_eq!(Integer::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn integer_out_of_range_is_not_converted() {
        let integer = |json: &str| serde_json::from_str::<Integer>(json).unwrap();
        assert_eq!(integer("-1").to::<u64>(), None);
        assert_eq!(integer("18446744073709551615").to::<i64>(), None);
        assert_eq!(integer("18446744073709551615").to(), Some(u64::MAX));
    }
}
