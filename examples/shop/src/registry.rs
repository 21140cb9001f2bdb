//! The registry process: where the others find each other by name.

use farcall::registry::embedded::Embedded;

use crate::process::{self, Home, READY};
use crate::say::say;

/// Runs the process.
pub(crate) fn run(home: &Home) -> Result<(), String> {
    process::runtime()?.block_on(async {
        let mut ends = process::ends(home.until_stdin_closes)?;
        let node = Embedded::builder().listen(home.listen.as_str()).await.map_err(|e| e.to_string())?;
        say(&format!("{READY}{}", node.url()));
        ends.recv().await;
        node.stop(process::PATIENCE).await.map_err(|e| e.to_string())
    })
}
