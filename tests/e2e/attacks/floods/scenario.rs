//! The server and the clients of an attack, and the checks after it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use belfry_tests::clients::Device;
use belfry_tests::http::Http;
use belfry_tests::process;
use belfry_tests::wait::PATIENCE;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::super::Target;
use super::SECOND;
use crate::setup::{Setup, User, signed_in};

/// The counts of connections and tasks may grow by this much for other reasons, such as a connection that the
/// test keeps open.
const TOLERANCE: u64 = 10;

/// A server under attack, and a bystander.
pub(super) struct AttackScenario {
    pub(super) target: Target,
    bystander: User,
    device: Device,
    /// Keeps its connection open, because the attack may use up the connection limit.
    service: Http,
    pub(super) admin: Http,
    notifications_sent: AtomicU64,
    before: ServerLoad,
}

/// The server's open connections, sessions and tasks.
#[derive(Debug, Default, Clone, Copy)]
struct ServerLoad {
    connections: u64,
    sessions: u64,
    tasks: u64,
}

impl ServerLoad {
    async fn read(admin: &Http) -> Self {
        let report = admin.get("/debug/runtime").await.expect(200);
        let count = |value: &Value| value.as_u64().unwrap();
        Self {
            connections: count(&report["connections"]["public"]),
            sessions: count(&report["sessions"]),
            tasks: count(&report["tasks"]),
        }
    }

    fn is_back_to(&self, before: &Self) -> bool {
        self.sessions <= before.sessions
            && self.connections <= before.connections + TOLERANCE
            && self.tasks <= before.tasks + TOLERANCE
    }
}

impl AttackScenario {
    /// Starts a server with deadlines that a test can wait for. Handshakes and sessions per user are not
    /// limited, so that the whole flood is admitted.
    pub(super) async fn start() -> Self {
        Self::start_with(|it| {
            it.setting("http.header_timeout", "2s")
                .setting("socket.connect_timeout", "3s")
                .setting("socket.ping_interval", "5s")
                .setting("socket.ping_timeout", "10s")
                .setting("limits.handshakes_per_second", 0)
                .setting("limits.handshakes_per_address", 0)
                .setting("limits.sessions_per_user", 0)
        })
        .await
    }

    pub(super) async fn start_with(
        configure: impl FnOnce(process::Builder) -> process::Builder,
    ) -> Self {
        let target = Target::on(Setup::Embedded.own_with(configure).await.into()).await;
        let bystander = target.deployment.user("bystander");
        let device = signed_in(bystander.node()).await;
        let (service, admin) = (target.deployment.service(), target.deployment.belfry.admin_http());
        let (notifications_sent, before) = (AtomicU64::new(0), ServerLoad::default());
        let mut scenario =
            Self { target, bystander, device, service, admin, notifications_sent, before };
        scenario.assert_bystander_receives().await;
        scenario.before = ServerLoad::read(&scenario.admin).await;
        scenario
    }

    pub(super) fn url(&self) -> &str {
        self.target.url()
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.url().strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// Runs the attack. The bystander must receive notifications throughout.
    pub(super) async fn run_during<T>(&self, attack: impl Future<Output = T>) -> T {
        let bystander = async {
            loop {
                self.assert_bystander_receives().await;
                sleep(SECOND / 5).await;
            }
        };
        tokio::select! {
            result = attack => result,
            never = bystander => never,
        }
    }

    async fn assert_bystander_receives(&self) {
        let id = format!("n{}", self.notifications_sent.fetch_add(1, Ordering::Relaxed));
        let draft = json!({ "id": id, "userId": self.bystander.id(), "title": "Still here" });
        self.service.post("/v1/notifications", &draft).await.expect(201);
        while self.device.expect("notification:new").await["id"] != id.as_str() {}
    }

    /// Checks that the attack has left no connection, session or task, and has affected no other user.
    pub(super) async fn assert_nothing_left(self) {
        let mut now = ServerLoad::read(&self.admin).await;
        let freed = async {
            while !now.is_back_to(&self.before) {
                sleep(SECOND / 5).await;
                now = ServerLoad::read(&self.admin).await;
            }
        };
        let freed = timeout(PATIENCE, freed).await;
        assert!(freed.is_ok(), "not freed: {now:?} now, {:?} before", self.before);
        self.assert_bystander_receives().await;
        let disconnected = self.device.records().iter().any(|it| it.kind == "disconnect");
        assert!(!disconnected, "bystander disconnected: {}", self.device.transcript());
        self.target.assert_unharmed().await;
    }
}
