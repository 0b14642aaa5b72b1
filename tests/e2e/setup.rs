//! Deployments of `belfry` that scenarios run on, and their users.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use belfry_tests::clients::{self, Device};
use belfry_tests::http::Http;
use belfry_tests::postgres::{Database, fresh_database};
use belfry_tests::process::{self, Belfry};
use belfry_tests::rabbit::{Broker, fresh_prefix};
use belfry_tests::tokens::Key;
use belfry_tests::wait::{until, until_true};
use serde_json::{Value, json};
use tokio::sync::Mutex;

/// The secret that signs tokens, unless a test is about other keys.
pub(crate) const SECRET: &str = "what the bell ringer whispers to the bell";

/// Makes two tests of each scenario, one for each set-up.
macro_rules! on_both_setups {
    ($($scenario:ident),+ $(,)?) => {
        mod on_postgres_and_rabbitmq {
            $(
                #[tokio::test]
                async fn $scenario() {
                    super::$scenario(crate::setup::Setup::Servers).await;
                }
            )+
        }

        mod embedded {
            $(
                #[tokio::test]
                async fn $scenario() {
                    super::$scenario(crate::setup::Setup::Embedded).await;
                }
            )+
        }
    };
}

/// The store and the broker that Belfry runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setup {
    /// PostgreSQL and RabbitMQ.
    Servers,
    /// The default: a SQLite file, and in-process events.
    Embedded,
}

/// A database and names on a broker, for one `belfry` or for several.
#[derive(Debug)]
pub(crate) struct Backends {
    pub(crate) database: Option<Database>,
    pub(crate) broker: Option<Broker>,
}

/// A running `belfry` with its backends.
#[derive(Debug)]
pub(crate) struct Deployment {
    // Fields are dropped in this order: `belfry` before its backends.
    pub(crate) belfry: Belfry,
    pub(crate) backends: Backends,
}

/// A user, and the node that the user's clients connect to.
#[derive(Debug, Clone)]
pub(crate) struct User {
    id: String,
    /// The node's URL.
    url: String,
}

impl Setup {
    /// A `belfry` that other tests use at the same time. It is dropped when no test uses it any more: a
    /// static would never be dropped, and the folder and the database of this `belfry` would stay.
    pub(crate) async fn shared(self) -> Arc<Deployment> {
        static SERVERS: Mutex<Weak<Deployment>> = Mutex::const_new(Weak::new());
        static EMBEDDED: Mutex<Weak<Deployment>> = Mutex::const_new(Weak::new());
        let mut shared = match self {
            Self::Servers => &SERVERS,
            Self::Embedded => &EMBEDDED,
        }
        .lock()
        .await;
        if let Some(deployment) = shared.upgrade() {
            return deployment;
        }
        let deployment = Arc::new(self.own().await);
        *shared = Arc::downgrade(&deployment);
        deployment
    }

    /// A `belfry` of the test's own.
    pub(crate) async fn own(self) -> Deployment {
        self.own_with(|builder| builder).await
    }

    /// A `belfry` of the test's own with additional settings.
    pub(crate) async fn own_with(
        self,
        configure: impl FnOnce(process::Builder) -> process::Builder,
    ) -> Deployment {
        let backends = self.backends().await;
        let belfry = ready(configure(backends.belfry()).start().await).await;
        Deployment { belfry, backends }
    }

    /// Backends of the test's own, for one `belfry` or several.
    pub(crate) async fn backends(self) -> Backends {
        match self {
            Self::Servers => {
                let (database, broker) = tokio::join!(fresh_database(), fresh_prefix());
                Backends { database: Some(database), broker: Some(broker) }
            }
            Self::Embedded => Backends { database: None, broker: None },
        }
    }
}

impl Backends {
    /// A `belfry` on these backends that accepts tokens of [`key`].
    pub(crate) fn belfry(&self) -> process::Builder {
        let mut builder = Belfry::builder().setting("auth.hs256_secret", SECRET);
        if let Some(database) = &self.database {
            builder = builder.database(database.url());
        }
        if let Some(broker) = &self.broker {
            builder = builder.broker(broker);
        }
        builder
    }

    /// Starts one `belfry` on these backends and waits until it is ready.
    pub(crate) async fn start(&self) -> Belfry {
        ready(self.belfry().start().await).await
    }

    pub(crate) fn broker(&self) -> &Broker {
        self.broker.as_ref().expect("this set-up has a broker")
    }
}

impl Deployment {
    /// A new user.
    pub(crate) fn user(&self, name: &str) -> User {
        User::new(name, &self.belfry)
    }

    /// REST as a service that may create notifications for all users.
    pub(crate) fn service(&self) -> Http {
        service(&self.belfry)
    }

    pub(crate) fn broker(&self) -> &Broker {
        self.backends.broker()
    }

