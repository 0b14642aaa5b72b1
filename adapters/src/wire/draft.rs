use std::fmt;

use belfry_domain::{
    Data, Draft, InvalidDraft, Link, Message, NotificationId, NotificationKind, Priority,
    Timestamp, Title, UserId,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Rfc3339;

/// A notification as other services ask for it, in JSON. Fields that are not known are kept out.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", expecting = "an object")]
#[schema(as = Draft)]
pub struct DraftForm {
    /// The sender's own id; made by Belfry if absent.
    #[schema(example = "0198c9a2-4b1e-7c3d-8f00-0123456789ab")]
    pub id: Option<TextOrNumber>,
    /// The recipient.
    #[schema(example = "u42")]
    pub user_id: Option<TextOrNumber>,
    /// What kind of notification it is; `general` if absent.
    #[serde(rename = "type")]
    #[schema(example = "order.shipped", max_length = 100)]
    pub kind: Option<String>,
    /// The headline.
    #[schema(value_type = String, example = "Your order is on its way", max_length = 200)]
    pub title: Option<String>,
    /// The text; empty if absent.
    #[schema(example = "It left the warehouse this morning.", max_length = 4000)]
    pub message: Option<String>,
    /// An object for the application that shows it, of at most 16 KiB.
    #[schema(value_type = Option<Object>, example = json!({ "orderId": 7 }))]
    pub data: Option<Box<RawValue>>,
    /// Where a tap on it leads.
    #[schema(example = "/orders/7", max_length = 2000)]
    pub link: Option<String>,
    /// `low`, `normal` (if absent), `high` or `urgent`.
    #[schema(example = "normal", pattern = "^(low|normal|high|urgent)$")]
    pub priority: Option<String>,
    /// A second one with this key in the same inbox is the same notification.
    #[schema(example = "order-7-shipped")]
    pub dedupe_key: Option<TextOrNumber>,
    /// When it came into being; now if absent.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub created_at: Option<Rfc3339>,
    /// When it loses its meaning.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires_at: Option<Rfc3339>,
}

/// An id, which many services write as a number.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a string or a whole number")]
pub enum TextOrNumber {
    /// As text.
    Text(String),
    /// As a whole number.
    Number(i64),
}

impl fmt::Display for TextOrNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// What is wrong with a form, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidForm {
    /// The field, as it is called in JSON.
    pub field: &'static str,
    /// What is wrong with it, in a sentence.
    pub problem: String,
}

impl InvalidForm {
    /// That field has that problem.
    pub fn new(field: &'static str, problem: impl fmt::Display) -> Self {
        Self { field, problem: problem.to_string() }
    }
}

impl DraftForm {
    /// The draft that this asks for, with what the form leaves open. A `recipient` given here is the
    /// one, whatever the form says.
    pub fn read(
        self,
        recipient: Option<UserId>,
        new_id: impl FnOnce() -> NotificationId,
        now: Timestamp,
    ) -> Result<Draft, InvalidForm> {
        let user = match (recipient, self.user_id) {
            (Some(user), _) => user,
            (None, Some(raw)) => parsed("userId", UserId::parse(&raw.to_string()))?,
            (None, None) => return Err(InvalidForm::new("userId", "is missing")),
        };
        let title = self.title.ok_or_else(|| InvalidForm::new("title", "is missing"))?;
        let id = match self.id {
            Some(raw) => parsed("id", NotificationId::parse(&raw.to_string()))?,
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

/// How deep data may be nested. Deeper than people nest, and not so deep that anything on its way,
/// which may read it recursively, runs out of stack.
const MAX_DEPTH: usize = 64;

/// How deep objects and arrays are nested in a text that is JSON.
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

fn read_data(raw: Box<RawValue>) -> Result<Data, InvalidForm> {
    if !raw.get().starts_with('{') {
        return Err(InvalidForm::new("data", "must be an object"));
    }
    if depth(raw.get()) > MAX_DEPTH {
        return Err(InvalidForm::new("data", format_args!("is nested deeper than {MAX_DEPTH}")));
    }
    parsed("data", Data::of_checked_syntax(Box::<str>::from(raw)))
}

fn parsed<T, E: fmt::Display>(field: &'static str, result: Result<T, E>) -> Result<T, InvalidForm> {
    result.map_err(|problem| InvalidForm::new(field, problem))
}

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
        form.read(None, || id("made"), at(1_000))
    }

    #[test]
    fn a_form_needs_a_recipient_and_a_title() {
        let draft = read(r#"{"userId":"ada","title":"Hi"}"#).unwrap();
        assert_eq!((draft.id, draft.user, draft.created_at), (id("made"), user("ada"), at(1_000)));
        assert_eq!(read(r#"{"title":"Hi"}"#).unwrap_err().field, "userId");
        assert_eq!(read(r#"{"userId":"ada"}"#).unwrap_err().field, "title");
    }

    #[test]
    fn ids_may_be_numbers_and_unknown_fields_are_kept_out() {
        let draft = read(r#"{"id":7,"userId":42,"title":"Hi","isRead":true,"x":{}}"#).unwrap();
        assert_eq!((draft.id.as_str(), draft.user.as_str()), ("7", "42"));
    }

    #[test]
    fn a_wrong_field_is_named() {
        for (json, field) in [
            (r#"{"userId":"a b","title":"Hi"}"#, "userId"),
            (r#"{"userId":"ada","title":" "}"#, "title"),
            (r#"{"userId":"ada","title":"Hi","data":[1]}"#, "data"),
            (r#"{"userId":"ada","title":"Hi","data":"x"}"#, "data"),
            (r#"{"userId":"ada","title":"Hi","link":"javascript:x"}"#, "link"),
            (r#"{"userId":"ada","title":"Hi","priority":"loud"}"#, "priority"),
            (r#"{"userId":"ada","title":"Hi","id":""}"#, "id"),
            (r#"{"userId":"ada","title":"Hi","expiresAt":"1970-01-01T00:00:00Z"}"#, "expiresAt"),
        ] {
            assert_eq!(read(json).unwrap_err().field, field, "{json}");
        }
        let data =
            format!(r#"{{"userId":"a","title":"Hi","data":{{"x":"{}"}}}}"#, "y".repeat(17_000));
        assert_eq!(read(&data).unwrap_err().field, "data");
    }

    #[test]
    fn data_is_not_nested_without_end() {
        let nested = |depth: usize| {
            let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
            let data = format!(r#"{{"in strings":"[[[\"[{{","x":{open}{close}}}"#);
            read(&format!(r#"{{"userId":"ada","title":"Hi","data":{data}}}"#))
        };
        assert!(nested(MAX_DEPTH).is_ok());
        assert_eq!(nested(MAX_DEPTH + 1).unwrap_err().field, "data");
    }

    #[test]
    fn null_is_as_good_as_absent() {
        let json =
            r#"{"userId":"ada","title":"Hi","data":null,"link":null,"message":null,"id":null}"#;
        let draft = read(json).unwrap();
        assert_eq!((draft.data, draft.link), (None, None));
    }
}
