use std::sync::Arc;
use std::time::Duration;

use super::message_mapping::MessageMapping;

/// How the ingest queue is consumed.
#[derive(Debug, Clone)]
pub struct IngestSettings {
    /// How many unacknowledged messages the broker delivers.
    pub prefetch: u16,
    /// How many bytes of messages are held at a time. Reaching it stops the connection's stream before the
    /// next message.
    pub prefetch_bytes: usize,
    /// Whether messages may revoke tokens. Otherwise they go to the dead queue.
    pub revocations: bool,
    /// Whether requests may read any inbox: its list and its count.
    pub reads: bool,
    /// How messages of other services are read.
    pub mapping: Arc<MessageMapping>,
    /// How many messages run in one batch at most.
    pub batch_size: usize,
    /// How long the first message of a batch waits for others.
    pub linger: Duration,
    /// How long the acknowledgement of a finished message may be delayed, to acknowledge several together.
    /// If the connection is lost meanwhile, those messages are redelivered.
    pub ack_delay: Duration,
    /// How often a message may fail while others succeed. After that it goes to the dead queue.
    pub max_attempts: u32,
    /// How often a message may refer to something that does not exist yet. Together with the retry delays
    /// this limits how far two messages may overtake each other: by default 36 seconds. After that an
    /// error of the sender is more likely.
    pub max_early_attempts: u32,
    /// The delay after a failure of all messages. It doubles with each failure…
    pub initial_backoff: Duration,
    /// …up to this.
    pub max_backoff: Duration,
}

impl Default for IngestSettings {
    /// For store mode: batches are large because each costs a transaction, and stored messages are
    /// acknowledged at once.
    fn default() -> Self {
        Self {
            prefetch: 1_000,
            prefetch_bytes: 8 << 20,
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
    /// For forward mode: no message waits for others, and acknowledgements are delayed. Requests that read inboxes are
    /// refused by the handler, whose reason is more useful than that of `reads`.
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
