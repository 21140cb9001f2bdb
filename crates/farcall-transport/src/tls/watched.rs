//! Something made of files, made anew when they change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use farcall_core::RpcError;

/// What a file looked like. Equal = not changed.
type Stamp = Option<(SystemTime, u64, u64)>;

/// See the module's text. Nothing runs beside it: files are looked at when it is asked for and the last
/// look is old enough, so that who asks gets nothing older than that.
pub(super) struct Watched<T> {
    load: Box<dyn Fn() -> Result<T, RpcError> + Send + Sync>,
    files: Vec<PathBuf>,
    every: Duration,
    state: Mutex<State<T>>,
}

struct State<T> {
    current: Arc<T>,
    /// Grows with every change.
    generation: u64,
    /// What the files looked like at the last attempt, successful or not: a broken file is told of once.
    stamps: Vec<Stamp>,
    looked: Instant,
}

/// What there is now.
pub(super) struct Now<T> {
    pub(super) current: Arc<T>,
    pub(super) generation: u64,
    /// Why a file that has changed was not taken, told once.
    pub(super) failed: Option<RpcError>,
}

impl<T> Watched<T> {
    pub(super) fn new(
        files: Vec<PathBuf>,
        every: Duration,
        load: impl Fn() -> Result<T, RpcError> + Send + Sync + 'static,
    ) -> Result<Watched<T>, RpcError> {
        // Before they are read: a change in between is found at the next look.
        let stamps = files.iter().map(|f| stamp(f)).collect();
        let current = Arc::new(load()?);
        let state = Mutex::new(State { current, generation: 0, stamps, looked: Instant::now() });
        Ok(Watched { load: Box::new(load), files, every, state })
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is, after a look at the files if the last one is old enough.
    pub(super) fn now(&self) -> Now<T> {
        let mut state = self.state();
        let mut failed = None;
        if !self.files.is_empty() && state.looked.elapsed() >= self.every {
            state.looked = Instant::now();
            let stamps: Vec<Stamp> = self.files.iter().map(|f| stamp(f)).collect();
            if stamps != state.stamps {
                state.stamps = stamps;
                failed = self.load_into(&mut state).err();
            }
        }
        Now { current: Arc::clone(&state.current), generation: state.generation, failed }
    }

    /// Makes it anew now. What cannot be made leaves the old one in its place.
    pub(super) fn reload(&self) -> Result<(), RpcError> {
        let mut state = self.state();
        (state.looked, state.stamps) = (Instant::now(), self.files.iter().map(|f| stamp(f)).collect());
        self.load_into(&mut state)
    }

    fn load_into(&self, state: &mut State<T>) -> Result<(), RpcError> {
        state.current = Arc::new((self.load)()?);
        state.generation += 1;
        Ok(())
    }
}

fn stamp(file: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(file).ok()?;
    // The inode, for files that are replaced by a rename within the clock's grain.
    Some((found.modified().ok()?, found.len(), found.ino()))
}

#[cfg(test)]
mod tests {
    use farcall_core::Code;

    use super::*;

    #[test]
    fn a_changed_file_is_read_and_a_broken_one_is_told_of_once() {
        let path = std::env::temp_dir().join(format!("farcall-watched-{}", std::process::id()));
        let write = |text: &str| {
            let new = path.with_extension("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(&new, &path).unwrap();
        };
        write("1");
        let read = {
            let path = path.clone();
            move || {
                let text = std::fs::read_to_string(&path).unwrap();
                text.parse::<u32>().map_err(|e| RpcError::not_sent(Code::InvalidArgument, e.to_string()))
            }
        };
        let watched = Watched::new(vec![path.clone()], Duration::ZERO, read).unwrap();
        assert_eq!(*watched.now().current, 1);
        write("22");
        let now = watched.now();
        assert_eq!((*now.current, now.generation), (22, 1));
        write("broken");
        assert!(watched.now().failed.is_some());
        let now = watched.now();
        assert_eq!((*now.current, now.generation, now.failed.is_none()), (22, 1, true), "the old one stays, and it was told");
        assert!(watched.reload().is_err(), "asked for, it is told again");
        write("333");
        assert_eq!(*watched.now().current, 333);
        std::fs::remove_file(&path).unwrap();
    }
}
