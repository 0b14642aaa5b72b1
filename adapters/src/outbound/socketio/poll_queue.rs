use std::collections::VecDeque;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::transport::{EnqueueError, Payload, Queued, SendLimits, payload_of};

/// Separates the packets in the body of a response (Engine.IO protocol, "Packet encoding").
const SEPARATOR: u8 = 0x1e;

/// The packets `noop` and `close` of Engine.IO.
const NOOP: Bytes = Bytes::from_static(b"6");
const CLOSE: Bytes = Bytes::from_static(b"1");

/// When a response has this many bytes, no further packet is added to it. The size must be bounded, because the
/// response is kept until the next poll confirms it.
const MAX_RESPONSE: usize = 256 * 1024;

/// The maximum number of packets in a response: python-engineio rejects larger ones as an attack.
const MAX_RESPONSE_PACKETS: usize = 16;

/// The packets that wait for a polling client, and the state of its polls.
///
/// A response is kept until the next poll confirms it. A browser repeats a poll automatically when its connection
/// breaks, and then gets the same response again. Otherwise a lost response would lose packets.
#[derive(Default)]
pub(super) struct PollQueue {
    /// WebSocket frames, so that they can be written unchanged after an upgrade.
    pending: VecDeque<Bytes>,
    pending_bytes: usize,
    /// The last response, until it is confirmed.
    answered: Option<AnsweredPoll>,
    waiting: Option<WaitingPoll>,
    /// While the client probes a WebSocket, the time after which the next waiting poll is answered with a `noop`;
    /// otherwise `None`.
    noop_after: Option<Duration>,
}

/// The value of a request's parameter `t`. Clients set it to a new value for each new request, so a repeated request
/// has the same tag. `None` if the parameter is absent: then each request counts as new.
pub(crate) type RequestTag = Option<Box<str>>;

struct AnsweredPoll {
    tag: RequestTag,
    body: Bytes,
}

struct WaitingPoll {
    tag: RequestTag,
    response: oneshot::Sender<Bytes>,
}

/// The response to a poll.
pub(crate) enum PollResponse {
    /// Packets are pending; contains the body.
    Ready(Bytes),
    /// No packet is pending, so the poll waits.
    Wait {
        /// The body, once there is one.
        body: oneshot::Receiver<Bytes>,
        /// After this time the poll must be answered with a `noop`, because the client is upgrading. It switches to
        /// the WebSocket once its last poll has ended.
        noop_after: Option<Duration>,
    },
    /// Another poll is waiting already, which violates the protocol.
    Overlap,
}

impl PollQueue {
    /// How long the first poll waits for its `noop` during an upgrade. The time doubles with each poll, so that a
    /// client whose probe never succeeds does not poll in a busy loop.
    const MIN_NOOP_AFTER: Duration = Duration::from_millis(100);
    const MAX_NOOP_AFTER: Duration = Duration::from_secs(2);

