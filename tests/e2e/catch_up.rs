//! Catch-up: a device that was offline receives every missed event once, in order, and the right count.

use belfry_tests::amqp::Amqp;
use belfry_tests::clients::{Device, DeviceRecord};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::setup::{Deployment, Setup, User, signed_in, until_ready};

on_both_setups!(
    reconnected_device_receives_the_changes_that_it_missed,
    device_without_any_event_yet_recovers_all_events,
    devices_at_different_revisions_each_receive_what_they_missed,
    lost_connections_lose_no_event,
    events_during_a_catch_up_arrive_once_and_in_order,
    killed_belfry_loses_nothing_and_its_devices_reconnect,
    device_beyond_the_catch_up_limit_is_not_recovered,
    device_with_another_epoch_or_revision_is_not_recovered,
    device_may_request_a_sync_at_any_time,
);

async fn send(deployment: &Deployment, user: &User, ids: &[&str]) {
    for id in ids {
        deployment.notify(user, json!({ "id": id, "title": format!("About {id}") })).await;
    }
}

/// All events of a device, in order, by short names such as `new n1`.
fn received(device: &Device) -> Vec<String> {
    let short_name = |record: &DeviceRecord| {
        let payload = record.args.first()?;
        Some(match record.name.as_deref()? {
            "notification:new" => format!("new {}", payload["id"].as_str()?),
            "notification:marked_read" if payload["all"] == true => "all read".to_owned(),
            "notification:marked_read" => format!("read {}", list(&payload["ids"])),
            "notification:deleted" => format!("deleted {}", list(&payload["ids"])),
            "notification:unread_count" => format!("count {}", payload["count"]),
            _ => return None,
        })
    };
    device.records().iter().filter_map(short_name).collect()
}

fn list(ids: &Value) -> String {
    let ids = ids.as_array().unwrap().iter().map(|id| id.as_str().unwrap());
    ids.collect::<Vec<_>>().join(" ")
}

/// The ids of the `notification:new` events of a device, in order.
fn new_ids(device: &Device) -> Vec<String> {
    let new = device.events("notification:new");
    new.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

/// Disconnects a device with a DISCONNECT packet.
async fn disconnect(device: &Device) {
    device.disconnect();
    device.disconnected().await;
}

/// Reconnects a device and returns its `notification:sync`.
async fn reconnect(device: &Device) -> Value {
    device.reconnect();
    device.connected().await;
    device.expect("notification:sync").await
}

async fn reconnected_device_receives_the_changes_that_it_missed(setup: Setup) {
    let deployment = setup.shared().await;
    let ada = deployment.user("ada");
    let devices = tokio::join!(
        signed_in(ada.node().track(true)),
        signed_in(ada.python().track(true).namespace("/notifications")),
    );
    let devices = [devices.0, devices.1];
    send(&deployment, &ada, &["n1", "n2"]).await;
    deployment.until_delivered(&ada, &devices, "n3").await;
    for device in &devices {
        disconnect(device).await;
    }
    let epoch = devices[0].events("notification:sync")[0]["epoch"].clone();
    let before = devices.each_ref().map(|device| received(device).len());

    let http = ada.http();
    http.patch("/v1/notifications/n1/read").await.expect(200);
    http.delete("/v1/notifications/n2").await.expect(204);
    send(&deployment, &ada, &["n4", "n5", "n6"]).await;
    http.patch("/v1/notifications/n5/read").await.expect(200);
    http.delete("/v1/notifications/n6").await.expect(204);

    for device in &devices {
        let sync = reconnect(device).await;
        let expected = json!({
            "epoch": epoch, "revision": 10, "unreadCount": 2, "recovered": true, "missed": 2,
        });
        assert_eq!(sync, expected);
    }
    deployment.until_delivered(&ada, &devices, "n7").await;
    for (device, before) in devices.iter().zip(before) {
        // `n6` is not replayed: it was created and deleted while the devices were offline.
        let missed = ["read n1", "deleted n2", "new n4", "new n5", "read n5", "count 2"];
        let live = ["new n7", "count 3"];
        assert_eq!(received(device)[before..], [&missed[..], &live[..]].concat());
    }

    let newcomer = ada.node().connect().await;
    let sync = newcomer.expect("notification:sync").await;
    let expected = json!({
        "epoch": epoch, "revision": 11, "unreadCount": 3, "recovered": false, "missed": 0,
    });
    assert_eq!(sync, expected);
}

/// A server that only remembers what it has sent to a device could not resume this one.
async fn device_without_any_event_yet_recovers_all_events(setup: Setup) {
    let deployment = setup.shared().await;
    let ada = deployment.user("ada");
    let devices =
        [signed_in(ada.node().track(true)).await, signed_in(ada.python().track(true)).await];
    for device in &devices {
        disconnect(device).await;
    }
    send(&deployment, &ada, &["n1", "n2"]).await;
    for device in &devices {
        let sync = reconnect(device).await;
        assert_eq!((&sync["recovered"], &sync["missed"]), (&json!(true), &json!(2)));
    }
    deployment.until_delivered(&ada, &devices, "n3").await;
    for device in &devices {
        let expected = ["count 0", "new n1", "new n2", "count 2", "new n3", "count 3"];
        assert_eq!(received(device), expected);
    }
}

async fn devices_at_different_revisions_each_receive_what_they_missed(setup: Setup) {
    const DEVICES: usize = 4;
    let deployment = setup.shared().await;
    let ada = deployment.user("ada");
    let devices = join_all((0..DEVICES).map(|_| signed_in(ada.node().track(true)))).await;
    // After each notification one of the devices disconnects.
    for (n, device) in devices.iter().enumerate() {
        deployment.until_delivered(&ada, &devices[n..], &format!("n{n}")).await;
        disconnect(device).await;
    }
    send(&deployment, &ada, &["last"]).await;
    let all = ["n0", "n1", "n2", "n3", "last"];
    let missed = join_all(devices.iter().map(reconnect)).await;
    let missed: Vec<_> = missed.iter().map(|sync| sync["missed"].as_u64().unwrap()).collect();
    assert_eq!(missed, [4, 3, 2, 1]);
    deployment.until_delivered(&ada, &devices, "end").await;
    for device in &devices {
        assert_eq!(new_ids(device), [&all[..], &["end"]].concat(), "{}", device.transcript());
    }
}

async fn lost_connections_lose_no_event(setup: Setup) {
    let deployment = setup.shared().await;
    let ada = deployment.user("ada");
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
        send(&deployment, &ada, &ids.each_ref().map(String::as_str)).await;
        sent.extend(ids);
        for device in &devices {
            device.connected().await;
        }
    }
    deployment.until_delivered(&ada, &devices, "last").await;
    sent.push("last".to_owned());
    for device in &devices {
        assert_eq!(new_ids(device), sent, "{}", device.transcript());
        assert_eq!(received(device).last().unwrap(), "count 13");
    }
}

