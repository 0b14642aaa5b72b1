use http::StatusCode;
use serde_json::{Value, json};

use super::{Api, NOW, NOW_TEXT};

const OK: StatusCode = StatusCode::OK;
const NO_CONTENT: StatusCode = StatusCode::NO_CONTENT;

/// An API with `count` notifications for Ada: `n1` is the oldest, and every third has the type `third`.
async fn api_with(count: usize) -> Api {
    let api = Api::new();
    for n in 1..=count {
        let kind = if n % 3 == 0 { "third" } else { "other" };
        let body = json!({ "id": format!("n{n}"), "userId": "ada", "title": "Hi", "type": kind });
        api.create(body).await;
    }
    api
}

fn ids(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().expect("items");
    items.iter().map(|item| item["id"].as_str().expect("an id").to_owned()).collect()
}

/// The ids on all pages, page by page.
async fn pages(api: &Api, query: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/v1/notifications?{query}{cursor}");
        let page = api.get("ada", &path).await.expect(OK);
        pages.push(ids(&page));
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return pages,
        }
    }
}

#[tokio::test]
async fn pages_are_newest_first_without_gaps_or_duplicates() {
    let api = api_with(45).await;
    let pages = pages(&api, "").await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [20, 20, 5]);
    let expected: Vec<_> = (1..=45).rev().map(|n| format!("n{n}")).collect();
    assert_eq!(pages.concat(), expected);
}

#[tokio::test]
async fn cursor_stays_valid_when_notifications_change() {
    let api = api_with(10).await;
    let first = api.get("ada", "/v1/notifications?limit=4").await.expect(OK);
    assert_eq!(ids(&first), ["n10", "n9", "n8", "n7"]);

    api.create(json!({ "id": "n11", "userId": "ada", "title": "Hi" })).await;
    api.call("ada", "DELETE", "/v1/notifications/n7").await.expect(NO_CONTENT);
    api.call("ada", "PATCH", "/v1/notifications/n6/read").await.expect(OK);

    let cursor = first["nextCursor"].as_str().unwrap();
    let path = format!("/v1/notifications?limit=4&cursor={cursor}");
    let second = api.get("ada", &path).await.expect(OK);
    assert_eq!(ids(&second), ["n6", "n5", "n4", "n3"]);
}

#[tokio::test]
async fn page_has_count_revision_and_epoch_of_the_inbox() {
    let api = api_with(3).await;
    api.call("ada", "PATCH", "/v1/notifications/n2/read").await.expect(OK);
    let page = api.get("ada", "/v1/notifications?limit=1").await.expect(OK);
    let mut fields: Vec<_> = page.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["epoch", "items", "nextCursor", "revision", "unreadCount"]);
    assert_eq!(page["unreadCount"], 2);
    assert_eq!(page["revision"], 4);
    assert_eq!(page["epoch"], "e1");

    let empty = api.get("bob", "/v1/notifications").await.expect(OK);
    let expected = json!(
        { "items": [], "nextCursor": null, "unreadCount": 0, "revision": 0, "epoch": "e1" }
    );
    assert_eq!(empty, expected);
}

#[tokio::test]
async fn list_can_be_filtered_by_type_and_read_state() {
    let api = api_with(9).await;
    for read in ["n3", "n4"] {
        api.call("ada", "PATCH", &format!("/v1/notifications/{read}/read")).await.expect(OK);
    }
    assert_eq!(pages(&api, "type=third").await.concat(), ["n9", "n6", "n3"]);
    assert_eq!(pages(&api, "unread=false").await.concat(), ["n4", "n3"]);
    assert_eq!(pages(&api, "unread=true&limit=3").await.concat().len(), 7);
    assert_eq!(pages(&api, "unread=true&type=third&limit=1").await, [["n9"], ["n6"]]);
    assert_eq!(pages(&api, "type=no.such").await.concat(), [""; 0]);
}

#[tokio::test]
async fn invalid_query_is_rejected() {
    let api = api_with(1).await;
    for query in [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=ten",
        "limit=",
        "limit=1&limit=2",
        "unread=yes",
        "unread=",
        "type=",
        "type=a%20b",
        "whatever=1",
        "userId=bob",
        "Limit=1",
        "unreadOnly=1",
        "unreadOnly=true&unread=true",
    ] {
        let rejected = api.get("ada", &format!("/v1/notifications?{query}")).await;
        rejected.problem(400, "query_invalid");
    }
    for cursor in ["", "17", "AgAAAAAAAAAB", "AQAAAAAAAAAR=", "s3cret"] {
        let rejected = api.get("ada", &format!("/v1/notifications?cursor={cursor}")).await;
        let problem = rejected.problem(400, "cursor_invalid");
        assert!(!problem.to_string().contains("s3cret"));
    }
    for query in ["limit=1", "limit=100", "", "unreadOnly=false", "type=%C3%BC"] {
        api.get("ada", &format!("/v1/notifications?{query}")).await.expect(OK);
    }
}

#[tokio::test]
async fn numbered_page_is_rejected_and_the_error_names_the_cursor() {
    let api = api_with(1).await;
    for query in ["page=1", "page=2&limit=5", "offset=0", "skip=20&limit=20"] {
        let rejected = api.get("ada", &format!("/v1/notifications?{query}")).await;
        let detail = rejected.problem(400, "query_invalid")["detail"].to_string();
        assert!(detail.contains("cursor, the nextCursor"), "{query}: {detail}");
    }
}

