use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use lapin::Consumer;
use tokio::time::{Instant, timeout_at};

use crate::amqp::{ByteBudget, ConnectionError, HeldDelivery};

/// Collects a consumer's deliveries into batches. The prefetch and the connection's byte budget limit the
/// deliveries that it holds.
pub(super) struct DeliveryBatcher {
    consumer: Consumer,
    budget: Arc<ByteBudget>,
    /// Deliveries that are received and not returned yet. They stay here when a call is cancelled.
    received: VecDeque<HeldDelivery>,
    /// The broker has cancelled the consumer, which must not be polled again: lapin reports the end of the stream
    /// only once, and a second poll would wait forever.
    ended: bool,
}

impl DeliveryBatcher {
    pub(super) fn new(consumer: Consumer, budget: Arc<ByteBudget>) -> Self {
        Self { consumer, budget, received: VecDeque::new(), ended: false }
    }

    /// Whether the broker has cancelled the consumer: the queue was deleted or moved to another broker node.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether the consumer has ended and all its deliveries were returned.
    pub(super) fn is_exhausted(&self) -> bool {
        self.ended && self.received.is_empty()
    }

    /// Continues with a new consumer. Deliveries of the old one stay in the batcher.
    pub(super) fn replace_consumer(&mut self, consumer: Consumer) {
        self.consumer = consumer;
        self.ended = false;
    }

    /// Waits for a delivery, then at most `linger` for others, and returns up to `max` deliveries. After the
    /// consumer has ended, it returns the remaining deliveries without waiting, and then empty batches. If
    /// the call is cancelled, no delivery is lost.
    pub(super) async fn next_batch(
        &mut self,
        max: usize,
        linger: Duration,
    ) -> Result<Vec<HeldDelivery>, ConnectionError> {
        if self.received.is_empty() {
            self.receive_next().await?;
        }
        let deadline = Instant::now() + linger;
        while self.received.len() < max && !self.ended {
            // A timer of zero would wait for up to a millisecond, the resolution of Tokio's timers.
            let received = if linger.is_zero() {
                self.receive_next().now_or_never()
            } else {
                timeout_at(deadline, self.receive_next()).await.ok()
            };
            match received {
                Some(result) => result?,
                None => break,
            }
        }
        Ok(self.take(max))
    }

    /// Returns up to `max` deliveries that are available without waiting.
    pub(super) fn take_available(
        &mut self,
        max: usize,
    ) -> Result<Vec<HeldDelivery>, ConnectionError> {
        // Receive all available deliveries even if `max` is small: the end of the consumer comes after them,
        // and the caller must detect it (`has_ended`) even while it takes no messages.
        while let Some(result) = self.receive_next().now_or_never() {
            result?;
            if self.ended {
                break;
            }
        }
        Ok(self.take(max))
    }

    /// Waits for one delivery, or for the end of the consumer, and records it.
    async fn receive_next(&mut self) -> Result<(), ConnectionError> {
        if self.ended {
            return Ok(());
        }
        match self.consumer.next().await {
            Some(delivery) => self.received.push_back(self.budget.hold(delivery?)),
            None => self.ended = true,
        }
        Ok(())
    }

    fn take(&mut self, max: usize) -> Vec<HeldDelivery> {
        let count = max.min(self.received.len());
        self.received.drain(..count).collect()
    }
}
