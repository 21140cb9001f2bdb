//! A folder for unix sockets that is gone when the demo is.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Names that are tried: a killed demo leaves its folder behind, and process ids come round again.
const NAMES: usize = 16;

/// A new folder, removed with all that is in it when this is dropped.
pub(crate) struct TempFolder(PathBuf);

impl TempFolder {
    /// A folder that did not exist before; only this user may enter it.
    pub(crate) fn new() -> Result<TempFolder, String> {
        let mut failed = String::new();
        for n in 0..NAMES {
            let path = std::env::temp_dir().join(format!("farcall-shop-{}-{n}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(TempFolder(path)),
                Err(e) => failed = format!("{} cannot be made: {e}", path.display()),
            }
        }
        Err(failed)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
