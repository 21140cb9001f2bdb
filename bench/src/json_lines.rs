//! A file of results, one JSON object per line, which grows from run to run.
use anyhow::{Context, Result};
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

pub(crate) struct JsonLines(Option<File>);

impl JsonLines {
    /// Without a path it takes lines and keeps none.
    pub(crate) fn append_to(path: Option<&Path>) -> Result<JsonLines> {
        let open = |path: &Path| {
            let file = OpenOptions::new().create(true).append(true).open(path);
            file.with_context(|| format!("cannot write {}", path.display()))
        };
        Ok(JsonLines(path.map(open).transpose()?))
    }

    pub(crate) fn add(&mut self, row: &impl Serialize) -> Result<()> {
        match &mut self.0 {
            Some(file) => Ok(writeln!(file, "{}", serde_json::to_string(row)?)?),
            None => Ok(()),
        }
    }
}
