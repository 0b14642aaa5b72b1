use http::StatusCode;
use serde_json::{Value, json};

use super::{Api, NOW_TEXT, as_service};

const CREATED: StatusCode = StatusCode::CREATED;
const OK: StatusCode = StatusCode::OK;

fn ids(page: &Value) -> Vec<&str> {
    let items = page["items"].as_array().expect("items");
    items.iter().map(|item| item["id"].as_str().expect("an id")).collect()
}

fn pointers(problem: &Value) -> Vec<&str> {
    let errors = problem["errors"].as_array().expect("errors");
    errors.iter().map(|error| error["pointer"].as_str().expect("a pointer")).collect()
}

#[tokio::test]
async fn created_notification_is_returned_with_its_location() {
    let api = Api::new();
    let body = json!({
        "userId": "ada", "type": "order.shipped", "title": "Your order is on its way",
        "message": "It left today.", "data": { "orderId": 7 }, "link": "/orders/7",
        "priority": "high", "expiresAt": "2027-02-01T00:00:00+01:00", "unknown": true,
    });
    let response = api.post("/v1/notifications", body).await;
    let expected = json!({
        "id": "id-1", "userId": "ada", "type": "order.shipped",
        "title": "Your order is on its way", "message": "It left today.",
        "data": { "orderId": 7 }, "link": "/orders/7", "priority": "high", "isRead": false,
        "readAt": null, "createdAt": NOW_TEXT, "expiresAt": "2027-01-31T23:00:00.000Z",
        "revision": 1,
    });
    assert_eq!(response.expect(CREATED), expected);
    assert_eq!(response.header("location"), Some("/v1/notifications/id-1"));
    assert_eq!(response.header("idempotent-replayed"), None);

    let found = api.get("ada", response.header("location").unwrap()).await;
    assert_eq!(found.expect(OK), expected);
}

#[tokio::test]
async fn duplicate_recipients_get_one_notification_each() {
    let api = Api::new();
    let body = json!({ "userIds": ["ada", "bob", 42, "ada", "42"], "title": "Closed tomorrow" });
    let response = api.post("/v1/notifications", body).await;
    let items = response.expect(CREATED);
    let users: Vec<_> =
        items["items"].as_array().unwrap().iter().map(|item| &item["userId"]).collect();
    assert_eq!(users, ["ada", "bob", "42"]);
    assert_eq!(ids(&items), ["id-1", "id-2", "id-3"]);
    assert_eq!(response.header("location"), None);

    let body = json!({ "userIds": ["ada"], "title": "For a list of one" });
    assert_eq!(ids(&api.create(body).await), ["id-4"]);
}

#[tokio::test]
async fn many_recipients_can_share_an_id() {
    let api = Api::new();
    let body = json!({ "id": "news-7", "userIds": ["ada", "bob"], "title": "News" });
    assert_eq!(ids(&api.create(body.clone()).await), ["news-7", "news-7"]);

    let again = api.post("/v1/notifications", body).await;
    assert_eq!(ids(&again.expect(OK)), ["news-7", "news-7"]);
    let more = json!({ "id": "news-7", "userIds": ["ada", "eve"], "title": "News" });
    assert_eq!(ids(&api.create(more).await), ["news-7", "news-7"]);
    for user in ["ada", "bob", "eve"] {
        let list = api.get(user, "/v1/notifications").await.expect(OK);
        assert_eq!(ids(&list), ["news-7"], "{user}");
    }
}

