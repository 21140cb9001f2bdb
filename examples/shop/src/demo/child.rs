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
    pub(crate) role: &'static str,
    pub(crate) pid: u32,
    end: oneshot::Sender<()>,
    reader: JoinHandle<()>,
    keeper: JoinHandle<Result<ExitStatus, String>>,
}

impl Running {
    /// Runs this program again, as `role`. It ends when its stdin closes, so with us at the latest.
    pub(crate) fn start(role: &'static str, args: &[&str], cache: &Path, events: mpsc::Sender<Event>) -> Result<Running, String> {
        let cannot = |e: std::io::Error| format!("{role} cannot be started: {e}");
        let mut command = std::process::Command::new(std::env::current_exe().map_err(cannot)?);
        command.arg(role).arg("--until-stdin-closes").args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.env("FARCALL_CACHE", cache);
        // A group of its own: Ctrl-C reaches us alone, and we end the others in order.
        command.process_group(0);
        let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().map_err(cannot)?;
        let pid = child.id().ok_or_else(|| format!("{role} ended before it began"))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(format!("{role} has no pipes"));
        };
        let (end, told_to_end) = oneshot::channel();
        let reader = tokio::spawn(read(role, stdout, events.clone()));
        let keeper = tokio::spawn(keep(role, child, stdin, told_to_end, events));
        Ok(Running { role, pid, end, reader, keeper })
    }

    /// Kills it without a word.
    pub(crate) async fn kill(self) -> Result<(), String> {
        let pid = self.pid.to_string();
        let killed = tokio::process::Command::new("kill").args(["-KILL", &pid]).status().await;
        let kept = self.keeper.await;
        let _ = self.reader.await;
        match (killed, kept) {
            (Ok(status), Ok(Ok(ended))) if status.success() && ended.signal() == Some(9) => Ok(()),
            other => Err(format!("{} could not be killed: {other:?}", self.role)),
        }
    }

    /// Ends it, by force if it does not by itself. An error unless it ended well.
    pub(crate) async fn end(self) -> Result<(), String> {
        let _ = self.end.send(());
        let kept = self.keeper.await;
        let _ = self.reader.await;
        let status = kept.map_err(|e| format!("{}: {e}", self.role))??;
        match status.success() {
            true => Ok(()),
            false => Err(format!("{} ended badly: {}", self.role, manner(status))),
        }
    }
}

/// Passes its lines on until it closes its stdout.
async fn read(role: &'static str, stdout: ChildStdout, events: mpsc::Sender<Event>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // When nobody listens any more the rest is read all the same, so that it never blocks.
        let _ = events.send(Event::Said(role, line)).await;
    }
}

/// Waits for its death, or for the order to end it.
async fn keep(
    role: &'static str,
    mut child: Child,
    stdin: ChildStdin,
    told_to_end: oneshot::Receiver<()>,
    events: mpsc::Sender<Event>,
) -> Result<ExitStatus, String> {
    let lost = |e: std::io::Error| format!("{role} cannot be waited for: {e}");
    if let Won::First(died) = race(child.wait(), told_to_end).await {
        let status = died.map_err(lost)?;
        let _ = events.send(Event::Died(role, manner(status))).await;
        return Ok(status);
    }
    drop(stdin);
    if let Ok(ended) = tokio::time::timeout(PATIENCE, child.wait()).await {
        return ended.map_err(lost);
    }
    child.kill().await.map_err(lost)?;
    Err(format!("{role} did not end within {} s and was killed", PATIENCE.as_secs()))
}

/// `exit code 70`, `signal 9`
fn manner(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}
