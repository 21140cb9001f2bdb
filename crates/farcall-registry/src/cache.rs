//! The list of a service on disk, enough to start and to call while no registry answers.
//!
//! One file per application, namespace, set of registries, service and process: a process takes the first slot whose lock is free, so
//! that two never write to one file. A file is replaced by renaming, after it is on disk; the one before is kept. What is wrong with a
//! file is told to the [`Watcher`] by name, and the last good list is used.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use farcall_core::{TypeSchema, compact, data};

use crate::entry::{Entry, InstanceId, ServiceKey};
use crate::guard::Tombstone;
use crate::watcher::{Event, Watcher};

/// Processes of one application that keep lists of one service at a time.
pub const MOST_SLOTS: usize = 256;
/// The largest file that is read.
pub const LARGEST_FILE: u64 = 64 << 20;
/// What a file begins with; the last byte is the format's version.
const MAGIC: [u8; 8] = *b"fcall-l\x01";
/// Magic, fingerprint of the content's type, checksum of the content.
const HEAD: usize = 8 + 16 + 32;

/// What a file has.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
struct Content {
    service: ServiceKey,
    entries: Vec<Entry>,
    /// Withdrawn instances and their incarnations.
    tombstones: Vec<(InstanceId, u64)>,
}

/// Where one list is kept.
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

struct Inner {
    path: PathBuf,
    /// Held for as long as this lives: the slot is ours.
    _lock: Option<File>,
    /// Why nothing is kept, if so.
    broken: Option<String>,
    writing: Mutex<Writing>,
}

#[derive(Default)]
struct Writing {
    next: Option<Content>,
    under_way: bool,
    /// The file is known to be good: it may become the one before.
    is_good: bool,
    complained: bool,
}

/// What was read.
#[derive(Default)]
pub(crate) struct Loaded {
    pub(crate) entries: Vec<Arc<Entry>>,
    pub(crate) tombstones: Vec<Tombstone>,
    /// What was wrong first, as the watcher is told it.
    pub(crate) trouble: Option<String>,
}

impl Cache {
    /// The cache of a service's list below `folder`. It never fails: what does not work is told when it is used.
    ///
    /// `registries` names where the list is from: what one registry said is not used for another.
    pub fn open(folder: &Path, application: &str, namespace: &str, registries: &str, service: &ServiceKey) -> Cache {
        let folder = folder.join(plain(application)).join(plain(namespace));
        let print = blake3::hash(format!("{registries}\n{service}").as_bytes()).to_hex();
        let stem = format!("{}-{}", plain(&service.name), &print[..12]);
        let (path, lock, broken) = match take_slot(&folder, &stem) {
            Ok((path, lock)) => (path, Some(lock), None),
            // What is there can be read all the same.
            Err(why) => (folder.join(format!("{stem}.0.list")), None, Some(why)),
        };
        Cache(Arc::new(Inner { path, _lock: lock, broken, writing: Mutex::default() }))
    }

