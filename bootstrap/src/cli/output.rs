use std::io::{ErrorKind, Write};

/// Prints a line on standard output. A closed pipe is no failure: readers such as `head` close it early.
pub(super) fn print_line(line: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}