#[tokio::test]
async fn invalid_recipients_are_rejected_with_their_pointers() {
    // The texts of all recipients together may have 4 MiB: 1,000 times 4,000 bytes, but not 5,000 bytes.
    let api = Api::new();
    let thousand: Vec<_> = (0..1_000).collect();
    let too_many: Vec<_> = (0..=1_000).collect();
    for (recipients, expected) in [
        (json!({}), vec!["#/userId"]),
        (json!({ "userId": null }), vec!["#/userId"]),
        (json!({ "userId": "a b" }), vec!["#/userId"]),
        (json!({ "userId": "ada", "userIds": ["bob"] }), vec!["#/userIds"]),
        (json!({ "userIds": [] }), vec!["#/userIds"]),
        (json!({ "userIds": too_many }), vec!["#/userIds"]),
        (json!({ "userIds": ["ada", "", "bob", "a b"] }), vec!["#/userIds/1", "#/userIds/3"]),
        (json!({ "userIds": ["ada", {}] }), vec!["#/userIds/1"]),
        (json!({ "userIds": "ada" }), vec!["#/userIds"]),
        (json!({ "userIds": thousand, "data": { "x": "x".repeat(5_000) } }), vec!["#/userIds"]),
    ] {
        let mut body = recipients;
        body["title"] = json!("Hi");
        let response = api.post("/v1/notifications", body).await;
        let problem = response.problem(422, "body_invalid");
        assert_eq!(pointers(&problem), expected);
    }
    let data = json!({ "x": "x".repeat(4_000) });
    let items = api.create(json!({ "userIds": thousand, "title": "Hi", "data": data })).await;
    assert_eq!(ids(&items).len(), 1_000);
}

#[tokio::test]
async fn invalid_field_is_reported_without_its_value() {
    let api = Api::new();
    for (field, value) in [
        ("title", json!(" ")),
        ("title", json!(["s3cret"])),
        ("type", json!("s3cret word")),
        ("message", json!("s3cret".repeat(1_000))),
        ("data", json!("s3cret")),
        ("link", json!("javascript:s3cret")),
        ("link", json!("file:///s3cret")),
        ("link", json!("s3cret://orders")),
        ("priority", json!("s3cret")),
        ("id", json!("s3cret word")),
        ("dedupeKey", json!("s3cret word")),
        ("createdAt", json!("s3cret")),
        ("expiresAt", json!("2000-01-01T00:00:00Z")),
    ] {
        let mut body = json!({ "userId": "ada", "title": "Hi" });
        body[field] = value;
        let response = api.post("/v1/notifications", body).await;
        let problem = response.problem(422, "body_invalid");
        assert_eq!(pointers(&problem), [format!("#/{field}")]);
        assert!(!problem.to_string().contains("s3cret"), "{problem}");
    }
    let list = api.get("ada", "/v1/notifications").await.expect(OK);
    assert_eq!(ids(&list), [""; 0]);
}

#[tokio::test]
async fn repeated_id_returns_same_notification_or_conflict() {
    let api = Api::new();
    let body = json!({ "id": "n1", "userId": "ada", "title": "Hi" });
    let first = api.create(body.clone()).await;

    let again = api.post("/v1/notifications", body).await;
    assert_eq!(again.expect(OK), first);
    assert_eq!(again.header("location"), None);

    let other = json!({ "id": "n1", "userId": "ada", "title": "Something else" });
    let rejected = api.post("/v1/notifications", other).await;
    rejected.problem(409, "notification_differs");
    assert_eq!(api.get("ada", "/v1/notifications/n1").await.expect(OK), first);
}

#[tokio::test]
async fn repeated_dedupe_key_returns_existing_notification() {
    let api = Api::new();
    let body = |title: &str| json!({ "userId": "ada", "title": title, "dedupeKey": "order-7" });
    let first = api.create(body("Shipped")).await;
    let again = api.post("/v1/notifications", body("Shipped, really")).await;
    assert_eq!(again.expect(OK), first);

    let other_user = json!({ "userId": "bob", "title": "Shipped", "dedupeKey": "order-7" });
    assert_ne!(api.create(other_user).await["id"], first["id"]);
}

#[tokio::test]
async fn request_repeated_with_idempotency_key_takes_effect_once() {
    let api = Api::new();
    let body = json!({ "userId": "ada", "title": "Hi" });
    let first = api.post_with_key("k1", "/v1/notifications", body.clone()).await;
    let notification = first.expect(CREATED);
    assert_eq!(first.header("idempotent-replayed"), None);

    api.call("ada", "PATCH", "/v1/notifications/id-1/read").await.expect(OK);
    let again = api.post_with_key("k1", "/v1/notifications", body.clone()).await;
    let now = again.expect(CREATED);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!(now["id"], notification["id"]);
    assert_eq!(now["isRead"], true, "the current state");

    let list = api.get("ada", "/v1/notifications").await.expect(OK);
    assert_eq!(ids(&list).len(), 1);
    assert_ne!(
        api.create(body).await["id"],
        notification["id"],
        "a request without the key creates another"
    );
}