async fn events_during_a_catch_up_arrive_once_and_in_order(setup: Setup) {
    const MISSED: usize = 300;
    const LIVE: usize = 40;
    let deployment = setup.shared().await;
    let ada = deployment.user("ada");
    let device = signed_in(ada.node().track(true)).await;
    deployment.until_delivered(&ada, [&device], "first").await;
    disconnect(&device).await;
    let missed: Vec<_> = (0..MISSED)
        .map(|n| json!({ "userId": ada.id(), "id": format!("missed{n}"), "title": "Missed" }))
        .collect();
    let batch = json!({ "notifications": missed });
    deployment.service().post("/v1/notifications/batch", &batch).await.expect(201);

    let meanwhile = join_all((0..LIVE).map(async |n| {
        deployment.notify(&ada, json!({ "id": format!("live{n}"), "title": "Live" })).await
    }));
    let (sync, _) = tokio::join!(reconnect(&device), meanwhile);
    assert_eq!(sync["recovered"], true);
    deployment.until_delivered(&ada, [&device], "last").await;

    let all = device.events("notification:new");
    let revisions: Vec<_> = all.iter().map(|new| new["revision"].as_u64().unwrap()).collect();
    let expected: Vec<_> = (1..=MISSED + LIVE + 2).map(|n| n as u64).collect();
    assert_eq!(revisions, expected);
    let last = device.events("notification:unread_count").pop().unwrap();
    assert_eq!(last["count"], MISSED + LIVE + 2);
}

async fn killed_belfry_loses_nothing_and_its_devices_reconnect(setup: Setup) {
    let mut deployment = setup.own().await;
    let ada = deployment.user("ada");
    let devices = tokio::join!(
        signed_in(ada.node().track(true)),
        signed_in(ada.python().track(true)),
        signed_in(ada.node().track(true).namespace("/notifications")),
    );
    let devices = [devices.0, devices.1, devices.2];
    let [online, other_online, offline] = &devices;
    deployment.until_delivered(&ada, &devices, "n0").await;
    disconnect(offline).await;

    send(&deployment, &ada, &["n1", "n2", "n3"]).await;
    deployment.belfry.kill();
    if let Some(broker) = &deployment.backends.broker {
        // Published while no node runs.
        let data = json!({ "userId": ada.id(), "id": "n4", "title": "About n4" });
        let message = json!({ "pattern": "notification.created", "data": data });
        Amqp::connect(broker.url()).await.send(&broker.ingest_queue(), &message).await;
        deployment.belfry.restart().await;
    } else {
        deployment.belfry.restart().await;
        until_ready(&deployment.belfry).await;
        send(&deployment, &ada, &["n4"]).await;
    }

    for device in [online, other_online] {
        device.disconnected().await;
        device.connected().await;
        assert_eq!(device.expect("notification:sync").await["recovered"], true);
    }
    assert_eq!(reconnect(offline).await["recovered"], true);
    until_ready(&deployment.belfry).await;
    deployment.until_stored(&ada, "n4").await;
    deployment.until_delivered(&ada, &devices, "n5").await;
    for device in &devices {
        assert_eq!(
            new_ids(device),
            ["n0", "n1", "n2", "n3", "n4", "n5"],
            "{}",
            device.transcript()
        );
        assert_eq!(received(device).last().unwrap(), "count 6");
    }
}

