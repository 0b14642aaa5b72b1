//! Belfry under a path of its host, behind a proxy that cannot strip the path.

use belfry_tests::clients::Device;
use belfry_tests::http::Http;
use belfry_tests::process::Belfry;
use serde_json::json;

use crate::setup::{Setup, key, ready, signed_in};

#[tokio::test]
async fn public_routes_are_under_the_base_path_and_health_also_at_the_root() {
    let deployment = Setup::Embedded.own_with(|it| it.setting("http.base_path", "/notify")).await;
    let origin = deployment.belfry.url().strip_suffix("/notify").unwrap().to_owned();
    let ada = key().token("ada").sign();
    let shop = key().token("shop").scope("notifications:write").sign();
    let root = Http::new(&origin);

    for transport in ["websocket", "polling"] {
        let device = |device: belfry_tests::clients::Builder| {
            device.path("/notify/socket.io/").transports([transport]).token(&ada)
        };
        let node = signed_in(device(Device::node(&origin))).await;
        let python = signed_in(device(Device::python(&origin))).await;
        let draft = json!({ "userId": "ada", "title": transport });
        let created = root.bearer(&shop).post("/notify/v1/notifications", &draft).await;
        let id = created.expect(201)["id"].as_str().unwrap().to_owned();
        for device in [&node, &python] {
            assert_eq!(device.expect("notification:new").await["id"], id.as_str());
        }
        let location = created.header("location").unwrap();
        assert_eq!(location, format!("/notify/v1/notifications/{id}"));
        root.bearer(&ada).get(location).await.expect(200);
    }

    let contract = root.get("/notify/openapi.json").await.expect(200);
    assert_eq!(contract["servers"], json!([{ "url": "/notify" }]));
    for path in ["/health/live", "/health/ready", "/notify/health/ready"] {
        root.get(path).await.expect(200);
    }
    for path in ["/v1/notifications", "/openapi.json", "/socket.io/?EIO=4&transport=polling"] {
        assert_eq!(root.bearer(&ada).get(path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn try_it_page_works_under_the_base_path() {
    let belfry = ready(Belfry::builder().setting("http.base_path", "/notify").start().await).await;
    let origin = Http::new(belfry.url().strip_suffix("/notify").unwrap());
    // The client follows the redirect to the path with a slash at the end.
    for path in ["/notify/", "/notify"] {
        let page = origin.get(path).await;
        assert_eq!(page.status, 200, "{path}");
        for reference in ["web/bell.css", "web/socket.io.min.js", "web/app.js"] {
            assert!(page.text.contains(&format!("=\"{reference}\"")), "{path}: {reference}");
            assert_eq!(origin.get(&format!("/notify/{reference}")).await.status, 200);
        }
    }
    assert_eq!(origin.get("/").await.status, 404);
    let signed_in = origin.post("/notify/dev/token", &json!({ "user": "ada" })).await.expect(200);
    let token = signed_in["token"].as_str().unwrap();
    origin.bearer(token).get("/notify/v1/notifications").await.expect(200);

    // The command `send` takes the base path from the settings.
    let sent = belfry.run(&["send", "--to", "ada", "--title", "Hello"]).await;
    assert!(sent.status.success(), "{}", sent.err);
}
