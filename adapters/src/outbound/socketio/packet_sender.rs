use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use super::namespace::Namespace;
use super::poll_queue::{PollQueue, PollResponse, RequestTag};
use crate::transport::{FrameWriter, NotSent, SendLimits, binary_frame, text_frame};

/// The sending half of one Engine.IO session, whatever its transport is at the moment.
///
/// It is shared by the session's task and all tasks that send to the client. One lock decides the order of
/// what is sent, so that a packet of a namespace never follows the packet that ends it.
pub struct PacketSender {
    state: Mutex<State>,
    limits: SendLimits,
    /// The session's task. Woken when there is something for it to look at: the session is to be closed, the
    /// backlog is gone, or another task changed what it waits for.
    task: AtomicWaker,
}

struct State {
    transport: Transport,
    phase: SessionPhase,
    namespaces: [Membership; Namespace::ALL.len()],
}

enum Transport {
    WebSocket(FrameWriter),
    Polling(Box<PollQueue>),
}

/// How far a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionPhase {
    Open,
    /// No more packets are accepted. What is queued is sent, then the transport is closed.
    Closing,
    /// The transport is to be closed now, or is closed.
    Aborted,
}

/// Where the client stands in one namespace.
#[derive(Debug, Default)]
struct Membership {
    phase: MembershipPhase,
    /// Incremented by every CONNECT and every leave. A session or socket with an older id is stale.
    connect: ConnectId,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum MembershipPhase {
    #[default]
    Outside,
    Connecting,
    Connected,
}

/// Names one CONNECT packet of one client in one namespace.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectId(u32);

/// How many bytes may be queued for a polling client while its messages are still processed. Unlike on a WebSocket
/// it is not zero: a client sends requests while no poll is waiting.
const POLLING_BACKLOG: usize = 64 * 1024;

impl PacketSender {
    pub(crate) fn websocket(writer: FrameWriter, limits: SendLimits) -> Arc<Self> {
        Self::new(Transport::WebSocket(writer), limits)
    }

    pub(crate) fn polling(limits: SendLimits) -> Arc<Self> {
        Self::new(Transport::Polling(Box::default()), limits)
    }

    fn new(transport: Transport, limits: SendLimits) -> Arc<Self> {
        let namespaces = Default::default();
        let state = Mutex::new(State { transport, phase: SessionPhase::Open, namespaces });
        Arc::new(Self { state, limits, task: AtomicWaker::new() })
    }

    /// Sends a message of text.
    pub fn send_text(&self, text: &str) -> Result<(), NotSent> {
        self.send(&text_frame(&["4", text]))
    }

    /// Sends a message of bytes.
    pub fn send_binary(&self, bytes: &[u8]) -> Result<(), NotSent> {
        self.send(&binary_frame(bytes))
    }

    /// Sends one packet, given as the WebSocket frame that carries it.
    pub(crate) fn send(&self, frame: &Bytes) -> Result<(), NotSent> {
        self.state.lock().send([frame].into_iter(), self.limits)
    }

    /// Sends packets of a namespace to which the client is connected by that CONNECT.
    pub(crate) fn send_in<'a>(
        &self,
        namespace: Namespace,
        connect: ConnectId,
        frames: impl Iterator<Item = &'a Bytes> + Clone,
    ) -> Result<(), NotSent> {
        let mut state = self.state.lock();
        if !state.namespaces[namespace as usize].is(MembershipPhase::Connected, connect) {
            return Err(NotSent::Closed);
        }
        state.send(frames, self.limits)
    }

    /// The client sent a CONNECT. One before it in the same namespace is void from now on.
    pub(crate) fn begin_connect(&self, namespace: Namespace) -> ConnectId {
        let mut state = self.state.lock();
        state.namespaces[namespace as usize].next(MembershipPhase::Connecting)
    }

    /// Tells the client that it is connected. `false` where that CONNECT is void, or cannot be answered.
    pub(crate) fn finish_connect(
        &self,
        namespace: Namespace,
        connect: ConnectId,
        answer: &Bytes,
    ) -> bool {
        let mut state = self.state.lock();
        let is_current =
            state.namespaces[namespace as usize].is(MembershipPhase::Connecting, connect);
        if !is_current || state.send([answer].into_iter(), self.limits).is_err() {
            return false;
        }
        state.namespaces[namespace as usize].phase = MembershipPhase::Connected;
        drop(state);
        // An event of the client may wait for this.
        self.task.wake();
        true
    }

    /// Whether the client is waiting for the answer to its CONNECT.
    pub(crate) fn is_connecting(&self, namespace: Namespace) -> bool {
        self.state.lock().namespaces[namespace as usize].phase == MembershipPhase::Connecting
    }

