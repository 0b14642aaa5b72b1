use std::sync::Arc;
use std::time::Duration;

use super::message_mapping::MessageMapping;

/// How the ingest queue is consumed.
#[derive(Debug, Clone)]
pub struct IngestSettings {
    /// The maximum number of unacknowledged messages.
    pub prefetch: u16,
    /// The limit on the bytes of the message bodies in memory. When it is reached, Belfry stops reading from the
    /// connection before the next message. While messages are being stored, they need up to 30 times as much
    /// memory.
    pub prefetch_bytes: usize,
    /// Whether messages may revoke tokens. If not, such messages go to the dead queue.
    pub revocations: bool,
    /// Whether requests may read any inbox: its notifications and its unread count. If not, their senders get an
    /// error.
    pub reads: bool,
    /// How messages of other services are decoded.
    pub mapping: Arc<MessageMapping>,
    /// The maximum number of messages that run in one batch.
    pub batch_size: usize,
    /// How long the first message of a batch waits for others.
    pub linger: Duration,
    /// How long the acknowledgement of a finished message may be delayed, to acknowledge several together.
    /// If the connection is lost before that, those messages are redelivered.
    pub ack_delay: Duration,
    /// The maximum number of attempts of a message. When the last attempt fails, the message goes to the dead
    /// queue. Failures during an outage do not count.
    pub max_attempts: u32,
    /// The maximum number of attempts of a message that refers to something that does not exist yet, such as
    /// a mark-as-read before its create. With the default retry delays, the last attempt is after 36 seconds.
    /// After that, an error of the sender is more likely than a delayed message.
    pub max_early_attempts: u32,
    /// The delay before messages that stayed pending run again, and before messages that a retry queue or the dead
    /// queue did not accept are published again. It doubles while none succeeds, up to `max_backoff`.
    pub initial_backoff: Duration,
    /// The maximum backoff.
    pub max_backoff: Duration,
}

impl Default for IngestSettings {
    /// The settings for store mode. Batches are large, because each costs a transaction. Stored messages are
    /// acknowledged at once.
    fn default() -> Self {
        Self {
            prefetch: 1_000,
            prefetch_bytes: 2 << 20,
            revocations: false,
            reads: false,
            mapping: Arc::default(),
            batch_size: 500,
            linger: Duration::from_millis(2),
            ack_delay: Duration::ZERO,
            max_attempts: 6,
            max_early_attempts: 4,
            initial_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(5),
        }
    }
}

impl IngestSettings {
    /// The settings for forward mode. No message waits for others, and acknowledgements are delayed. `reads`
    /// is on, so that the handler refuses requests that read inboxes: its error, that another service keeps
    /// the inboxes, is more useful than the one for `reads`.
    pub fn forwarding() -> Self {
        Self {
            prefetch: 1_000,
            reads: true,
            linger: Duration::ZERO,
            ack_delay: Duration::from_millis(50),
            ..Self::default()
        }
    }
}
