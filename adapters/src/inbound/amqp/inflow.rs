use std::collections::VecDeque;
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
    /// What came and was not taken yet, also by a wait that was given up.
    came: VecDeque<Delivery>,
    /// Whether the broker has ended the consumer. It says so once: who asks again waits for ever.
    ended: bool,
}

impl Inflow {
    pub(super) fn new(consumer: Consumer) -> Self {
        Self { consumer, came: VecDeque::new(), ended: false }
    }

    /// Whether nothing more will come: the queue was deleted, or moved within the broker.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Goes on with another consumer; what came by the one before is still there.
    pub(super) fn go_on_with(&mut self, consumer: Consumer) {
        self.consumer = consumer;
        self.ended = false;
    }

    /// Waits for one and takes those that come with it, at most `most` of them, for at most `linger`;
    /// none if there are none and the consumer has ended. Nothing is lost when the wait is given up.
    pub(super) async fn some(
        &mut self,
        most: usize,
        linger: Duration,
    ) -> Result<Vec<Delivery>, Lost> {
        if self.came.is_empty() {
            self.next().await?;
        }
        let deadline = Instant::now() + linger;
        while self.came.len() < most && !self.ended {
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
        Ok(self.take(most))
    }

    /// Takes what is there already, at most so many.
    pub(super) fn there(&mut self, most: usize) -> Result<Vec<Delivery>, Lost> {
        // Looks at all of it, however few are wanted: the end of the consumer comes behind them, and is
        // not to be missed while whoever takes them can do nothing.
        while let Some(next) = self.next().now_or_never() {
            next?;
            if self.ended {
                break;
            }
        }
        Ok(self.take(most))
    }

    /// Waits for one, or for the end.
    async fn next(&mut self) -> Result<(), Lost> {
        if self.ended {
            return Ok(());
        }
        match self.consumer.next().await {
            Some(delivery) => self.came.push_back(delivery?),
            None => self.ended = true,
        }
        Ok(())
    }

    fn take(&mut self, most: usize) -> Vec<Delivery> {
        let count = most.min(self.came.len());
        self.came.drain(..count).collect()
    }
}
