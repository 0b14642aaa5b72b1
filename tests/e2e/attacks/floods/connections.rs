//! Connections without a request.

use std::net::Ipv4Addr;

use belfry_tests::wait::PATIENCE;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::time::timeout;

use super::raw_flood::{Prelude, RawFlood};
use super::scenario::AttackScenario;

/// Raises the limit on file descriptors of this process as far as allowed, and returns it. The servers that
/// this process starts inherit the limit.
fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    // If this fails, the current limit stays.
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// A connection that sends these bytes and waits for the server to close it.
fn send_once(bytes: &[u8]) -> RawFlood {
    let (prelude, first) = (Prelude::Nothing, bytes.to_vec());
    // Nothing is repeated.
    RawFlood { prelude, first, repeated: vec![], interval: PATIENCE }
}

#[tokio::test]
async fn thousands_of_connections_without_a_request_stay_within_the_limits() {
    // `BELFRY_FLOOD=5000` raises the number. With too many connections at once the kernel's backlog is full,
    // and clients wait for seconds: that would test the kernel and not Belfry.
    let requested =
        std::env::var("BELFRY_FLOOD").ok().and_then(|it| it.parse().ok()).unwrap_or(1_000);
    let count = requested.min(raise_descriptor_limit() / 3);
    if count < requested {
        println!("only {count} connections instead of {requested}: raise `ulimit -n`");
    }
    // The attack comes from five addresses. Three of them reach the limit per address, and the fourth reaches
    // the total limit, which is 3.5 times as high.
    let (per_address, total) = (count / 5, count / 5 * 7 / 2);
    let scenario = AttackScenario::start_with(|it| {
        it.setting("limits.connections", total)
            .setting("limits.connections_per_address", per_address)
            // Longer than it takes to open all connections.
            .setting("http.header_timeout", "15s")
    })
    .await;
    let to = scenario.address();
    let attack = async {
        let mut connections = Vec::new();
        for host in 2..7 {
            let from = Ipv4Addr::new(127, 0, 0, host);
            for number in 0..per_address + 20 {
                let bytes: &[u8] = if number % 2 == 0 { b"" } else { b"GET / HTTP/1.1\r\nhost:" };
                connections.push(tokio::spawn(send_once(bytes).run(from, to)));
                // This request keeps the kernel's backlog short: when its connection is closed, Belfry has
                // accepted all earlier connections.
                if number % 100 == 0 {
                    let request =
                        b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
                    send_once(request).run(from, to).await;
                }
            }
        }
        for connection in connections {
            let received = timeout(PATIENCE, connection).await.expect("it is closed").unwrap();
            assert_eq!(received, "", "without a request there is no response");
        }
    };
    scenario.run_during(attack).await;
    let metrics = scenario.admin.get("/metrics").await.text;
    for reason in ["connections", "connections_per_address"] {
        let metric = format!("belfry_connections_refused_total{{reason=\"{reason}\"}}");
        assert!(metrics.contains(&metric), "{metrics}");
    }
    scenario.assert_nothing_left().await;
}
