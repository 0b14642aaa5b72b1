//! Injects faults.

use std::sync::atomic::Ordering;
use std::time::Duration;

use belfry_tests::clients::Device;
use belfry_tests::wait::{until, until_true, until_within};
use futures_util::future::join_all;
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use sqlx::{Connection as _, PgConnection};
use tokio::sync::RwLock;
use tokio::time::{Instant, sleep, timeout};

use super::fault::{Fault, LENGTHS};
use super::fault_test::{Endpoint, FaultTest, Node, Participant, RECOVERY_LIMIT};
use super::producer::Confirmed;

/// How long it may take until another node is the leader after the leader was killed.
const FAILOVER_LIMIT: Duration = Duration::from_secs(10);

/// Injects faults, and checks that each fault has its effect: a fault without an effect fails the test.
pub(super) struct FaultInjector<'a> {
    pub(super) test: &'a FaultTest,
    pub(super) participants: &'a [Participant],
    pub(super) confirmed: &'a RwLock<Confirmed>,
}

impl FaultInjector<'_> {
    /// Injects the fault, ends it, and for most faults waits until all nodes are ready again.
    pub(super) async fn inject(&self, fault: Fault) {
        match fault {
            Fault::KillNodes(downtime) => self.kill_nodes(downtime).await,
            Fault::KillLeader => self.kill_leader().await,
            Fault::KillFollower => self.kill_follower().await,
            Fault::CutBroker => self.cut_broker().await,
            Fault::HideBroker => self.hide_broker().await,
            Fault::KillBroker
            | Fault::StopBroker
            | Fault::CloseBrokerConnections
            | Fault::BlockPublishers => self.broker_server(fault).await,
            Fault::DeleteNodeQueues => self.delete_node_queues().await,
            Fault::DeleteIngestQueue => self.delete_ingest_queue().await,
            Fault::TerminateBackends => self.terminate_backends().await,
            Fault::KillDatabase => self.kill_database().await,
            Fault::FillDisk => {
                self.fill_disk("notifications").await;
                self.fill_disk("outbox").await;
                self.test.until_all_ready().await;
            }
            Fault::DropDevices => self.drop_devices().await,
            Fault::CutDevices(length) => {
                self.until_a_device_is_connected().await;
                join_all(self.devices().map(|endpoint| endpoint.cut(length))).await;
            }
            Fault::FreezeDevices(length) => {
                self.until_a_device_is_connected().await;
                join_all(self.devices().map(|endpoint| endpoint.freeze(length))).await;
            }
            Fault::BreakEachDevice => {
                self.until_a_device_is_connected().await;
                let broken = self.participants.iter().zip(LENGTHS);
                join_all(broken.map(async |(participant, length)| {
                    let [first, second] = &participant.devices;
                    tokio::join!(first.cut(length), second.freeze(length));
                }))
                .await;
            }
        }
    }

    fn devices(&self) -> impl Iterator<Item = &Endpoint> {
        self.participants.iter().flat_map(|participant| &participant.devices)
    }

    async fn kill_nodes(&self, downtime: Duration) {
        for node in &self.test.nodes {
            node.kill().await;
            sleep(downtime).await;
            node.restart().await;
        }
        pause(300).await;
    }

    async fn kill_leader(&self) {
        let (leader, since) = self.leader().await;
        let killed = Instant::now();
        self.test.nodes[leader].kill().await;
        while self.leader().await.1 <= since {
            assert!(killed.elapsed() < FAILOVER_LIMIT, "no node has taken over the outbox");
            pause(20).await;
        }
        println!("failover after {:?}", killed.elapsed());
        pause(300).await;
        self.test.nodes[leader].restart().await;
    }

    async fn kill_follower(&self) {
        let (leader, _) = self.leader().await;
        let follower = (leader + 1) % self.test.nodes.len();
        assert_ne!(follower, leader, "there is no follower to kill");
        let follower = &self.test.nodes[follower];
        follower.kill().await;
        pause(1_000).await;
        follower.restart().await;
    }

    /// The index of the leader, and the time in its log at which it became the leader. The leader is the
    /// running node that became the leader last.
    async fn leader(&self) -> (usize, String) {
        until("a node relays the outbox", async || {
            let times = join_all(self.test.nodes.iter().map(Node::leader_since)).await;
            let times = times.into_iter().enumerate().filter_map(|(n, at)| Some((at?, n)));
            times.max().map(|(at, n)| (n, at))
        })
        .await
    }

    async fn cut_broker(&self) {
        for _ in 0..3 {
            let witness = self.witness(self.test.proxy.url()).await;
            // The witness is one client, and there must be others.
            until_true("the broker has clients", async || self.test.proxy.connections() > 1).await;
            self.test.proxy.cut();
            until_lost(&witness).await;
            pause(500).await;
        }
    }

    async fn hide_broker(&self) {
        let proxy = &self.test.proxy;
        // There may be none for a moment: a killed node has no connections, and producers connect only to
        // send.
        until_true("the broker has clients", async || proxy.connections() > 0).await;
        let cut = proxy.close();
        assert!(cut > 0, "the broker had no clients");
        pause(1_500).await;
        until_true("a client tries to reach the broker", async || proxy.refused() > 0).await;
        proxy.open();
        self.test.until_all_ready().await;
    }

    async fn broker_server(&self, fault: Fault) {
        let server = self.test.broker_server.as_ref();
        let server = server.expect("a test with this fault has a broker of its own");
        let url = self.test.proxy.url();
        match fault {
            Fault::StopBroker => {
                let witness = self.witness(url).await;
                server.stop().await;
                until_lost(&witness).await;
                sleep(Duration::from_secs(10)).await;
                server.start().await;
            }
            Fault::CloseBrokerConnections => {
                for _ in 0..2 {
                    let witness = self.witness(url).await;
                    server.close_connections().await;
                    until_lost(&witness).await;
                    pause(500).await;
                }
            }
            Fault::BlockPublishers => {
                let connection = self.witness(url).await;
                assert!(is_confirmed(&connection).await, "a publish is not confirmed");
                server.raise_memory_alarm().await;
                until_true("publishers are blocked", async || !is_confirmed(&connection).await)
                    .await;
                pause(2_000).await;
                server.clear_memory_alarm().await;
            }
            _ => {
                let witness = self.witness(url).await;
                server.kill().await;
                until_lost(&witness).await;
                server.start().await;
            }
        }
        self.test.until_all_ready().await;
    }

    /// A connection to the broker that a fault must affect like the connections of nodes and producers.
    async fn witness(&self, url: &str) -> Connection {
        until("a connection to the broker", async || {
            Connection::connect(url, ConnectionProperties::default()).await.ok()
        })
        .await
    }

    async fn delete_node_queues(&self) {
        let broker = self.test.backends.broker();
        for node in self.test.nodes.iter().cycle().take(3) {
            self.delete(&broker.node_queue(&node.name), QueueDeleteOptions::default()).await;
            pause(300).await;
        }
        self.test.until_all_ready().await;
    }

    async fn delete_ingest_queue(&self) {
        for _ in 0..3 {
            // A deleted queue loses its messages, even those that are delivered and not acknowledged yet. So
            // the queue must be empty, and producers pause until it is deleted. They continue before it
            // exists again.
            let confirmed = self.confirmed.write().await;
            self.until_stored(&confirmed).await;
            let options = QueueDeleteOptions { if_empty: true, ..Default::default() };
            self.delete(&self.test.backends.broker().ingest_queue(), options).await;
            drop(confirmed);
            pause(400).await;
        }
        self.test.until_all_ready().await;
    }

    /// Waits until a queue exists and the options allow to delete it, and deletes it.
    async fn delete(&self, queue: &str, options: QueueDeleteOptions) {
        until_true(&format!("{queue} is deleted"), async || {
            let url = self.test.backends.broker().url();
            let connection = Connection::connect(url, ConnectionProperties::default()).await;
            let Ok(connection) = connection else { return false };
            let Ok(channel) = connection.create_channel().await else { return false };
            // To delete a queue that does not exist is no error.
            let passive = QueueDeclareOptions { passive: true, ..Default::default() };
            let exists = channel.queue_declare(queue.into(), passive, FieldTable::default()).await;
            let deleted =
                exists.is_ok() && channel.queue_delete(queue.into(), options).await.is_ok();
            let _ = connection.close(200, "done".into()).await;
            deleted
        })
        .await;
    }

    /// Waits until the database has everything that was confirmed.
    async fn until_stored(&self, confirmed: &Confirmed) {
        let mut connection = self.database().await;
        until_true("everything confirmed is stored", async || {
            let (created, changed): (i64, i64) = sqlx::query_as(
                "SELECT count(*),
                   count(*) FILTER (WHERE read_at IS NOT NULL OR deleted_at IS NOT NULL)
                 FROM notifications",
            )
            .fetch_one(&mut connection)
            .await
            .unwrap();
            let number = |value: i64| usize::try_from(value).unwrap();
            number(created) == confirmed.created.load(Ordering::SeqCst)
                && number(changed) >= confirmed.changed.load(Ordering::SeqCst)
        })
        .await;
        // The messages are acknowledged shortly after their commit.
        pause(100).await;
    }

    async fn terminate_backends(&self) {
        let mut connection = self.database().await;
        for _ in 0..6 {
            until_true("a connection to the database is terminated", async || {
                let terminated: i64 = sqlx::query_scalar(
                    "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
                     WHERE datname = current_database() AND pid <> pg_backend_pid()",
                )
                .fetch_one(&mut connection)
                .await
                .unwrap();
                terminated > 0
            })
            .await;
            pause(250).await;
        }
        self.test.until_all_ready().await;
    }

    async fn kill_database(&self) {
        let server = self.test.database_server.as_ref();
        let server = server.expect("a test with this fault has a database server of its own");
        let mut witness = self.database().await;
        server.kill().await;
        let answer = sqlx::query("SELECT 1").execute(&mut witness).await;
        assert!(answer.is_err(), "a connection has survived the kill of the database");
        pause(500).await;
        server.start().await;
        self.test.until_all_ready().await;
    }

    /// Rejects all writes to this table for a while.
    async fn fill_disk(&self, table: &'static str) {
        let mut connection = self.database().await;
        // The sequence shows whether a write was rejected: unlike a row, its value is not rolled back.
        let reject = format!(
            "CREATE SEQUENCE disk_full_rejections;
             CREATE OR REPLACE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
               PERFORM nextval('disk_full_rejections');
               RAISE EXCEPTION 'could not extend file: No space left on device'
                 USING ERRCODE = 'disk_full';
             END $$;
             CREATE TRIGGER disk_full BEFORE INSERT OR UPDATE OR DELETE ON {table}
               FOR EACH STATEMENT EXECUTE FUNCTION disk_full()"
        );
        let accept = format!("DROP TRIGGER disk_full ON {table}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(reject)).execute(&mut connection).await.unwrap();
        pause(2_500).await;
        until_true(&format!("a write to {table} is rejected"), async || {
            sqlx::query_scalar("SELECT is_called FROM disk_full_rejections")
                .fetch_one(&mut connection)
                .await
                .unwrap()
        })
        .await;
        sqlx::raw_sql(sqlx::AssertSqlSafe(accept)).execute(&mut connection).await.unwrap();
        pause(300).await;
        sqlx::query("DROP SEQUENCE disk_full_rejections").execute(&mut connection).await.unwrap();
    }

    async fn database(&self) -> PgConnection {
        PgConnection::connect(self.test.database()).await.unwrap()
    }

    /// A fault would have no effect while all devices are reconnecting.
    async fn until_a_device_is_connected(&self) {
        until_true("a device is connected", async || {
            self.devices().any(|endpoint| Connectivity::of(&endpoint.device).connected)
        })
        .await;
    }

    async fn drop_devices(&self) {
        self.until_a_device_is_connected().await;
        let before: Vec<_> = self.devices().map(|it| Connectivity::of(&it.device)).collect();
        for round in 0..6 {
            for endpoint in self.devices().skip(round % 2).step_by(2) {
                endpoint.device.drop_connection();
            }
            pause(500).await;
        }
        for (endpoint, before) in self.devices().zip(before) {
            before.until_disconnected(&endpoint.device).await;
        }
    }
}

