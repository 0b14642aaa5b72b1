use std::fmt;

use belfry_domain::{
    Data, Draft, InvalidDraft, Link, LinkSchemes, Message, NotificationId, NotificationKind,
    Priority, Timestamp, Title, UserId,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{Object, ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::{Integer, Rfc3339};

/// A notification to create. Unknown fields are ignored.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", expecting = "an object")]
#[schema(as = Draft)]
pub struct DraftForm {
    /// The sender's id, of at most 128 visible characters without spaces, and not `.` or `..`; generated if absent.
    #[schema(example = "0198c9a2-4b1e-7c3d-8f00-0123456789ab")]
    pub id: Option<TextOrNumber>,
    /// The recipient: at most 255 visible characters without spaces, and not `.` or `..`.
    #[schema(example = "u42")]
    pub user_id: Option<TextOrNumber>,
    /// The kind of notification, for the application; `general` if absent.
    #[serde(rename = "type")]
    #[schema(example = "order.shipped", max_length = 100)]
    pub kind: Option<String>,
    /// The headline.
    #[schema(value_type = String, example = "Your order is on its way", max_length = 200)]
    pub title: Option<String>,
    /// The text; empty if absent.
    #[schema(example = "It left the warehouse this morning.", max_length = 4000)]
    pub message: Option<String>,
    /// An object for the application, of at most 16 KiB.
    #[schema(value_type = Option<Object>, example = json!({ "orderId": 7 }))]
    pub data: Option<Box<RawValue>>,
    /// Target of a tap on the notification: a URL of an allowed scheme (`https`, `http`, `mailto`, and those of
    /// the setting `notifications.link_schemes`), or a relative reference such as a path.
    #[schema(example = "/orders/7", max_length = 2000)]
    pub link: Option<String>,
    /// `low`, `normal` (if absent), `high` or `urgent`.
    #[schema(example = "normal", pattern = "^(low|normal|high|urgent)$")]
    pub priority: Option<String>,
    /// Notifications with the same key in an inbox are the same notification: only the first is created.
    #[schema(example = "order-7-shipped")]
    pub dedupe_key: Option<TextOrNumber>,
    /// When it was created; now if absent.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub created_at: Option<Rfc3339>,
    /// When it expires; never if absent.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Rfc3339>,
}

/// An id. Many services write ids as numbers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected a string or a whole number")]
pub enum TextOrNumber {
    /// A text.
    Text(String),
    /// A whole number.
    Number(Integer),
}

impl fmt::Display for TextOrNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => number.fmt(f),
        }
    }
}

impl PartialSchema for TextOrNumber {
    fn schema() -> RefOr<Schema> {
        let whole = "A whole number. It is the same id as its text without fraction and exponent.";
        OneOfBuilder::new()
            .item(Object::with_type(Type::String))
            .item(ObjectBuilder::new().schema_type(Type::Integer).description(Some(whole)))
            .description(Some("An id. Many services write ids as numbers."))
            .into()
    }
}

impl ToSchema for TextOrNumber {}

/// A form has an invalid field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidForm {
    /// The field's name in JSON.
    pub field: &'static str,
    /// The problem with the field.
    pub problem: String,
}

impl InvalidForm {
    /// `field` is the name in JSON, `problem` the reason why it is invalid.
    pub fn new(field: &'static str, problem: impl fmt::Display) -> Self {
        Self { field, problem: problem.to_string() }
    }
}

impl DraftForm {
    /// The draft of this form. `new_id` and `now` replace an absent id and creation time. `recipient` takes
    /// precedence over the form's `userId`.
    pub fn read(
        self,
        recipient: Option<UserId>,
        new_id: impl FnOnce() -> NotificationId,
        now: Timestamp,
    ) -> Result<Draft, InvalidForm> {
        let user = match (recipient, self.user_id) {
            (Some(user), _) => user,
            (None, Some(raw)) => parsed("userId", UserId::parse_addressable(&raw.to_string()))?,
            (None, None) => return Err(InvalidForm::new("userId", "is missing")),
        };
        let title = self.title.ok_or_else(|| InvalidForm::new("title", "is missing"))?;
        let id = match self.id {
            Some(raw) => parsed("id", NotificationId::parse_addressable(&raw.to_string()))?,
            None => new_id(),
        };
        let draft = Draft {
            id,
            user,
            kind: optional("type", self.kind, NotificationKind::parse)?.unwrap_or_default(),
            title: parsed("title", Title::parse(&title))?,
            message: optional("message", self.message, Message::parse)?.unwrap_or_default(),
            data: self.data.map(read_data).transpose()?,
            link: optional("link", self.link, Link::parse)?,
            priority: optional("priority", self.priority, str::parse::<Priority>)?
                .unwrap_or_default(),
            dedupe_key: self
                .dedupe_key
                .map(|raw| parsed("dedupeKey", NotificationId::parse(&raw.to_string())))
                .transpose()?,
            created_at: self.created_at.map_or(now, |at| at.0),
            expires_at: self.expires_at.map(|at| at.0),
        };
        draft.check().map_err(|problem| match problem {
            InvalidDraft::ExpiresBeforeCreated => InvalidForm::new("expiresAt", problem),
        })
    }
}

