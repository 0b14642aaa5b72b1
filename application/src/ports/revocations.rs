use async_trait::async_trait;
use belfry_domain::{Timestamp, UserId};

use super::PortError;

/// Whose tokens hold no more, kept for all nodes and over restarts.
#[cfg_attr(any(test, feature = "testing"), mockall::automock)]
#[async_trait]
pub trait Revocations: Send + Sync {
    /// Keeps it. A revocation is never taken back: of two for one user the later instant holds.
    /// Answers the one that holds.
    async fn revoke(&self, revocation: &Revocation) -> Result<Revocation, PortError>;

    /// Those that were kept since `mark`, or all; and the mark for the next time. Whoever passes on
    /// each mark misses none, whoever keeps it on whichever node. Some may come again.
    async fn since(&self, mark: Option<Mark>) -> Result<(Vec<Revocation>, Mark), PortError>;
}

/// A user's tokens hold no more if they were issued before an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Whose.
    pub user: UserId,
    /// That instant. A token that does not say when it was issued counts as issued before.
    pub issued_before: Timestamp,
}

/// How far a reader of [`Revocations`] has come. Means something to the store that gave it only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(pub i64);
