//! What is down for a while: nothing that was accepted is lost, and everybody comes back by himself.

use belfry_tests::amqp::Amqp;
use belfry_tests::postgres::{Database, PostgresServer, fresh_database};
use belfry_tests::process::Belfry;
use belfry_tests::rabbit::{RabbitServer, fresh_prefix};
use belfry_tests::wait::until_true;
use lapin::BasicProperties;
use serde_json::{Value, json};

use crate::setup::{Ground, Setup, User, notify, service, signed_in, until_ready};

on_both_setups!(
    told_to_stop_it_ends_in_good_order_and_its_devices_come_back_after_the_restart,
    a_stop_has_a_bound_and_a_second_signal_does_not_wait_for_it,
);

async fn told_to_stop_it_ends_in_good_order_and_its_devices_come_back_after_the_restart(
    setup: Setup,
) {
    let mut place = setup.own().await;
    let ada = place.user("ada");
    let devices = tokio::join!(
        signed_in(ada.node().track(true)),
        signed_in(ada.python().track(true)),
        signed_in(ada.node().track(true).transports(["polling"]).namespace("/notifications")),
    );
    let devices = [devices.0, devices.1, devices.2];
    place.notify(&ada, json!({ "id": "n1", "title": "Before" })).await;

    assert_eq!(place.belfry.terminate().await.code(), Some(0), "{}", place.belfry.log());
    for device in &devices {
        device.disconnected().await;
    }
    place.belfry.restart().await;
    until_ready(&place.belfry).await;
    for device in &devices {
        device.connected().await;
        assert_eq!(device.expect("notification:sync").await["recovered"], true);
    }
    place.until_told(&ada, &devices, "n2").await;
    for device in &devices {
        let new = device.events("notification:new");
        let ids: Vec<_> = new.iter().map(|new| new["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["n1", "n2"], "{}", device.story());
    }
    assert_eq!(place.belfry.terminate().await.code(), Some(0));
}

async fn a_stop_has_a_bound_and_a_second_signal_does_not_wait_for_it(setup: Setup) {
    // To send its devices away takes an hour …
    let slow = async |bound: &str| {
        let place = setup
            .own_with(|belfry| {
                belfry.setting("shutdown.spread", "1h").setting("shutdown.timeout", bound)
            })
            .await;
        let devices = place.user("ada").two_devices().await;
        (place, devices)
    };
    // … which nobody waits for.
    let (mut bounded, _devices) = slow("1s").await;
    assert_eq!(bounded.belfry.terminate().await.code(), Some(0));
    assert!(bounded.belfry.log().contains("shutdown timed out"));

    let (mut patient, _devices) = slow("1h").await;
    patient.belfry.tell_to_stop();
    patient.belfry.log_line("shutdown requested").await;
    assert!(patient.belfry.is_running());
    assert_eq!(patient.belfry.terminate().await.code(), Some(130));
}

/// What is done with messages while their users are away is theirs all the same.
#[tokio::test]
async fn what_waited_for_the_start_is_not_told_to_empty_rooms_and_forgotten() {
    const WAITING: usize = 50;
    let mut place = Setup::Servers.own().await;
    let ada = place.user("ada");
    let device = signed_in(ada.node().track(true)).await;
    place.until_told(&ada, [&device], "first").await;
    device.disconnect();
    device.disconnected().await;
    place.belfry.terminate().await;

    let amqp = Amqp::connect(place.broker().url()).await;
    for n in 0..WAITING {
        let data = json!({ "userId": ada.id(), "id": format!("n{n}"), "title": "Nobody listens" });
        let message = json!({ "pattern": "notification.created", "data": data });
        amqp.send(&place.broker().ingest_queue(), &message).await;
    }
    place.belfry.restart().await;
    let http = ada.http();
    until_true("all that waited is stored", async || {
        let answer = http.get("/v1/notifications/unread-count").await;
        answer.status == 200 && answer.json()["count"] == WAITING + 1
    })
    .await;

    device.reconnect();
    let sync = device.expect("notification:sync").await;
    assert_eq!((&sync["recovered"], &sync["missed"]), (&json!(true), &json!(WAITING)));
    place.until_told(&ada, [&device], "last").await;
    assert_eq!(device.events("notification:new").len(), WAITING + 2, "{}", device.story());
}

#[tokio::test]
async fn while_the_broker_is_down_inboxes_are_written_and_the_events_wait() {
    let (server, database) = tokio::join!(RabbitServer::start_own(), fresh_database());
    let ground = Ground { database: Some(database), broker: Some(server.fresh_prefix()) };
    let belfry = ground.start().await;
    let ada = User::new("ada", &belfry);
    let devices = ada.two_devices().await;
    notify(&belfry, &ada, json!({ "id": "n1", "title": "Before" })).await;

    server.stop().await;
    for id in ["n2", "n3"] {
        notify(&belfry, &ada, json!({ "id": id, "title": "Meanwhile" })).await;
    }
    assert_eq!(ada.http().get("/v1/notifications/unread-count").await.expect(200)["count"], 3);
    // A device that comes now learns it from the store.
    let newcomer = ada.node().connect().await;
    assert_eq!(newcomer.expect("notification:sync").await["unreadCount"], 3);
    server.start().await;

    for device in &devices {
        for (n, id) in (1..).zip(["n1", "n2", "n3"]) {
            assert_eq!(device.expect("notification:new").await["id"], id);
            let count = device.expect("notification:unread_count").await;
            assert_eq!(count, json!({ "count": n, "revision": n }));
        }
    }
    // What comes in by the broker is heard again, too.
    until_ready(&belfry).await;
    let broker = ground.broker();
    let data = json!({ "userId": ada.id(), "id": "n4", "title": "After" });
    let body = json!({ "pattern": "notification.create", "data": data });
    Amqp::connect(broker.url()).await.send(&broker.ingest_queue(), &body).await;
    for device in &devices {
        assert_eq!(device.expect("notification:new").await["id"], "n4");
        assert_eq!(device.events("notification:new").len(), 4, "{}", device.story());
    }
}

/// A database on a server of its own, and names on the broker that all share.
async fn ground_on(server: &PostgresServer) -> Ground {
    let (database, broker) = tokio::join!(Database::on(server.url()), fresh_prefix());
    Ground { database: Some(database), broker: Some(broker) }
}

#[tokio::test]
async fn a_database_that_is_down_at_the_start_is_waited_for() {
    let server = PostgresServer::start_own().await;
    let ground = ground_on(&server).await;
    server.stop().await;

    let mut belfry = ground.belfry().start().await;
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
async fn a_database_that_stops_under_way_loses_nothing_that_was_sent() {
    let server = PostgresServer::start_own().await;
    let ground = ground_on(&server).await;
    let belfry = ground.start().await;
    let ada = User::new("ada", &belfry);
    let device = signed_in(ada.node()).await;
    notify(&belfry, &ada, json!({ "id": "n1", "title": "Before" })).await;
    assert_eq!(device.expect("notification:new").await["id"], "n1");

    server.stop().await;
    let broker = ground.broker();
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
    until_true("it says that it is not ready", async || {
        belfry.http().get("/health/ready").await.status == 503
    })
    .await;
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

/// What can never work, and the word for why.
fn hopeless() -> Vec<(Vec<u8>, &'static str)> {
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
        (create(json!({ "userId": ["ada"], "title": "Hello" })), "invalid"),
        (
            json(json!({ "pattern": "notification.mark_read", "data": { "userId": "ada" } })),
            "invalid",
        ),
    ]
}

#[tokio::test]
async fn what_can_never_work_goes_to_the_dead_queue_with_the_reason_and_its_neighbours_pass() {
    let place = Setup::Servers.own().await;
    let ada = place.user("ada");
    let device = signed_in(ada.node()).await;
    let broker = place.broker();
    let (ingest, dead) = (broker.ingest_queue(), broker.dead_queue());
    let amqp = Amqp::connect(broker.url()).await;
    let hopeless = hopeless();

    for (n, (body, _)) in hopeless.iter().enumerate() {
        let properties = BasicProperties::default().with_message_id(format!("m{n}").into());
        amqp.publish("", &ingest, body, properties).await;
        let data = json!({ "userId": ada.id(), "id": format!("n{n}"), "title": "A neighbour" });
        let good = json!({ "pattern": "notification.create", "data": data });
        amqp.send(&ingest, &good).await;
    }

    for n in 0..hopeless.len() {
        assert_eq!(device.expect("notification:new").await["id"], format!("n{n}"));
    }
    let mut found = Vec::new();
    for _ in &hopeless {
        found.push(amqp.next(&dead).await);
    }
    for (n, (body, reason)) in hopeless.iter().enumerate() {
        let id = format!("m{n}");
        let named = |message_id: &Option<lapin::types::ShortString>| {
            message_id.as_ref().is_some_and(|it| it.as_str() == id)
        };
        let letter = found.iter().find(|letter| named(letter.properties.message_id()));
        let letter = letter.unwrap_or_else(|| panic!("{id} is not among {found:#?}"));
        assert_eq!(letter.body, *body, "{id} is there as it came");
        assert_eq!(letter.header("x-belfry-reason").as_deref(), Some(*reason), "{letter:#?}");
        assert_ne!(letter.header("x-belfry-error").unwrap(), "", "{letter:#?}");
    }
    assert_eq!(amqp.count(&dead).await, Some(0), "each is there once");
    assert_eq!(amqp.count(&ingest).await, Some(0), "nothing goes round");
}

#[tokio::test]
async fn when_a_node_dies_another_goes_on_telling() {
    let ground = Setup::Servers.ground().await;
    let (mut one, mut other) = tokio::join!(ground.start(), ground.start());
    let ada = User::new("ada", &one);

    // Each is the survivor once: whichever of the two had the relay, it is taken over.
    goes_on_after_the_death_of(&mut one, &other, &ada, "n1").await;
    one.restart().await;
    until_ready(&one).await;
    goes_on_after_the_death_of(&mut other, &one, &ada, "n2").await;
}

async fn goes_on_after_the_death_of(dies: &mut Belfry, survivor: &Belfry, ada: &User, id: &str) {
    let device = signed_in(ada.at(survivor).node()).await;
    notify(dies, ada, json!({ "id": format!("{id}-before"), "title": "Before" })).await;
    dies.kill();
    notify(survivor, ada, json!({ "id": format!("{id}-after"), "title": "After" })).await;
    for when in ["before", "after"] {
        assert_eq!(device.expect("notification:new").await["id"], format!("{id}-{when}"));
    }
    assert_eq!(device.events("notification:new").len(), 2, "{}", device.story());
}