    /// Queues frames, and answers the waiting poll.
    pub(super) fn push<'a>(
        &mut self,
        frames: impl Iterator<Item = &'a Bytes> + Clone,
        limits: SendLimits,
    ) -> Result<(), EnqueueError> {
        let more = Queued::of(frames.clone());
        if !limits.allow(self.queued(), more) {
            return Err(EnqueueError::Full);
        }
        self.pending.extend(frames.cloned());
        self.pending_bytes += more.bytes;
        self.answer_waiting();
        Ok(())
    }

    /// The amount that counts towards the send limits: pending packets and the unconfirmed response.
    fn queued(&self) -> Queued {
        let unconfirmed = self.answered.as_ref().map_or(0, |answered| answered.body.len());
        Queued { frames: self.pending.len(), bytes: self.pending_bytes + unconfirmed }
    }

    pub(super) fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Receives a poll.
    pub(super) fn poll(&mut self, tag: RequestTag) -> PollResponse {
        // A waiting poll that the client has abandoned does not count.
        if let Some(waiting) = &self.waiting
            && !waiting.response.is_closed()
            && !is_repetition(&waiting.tag, &tag)
        {
            return PollResponse::Overlap;
        }
        if let Some(answered) = &self.answered
            && is_repetition(&answered.tag, &tag)
        {
            return PollResponse::Ready(answered.body.clone());
        }
        // A new poll confirms the last response.
        self.answered = None;
        if !self.pending.is_empty() {
            let body = self.take_response();
            self.answered = Some(AnsweredPoll { tag, body: body.clone() });
            return PollResponse::Ready(body);
        }
        let (response, body) = oneshot::channel();
        self.waiting = Some(WaitingPoll { tag, response });
        let noop_after = self.noop_after;
        self.noop_after = noop_after.map(|delay| (2 * delay).min(Self::MAX_NOOP_AFTER));
        PollResponse::Wait { body, noop_after }
    }

    /// The body of a response with the first pending packets, and the number of these packets. They stay pending.
    fn encode_response(&self) -> (Bytes, usize) {
        let mut body = Vec::new();
        let mut count = 0;
        for frame in &self.pending {
            if count == MAX_RESPONSE_PACKETS || body.len() >= MAX_RESPONSE {
                break;
            }
            if count > 0 {
                body.push(SEPARATOR);
            }
            match payload_of(frame) {
                Payload::Text(text) => body.extend_from_slice(&text),
                Payload::Binary(bytes) => {
                    // In a body, Engine.IO encodes a binary message as `b` and Base64.
                    body.push(b'b');
                    body.extend_from_slice(BASE64_STANDARD.encode(bytes).as_bytes());
                }
            }
            count += 1;
        }
        (body.into(), count)
    }

    fn remove_first(&mut self, count: usize) {
        self.pending_bytes -= self.pending.drain(..count).map(|frame| frame.len()).sum::<usize>();
        if self.pending.is_empty() {
            // Frees the memory of the queue.
            self.pending = VecDeque::new();
        }
    }

    /// Removes the first pending packets and returns a body with them.
    fn take_response(&mut self) -> Bytes {
        let (body, count) = self.encode_response();
        self.remove_first(count);
        body
    }

    /// Answers the waiting poll, if there is one, with pending packets.
    fn answer_waiting(&mut self) {
        let Some(WaitingPoll { tag, response }) = self.waiting.take() else { return };
        let (body, count) = self.encode_response();
        // If the client has abandoned that poll, the packets stay pending for the next one.
        if response.send(body.clone()).is_ok() {
            self.remove_first(count);
            self.answered = Some(AnsweredPoll { tag, body });
        }
    }

    /// Records that the client probes a WebSocket. From now on, waiting polls are answered early.
    pub(super) fn begin_probe(&mut self) {
        self.noop_after = Some(Self::MIN_NOOP_AFTER);
        self.answer_with_noop();
    }

    /// Records that the probe failed. Polls wait without a limit again.
    pub(super) fn end_probe(&mut self) {
        self.noop_after = None;
    }

    /// Answers the waiting poll with a `noop`.
    pub(super) fn answer_with_noop(&mut self) {
        if let Some(WaitingPoll { tag, response }) = self.waiting.take() {
            let _ = response.send(NOOP);
            self.answered = Some(AnsweredPoll { tag, body: NOOP });
        }
    }

    /// Answers the waiting poll with a `close` packet. Pending packets stay queued.
    pub(super) fn answer_with_close(&mut self) {
        if let Some(WaitingPoll { response, .. }) = self.waiting.take() {
            let _ = response.send(CLOSE);
        }
    }

    /// The packets that no poll has fetched, to be sent over another transport. Answers the waiting poll.
    pub(super) fn into_pending(mut self) -> VecDeque<Bytes> {
        self.answer_with_noop();
        self.pending
    }
}

