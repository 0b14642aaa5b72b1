//! Ids that are also names of routes, or that must be encoded in a URL.

use http::StatusCode;
use serde_json::json;

use super::Api;
use crate::inbound::rest::RestSettings;

/// Ids that a producer may use, and the last segment of their `Location`.
const IDS: [(&str, &str); 24] = [
    ("batch", "batch"),
    ("read-all", "read-all"),
    ("unread-count", "unread%2Dcount"),
    ("read", "read"),
    ("notifications", "notifications"),
    ("health", "health"),
    ("...", "..."),
    (".batch", ".batch"),
    ("~a_b-c", "~a_b-c"),
    ("a/b", "a%2Fb"),
    ("../batch", "..%2Fbatch"),
    ("/", "%2F"),
    ("a\\b", "a%5Cb"),
    ("%2F", "%252F"),
    ("%", "%25"),
    ("?", "%3F"),
    ("a?b#c", "a%3Fb%23c"),
    ("a+b&c=d;e", "a%2Bb%26c%3Dd%3Be"),
    ("1;v=2", "1%3Bv%3D2"),
    ("\"<>", "%22%3C%3E"),
    ("{id}", "%7Bid%7D"),
    ("*", "%2A"),
    ("ü", "%C3%BC"),
    ("日本", "%E6%97%A5%E6%9C%AC"),
];

#[tokio::test]
async fn every_notification_is_reachable_at_its_location() {
    for base_path in ["", "/notify"] {
        let base = base_path.parse().unwrap();
        let api = Api::with_settings(RestSettings { base_path: base, ..RestSettings::default() });
        let collection = format!("{base_path}/v1/notifications");
        for (id, segment) in IDS {
            let body = json!({ "id": id, "userId": "ada", "title": "Hi" });
            let created = api.post(&collection, body).await;
            created.clone().expect(StatusCode::CREATED);
            let location = created.header("location").expect("a location").to_owned();
            assert_eq!(location, format!("{collection}/{segment}"));

            let got = api.get("ada", &location).await.expect(StatusCode::OK);
            assert_eq!((&got["id"], &got["isRead"]), (&json!(id), &json!(false)));
            for method in ["PATCH", "POST", "PUT"] {
                let path = format!("{location}/read");
                let read = api.call("ada", method, &path).await.expect(StatusCode::OK);
                assert_eq!((&read["id"], &read["isRead"]), (&json!(id), &json!(true)));
            }
            api.call("ada", "DELETE", &location).await.expect(StatusCode::NO_CONTENT);
            api.get("ada", &location).await.problem(404, "not_found");
        }
    }
}

#[tokio::test]
async fn routes_work_while_notifications_have_their_names_as_ids() {
    let api = Api::new();
    for (id, _) in IDS {
        api.create(json!({ "id": id, "userId": "ada", "title": "Hi" })).await;
    }
    let count = api.get("ada", "/v1/notifications/unread-count").await.expect(StatusCode::OK);
    assert_eq!(count["count"], IDS.len());
    let batch = json!({ "notifications": [{ "userId": "bob", "title": "Hi" }] });
    api.post("/v1/notifications/batch", batch).await.expect(StatusCode::CREATED);
    let all = api.call("ada", "PATCH", "/v1/notifications/read-all").await.expect(StatusCode::OK);
    assert_eq!(all["count"], 0);
    // DELETE with the plain hyphen also deletes the notification, because the route has only GET.
    let path = "/v1/notifications/unread-count";
    api.call("ada", "DELETE", path).await.expect(StatusCode::NO_CONTENT);
    api.call("ada", "PATCH", path).await.problem(405, "method_not_allowed");
}

#[tokio::test]
async fn id_that_no_url_can_contain_is_rejected_with_its_field() {
    let api = Api::new();
    // Clients resolve these segments before they send a path.
    for id in [".", ".."] {
        for (body, pointer) in [
            (json!({ "id": id, "userId": "ada", "title": "Hi" }), "#/id"),
            (json!({ "userId": id, "title": "Hi" }), "#/userId"),
            (json!({ "userIds": ["ada", id], "title": "Hi" }), "#/userIds/1"),
        ] {
            let problem = api.post("/v1/notifications", body).await.problem(422, "body_invalid");
            assert_eq!(problem["errors"][0]["pointer"], pointer);
        }
    }
}

#[tokio::test]
async fn tokens_of_every_user_can_be_revoked() {
    let api = Api::new();
    let longest = "ü".repeat(255);
    let encoded = "%C3%BC".repeat(255);
    let others = [("auth0|a", "auth0%7Ca"), ("revocations", "revocations"), (&*longest, &*encoded)];
    for (user, segment) in IDS.into_iter().chain(others) {
        let request = super::as_operator(&format!("/v1/users/{segment}/revocations"));
        let revoked = api.send(request.body("{}".into()).unwrap()).await.expect(StatusCode::OK);
        assert_eq!(revoked["userId"], user);
    }
}
