//! Engine.IO 4 and Socket.IO 5, rule by rule, against Belfry's stack and against the reference: the
//! libraries engineioxide and socketioxide.
//!
//! The cases are those of the protocols' published test suites, in our own words, and more. That they
//! hold for the reference shows that they ask for what others take for granted, too; where it departs
//! from them is listed in `reference.rs` and checked, so that an update of the libraries which changes
//! it is noticed.

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
async fn reference_engine_io_departs_only_as_listed() {
    let mut cases = transport_cases();
    cases.extend(message_cases());
    check(&cases, reference::engine_io, reference::ENGINE_IO_DIFFERENCES).await;
}

#[tokio::test]
async fn reference_socket_io_departs_only_as_listed() {
    check(&socket_io_cases(), reference::socket_io, reference::SOCKET_IO_DIFFERENCES).await;
}

/// What socket.io-client chooses from, in that order; with both it starts by polling and upgrades.
const TRANSPORTS: [&[&str]; 3] = [&["websocket"], &["polling"], &["polling", "websocket"]];

#[tokio::test]
async fn javascript_client_finds_the_reference_departing_only_as_listed() {
    let peer = reference::socket_io(Timers::LONG).await;
    for transports in TRANSPORTS {
        check_scenarios(&peer, transports, reference::SCENARIO_DIFFERENCES).await;
    }
}

#[tokio::test]
async fn version_3_of_the_javascript_client_talks_to_the_reference() {
    let peer = reference::socket_io(Timers::LONG).await;
    for transports in TRANSPORTS {
        check_version_3(&peer, transports).await;
    }
}

#[tokio::test]
async fn engine_io_keeps_every_rule() {
    let mut cases = transport_cases();
    cases.extend(message_cases());
    check(&cases, ours::engine_io, ours::ENGINE_IO_DIFFERENCES).await;
}

#[tokio::test]
async fn socket_io_keeps_every_rule() {
    let mut cases = transport_cases();
    cases.extend(socket_io_cases());
    check(&cases, ours::socket_io, ours::SOCKET_IO_DIFFERENCES).await;
}

#[tokio::test]
async fn javascript_client_finds_every_promise_kept() {
    let peer = ours::socket_io(Timers::LONG).await;
    for transports in TRANSPORTS {
        check_scenarios(&peer, transports, ours::SCENARIO_DIFFERENCES).await;
    }
}

#[tokio::test]
async fn version_3_of_the_javascript_client_talks_to_belfry() {
    let peer = ours::socket_io(Timers::LONG).await;
    for transports in TRANSPORTS {
        check_version_3(&peer, transports).await;
    }
}
