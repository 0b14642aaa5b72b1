use std::fmt;

use belfry_domain::{
    Data, Draft, InvalidDraft, Kind, Link, Message, NotificationId, Priority, Timestamp, Title,
    UserId,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Rfc3339;

/// A notification as other services ask for it, in JSON. Fields that are not known are kept out.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DraftForm {
    /// The sender's own id; made by Belfry if absent.
    pub id: Option<TextOrNumber>,
    /// The recipient.
    pub user_id: Option<TextOrNumber>,
    /// What kind of notification it is; `general` if absent.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The headline.
    pub title: Option<String>,
    /// The text; empty if absent.
    pub message: Option<String>,
    /// An object for the application that shows it.
    pub data: Option<Box<RawValue>>,
    /// Where a tap on it leads.
    pub link: Option<String>,
    /// `low`, `normal` (if absent), `high` or `urgent`.
    pub priority: Option<String>,
    /// A second one with this key in the same inbox is the same notification.
    pub dedupe_key: Option<TextOrNumber>,
    /// When it came into being; now if absent.
    pub created_at: Option<Rfc3339>,
    /// When it loses its meaning.
    pub expires_at: Option<Rfc3339>,
}

/// An id, which many services write as a number.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
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
            kind: optional("type", self.kind, |raw| Kind::parse(raw))?.unwrap_or_default(),
            title: parsed("title", Title::parse(&title))?,
            message: optional("message", self.message, |raw| Message::parse(raw))?
                .unwrap_or_default(),
            data: self.data.map(read_data).transpose()?,
            link: optional("link", self.link, |raw| Link::parse(raw))?,
            priority: optional("priority", self.priority, |raw| raw.parse::<Priority>())?
                .unwrap_or_default(),
            dedupe_key: self
                .dedupe_key
                .map(|raw| parsed("dedupeKey", NotificationId::parse(&raw.to_string())))
                .transpose()?,
            created_at: self.created_at.map_or(now, |at| at.0),
            expires_at: self.expires_at.map(|at| at.0),
        };
        draft.check().map_err(|problem| match problem {
            InvalidDraft::ExpiresBeforeItExists => InvalidForm::new("expiresAt", problem),
        })
    }
}

fn read_data(raw: Box<RawValue>) -> Result<Data, InvalidForm> {
    if !raw.get().starts_with('{') {
        return Err(InvalidForm::new("data", "must be an object"));
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
    fn null_is_as_good_as_absent() {
        let json =
            r#"{"userId":"ada","title":"Hi","data":null,"link":null,"message":null,"id":null}"#;
        let draft = read(json).unwrap();
        assert_eq!((draft.data, draft.link), (None, None));
    }
}
