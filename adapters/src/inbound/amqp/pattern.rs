use std::collections::HashMap;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::invalid_message::InvalidMessage;

/// The operation or event that a message names. Each variant lists the names that Belfry itself uses for it.
/// [`PatternNames`] knows further names, which NestJS services use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// `notification.create` or `notification.created`.
    Create,
    /// `notification.mark_read` or `notification.marked_read`.
    MarkRead,
    /// `notification.mark_all_read` or `notification.all_read`.
    MarkAllRead,
    /// `notification.delete` or `notification.deleted`.
    Delete,
    /// `user.revoke_tokens` or `user.tokens_revoked`.
    RevokeTokens,
    /// `notification.unread_count`. In forward mode: the count, from the service that keeps the inbox. In
    /// store mode: a request for the count.
    UnreadCount,
    /// `notification.list`. In store mode only: a request for the newest notifications.
    List,
    /// Any other event, with the name under which devices receive it. In forward mode only.
    Custom(Arc<str>),
}

/// The names of patterns. Built-in names are those of Belfry and those that NestJS services commonly use.
/// Others can be configured.
#[derive(Debug, Clone, Default)]
pub struct PatternNames {
    configured: HashMap<String, Pattern>,
    /// The pattern of all unknown names. `None` if a message with an unknown name is invalid.
    others: Option<Pattern>,
}

impl PatternNames {
    /// Adds a configured name. It takes precedence over a built-in one.
    pub fn add(&mut self, name: impl Into<String>, pattern: Pattern) {
        self.configured.insert(name.into(), pattern);
    }

    /// Gives every unknown name this pattern.
    pub fn set_others(&mut self, pattern: Pattern) {
        self.others = Some(pattern);
    }

    pub(super) const fn has_others(&self) -> bool {
        self.others.is_some()
    }

    /// The pattern of a name; `None` if the name is unknown.
    pub fn find(&self, name: &str) -> Option<Pattern> {
        self.configured.get(name).cloned().or_else(|| Pattern::parse(name))
    }

    /// Like [`find`](Self::find), but an unknown name has the pattern of [`set_others`](Self::set_others).
    pub(super) fn find_or_other(&self, name: &str) -> Result<Pattern, InvalidMessage> {
        let known = self.find(name).or_else(|| self.others.clone());
        known.ok_or_else(|| InvalidMessage::unknown(name))
    }

    /// Finds the pattern of a CloudEvent by its type, which may have a prefix, as in
    /// `com.example.shop.notification.created`. Also returns the name without the prefix.
    pub(super) fn find_cloud_event_type<'a>(
        &self,
        kind: &'a str,
    ) -> Result<(Pattern, &'a str), InvalidMessage> {
        // Built-in names have at most one dot, so the prefix ends before the last two words.
        let begin = kind.rmatch_indices('.').nth(1).map_or(0, |(dot, _)| dot + 1);
        for name in [kind, &kind[begin..]] {
            if let Some(pattern) = self.find(name) {
                return Ok((pattern, name));
            }
        }
        self.find_or_other(kind).map(|pattern| (pattern, kind))
    }
}

impl Pattern {
    /// The pattern with this built-in name.
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "notification.create"
            | "notification.created"
            | "notification_create"
            | "notification_created"
            | "notification.new"
            | "notification.send"
            | "create_notification"
            | "send_notification"
            | "createNotification"
            | "sendNotification" => Self::Create,
            "notification.mark_read"
            | "notification.marked_read"
            | "notification.read"
            | "notification_read"
            | "mark_as_read"
            | "markAsRead"
            | "mark_notification_read" => Self::MarkRead,
            "notification.mark_all_read"
            | "notification.all_read"
            | "notification.read_all"
            | "mark_all_as_read"
            | "markAllAsRead" => Self::MarkAllRead,
            "notification.delete"
            | "notification.deleted"
            | "notification_deleted"
            | "delete_notification"
            | "deleteNotification" => Self::Delete,
            "user.revoke_tokens" | "user.tokens_revoked" => Self::RevokeTokens,
            "notification.unread_count" | "get_unread_count" | "getUnreadCount" => {
                Self::UnreadCount
            }
            "notification.list"
            | "notification.find_all"
            | "get_notifications"
            | "getNotifications" => Self::List,
            _ => return None,
        })
    }
}

/// The name in a message's `pattern`: a string, or the field `cmd` of an object, as in `{ cmd: "create" }`.
pub(super) fn pattern_name(json: &RawValue) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct CommandPattern {
        cmd: String,
    }
    if json.get().starts_with('{') {
        return serde_json::from_str(json.get()).ok().map(|CommandPattern { cmd }| cmd);
    }
    serde_json::from_str(json.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_name_takes_precedence() {
        let mut names = PatternNames::default();
        assert_eq!(names.find("notification_created"), Some(Pattern::Create));
        assert_eq!(names.find("bell.rang"), None);
        names.add("bell.rang", Pattern::Create);
        names.add("notification.read", Pattern::MarkAllRead);
        assert_eq!(names.find("bell.rang"), Some(Pattern::Create));
        assert_eq!(names.find("notification.read"), Some(Pattern::MarkAllRead));
        assert_eq!(names.find_cloud_event_type("bell.rang"), Ok((Pattern::Create, "bell.rang")));
        assert_eq!(
            names.find_cloud_event_type("x.y.notification.created"),
            Ok((Pattern::Create, "notification.created"))
        );
    }

    #[test]
    fn unknown_name_is_an_error_or_has_the_pattern_of_all_others() {
        let mut names = PatternNames::default();
        let (shipped, others) = (Pattern::Custom("a".into()), Pattern::Custom("b".into()));
        assert_eq!(names.find_or_other("order.paid"), Err(InvalidMessage::unknown("order.paid")));
        names.add("order.shipped", shipped.clone());
        names.set_others(others.clone());
        assert_eq!(names.find_or_other("order.shipped"), Ok(shipped.clone()));
        assert_eq!(names.find_or_other("order.paid"), Ok(others.clone()));
        assert_eq!(names.find_or_other("notification.created"), Ok(Pattern::Create));
        assert_eq!(names.find("order.paid"), None);
        let without_prefix = Ok((shipped, "order.shipped"));
        assert_eq!(names.find_cloud_event_type("org.x.order.shipped"), without_prefix);
        let with_prefix = Ok((others, "org.x.order.paid"));
        assert_eq!(names.find_cloud_event_type("org.x.order.paid"), with_prefix);
    }

    #[test]
    fn name_of_a_pattern_object_is_its_field_cmd() {
        let name = |json: &str| pattern_name(serde_json::from_str(json).unwrap());
        assert_eq!(name(r#""a.b""#).as_deref(), Some("a.b"));
        assert_eq!(name(r#"{"cmd":"create","v":1}"#).as_deref(), Some("create"));
        assert_eq!(name(r#"{"v":1}"#), None);
        assert_eq!(name("7"), None);
    }
}