#[tokio::test]
async fn idempotency_key_is_bound_to_one_request_of_one_caller() {
    let api = Api::new();
    let body = json!({ "userId": "ada", "title": "Hi" });
    api.post_with_key("k1", "/v1/notifications", body.clone()).await.expect(CREATED);

    let other_body = json!({ "userId": "ada", "title": "Hi!" });
    let rejected = api.post_with_key("k1", "/v1/notifications", other_body).await;
    rejected.problem(422, "idempotency_key_reused");
    let batch = json!({ "notifications": [body] });
    let rejected = api.post_with_key("k1", "/v1/notifications/batch", batch).await;
    rejected.problem(422, "idempotency_key_reused");

    let request = as_service("/v1/notifications").header("idempotency-key", "k1");
    let mut request = request.body(body.to_string().into()).unwrap();
    let token = format!("Bearer other-shop:{}+write", super::NOW + 60_000);
    request.headers_mut().insert("authorization", token.parse().unwrap());
    let response = api.send(request).await;
    response.expect(CREATED);
    assert_eq!(
        response.header("idempotent-replayed"),
        None,
        "keys of different callers are independent"
    );
}

#[tokio::test]
async fn multi_recipient_request_repeated_with_idempotency_key_takes_effect_once() {
    let api = Api::new();
    let body = json!({ "userIds": ["ada", "bob"], "title": "Hi" });
    let first = api.post_with_key("k1", "/v1/notifications", body.clone()).await.expect(CREATED);
    let again = api.post_with_key("k1", "/v1/notifications", body.clone()).await;
    assert_eq!(again.expect(CREATED), first);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));

    api.call("ada", "DELETE", "/v1/notifications/id-1").await.expect(StatusCode::NO_CONTENT);
    let again = api.post_with_key("k1", "/v1/notifications", body).await;
    assert_eq!(ids(&again.expect(CREATED)), ["id-2"], "deleted notifications are left out");
}

#[tokio::test]
async fn repeated_request_is_rejected_as_gone_if_notification_was_deleted() {
    let api = Api::new();
    let body = json!({ "userId": "ada", "title": "Hi" });
    api.post_with_key("k1", "/v1/notifications", body.clone()).await.expect(CREATED);
    api.call("ada", "DELETE", "/v1/notifications/id-1").await.expect(StatusCode::NO_CONTENT);
    let again = api.post_with_key("k1", "/v1/notifications", body).await;
    again.problem(410, "notification_gone");
}

#[tokio::test]
async fn recreating_a_deleted_notification_fails_with_gone_and_a_batch_leaves_it_out() {
    let api = Api::new();
    let one = json!({ "id": "n1", "userId": "ada", "title": "Hi" });
    api.post("/v1/notifications", one.clone()).await.expect(CREATED);
    api.call("ada", "DELETE", "/v1/notifications/n1").await.expect(StatusCode::NO_CONTENT);
    let again = api.post("/v1/notifications", one.clone()).await;
    again.problem(410, "notification_gone");
    let other = json!({ "id": "n2", "userId": "ada", "title": "Hi" });
    let both = json!({ "notifications": [one, other] });
    let batch = api.post("/v1/notifications/batch", both).await;
    assert_eq!(ids(&batch.expect(CREATED)), ["n2"]);
}

#[tokio::test]
async fn repeated_conflict_stays_a_conflict() {
    let api = Api::new();
    api.create(json!({ "id": "n1", "userId": "ada", "title": "Hi" })).await;
    let other = json!({ "id": "n1", "userId": "ada", "title": "Something else" });
    for _ in 0..2 {
        let rejected = api.post_with_key("k1", "/v1/notifications", other.clone()).await;
        rejected.problem(409, "notification_differs");
    }
}

