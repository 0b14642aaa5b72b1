//! What an attacker tries, door by door, and what they get for it.
//!
//! Each file is about one door and has its attacks in tables: a name, what is sent, what comes of it.
//! After each table the server is looked at as a [`Scene`] sees it: it is ready, it has not panicked,
//! and the victim's device has heard what was meant for it and nothing else.
#![expect(clippy::too_many_lines, reason = "a table of attacks is read as one")]

mod amqp;
mod floods;
mod injection;
mod rest;
mod smuggling;
mod sockets;
mod tokens;

use std::sync::Arc;

use belfry_tests::clients::Device;
use serde_json::{Value, json};

use crate::setup::{Deployment, Setup, User, signed_in, until_ready};

/// A server, and somebody on it whose inbox and devices are nobody else's business.
struct Scene {
    place: Arc<Deployment>,
    victim: User,
    device: Device,
    /// An id that an attacker may know, of a notification that they must not.
    secret: String,
}

impl Scene {
    async fn shared(setup: Setup) -> Self {
        Self::at(setup.shared().await).await
    }

    async fn at(place: Arc<Deployment>) -> Self {
        let victim = place.user("victim");
        let device = signed_in(victim.node()).await;
        let secret = format!("secret-of-{}", victim.id());
        place.notify(&victim, json!({ "id": secret, "title": "For the victim alone" })).await;
        Self { place, victim, device, secret }
    }

    fn url(&self) -> &str {
        self.place.belfry.url()
    }

    /// A user of their own right who wants more than that.
    fn attacker(&self) -> User {
        self.place.user("attacker")
    }

    /// Whatever was tried, all is as it was.
    async fn stands_unharmed(self) {
        until_ready(&self.place.belfry).await;
        self.place.until_delivered(&self.victim, [&self.device], "the-last-one").await;
        let ids: Vec<_> =
            self.device.events("notification:new").iter().map(|it| it["id"].clone()).collect();
        assert_eq!(
            ids,
            [json!(self.secret), json!("the-last-one")],
            "{}",
            self.device.transcript()
        );
        for event in ["notification:marked_read", "notification:deleted", "exception"] {
            assert_eq!(self.device.events(event), Vec::<Value>::new());
        }
        let secret = self.place.stored(&self.victim, &self.secret).await;
        assert_eq!((&secret["isRead"], &secret["revision"]), (&json!(false), &json!(1)));
        assert!(!self.place.belfry.log().contains("panicked"), "{}", self.place.belfry.log());
    }
}
