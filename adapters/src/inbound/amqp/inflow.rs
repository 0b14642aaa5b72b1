use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use lapin::Consumer;
use lapin::message::Delivery;
use tokio::time::{Instant, timeout_at};

use crate::amqp::Lost;

/// What a consumer delivers, many at a time. How much can be waiting here is bounded by the consumer's
/// prefetch.
pub(super) struct Inflow {
    consumer: Consumer,
    /// What was taken by a wait that was given up.
    taken: Vec<Delivery>,
}

impl Inflow {
    pub(super) fn new(consumer: Consumer) -> Self {
        Self { consumer, taken: Vec::new() }
    }

    /// Waits for one and takes those that come with it, at most `most` of them, for at most `linger`.
    /// Nothing is lost when the wait is given up.
    pub(super) async fn some(
        &mut self,
        most: usize,
        linger: Duration,
    ) -> Result<Vec<Delivery>, Lost> {
        if self.taken.is_empty() {
            let first = self.next().await?;
            self.taken.push(first);
        }
        let deadline = Instant::now() + linger;
        while self.taken.len() < most {
            let next = if linger.is_zero() {
                self.next().now_or_never()
            } else {
                timeout_at(deadline, self.next()).await.ok()
            };
            match next {
                Some(next) => self.taken.push(next?),
                None => break,
            }
        }
        Ok(std::mem::take(&mut self.taken))
    }

    /// Takes what is there already, at most so many.
    pub(super) fn there(&mut self, most: usize) -> Result<Vec<Delivery>, Lost> {
        let mut taken = Vec::new();
        while taken.len() < most {
            match self.next().now_or_never() {
                Some(next) => taken.push(next?),
                None => break,
            }
        }
        Ok(taken)
    }

    async fn next(&mut self) -> Result<Delivery, Lost> {
        let next = self.consumer.next().await;
        Ok(next.ok_or_else(|| Lost::ConsumerCancelled(self.consumer.queue().to_string()))??)
    }
}
