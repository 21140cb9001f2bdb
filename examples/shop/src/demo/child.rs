//! One process: started, its lines read, its death told, its end seen to.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::children::Event;
use crate::race::{Won, race};

/// How long a process may take to end when it is asked to; its own patience is shorter.
const PATIENCE: Duration = Duration::from_secs(8);

/// A process and the tasks that look after it.
pub(crate) struct Running {
    /// `payment-1`
    pub(crate) name: &'static str,
    pub(crate) pid: u32,
    end: oneshot::Sender<()>,
    reader: JoinHandle<()>,
    keeper: JoinHandle<Result<ExitStatus, String>>,
}

impl Running {
    /// Runs this program again, as the role that its name begins with. It ends when its stdin closes, so with us at the latest.
    pub(crate) fn start(name: &'static str, args: &[&str], cache: &Path, events: mpsc::Sender<Event>) -> Result<Running, String> {
        let cannot = |e: std::io::Error| format!("{name} cannot be started: {e}");
        let role = name.split_once('-').map_or(name, |(role, _)| role);
        let mut command = std::process::Command::new(std::env::current_exe().map_err(cannot)?);
        command.arg(role).arg("--until-stdin-closes").args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        // Who is started again under its name finds the lists that it kept.
        command.env("FARCALL_CACHE", cache).env("FARCALL_APPLICATION", name);
        // A group of its own: Ctrl-C reaches us alone, and we end the others in order.
        command.process_group(0);
        let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().map_err(cannot)?;
        let pid = child.id().ok_or_else(|| format!("{name} ended before it began"))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(format!("{name} has no pipes"));
        };
        let (end, told_to_end) = oneshot::channel();
        let reader = tokio::spawn(read(name, stdout, events.clone()));
        let keeper = tokio::spawn(keep(name, child, stdin, told_to_end, events));
        Ok(Running { name, pid, end, reader, keeper })
    }

    /// Kills it without a word.
    pub(crate) async fn kill(self) -> Result<(), String> {
        let name = self.name;
        let ended = self.signalled("-KILL").await?;
        if ended.signal() == Some(9) { Ok(()) } else { Err(format!("{name} could not be killed: {}", manner(ended))) }
    }

    /// Asks it to end as an operator would, and waits until it has. An error unless it ended well.
    pub(crate) async fn stop(self) -> Result<(), String> {
        let name = self.name;
        let ended = tokio::time::timeout(PATIENCE, self.signalled("-TERM")).await;
        let ended = ended.map_err(|_| format!("{name} did not end within {} s of SIGTERM", PATIENCE.as_secs()))??;
        if ended.success() { Ok(()) } else { Err(format!("{name} ended badly on SIGTERM: {}", manner(ended))) }
    }

    async fn signalled(self, signal: &str) -> Result<ExitStatus, String> {
        let sent = tokio::process::Command::new("kill").args([signal, &self.pid.to_string()]).status().await;
        if !sent.as_ref().is_ok_and(ExitStatus::success) {
            return Err(format!("{} could not be sent {signal}: {sent:?}", self.name));
        }
        let kept = self.keeper.await;
        let _ = self.reader.await;
        kept.map_err(|e| format!("{}: {e}", self.name))?
    }

    /// Ends it, by force if it does not by itself. An error unless it ended well.
    pub(crate) async fn end(self) -> Result<(), String> {
        let _ = self.end.send(());
        let kept = self.keeper.await;
        let _ = self.reader.await;
        let status = kept.map_err(|e| format!("{}: {e}", self.name))??;
        match status.success() {
            true => Ok(()),
            false => Err(format!("{} ended badly: {}", self.name, manner(status))),
        }
    }
}

/// Passes its lines on until it closes its stdout.
async fn read(name: &'static str, stdout: ChildStdout, events: mpsc::Sender<Event>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // When nobody listens any more the rest is read all the same, so that it never blocks.
        let _ = events.send(Event::Said(name, line)).await;
    }
}

/// Waits for its death, or for the order to end it.
async fn keep(
    name: &'static str,
    mut child: Child,
    stdin: ChildStdin,
    told_to_end: oneshot::Receiver<()>,
    events: mpsc::Sender<Event>,
) -> Result<ExitStatus, String> {
    let lost = |e: std::io::Error| format!("{name} cannot be waited for: {e}");
    if let Won::First(died) = race(child.wait(), told_to_end).await {
        let status = died.map_err(lost)?;
        let _ = events.send(Event::Died(name, manner(status))).await;
        return Ok(status);
    }
    drop(stdin);
    if let Ok(ended) = tokio::time::timeout(PATIENCE, child.wait()).await {
        return ended.map_err(lost);
    }
    child.kill().await.map_err(lost)?;
    Err(format!("{name} did not end within {} s and was killed", PATIENCE.as_secs()))
}

/// `exit code 70`, `signal 9`
fn manner(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}
