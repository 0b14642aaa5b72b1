//! The events that producers publish.

use std::io::Write;

use crate::clock;
use crate::random::Random;

/// The kind of message for an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `notification.created`, published by a service that has its own inbox.
    Forward,
    /// `notification.create`, to be stored.
    Store,
}

/// Events for random users.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    form: Form,
    first_user: u64,
    users: u64,
    random: Random,
    /// If true, the users get events in turn. Otherwise each event is for a random user.
    in_turn: bool,
    /// A part of each id, so that ids differ between runs.
    nonce: u32,
}

impl Events {
    pub(crate) fn for_users(form: Form, users: u64) -> Self {
        let now = clock::now();
        #[expect(clippy::cast_possible_truncation, reason = "the low digits differ between runs")]
        let nonce = (now ^ u64::from(std::process::id()).rotate_left(20)) as u32;
        Self { form, first_user: 0, users, random: Random::seeded(now), in_turn: false, nonce }
    }

    /// Sets the number of the first user.
    pub(crate) fn starting_with(self, first_user: u64) -> Self {
        Self { first_user, ..self }
    }

    /// Events for each user in turn.
    pub(crate) fn in_turn(self) -> Self {
        Self { in_turn: true, ..self }
    }

    /// Changes the sequence of random users. Clones with different numbers then have different sequences.
    pub(crate) fn vary(&mut self, number: u64) {
        self.random = Random::seeded(self.random.next() ^ number);
    }

    /// Writes the body of an event's message, about 400 bytes. `at` is the time when it is due, by the tool's
    /// clock.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>, seq: u64, at: u64) {
        let user = self.user(seq);
        let nonce = self.nonce;
        let written = match self.form {
            Form::Forward => write!(
                out,
                concat!(
                    r#"{{"pattern":"notification.created","data":{{"userId":"u{user}","notification":"#,
                    r#"{{"id":"{nonce:08x}-0000-7000-8000-{seq:012x}","userId":"u{user}","#,
                    r#""type":"order.shipped","title":"Your order is on its way","message":"It left "#,
                    r#"our warehouse this morning and will be with you tomorrow.","data":{{"seq":{seq},"#,
                    r#""at":{at}}},"isRead":false,"createdAt":"2026-11-23T08:15:30.123Z"}},"unreadCount":5}}}}"#
                ),
                user = user,
                nonce = nonce,
                seq = seq,
                at = at
            ),
            Form::Store => write!(
                out,
                concat!(
                    r#"{{"pattern":"notification.create","data":{{"id":"{nonce:08x}-0000-7000-8000-{seq:012x}","#,
                    r#""userId":"u{user}","type":"order.shipped","title":"Your order is on its way","#,
                    r#""message":"It left our warehouse this morning and will be with you tomorrow.","#,
                    r#""data":{{"seq":{seq},"at":{at}}}}}}}"#
                ),
                user = user,
                nonce = nonce,
                seq = seq,
                at = at
            ),
        };
        written.expect("writing to a vector cannot fail");
    }

    /// The body of a request that creates a notification.
    pub(crate) fn request(&mut self, seq: u64, at: u64) -> serde_json::Value {
        let user = self.user(seq);
        serde_json::json!({
            "userId": format!("u{user}"),
            "type": "order.shipped",
            "title": "Your order is on its way",
            "message": "It left our warehouse this morning and will be with you tomorrow.",
            "data": { "seq": seq, "at": at },
        })
    }

    /// The number of an event's user.
    fn user(&mut self, seq: u64) -> u64 {
        let index =
            if self.in_turn { seq % self.users.max(1) } else { self.random.below(self.users) };
        self.first_user + index
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::packets::{self, Packet, Stamp};

    fn body(form: Form) -> Value {
        let mut out = Vec::new();
        Events::for_users(form, 1).starting_with(7).write(&mut out, 12, 34);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn forwarded_event_contains_notification_and_count() {
        let body = body(Form::Forward);
        assert_eq!(body["pattern"], "notification.created");
        assert_eq!(
            (&body["data"]["userId"], &body["data"]["unreadCount"]),
            (&"u7".into(), &5.into())
        );
        let notification = body["data"]["notification"].to_string();
        assert!((250..350).contains(&notification.len()), "{}", notification.len());
        let frame = format!(r#"42["notification:new",{notification}]"#);
        let stamp = Stamp { seq: 12, at: 34 };
        assert_eq!(packets::read(frame.as_bytes()), Packet::New(Some(stamp)));
    }

    #[test]
    fn each_user_gets_an_event_in_turn() {
        let mut events = Events::for_users(Form::Forward, 3).in_turn().starting_with(10);
        assert_eq!([0, 1, 2, 3].map(|seq| events.user(seq)), [10, 11, 12, 10]);
    }

    #[test]
    fn event_to_store_is_the_notification() {
        let body = body(Form::Store);
        assert_eq!(body["pattern"], "notification.create");
        assert_eq!(body["data"]["data"], serde_json::json!({ "seq": 12, "at": 34 }));
        assert_eq!(body["data"]["userId"], "u7");
    }
}