impl Endpoint {
    /// Cuts the device's connections and refuses new ones. A connected device must lose its connection.
    async fn cut(&self, length: Duration) {
        let before = Connectivity::of(&self.device);
        self.network.close();
        sleep(length).await;
        self.network.open();
        before.until_disconnected(&self.device).await;
    }

    /// Holds back all bytes from and to the device for this time. If the device is connected, this lasts at
    /// least until some bytes are held back.
    async fn freeze(&self, length: Duration) {
        let connected = Connectivity::of(&self.device).connected;
        self.network.freeze();
        sleep(length).await;
        if connected {
            until_within(RECOVERY_LIMIT, "bytes are held back", async || {
                (self.network.held_back() > 0).then_some(())
            })
            .await;
        }
        self.network.thaw();
    }
}

/// Whether a device is connected, and how often it was disconnected.
#[derive(Clone, Copy)]
struct Connectivity {
    connected: bool,
    disconnects: usize,
}

impl Connectivity {
    fn of(device: &Device) -> Self {
        let records = device.records();
        let last = records.iter().rfind(|it| it.kind == "connect" || it.kind == "disconnect");
        let disconnects = records.iter().filter(|it| it.kind == "disconnect").count();
        Self { connected: last.is_some_and(|it| it.kind == "connect"), disconnects }
    }

    /// Waits until the device has been disconnected since this state was read, if it was connected then.
    async fn until_disconnected(self, device: &Device) {
        if self.connected {
            until_true("the device is disconnected", async || {
                Self::of(device).disconnects > self.disconnects
            })
            .await;
        }
    }
}

async fn until_lost(connection: &Connection) {
    until_true("a connection to the broker is lost", async || !connection.status().connected())
        .await;
}

/// Whether the broker confirms a message within a second. No queue takes the message.
async fn is_confirmed(connection: &Connection) -> bool {
    let publish = async {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let options = BasicPublishOptions::default();
        let properties = BasicProperties::default();
        let queue = "belfry-tests-nowhere".into();
        channel.basic_publish("".into(), queue, options, b"", properties).await?.await
    };
    timeout(Duration::from_secs(1), publish).await.is_ok_and(|confirmed| confirmed.is_ok())
}

async fn pause(milliseconds: u64) {
    sleep(Duration::from_millis(milliseconds)).await;
}
