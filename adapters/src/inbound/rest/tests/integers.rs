//! Integers in requests. All adapters test with the same table of cases, so that they read integers alike.

use http::StatusCode;
use serde_json::json;

use super::{Api, as_service};
use crate::wire::integer::{CASES, NOT_INTEGERS};

#[tokio::test]
async fn integer_is_read_as_an_id_like_in_other_adapters() {
    // Ids may also be strings, so the cases with strings do not apply.
    for (json, integer) in CASES.into_iter().filter(|(json, _)| !json.starts_with('"')) {
        let api = Api::new();
        let body = format!(r#"{{"id":{json},"userId":{json},"title":"Hi"}}"#);
        let created = api.send(as_service("/v1/notifications").body(body.into()).unwrap()).await;
        match integer {
            Some(integer) => {
                let created = created.expect(StatusCode::CREATED);
                let text = json!(integer.to_string());
                assert_eq!([&created["id"], &created["userId"]], [&text, &text], "{json}");
            }
            None => assert!(created.status.is_client_error(), "{json}: {created:?}"),
        }
    }
}

#[tokio::test]
async fn limit_is_read_like_in_other_adapters() {
    let api = Api::new();
    for (json, integer) in CASES.into_iter().chain(NOT_INTEGERS.map(|text| (text, None))) {
        let limit = percent_encoding::utf8_percent_encode(json, percent_encoding::NON_ALPHANUMERIC);
        let page = api.get("ada", &format!("/v1/notifications?limit={limit}")).await;
        if integer.is_some_and(|limit| (1..=100).contains(&limit)) {
            page.expect(StatusCode::OK);
        } else {
            page.problem(400, "query_invalid");
        }
    }
}
