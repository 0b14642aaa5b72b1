//! Outages: nothing that was accepted is lost, and every device reconnects by itself.

use belfry_tests::amqp::Amqp;
use belfry_tests::postgres::{Database, PostgresServer, fresh_database};
use belfry_tests::process::Belfry;
use belfry_tests::rabbit::{RabbitServer, fresh_prefix};
use belfry_tests::wait::until_true;
use lapin::BasicProperties;
use serde_json::{Value, json};

use crate::setup::{Backends, Setup, User, notify, service, signed_in, until_ready};

on_both_setups!(
    sigterm_shuts_down_gracefully_and_devices_reconnect_after_the_restart,
    shutdown_ends_at_its_timeout_and_at_once_on_a_second_signal,
);

async fn sigterm_shuts_down_gracefully_and_devices_reconnect_after_the_restart(setup: Setup) {
    let mut deployment = setup.own().await;
    let ada = deployment.user("ada");
    let devices = tokio::join!(
        signed_in(ada.node().track(true)),
        signed_in(ada.python().track(true)),
        signed_in(ada.node().track(true).transports(["polling"]).namespace("/notifications")),
    );
    let devices = [devices.0, devices.1, devices.2];
    deployment.notify(&ada, json!({ "id": "n1", "title": "Before" })).await;

    assert_eq!(deployment.belfry.terminate().await.code(), Some(0), "{}", deployment.belfry.log());
    for device in &devices {
        device.disconnected().await;
    }
    deployment.belfry.restart().await;
    until_ready(&deployment.belfry).await;
    for device in &devices {
        device.connected().await;
        assert_eq!(device.expect("notification:sync").await["recovered"], true);
    }
    deployment.until_delivered(&ada, &devices, "n2").await;
    for device in &devices {
        let new = device.events("notification:new");
        let ids: Vec<_> = new.iter().map(|new| new["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["n1", "n2"], "{}", device.transcript());
    }
    assert_eq!(deployment.belfry.terminate().await.code(), Some(0));
}

async fn shutdown_ends_at_its_timeout_and_at_once_on_a_second_signal(setup: Setup) {
    // With this `shutdown.spread` it takes an hour to disconnect the devices.
    let slow = async |timeout: &str| {
        let deployment = setup
            .own_with(|belfry| {
                belfry.setting("shutdown.spread", "1h").setting("shutdown.timeout", timeout)
            })
            .await;
        let devices = deployment.user("ada").two_devices().await;
        (deployment, devices)
    };
    let (mut short, _devices) = slow("1s").await;
    assert_eq!(short.belfry.terminate().await.code(), Some(0));
    assert!(short.belfry.log().contains("shutdown timed out; exiting with unfinished work"));

    let (mut long, _devices) = slow("1h").await;
    long.belfry.send_sigterm();
    long.belfry.log_line("shutdown requested; draining").await;
    assert!(long.belfry.is_running());
    // The exit code after a second signal.
    assert_eq!(long.belfry.terminate().await.code(), Some(130));
}

/// After its start Belfry consumes messages before the devices are back, so that they must catch up.
#[tokio::test]
async fn messages_consumed_before_devices_are_back_are_replayed_to_them() {
    const WAITING: usize = 50;
    let mut deployment = Setup::Servers.own().await;
    let ada = deployment.user("ada");
    let device = signed_in(ada.node().track(true)).await;
    deployment.until_delivered(&ada, [&device], "first").await;
    device.disconnect();
    device.disconnected().await;
    deployment.belfry.terminate().await;

    let amqp = Amqp::connect(deployment.broker().url()).await;
    for n in 0..WAITING {
        let data = json!({ "userId": ada.id(), "id": format!("n{n}"), "title": "Nobody listens" });
        let message = json!({ "pattern": "notification.created", "data": data });
        amqp.send(&deployment.broker().ingest_queue(), &message).await;
    }
    let waiting = amqp.count(&deployment.broker().ingest_queue()).await;
    assert_eq!(waiting, u32::try_from(WAITING).ok(), "none is consumed yet");
    deployment.belfry.restart().await;
    let http = ada.http();
    until_true("all messages are stored", async || {
        let answer = http.get("/v1/notifications/unread-count").await;
        answer.status == 200 && answer.json()["count"] == WAITING + 1
    })
    .await;

    device.reconnect();
    let sync = device.expect("notification:sync").await;
    assert_eq!((&sync["recovered"], &sync["missed"]), (&json!(true), &json!(WAITING)));
    deployment.until_delivered(&ada, [&device], "last").await;
    assert_eq!(device.events("notification:new").len(), WAITING + 2, "{}", device.transcript());
}

#[tokio::test]
async fn broker_outage_delays_events_but_not_writes() {
    let (server, database) = tokio::join!(RabbitServer::start_own(), fresh_database());
    let backends = Backends { database: Some(database), broker: Some(server.fresh_prefix()) };
    server.stop().await;
    let belfry = backends.belfry().start().await;
    belfry.log_line("RabbitMQ unavailable at start; retrying").await;
    server.start().await;
    until_ready(&belfry).await;
    assert!(!belfry.log().contains("RabbitMQ connection lost"), "{}", belfry.log());
    let ada = User::new("ada", &belfry);
    let devices = ada.two_devices().await;
    notify(&belfry, &ada, json!({ "id": "n1", "title": "Before" })).await;
    for device in &devices {
        assert_eq!(device.expect("notification:new").await["id"], "n1");
        let count = device.expect("notification:unread_count").await;
        assert_eq!(count, json!({ "count": 1, "revision": 1 }));
    }

    server.stop().await;
    belfry.log_line("RabbitMQ connection lost; reconnecting").await;
    for id in ["n2", "n3"] {
        notify(&belfry, &ada, json!({ "id": id, "title": "Meanwhile" })).await;
    }
    assert_eq!(ada.http().get("/v1/notifications/unread-count").await.expect(200)["count"], 3);
    // A device that connects now gets the count from the store.
    let newcomer = ada.node().connect().await;
    assert_eq!(newcomer.expect("notification:sync").await["unreadCount"], 3);
    for device in &devices {
        assert_eq!(device.events("notification:new").len(), 1, "{}", device.transcript());
    }
    server.start().await;

    for device in &devices {
        for (n, id) in (2..).zip(["n2", "n3"]) {
            assert_eq!(device.expect("notification:new").await["id"], id);
            let count = device.expect("notification:unread_count").await;
            assert_eq!(count, json!({ "count": n, "revision": n }));
        }
    }
    // The ingest queue is consumed again, too.
    until_ready(&belfry).await;
    let broker = backends.broker();
    let data = json!({ "userId": ada.id(), "id": "n4", "title": "After" });
    let body = json!({ "pattern": "notification.create", "data": data });
    Amqp::connect(broker.url()).await.send(&broker.ingest_queue(), &body).await;
    for device in &devices {
        assert_eq!(device.expect("notification:new").await["id"], "n4");
        assert_eq!(device.events("notification:new").len(), 4, "{}", device.transcript());
    }
}

/// A database on this server, and names on the shared broker.
async fn backends_on(server: &PostgresServer) -> Backends {
    let (database, broker) = tokio::join!(Database::on(server.url()), fresh_prefix());
    Backends { database: Some(database), broker: Some(broker) }
}

#[tokio::test]
async fn database_outage_at_the_start_is_waited_out() {
    let server = PostgresServer::start_own().await;
    let backends = backends_on(&server).await;
    server.stop().await;

    let mut belfry = backends.belfry().start().await;
    let http = belfry.http();
    belfry.log_line("database").await;
    http.get("/health/live").await.expect(200);
    let health = http.get("/health/ready").await.expect(503);
    assert_eq!(health["status"], "not_ready", "{health}");
    let ada = User::new("ada", &belfry);
    let draft = json!({ "userId": ada.id(), "title": "Too early" });
    let problem = service(&belfry).post("/v1/notifications", &draft).await.expect(503);
    assert_eq!(problem["code"], "unavailable");
    assert!(belfry.is_running());

    server.start().await;
    until_ready(&belfry).await;
    let device = signed_in(ada.node()).await;
    notify(&belfry, &ada, json!({ "title": "In time" })).await;
    assert_eq!(device.expect("notification:new").await["title"], "In time");
}

#[tokio::test]
async fn database_outage_loses_no_message() {
    let server = PostgresServer::start_own().await;
    let backends = backends_on(&server).await;
    let belfry = backends.start().await;
    let ada = User::new("ada", &belfry);
    let device = signed_in(ada.node()).await;
    notify(&belfry, &ada, json!({ "id": "n1", "title": "Before" })).await;
    assert_eq!(device.expect("notification:new").await["id"], "n1");

    server.stop().await;
    let broker = backends.broker();
    let amqp = Amqp::connect(broker.url()).await;
    for n in 2..=9 {
        let data = json!({ "userId": ada.id(), "id": format!("n{n}"), "title": "Meanwhile" });
        let body = json!({ "pattern": "notification.create", "data": data });
        amqp.send(&broker.ingest_queue(), &body).await;
    }
    let draft = json!({ "userId": ada.id(), "id": "by-rest", "title": "Meanwhile" });
    let refused = service(&belfry).post("/v1/notifications", &draft).await;
    assert_eq!(refused.expect(503)["code"], "unavailable");
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    assert!(refused.header("retry-after").is_some(), "{refused:#?}");
    let answer = device.call("notification:unread_count", Value::Null).await;
    assert_eq!((&answer["status"], &answer["code"]), (&json!("error"), &json!("unavailable")));
    let http = belfry.http();
    until_true("belfry is not ready", async || http.get("/health/ready").await.status == 503).await;
    server.start().await;

    let mut ids = Vec::new();
    for _ in 2..=9 {
        ids.push(device.expect("notification:new").await["id"].as_str().unwrap().to_owned());
    }
    ids.sort();
    assert_eq!(ids, ["n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9"]);
    until_ready(&belfry).await;
    notify(&belfry, &ada, json!({ "id": "last", "title": "After" })).await;
    assert_eq!(device.expect("notification:new").await["id"], "last");
    let last = device.events("notification:new").pop().unwrap();
    assert_eq!(last["revision"], 10, "nothing was stored twice");
    assert_eq!(amqp.count(&broker.dead_queue()).await, Some(0));
}

/// Messages that can never succeed, each with the reason in its dead letter.
fn invalid_messages() -> Vec<(Vec<u8>, &'static str)> {
    let json = |body: Value| body.to_string().into_bytes();
    let create = |data: Value| json(json!({ "pattern": "notification.create", "data": data }));
    let long = "x".repeat(20_000);
    vec![
        (b"no JSON".to_vec(), "unreadable"),
        (Vec::new(), "unreadable"),
        (vec![0xff, 0xfe, 0x00], "unreadable"),
        (b"[1, 2]".to_vec(), "unreadable"),
        (br#"{"pattern":"notification.create","data":{"#.to_vec(), "unreadable"),
        (json(json!({ "hello": "world" })), "unknown_pattern"),
        (json(json!({ "pattern": "notification.explode", "data": {} })), "unknown_pattern"),
        (json(json!({ "pattern": "notification.create" })), "invalid"),
        (create(json!([])), "invalid"),
        (create(json!({ "title": "To whom?" })), "invalid"),
        (create(json!({ "userId": "ada" })), "invalid"),
        (create(json!({ "userId": "a b", "title": "Hello" })), "invalid"),
        (create(json!({ "userId": "ada", "title": " " })), "invalid"),
        (create(json!({ "userId": "ada", "title": "Hello", "data": { "x": long } })), "invalid"),
        (create(json!({ "userId": { "name": "ada" }, "title": "Hello" })), "invalid"),
        (
            json(json!({ "pattern": "notification.mark_read", "data": { "userId": "ada" } })),
            "invalid",
        ),
    ]
}

#[tokio::test]
async fn invalid_messages_are_dead_lettered_with_a_reason_and_valid_ones_pass() {
    let deployment = Setup::Servers.own().await;
    let ada = deployment.user("ada");
    let device = signed_in(ada.node()).await;
    let broker = deployment.broker();
    let (ingest, dead) = (broker.ingest_queue(), broker.dead_queue());
    let amqp = Amqp::connect(broker.url()).await;
    let invalid = invalid_messages();

    for (n, (body, _)) in invalid.iter().enumerate() {
        let properties = BasicProperties::default().with_message_id(format!("m{n}").into());
        amqp.publish("", &ingest, body, properties).await;
        let data = json!({ "userId": ada.id(), "id": format!("n{n}"), "title": "A neighbour" });
        let good = json!({ "pattern": "notification.create", "data": data });
        amqp.send(&ingest, &good).await;
    }

    for n in 0..invalid.len() {
        assert_eq!(device.expect("notification:new").await["id"], format!("n{n}"));
    }
    let mut dead_letters = Vec::new();
    for _ in &invalid {
        dead_letters.push(amqp.next(&dead).await);
    }
    for (n, (body, reason)) in invalid.iter().enumerate() {
        let id = format!("m{n}");
        let has_id = |message_id: &Option<lapin::types::ShortString>| {
            message_id.as_ref().is_some_and(|it| it.as_str() == id)
        };
        let dead_letter = dead_letters.iter().find(|it| has_id(it.properties.message_id()));
        let dead_letter =
            dead_letter.unwrap_or_else(|| panic!("{id} is not among {dead_letters:#?}"));
        assert_eq!(dead_letter.body, *body, "{id} is unchanged");
        assert_eq!(
            dead_letter.header("x-belfry-reason").as_deref(),
            Some(*reason),
            "{dead_letter:#?}"
        );
        assert_ne!(dead_letter.header("x-belfry-error").unwrap(), "", "{dead_letter:#?}");
    }
    assert_eq!(amqp.count(&dead).await, Some(0), "each message is dead-lettered once");
    assert_eq!(amqp.count(&ingest).await, Some(0), "no message is requeued");
}

#[tokio::test]
async fn events_are_delivered_by_the_other_node_when_one_dies() {
    let backends = Setup::Servers.backends().await;
    let (mut one, mut other) = tokio::join!(backends.start(), backends.start());
    let ada = User::new("ada", &one);

    // Each node is killed once, so that the leader is killed once.
    assert_events_survive_the_kill_of(&mut one, &other, &ada, "n1").await;
    one.restart().await;
    until_ready(&one).await;
    assert_events_survive_the_kill_of(&mut other, &one, &ada, "n2").await;
}

async fn assert_events_survive_the_kill_of(
    killed: &mut Belfry,
    survivor: &Belfry,
    ada: &User,
    id: &str,
) {
    let device = signed_in(ada.at(survivor).node()).await;
    notify(killed, ada, json!({ "id": format!("{id}-before"), "title": "Before" })).await;
    killed.kill();
    assert!(!killed.is_running());
    notify(survivor, ada, json!({ "id": format!("{id}-after"), "title": "After" })).await;
    for when in ["before", "after"] {
        assert_eq!(device.expect("notification:new").await["id"], format!("{id}-{when}"));
    }
    assert_eq!(device.events("notification:new").len(), 2, "{}", device.transcript());
}