    /// Ends the client's membership by the server, with the packet that says so: `refusal` to a client that
    /// is still connecting, `disconnect` to one that is connected. Returns whether the client was in the
    /// namespace.
    pub(crate) fn end_membership(
        &self,
        namespace: Namespace,
        connect: ConnectId,
        refusal: &Bytes,
        disconnect: &Bytes,
    ) -> bool {
        let mut state = self.state.lock();
        let membership = &mut state.namespaces[namespace as usize];
        let last = match membership.phase {
            _ if membership.connect != connect => return false,
            MembershipPhase::Outside => return false,
            MembershipPhase::Connecting => refusal,
            MembershipPhase::Connected => disconnect,
        };
        membership.phase = MembershipPhase::Outside;
        if state.send([last].into_iter(), self.limits).is_err() {
            // A client that does not read would never learn that it is out.
            state.phase = SessionPhase::Aborted;
        }
        drop(state);
        self.task.wake();
        true
    }

    /// Closes the transport of a client that is in no namespace, and has not connected to this one or left it since
    /// that CONNECT.
    pub(crate) fn close_if_outside(&self, namespace: Namespace, connect: ConnectId) {
        let mut state = self.state.lock();
        let is_current = state.namespaces[namespace as usize].connect == connect;
        if is_current && !state.is_in_any_namespace() {
            state.close();
        }
        drop(state);
        self.task.wake();
    }

    /// Closes the transport on behalf of a membership, unless it is stale: if `graceful`, after what is queued has
    /// been sent, otherwise now. Returns whether it did.
    pub(crate) fn close_for(
        &self,
        namespace: Namespace,
        connect: ConnectId,
        graceful: bool,
    ) -> bool {
        let mut state = self.state.lock();
        let membership = &state.namespaces[namespace as usize];
        let is_current =
            membership.connect == connect && membership.phase != MembershipPhase::Outside;
        let is_open = state.phase == SessionPhase::Open;
        if is_current && graceful {
            state.close();
        } else if is_current {
            state.phase = SessionPhase::Aborted;
        }
        drop(state);
        self.task.wake();
        is_current && is_open
    }

    /// The client left by itself.
    pub(crate) fn leave(&self, namespace: Namespace) {
        self.state.lock().namespaces[namespace as usize].next(MembershipPhase::Outside);
    }

    /// Whether the client has sent a CONNECT, whatever became of it.
    pub(crate) fn has_ever_connected(&self) -> bool {
        let has = |its: &Membership| its.connect != ConnectId::default();
        self.state.lock().namespaces.iter().any(has)
    }

    /// Whether the client is connected to a namespace, or about to be.
    pub(crate) fn is_in_any_namespace(&self) -> bool {
        self.state.lock().is_in_any_namespace()
    }

    /// Whether the client is connected to the namespace by that CONNECT.
    pub(crate) fn is_connected(&self, namespace: Namespace, connect: ConnectId) -> bool {
        let state = self.state.lock();
        state.namespaces[namespace as usize].is(MembershipPhase::Connected, connect)
    }

    /// Closes the transport after what is queued has been sent.
    pub(crate) fn close(&self) {
        self.state.lock().close();
        self.task.wake();
    }

    /// Closes the transport now: what is queued is lost.
    pub(crate) fn abort(&self) {
        self.state.lock().phase = SessionPhase::Aborted;
        self.task.wake();
    }

    /// How many bytes of what was sent have not been handed to the network yet.
    pub(crate) fn queued_bytes(&self) -> usize {
        match &self.state.lock().transport {
            Transport::WebSocket(writer) => writer.queued_bytes(),
            Transport::Polling(queue) => queue.pending_bytes(),
        }
    }

    /// Wakes the session's task.
    pub(crate) fn wake_task(&self) {
        self.task.wake();
    }
}

/// For the session's task.
impl PacketSender {
    pub(crate) fn register_task(&self, cx: &Context<'_>) {
        self.task.register(cx.waker());
    }

    pub(crate) fn phase(&self) -> SessionPhase {
        self.state.lock().phase
    }

    /// Whether unread packets pile up: any on a WebSocket, more than [`POLLING_BACKLOG`] by polling, where a few
    /// always wait between two polls.
    pub(crate) fn has_backlog(&self) -> bool {
        match &self.state.lock().transport {
            Transport::WebSocket(writer) => writer.queued_bytes() > 0,
            Transport::Polling(queue) => queue.pending_bytes() > POLLING_BACKLOG,
        }
    }

    /// Ready while the backlog is small enough for the client's messages to be processed: backpressure for clients
    /// that send but do not read.
    pub(crate) fn poll_no_backlog(&self, cx: &Context<'_>) -> Poll<()> {
        self.poll_queued(POLLING_BACKLOG, cx)
    }