async fn device_beyond_the_catch_up_limit_is_not_recovered(setup: Setup) {
    let deployment = setup.own_with(|builder| builder.setting("socket.catch_up_limit", 5)).await;
    let ada = deployment.user("ada");
    let device = signed_in(ada.node().track(true)).await;
    deployment.until_delivered(&ada, [&device], "n0").await;

    disconnect(&device).await;
    send(&deployment, &ada, &["n1", "n2", "n3", "n4", "n5", "n6"]).await;
    let sync = reconnect(&device).await;
    assert_eq!((&sync["recovered"], &sync["missed"]), (&json!(false), &json!(0)));
    assert_eq!((&sync["revision"], &sync["unreadCount"]), (&json!(7), &json!(7)));

    disconnect(&device).await;
    send(&deployment, &ada, &["n7", "n8", "n9", "n10", "n11"]).await;
    let sync = reconnect(&device).await;
    assert_eq!((&sync["recovered"], &sync["missed"]), (&json!(true), &json!(5)));
    deployment.until_delivered(&ada, [&device], "n12").await;
    assert_eq!(new_ids(&device), ["n0", "n7", "n8", "n9", "n10", "n11", "n12"]);
}

async fn device_with_another_epoch_or_revision_is_not_recovered(setup: Setup) {
    let deployment = setup.shared().await;
    let ada = deployment.user("ada");
    send(&deployment, &ada, &["n1", "n2"]).await;
    let device = ada.python().connect().await;
    let sync = device.expect("notification:sync").await;
    let epoch = sync["epoch"].clone();

    // Reconnects with this resume point; returns whether the device is recovered and how much it missed.
    let resume = async |since: Value, epoch: &Value| {
        disconnect(&device).await;
        device.set_auth(json!({ "token": ada.token(), "since": since, "epoch": epoch }));
        let sync = reconnect(&device).await;
        assert_eq!((&sync["revision"], &sync["unreadCount"]), (&json!(2), &json!(2)));
        (sync["recovered"] == true, sync["missed"].as_u64().unwrap())
    };
    assert_eq!(resume(json!(1), &json!("another-store")).await, (false, 0));
    assert_eq!(resume(json!(1), &json!(7)).await, (false, 0));
    assert_eq!(resume(json!(99), &epoch).await, (false, 0));
    assert_eq!(resume(json!(-1), &epoch).await, (false, 0));
    assert_eq!(new_ids(&device), Vec::<String>::new());
    assert_eq!(resume(json!(1), &epoch).await, (true, 1));
    assert_eq!(device.expect("notification:new").await["id"], "n2");
    assert_eq!(resume(json!("2"), &epoch).await, (true, 0));
}

async fn device_may_request_a_sync_at_any_time(setup: Setup) {
    let deployment = setup.shared().await;
    let ada = deployment.user("ada");
    send(&deployment, &ada, &["n1", "n2", "n3"]).await;
    let device = ada.node().connect().await;
    let first = device.expect("notification:sync").await;

    let resume_point = json!({ "since": 1, "epoch": first["epoch"] });
    let answer = device.call("notification:sync", resume_point).await;
    let expected = json!({
        "epoch": first["epoch"], "revision": 3, "unreadCount": 3, "recovered": true, "missed": 2,
    });
    assert_eq!(answer, json!({ "status": "ok", "data": expected }));
    assert_eq!(device.expect("notification:sync").await, expected);
    deployment.until_delivered(&ada, [&device], "n4").await;
    let expected = ["count 3", "new n2", "new n3", "count 3", "new n4", "count 4"];
    assert_eq!(received(&device), expected);

    let without_resume_point = device.call("notification:sync", Value::Null).await;
    assert_eq!(without_resume_point["data"]["recovered"], false);
    deployment.until_delivered(&ada, [&device], "n5").await;
}
