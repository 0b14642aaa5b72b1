//! JSON objects whose fields have configurable names.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The path of a field, such as `user.id`: the names of the objects that contain the field, then its own name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldPath(Vec<String>);

/// The text is not a [`FieldPath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected the name of a field, or names with dots between them")]
pub struct InvalidFieldPath;

impl FromStr for FieldPath {
    type Err = InvalidFieldPath;

    fn from_str(text: &str) -> Result<Self, InvalidFieldPath> {
        let names: Vec<_> = text.trim().split('.').map(str::to_owned).collect();
        if names.iter().any(String::is_empty) { Err(InvalidFieldPath) } else { Ok(Self(names)) }
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

/// The fields of an object, in their order. Their values are not parsed. Each field counts as used once its
/// value has been taken.
#[derive(Debug, Default)]
pub(super) struct JsonFields<'a>(Vec<Field<'a>>);

#[derive(Debug)]
struct Field<'a> {
    name: Cow<'a, str>,
    value: &'a RawValue,
    is_used: bool,
}

impl<'a> JsonFields<'a> {
    /// Returns the value at the path and marks the field as used. `None` if the value is null or absent.
    fn take(&mut self, path: &[impl AsRef<str>]) -> Option<&'a RawValue> {
        let (first, rest) = path.split_first()?;
        let first = first.as_ref();
        // If several fields have this name, the last one counts, as in JavaScript.
        let value = self.0.iter().rev().find(|field| field.name == first)?.value;
        if value.get() == "null" {
            return None;
        }
        if rest.is_empty() {
            self.set_used(first, true);
            return Some(value);
        }
        // The object that contains the field may have other fields, so it does not count as used.
        let mut inner: JsonFields<'a> = serde_json::from_str(value.get()).ok()?;
        inner.take(rest)
    }

    /// Tries the paths in order and returns the first value that `read` accepts. Fields whose values it
    /// rejects do not count as used.
    pub(super) fn take_first<T>(
        &mut self,
        paths: &[FieldPath],
        mut read: impl FnMut(&'a RawValue) -> Option<T>,
    ) -> Option<T> {
        paths.iter().find_map(|FieldPath(path)| self.take_if(path, &mut read))
    }

    /// Like [`take_first`](Self::take_first), for fields of this object with fixed names.
    pub(super) fn take_named<T>(
        &mut self,
        names: &[&str],
        mut read: impl FnMut(&'a RawValue) -> Option<T>,
    ) -> Option<T> {
        names.iter().find_map(|name| self.take_if(&[name], &mut read))
    }

    fn take_if<T>(
        &mut self,
        path: &[impl AsRef<str>],
        read: &mut impl FnMut(&'a RawValue) -> Option<T>,
    ) -> Option<T> {
        let value = read(self.take(path)?);
        // `take` has marked a field of this object as used, even if `read` rejects its value.
        if let ([name], None) = (path, &value) {
            self.set_used(name.as_ref(), false);
        }
        value
    }

    fn set_used(&mut self, name: &str, is_used: bool) {
        for field in self.0.iter_mut().filter(|field| field.name == name) {
            field.is_used = is_used;
        }
    }

    /// Whether the object has this field, also with the value null.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|field| field.name == name)
    }

    /// Whether the field is null. `false` for a path of several names.
    pub(super) fn is_null(&self, path: &FieldPath) -> bool {
        let [name] = &*path.0 else { return false };
        self.0.iter().any(|field| field.name == name.as_str() && field.value.get() == "null")
    }

    /// Marks fields as used.
    pub(super) fn ignore(&mut self, names: &[&str]) {
        for name in names {
            self.set_used(name, true);
        }
    }

    /// The fields that are not used and neither null nor an empty text.
    pub(super) fn unused(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        let is_empty = |field: &&Field<'a>| matches!(field.value.get(), "null" | "\"\"");
        let unused = self.0.iter().filter(move |field| !field.is_used && !is_empty(field));
        unused.map(|field| (&*field.name, field.value))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for JsonFields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = JsonFields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    fields.push(Field { name, value: map.next_value()?, is_used: false });
                }
                Ok(JsonFields(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// The name of a field. It borrows from the JSON unless it contains escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> FieldPath {
        text.parse().unwrap()
    }

    #[test]
    fn value_is_found_by_name_or_path_and_other_fields_are_unused() {
        let json = r#"{"a":1,"user":{"id":"ada","age":7},"n":null,"b":[2],"a":3,"\u00e4":4}"#;
        let mut fields: JsonFields<'_> = serde_json::from_str(json).unwrap();
        assert_eq!(fields.take(&path("a").0).unwrap().get(), "3");
        assert_eq!(fields.take(&path("user.id").0).unwrap().get(), "\"ada\"");
        for absent in ["n", "c", "user.name", "a.b", "b.0"] {
            assert!(fields.take(&path(absent).0).is_none(), "{absent}");
        }
        assert!(fields.contains("n") && !fields.contains("c"));
        let unused: Vec<_> = fields.unused().map(|(name, value)| (name, value.get())).collect();
        let user = r#"{"id":"ada","age":7}"#;
        assert_eq!(unused, [("user", user), ("b", "[2]"), ("ä", "4")]);
    }

    #[test]
    fn field_whose_value_is_rejected_is_unused() {
        let mut fields: JsonFields<'_> = serde_json::from_str(r#"{"a":"x","b":"y"}"#).unwrap();
        let read = |value: &RawValue| (value.get() == "\"y\"").then_some(7);
        assert_eq!(fields.take_first(&[path("a"), path("b")], read), Some(7));
        assert_eq!(fields.unused().map(|(name, _)| name).collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn path_without_a_name_is_rejected() {
        for text in ["", ".", "user.", ".id"] {
            assert_eq!(text.parse::<FieldPath>(), Err(InvalidFieldPath), "{text:?}");
        }
        assert_eq!(path(" user.id ").to_string(), "user.id");
    }
}
