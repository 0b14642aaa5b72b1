//! Checks the rules of Engine.IO 4 and Socket.IO 5 on Belfry's server and on a reference server: the
//! libraries engineioxide and socketioxide.
//!
//! The cases are rewritten from the protocols' published test suites, with additions. Running them on the
//! reference shows that the cases are not specific to Belfry. `reference.rs` lists the cases that the
//! reference fails. The tests check that it still fails them, so that the list is corrected after an update
//! of the libraries.

mod client;
mod engine_io;
mod ours;
mod peer;
mod reference;
mod socket_io;

use engine_io::{message_cases, transport_cases};
use peer::{Timers, check, check_scenarios, check_version_3};
use socket_io::socket_io_cases;

#[tokio::test]
async fn reference_engine_io_fails_only_known_cases() {
    let mut cases = transport_cases();
    cases.extend(message_cases());
    check(&cases, reference::engine_io, reference::ENGINE_IO_DIFFERENCES).await;
}

#[tokio::test]
async fn reference_socket_io_fails_only_known_cases() {
    check(&socket_io_cases(), reference::socket_io, reference::SOCKET_IO_DIFFERENCES).await;
}

/// The transports of socket.io-client, in order. With both it starts with polling and upgrades.
const TRANSPORTS: [&[&str]; 3] = [&["websocket"], &["polling"], &["polling", "websocket"]];

#[tokio::test]
async fn javascript_client_fails_only_known_scenarios_on_the_reference() {
    let peer = reference::socket_io(Timers::LONG).await;
    for transports in TRANSPORTS {
        check_scenarios(&peer, transports, reference::SCENARIO_DIFFERENCES).await;
    }
}

#[tokio::test]
async fn version_3_of_the_javascript_client_works_with_the_reference() {
    let peer = reference::socket_io(Timers::LONG).await;
    for transports in TRANSPORTS {
        check_version_3(&peer, transports).await;
    }
}

#[tokio::test]
async fn engine_io_passes_all_cases() {
    let mut cases = transport_cases();
    cases.extend(message_cases());
    check(&cases, ours::engine_io, ours::ENGINE_IO_DIFFERENCES).await;
}

#[tokio::test]
async fn socket_io_passes_all_cases() {
    let mut cases = transport_cases();
    cases.extend(socket_io_cases());
    check(&cases, ours::socket_io, ours::SOCKET_IO_DIFFERENCES).await;
}

#[tokio::test]
async fn javascript_client_passes_all_scenarios() {
    let peer = ours::socket_io(Timers::LONG).await;
    for transports in TRANSPORTS {
        check_scenarios(&peer, transports, ours::SCENARIO_DIFFERENCES).await;
    }
}

#[tokio::test]
async fn version_3_of_the_javascript_client_works_with_belfry() {
    let peer = ours::socket_io(Timers::LONG).await;
    for transports in TRANSPORTS {
        check_version_3(&peer, transports).await;
    }
}
