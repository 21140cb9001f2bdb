//! Lines for people and for the launcher. `println!` would panic when the reader is gone, which is
//! nobody's bug: then there is nobody to tell.

use std::io::Write;

/// Prints a line, at once.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Prints a line of trouble.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "shop: {line}");
}
