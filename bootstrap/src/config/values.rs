//! Deserialisation of setting values, which are TOML values in files and texts in variables and flags.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Error as _};
use serde::{Deserialize, Deserializer};

/// A secret setting. `Debug` does not show it.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The secret text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A duration: a number of seconds, or a text such as `250ms`, `30s`, `5m`, `7d`.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    match DurationForm::deserialize(deserializer) {
        Ok(form) => form.duration().map_err(D::Error::custom),
        Err(_) => Err(D::Error::custom(EXPECTED_DURATION)),
    }
}

/// An optional duration. Unset is `None`.
pub(super) fn optional_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

/// A duration, or `unlimited` as `None`.
pub(super) fn duration_or_unlimited<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    match DurationForm::deserialize(deserializer) {
        Ok(DurationForm::Text(text)) if text.trim().eq_ignore_ascii_case("unlimited") => Ok(None),
        Ok(form) => form.duration().map(Some).map_err(D::Error::custom),
        Err(_) => Err(D::Error::custom(EXPECTED_DURATION)),
    }
}

const EXPECTED_DURATION: &str =
    "expected a number of seconds or a text such as 250ms, 30s, 5m or 7d";

#[derive(Deserialize)]
#[serde(untagged)]
enum DurationForm {
    Seconds(u64),
    Text(String),
}

impl DurationForm {
    fn duration(self) -> Result<Duration, humantime::DurationError> {
        match self {
            Self::Seconds(seconds) => Ok(Duration::from_secs(seconds)),
            Self::Text(text) => match text.trim().parse() {
                Ok(seconds) => Ok(Duration::from_secs(seconds)),
                Err(_) => humantime::parse_duration(&text),
            },
        }
    }
}

/// A value that is a text in every source.
pub(super) fn text<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    let text = String::deserialize(deserializer)?;
    text.trim().parse().map_err(|problem| D::Error::custom(format_args!("{text:?}: {problem}")))
}

/// An optional value that is a text in every source. Unset is `None`.
pub(super) fn optional_text<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    text(deserializer).map(Some)
}

/// A TOML value or its text form; variables and flags are always texts.
pub(super) fn or_text<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display> + Deserialize<'de>,
{
    struct Either<T>(std::marker::PhantomData<T>);

    impl<'de, T: FromStr<Err: fmt::Display> + Deserialize<'de>> de::Visitor<'de> for Either<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(std::any::type_name::<T>())
        }

        fn visit_bool<E: de::Error>(self, value: bool) -> Result<T, E> {
            T::deserialize(de::value::BoolDeserializer::new(value))
        }

        fn visit_i64<E: de::Error>(self, value: i64) -> Result<T, E> {
            T::deserialize(de::value::I64Deserializer::new(value))
        }

        fn visit_u64<E: de::Error>(self, value: u64) -> Result<T, E> {
            T::deserialize(de::value::U64Deserializer::new(value))
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            text.trim().parse().map_err(|problem| {
                E::custom(format_args!(
                    "{text:?} is not a {}: {problem}",
                    std::any::type_name::<T>()
                ))
            })
        }
    }
    deserializer.deserialize_any(Either(std::marker::PhantomData))
}

/// A list, or a text with commas between the entries.
pub(super) fn list<'de, D: Deserializer<'de>, T: From<String>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        List(Vec<String>),
        Text(String),
    }
    let form = Form::deserialize(deserializer).map_err(|_| {
        D::Error::custom("expected a list, or a text with commas between the entries")
    })?;
    Ok(match form {
        Form::List(list) => list.into_iter().map(T::from).collect(),
        Form::Text(text) => {
            let parts = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
            parts.map(|entry| T::from(entry.to_owned())).collect()
        }
    })
}

/// A list whose entries are parsed from texts. The error names the invalid entry.
pub(super) fn parsed_list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    let texts: Vec<String> = list(deserializer)?;
    let parse = |text: &String| {
        text.parse().map_err(|problem| D::Error::custom(format_args!("{text:?}: {problem}")))
    };
    texts.iter().map(parse).collect()
}
