//! Microbenchmarks of the hot path: time and allocations of single functions, without servers and sockets. The load
//! tool measures the whole server.
//!
//! ```sh
//! cargo bench -p belfry-tests --bench microbenchmarks               # all, in about a minute
//! cargo bench -p belfry-tests --bench microbenchmarks -- delivery   # those whose name contains "delivery"
//! ```

mod decoding;
mod delivery;
mod encoding;
mod forwarding;
mod frame_sanitizer;
mod microbenchmarks;
mod samples;
mod tokens;

fn main() {
    let mut benches = microbenchmarks::Microbenchmarks::default();
    frame_sanitizer::measure(&mut benches);
    decoding::measure(&mut benches);
    encoding::measure(&mut benches);
    delivery::measure(&mut benches);
    forwarding::measure(&mut benches);
    tokens::measure(&mut benches);
    benches.print_allocations();
}
