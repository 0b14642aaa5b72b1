use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use lapin::message::Delivery;

/// Limits the bytes of the message bodies that a connection has received and this process still holds.
///
/// RabbitMQ limits unacknowledged messages by their number only: it refuses any `prefetch_size` except 0.
/// Therefore, when the limit is reached, the connection's stream stops reading before the next message. TCP slows
/// the broker down, and further messages stay in the broker. The message that reaches the limit is still received
/// completely, so a message may be larger than the limit.
#[derive(Debug)]
pub(crate) struct ByteBudget {
    limit: AtomicUsize,
    held: AtomicUsize,
    /// The task that reads the stream.
    reader: AtomicWaker,
}

impl ByteBudget {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        let limit = AtomicUsize::new(limit.max(1));
        Arc::new(Self { limit, held: AtomicUsize::new(0), reader: AtomicWaker::new() })
    }

    /// Counts bytes of a body that the stream passes on to lapin.
    pub(super) fn receive(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::SeqCst);
    }

    /// Waits until the stream may pass on another message.
    pub(super) fn poll_available(&self, context: &Context<'_>) -> Poll<()> {
        if self.is_available() {
            return Poll::Ready(());
        }
        self.reader.register(context.waker());
        // Bytes that were released before the registration have not woken the task.
        if self.is_available() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Whether the stream may pass on another message.
    pub(super) fn is_available(&self) -> bool {
        self.held.load(Ordering::SeqCst) < self.limit.load(Ordering::SeqCst)
    }

    /// Releases the bytes of a received delivery when the returned value is dropped. Every delivery of a
    /// connection with a limit must be passed to this function. Otherwise its bytes would count forever.
    pub(crate) fn hold(self: &Arc<Self>, delivery: Delivery) -> HeldDelivery {
        HeldDelivery { delivery, budget: Some(self.clone()) }
    }

    /// Removes the limit. To be called before the connection or a channel is closed: the broker may send further
    /// deliveries before its `close-ok`, which a stopped stream would never read.
    pub(crate) fn lift(&self) {
        self.limit.store(usize::MAX, Ordering::SeqCst);
        self.reader.wake();
    }

    fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::SeqCst);
        self.reader.wake();
    }
}

/// A delivery that counts against the [`ByteBudget`] of its connection.
#[derive(Debug)]
pub(crate) struct HeldDelivery {
    delivery: Delivery,
    /// `None` in tests, for a delivery that does not come from a connection.
    budget: Option<Arc<ByteBudget>>,
}

impl Deref for HeldDelivery {
    type Target = Delivery;

    fn deref(&self) -> &Delivery {
        &self.delivery
    }
}

impl Drop for HeldDelivery {
    fn drop(&mut self) {
        if let Some(budget) = &self.budget {
            budget.release(self.delivery.data.len());
        }
    }
}

#[cfg(test)]
impl From<Delivery> for HeldDelivery {
    fn from(delivery: Delivery) -> Self {
        Self { delivery, budget: None }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn exhausted_budget_is_available_again_when_a_delivery_is_dropped() {
        let budget = ByteBudget::new(10);
        let context = Context::from_waker(Waker::noop());
        budget.receive(7);
        assert!(budget.poll_available(&context).is_ready());
        budget.receive(7);
        assert!(budget.poll_available(&context).is_pending());
        let delivery = Delivery::mock(1, "".into(), "".into(), false, vec![0; 7]);
        let held = budget.hold(delivery);
        assert!(budget.poll_available(&context).is_pending());
        drop(held);
        assert!(budget.poll_available(&context).is_ready(), "7 of 10 bytes are held");
    }

    #[test]
    fn exhausted_budget_is_available_when_the_limit_is_lifted() {
        let budget = ByteBudget::new(10);
        budget.receive(20);
        budget.lift();
        assert!(budget.poll_available(&Context::from_waker(Waker::noop())).is_ready());
    }
}