#[tokio::test]
async fn unread_only_lists_unread_notifications_if_true_and_all_if_false() {
    let api = api_with(4).await;
    api.call("ada", "PATCH", "/v1/notifications/n1/read").await.expect(OK);
    for (query, expected) in [("unreadOnly=true", 3), ("unreadOnly=false", 4), ("unread=true", 3)] {
        let page = api.get("ada", &format!("/v1/notifications?{query}")).await.expect(OK);
        assert_eq!(page["items"].as_array().unwrap().len(), expected, "{query}");
    }
}

#[tokio::test]
async fn operation_without_parameters_rejects_a_query() {
    let api = api_with(1).await;
    for path in ["/v1/notifications/unread-count?since=1", "/v1/notifications/n1?expand=data"] {
        api.get("ada", path).await.problem(400, "query_invalid");
    }
    api.get("ada", "/v1/notifications/unread-count?").await.expect(OK);
}

#[tokio::test]
async fn unread_count_is_returned_with_its_revision() {
    let api = api_with(3).await;
    let count = api.get("ada", "/v1/notifications/unread-count").await.expect(OK);
    assert_eq!(count, json!({ "count": 3, "revision": 3 }));
    let count = api.get("bob", "/v1/notifications/unread-count").await.expect(OK);
    assert_eq!(count, json!({ "count": 0, "revision": 0 }));
}

#[tokio::test]
async fn patch_post_or_put_marks_a_notification_as_read_once() {
    let api = api_with(3).await;
    for (id, method) in [("n1", "PATCH"), ("n2", "POST"), ("n3", "PUT")] {
        let path = format!("/v1/notifications/{id}/read");
        let read = api.call("ada", method, &path).await.expect(OK);
        assert_eq!((&read["id"], &read["isRead"]), (&json!(id), &json!(true)), "{method}");
        assert_eq!(read["readAt"], NOW_TEXT);
    }
    api.clock.set(NOW + 1_000);
    let again = api.call("ada", "PATCH", "/v1/notifications/n1/read").await.expect(OK);
    assert_eq!(again["readAt"], NOW_TEXT, "the time of the first call");
    let count = api.get("ada", "/v1/notifications/unread-count").await.expect(OK);
    assert_eq!(count, json!({ "count": 0, "revision": 6 }));
}

#[tokio::test]
async fn patch_post_or_put_marks_all_as_read() {
    for method in ["PATCH", "POST", "PUT"] {
        let api = api_with(3).await;
        for _ in 0..2 {
            let count = api.call("ada", method, "/v1/notifications/read-all").await.expect(OK);
            assert_eq!(count, json!({ "count": 0, "revision": 4 }), "{method}");
        }
    }
}

#[tokio::test]
async fn deleted_notification_is_not_found() {
    let api = api_with(2).await;
    let gone = api.call("ada", "DELETE", "/v1/notifications/n1").await;
    assert_eq!(gone.expect(NO_CONTENT), Value::Null);
    for (method, path) in [
        ("GET", "/v1/notifications/n1"),
        ("DELETE", "/v1/notifications/n1"),
        ("PATCH", "/v1/notifications/n1/read"),
    ] {
        api.call("ada", method, path).await.problem(404, "not_found");
    }
    let count = api.get("ada", "/v1/notifications/unread-count").await.expect(OK);
    assert_eq!(count, json!({ "count": 1, "revision": 3 }));
}

#[tokio::test]
async fn notification_of_another_user_is_not_found() {
    let api = api_with(1).await;
    for (method, path) in [
        ("GET", "/v1/notifications/n1"),
        ("DELETE", "/v1/notifications/n1"),
        ("PATCH", "/v1/notifications/n1/read"),
        ("POST", "/v1/notifications/n1/read"),
        ("PUT", "/v1/notifications/n1/read"),
    ] {
        let other = api.call("bob", method, path).await.problem(404, "not_found");
        let missing = api.call("bob", method, &path.replace("n1", "n7")).await.json();
        assert_eq!(other, missing, "indistinguishable from a notification that never existed");
    }
    api.call("bob", "PATCH", "/v1/notifications/read-all").await.expect(OK);
    let mine = api.get("ada", "/v1/notifications/n1").await.expect(OK);
    assert_eq!((&mine["isRead"], &mine["revision"]), (&json!(false), &json!(1)));
    // A service may create notifications for all users but reads only its own inbox.
    let request = super::as_service("/v1/notifications/n1/read").body(String::new().into());
    api.send(request.unwrap()).await.problem(404, "not_found");
}

#[tokio::test]
async fn id_in_path_is_decoded_and_validated() {
    let api = Api::new();
    api.create(json!({ "id": "a/ü", "userId": "ada", "title": "Hi" })).await;
    let found = api.get("ada", "/v1/notifications/a%2F%C3%BC").await.expect(OK);
    assert_eq!(found["id"], "a/ü");
    let long = "x".repeat(129);
    for raw in ["a%20b", "%00", "%FF", "%E2%80%AE", &long] {
        for (method, path) in [("GET", ""), ("DELETE", ""), ("PATCH", "/read")] {
            let path = format!("/v1/notifications/{raw}{path}");
            api.call("ada", method, &path).await.problem(400, "id_invalid");
        }
    }
}
