use belfry_application::use_cases::InboxPage;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Cursor, NotificationForm};

/// A page of an inbox, newest first.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Page)]
pub struct PageForm<'a> {
    /// The notifications.
    pub items: Vec<NotificationForm<'a>>,
    /// The `cursor` of the next page; null on the last page.
    #[schema(required = true, example = "AQAAAAAAAAAR")]
    pub next_cursor: Option<String>,
    /// Number of unread notifications in the whole inbox.
    #[schema(example = 3)]
    pub unread_count: u64,
    /// The inbox's revision just before the page was read. A device that continues from it misses no
    /// change, but may receive changes that the page already contains.
    #[schema(example = 17)]
    pub revision: u64,
    /// Identifies the store that the revisions belong to.
    #[schema(example = "0198c9a2-4b1e-7c3d-8f00-0123456789ab")]
    pub epoch: &'a str,
}

impl<'a> From<&'a InboxPage> for PageForm<'a> {
    fn from(page: &'a InboxPage) -> Self {
        Self {
            items: page.items.iter().map(NotificationForm::from).collect(),
            next_cursor: page.next.map(|next| Cursor(next).to_string()),
            unread_count: page.state.unread.get(),
            revision: page.state.revision.get(),
            epoch: page.epoch.as_str(),
        }
    }
}

#[cfg(test)]
mod tests {
    use belfry_application::testing::{a_draft, epoch};
    use belfry_domain::{InboxState, Revision, UnreadCount};
    use serde_json::json;

    use super::*;

    #[test]
    fn page_has_items_next_cursor_and_inbox_state() {
        let revision = Revision::new(17);
        let page = InboxPage {
            items: vec![a_draft("ada", "n1").into_notification(revision)],
            next: Some(revision),
            state: InboxState { revision, unread: UnreadCount::new(3) },
            epoch: epoch("e1"),
        };
        let json = serde_json::to_value(PageForm::from(&page)).unwrap();
        assert_eq!(json["items"][0]["id"], "n1");
        assert_eq!(json["nextCursor"], Cursor(revision).to_string());
        assert_eq!(json["unreadCount"], 3);
        assert_eq!(json["revision"], 17);
        assert_eq!(json["epoch"], "e1");

        let last = InboxPage { next: None, ..page };
        let json = serde_json::to_value(PageForm::from(&last)).unwrap();
        assert_eq!(json["nextCursor"], json!(null));
    }
}