    /// Where it is: `$FARCALL_CACHE`, or `farcall` below `$XDG_CACHE_HOME` or `~/.cache`; none if the system says nothing.
    pub fn default_folder() -> Option<PathBuf> {
        let dir = |name: &str| std::env::var_os(name).filter(|dir| !dir.is_empty()).map(PathBuf::from);
        dir("FARCALL_CACHE")
            .or_else(|| dir("XDG_CACHE_HOME").map(|dir| dir.join("farcall")))
            .or_else(|| dir("HOME").map(|dir| dir.join(".cache/farcall")))
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The last good list: of this slot, or else the newest of another.
    pub(crate) fn load(&self, service: &ServiceKey, watcher: &dyn Watcher) -> Loaded {
        let inner = &self.0;
        let mut loaded = Loaded::default();
        let mut complain = |path: &Path, why: &str| {
            let event = Event::Cache { path, why };
            watcher.tell(&event);
            loaded.trouble.get_or_insert_with(|| event.to_string());
        };
        if let Some(why) = &inner.broken {
            complain(&inner.path, &format!("lists are not kept: {why}"));
        }
        let own = [inner.path.clone(), before(&inner.path)];
        let others = others(&inner.path);
        for (n, path) in own.iter().chain(&others).enumerate() {
            match read(path).and_then(|content| {
                if content.service == *service { Ok(content) } else { Err(Unread::Bad("it is of another service".into())) }
            }) {
                Ok(content) => {
                    let mut writing = inner.writing.lock().unwrap_or_else(PoisonError::into_inner);
                    writing.is_good = n == 0;
                    let tombstones = content.tombstones.into_iter();
                    let tombstones = tombstones.map(|(instance, incarnation)| Tombstone { instance, incarnation });
                    (loaded.entries, loaded.tombstones) = (content.entries.into_iter().map(Arc::new).collect(), tombstones.collect());
                    return loaded;
                }
                Err(Unread::Missing) => {}
                Err(Unread::Bad(why)) => complain(path, &format!("it is not used: {why}")),
            }
        }
        loaded
    }

    /// Keeps a list, some time soon: of several that come while one is written, the last. An empty one that nobody withdrew says
    /// nothing, and is not kept.
    pub(crate) fn save(&self, service: &ServiceKey, entries: Vec<Arc<Entry>>, tombstones: Vec<Tombstone>, watcher: &Arc<dyn Watcher>) {
        let mut writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.0.broken.is_some() || entries.is_empty() && tombstones.is_empty() {
            return;
        }
        let tombstones = tombstones.into_iter().map(|tomb| (tomb.instance, tomb.incarnation)).collect();
        let entries = entries.iter().map(|entry| Entry::clone(entry)).collect();
        writing.next = Some(Content { service: service.clone(), entries, tombstones });
        if !std::mem::replace(&mut writing.under_way, true) {
            let (inner, watcher) = (Arc::clone(&self.0), Arc::clone(watcher));
            farcall_rpc::runtime_handle().spawn_blocking(move || inner.write_all(watcher.as_ref()));
        }
    }
}

impl Inner {
    fn write_all(&self, watcher: &dyn Watcher) {
        loop {
            let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(content) = writing.next.take() else {
                writing.under_way = false;
                return;
            };
            let keep_before = writing.is_good;
            drop(writing);
            let written = write(&self.path, &content, keep_before);
            let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            match written {
                Ok(()) => {
                    (writing.is_good, writing.complained) = (true, false);
                }
                Err(why) => {
                    // Once, until it works again: it would be said with every change.
                    let first = !std::mem::replace(&mut writing.complained, true);
                    drop(writing);
                    if first {
                        watcher.tell(&Event::Cache { path: &self.path, why: &format!("the list is not kept: {why}") });
                    }
                }
            }
        }
    }
}

/// A name as a file's: what could mean something else becomes an underscore.
fn plain(name: &str) -> String {
    let kept = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
    let name: String = name.chars().take(64).map(kept).collect();
    if name.is_empty() { "_".to_owned() } else { name }
}

fn take_slot(folder: &Path, stem: &str) -> Result<(PathBuf, File), String> {
    fs::create_dir_all(folder).map_err(|e| format!("{} cannot be made: {e}", folder.display()))?;
    for slot in 0..MOST_SLOTS {
        let path = folder.join(format!("{stem}.{slot}.list"));
        let lock = path.with_extension("lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&lock);
        let file = file.map_err(|e| format!("{} cannot be opened: {e}", lock.display()))?;
        match file.try_lock() {
            Ok(()) => return Ok((path, file)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(e)) => return Err(format!("{} cannot be locked: {e}", lock.display())),
        }
    }
    Err(format!("all {MOST_SLOTS} slots of {} are taken by other processes", folder.join(stem).display()))
}

/// The file before this one.
fn before(path: &Path) -> PathBuf {
    path.with_extension("before")
}

/// The lists of other slots, the newest first: a process that takes a slot for the first time has none of its own.
fn others(path: &Path) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else { return Vec::new() };
    let Some((stem, _)) = name.split_once('.') else { return Vec::new() };
    let Ok(files) = fs::read_dir(folder) else { return Vec::new() };
    let ours = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.strip_prefix(stem).is_some_and(|rest| rest.starts_with('.') && rest.ends_with(".list"))
    };
    let mut found: Vec<_> = files.flatten().map(|file| file.path()).filter(ours).filter(|other| other != path).collect();
    found.sort_by_cached_key(|path| std::cmp::Reverse(fs::metadata(path).and_then(|meta| meta.modified()).ok()));
    found.truncate(MOST_SLOTS);
    found
}

enum Unread {
    Missing,
    Bad(String),
}

impl From<std::io::Error> for Unread {
    fn from(e: std::io::Error) -> Unread {
        match e.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Unread::Missing,
            _ => Unread::Bad(format!("it cannot be read: {e}")),
        }
    }
}

fn read(path: &Path) -> Result<Content, Unread> {
    let file = File::open(path)?;
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
    let bad = |why: &str| Unread::Bad(why.to_owned());
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(Unread::Bad(format!("it is larger than {LARGEST_FILE} bytes")));
    }
    let Some((head, content)) = bytes.split_at_checked(HEAD) else { return Err(bad("it is cut short")) };
    let (magic, rest) = head.split_at(MAGIC.len());
    let (print, sum) = rest.split_at(16);
    if magic[..7] != MAGIC[..7] {
        return Err(bad("it is no list of farcall's"));
    }
    if magic[7] != MAGIC[7] {
        return Err(Unread::Bad(format!("it has the format {}, and this program reads {}: another version wrote it", magic[7], MAGIC[7])));
    }
    if blake3::hash(content).as_bytes() != sum {
        return Err(bad("its checksum is wrong: it was cut short or damaged"));
    }
    if print != TypeSchema::of::<Content>().fingerprint().0 {
        return Err(bad("its entries have another form: another version of this program wrote it"));
    }
    compact::decode(content).map_err(|e| Unread::Bad(format!("its content cannot be read: {e}")))
}

/// Writes beside, waits until it is on disk, then renames.
fn write(path: &Path, content: &Content, keep_before: bool) -> Result<(), String> {
    let bytes = compact::encode(content).map_err(|e| e.to_string())?;
    let part = path.with_extension("part");
    let put = || -> std::io::Result<()> {
        let mut file = File::create(&part)?;
        file.write_all(&MAGIC)?;
        file.write_all(&TypeSchema::of::<Content>().fingerprint().0)?;
        file.write_all(blake3::hash(&bytes).as_bytes())?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        if keep_before {
            fs::rename(path, before(path))?;
        }
        fs::rename(&part, path)?;
        // The names are on disk, too, once their folder is.
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    put().map_err(|e| {
        let _ = fs::remove_file(&part);
        format!("{}: {e}", part.display())
    })
}

#[cfg(test)]
mod tests;
