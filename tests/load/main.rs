//! Load tests of Belfry and comparable servers. `belfry-load --help` lists the measurements.
//!
//! | module | |
//! |---|---|
//! | [`commands`] | the measurements |
//! | [`trial`], [`outcome`] | one server with its clients, and events sent to them |
//! | [`rig`], [`servers`] | RabbitMQ, PostgreSQL, and the servers under test |
//! | [`fleet`], [`client`], [`device`], [`packets`] | the clients |
//! | [`outages`], [`resume`] | clients that lose their connections and catch up |
//! | [`websocket`] with [`frames`], [`polling`] with [`responses`], [`incoming`] | their transports |
//! | [`probe`], [`attacks`] | a client that checks its inbox's state; clients that misbehave |
//! | [`bystander`], [`bare_listener`] | for attacks: a service that posts notifications; a listener that only accepts |
//! | [`schedule`], [`producer`], [`publisher`], [`rest`], [`events`] | sources of events |
//! | [`tally`], [`process`], [`kernel`], [`clock`] | deliveries, latency, CPU time and memory |
//! | [`report`], [`chart`], [`machine`], [`figures`] | the report |

use std::process::ExitCode;

use clap::Parser;

mod attacks;
mod bare_listener;
mod bystander;
mod chart;
mod client;
mod clock;
mod commands;
mod device;
mod events;
mod figures;
mod fleet;
mod frames;
mod incoming;
mod kernel;
mod machine;
mod options;
mod outages;
mod outcome;
mod own_thread;
mod packets;
mod polling;
mod probe;
mod process;
mod producer;
mod publisher;
mod random;
mod report;
mod responses;
mod rest;
mod resume;
mod rig;
mod schedule;
mod servers;
mod tally;
mod trial;
mod websocket;

fn main() -> ExitCode {
    let options = options::Options::parse();
    // Starts the clock.
    clock::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let result = runtime.block_on(async {
            tokio::select! {
                result = commands::run(options) => result,
                // Dropping the other future then stops all servers.
                _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
            }
        });
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("belfry-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}