/// Maximum nesting of data. Deeper than real data, and shallow enough that recursive parsers on its way
/// do not run out of stack.
const MAX_DEPTH: usize = 64;

/// The depth to which objects and arrays are nested in valid JSON.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Checks that data is not nested too deeply.
pub(crate) fn check_depth(json: &str) -> Result<(), InvalidForm> {
    if depth(json) > MAX_DEPTH {
        return Err(InvalidForm::new("data", format_args!("is nested deeper than {MAX_DEPTH}")));
    }
    Ok(())
}

fn read_data(raw: Box<RawValue>) -> Result<Data, InvalidForm> {
    if !raw.get().starts_with('{') {
        return Err(InvalidForm::new("data", "must be an object"));
    }
    check_depth(raw.get())?;
    parsed("data", Data::from_valid_json(Box::<str>::from(raw)))
}

/// Checks that the scheme of the draft's link is allowed.
pub fn check_link(draft: &Draft, allowed: &LinkSchemes) -> Result<(), InvalidForm> {
    let link = draft.link.as_ref();
    link.map_or(Ok(()), |link| parsed("link", allowed.check(link)))
}

/// Adds the name of the field to an error.
fn parsed<T, E: fmt::Display>(field: &'static str, result: Result<T, E>) -> Result<T, InvalidForm> {
    result.map_err(|problem| InvalidForm::new(field, problem))
}

/// Parses a field that may be absent.
fn optional<T, E: fmt::Display>(
    field: &'static str,
    raw: Option<String>,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>, InvalidForm> {
    raw.map(|raw| parsed(field, parse(&raw))).transpose()
}

#[cfg(test)]
mod tests {
    use belfry_application::testing::{at, id, user};

    use super::*;

    fn read(json: &str) -> Result<Draft, InvalidForm> {
        let form: DraftForm = serde_json::from_str(json).unwrap();
        form.read(None, || id("generated"), at(1_000))
    }

    #[test]
    fn form_without_recipient_or_title_is_rejected() {
        let draft = read(r#"{"userId":"ada","title":"Hi"}"#).unwrap();
        assert_eq!(
            (draft.id, draft.user, draft.created_at),
            (id("generated"), user("ada"), at(1_000))
        );
        assert_eq!(read(r#"{"title":"Hi"}"#).unwrap_err().field, "userId");
        assert_eq!(read(r#"{"userId":"ada"}"#).unwrap_err().field, "title");
    }

    #[test]
    fn numeric_ids_are_accepted_and_unknown_fields_are_ignored() {
        let draft = read(r#"{"id":7,"userId":42,"title":"Hi","isRead":true,"x":{}}"#).unwrap();
        assert_eq!((draft.id.as_str(), draft.user.as_str()), ("7", "42"));
    }

    #[test]
    fn error_names_the_invalid_field() {
        for (json, field) in [
            (r#"{"userId":"a b","title":"Hi"}"#, "userId"),
            (r#"{"userId":"ada","title":" "}"#, "title"),
            (r#"{"userId":"ada","title":"Hi","data":[1]}"#, "data"),
            (r#"{"userId":"ada","title":"Hi","data":"x"}"#, "data"),
            (r#"{"userId":"ada","title":"Hi","link":"javascript:x"}"#, "link"),
            (r#"{"userId":"ada","title":"Hi","priority":"loud"}"#, "priority"),
            (r#"{"userId":"ada","title":"Hi","id":""}"#, "id"),
            (r#"{"userId":"ada","title":"Hi","id":"."}"#, "id"),
            (r#"{"userId":"ada","title":"Hi","id":".."}"#, "id"),
            (r#"{"userId":"..","title":"Hi"}"#, "userId"),
            (r#"{"userId":"ada","title":"Hi","expiresAt":"1970-01-01T00:00:00Z"}"#, "expiresAt"),
        ] {
            assert_eq!(read(json).unwrap_err().field, field, "{json}");
        }
        let data =
            format!(r#"{{"userId":"a","title":"Hi","data":{{"x":"{}"}}}}"#, "y".repeat(17_000));
        assert_eq!(read(&data).unwrap_err().field, "data");
    }

    #[test]
    fn too_deeply_nested_data_is_rejected() {
        let nested = |depth: usize| {
            let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
            let data = format!(r#"{{"in strings":"[[[\"[{{","x":{open}{close}}}"#);
            read(&format!(r#"{{"userId":"ada","title":"Hi","data":{data}}}"#))
        };
        assert!(nested(MAX_DEPTH).is_ok());
        assert_eq!(nested(MAX_DEPTH + 1).unwrap_err().field, "data");
    }

    #[test]
    fn null_field_is_treated_as_absent() {
        let json =
            r#"{"userId":"ada","title":"Hi","data":null,"link":null,"message":null,"id":null}"#;
        let draft = read(json).unwrap();
        assert_eq!((draft.data, draft.link), (None, None));
    }
}
