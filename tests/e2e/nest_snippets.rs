//! Runs the NestJS code of the documents with NestJS's packages.

use std::fs;
use std::path::Path;

use belfry_tests::clients::{RunningScript, run_script};
use belfry_tests::rabbit::Broker;
use serde_json::{Value, json};

use crate::nest_queues::permits_transient_queues;
use crate::setup::{Setup, User, ready, signed_in};

const PAGE: &str = "../bootstrap/docs/from-nestjs.md";

/// The code blocks of a document in this language, with the names of this test's broker.
fn snippets(document: &str, language: &str, broker: &Broker) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let document = fs::read_to_string(path).unwrap();
    let fence = format!("```{language}\n");
    let blocks = document.split(&fence).skip(1);
    let blocks = blocks.map(|block| {
        let block = block.split("```").next().unwrap();
        block
            .replace("amqp://user:password@host", broker.url())
            .replace("\"notifications\"", &format!("\"{}\"", broker.ingest_queue()))
            .replace("\"belfry.ingest\"", &format!("\"{}\"", broker.ingest_queue()))
            .replace("\"belfry.events\"", &format!("\"{}\"", broker.events_exchange()))
            .replace("\"mailer\"", &format!("\"{}\"", broker.name("mailer")))
    });
    blocks.collect()
}

/// Starts the snippet and waits until it consumes messages.
async fn listening(version: u8, snippet: &str, pattern: &str) -> RunningScript {
    let config = json!({ "version": version, "snippet": snippet, "patterns": [pattern] });
    let script = RunningScript::start("nest-snippet.mjs", &config);
    script.expect("listening", |_| true).await;
    script
}

fn is_about(id: &str) -> impl Fn(&Value) -> bool {
    move |event| event["data"]["id"] == id
}

#[tokio::test]
async fn steps_of_the_page_replace_a_nestjs_gateway_with_belfry() {
    let backends = Setup::Servers.backends().await;
    let broker = backends.broker();
    let durable = !permits_transient_queues(broker.url()).await;
    let snippets = |language| {
        let of_this_test = |block: String| {
            let block = block.replace("durable: false", &format!("durable: {durable}"));
            block.replace("durable = false", &format!("durable = {durable}"))
        };
        snippets(PAGE, language, broker).into_iter().map(of_this_test).collect::<Vec<_>>()
    };
    let code = snippets("ts");
    let [_devices, gateway, consumer, consumer_of_10] = &*code else {
        panic!("the page has other snippets: {code:#?}")
    };
    let settings = snippets("toml");
    let [_forward, receive, _names, serve] = &*settings else {
        panic!("the page has other settings: {settings:#?}")
    };
    let emit = async |user: &str, id: &str| {
        let data = json!({ "userId": user, "id": id, "title": "Hello" });
        let config = json!({
            "url": broker.url(), "queue": broker.ingest_queue(),
            "queueOptions": { "durable": durable },
            "events": [{ "pattern": "notification.created", "data": data }],
        });
        run_script("nest-emit.mjs", &config).await;
    };

    let old_gateway = listening(11, gateway, "notification.created").await;
    emit("ada", "before").await;
    old_gateway.expect("event", is_about("before")).await;
    drop(old_gateway);
    emit("ada", "meanwhile").await;

    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    fs::write(file.path(), [receive.as_str(), serve.as_str()].concat()).unwrap();
    let builder = backends.belfry().arg("--config").arg(file.path());
    let belfry = ready(builder.start().await).await;
    let ada = User::new("ada", &belfry).called("ada");
    let device = ada.node().namespace("/ws/notifications").connect().await;
    let mailers = [10, 11, 12].map(|version| {
        let snippet = if version == 10 { consumer_of_10 } else { consumer };
        let snippet = snippet.replace(".mailer", &format!(".mailer-{version}"));
        let pattern = if version == 10 { "notification.created" } else { "notification.*" };
        async move { listening(version, &snippet, pattern).await }
    });
    let mailers = futures_util::future::join_all(mailers).await;
    emit("ada", "after").await;
    assert_eq!(device.expect("newNotification").await["data"]["id"], "after");
    let page = ada.http().get("/v1/notifications").await.expect(200);
    assert_eq!(page["items"][1]["id"], "meanwhile", "{page}");
    for mailer in mailers {
        let event = mailer.expect("event", |event| event.to_string().contains("\"after\"")).await;
        assert_eq!(event["pattern"], "notification.created");
    }
    assert!(!belfry.log().contains("refused"), "{}", belfry.log());
}

#[tokio::test]
async fn snippet_of_the_readme_creates_notifications_with_each_version_of_nestjs() {
    let deployment = Setup::Servers.own().await;
    let snippets = snippets("../README.md", "ts", deployment.broker());
    let ada = deployment.user("ada");
    let device = signed_in(ada.node()).await;
    let versions = [10, 11, 12].map(|version| {
        let order = json!({ "id": version, "userId": ada.id() });
        let config = json!({ "version": version, "snippet": snippets[0], "order": order });
        async move { run_script("nest-snippet.mjs", &config).await }
    });
    futures_util::future::join_all(versions).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(device.expect("notification:new").await["id"].clone());
    }
    ids.sort_by_key(ToString::to_string);
    assert_eq!(ids, ["order-10-shipped", "order-11-shipped", "order-12-shipped"]);
}
