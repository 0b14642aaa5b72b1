//! What the pieces of the hot path cost, in time and in allocations, without servers and sockets: what
//! those add is measured by the load tool.
//!
//! ```sh
//! cargo bench -p belfry-tests --bench pieces              # all, in about a minute
//! cargo bench -p belfry-tests --bench pieces -- telling   # those whose name has that in it
//! ```

mod decoding;
mod encoding;
mod forwarding;
mod frame_sanitizer;
mod pieces;
mod samples;
mod telling;
mod tokens;

fn main() {
    let mut pieces = pieces::Pieces::default();
    frame_sanitizer::measure(&mut pieces);
    decoding::measure(&mut pieces);
    encoding::measure(&mut pieces);
    telling::measure(&mut pieces);
    forwarding::measure(&mut pieces);
    tokens::measure(&mut pieces);
    pieces.tell_allocations();
}
