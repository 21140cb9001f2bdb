//! Events on disk, a line of JSON each.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use farcall::json;

use super::accounts::Event;

/// A file that only grows.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    file: fs::File,
    /// What is whole of it: a write that failed half-way is overwritten by the next.
    whole: u64,
}

impl File {
    /// Opens it, or makes it, and tells every event in it. A last line without its end was cut off by a death, and nobody was answered
    /// for it: it is dropped.
    pub(super) fn open(path: &Path, mut tell: impl FnMut(Event)) -> Result<File, String> {
        let cannot = |e: std::io::Error| format!("the journal {}: {e}", path.display());
        let mut file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(cannot)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(cannot)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        for (n, line) in text[..whole].split_inclusive(|byte| *byte == b'\n').enumerate() {
            tell(json::decode(line).map_err(|e| format!("the journal {}, line {}: {e}", path.display(), n + 1))?);
        }
        let whole = whole as u64;
        file.set_len(whole).map_err(cannot)?;
        Ok(File { path: path.to_owned(), file, whole })
    }

    /// Writes an event down.
    pub(super) fn append(&mut self, event: &Event) -> Result<(), String> {
        let mut line = Vec::new();
        json::encode_into(event, &mut line).map_err(|e| e.to_string())?;
        line.push(b'\n');
        let written = self.file.seek(SeekFrom::Start(self.whole)).and_then(|_| self.file.write_all(&line));
        written.map_err(|e| format!("the journal {} takes no more: {e}", self.path.display()))?;
        self.whole += line.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Status;

    fn read(path: &Path) -> Result<Vec<Event>, String> {
        let mut events = Vec::new();
        File::open(path, |event| events.push(event)).map(|_| events)
    }

    #[test]
    fn it_outlives_its_process_and_drops_only_half_a_line() {
        let folder = std::env::temp_dir().join(format!("farcall-journal-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("journal");
        let events = [Event::Charged { order: 1, cents: 500 }, Event::Marked { order: 1, status: Status::Paid }];
        let mut file = File::open(&path, |event| panic!("{event:?}")).unwrap();
        events.iter().for_each(|event| file.append(event).unwrap());
        assert_eq!(read(&path).unwrap(), events);
        // Killed while it wrote.
        let text = std::fs::read(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 3]).unwrap();
        assert_eq!(read(&path).unwrap(), events[..1]);
        let mut file = File::open(&path, drop).unwrap();
        file.append(&events[1]).unwrap();
        assert_eq!(read(&path).unwrap(), events);
        // Not a death, but damage: nobody guesses what it was.
        std::fs::write(&path, b"{\"Charged\"\n{}\n").unwrap();
        let error = read(&path).unwrap_err();
        assert!(error.contains("line 1"), "{error}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
