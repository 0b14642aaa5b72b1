use http::StatusCode;
use serde_json::{Value, json};

use super::{Api, NOW_TEXT, as_service};

const CREATED: StatusCode = StatusCode::CREATED;
const OK: StatusCode = StatusCode::OK;

fn ids(items: &Value) -> Vec<&str> {
    let items = items["items"].as_array().expect("items");
    items.iter().map(|one| one["id"].as_str().expect("an id")).collect()
}

fn pointers(problem: &Value) -> Vec<&str> {
    let errors = problem["errors"].as_array().expect("errors");
    errors.iter().map(|error| error["pointer"].as_str().expect("a pointer")).collect()
}

#[tokio::test]
async fn a_notification_for_one_user_is_answered_whole_and_with_its_place() {
    let api = Api::new();
    let asked = json!({
        "userId": "ada", "type": "order.shipped", "title": "Your order is on its way",
        "message": "It left today.", "data": { "orderId": 7 }, "link": "/orders/7",
        "priority": "high", "expiresAt": "2027-02-01T00:00:00+01:00", "unknown": true,
    });
    let answer = api.post("/v1/notifications", asked).await;
    let expected = json!({
        "id": "id-1", "userId": "ada", "type": "order.shipped",
        "title": "Your order is on its way", "message": "It left today.",
        "data": { "orderId": 7 }, "link": "/orders/7", "priority": "high", "isRead": false,
        "readAt": null, "createdAt": NOW_TEXT, "expiresAt": "2027-01-31T23:00:00.000Z",
        "revision": 1,
    });
    assert_eq!(answer.expect(CREATED), expected);
    assert_eq!(answer.header("location"), Some("/v1/notifications/id-1"));
    assert_eq!(answer.header("idempotent-replayed"), None);

    let found = api.get("ada", answer.header("location").unwrap()).await;
    assert_eq!(found.expect(OK), expected);
}

#[tokio::test]
async fn the_place_of_any_id_can_be_followed() {
    let api = Api::new();
    for id in ["a/b", "a%b", "a?b#c", "ü", "a+b", "..", "1;v=2", "\"<>"] {
        let asked = json!({ "id": id, "userId": "ada", "title": "Hi" });
        let answer = api.post("/v1/notifications", asked).await;
        answer.expect(CREATED);
        let found = api.get("ada", answer.header("location").unwrap()).await;
        assert_eq!(found.expect(OK)["id"], id, "{answer:?}");
    }
}

#[tokio::test]
async fn many_users_get_one_each_however_often_they_are_named() {
    let api = Api::new();
    let asked = json!({ "userIds": ["ada", "bob", 42, "ada", "42"], "title": "Closed tomorrow" });
    let answer = api.post("/v1/notifications", asked).await;
    let items = answer.expect(CREATED);
    let users: Vec<_> =
        items["items"].as_array().unwrap().iter().map(|one| &one["userId"]).collect();
    assert_eq!(users, ["ada", "bob", "42"]);
    assert_eq!(ids(&items), ["id-1", "id-2", "id-3"]);
    assert_eq!(answer.header("location"), None);

    let asked = json!({ "userIds": ["ada"], "title": "For a list of one" });
    assert_eq!(ids(&api.create(asked).await), ["id-4"]);
}

#[tokio::test]
async fn many_users_can_have_the_same_id() {
    let api = Api::new();
    let asked = json!({ "id": "news-7", "userIds": ["ada", "bob"], "title": "News" });
    assert_eq!(ids(&api.create(asked.clone()).await), ["news-7", "news-7"]);

    let again = api.post("/v1/notifications", asked).await;
    assert_eq!(ids(&again.expect(OK)), ["news-7", "news-7"]);
    let more = json!({ "id": "news-7", "userIds": ["ada", "eve"], "title": "News" });
    assert_eq!(ids(&api.create(more).await), ["news-7", "news-7"]);
    for user in ["ada", "bob", "eve"] {
        let list = api.get(user, "/v1/notifications").await.expect(OK);
        assert_eq!(ids(&list), ["news-7"], "{user}");
    }
}

