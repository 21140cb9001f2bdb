//! All processes of a demo, and what there is to hear of them.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;

use super::child::Running;
use crate::api::CallBook;
use crate::process::{BOOK, READY, ends};
use crate::race::{Won, race};
use crate::say::say;

/// Events that wait to be looked at. When they are full the processes wait with what they say.
const EVENTS: usize = 256;
/// The longest silence. No call of the shop takes longer than farcall's default deadline, 10 s.
const SILENCE: Duration = Duration::from_secs(60);

/// Something that happened.
pub(crate) enum Event {
    /// A process printed a line.
    Said(&'static str, String),
    /// A process ended without having been told to, in this manner.
    Died(&'static str, String),
    /// We are to end.
    Signal(&'static str),
}

/// The processes in the order in which they were started.
pub(crate) struct Children {
    running: Vec<Running>,
    events: mpsc::Receiver<Event>,
    tell: mpsc::Sender<Event>,
    /// Where they keep the lists of who is where.
    cache: PathBuf,
    /// Those that were ended on purpose, and whose deaths are not news.
    ended: Vec<&'static str>,
}

impl Children {
    /// None yet.
    pub(crate) fn new(cache: &Path) -> Result<Children, String> {
        let (tell, events) = mpsc::channel(EVENTS);
        let (mut signals, of_signal) = (ends(false)?, tell.clone());
        tokio::spawn(async move {
            while let Some(name) = signals.recv().await {
                let _ = of_signal.send(Event::Signal(name)).await;
            }
        });
        Ok(Children { running: Vec::new(), events, tell, cache: cache.to_owned(), ended: Vec::new() })
    }

    /// Starts a process and waits until it is ready: its address.
    pub(crate) async fn start(&mut self, name: &'static str, args: &[&str]) -> Result<String, String> {
        let child = Running::start(name, args, &self.cache, self.tell.clone())?;
        let pid = child.pid;
        self.running.push(child);
        let address = self.line_of(name, READY).await?;
        say(&format!("{name:<11} | pid {pid}, {address}"));
        Ok(address)
    }

    fn take(&mut self, name: &'static str) -> Result<Running, String> {
        let at = self.running.iter().position(|child| child.name == name).ok_or_else(|| format!("there is no {name}"))?;
        self.ended.push(name);
        Ok(self.running.remove(at))
    }

    /// Kills one without a word.
    pub(crate) async fn kill(&mut self, name: &'static str) -> Result<(), String> {
        self.take(name)?.kill().await?;
        say(&format!("{name:<11} | killed"));
        Ok(())
    }

    /// Asks one to end, which it must do well: what it counted.
    pub(crate) async fn stop(&mut self, name: &'static str) -> Result<CallBook, String> {
        let running = self.take(name)?;
        // It is listened to meanwhile, or it could not say what it says.
        let stopping = tokio::spawn(running.stop());
        let book = self.line_of(name, BOOK).await;
        stopping.await.map_err(|e| format!("{name}: {e}"))??;
        say(&format!("{name:<11} | ended on SIGTERM, exit code 0"));
        farcall::json::decode(book?.as_bytes()).map_err(|e| format!("{name}'s last words: {e}"))
    }

    /// Whether a death was ours; each is once.
    fn was_ended(&mut self, name: &str) -> bool {
        let at = self.ended.iter().position(|ended| *ended == name);
        at.map(|at| self.ended.remove(at)).is_some()
    }

    /// Waits for a line of `name` that begins with `start`: the rest of it. Other lines are relayed.
    async fn line_of(&mut self, name: &str, start: &str) -> Result<String, String> {
        loop {
            let event = tokio::time::timeout(SILENCE, self.events.recv()).await;
            let event = event.map_err(|_| format!("nothing was heard for {} s while waiting for {name}", SILENCE.as_secs()))?;
            match event.ok_or_else(|| "the launcher lost its processes".to_owned())? {
                Event::Said(who, line) if who == name && line.starts_with(start) => return Ok(line[start.len()..].to_owned()),
                event => self.hear(event)?,
            }
        }
    }

    /// Does something, and listens to the processes meanwhile: an error if one of them dies.
    pub(crate) async fn during<T>(&mut self, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
        let mut work = std::pin::pin!(work);
        loop {
            match race(&mut work, self.events.recv()).await {
                Won::First(done) => return done,
                Won::Second(Some(event)) => self.hear(event)?,
                Won::Second(None) => return Err("the launcher lost its processes".to_owned()),
            }
        }
    }

    fn hear(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Said(who, line) => {
                // What a process counted is for those who asked it to end.
                if !line.starts_with(BOOK) {
                    say(&format!("{who:<11} | {line}"));
                }
                Ok(())
            }
            Event::Died(who, _) if self.was_ended(who) => Ok(()),
            Event::Died(who, manner) => Err(died(who, &manner)),
            Event::Signal(name) => Err(format!("{name}: interrupted before the ledger")),
        }
    }

    /// Relays lines until we are told to end; an error if a process dies first.
    pub(crate) async fn until_signal(&mut self) -> Result<(), String> {
        while let Some(event) = self.events.recv().await {
            match event {
                Event::Signal(_) => break,
                event => self.hear(event)?,
            }
        }
        Ok(())
    }

    /// The death of a process, if one is heard of within this time.
    pub(crate) async fn death_within(&mut self, time: Duration) -> Option<String> {
        tokio::time::timeout(time, self.until_signal()).await.ok()?.err()
    }

    /// Ends all, callers before their providers and the registry last, and returns when all are gone.
    pub(crate) async fn end(mut self) -> Result<(), String> {
        drop(self.events);
        let mut result = Ok(());
        self.running.sort_by_key(|child| ORDER.iter().position(|role| child.name.starts_with(role)));
        for child in self.running.into_iter().rev() {
            result = result.and(child.end().await);
        }
        result
    }
}

/// Providers before their callers.
const ORDER: [&str; 6] = ["registry", "journal", "payment", "warehouse", "order", "customer"];

fn died(name: &str, manner: &str) -> String {
    format!("{name} died ({manner}); the others are ended")
}
