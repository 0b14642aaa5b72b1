//! A device that was away gets what it missed: all of it, once, in order, and the right count.

use belfry_tests::amqp::Amqp;
use belfry_tests::clients::{Device, Seen};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::setup::{Place, Setup, User, signed_in, until_ready};

on_both_setups!(
    a_device_that_comes_back_gets_what_it_missed_as_it_is_to_it,
    a_device_that_never_heard_an_event_misses_none,
    devices_that_saw_differently_much_get_what_each_of_them_missed,
    a_lost_connection_loses_nothing,
    what_happens_while_a_device_catches_up_is_told_once_and_in_order,
    a_killed_belfry_forgets_nothing_and_its_devices_come_back,
    a_device_that_was_away_too_long_starts_over,
    a_device_that_remembers_another_store_starts_over,
    a_device_may_ask_for_what_it_missed_at_any_time,
);

async fn send(place: &Place, user: &User, ids: &[&str]) {
    for id in ids {
        place.notify(user, json!({ "id": id, "title": format!("About {id}") })).await;
    }
}

/// All that a device has heard of an inbox, in order, by short names such as `new n1`.
fn heard(device: &Device) -> Vec<String> {
    let word = |seen: &Seen| {
        let payload = seen.args.first()?;
        Some(match seen.name.as_deref()? {
            "notification:new" => format!("new {}", payload["id"].as_str()?),
            "notification:marked_read" if payload["all"] == true => "all read".to_owned(),
            "notification:marked_read" => format!("read {}", list(&payload["ids"])),
            "notification:deleted" => format!("deleted {}", list(&payload["ids"])),
            "notification:unread_count" => format!("count {}", payload["count"]),
            _ => return None,
        })
    };
    device.seen().iter().filter_map(word).collect()
}

fn list(ids: &Value) -> String {
    let ids = ids.as_array().unwrap().iter().map(|id| id.as_str().unwrap());
    ids.collect::<Vec<_>>().join(" ")
}