#[tokio::test]
async fn recipients_are_one_or_many_and_valid() {
    let api = Api::new();
    let thousand: Vec<_> = (0..1_000).collect();
    let more: Vec<_> = (0..=1_000).collect();
    for (recipients, expected) in [
        (json!({}), vec!["#/userId"]),
        (json!({ "userId": null }), vec!["#/userId"]),
        (json!({ "userId": "a b" }), vec!["#/userId"]),
        (json!({ "userId": "ada", "userIds": ["bob"] }), vec!["#/userIds"]),
        (json!({ "userIds": [] }), vec!["#/userIds"]),
        (json!({ "userIds": more }), vec!["#/userIds"]),
        (json!({ "userIds": ["ada", "", "bob", "a b"] }), vec!["#/userIds/1", "#/userIds/3"]),
        (json!({ "userIds": ["ada", {}] }), vec!["#/userIds/1"]),
        (json!({ "userIds": "ada" }), vec!["#/userIds"]),
    ] {
        let mut asked = recipients;
        asked["title"] = json!("Hi");
        let answer = api.post("/v1/notifications", asked).await;
        let problem = answer.problem(422, "body_invalid");
        assert_eq!(pointers(&problem), expected);
    }
    let items = api.create(json!({ "userIds": thousand, "title": "Hi" })).await;
    assert_eq!(ids(&items).len(), 1_000);
}

#[tokio::test]
async fn a_wrong_field_is_named_and_not_repeated() {
    let api = Api::new();
    for (field, value) in [
        ("title", json!(" ")),
        ("title", json!(["s3cret"])),
        ("type", json!("s3cret word")),
        ("message", json!("s3cret".repeat(1_000))),
        ("data", json!("s3cret")),
        ("link", json!("javascript:s3cret")),
        ("priority", json!("s3cret")),
        ("id", json!("s3cret word")),
        ("dedupeKey", json!("s3cret word")),
        ("createdAt", json!("s3cret")),
        ("expiresAt", json!("2000-01-01T00:00:00Z")),
    ] {
        let mut asked = json!({ "userId": "ada", "title": "Hi" });
        asked[field] = value;
        let answer = api.post("/v1/notifications", asked).await;
        let problem = answer.problem(422, "body_invalid");
        assert_eq!(pointers(&problem), [format!("#/{field}")]);
        assert!(!problem.to_string().contains("s3cret"), "{problem}");
    }
    let list = api.get("ada", "/v1/notifications").await.expect(OK);
    assert_eq!(ids(&list), [""; 0]);
}

#[tokio::test]
async fn the_same_id_again_is_the_same_notification_or_a_conflict() {
    let api = Api::new();
    let asked = json!({ "id": "n1", "userId": "ada", "title": "Hi" });
    let first = api.create(asked.clone()).await;

    let again = api.post("/v1/notifications", asked).await;
    assert_eq!(again.expect(OK), first);
    assert_eq!(again.header("location"), None);

    let other = json!({ "id": "n1", "userId": "ada", "title": "Something else" });
    let refused = api.post("/v1/notifications", other).await;
    refused.problem(409, "notification_differs");
    assert_eq!(api.get("ada", "/v1/notifications/n1").await.expect(OK), first);
}

#[tokio::test]
async fn the_same_dedupe_key_again_is_the_one_that_is_there() {
    let api = Api::new();
    let asked = |title: &str| json!({ "userId": "ada", "title": title, "dedupeKey": "order-7" });
    let first = api.create(asked("Shipped")).await;
    let again = api.post("/v1/notifications", asked("Shipped, really")).await;
    assert_eq!(again.expect(OK), first);

    let other_user = json!({ "userId": "bob", "title": "Shipped", "dedupeKey": "order-7" });
    assert_ne!(api.create(other_user).await["id"], first["id"]);
}

#[tokio::test]
async fn a_request_sent_again_takes_effect_once() {
    let api = Api::new();
    let asked = json!({ "userId": "ada", "title": "Hi" });
    let first = api.post_once("k1", "/v1/notifications", asked.clone()).await;
    let notification = first.expect(CREATED);
    assert_eq!(first.header("idempotent-replayed"), None);

    api.ask("ada", "PATCH", "/v1/notifications/id-1/read").await.expect(OK);
    let again = api.post_once("k1", "/v1/notifications", asked.clone()).await;
    let now = again.expect(CREATED);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!(now["id"], notification["id"]);
    assert_eq!(now["isRead"], true, "as it is now");

    let list = api.get("ada", "/v1/notifications").await.expect(OK);
    assert_eq!(ids(&list).len(), 1);
    assert_ne!(api.create(asked).await["id"], notification["id"], "without the key it is new");
}

#[tokio::test]
async fn a_key_names_one_request_of_one_caller() {
    let api = Api::new();
    let asked = json!({ "userId": "ada", "title": "Hi" });
    api.post_once("k1", "/v1/notifications", asked.clone()).await.expect(CREATED);

    let other_body = json!({ "userId": "ada", "title": "Hi!" });
    let refused = api.post_once("k1", "/v1/notifications", other_body).await;
    refused.problem(422, "idempotency_key_reused");
    let batch = json!({ "notifications": [asked] });
    let refused = api.post_once("k1", "/v1/notifications/batch", batch).await;
    refused.problem(422, "idempotency_key_reused");

    let request = as_service("/v1/notifications").header("idempotency-key", "k1");
    let mut request = request.body(asked.to_string().into()).unwrap();
    let token = format!("Bearer other-shop:{}+write", super::NOW + 60_000);
    request.headers_mut().insert("authorization", token.parse().unwrap());
    let answer = api.send(request).await;
    answer.expect(CREATED);
    assert_eq!(answer.header("idempotent-replayed"), None, "another caller's key is another one");
}

