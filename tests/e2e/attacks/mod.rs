//! Attacks on each endpoint, and their outcome.
//!
//! Each file covers one kind of attack and lists its attempts in tables: a name, what is sent, and the
//! expected outcome. After each table, [`Target::assert_unharmed`] checks the server: it is ready and has
//! not panicked, and the victim's device has received its own events and no others.
#![expect(clippy::too_many_lines, reason = "a table of attempts is read as a whole")]

mod amqp;
mod floods;
mod injection;
mod polling_client;
mod rest;
mod session_ids;
mod smuggling;
mod sockets;
mod tokens;

use std::sync::Arc;

use belfry_tests::clients::Device;
use serde_json::{Value, json};

use crate::setup::{Deployment, Setup, User, signed_in, until_ready};

/// A server, and a victim on it whose inbox and devices must stay private.
struct Target {
    deployment: Arc<Deployment>,
    victim: User,
    /// The victim's device.
    device: Device,
    /// The id of the victim's notification. The attacker may know the id but must not get the content.
    secret: String,
}

impl Target {
    async fn shared(setup: Setup) -> Self {
        Self::on(setup.shared().await).await
    }

    async fn on(deployment: Arc<Deployment>) -> Self {
        let victim = deployment.user("victim");
        let device = signed_in(victim.node()).await;
        let secret = format!("secret-of-{}", victim.id());
        deployment.notify(&victim, json!({ "id": secret, "title": "For the victim only" })).await;
        Self { deployment, victim, device, secret }
    }

    fn url(&self) -> &str {
        self.deployment.belfry.url()
    }

    /// A new user with a valid token.
    fn attacker(&self) -> User {
        self.deployment.user("attacker")
    }

    /// Checks that the server works, and that the attack has not affected the victim's inbox and device.
    async fn assert_unharmed(self) {
        until_ready(&self.deployment.belfry).await;
        self.deployment.until_delivered(&self.victim, [&self.device], "the-last-one").await;
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
        let secret = self.deployment.stored(&self.victim, &self.secret).await;
        assert_eq!((&secret["isRead"], &secret["revision"]), (&json!(false), &json!(1)));
        assert!(
            !self.deployment.belfry.log().contains("panicked"),
            "{}",
            self.deployment.belfry.log()
        );
    }
}
