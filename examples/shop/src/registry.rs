//! The registry process: where the others find each other by name.

use farcall::registry::embedded::Embedded;

use crate::process::{self, READY};
use crate::say::say;

/// How to run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// `tcp://127.0.0.1:0`
    pub(crate) listen: String,
    /// As every process.
    pub(crate) until_stdin_closes: bool,
}

/// Runs the process.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    process::runtime()?.block_on(async {
        let mut ends = process::ends(options.until_stdin_closes)?;
        let node = Embedded::builder().listen(options.listen.as_str()).await.map_err(|e| e.to_string())?;
        say(&format!("{READY}{}", node.url()));
        ends.recv().await;
        node.stop(process::PATIENCE).await.map_err(|e| e.to_string())
    })
}