#[tokio::test]
async fn a_request_for_many_sent_again_takes_effect_once() {
    let api = Api::new();
    let asked = json!({ "userIds": ["ada", "bob"], "title": "Hi" });
    let first = api.post_once("k1", "/v1/notifications", asked.clone()).await.expect(CREATED);
    let again = api.post_once("k1", "/v1/notifications", asked.clone()).await;
    assert_eq!(again.expect(CREATED), first);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));

    api.ask("ada", "DELETE", "/v1/notifications/id-1").await.expect(StatusCode::NO_CONTENT);
    let again = api.post_once("k1", "/v1/notifications", asked).await;
    assert_eq!(ids(&again.expect(CREATED)), ["id-2"], "what is gone is not told");
}

#[tokio::test]
async fn a_request_whose_notification_was_deleted_says_so() {
    let api = Api::new();
    let asked = json!({ "userId": "ada", "title": "Hi" });
    api.post_once("k1", "/v1/notifications", asked.clone()).await.expect(CREATED);
    api.ask("ada", "DELETE", "/v1/notifications/id-1").await.expect(StatusCode::NO_CONTENT);
    let again = api.post_once("k1", "/v1/notifications", asked).await;
    again.problem(410, "notification_gone");
}

#[tokio::test]
async fn a_conflict_stays_one_when_it_is_sent_again() {
    let api = Api::new();
    api.create(json!({ "id": "n1", "userId": "ada", "title": "Hi" })).await;
    let other = json!({ "id": "n1", "userId": "ada", "title": "Something else" });
    for _ in 0..2 {
        let refused = api.post_once("k1", "/v1/notifications", other.clone()).await;
        refused.problem(409, "notification_differs");
    }
}

#[tokio::test]
async fn a_key_is_one_and_printable() {
    let api = Api::new();
    let asked = json!({ "userId": "ada", "title": "Hi" });
    for key in ["", &"k".repeat(201)] {
        let refused = api.post_once(key, "/v1/notifications", asked.clone()).await;
        refused.problem(400, "idempotency_key_invalid");
    }
    let request = as_service("/v1/notifications");
    let twice = request.header("idempotency-key", "k1").header("idempotency-key", "k2");
    let refused = api.send(twice.body(asked.to_string().into()).unwrap()).await;
    refused.problem(400, "idempotency_key_invalid");
    let request = as_service("/v1/notifications");
    let not_ascii = request.header("idempotency-key", &b"k\xfc"[..]);
    let refused = api.send(not_ascii.body(asked.to_string().into()).unwrap()).await;
    refused.problem(400, "idempotency_key_invalid");
    assert!(api.post_once(&"k".repeat(200), "/v1/notifications", asked).await.status == CREATED);
}

#[tokio::test]
async fn a_batch_is_taken_whole_and_in_order() {
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
async fn a_batch_with_a_bad_one_is_refused_whole_and_every_bad_one_is_named() {
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
async fn a_batch_has_its_form_and_its_bounds() {
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
        let refused = api.post("/v1/notifications/batch", batch).await;
        assert_eq!(pointers(&refused.problem(422, "body_invalid")), [pointer]);
    }
    let batch = json!({ "notifications": vec![one; 500] });
    let items = api.post("/v1/notifications/batch", batch).await.expect(CREATED);
    assert_eq!(ids(&items).len(), 500);
}

#[tokio::test]
async fn a_batch_sent_again_takes_effect_once() {
    let api = Api::new();
    let batch = json!({ "notifications": [{ "userId": "ada", "title": "Hi" }] });
    let first = api.post_once("k1", "/v1/notifications/batch", batch.clone()).await;
    let again = api.post_once("k1", "/v1/notifications/batch", batch).await;
    assert_eq!(again.expect(CREATED), first.expect(CREATED));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));

    let named = json!({ "notifications": [{ "id": "n1", "userId": "ada", "title": "Hi" }] });
    api.post("/v1/notifications/batch", named.clone()).await.expect(CREATED);
    let there = api.post("/v1/notifications/batch", named).await.expect(OK);
    assert_eq!(ids(&there), ["n1"]);
}
