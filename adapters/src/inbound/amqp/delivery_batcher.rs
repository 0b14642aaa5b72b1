use std::collections::VecDeque;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use lapin::Consumer;
use lapin::message::Delivery;
use tokio::time::{Instant, timeout_at};

use crate::amqp::ConnectionError;

/// Collects a consumer's deliveries into batches. The consumer's prefetch bounds how many can wait here.
pub(super) struct DeliveryBatcher {
    consumer: Consumer,
    /// Received and not returned yet, also by a call that was cancelled.
    received: VecDeque<Delivery>,
    /// The broker has cancelled the consumer. lapin's stream reports that once; polling it again would wait
    /// forever.
    ended: bool,
}

impl DeliveryBatcher {
    pub(super) fn new(consumer: Consumer) -> Self {
        Self { consumer, received: VecDeque::new(), ended: false }
    }

    /// Whether the broker has cancelled the consumer: the queue was deleted, or moved within the broker.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Continues with a new consumer. Deliveries of the old one stay in the batcher.
    pub(super) fn replace_consumer(&mut self, consumer: Consumer) {
        self.consumer = consumer;
        self.ended = false;
    }

    /// Waits for a delivery, then at most `linger` for others, and returns up to `max`. Returns none if
    /// the consumer has ended. Cancelling the call loses no delivery.
    pub(super) async fn next_batch(
        &mut self,
        max: usize,
        linger: Duration,
    ) -> Result<Vec<Delivery>, ConnectionError> {
        if self.received.is_empty() {
            self.next().await?;
        }
        let deadline = Instant::now() + linger;
        while self.received.len() < max && !self.ended {
            let next = if linger.is_zero() {
                self.next().now_or_never()
            } else {
                timeout_at(deadline, self.next()).await.ok()
            };
            match next {
                Some(next) => next?,
                None => break,
            }
        }
        Ok(self.take(max))
    }

    /// Returns up to `max` deliveries that are available without waiting.
    pub(super) fn available(&mut self, max: usize) -> Result<Vec<Delivery>, ConnectionError> {
        // Reads all of them, even if `max` is small: the consumer's end is behind them, and the caller
        // must notice it while it cannot process messages.
        while let Some(next) = self.next().now_or_never() {
            next?;
            if self.ended {
                break;
            }
        }
        Ok(self.take(max))
    }

    /// Waits for one delivery, or for the end.
    async fn next(&mut self) -> Result<(), ConnectionError> {
        if self.ended {
            return Ok(());
        }
        match self.consumer.next().await {
            Some(delivery) => self.received.push_back(delivery?),
            None => self.ended = true,
        }
        Ok(())
    }

    fn take(&mut self, max: usize) -> Vec<Delivery> {
        let count = max.min(self.received.len());
        self.received.drain(..count).collect()
    }
}
