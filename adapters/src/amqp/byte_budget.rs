use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use lapin::message::Delivery;

/// Limits the bytes of the message bodies that a connection has received and this process still holds.
///
/// RabbitMQ limits unacknowledged messages by their number only: it refuses any `prefetch_size` except 0.
/// Therefore the connection's stream stops before the next message when the limit is reached. TCP slows the
/// broker down, and further messages stay in the broker. The message that reaches the limit is still received
/// whole, so a message may be larger than the limit.
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
        if self.is_available() { Poll::Ready(()) } else { Poll::Pending }
    }

    pub(super) fn is_available(&self) -> bool {
        self.held.load(Ordering::SeqCst) < self.limit.load(Ordering::SeqCst)
    }

    /// Counts a received delivery until the result is dropped. Every delivery of a connection with a limit must be
    /// passed to this function: the bytes of a delivery that is dropped elsewhere would count forever.
    pub(crate) fn hold(self: &Arc<Self>, delivery: Delivery) -> HeldDelivery {
        HeldDelivery { delivery, budget: Some(self.clone()) }
    }

    /// Removes the limit. To be called before the connection or a channel is closed: the broker's `close-ok` may
    /// be queued behind further deliveries, and a stopped stream would never read it.
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
    /// `None` for a delivery that does not come from a connection.
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
    fn dropped_delivery_makes_room_for_the_next_message() {
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
        assert!(budget.poll_available(&context).is_ready());
    }

    #[test]
    fn lifted_limit_no_longer_stops_the_stream() {
        let budget = ByteBudget::new(10);
        budget.receive(20);
        budget.lift();
        assert!(budget.poll_available(&Context::from_waker(Waker::noop())).is_ready());
    }
}
