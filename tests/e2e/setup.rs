//! What scenarios run on, and the people in them.

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

/// What tokens are signed with, unless a test is about other keys.
pub(crate) const SECRET: &str = "what the bell ringer whispers to the bell";

/// Makes each scenario two tests, one on each set-up.
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

/// What Belfry keeps its inboxes in and tells its events by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setup {
    /// PostgreSQL and RabbitMQ.
    Servers,
    /// The default: a SQLite file, and events in-process.
    Embedded,
}

/// A database and names on a broker, for one `belfry` or for several.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) database: Option<Database>,
    pub(crate) broker: Option<Broker>,
}

/// A running `belfry` and what it stands on.
#[derive(Debug)]
pub(crate) struct Place {
    // Before its ground: fields are dropped in their order.
    pub(crate) belfry: Belfry,
    pub(crate) ground: Ground,
}

/// Somebody with an inbox, as seen by one node.
#[derive(Debug, Clone)]
pub(crate) struct User {
    id: String,
    url: String,
}

impl Setup {
    /// A `belfry` that other tests use too. It ends with the last of those that run at the same time:
    /// a static would never be dropped, and leave its folder and its database behind.
    pub(crate) async fn shared(self) -> Arc<Place> {
        static SERVERS: Mutex<Weak<Place>> = Mutex::const_new(Weak::new());
        static EMBEDDED: Mutex<Weak<Place>> = Mutex::const_new(Weak::new());
        let mut shared = match self {
            Self::Servers => &SERVERS,
            Self::Embedded => &EMBEDDED,
        }
        .lock()
        .await;
        if let Some(place) = shared.upgrade() {
            return place;
        }
        let place = Arc::new(self.own().await);
        *shared = Arc::downgrade(&place);
        place
    }

    /// A `belfry` of the test's own.
    pub(crate) async fn own(self) -> Place {
        self.own_with(|builder| builder).await
    }

    /// A `belfry` of the test's own, with these settings besides.
    pub(crate) async fn own_with(
        self,
        configure: impl FnOnce(process::Builder) -> process::Builder,
    ) -> Place {
        let ground = self.ground().await;
        let belfry = ready(configure(ground.belfry()).start().await).await;
        Place { belfry, ground }
    }

    /// What a `belfry`, or several, can be started on.
    pub(crate) async fn ground(self) -> Ground {
        match self {
            Self::Servers => {
                let (database, broker) = tokio::join!(fresh_database(), fresh_prefix());
                Ground { database: Some(database), broker: Some(broker) }
            }
            Self::Embedded => Ground { database: None, broker: None },
        }
    }
}

impl Ground {
    /// A `belfry` on it that believes tokens of [`key`].
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

    /// One `belfry` on it, ready.
    pub(crate) async fn start(&self) -> Belfry {
        ready(self.belfry().start().await).await
    }

    pub(crate) fn broker(&self) -> &Broker {
        self.broker.as_ref().expect("this set-up has a broker")
    }
}

impl Place {
    /// A user that no other test has.
    pub(crate) fn user(&self, name: &str) -> User {
        User::new(name, &self.belfry)
    }

    /// A service that may write into every inbox.
    pub(crate) fn service(&self) -> Http {
        service(&self.belfry)
    }

    pub(crate) fn broker(&self) -> &Broker {
        self.ground.broker()
    }

    /// Has the service put this into the user's inbox, and gives the notification.
    pub(crate) async fn notify(&self, user: &User, draft: Value) -> Value {
        notify(&self.belfry, user, draft).await
    }

    /// The notification as the user's inbox has it.
    pub(crate) async fn stored(&self, user: &User, id: &str) -> Value {
        user.http().get(&format!("/v1/notifications/{id}")).await.expect(200)
    }

    /// Waits until the user's inbox has that notification.
    pub(crate) async fn stored_soon(&self, user: &User, id: &str) -> Value {
        let (http, path) = (user.http(), format!("/v1/notifications/{id}"));
        until(&format!("{id} is stored"), async || {
            let answer = http.get(&path).await;
            (answer.status == 200).then(|| answer.json())
        })
        .await
    }

    /// Has the service put a last notification of this id into the user's inbox, and waits until
    /// each device has heard of it and of the count: what else there was to tell has been told.
    pub(crate) async fn until_told<'a>(
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

/// Has the service put this into the user's inbox by that node, and gives the notification.
pub(crate) async fn notify(belfry: &Belfry, user: &User, mut draft: Value) -> Value {
    draft["userId"] = user.id().into();
    service(belfry).post("/v1/notifications", &draft).await.expect(201)
}

/// Waits until that `belfry` says that it can work.
pub(crate) async fn ready(belfry: Belfry) -> Belfry {
    until_ready(&belfry).await;
    belfry
}

/// Waits until that `belfry` says that it can work, perhaps again.
pub(crate) async fn until_ready(belfry: &Belfry) {
    let http = belfry.http();
    until_true("belfry is ready", async || http.get("/health/ready").await.status == 200).await;
}

/// The key that [`Ground::belfry`] believes.
pub(crate) fn key() -> Key {
    Key::hs256(SECRET)
}

/// A service that may write into every inbox, talking to this node.
pub(crate) fn service(belfry: &Belfry) -> Http {
    belfry.http().bearer(key().token("shop").scope("notifications:write").sign())
}

impl User {
    /// A user that no other test has.
    pub(crate) fn new(name: &str, belfry: &Belfry) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self { id: format!("{name}-{number}"), url: belfry.url().to_owned() }
    }

    /// The same user at another node.
    pub(crate) fn at(&self, belfry: &Belfry) -> Self {
        Self { id: self.id.clone(), url: belfry.url().to_owned() }
    }

    /// Somebody of exactly that name at the same node.
    pub(crate) fn called(&self, id: &str) -> Self {
        Self { id: id.to_owned(), url: self.url.clone() }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn token(&self) -> String {
        key().token(&self.id).sign()
    }

    /// REST in this user's name.
    pub(crate) fn http(&self) -> Http {
        Http::new(&*self.url).bearer(self.token())
    }

    /// A device on JavaScript's client; it asks for a websocket unless told otherwise.
    pub(crate) fn node(&self) -> clients::Builder {
        Device::node(&self.url).token(&self.token())
    }

    /// A device on Python's client.
    pub(crate) fn python(&self) -> clients::Builder {
        Device::python(&self.url).token(&self.token())
    }

    /// One device of every sort, all of them in.
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

    /// Two devices, one on each client, all of them in.
    pub(crate) async fn two_devices(&self) -> [Device; 2] {
        let (one, two) = tokio::join!(
            signed_in(self.node()),
            signed_in(self.python().namespace("/notifications")),
        );
        [one, two]
    }
}

/// Connects a device and waits until it has been told where its inbox stands: from then on it hears
/// what happens.
pub(crate) async fn signed_in(device: clients::Builder) -> Device {
    let device = device.connect().await;
    device.expect("notification:sync").await;
    device
}
