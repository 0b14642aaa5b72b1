use std::sync::atomic::Ordering;
use std::time::Duration;

use belfry_tests::wait::{until, until_true};
use futures_util::future::join_all;
use lapin::options::QueueDeleteOptions;
use lapin::{Connection, ConnectionProperties};
use sqlx::{Connection as _, PgConnection};
use tokio::sync::RwLock;
use tokio::time::{Instant, sleep};

use super::fault::{Fault, LENGTHS};
use super::producer::Safe;
use super::scene::{Endpoint, Node, Person, Scene};

/// How long the outbox may be without somebody who relays it, once that one was killed.
const TAKEN_OVER: Duration = Duration::from_secs(10);

/// The hand that breaks things.
pub(super) struct Strike<'a> {
    pub(super) scene: &'a Scene,
    pub(super) people: &'a [Person],
    pub(super) safe: &'a RwLock<Safe>,
}

impl Strike<'_> {
    /// Breaks it, and mends what does not mend itself.
    pub(super) async fn with(&self, fault: Fault) {
        match fault {
            Fault::KillNodes(away) => self.kill_nodes(away).await,
            Fault::KillLead => self.kill_lead().await,
            Fault::KillFollower => self.kill_follower().await,
            Fault::CutBroker => {
                for _ in 0..3 {
                    self.scene.proxy.cut();
                    pause(500).await;
                }
            }
            Fault::HideBroker => {
                self.scene.proxy.close();
                pause(1_500).await;
                self.scene.proxy.open();
                self.scene.all_ready().await;
            }
            Fault::KillBroker
            | Fault::StopBroker
            | Fault::CloseBrokerConnections
            | Fault::BlockPublishers => self.broker_server(fault).await,
            Fault::DeleteNodeQueues => self.delete_node_queues().await,
            Fault::DeleteIngestQueue => self.delete_ingest_queue().await,
            Fault::TerminateBackends => {
                for _ in 0..6 {
                    self.terminate_backends().await;
                    pause(250).await;
                }
                self.scene.all_ready().await;
            }
            Fault::KillDatabase => {
                let server = self.scene.database_server.as_ref();
                let server = server.expect("a scene with this fault has one");
                server.kill().await;
                pause(500).await;
                server.start().await;
                self.scene.all_ready().await;
            }
            Fault::FillDisk => {
                self.fill_disk("notifications").await;
                self.fill_disk("outbox").await;
                self.scene.all_ready().await;
            }
            Fault::DropDevices => {
                for round in 0..6 {
                    for endpoint in self.devices().skip(round % 2).step_by(2) {
                        endpoint.device.drop_connection();
                    }
                    pause(500).await;
                }
            }
            Fault::CutDevices(length) => {
                join_all(self.devices().map(|endpoint| endpoint.cut(length))).await;
            }
            Fault::FreezeDevices(length) => {
                join_all(self.devices().map(|endpoint| endpoint.freeze(length))).await;
            }
            Fault::BreakEachDevice => {
                join_all(self.people.iter().zip(LENGTHS).map(async |(person, length)| {
                    let [first, second] = &person.devices;
                    tokio::join!(first.cut(length), second.freeze(length));
                }))
                .await;
            }
        }
    }

    fn devices(&self) -> impl Iterator<Item = &Endpoint> {
        self.people.iter().flat_map(|person| &person.devices)
    }

    async fn kill_nodes(&self, away: Duration) {
        for node in &self.scene.nodes {
            node.kill().await;
            sleep(away).await;
            node.restart().await;
        }
        pause(300).await;
    }

    async fn kill_lead(&self) {
        let (lead, since) = self.lead().await;
        let killed = Instant::now();
        self.scene.nodes[lead].kill().await;
        while self.lead().await.1 <= since {
            assert!(killed.elapsed() < TAKEN_OVER, "nobody relays");
            pause(20).await;
        }
        println!("another relays after {:?}", killed.elapsed());
        pause(300).await;
        self.scene.nodes[lead].restart().await;
    }

    async fn kill_follower(&self) {
        let (lead, _) = self.lead().await;
        let other = &self.scene.nodes[(lead + 1) % self.scene.nodes.len()];
        other.kill().await;
        pause(1_000).await;
        other.restart().await;
    }

    /// The node that relays: of those that run, the last one to say so. With the time, as it wrote it.
    async fn lead(&self) -> (usize, String) {
        until("a node relays the outbox", async || {
            let said = join_all(self.scene.nodes.iter().map(Node::relays_since)).await;
            let said = said.into_iter().enumerate().filter_map(|(n, at)| Some((at?, n)));
            said.max().map(|(at, n)| (n, at))
        })
        .await
    }

    async fn broker_server(&self, fault: Fault) {
        let server = self.scene.broker_server.as_ref();
        let server = server.expect("a scene with this fault has one");
        match fault {
            Fault::StopBroker => {
                server.stop().await;
                sleep(Duration::from_secs(10)).await;
                server.start().await;
            }
            Fault::CloseBrokerConnections => {
                server.close_connections().await;
                pause(500).await;
                server.close_connections().await;
            }
            Fault::BlockPublishers => {
                server.raise_memory_alarm().await;
                pause(3_000).await;
                server.clear_memory_alarm().await;
            }
            _ => {
                server.kill().await;
                server.start().await;
            }
        }
        self.scene.all_ready().await;
    }

    async fn delete_node_queues(&self) {
        let broker = self.scene.ground.broker();
        for node in self.scene.nodes.iter().cycle().take(3) {
            self.delete(&broker.node_queue(&node.name), QueueDeleteOptions::default()).await;
            pause(300).await;
        }
        self.scene.all_ready().await;
    }

    async fn delete_ingest_queue(&self) {
        for _ in 0..3 {
            // What only the queue has goes with it, also what is handed out and not acknowledged. So
            // none may be there; but whoever sends does not wait for its coming back.
            let safe = self.safe.write().await;
            self.until_stored(&safe).await;
            let options = QueueDeleteOptions { if_empty: true, ..Default::default() };
            self.delete(&self.scene.ground.broker().ingest_queue(), options).await;
            drop(safe);
            pause(400).await;
        }
        self.scene.all_ready().await;
    }

    /// Deletes a queue, waiting for the moment in which the options allow it.
    async fn delete(&self, queue: &str, options: QueueDeleteOptions) {
        until_true(&format!("{queue} can be deleted"), async || {
            let url = self.scene.ground.broker().url();
            let connection = Connection::connect(url, ConnectionProperties::default()).await;
            let Ok(connection) = connection else { return false };
            let Ok(channel) = connection.create_channel().await else { return false };
            let deleted = channel.queue_delete(queue.into(), options).await.is_ok();
            let _ = connection.close(200, "done".into()).await;
            deleted
        })
        .await;
    }

    /// Waits until the database has what is safe.
    async fn until_stored(&self, safe: &Safe) {
        let mut connection = self.connection().await;
        until_true("all that is safe is stored", async || {
            let (told, changed): (i64, i64) = sqlx::query_as(
                "SELECT count(*),
                   count(*) FILTER (WHERE read_at IS NOT NULL OR deleted_at IS NOT NULL)
                 FROM notifications",
            )
            .fetch_one(&mut connection)
            .await
            .unwrap();
            let number = |value: i64| usize::try_from(value).unwrap();
            number(told) == safe.told.load(Ordering::SeqCst)
                && number(changed) >= safe.changed.load(Ordering::SeqCst)
        })
        .await;
        // What is stored may not be acknowledged yet.
        pause(100).await;
    }

    async fn terminate_backends(&self) {
        let mut connection = self.connection().await;
        sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .execute(&mut connection)
        .await
        .unwrap();
    }

    /// For a while, nothing can be written into this table.
    async fn fill_disk(&self, table: &'static str) {
        let mut connection = self.connection().await;
        let refuse = format!(
            "CREATE OR REPLACE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
               RAISE EXCEPTION 'could not extend file: No space left on device'
                 USING ERRCODE = 'disk_full';
             END $$;
             CREATE TRIGGER disk_full BEFORE INSERT OR UPDATE OR DELETE ON {table}
               FOR EACH STATEMENT EXECUTE FUNCTION disk_full()"
        );
        let accept = format!("DROP TRIGGER disk_full ON {table}");
        for (statement, length) in [(refuse, 2_500), (accept, 300)] {
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
            pause(length).await;
        }
    }

    async fn connection(&self) -> PgConnection {
        PgConnection::connect(self.scene.database()).await.unwrap()
    }
}

impl Endpoint {
    async fn cut(&self, length: Duration) {
        self.network.close();
        sleep(length).await;
        self.network.open();
    }

    async fn freeze(&self, length: Duration) {
        self.network.freeze();
        sleep(length).await;
        self.network.thaw();
    }
}

async fn pause(milliseconds: u64) {
    sleep(Duration::from_millis(milliseconds)).await;
}