    /// Creates a notification for the user and returns it.
    pub(crate) async fn notify(&self, user: &User, draft: Value) -> Value {
        notify(&self.belfry, user, draft).await
    }

    /// The notification in the user's inbox.
    pub(crate) async fn stored(&self, user: &User, id: &str) -> Value {
        user.http().get(&format!("/v1/notifications/{id}")).await.expect(200)
    }

    /// Waits until the user's inbox has the notification, and returns it.
    pub(crate) async fn until_stored(&self, user: &User, id: &str) -> Value {
        let (http, path) = (user.http(), format!("/v1/notifications/{id}"));
        until(&format!("{id} is stored"), async || {
            let answer = http.get(&path).await;
            (answer.status == 200).then(|| answer.json())
        })
        .await
    }

    /// Creates a notification with this id for the user, and waits until each device has received the
    /// notification and its count. By then all earlier events have been delivered, too.
    pub(crate) async fn until_delivered<'a>(
        &self,
        user: &User,
        devices: impl IntoIterator<Item = &'a Device>,
        id: &str,
    ) {
        let last = self.notify(user, json!({ "id": id, "title": "The last one" })).await;
        for device in devices {
            while device.expect("notification:new").await["id"] != id {}
            while device.expect("notification:unread_count").await["revision"] != last["revision"] {
            }
        }
    }
}

/// Creates a notification for the user through this node and returns it.
pub(crate) async fn notify(belfry: &Belfry, user: &User, mut draft: Value) -> Value {
    draft["userId"] = user.id().into();
    service(belfry).post("/v1/notifications", &draft).await.expect(201)
}

/// Waits until this `belfry` is ready.
pub(crate) async fn ready(belfry: Belfry) -> Belfry {
    until_ready(&belfry).await;
    belfry
}

/// Waits until this `belfry` is ready, after its start or an outage.
pub(crate) async fn until_ready(belfry: &Belfry) {
    let http = belfry.http();
    until_true("belfry is ready", async || http.get("/health/ready").await.status == 200).await;
}

/// The key whose tokens [`Backends::belfry`] accepts.
pub(crate) fn key() -> Key {
    Key::hs256(SECRET)
}

/// REST to this node as a service that may create notifications for all users.
pub(crate) fn service(belfry: &Belfry) -> Http {
    belfry.http().bearer(key().token("shop").scope("notifications:write").sign())
}

impl User {
    /// A new user.
    pub(crate) fn new(name: &str, belfry: &Belfry) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self { id: format!("{name}-{number}"), url: belfry.url().to_owned() }
    }

    /// The same user with clients at another node.
    pub(crate) fn at(&self, belfry: &Belfry) -> Self {
        Self { id: self.id.clone(), url: belfry.url().to_owned() }
    }

    /// A user with exactly this id at the same node.
    pub(crate) fn called(&self, id: &str) -> Self {
        Self { id: id.to_owned(), url: self.url.clone() }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn token(&self) -> String {
        key().token(&self.id).sign()
    }

    /// REST as this user.
    pub(crate) fn http(&self) -> Http {
        Http::new(&*self.url).bearer(self.token())
    }

    /// A device on the JavaScript client, which uses a WebSocket unless `transports` is set.
    pub(crate) fn node(&self) -> clients::Builder {
        Device::node(&self.url).token(&self.token())
    }

    /// A device on the Python client.
    pub(crate) fn python(&self) -> clients::Builder {
        Device::python(&self.url).token(&self.token())
    }

    /// One device of each client and transport, all of them signed in.
    pub(crate) async fn devices(&self) -> [Device; 5] {
        let upgrading = self.node().transports(["polling", "websocket"]);
        let (one, two, three, four, five) = tokio::join!(
            signed_in(self.node()),
            signed_in(self.node().transports(["polling"])),
            signed_in(upgrading.namespace("/notifications")),
            signed_in(self.python()),
            signed_in(self.python().transports(["polling"]).namespace("/notifications")),
        );
        [one, two, three, four, five]
    }

    /// Two devices, one on each client, both signed in.
    pub(crate) async fn two_devices(&self) -> [Device; 2] {
        let (one, two) = tokio::join!(
            signed_in(self.node()),
            signed_in(self.python().namespace("/notifications")),
        );
        [one, two]
    }
}

/// Connects a device, and waits for `notification:sync` and the count after it. From then on the device
/// receives all events.
pub(crate) async fn signed_in(device: clients::Builder) -> Device {
    let device = signed_in_without_count(device).await;
    device.expect("notification:unread_count").await;
    device
}

/// Connects a device in forward mode, in which Belfry has no count to send.
pub(crate) async fn signed_in_without_count(device: clients::Builder) -> Device {
    let device = device.connect().await;
    device.expect("notification:sync").await;
    device
}