#[tokio::test]
async fn invalid_idempotency_key_is_rejected() {
    let api = Api::new();
    let body = json!({ "userId": "ada", "title": "Hi" });
    for key in ["", &"k".repeat(201)] {
        let rejected = api.post_with_key(key, "/v1/notifications", body.clone()).await;
        rejected.problem(400, "idempotency_key_invalid");
    }
    let request = as_service("/v1/notifications");
    let twice = request.header("idempotency-key", "k1").header("idempotency-key", "k2");
    let rejected = api.send(twice.body(body.to_string().into()).unwrap()).await;
    rejected.problem(400, "idempotency_key_invalid");
    let request = as_service("/v1/notifications");
    let not_ascii = request.header("idempotency-key", &b"k\xfc"[..]);
    let rejected = api.send(not_ascii.body(body.to_string().into()).unwrap()).await;
    rejected.problem(400, "idempotency_key_invalid");
    assert!(api.post_with_key(&"k".repeat(200), "/v1/notifications", body).await.status == CREATED);
}

#[tokio::test]
async fn batch_is_created_in_order() {
    let api = Api::new();
    let batch = json!({ "notifications": [
        { "userId": "ada", "title": "One" },
        { "userId": "bob", "title": "Two", "id": "n2" },
        { "userId": "ada", "title": "Three", "data": { "x": [1.50] } },
    ] });
    let items = api.post("/v1/notifications/batch", batch).await.expect(CREATED);
    assert_eq!(ids(&items), ["id-1", "n2", "id-2"]);
    assert_eq!(items["items"][2]["revision"], 2);
    let list = api.get("ada", "/v1/notifications").await.expect(OK);
    assert_eq!(ids(&list), ["id-2", "id-1"]);
}

#[tokio::test]
async fn batch_with_invalid_items_is_rejected_and_each_is_reported() {
    let api = Api::new();
    let mut notifications: Vec<_> =
        (0..5).map(|n| json!({ "userId": "ada", "title": format!("No. {n}") })).collect();
    notifications[1]["userId"] = json!("a b");
    notifications[3]["title"] = json!("");
    let batch = json!({ "notifications": notifications });
    let problem = api.post("/v1/notifications/batch", batch).await.problem(422, "body_invalid");
    assert_eq!(pointers(&problem), ["#/notifications/1/userId", "#/notifications/3/title"]);
    let list = api.get("ada", "/v1/notifications").await.expect(OK);
    assert_eq!(ids(&list), [""; 0]);
}

#[tokio::test]
async fn batch_of_wrong_form_or_size_is_rejected() {
    let api = Api::new();
    let one = json!({ "userId": "ada", "title": "Hi" });
    for (batch, pointer) in [
        (json!({}), "#"),
        (json!([]), "#"),
        (json!([[one]]), "#"),
        (json!({ "notifications": [] }), "#/notifications"),
        (json!({ "notifications": vec![one.clone(); 501] }), "#/notifications"),
        (json!({ "notifications": {} }), "#/notifications"),
        (json!({ "notifications": [one, { "title": 7 }] }), "#/notifications/1/title"),
    ] {
        let rejected = api.post("/v1/notifications/batch", batch).await;
        assert_eq!(pointers(&rejected.problem(422, "body_invalid")), [pointer]);
    }
    let batch = json!({ "notifications": vec![one; 500] });
    let items = api.post("/v1/notifications/batch", batch).await.expect(CREATED);
    assert_eq!(ids(&items).len(), 500);
}

#[tokio::test]
async fn batch_repeated_with_idempotency_key_takes_effect_once() {
    let api = Api::new();
    let batch = json!({ "notifications": [{ "userId": "ada", "title": "Hi" }] });
    let first = api.post_with_key("k1", "/v1/notifications/batch", batch.clone()).await;
    let again = api.post_with_key("k1", "/v1/notifications/batch", batch).await;
    assert_eq!(again.expect(CREATED), first.expect(CREATED));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));

    // A batch without a key is also safe to repeat if the sender sets the ids. Only the status differs.
    let with_id = json!({ "notifications": [{ "id": "n1", "userId": "ada", "title": "Hi" }] });
    api.post("/v1/notifications/batch", with_id.clone()).await.expect(CREATED);
    let existing = api.post("/v1/notifications/batch", with_id).await.expect(OK);
    assert_eq!(ids(&existing), ["n1"]);
}
