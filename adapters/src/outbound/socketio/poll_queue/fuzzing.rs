use tokio::sync::oneshot::Receiver;

use super::{PollQueue, PollResponse, RequestTag};
use crate::transport::{Payload, SendLimits, payload_of, text_frame};

/// Runs a polling session, one step for each byte: packets are sent, the client polls, responses are lost and polls
/// repeated, polls are abandoned, and an upgrade begins, fails, or succeeds at the end.
///
/// Checks that the client receives every packet once and in order.
///
/// # Panics
/// If it does not.
pub fn polling(bytes: &[u8]) {
    let mut model = Model::default();
    for byte in bytes {
        model.step(*byte);
    }
    model.upgrade();
}

#[derive(Default)]
struct Model {
    queue: PollQueue,
    sent: Vec<String>,
    received: Vec<String>,
    polls: u32,
    poll: Option<Poll>,
}

/// The client's poll in flight. It has one at a time.
struct Poll {
    tag: RequestTag,
    /// `None` once its response was lost or its connection broke: the browser repeats it then.
    body: Option<Receiver<bytes::Bytes>>,
}

impl Model {
    fn step(&mut self, byte: u8) {
        match byte % 8 {
            0 => self.send(),
            1 => self.poll(),
            2 => self.lose_response(),
            3 => self.abandon(),
            4 => self.queue.begin_probe(),
            5 => self.queue.end_probe(),
            // A poll during an upgrade has timed out.
            6 => self.queue.answer_with_noop(),
            _ => self.receive(),
        }
    }

    fn send(&mut self) {
        let text = format!("4{}", self.sent.len());
        let frame = text_frame(&[&text]);
        self.queue.push([frame].iter(), SendLimits::UNLIMITED).expect("there is no limit");
        self.sent.push(text);
    }

    /// A new poll, or the repetition of one whose response was lost.
    fn poll(&mut self) {
        self.receive();
        let tag = match &self.poll {
            Some(Poll { body: Some(_), .. }) => return,
            Some(Poll { tag, body: None }) => tag.clone(),
            None => {
                self.polls += 1;
                Some(self.polls.to_string().into())
            }
        };
        match self.queue.poll(tag.clone()) {
            PollResponse::Ready(body) => self.take(&body),
            PollResponse::Wait { body, .. } => self.poll = Some(Poll { tag, body: Some(body) }),
            PollResponse::Overlap => panic!("the client has one poll at a time"),
        }
    }

    /// The response to the waiting poll arrives, if it was sent.
    fn receive(&mut self) {
        if let Some(Poll { body: Some(body), .. }) = &mut self.poll
            && let Ok(body) = body.try_recv()
        {
            self.take(&body);
        }
    }

    fn take(&mut self, body: &[u8]) {
        self.poll = None;
        let body = std::str::from_utf8(body).expect("it is text");
        // A noop is not a message.
        let packets = body.split('\u{1e}').filter(|packet| *packet != "6");
        self.received.extend(packets.map(str::to_owned));
        assert_eq!(self.received, self.sent[..self.received.len()]);
    }

    /// The response to the next poll does not arrive, or the poll's connection breaks before.
    fn lose_response(&mut self) {
        if self.poll.is_none() {
            self.polls += 1;
            let tag = Some(self.polls.to_string().into());
            let _ = self.queue.poll(Clone::clone(&tag));
            self.poll = Some(Poll { tag, body: None });
        } else if let Some(poll) = &mut self.poll {
            poll.body = None;
        }
    }

    /// The client abandons its poll. It has received the response if the server had sent one.
    fn abandon(&mut self) {
        self.receive();
        if let Some(Poll { body: Some(_), .. }) = &self.poll {
            self.poll = None;
        }
    }

    /// The client completes its poll and switches to a WebSocket.
    fn upgrade(mut self) {
        self.poll();
        self.queue.answer_with_noop();
        self.receive();
        assert!(self.poll.is_none(), "it was answered");
        for frame in std::mem::take(&mut self.queue).into_pending() {
            let Payload::Text(text) = payload_of(&frame) else { panic!("it was text") };
            self.received.push(String::from_utf8(text.to_vec()).expect("it was text"));
        }
        assert_eq!(self.received, self.sent);
    }
}
