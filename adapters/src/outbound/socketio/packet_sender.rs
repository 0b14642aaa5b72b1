use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use super::membership::{Membership, MembershipPhase};
use super::namespace::{Namespace, NamespaceMap};
use super::poll_queue::PollQueue;
use crate::transport::{EnqueueError, FrameWriter, SendLimits, binary_frame, text_frame};

mod namespaces;
mod polls;
#[cfg(test)]
mod tests;

/// The sending half of one Engine.IO session, for both transports: a WebSocket or polling.
///
/// The session's task and all tasks that send to the client share it. One lock orders all packets, so that no
/// packet of a namespace follows the packet that disconnects the client from it.
pub struct PacketSender {
    state: Mutex<State>,
    limits: SendLimits,
    /// Wakes the session's task when the session must be closed, when the backlog has been sent, or when another
    /// task has changed something that the session's task waits for.
    session_task: AtomicWaker,
}

struct State {
    transport: Transport,
    phase: SessionPhase,
    namespaces: NamespaceMap<Membership>,
}

enum Transport {
    WebSocket(FrameWriter),
    Polling(Box<PollQueue>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionPhase {
    Open,
    /// No more packets are accepted. Queued packets are sent, then the transport is closed.
    Closing,
    /// The transport must be closed now, or is closed.
    Aborted,
}

/// How many bytes may be queued for a polling client while its messages are still processed. On a WebSocket this limit
/// is zero. By polling it is not, because packets are also queued while the client sends a request and no poll is
/// waiting.
const POLLING_BACKLOG: usize = 64 * 1024;

impl PacketSender {
    pub(crate) fn websocket(writer: FrameWriter, limits: SendLimits) -> Arc<Self> {
        Self::new(Transport::WebSocket(writer), limits)
    }

    pub(crate) fn polling(limits: SendLimits) -> Arc<Self> {
        Self::new(Transport::Polling(Box::default()), limits)
    }

    fn new(transport: Transport, limits: SendLimits) -> Arc<Self> {
        let namespaces = NamespaceMap::default();
        let state = Mutex::new(State { transport, phase: SessionPhase::Open, namespaces });
        Arc::new(Self { state, limits, session_task: AtomicWaker::new() })
    }

    /// Sends a text message.
    pub fn send_text(&self, text: &str) -> Result<(), EnqueueError> {
        // `4` is Engine.IO's message packet.
        self.send(&text_frame(&["4", text]))
    }

    /// Sends a binary message.
    pub fn send_binary(&self, bytes: &[u8]) -> Result<(), EnqueueError> {
        self.send(&binary_frame(bytes))
    }

    /// Sends one packet, given as a WebSocket frame.
    pub(crate) fn send(&self, frame: &Bytes) -> Result<(), EnqueueError> {
        self.state.lock().send([frame].into_iter(), self.limits)
    }

    /// Closes the transport after queued packets have been sent.
    pub(crate) fn close(&self) {
        self.update(State::close);
    }

    /// Closes the transport now and drops queued packets.
    pub(crate) fn abort(&self) {
        self.update(|state| state.phase = SessionPhase::Aborted);
    }

    /// How many bytes wait to be sent.
    pub(crate) fn queued_bytes(&self) -> usize {
        match &self.state.lock().transport {
            Transport::WebSocket(writer) => writer.queued_bytes(),
            Transport::Polling(queue) => queue.pending_bytes(),
        }
    }

    /// Wakes the session's task.
    pub(crate) fn wake_task(&self) {
        self.session_task.wake();
    }

    /// Changes the state and wakes the session's task.
    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state.lock());
        self.session_task.wake();
        result
    }
}

/// For the session's task.
impl PacketSender {
    pub(crate) fn register_task(&self, cx: &Context<'_>) {
        self.session_task.register(cx.waker());
    }

    pub(crate) fn phase(&self) -> SessionPhase {
        self.state.lock().phase
    }

    /// Whether the client has left packets unread: any packet on a WebSocket, or more than [`POLLING_BACKLOG`] bytes by
    /// polling.
    pub(crate) fn has_backlog(&self) -> bool {
        match &self.state.lock().transport {
            Transport::WebSocket(writer) => writer.queued_bytes() > 0,
            Transport::Polling(queue) => queue.pending_bytes() > POLLING_BACKLOG,
        }
    }

    /// Ready while the client has no backlog, so that no further messages are received from a client that does not
    /// read (backpressure).
    pub(crate) fn poll_no_backlog(&self, cx: &Context<'_>) -> Poll<()> {
        self.poll_queued(POLLING_BACKLOG, cx)
    }

    /// Ready once all packets have been sent, or the session is aborted.
    pub(crate) fn poll_finished(&self, cx: &Context<'_>) -> Poll<()> {
        self.register_task(cx);
        if self.phase() == SessionPhase::Aborted {
            return Poll::Ready(());
        }
        self.poll_queued(0, cx)
    }

    /// Ready while nothing is queued for a WebSocket, or at most `polling_limit` bytes for a polling client.
    fn poll_queued(&self, polling_limit: usize, cx: &Context<'_>) -> Poll<()> {
        match &self.state.lock().transport {
            Transport::WebSocket(writer) => writer.poll_drained(cx),
            Transport::Polling(queue) if queue.pending_bytes() <= polling_limit => Poll::Ready(()),
            // The client's next poll wakes the session's task.
            Transport::Polling(_) => Poll::Pending,
        }
    }

    /// Ends the session: no packet is sent after this.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        state.phase = SessionPhase::Aborted;
        // A WebSocket is closed by dropping its reading half.
        if let Transport::Polling(queue) = &mut state.transport {
            queue.answer_with_noop();
            **queue = PollQueue::default();
        }
    }
}

impl State {
    fn send<'a>(
        &mut self,
        frames: impl Iterator<Item = &'a Bytes> + Clone,
        limits: SendLimits,
    ) -> Result<(), EnqueueError> {
        if self.phase != SessionPhase::Open {
            return Err(EnqueueError::Closed);
        }
        match &mut self.transport {
            Transport::WebSocket(writer) => writer.write(frames, limits),
            Transport::Polling(queue) => queue.push(frames, limits),
        }
    }

    fn close(&mut self) {
        if self.phase == SessionPhase::Open {
            self.phase = SessionPhase::Closing;
        }
        // A waiting poll means that no packet is queued, and no packet will follow.
        if let Transport::Polling(queue) = &mut self.transport {
            queue.answer_with_noop();
        }
    }

    fn membership(&mut self, namespace: Namespace) -> &mut Membership {
        self.namespaces.get_mut(namespace)
    }

    fn is_in_any_namespace(&self) -> bool {
        let is_member = |membership: &Membership| membership.phase != MembershipPhase::Disconnected;
        self.namespaces.iter().any(is_member)
    }
}
