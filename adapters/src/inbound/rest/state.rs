//! The router's state: use cases, limits and settings.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRef;
use belfry_application::use_cases::{
    CountUnread, CreateNotification, DeleteNotification, EraseUser, GetNotification, ListInbox,
    MarkAllRead, MarkRead, RevokeTokens, SignIn,
};

use super::base_path::BasePath;
use super::cors::Cors;
use super::draft_factory::DraftFactory;
use super::limits::RequestLimits;
use super::readiness::Readiness;

/// What the router is built from.
#[expect(missing_docs, reason = "the types are documented")]
pub struct RestParts {
    pub sign_in: SignIn,
    pub drafts: DraftFactory,
    /// `None` if another service keeps the inboxes. Operations on them then fail with 409.
    pub inbox: Option<Arc<RestUseCases>>,
    pub revoke_tokens: RevokeTokens,
    pub erase_user: EraseUser,
    pub readiness: Readiness,
    pub limits: RequestLimits,
    pub settings: Arc<RestSettings>,
}

/// The router's state. Axum clones it several times for each request. Each handler extracts the parts that it needs.
#[derive(Clone)]
pub(super) struct RestState(Arc<RestParts>);

impl From<RestParts> for RestState {
    fn from(parts: RestParts) -> Self {
        Self(Arc::new(parts))
    }
}

macro_rules! extractable {
    ($($part:ident: $type:ty),+ $(,)?) => {
        $(
            impl FromRef<RestState> for $type {
                fn from_ref(state: &RestState) -> Self {
                    state.0.$part.clone()
                }
            }
        )+
    };
}

extractable! {
    sign_in: SignIn,
    drafts: DraftFactory,
    inbox: Option<Arc<RestUseCases>>,
    revoke_tokens: RevokeTokens,
    erase_user: EraseUser,
    readiness: Readiness,
    limits: RequestLimits,
    settings: Arc<RestSettings>,
}

/// The use cases of operations on inboxes.
#[expect(missing_docs, reason = "each field is named after its use case")]
pub struct RestUseCases {
    pub create: CreateNotification,
    pub list: ListInbox,
    pub get: GetNotification,
    pub count_unread: CountUnread,
    pub mark_read: MarkRead,
    pub mark_all_read: MarkAllRead,
    pub delete: DeleteNotification,
}

/// Settings of the REST routes.
#[derive(Debug, Clone)]
pub struct RestSettings {
    /// Maximum size of a request body, in bytes.
    pub max_body: usize,
    /// Maximum time for a request, including the time to receive its body.
    pub request_timeout: Duration,
    /// The web pages of other origins that may call these routes.
    pub cors: Cors,
    /// The prefix of all paths.
    pub base_path: BasePath,
}

impl Default for RestSettings {
    fn default() -> Self {
        Self {
            max_body: 1024 * 1024,
            request_timeout: Duration::from_secs(30),
            cors: Cors::default(),
            base_path: BasePath::default(),
        }
    }
}
