//! Deserializes JSON objects into forms: structs with the fields of a message.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::invalid_message::InvalidMessage;

/// Whether a JSON value is an object. A `RawValue` has no leading whitespace.
pub(super) fn is_object(json: &RawValue) -> bool {
    json.get().starts_with('{')
}

/// Parses a form. If that fails, it parses again with a slower deserializer, whose error names the field.
pub(super) fn form<T: DeserializeOwned>(data: &RawValue) -> Result<T, InvalidMessage> {
    must_be_object(data)?;
    serde_json::from_str(data.get()).or_else(|_| {
        let json = &mut serde_json::Deserializer::from_str(data.get());
        serde_path_to_error::deserialize(json).map_err(|error| InvalidMessage::field("data", error))
    })
}

/// Parses a form that borrows from `data`. An error does not name the field.
pub(super) fn borrowed_form<'a, T: Deserialize<'a>>(
    data: &'a RawValue,
) -> Result<T, InvalidMessage> {
    must_be_object(data)?;
    serde_json::from_str(data.get()).map_err(|error| InvalidMessage::field("data", error))
}

fn must_be_object(data: &RawValue) -> Result<(), InvalidMessage> {
    if is_object(data) { Ok(()) } else { Err(InvalidMessage::field("data", "must be an object")) }
}
