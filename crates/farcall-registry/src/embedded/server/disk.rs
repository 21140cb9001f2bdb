//! A node's folder: `entries`, written every few seconds and soft; `rules`, written before their writer is told.
//!
//! Both files are a line that names the form, what is in them in the compact codec, and 32 bytes of BLAKE3 over all before. They are
//! written beside, synced and renamed, so that there is always a whole one. A file of entries that cannot be read is put aside and the
//! node starts without: it is incomplete for a lease, and providers register again. A file of rules that cannot be read stops the
//! start: rules come from nowhere else.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use farcall_core::{Code, RpcError, compact, frame_bytes};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::embedded::api::RuleVersion;
use crate::embedded::state::Saved;

/// The first line of every file: the form, and its version.
const ENTRIES: &str = "farcall registry entries 1\n";
const RULES: &str = "farcall registry rules 1\n";
const CHECKSUM: usize = 32;

/// A node's folder, which is this process's alone.
pub(super) struct Disk {
    folder: PathBuf,
    /// Held for as long as the node runs.
    lock: File,
}

/// Why a file cannot be used.
#[derive(Debug)]
enum Flaw {
    Missing,
    Unreadable(io::Error),
    /// A newer farcall wrote it.
    Newer(String),
    /// Cut short, or changed.
    Broken(String),
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Flaw::Missing => f.write_str("it is not there"),
            Flaw::Unreadable(e) => write!(f, "it cannot be read: {e}"),
            Flaw::Newer(line) => write!(f, "it is of another version of farcall ({line:?})"),
            Flaw::Broken(why) => write!(f, "it is broken: {why}"),
        }
    }
}

impl Disk {
    /// Makes the folder if there is none, and sees that it can be written and is nobody else's.
    pub(super) fn open(folder: &Path) -> Result<Disk, RpcError> {
        let refused = |what: &str, e: &dyn std::fmt::Display| {
            let why = format!("the registry's folder {}: {what}: {e}", folder.display());
            RpcError::not_sent(Code::FailedPrecondition, why)
        };
        fs::create_dir_all(folder).map_err(|e| refused("it cannot be made", &e))?;
        let lock = File::create(folder.join("lock")).map_err(|e| refused("it cannot be written", &e))?;
        lock.try_lock().map_err(|e| refused("another process uses it", &e))?;
        Ok(Disk { folder: folder.to_owned(), lock })
    }

    /// The node has stopped: another may begin, also while the last of this one's tasks are not yet gone.
    pub(super) fn release(&self) {
        // It is released with the process anyway.
        let _ = self.lock.unlock();
    }

    /// The entries of before, and what is to be said of them.
    pub(super) fn entries(&self) -> (Vec<Saved>, Option<String>) {
        let path = self.folder.join("entries");
        match read(&path, ENTRIES) {
            Ok(saved) => (saved, None),
            Err(Flaw::Missing) => (Vec::new(), None),
            Err(flaw) => {
                let aside = self.folder.join("entries.unusable");
                let put = match fs::rename(&path, &aside) {
                    Ok(()) => format!("it is now {}", aside.display()),
                    Err(e) => format!("and cannot be put aside: {e}"),
                };
                (Vec::new(), Some(format!("{}: {flaw}; {put}; the node starts without entries", path.display())))
            }
        }
    }

    /// The rules of before.
    pub(super) fn rules(&self) -> Result<Vec<RuleVersion>, RpcError> {
        let path = self.folder.join("rules");
        match read(&path, RULES) {
            Ok(rules) => Ok(rules),
            Err(Flaw::Missing) => Ok(Vec::new()),
            Err(flaw) => {
                let why = format!("{}: {flaw}. Restore it, or remove it to start without rules", path.display());
                Err(RpcError::not_sent(Code::DataLoss, why))
            }
        }
    }

    pub(super) fn save_entries(&self, saved: &[Saved]) -> Result<(), String> {
        write(&self.folder, "entries", ENTRIES, saved)
    }

    pub(super) fn save_rules(&self, rules: &[RuleVersion]) -> Result<(), String> {
        write(&self.folder, "rules", RULES, rules)
    }
}