    /// Ready once all that was sent has been handed to the network, or the session is aborted.
    pub(crate) fn poll_finished(&self, cx: &Context<'_>) -> Poll<()> {
        self.register_task(cx);
        if self.phase() == SessionPhase::Aborted {
            return Poll::Ready(());
        }
        self.poll_queued(0, cx)
    }

    /// Ready while nothing is queued for a WebSocket, or at most that many bytes for a client that polls.
    fn poll_queued(&self, polling_limit: usize, cx: &Context<'_>) -> Poll<()> {
        match &self.state.lock().transport {
            Transport::WebSocket(writer) => writer.poll_drained(cx),
            Transport::Polling(queue) if queue.pending_bytes() <= polling_limit => Poll::Ready(()),
            // The next poll wakes the task.
            Transport::Polling(_) => Poll::Pending,
        }
    }

    /// The session is over: nothing is sent any more.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        state.phase = SessionPhase::Aborted;
        // A WebSocket is closed by its reading half.
        if let Transport::Polling(queue) = &mut state.transport {
            queue.end_waiting();
            **queue = PollQueue::default();
        }
    }
}

/// For polls and upgrades.
impl PacketSender {
    /// A poll arrived. `None` where the session does not poll any more.
    pub(crate) fn poll(&self, tag: RequestTag) -> Option<PollResponse> {
        let mut state = self.state.lock();
        let phase = state.phase;
        let Transport::Polling(queue) = &mut state.transport else { return None };
        let response = match phase {
            SessionPhase::Aborted => return None,
            SessionPhase::Open => queue.poll(tag),
            SessionPhase::Closing => match queue.poll(tag) {
                PollResponse::Wait { .. } => return None,
                response => response,
            },
        };
        if let PollResponse::Overlap = response {
            queue.close_waiting();
            state.phase = SessionPhase::Aborted;
        }
        drop(state);
        self.task.wake();
        Some(response)
    }

    /// Ends the poll that waits, with a `noop`.
    pub(crate) fn end_waiting_poll(&self) {
        self.with_queue(PollQueue::end_waiting);
    }

    /// The client probes a WebSocket.
    pub(crate) fn begin_probe(&self) {
        self.with_queue(PollQueue::begin_probe);
    }

    /// The client's probe failed; the session goes on polling.
    pub(crate) fn end_probe(&self) {
        self.with_queue(PollQueue::end_probe);
    }

    fn with_queue(&self, act: impl FnOnce(&mut PollQueue)) {
        if let Transport::Polling(queue) = &mut self.state.lock().transport {
            act(queue);
        }
    }

    /// Switches to this WebSocket, and first sends what no poll has fetched.
    pub(crate) fn upgrade(&self, writer: &FrameWriter) {
        let mut state = self.state.lock();
        let upgraded = Transport::WebSocket(writer.clone());
        if let Transport::Polling(queue) = std::mem::replace(&mut state.transport, upgraded) {
            // Within the queue's bounds already; a connection that fails here is noticed by its reader.
            let _ = writer.write(queue.into_pending().iter(), SendLimits::UNLIMITED);
        }
    }
}

impl State {
    fn send<'a>(
        &mut self,
        frames: impl Iterator<Item = &'a Bytes> + Clone,
        limits: SendLimits,
    ) -> Result<(), NotSent> {
        if self.phase != SessionPhase::Open {
            return Err(NotSent::Closed);
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
        // Nothing will come for a poll that waits now.
        if let Transport::Polling(queue) = &mut self.transport {
            queue.end_waiting();
        }
    }

    fn is_in_any_namespace(&self) -> bool {
        self.namespaces.iter().any(|its| its.phase != MembershipPhase::Outside)
    }
}

impl Membership {
    fn is(&self, phase: MembershipPhase, connect: ConnectId) -> bool {
        self.phase == phase && self.connect == connect
    }

