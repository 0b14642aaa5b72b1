//! Clients of another server, unchanged: names, shapes and namespaces by configuration.

use belfry_tests::process::Builder;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use crate::setup::{Deployment, Setup};

/// A convention of clients: what they listen to and send.
struct Convention {
    compat: &'static str,
    new: &'static str,
    /// The field of the payload that has the notification; empty if the payload is the notification.
    wrapper: &'static str,
    count_event: &'static str,
    /// The count of 1 at revision 1.
    count: Value,
    mark: &'static str,
    get_count: &'static str,
}

fn count() -> Value {
    json!({ "count": 1, "revision": 1 })
}

fn conventions() -> [Convention; 12] {
    let names = |compat, new, count_event, mark, get_count| Convention {
        compat,
        new,
        wrapper: "",
        count_event,
        count: count(),
        mark,
        get_count,
    };
    let nestjs = |compat| {
        names(compat, "notification", "unread_count", "markAsRead", "getUnreadCount")
    };
    let camel = |compat| {
        names(compat, "newNotification", "unreadCount", "markAsRead", "getUnreadCount")
    };
    let colon = |compat| {
        let count = "notification:count";
        names(compat, "notification:new", count, "notification:read", "getUnreadCount")
    };
    let unread_count = || json!({ "unreadCount": 1, "revision": 1 });
    [
        nestjs("nestjs-default"),
        Convention { wrapper: "notification", ..nestjs("nestjs-default, wrap-notification") },
        Convention { wrapper: "data", ..nestjs("nestjs-default, wrap-data") },
        Convention { count: json!(1), ..nestjs("nestjs-default, count-number") },
        Convention { count: unread_count(), ..nestjs("count-unread-count, nestjs-default") },
        colon("colon-case"),
        Convention { wrapper: "notification", ..colon("colon-case, wrap-notification") },
        names("snake-case", "new_notification", "unread_count", "mark_as_read", "get_unread_count"),
        camel("camel-case"),
        Convention { count: json!(1), ..camel("camel-case, count-number") },
        Convention { count: unread_count(), ..camel("camel-case, count-unread-count") },
        names("kebab-case", "new-notification", "unread-count", "mark-as-read", "get-unread-count"),
    ]
}

async fn works_unchanged(convention: Convention) {
    let Convention { compat, new, wrapper, count_event, count, mark, get_count } = convention;
    let deployment = own(|it| it.setting("socket.compat", compat)).await;
    let ada = deployment.user("ada");
    let device = ada.node().connect().await;
    let sent = deployment.notify(&ada, json!({ "id": "n1", "title": "Hello" })).await;

    let payload = device.expect(new).await;
    let received = if wrapper.is_empty() { payload } else { payload[wrapper].clone() };
    assert_eq!(received, sent, "{compat}");
    while device.expect(count_event).await != count {}
    assert_eq!(device.call(get_count, Value::Null).await, count, "{compat}");
    assert_eq!(device.call(mark, json!("n1")).await, json!({ "success": true }), "{compat}");
    assert_eq!(deployment.stored(&ada, "n1").await["isRead"], true, "{compat}");
    let belfry = device.call("notification:unread_count", Value::Null).await;
    assert_eq!(belfry["data"]["count"], 0, "{compat}: Belfry's own names remain");
}

async fn own(configure: impl FnOnce(Builder) -> Builder) -> Deployment {
    Setup::Embedded.own_with(configure).await
}

#[tokio::test]
async fn unchanged_client_of_each_convention_receives_and_marks_notifications() {
    // A few at a time, as each has a server and a client.
    let all = stream::iter(conventions().map(works_unchanged)).buffer_unordered(4);
    Box::pin(all.collect::<()>()).await;
}

#[tokio::test]
async fn event_with_several_names_arrives_under_each_of_them() {
    let configure = |it: Builder| {
        it.setting("socket.compat", "camel-case")
            .setting("socket.events.new", "notification as {data}, notification:new")
            .setting("socket.messages.list", "getNotifications as items")
    };
    let deployment = own(configure).await;
    let ada = deployment.user("ada");
    let devices = [
        ada.node().connect().await,
        ada.node().transports(["polling"]).namespace("/notifications").connect().await,
    ];
    let sent = deployment.notify(&ada, json!({ "id": "n1", "title": "Hello" })).await;
    for device in &devices {
        assert_eq!(device.expect("notification").await, json!({ "data": sent }));
        assert_eq!(device.expect("notification:new").await, sent);
        assert_eq!(device.events("newNotification"), [Value::Null; 0]);
        let items = device.call("getNotifications", json!({ "limit": 5 })).await;
        assert_eq!(items[0]["id"], "n1");
        assert_eq!(device.call("deleteNotification", json!("n9")).await["success"], false);
    }
}

#[tokio::test]
async fn configured_namespace_behaves_like_the_others_and_unknown_ones_are_rejected() {
    let deployment = own(|it| it.setting("socket.namespaces", "/ws/notifications, /chat")).await;
    let ada = deployment.user("ada");
    let devices = [
        ada.node().connect().await,
        ada.node().namespace("/ws/notifications").connect().await,
        ada.python().transports(["polling"]).namespace("/chat").connect().await,
    ];
    deployment.notify(&ada, json!({ "id": "n1", "title": "Hello" })).await;
    for device in &devices {
        assert_eq!(device.expect("notification:new").await["id"], "n1");
    }
    let answer = devices[1].call("notification:mark_read", json!("n1")).await;
    assert_eq!(answer["status"], "ok");
    let unknown = ada.node().namespace("/ws").start();
    assert_eq!(unknown.refused().await, "Invalid namespace");
}
