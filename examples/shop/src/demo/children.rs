//! All processes of a demo, and what there is to hear of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;

use super::child::Running;
use crate::customer::DONE;
use crate::process::{READY, ends};
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
    /// Who has said that it is done, while another was waited for.
    done: Vec<&'static str>,
    /// Roles that were killed on purpose, and whose deaths are not news.
    killed: Vec<&'static str>,
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
        Ok(Children { running: Vec::new(), events, tell, cache: cache.to_owned(), killed: Vec::new(), done: Vec::new() })
    }

    /// Starts a process and waits until it is ready: its address.
    pub(crate) async fn start(&mut self, role: &'static str, args: &[&str]) -> Result<String, String> {
        let child = Running::start(role, args, &self.cache, self.tell.clone())?;
        let pid = child.pid;
        self.running.push(child);
        let address = self.line_of(role, READY).await?;
        say(&format!("{role:<9} | pid {pid}, {address}"));
        Ok(address)
    }

    /// Kills one without a word.
    pub(crate) async fn kill(&mut self, role: &'static str) -> Result<(), String> {
        let at = self.running.iter().position(|child| child.role == role).ok_or_else(|| format!("there is no {role} to kill"))?;
        self.killed.push(role);
        self.running.remove(at).kill().await
    }

    /// Whether a death was ours; each is once.
    fn was_killed(&mut self, role: &str) -> bool {
        let at = self.killed.iter().position(|killed| *killed == role);
        at.map(|at| self.killed.remove(at)).is_some()
    }

    /// Waits for a line of `role` that begins with `start`: the rest of it. Other lines are relayed.
    pub(crate) async fn line_of(&mut self, role: &str, start: &str) -> Result<String, String> {
        if start == DONE && self.done.contains(&role) {
            return Ok(String::new());
        }
        loop {
            let event = tokio::time::timeout(SILENCE, self.events.recv()).await;
            match event.map_err(|_| format!("nothing was heard for {} s while waiting for {role}", SILENCE.as_secs()))? {
                Some(Event::Said(who, line)) => match line.strip_prefix(start).filter(|_| who == role) {
                    Some(rest) => return Ok(rest.to_owned()),
                    None => {
                        self.done.extend((line == DONE).then_some(who));
                        say(&format!("{who:<9} | {line}"));
                    }
                },
                Some(Event::Died(who, _)) if self.was_killed(who) => {}
                Some(Event::Died(who, manner)) => return Err(died(who, &manner)),
                Some(Event::Signal(name)) => return Err(format!("{name}: interrupted before the ledger")),
                None => return Err("the launcher lost its processes".to_owned()),
            }
        }
    }

    /// Relays lines until we are told to end; an error if a process dies first.
    pub(crate) async fn until_signal(&mut self) -> Result<(), String> {
        while let Some(event) = self.events.recv().await {
            match event {
                Event::Said(who, line) => say(&format!("{who:<9} | {line}")),
                Event::Died(who, _) if self.was_killed(who) => {}
                Event::Died(who, manner) => return Err(died(who, &manner)),
                Event::Signal(_) => break,
            }
        }
        Ok(())
    }

    /// The death of a process, if one is heard of within this time.
    pub(crate) async fn death_within(&mut self, time: Duration) -> Option<String> {
        tokio::time::timeout(time, self.until_signal()).await.ok()?.err()
    }

    /// Ends all, callers before their providers, and returns when all are gone.
    pub(crate) async fn end(self) -> Result<(), String> {
        drop(self.events);
        let mut result = Ok(());
        for child in self.running.into_iter().rev() {
            result = result.and(child.end().await);
        }
        result
    }
}

fn died(role: &str, manner: &str) -> String {
    format!("{role} died ({manner}); the others are ended")
}
