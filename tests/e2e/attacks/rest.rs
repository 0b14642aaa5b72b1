//! Attacks by REST with the attacker's own token: ids of other users, user ids with special characters, and
//! oversized or malformed bodies.

use belfry_tests::http::{Http, send};
use reqwest::Method;
use serde_json::{Value, json};

use super::Target;
use crate::setup::{Setup, key};

on_both_setups!(
    ids_of_other_users_give_no_access,
    user_ids_are_not_interpreted,
    invalid_bodies_are_rejected_with_their_code,
);

fn with_scope(target: &Target, user: &str, scope: &str) -> Http {
    target.deployment.belfry.http().bearer(key().token(user).scope(scope).sign())
}

async fn ids_of_other_users_give_no_access(setup: Setup) {
    let target = Target::shared(setup).await;
    let attacker = target.attacker();
    let secret = format!("/v1/notifications/{}", target.secret);
    let read = format!("{secret}/read");
    let revocations = format!("/v1/users/{}/revocations", target.victim.id());
    let draft = json!({ "userId": target.victim.id(), "title": "From a friend" });
    let many = json!({ "userIds": [target.victim.id()], "title": "From a friend" });
    let batch = json!({ "notifications": [draft] });
    let nothing = || Value::Null;
    // Even a service that may write to every inbox cannot read the inbox of another user.
    for scope in ["", "notifications:write", "notifications:writes tokens", "*", "admin"] {
        let http = with_scope(&target, attacker.id(), scope);
        for (method, path, body, status, code) in [
            (Method::GET, &*secret, nothing(), 404, "not_found"),
            (Method::DELETE, &secret, nothing(), 404, "not_found"),
            (Method::PATCH, &read, nothing(), 404, "not_found"),
            (Method::POST, &read, nothing(), 404, "not_found"),
            (Method::PUT, &read, nothing(), 404, "not_found"),
            (Method::POST, &revocations, json!({}), 403, "scope_missing"),
            (Method::POST, "/v1/revocations", json!({}), 403, "scope_missing"),
        ] {
            let answer = send(http.request(method.clone(), path).json(&body)).await;
            assert_eq!(answer.expect(status)["code"], code, "{scope:?}: {method} {path}");
        }
        if scope != "notifications:write" {
            for (path, body) in [
                ("/v1/notifications", &draft),
                ("/v1/notifications", &many),
                ("/v1/notifications/batch", &batch),
            ] {
                let answer = http.post(path, body).await;
                assert_eq!(answer.expect(403)["code"], "scope_missing", "{scope:?}: {path} {body}");
            }
        }
        // Only the token determines the user.
        for (method, path) in [
            (Method::GET, "/v1/notifications"),
            (Method::GET, "/v1/notifications/unread-count"),
            (Method::PATCH, "/v1/notifications/read-all"),
            (Method::POST, "/v1/notifications/read-all"),
            (Method::PUT, "/v1/notifications/read-all"),
        ] {
            let victim = target.victim.id();
            let query = format!("{path}?userId={victim}&user={victim}&sub={victim}");
            let answer = send(http.request(method.clone(), &query)).await;
            assert_eq!(answer.expect(400)["code"], "query_invalid", "{method} {path}");
            let request = http.request(method.clone(), path).header("x-user-id", victim);
            let request = request.header("x-forwarded-user", victim);
            let answer = send(request.json(&json!({ "userId": victim }))).await;
            let body = answer.expect(200).to_string();
            assert!(!body.contains(&target.secret), "{method} {path}: {body}");
            assert!(!body.contains(r#""count":1"#), "{method} {path}: {body}");
        }
    }
    // A service may choose an id that another user's notification has; it creates a separate notification.
    let service = with_scope(&target, "shop", "notifications:write");
    let same_id = json!({ "userId": attacker.id(), "id": target.secret, "title": "Mine" });
    let answer = service.post("/v1/notifications", &same_id).await;
    assert!([201, 409].contains(&answer.status), "{answer:#?}");
    target.assert_unharmed().await;
}

async fn user_ids_are_not_interpreted(setup: Setup) {
    let target = Target::shared(setup).await;
    let victim = target.victim.id();
    let service = target.deployment.service();
    // User ids that are special in a room name, a routing key, a pattern, a path or SQL.
    for name in [
        format!("user:{victim}"),
        format!("{victim}*"),
        format!("{victim},"),
        format!("{victim}/"),
        format!("{victim}%"),
        format!("{victim}'--"),
        format!("../{victim}"),
        victim.to_uppercase(),
        "*".to_owned(),
        "#".to_owned(),
        "user:".to_owned(),
        "user:*".to_owned(),
        "%".to_owned(),
        "_".repeat(victim.len()),
        "'OR'1'='1".to_owned(),
        "__proto__".to_owned(),
    ] {
        let draft = json!({ "userId": name, "title": "Not for the victim" });
        let created = service.post("/v1/notifications", &draft).await.expect(201);
        assert_eq!(created["userId"], *name, "the user id is unchanged");
        let page = target.victim.called(&name).http().get("/v1/notifications").await.expect(200);
        let body = page.to_string();
        assert!(body.contains("Not for the victim") && !body.contains(&target.secret), "{body}");
    }
    // Invalid user ids.
    for name in [
        format!("{victim} "),
        format!(" {victim}"),
        format!("{victim}\n"),
        format!("{victim}\r\nX: y"),
        format!("{victim}\0"),
        format!("{victim}\u{200b}"),
        format!("\u{202e}{victim}"),
        String::new(),
        "u".repeat(256),
        "..".to_owned(),
        "u".repeat(10_000),
    ] {
        let draft = json!({ "userId": name, "title": "For nobody" });
        let problem = service.post("/v1/notifications", &draft).await.expect(422);
        assert_eq!(problem["errors"][0]["pointer"], "#/userId", "{name:?}");
        let draft = json!({ "userIds": ["somebody", name], "title": "For nobody" });
        let problem = service.post("/v1/notifications", &draft).await.expect(422);
        assert_eq!(problem["code"], "body_invalid", "{name:?}");
    }
    target.assert_unharmed().await;
}

async fn invalid_bodies_are_rejected_with_their_code(setup: Setup) {
    let target = Target::shared(setup).await;
    let receiver = target.deployment.user("receiver");
    let user = receiver.id();
    let draft = |field: &str, value: &str| {
        format!(r#"{{"userId":"{user}","title":"Hi","{field}":{value}}}"#)
    };
    let nested_lists = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let nested_objects =
        |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    let text = |length: usize| format!(r#""{}""#, "x".repeat(length));
    let (invalid, malformed) = ((422, "body_invalid"), (400, "json_malformed"));
    let ignored = (201, "");
    let mut failures = Vec::new();
    for (attempt, body, expected) in [
        ("data nested 65 deep", draft("data", &nested_objects(65)), invalid),
        ("data nested 100,000 deep", draft("data", &nested_objects(100_000)), invalid),
        ("an unknown field nested 100,000 deep", draft("x", &nested_lists(100_000)), ignored),
        ("only brackets", "[".repeat(500_000), invalid),
        ("only braces", r#"{"a":"#.repeat(100_000), malformed),
        ("data of 17 kB", draft("data", &format!(r#"{{"x":{}}}"#, text(17_000))), invalid),
        ("a title of 500 kB", draft("title", &text(500_000)), invalid),
        ("a message of 500 kB", draft("message", &text(500_000)), invalid),
        ("a link of 500 kB", draft("link", &text(500_000)), invalid),
        ("an id of 10 kB", draft("id", &text(10_000)), invalid),
        ("a number out of range", draft("id", "1e999999"), malformed),
        ("a number of 100,000 digits", draft("id", &"9".repeat(100_000)), malformed),
        ("the recipient twice", draft("userId", &text(3)), invalid),
        ("a zero byte in the message", draft("message", r#""a\u0000b""#), invalid),
        ("an unpaired surrogate", draft("message", r#""\ud800""#), malformed),
        ("a time out of range", draft("expiresAt", r#""99999-01-01T00:00:00Z""#), invalid),
        ("a javascript: link", draft("link", r#""javascript:alert(1)""#), invalid),
        (
            "a javascript: link after a control character",
            draft("link", r#""\u0001javascript:alert(1)""#),
            invalid,
        ),
        ("a file: link", draft("link", r#""file:///etc/passwd""#), invalid),
        ("a data: link", draft("link", r#""data:text/html,<script>""#), invalid),
        (
            "200,001 recipients",
            format!(r#"{{"title":"Hi","userIds":["a"{}]}}"#, r#","a""#.repeat(200_000)),
            invalid,
        ),
        (
            "100,001 notifications",
            format!(r#"{{"notifications":[{{}}{}]}}"#, ",{}".repeat(100_000)),
            invalid,
        ),
    ] {
        let path = if attempt.ends_with("notifications") { "/batch" } else { "" };
        let path = format!("/v1/notifications{path}");
        let request = target.deployment.service().request(Method::POST, &path);
        let answer = send(request.header("content-type", "application/json").body(body)).await;
        let code = answer.json()["code"].clone();
        if (answer.status, code.as_str().unwrap_or_default()) != expected {
            failures.push(format!("{attempt}: {} {code}", answer.status));
        }
        assert!(answer.text.len() < 10_000, "{attempt}: the answer repeats the body");
    }
    assert_eq!(failures, Vec::<String>::new());
    target.assert_unharmed().await;
}
