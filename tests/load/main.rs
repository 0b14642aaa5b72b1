//! Measures Belfry, and servers that do the same, under load: `belfry-load --help` says what.
//!
//! | module | |
//! |---|---|
//! | [`commands`] | what can be measured |
//! | [`trial`], [`outcome`] | one server with its clients, and events sent to them |
//! | [`rig`], [`servers`] | RabbitMQ, PostgreSQL, and the servers that are measured |
//! | [`fleet`], [`device`], [`packets`] | the clients |
//! | [`websocket`] with [`frames`], [`polling`] with [`responses`], [`incoming`] | their transports |
//! | [`probe`], [`attacks`] | a client that looks closely, and those that misbehave |
//! | [`bystander`] | a service that notices how a server is attacked |
//! | [`producer`], [`publisher`], [`rest`], [`events`] | those who publish |
//! | [`tally`], [`process`], [`clock`] | what is counted |
//! | [`report`], [`chart`], [`machine`], [`figures`] | what is told of it |

use std::process::ExitCode;

use clap::Parser;

mod attacks;
mod bare_listener;
mod bystander;
mod chart;
mod clock;
mod commands;
mod device;
mod events;
mod figures;
mod fleet;
mod frames;
mod incoming;
mod machine;
mod options;
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
mod rig;
mod servers;
mod tally;
mod trial;
mod websocket;

fn main() -> ExitCode {
    let options = options::Options::parse();
    clock::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let result = runtime.block_on(async {
            tokio::select! {
                result = commands::run(options) => result,
                // What was started goes with what holds it, as at every end.
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