/// The ids of all that was new to a device, in order.
fn new_ids(device: &Device) -> Vec<String> {
    let new = device.events("notification:new");
    new.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

/// Takes a device away, in good order.
async fn leave(device: &Device) {
    device.disconnect();
    device.disconnected().await;
}

/// Brings a device back and gives the sync that it hears first.
async fn come_back(device: &Device) -> Value {
    device.reconnect();
    device.connected().await;
    device.expect("notification:sync").await
}

async fn a_device_that_comes_back_gets_what_it_missed_as_it_is_to_it(setup: Setup) {
    let place = setup.shared().await;
    let ada = place.user("ada");
    let devices = tokio::join!(
        signed_in(ada.node().track(true)),
        signed_in(ada.python().track(true).namespace("/notifications")),
    );
    let devices = [devices.0, devices.1];
    send(&place, &ada, &["n1", "n2"]).await;
    place.until_told(&ada, &devices, "n3").await;
    for device in &devices {
        leave(device).await;
    }
    let epoch = devices[0].events("notification:sync")[0]["epoch"].clone();
    let before = devices.each_ref().map(|device| heard(device).len());

    let http = ada.http();
    http.patch("/v1/notifications/n1/read").await.expect(200);
    http.delete("/v1/notifications/n2").await.expect(204);
    send(&place, &ada, &["n4", "n5", "n6"]).await;
    http.patch("/v1/notifications/n5/read").await.expect(200);
    http.delete("/v1/notifications/n6").await.expect(204);

    for device in &devices {
        let sync = come_back(device).await;
        let expected = json!({
            "epoch": epoch, "revision": 10, "unreadCount": 2, "recovered": true, "missed": 2,
        });
        assert_eq!(sync, expected);
    }
    place.until_told(&ada, &devices, "n7").await;
    for (device, before) in devices.iter().zip(before) {
        // What came and went while it was away never was, as far as it is concerned.
        let missed = ["read n1", "deleted n2", "new n4", "new n5", "read n5", "count 2"];
        let live = ["new n7", "count 3"];
        assert_eq!(heard(device)[before..], [&missed[..], &live[..]].concat());
    }

    let newcomer = ada.node().connect().await;
    let sync = newcomer.expect("notification:sync").await;
    let expected = json!({
        "epoch": epoch, "revision": 11, "unreadCount": 3, "recovered": false, "missed": 0,
    });
    assert_eq!(sync, expected);
}

/// Where a server remembers what it sent, a device that was sent nothing yet is not known to it.
async fn a_device_that_never_heard_an_event_misses_none(setup: Setup) {
    let place = setup.shared().await;
    let ada = place.user("ada");
    let devices =
        [signed_in(ada.node().track(true)).await, signed_in(ada.python().track(true)).await];
    for device in &devices {
        leave(device).await;
    }
    send(&place, &ada, &["n1", "n2"]).await;
    for device in &devices {
        let sync = come_back(device).await;
        assert_eq!((&sync["recovered"], &sync["missed"]), (&json!(true), &json!(2)));
    }
    place.until_told(&ada, &devices, "n3").await;
    for device in &devices {
        assert_eq!(heard(device), ["new n1", "new n2", "count 2", "new n3", "count 3"]);
    }
}

async fn devices_that_saw_differently_much_get_what_each_of_them_missed(setup: Setup) {
    const DEVICES: usize = 4;
    let place = setup.shared().await;
    let ada = place.user("ada");
    let devices = join_all((0..DEVICES).map(|_| signed_in(ada.node().track(true)))).await;
    // After each notification one of them leaves.
    for (n, device) in devices.iter().enumerate() {
        place.until_told(&ada, &devices[n..], &format!("n{n}")).await;
        leave(device).await;
    }
    send(&place, &ada, &["last"]).await;
    let all = ["n0", "n1", "n2", "n3", "last"];
    let missed = join_all(devices.iter().map(come_back)).await;
    let missed: Vec<_> = missed.iter().map(|sync| sync["missed"].as_u64().unwrap()).collect();
    assert_eq!(missed, [4, 3, 2, 1]);
    place.until_told(&ada, &devices, "end").await;
    for device in &devices {
        assert_eq!(new_ids(device), [&all[..], &["end"]].concat(), "{}", device.story());
    }
}

async fn a_lost_connection_loses_nothing(setup: Setup) {
    let place = setup.shared().await;
    let ada = place.user("ada");
    let devices = tokio::join!(
        signed_in(ada.node().track(true).option("reconnectionDelay", 100)),
        signed_in(ada.python().track(true).option("reconnectionDelay", 100)),
    );
    let devices = [devices.0, devices.1];
    let mut sent = Vec::new();
    for round in 1..=4 {
        let ids = [1, 2, 3].map(|n| format!("n{round}.{n}"));
        for device in &devices {
            device.drop_connection();
        }
        send(&place, &ada, &ids.each_ref().map(String::as_str)).await;
        sent.extend(ids);
        for device in &devices {
            device.connected().await;
        }
    }
    place.until_told(&ada, &devices, "last").await;
    sent.push("last".to_owned());
    for device in &devices {
        assert_eq!(new_ids(device), sent, "{}", device.story());
        assert_eq!(heard(device).last().unwrap(), "count 13");
    }
}

async fn what_happens_while_a_device_catches_up_is_told_once_and_in_order(setup: Setup) {
    const MISSED: usize = 300;
    const LIVE: usize = 40;
    let place = setup.shared().await;
    let ada = place.user("ada");
    let device = signed_in(ada.node().track(true)).await;
    place.until_told(&ada, [&device], "first").await;
    leave(&device).await;
    let missed: Vec<_> = (0..MISSED)
        .map(|n| json!({ "userId": ada.id(), "id": format!("missed{n}"), "title": "Missed" }))
        .collect();
    let batch = json!({ "notifications": missed });
    place.service().post("/v1/notifications/batch", &batch).await.expect(201);

    let meanwhile = join_all((0..LIVE).map(async |n| {
        place.notify(&ada, json!({ "id": format!("live{n}"), "title": "Live" })).await
    }));
    let (sync, _) = tokio::join!(come_back(&device), meanwhile);
    assert_eq!(sync["recovered"], true);
    place.until_told(&ada, [&device], "last").await;

    let all = device.events("notification:new");
    let revisions: Vec<_> = all.iter().map(|new| new["revision"].as_u64().unwrap()).collect();
    let expected: Vec<_> = (1..=MISSED + LIVE + 2).map(|n| n as u64).collect();
    assert_eq!(revisions, expected);
    let last = device.events("notification:unread_count").pop().unwrap();
    assert_eq!(last["count"], MISSED + LIVE + 2);
}

async fn a_killed_belfry_forgets_nothing_and_its_devices_come_back(setup: Setup) {
    let mut place = setup.own().await;
    let ada = place.user("ada");
    let devices = tokio::join!(
        signed_in(ada.node().track(true)),
        signed_in(ada.python().track(true)),
        signed_in(ada.node().track(true).namespace("/notifications")),
    );
    let devices = [devices.0, devices.1, devices.2];
    let [stays, stays_too, leaves] = &devices;
    place.until_told(&ada, &devices, "n0").await;
    leave(leaves).await;

    send(&place, &ada, &["n1", "n2", "n3"]).await;
    place.belfry.kill();
    if let Some(broker) = &place.ground.broker {
        // Said while nobody is there to hear it.
        let data = json!({ "userId": ada.id(), "id": "n4", "title": "About n4" });
        let message = json!({ "pattern": "notification.created", "data": data });
        Amqp::connect(broker.url()).await.send(&broker.ingest_queue(), &message).await;
        place.belfry.restart().await;
    } else {
        place.belfry.restart().await;
        until_ready(&place.belfry).await;
        send(&place, &ada, &["n4"]).await;
    }

    for device in [stays, stays_too] {
        device.disconnected().await;
        device.connected().await;
        assert_eq!(device.expect("notification:sync").await["recovered"], true);
    }
    assert_eq!(come_back(leaves).await["recovered"], true);
    until_ready(&place.belfry).await;
    place.stored_soon(&ada, "n4").await;
    place.until_told(&ada, &devices, "n5").await;
    for device in &devices {
        assert_eq!(new_ids(device), ["n0", "n1", "n2", "n3", "n4", "n5"], "{}", device.story());
        assert_eq!(heard(device).last().unwrap(), "count 6");
    }
}

async fn a_device_that_was_away_too_long_starts_over(setup: Setup) {
    let place = setup.own_with(|builder| builder.setting("socket.catch_up_limit", 5)).await;
    let ada = place.user("ada");
    let device = signed_in(ada.node().track(true)).await;
    place.until_told(&ada, [&device], "n0").await;

    leave(&device).await;
    send(&place, &ada, &["n1", "n2", "n3", "n4", "n5", "n6"]).await;
    let sync = come_back(&device).await;
    assert_eq!((&sync["recovered"], &sync["missed"]), (&json!(false), &json!(0)));
    assert_eq!((&sync["revision"], &sync["unreadCount"]), (&json!(7), &json!(7)));

    leave(&device).await;
    send(&place, &ada, &["n7", "n8", "n9", "n10", "n11"]).await;
    let sync = come_back(&device).await;
    assert_eq!((&sync["recovered"], &sync["missed"]), (&json!(true), &json!(5)));
    place.until_told(&ada, [&device], "n12").await;
    assert_eq!(new_ids(&device), ["n0", "n7", "n8", "n9", "n10", "n11", "n12"]);
}

async fn a_device_that_remembers_another_store_starts_over(setup: Setup) {
    let place = setup.shared().await;
    let ada = place.user("ada");
    send(&place, &ada, &["n1", "n2"]).await;
    let device = ada.python().connect().await;
    let sync = device.expect("notification:sync").await;
    let epoch = sync["epoch"].clone();

    let since = async |since: Value, epoch: &Value| {
        leave(&device).await;
        device.set_auth(json!({ "token": ada.token(), "since": since, "epoch": epoch }));
        let sync = come_back(&device).await;
        assert_eq!((&sync["revision"], &sync["unreadCount"]), (&json!(2), &json!(2)));
        (sync["recovered"] == true, sync["missed"].as_u64().unwrap())
    };
    assert_eq!(since(json!(1), &json!("another-store")).await, (false, 0));
    assert_eq!(since(json!(1), &json!(7)).await, (false, 0));
    assert_eq!(since(json!(99), &epoch).await, (false, 0));
    assert_eq!(since(json!(-1), &epoch).await, (false, 0));
    assert_eq!(new_ids(&device), Vec::<String>::new());
    assert_eq!(since(json!(1), &epoch).await, (true, 1));
    assert_eq!(device.expect("notification:new").await["id"], "n2");
    assert_eq!(since(json!("2"), &epoch).await, (true, 0));
}

async fn a_device_may_ask_for_what_it_missed_at_any_time(setup: Setup) {
    let place = setup.shared().await;
    let ada = place.user("ada");
    send(&place, &ada, &["n1", "n2", "n3"]).await;
    let device = ada.node().connect().await;
    let first = device.expect("notification:sync").await;

    let asked = json!({ "since": 1, "epoch": first["epoch"] });
    let answer = device.call("notification:sync", asked).await;
    let expected = json!({
        "epoch": first["epoch"], "revision": 3, "unreadCount": 3, "recovered": true, "missed": 2,
    });
    assert_eq!(answer, json!({ "status": "ok", "data": expected }));
    assert_eq!(device.expect("notification:sync").await, expected);
    place.until_told(&ada, [&device], "n4").await;
    assert_eq!(heard(&device), ["new n2", "new n3", "count 3", "new n4", "count 4"]);

    let nothing = device.call("notification:sync", Value::Null).await;
    assert_eq!(nothing["data"]["recovered"], false);
    place.until_told(&ada, [&device], "n5").await;
}
