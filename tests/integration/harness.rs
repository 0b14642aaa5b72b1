//! Tests of the harness: properties of its servers and clients that other tests rely on.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use belfry_tests::amqp::Amqp;
use belfry_tests::clients::Device;
use belfry_tests::postgres::{Database, PostgresServer, fresh_database};
use belfry_tests::rabbit::{Broker, RabbitServer, fresh_prefix};
use belfry_tests::servers::{Kind, shared};
use belfry_tests::wait::{until, until_true};
use lapin::BasicProperties;
use lapin::types::FieldTable;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, PgPool};

async fn names_of_tables(pool: &PgPool) -> Vec<String> {
    let all = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'";
    sqlx::query_scalar(all).fetch_all(pool).await.unwrap()
}

async fn database_exists(database_url: &str, server_url: &str) -> bool {
    let mut connection = PgConnection::connect(server_url).await.unwrap();
    let name = database_url.rsplit('/').next().unwrap();
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(name)
        .fetch_one(&mut connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn table_of_one_database_is_not_in_another() {
    let (one, other) = tokio::join!(fresh_database(), fresh_database());
    let (one, other) = (one.pool().await, other.pool().await);
    sqlx::query("CREATE TABLE only_here (id int)").execute(&one).await.unwrap();
    assert_eq!(names_of_tables(&one).await, ["only_here"]);
    assert_eq!(names_of_tables(&other).await, Vec::<String>::new());
}

#[tokio::test]
async fn dropped_database_is_deleted_despite_open_connections() {
    let server = &shared(Kind::Postgres).await.url;
    let database = fresh_database().await;
    let url = database.url().to_owned();
    let _still_connected = database.pool().await;
    assert!(database_exists(&url, server).await);
    drop(database);
    assert!(!database_exists(&url, server).await);
}

#[tokio::test]
async fn commit_survives_a_stop_and_a_kill_of_the_server() {
    let server = PostgresServer::start_own().await;
    let database = Database::on(server.url()).await;
    let pool = database.pool().await;
    sqlx::query("CREATE TABLE kept (id int)").execute(&pool).await.unwrap();

    let before = Instant::now();
    server.stop().await;
    assert!(before.elapsed() < Duration::from_secs(20), "the stop waits for clients to disconnect");
    assert!(PgConnection::connect(database.url()).await.is_err(), "the server still runs");
    server.start().await;
    sqlx::query("INSERT INTO kept VALUES (1)").execute(&database.pool().await).await.unwrap();

    server.kill().await;
    assert!(PgConnection::connect(database.url()).await.is_err(), "the server still runs");
    server.start().await;
    let kept: Vec<i32> =
        sqlx::query_scalar("SELECT id FROM kept").fetch_all(&database.pool().await).await.unwrap();
    assert_eq!(kept, [1]);
}

#[tokio::test]
async fn published_message_is_received_unchanged() {
    let broker = fresh_prefix().await;
    let amqp = Amqp::connect(broker.url()).await;
    let queue = broker.ingest_queue();
    amqp.declare_queue(&queue, FieldTable::default()).await;
    let properties = BasicProperties::default().with_type("notification.create".into());
    amqp.publish("", &queue, json!({"userId": "u42"}).to_string(), properties).await;

    assert_eq!(amqp.count(&queue).await, Some(1));
    let message = amqp.next(&queue).await;
    assert_eq!(message.json(), json!({"userId": "u42"}));
    assert_eq!(message.properties.kind().as_ref().unwrap().as_str(), "notification.create");
    assert!(amqp.take(&queue).await.is_none());
}

#[tokio::test]
#[should_panic(expected = "no queue took")]
async fn unroutable_message_panics() {
    let broker = fresh_prefix().await;
    let amqp = Amqp::connect(broker.url()).await;
    amqp.send(&broker.ingest_queue(), &json!({})).await;
}

#[tokio::test]
async fn dropped_prefix_deletes_its_queues_and_no_others() {
    let broker = fresh_prefix().await;
    let other = fresh_prefix().await;
    let amqp = Amqp::connect(broker.url()).await;
    let queues = [broker.ingest_queue(), broker.dead_queue(), broker.node_queue("a")];
    // Without a management API, the harness cannot list the queues, so it deletes only those that it knows.
    broker.will_delete_queue(broker.node_queue("a"));
    for queue in queues.iter().chain([&other.ingest_queue()]) {
        amqp.declare_queue(queue, FieldTable::default()).await;
    }
    drop(broker);
    for queue in &queues {
        assert_eq!(amqp.count(queue).await, None, "{queue}");
    }
    assert_eq!(amqp.count(&other.ingest_queue()).await, Some(0));
}

async fn next_message(broker: &Broker, queue: &str) -> Value {
    Amqp::connect(broker.url()).await.next(queue).await.json()
}

#[tokio::test]
async fn confirmed_message_survives_a_stop_and_a_kill_of_the_broker() {
    let server = RabbitServer::start_own().await;
    let broker = server.fresh_prefix();
    let queue = broker.ingest_queue();
    let amqp = Amqp::connect(broker.url()).await;
    amqp.declare_queue(&queue, FieldTable::default()).await;
    amqp.send(&queue, &json!(1)).await;

    server.stop().await;
    server.start().await;
    assert_eq!(next_message(&broker, &queue).await, json!(1));

    Amqp::connect(broker.url()).await.send(&queue, &json!(2)).await;
    server.kill().await;
    server.start().await;
    assert_eq!(next_message(&broker, &queue).await, json!(2));
}

/// A variable that is set in the process that the following test starts and kills.
const TO_BE_KILLED: &str = "BELFRY_TEST_TO_BE_KILLED";

async fn start_servers_and_hang() {
    let (postgres, rabbit) = tokio::join!(PostgresServer::start_own(), RabbitServer::start_own());
    println!("\nurls {} {}", postgres.url(), rabbit.url());
    tokio::time::sleep(Duration::from_mins(5)).await;
}

#[tokio::test]
async fn servers_of_a_killed_test_process_are_removed() {
    if std::env::var_os(TO_BE_KILLED).is_some() {
        return start_servers_and_hang().await;
    }
    let this_test = "harness::servers_of_a_killed_test_process_are_removed";
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", this_test])
        .env(TO_BE_KILLED, "yes")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = process.stdout.take().unwrap();
    let urls_line = tokio::task::spawn_blocking(move || {
        use std::io::{BufRead, BufReader};
        let mut lines = BufReader::new(&mut output).lines().map_while(Result::ok);
        lines.find(|line| line.starts_with("urls "))
    });
    let urls_line = urls_line.await.unwrap();
    process.kill().unwrap();
    process.wait().unwrap();

    let urls_line = urls_line.expect("the servers were started");
    let urls: Vec<&str> = urls_line.split(' ').skip(1).collect();
    let [postgres, rabbit] = urls[..] else { panic!("{urls_line}") };
    until_true("PostgreSQL is gone", async || PgConnection::connect(postgres).await.is_err()).await;
    until("RabbitMQ is gone", async || {
        let properties = lapin::ConnectionProperties::default();
        lapin::Connection::connect(rabbit, properties).await.err()
    })
    .await;
}

#[tokio::test]
async fn device_reports_a_connect_error_when_no_server_listens() {
    let unused = "http://127.0.0.1:1";
    for device in [Device::node(unused), Device::python(unused)] {
        let device = device.token("t").reconnection(false).start();
        assert_ne!(device.of_kind("connect_error").await.message, None);
    }
}
