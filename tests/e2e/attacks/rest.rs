//! What somebody with a token of their own tries at REST: other people's ids, ids that mean more than
//! they say, and bodies that are too much.

use belfry_tests::http::{Http, send};
use reqwest::Method;
use serde_json::{Value, json};

use super::Scene;
use crate::setup::{Setup, key};

on_both_setups!(
    an_id_of_somebody_else_opens_nothing,
    a_name_of_a_user_is_nothing_but_a_name,
    bodies_that_are_too_much,
);

fn with_scope(scene: &Scene, user: &str, scope: &str) -> Http {
    scene.place.belfry.http().bearer(key().token(user).scope(scope).sign())
}

async fn an_id_of_somebody_else_opens_nothing(setup: Setup) {
    let scene = Scene::shared(setup).await;
    let attacker = scene.attacker();
    let secret = format!("/v1/notifications/{}", scene.secret);
    let read = format!("{secret}/read");
    let revocations = format!("/v1/users/{}/revocations", scene.victim.id());
    let draft = json!({ "userId": scene.victim.id(), "title": "From a friend" });
    let many = json!({ "userIds": [scene.victim.id()], "title": "From a friend" });
    let batch = json!({ "notifications": [draft] });
    let nothing = || Value::Null;
    // A service may write to everybody, and read nobody's.
    for scope in ["", "notifications:write", "notifications:writes tokens", "*", "admin"] {
        let http = with_scope(&scene, attacker.id(), scope);
        for (method, path, body, status, code) in [
            (Method::GET, &*secret, nothing(), 404, "not_found"),
            (Method::DELETE, &secret, nothing(), 404, "not_found"),
            (Method::PATCH, &read, nothing(), 404, "not_found"),
            (Method::POST, &read, nothing(), 404, "not_found"),
            (Method::PUT, &read, nothing(), 404, "not_found"),
            (Method::POST, &revocations, json!({}), 403, "scope_missing"),
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
        // Whom it is about is said by the token alone.
        for (method, path) in [
            (Method::GET, "/v1/notifications"),
            (Method::GET, "/v1/notifications/unread-count"),
            (Method::PATCH, "/v1/notifications/read-all"),
            (Method::POST, "/v1/notifications/read-all"),
            (Method::PUT, "/v1/notifications/read-all"),
        ] {
            let victim = scene.victim.id();
            let path = format!("{path}?userId={victim}&user={victim}&sub={victim}");
            let request = http.request(method.clone(), &path).header("x-user-id", victim);
            let request = request.header("x-forwarded-user", victim);
            let answer = send(request.json(&json!({ "userId": victim }))).await;
            let told = answer.expect(200).to_string();
            assert!(!told.contains(&scene.secret), "{method} {path}: {told}");
            assert!(!told.contains(r#""count":1"#), "{method} {path}: {told}");
        }
    }
    // A service's own id is its own: taken for somebody else, it is another notification.
    let service = with_scope(&scene, "shop", "notifications:write");
    let taken = json!({ "userId": attacker.id(), "id": scene.secret, "title": "Mine" });
    let answer = service.post("/v1/notifications", &taken).await;
    assert!([201, 409].contains(&answer.status), "{answer:#?}");
    scene.stands_unharmed().await;
}

async fn a_name_of_a_user_is_nothing_but_a_name(setup: Setup) {
    let scene = Scene::shared(setup).await;
    let victim = scene.victim.id();
    let service = scene.place.service();
    // Names that mean something to a room, a routing key, a pattern, a path or SQL.
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
        let made = service.post("/v1/notifications", &draft).await.expect(201);
        assert_eq!(made["userId"], *name, "it is a name like any other");
        let page = scene.victim.called(&name).http().get("/v1/notifications").await.expect(200);
        let told = page.to_string();
        assert!(told.contains("Not for the victim") && !told.contains(&scene.secret), "{told}");
    }
    // What cannot be a name is none.
    for name in [
        format!("{victim} "),
        format!(" {victim}"),
        format!("{victim}\n"),
        format!("{victim}\r\nX: y"),
        format!("{victim}\0"),
        format!("{victim}\u{200b}"),
        format!("\u{202e}{victim}"),
        String::new(),
        "u".repeat(129),
        "u".repeat(10_000),
    ] {
        let draft = json!({ "userId": name, "title": "For nobody" });
        let problem = service.post("/v1/notifications", &draft).await.expect(422);
        assert_eq!(problem["errors"][0]["pointer"], "#/userId", "{name:?}");
        let draft = json!({ "userIds": ["somebody", name], "title": "For nobody" });
        let problem = service.post("/v1/notifications", &draft).await.expect(422);
        assert_eq!(problem["code"], "body_invalid", "{name:?}");
    }
    scene.stands_unharmed().await;
}

async fn bodies_that_are_too_much(setup: Setup) {
    let scene = Scene::shared(setup).await;
    let receiver = scene.place.user("receiver");
    let user = receiver.id();
    let draft = |field: &str, value: &str| {
        format!(r#"{{"userId":"{user}","title":"Hi","{field}":{value}}}"#)
    };
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let objects = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    let text = |length: usize| format!(r#""{}""#, "x".repeat(length));
    let (invalid, malformed) = ((422, "body_invalid"), (400, "json_malformed"));
    let kept_out = (201, "");
    let mut surprises = Vec::new();
    for (attack, body, expected) in [
        ("data nested 65 deep", draft("data", &objects(65)), invalid),
        ("data nested 100,000 deep", draft("data", &objects(100_000)), invalid),
        ("an unknown field nested 100,000 deep", draft("x", &nested(100_000)), kept_out),
        ("nothing but brackets", "[".repeat(500_000), invalid),
        ("nothing but braces", r#"{"a":"#.repeat(100_000), malformed),
        ("data of 17 kB", draft("data", &format!(r#"{{"x":{}}}"#, text(17_000))), invalid),
        ("a title of 500 kB", draft("title", &text(500_000)), invalid),
        ("a message of 500 kB", draft("message", &text(500_000)), invalid),
        ("a link of 500 kB", draft("link", &text(500_000)), invalid),
        ("an id of 10 kB", draft("id", &text(10_000)), invalid),
        ("a number beyond all numbers", draft("id", "1e999999"), malformed),
        ("a number of 100,000 digits", draft("id", &"9".repeat(100_000)), malformed),
        ("the recipient twice", draft("userId", &text(3)), invalid),
        ("a zero byte in the title", draft("message", r#""a\u0000b""#), invalid),
        ("half a surrogate", draft("message", r#""\ud800""#), malformed),
        ("a time beyond all times", draft("expiresAt", r#""99999-01-01T00:00:00Z""#), invalid),
        ("a link that runs", draft("link", r#""javascript:alert(1)""#), invalid),
        ("a link that runs, disguised", draft("link", r#""\u0001javascript:alert(1)""#), invalid),
        ("a link to data", draft("link", r#""data:text/html,<script>""#), invalid),
        (
            "1,000,000 recipients",
            format!(r#"{{"title":"Hi","userIds":["a"{}]}}"#, r#","a""#.repeat(200_000)),
            invalid,
        ),
        (
            "100,000 notifications",
            format!(r#"{{"notifications":[{{}}{}]}}"#, ",{}".repeat(100_000)),
            invalid,
        ),
    ] {
        let path = if attack.ends_with("notifications") { "/batch" } else { "" };
        let path = format!("/v1/notifications{path}");
        let request = scene.place.service().request(Method::POST, &path);
        let answer = send(request.header("content-type", "application/json").body(body)).await;
        let code = answer.json()["code"].clone();
        if (answer.status, code.as_str().unwrap_or_default()) != expected {
            surprises.push(format!("{attack}: {} {code}", answer.status));
        }
        assert!(answer.text.len() < 10_000, "{attack}: an answer is no echo");
    }
    assert_eq!(surprises, Vec::<String>::new());
    scene.stands_unharmed().await;
}