    fn next(&mut self, phase: MembershipPhase) -> ConnectId {
        *self = Self { phase, connect: ConnectId(self.connect.0.wrapping_add(1)) };
        self.connect
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: SendLimits = SendLimits { frames: 8, bytes: 10_000 };
    const ROOT: Namespace = Namespace::Root;
    const OTHER: Namespace = Namespace::Notifications;

    fn frame(text: &str) -> Bytes {
        text_frame(&[text])
    }

    /// What a poll gets now.
    fn fetched(sender: &PacketSender) -> String {
        match sender.poll(None) {
            Some(PollResponse::Ready(body)) => String::from_utf8(body.to_vec()).unwrap(),
            Some(PollResponse::Wait { .. }) => String::new(),
            Some(PollResponse::Overlap) => panic!("one poll at a time"),
            None => "closed".to_owned(),
        }
    }

    fn connected(sender: &PacketSender, namespace: Namespace) -> ConnectId {
        let connect = sender.begin_connect(namespace);
        assert!(sender.finish_connect(namespace, connect, &frame("40")));
        connect
    }

    fn end(sender: &PacketSender, namespace: Namespace, connect: ConnectId) {
        sender.end_membership(namespace, connect, &frame("44"), &frame("41"));
    }

    #[test]
    fn nothing_is_sent_in_a_namespace_before_the_client_is_connected_to_it_nor_after() {
        let sender = PacketSender::polling(LIMITS);
        let event = frame("42[]");
        let connect = sender.begin_connect(ROOT);
        assert_eq!(sender.send_in(ROOT, connect, [&event].into_iter()), Err(NotSent::Closed));
        assert!(sender.finish_connect(ROOT, connect, &frame("40")));
        assert_eq!(sender.send_in(ROOT, connect, [&event].into_iter()), Ok(()));
        sender.leave(ROOT);
        assert_eq!(sender.send_in(ROOT, connect, [&event].into_iter()), Err(NotSent::Closed));
        assert_eq!(fetched(&sender), "40\u{1e}42[]");
    }

    #[test]
    fn second_connect_voids_the_first_in_every_state() {
        let sender = PacketSender::polling(LIMITS);
        let first = sender.begin_connect(ROOT);
        let second = sender.begin_connect(ROOT);
        assert!(!sender.finish_connect(ROOT, first, &frame("40")));
        end(&sender, ROOT, first);
        assert!(!sender.close_for(ROOT, first, false));
        assert!(sender.finish_connect(ROOT, second, &frame("40")));
        let third = connected(&sender, ROOT);
        let event = frame("42[]");
        assert_eq!(sender.send_in(ROOT, second, [&event].into_iter()), Err(NotSent::Closed));
        end(&sender, ROOT, second);
        assert_eq!(sender.send_in(ROOT, third, [&event].into_iter()), Ok(()));
        assert_eq!(fetched(&sender), "40\u{1e}40\u{1e}42[]");
        assert_eq!(sender.phase(), SessionPhase::Open);
    }

    #[test]
    fn connect_that_was_taken_back_is_not_answered() {
        let sender = PacketSender::polling(LIMITS);
        let connect = sender.begin_connect(ROOT);
        sender.leave(ROOT);
        assert!(!sender.finish_connect(ROOT, connect, &frame("40")));
        end(&sender, ROOT, connect);
        assert_eq!(fetched(&sender), "");
    }

    #[test]
    fn transport_is_closed_only_with_the_last_namespace() {
        let sender = PacketSender::polling(LIMITS);
        let (root, other) = (connected(&sender, ROOT), sender.begin_connect(OTHER));
        end(&sender, ROOT, root);
        sender.close_if_outside(ROOT, root);
        assert_eq!(sender.phase(), SessionPhase::Open, "the client is connecting to the other");
        assert!(!sender.close_for(ROOT, root, true), "that membership is over");
        end(&sender, OTHER, other);
        sender.close_if_outside(OTHER, other);
        assert_eq!(sender.phase(), SessionPhase::Closing);
        assert_eq!(sender.send(&frame("2")), Err(NotSent::Closed));
        assert_eq!(fetched(&sender), "40\u{1e}41\u{1e}44");
        assert_eq!(fetched(&sender), "closed");
    }

    #[test]
    fn client_that_cannot_be_told_that_it_is_out_is_cut_off() {
        let sender = PacketSender::polling(LIMITS);
        let (root, _) = (connected(&sender, ROOT), connected(&sender, OTHER));
        while sender.send(&frame("2")).is_ok() {}
        end(&sender, ROOT, root);
        assert_eq!(sender.phase(), SessionPhase::Aborted);
        assert_eq!(fetched(&sender), "closed");
    }

    #[tokio::test]
    async fn poll_that_waits_ends_with_the_session() {
        let close = |sender: &PacketSender| sender.close_if_outside(ROOT, ConnectId::default());
        for finish in [close, PacketSender::end] {
            let sender = PacketSender::polling(LIMITS);
            let Some(PollResponse::Wait { body, .. }) = sender.poll(None) else {
                panic!("nothing to send")
            };
            finish(&sender);
            assert_eq!(body.await.unwrap(), "6");
        }
    }

    #[tokio::test]
    async fn overlapping_poll_closes_the_session() {
        let sender = PacketSender::polling(LIMITS);
        let Some(PollResponse::Wait { body, .. }) = sender.poll(None) else {
            panic!("nothing to send")
        };
        assert!(matches!(sender.poll(None), Some(PollResponse::Overlap)));
        assert_eq!(body.await.unwrap(), "1");
        assert_eq!(sender.phase(), SessionPhase::Aborted);
    }
}
