//! The server and client processes: what they do, and the handle by which `run` starts, hears and ends them.
use crate::args::{ClientArgs, ProcessArgs, ServerArgs};
use anyhow::{Context, Result, anyhow, bail};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::io::{BufRead, BufReader, Read};
use std::process::{self, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

pub(crate) fn be_server(args: ServerArgs) -> Result<()> {
    settle(&args.process)?;
    (args.peer.serve)(args.config).with_context(|| format!("server of {}", args.peer.name))
}

/// Prints the measurement as one line of JSON.
pub(crate) fn be_client(args: ClientArgs) -> Result<()> {
    settle(&args.process)?;
    let measured = (args.peer.drive)(args.config, args.window).with_context(|| format!("client of {}", args.peer.name))?;
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}

/// Before the runtime starts, so that its threads inherit the affinity.
fn settle(args: &ProcessArgs) -> Result<()> {
    if let Some(cpu) = args.pin {
        let mut set = CpuSet::new();
        set.set(cpu);
        sched_setaffinity(None, &set).with_context(|| format!("cannot run on CPU {cpu}"))?;
    }
    if args.attached {
        thread::Builder::new().name("parent".into()).spawn(|| {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            process::exit(1)
        })?;
    }
    Ok(())
}

/// A running child, killed and reaped when dropped.
pub(crate) struct Child {
    process: process::Child,
    what: String,
    lines: Receiver<String>,
    /// Held open: the child ends when it closes, even if we are killed.
    _stdin: ChildStdin,
}

impl Child {
    /// Starts this same binary with `args`; `what` names the child in errors.
    pub(crate) fn start(what: String, args: &[String]) -> Result<Child> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(args)
            .arg("--attached")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start the {what}"))?;
        let stdin = process.stdin.take().expect("piped");
        let stdout = BufReader::new(process.stdout.take().expect("piped"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Ok(Child { process, what, lines, _stdin: stdin })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The next line of its output.
    pub(crate) fn line(&mut self, within: Duration) -> Result<String> {
        match self.lines.recv_timeout(within) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => bail!("the {} said nothing for {within:?}", self.what),
            Err(RecvTimeoutError::Disconnected) => Err(self.ended()),
        }
    }

    fn ended(&mut self) -> anyhow::Error {
        // Its output is closed, so it is ending; a child that is not would hang us without the kill.
        let status = match self.process.try_wait() {
            Ok(Some(status)) => Ok(status),
            _ => {
                thread::sleep(Duration::from_millis(50));
                let _ = self.process.kill();
                self.process.wait()
            }
        };
        match status {
            Ok(status) => anyhow!("the {} ended early: {status}", self.what),
            Err(error) => anyhow!("the {} is lost: {error}", self.what),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill(); // an error means it has ended by itself
        let _ = self.process.wait();
    }
}
