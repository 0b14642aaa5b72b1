use super::super::poll_queue::{PollQueue, PollResponse, RequestTag};
use super::{PacketSender, SessionPhase, Transport};
use crate::transport::{FrameWriter, SendLimits};

/// For polls and upgrades.
impl PacketSender {
    /// Receives a poll of the client and returns the response. `None` rejects the poll: the session has been upgraded,
    /// has ended, or is closing and has sent all packets. A second poll while another one waits ends the session.
    pub(crate) fn poll(&self, tag: RequestTag) -> Option<PollResponse> {
        self.update(|state| {
            let Transport::Polling(queue) = &mut state.transport else { return None };
            let response = match state.phase {
                SessionPhase::Aborted => return None,
                SessionPhase::Open => queue.poll(tag),
                SessionPhase::Closing => match queue.poll(tag) {
                    PollResponse::Wait { .. } => return None,
                    response => response,
                },
            };
            if let PollResponse::Overlap = response {
                queue.answer_with_close();
                state.phase = SessionPhase::Aborted;
            }
            Some(response)
        })
    }

    /// Answers the waiting poll with a `noop`.
    pub(crate) fn end_waiting_poll(&self) {
        self.with_queue(PollQueue::answer_with_noop);
    }

    /// Records that the client probes a WebSocket.
    pub(crate) fn begin_probe(&self) {
        self.with_queue(PollQueue::begin_probe);
    }

    /// Records that the probe failed, so the session continues polling.
    pub(crate) fn end_probe(&self) {
        self.with_queue(PollQueue::end_probe);
    }

    /// Calls `action` with the queue of a session that polls.
    fn with_queue(&self, action: impl FnOnce(&mut PollQueue)) {
        if let Transport::Polling(queue) = &mut self.state.lock().transport {
            action(queue);
        }
    }

    /// Switches to this WebSocket, and first sends the packets that no poll has fetched.
    pub(crate) fn upgrade(&self, writer: &FrameWriter) {
        let mut state = self.state.lock();
        let upgraded = Transport::WebSocket(writer.clone());
        if let Transport::Polling(queue) = std::mem::replace(&mut state.transport, upgraded) {
            // The packets were within the limits when they were queued. The task that reads the WebSocket notices a
            // broken connection.
            let _ = writer.write(queue.into_pending().iter(), SendLimits::UNLIMITED);
        }
    }
}