fn read<T: DeserializeOwned>(path: &Path, form: &str) -> Result<T, Flaw> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Flaw::Missing),
        Err(e) => return Err(Flaw::Unreadable(e)),
        Ok(_) => {}
    }
    let Some(rest) = bytes.strip_prefix(form.as_bytes()) else {
        let line = String::from_utf8_lossy(bytes.split(|b| *b == b'\n').next().unwrap_or_default()).chars().take(60).collect::<String>();
        return Err(match line.starts_with("farcall registry ") {
            true => Flaw::Newer(line),
            false => Flaw::Broken("it does not begin like one".into()),
        });
    };
    let Some(end) = rest.len().checked_sub(CHECKSUM) else { return Err(Flaw::Broken("it is cut short".into())) };
    let sum = blake3::hash(&bytes[..bytes.len() - CHECKSUM]);
    if sum.as_bytes()[..] != rest[end..] {
        return Err(Flaw::Broken("its checksum is wrong".into()));
    }
    let inside = bytes::Bytes::copy_from_slice(&rest[..end]);
    frame_bytes::with_frame(&inside, || compact::decode(&inside)).map_err(|e| Flaw::Broken(e.to_string()))
}

fn write<T: Serialize + ?Sized>(folder: &Path, name: &str, form: &str, value: &T) -> Result<(), String> {
    let (path, beside) = (folder.join(name), folder.join(format!("{name}.new")));
    let mut bytes = form.as_bytes().to_vec();
    compact::encode_into(value, &mut bytes).map_err(|e| format!("{}: {e}", path.display()))?;
    let sum = blake3::hash(&bytes);
    let done = File::create(&beside)
        .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.write_all(sum.as_bytes())).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&beside, &path))
        .and_then(|()| File::open(folder)?.sync_all());
    done.map_err(|e| {
        let _ = fs::remove_file(&beside);
        format!("{} cannot be written: {e}", path.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::api::Moment;
    use crate::entry::ServiceKey;
    use crate::registry::Rule;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            Folder(std::env::temp_dir().join(format!("farcall-disk-{name}-{}", std::process::id())))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn rules() -> Vec<RuleVersion> {
        let service = ServiceKey { name: "pay".into(), group: String::new(), version: String::new() };
        let rule = Rule { service, kind: "tag-router".into(), name: "a".into(), body: "x".into() };
        vec![RuleVersion { namespace: String::new(), rule, at: Moment::default(), who: "ann".into(), replaces: None }]
    }

    #[test]
    fn what_was_written_is_read_and_what_was_damaged_is_named() {
        let folder = Folder::new("damage");
        let disk = Disk::open(&folder.0).unwrap();
        assert_eq!(disk.rules().unwrap(), []);
        disk.save_rules(&rules()).unwrap();
        assert_eq!(disk.rules().unwrap(), rules());
        let path = folder.0.join("rules");
        let whole = fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            disk.rules().unwrap_err().message().to_owned()
        };
        // Cut short anywhere, or with any bit turned, it is never taken.
        for at in 0..whole.len() {
            let mut turned = whole.clone();
            turned[at] ^= 1 << (at % 8);
            for bytes in [&whole[..at], &turned[..]] {
                let why = refused(bytes);
                assert!(why.contains("broken") || why.contains("another version"), "{at}: {why}");
            }
        }
        assert!(refused(b"farcall registry rules 2\nxyz").contains("another version of farcall (\"farcall registry rules 2\")"));
        assert!(refused(b"").contains("Restore it, or remove it to start without rules"));
    }

    #[test]
    fn broken_entries_are_put_aside() {
        let folder = Folder::new("aside");
        let disk = Disk::open(&folder.0).unwrap();
        fs::write(folder.0.join("entries"), "rubbish").unwrap();
        let (saved, said) = disk.entries();
        assert!(saved.is_empty());
        let said = said.unwrap();
        assert!(said.contains("it does not begin like one") && said.contains("entries.unusable"), "{said}");
        assert_eq!(fs::read(folder.0.join("entries.unusable")).unwrap(), b"rubbish");
        assert_eq!(disk.entries().1, None);
    }

    #[test]
    fn a_folder_is_one_nodes() {
        let folder = Folder::new("lock");
        let _first = Disk::open(&folder.0).unwrap();
        let e = Disk::open(&folder.0).err().unwrap();
        assert!(e.message().contains("another process uses it"), "{e}");
        let file = Folder::new("file");
        fs::write(&file.0, "").unwrap();
        assert!(Disk::open(&file.0).err().unwrap().message().contains("it cannot be made"));
        fs::remove_file(&file.0).unwrap();
    }

    #[test]
    fn what_cannot_be_written_is_said_and_the_old_stays() {
        let folder = Folder::new("unwritable");
        let disk = Disk::open(&folder.0).unwrap();
        disk.save_rules(&rules()).unwrap();
        // Where the new file would be there is a folder.
        fs::create_dir(folder.0.join("rules.new")).unwrap();
        assert!(disk.save_rules(&[]).unwrap_err().contains("rules cannot be written"));
        assert_eq!(disk.rules().unwrap(), rules());
    }
}