/// Whether a request with `tag` repeats the one with the earlier tag.
fn is_repetition(earlier: &RequestTag, tag: &RequestTag) -> bool {
    tag.is_some() && earlier == tag
}

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::transport::{binary_frame, text_frame};

    const LIMITS: SendLimits = SendLimits { frames: 4, bytes: 1_000 };

    fn push(queue: &mut PollQueue, texts: &[&str]) -> Result<(), EnqueueError> {
        let frames: Vec<_> = texts.iter().map(|text| text_frame(&[text])).collect();
        queue.push(frames.iter(), LIMITS)
    }

    #[expect(clippy::unnecessary_wraps, reason = "the queue expects an option")]
    fn tag(tag: &str) -> RequestTag {
        Some(tag.into())
    }

    fn ready(response: PollResponse) -> String {
        match response {
            PollResponse::Ready(body) => String::from_utf8(body.to_vec()).unwrap(),
            PollResponse::Wait { .. } => panic!("nothing to send"),
            PollResponse::Overlap => panic!("another poll waits"),
        }
    }

    fn waiting(response: PollResponse) -> oneshot::Receiver<Bytes> {
        match response {
            PollResponse::Wait { body, .. } => body,
            PollResponse::Ready(body) => panic!("{body:?}"),
            PollResponse::Overlap => panic!("another poll waits"),
        }
    }

    #[test]
    fn poll_fetches_all_pending_packets() {
        let mut queue = PollQueue::default();
        push(&mut queue, &["40", "42[1]"]).unwrap();
        queue.push([binary_frame(&[1, 2, 3, 4])].iter(), LIMITS).unwrap();
        assert_eq!(ready(queue.poll(None)), "40\u{1e}42[1]\u{1e}bAQIDBA==");
        assert_eq!(queue.pending_bytes(), 0);
    }

    #[test]
    fn waiting_poll_is_answered_by_the_next_packets() {
        let mut queue = PollQueue::default();
        let mut body = waiting(queue.poll(tag("a")));
        push(&mut queue, &["2"]).unwrap();
        assert_eq!(body.try_recv().unwrap(), "2");
        assert_eq!(
            ready(queue.poll(tag("a"))),
            "2",
            "a poll that is repeated because its response was lost gets the same packets"
        );
    }

    #[test]
    fn repeated_poll_gets_the_same_response_until_another_one_confirms_it() {
        let mut queue = PollQueue::default();
        push(&mut queue, &["42[1]"]).unwrap();
        assert_eq!(ready(queue.poll(tag("a"))), "42[1]");
        push(&mut queue, &["42[2]"]).unwrap();
        assert_eq!(ready(queue.poll(tag("a"))), "42[1]");
        assert_eq!(ready(queue.poll(tag("b"))), "42[2]");
        waiting(queue.poll(tag("c")));
    }

    #[test]
    fn poll_without_a_tag_is_always_a_new_one() {
        let mut queue = PollQueue::default();
        push(&mut queue, &["42[1]"]).unwrap();
        assert_eq!(ready(queue.poll(None)), "42[1]");
        waiting(queue.poll(None));
    }

    #[test]
    fn packets_for_an_abandoned_poll_are_fetched_by_the_next_one() {
        let mut queue = PollQueue::default();
        drop(waiting(queue.poll(tag("a"))));
        push(&mut queue, &["42[1]"]).unwrap();
        assert_eq!(ready(queue.poll(tag("b"))), "42[1]");
    }

    #[test]
    fn second_poll_overlaps_unless_it_repeats_the_first() {
        let mut queue = PollQueue::default();
        let _first = waiting(queue.poll(tag("a")));
        assert!(matches!(queue.poll(tag("b")), PollResponse::Overlap));
        assert!(matches!(queue.poll(None), PollResponse::Overlap));
        let mut repeated = waiting(queue.poll(tag("a")));
        push(&mut queue, &["2"]).unwrap();
        assert_eq!(repeated.try_recv().unwrap(), "2");
    }

    #[test]
    fn limits_apply_to_pending_packets_and_the_unconfirmed_response() {
        let mut queue = PollQueue::default();
        push(&mut queue, &["2"; 4]).unwrap();
        assert_eq!(push(&mut queue, &["2"]), Err(EnqueueError::Full));
        ready(queue.poll(tag("a")));
        push(&mut queue, &[&"x".repeat(900)]).unwrap();
        assert_eq!(push(&mut queue, &[&"x".repeat(90)]), Err(EnqueueError::Full));
        ready(queue.poll(tag("b")));
        assert_eq!(
            push(&mut queue, &[&"x".repeat(900)]),
            Err(EnqueueError::Full),
            "the unconfirmed response counts"
        );
        let _waiting = waiting(queue.poll(tag("c")));
        push(&mut queue, &[&"x".repeat(900)]).unwrap();
    }

    #[test]
    fn response_is_bounded_and_the_next_one_has_the_remaining_packets() {
        let mut queue = PollQueue::default();
        let frames: Vec<_> =
            (0..5).map(|n| text_frame(&[&n.to_string().repeat(100_000)])).collect();
        queue.push(frames.iter(), SendLimits::UNLIMITED).unwrap();
        // Three packets exceed 256 KiB; the two others follow. A separator is one byte.
        let lengths = [(); 2].map(|()| ready(queue.poll(None)).len());
        assert_eq!(lengths, [300_002, 200_001]);
    }

    #[test]
    fn response_has_at_most_as_many_packets_as_the_python_client_accepts() {
        let mut queue = PollQueue::default();
        let frames = vec![text_frame(&["2"]); 40];
        queue.push(frames.iter(), SendLimits::UNLIMITED).unwrap();
        let packets = [(); 3].map(|()| ready(queue.poll(None)).split('\u{1e}').count());
        assert_eq!(packets, [16, 16, 8]);
    }

    #[test]
    fn probe_ends_the_waiting_poll_and_later_ones_after_growing_delays() {
        let mut queue = PollQueue::default();
        let mut body = waiting(queue.poll(tag("a")));
        queue.begin_probe();
        assert_eq!(body.try_recv().unwrap(), "6");
        let mut delays = Vec::new();
        for n in 0..7 {
            match queue.poll(tag(&n.to_string())) {
                PollResponse::Wait { noop_after, .. } => {
                    delays.push(noop_after.unwrap().as_millis());
                }
                _ => panic!("nothing to send"),
            }
            queue.answer_with_noop();
        }
        assert_eq!(delays, [100, 200, 400, 800, 1_600, 2_000, 2_000]);
        queue.end_probe();
        assert!(matches!(queue.poll(None), PollResponse::Wait { noop_after: None, .. }));
    }

    proptest! {
        #[test]
        fn every_packet_arrives_once_and_in_order(steps: Vec<u8>) {
            fuzzing::polling(&steps);
        }
    }
}
