use belfry_domain::LinkSchemes;

use super::json_fields::FieldPath;
use super::pattern::PatternNames;

/// How messages of other services are decoded: the names of their patterns and fields. Each list of fields is
/// in order of precedence. The default has the names that NestJS services commonly use.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the fields have the names of the draft's fields")]
pub struct MessageMapping {
    /// The names of patterns.
    pub patterns: PatternNames,
    /// If true, a title or message that is too long is cut, with `…` at its end, and unused fields that do
    /// not fit into the data are omitted. If false, such a message is rejected.
    pub cut_long_texts: bool,
    /// The schemes that a link may have.
    pub links: LinkSchemes,
    /// The user, or an array of users. If the data contains an object `notification`, the recipient in that object
    /// counts only if the data itself has none.
    pub recipient: Vec<FieldPath>,
    pub id: Vec<FieldPath>,
    pub kind: Vec<FieldPath>,
    pub title: Vec<FieldPath>,
    pub message: Vec<FieldPath>,
    pub data: Vec<FieldPath>,
    pub link: Vec<FieldPath>,
    pub created_at: Vec<FieldPath>,
    pub expires_at: Vec<FieldPath>,
}

impl Default for MessageMapping {
    fn default() -> Self {
        Self {
            patterns: PatternNames::default(),
            cut_long_texts: true,
            links: LinkSchemes::default(),
            recipient: paths(&[
                "userId",
                "recipientId",
                "receiverId",
                "user_id",
                "recipient_id",
                "receiver_id",
                "targetUserId",
                "toUserId",
                "userIds",
                "recipientIds",
                "receiverIds",
                "user.id",
                "recipient.id",
                "receiver.id",
                "recipient",
                "receiver",
            ]),
            id: paths(&["id", "notificationId", "notification_id", "_id"]),
            kind: paths(&["type", "kind", "notificationType", "category"]),
            title: paths(&["title", "subject", "heading"]),
            message: paths(&["message", "body", "content", "text", "description"]),
            data: paths(&["data", "metadata", "payload", "meta"]),
            link: paths(&["link", "url", "actionUrl", "action_url"]),
            created_at: paths(&["createdAt", "created_at", "timestamp"]),
            expires_at: paths(&["expiresAt", "expires_at"]),
        }
    }
}

fn paths(names: &[&str]) -> Vec<FieldPath> {
    names.iter().map(|name| name.parse().expect("a valid path")).collect()
}
