use tokio::sync::oneshot::Receiver;

use super::{PollQueue, PollResponse, RequestTag};
use crate::transport::{Payload, SendLimits, payload_of, text_frame};

/// Runs a polling session, one step for each byte. In these steps packets are sent, the client polls, responses are
/// lost and polls repeated, polls are abandoned, and an upgrade begins or fails. At the end an upgrade succeeds.
///
/// Checks that the client receives every packet once and in order.
///
/// # Panics
/// If the check fails.
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
    /// The packets that the server has sent.
    sent: Vec<String>,
    /// The packets that the client has received.
    received: Vec<String>,
    /// The number of polls so far, which is the tag of the latest one.
    polls: u32,
    poll_in_flight: Option<Poll>,
}

/// A poll of the client, which has one in flight at a time.
struct Poll {
    tag: RequestTag,
    /// `None` once the response was lost or the connection broke. The browser then repeats the poll.
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
            // During an upgrade, a waiting poll is answered after a time.
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

    /// Sends a new poll, or repeats a poll whose response was lost.
    fn poll(&mut self) {
        self.receive();
        let tag = match &self.poll_in_flight {
            Some(Poll { body: Some(_), .. }) => return,
            Some(Poll { tag, body: None }) => tag.clone(),
            None => {
                self.polls += 1;
                Some(self.polls.to_string().into())
            }
        };
        match self.queue.poll(tag.clone()) {
            PollResponse::Ready(body) => self.take(&body),
            PollResponse::Wait { body, .. } => {
                self.poll_in_flight = Some(Poll { tag, body: Some(body) });
            }
            PollResponse::Overlap => panic!("the client has one poll at a time"),
        }
    }

    /// Receives the response to the waiting poll, if it was sent.
    fn receive(&mut self) {
        if let Some(Poll { body: Some(body), .. }) = &mut self.poll_in_flight
            && let Ok(body) = body.try_recv()
        {
            self.take(&body);
        }
    }

    /// Ends the poll with this response, and checks its packets.
    fn take(&mut self, body: &[u8]) {
        self.poll_in_flight = None;
        let body = std::str::from_utf8(body).expect("it is text");
        // `6` is a noop, which is not a message.
        let packets = body.split('\u{1e}').filter(|packet| *packet != "6");
        self.received.extend(packets.map(str::to_owned));
        assert_eq!(self.received, self.sent[..self.received.len()]);
    }

    /// Loses the response to the poll in flight, or to a new poll if there is none.
    fn lose_response(&mut self) {
        if self.poll_in_flight.is_none() {
            self.polls += 1;
            let tag = Some(self.polls.to_string().into());
            let _ = self.queue.poll(Clone::clone(&tag));
            self.poll_in_flight = Some(Poll { tag, body: None });
        } else if let Some(poll) = &mut self.poll_in_flight {
            poll.body = None;
        }
    }

    /// Abandons the poll in flight. If the server has sent a response before, the client has received it.
    fn abandon(&mut self) {
        self.receive();
        if let Some(Poll { body: Some(_), .. }) = &self.poll_in_flight {
            self.poll_in_flight = None;
        }
    }

    /// Completes the poll in flight, and switches to a WebSocket.
    fn upgrade(mut self) {
        self.poll();
        self.queue.answer_with_noop();
        self.receive();
        assert!(self.poll_in_flight.is_none(), "a noop answers the poll in flight");
        for frame in std::mem::take(&mut self.queue).into_pending() {
            let Payload::Text(text) = payload_of(&frame) else { panic!("it was text") };
            self.received.push(String::from_utf8(text.to_vec()).expect("it was text"));
        }
        assert_eq!(self.received, self.sent);
    }
}
