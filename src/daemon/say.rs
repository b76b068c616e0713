//! What is said on the standard error, in one piece each: at an upgrade two servers have the same one, and the log may be there.

use std::io::Write as _;

/// Says it, with a line end.
pub(crate) fn say(text: &str) {
    // Nobody can be told that nobody can be told.
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}
