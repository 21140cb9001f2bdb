//! The server and client processes: what they do, and the handle by which a scenario starts, hears and ends them.
use crate::command::Command as BenchCommand;
use crate::config::{Addr, ServerConfig, Transport};
use crate::options::{ATTACHED, Options, Parsed, STREAMS};
use crate::peers::Entry;
use crate::placement;
use anyhow::{Context, Result, anyhow, bail};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::io::{BufRead, BufReader, Read};
use std::process::{self, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

const SERVER_START: Duration = Duration::from_secs(5);

/// The server process of every scenario.
pub(crate) const SERVER: BenchCommand = BenchCommand {
    name: "server",
    usage: "server PEER [--addr HOST:PORT | unix:PATH] [--pin CPU] [--streams]",
    prepare: |mut words| {
        let peer = words.peer()?;
        let options = words.options(&["--addr", placement::PIN, STREAMS, ATTACHED])?;
        let serve = if options.has(STREAMS) { peer.streams()?.serve } else { peer.serve };
        let config = ServerConfig { addr: options.one("--addr", "127.0.0.1:7100")? };
        let process = Process::parse(&options)?;
        Ok(Box::new(move || {
            process.settle()?;
            serve(config).with_context(|| format!("server of {}", peer.name))
        }))
    },
};

/// What both kinds of child process have in common.
pub(crate) struct Process {
    pin: Option<usize>,
    attached: bool,
}

impl Process {
    pub(crate) fn parse(options: &Options) -> Parsed<Process> {
        Ok(Process { pin: placement::pin(options)?, attached: options.has(ATTACHED) })
    }

    /// Before the runtime starts, so that its threads inherit the affinity.
    pub(crate) fn settle(&self) -> Result<()> {
        if let Some(cpu) = self.pin {
            let mut set = CpuSet::new();
            set.set(cpu);
            sched_setaffinity(None, &set).with_context(|| format!("cannot run on CPU {cpu}"))?;
        }
        if self.attached {
            thread::Builder::new().name("parent".into()).spawn(|| {
                let _ = std::io::stdin().read_to_end(&mut Vec::new());
                process::exit(1)
            })?;
        }
        Ok(())
    }
}

/// Where a server is to listen. A socket's file is removed when this is dropped.
pub(crate) struct ListenAt {
    pub(crate) addr: Addr,
}

impl ListenAt {
    pub(crate) fn new(transport: Transport) -> Result<ListenAt> {
        #[cfg(feature = "secure")]
        if transport.is_secure() {
            crate::certificates::make()?;
        }
        let addr = match transport {
            Transport::Tcp => Addr::Tcp("127.0.0.1:0".into()),
            Transport::Unix => Addr::Unix(std::env::temp_dir().join(format!("farcall-bench-{}.sock", process::id()))),
            Transport::Tls => Addr::Secure("tls://127.0.0.1:0".into()),
            Transport::Quic => Addr::Secure("quic://127.0.0.1:0".into()),
        };
        Ok(ListenAt { addr })
    }
}

impl Drop for ListenAt {
    fn drop(&mut self) {
        if let Addr::Unix(path) = &self.addr {
            let _ = std::fs::remove_file(path);
        }
        #[cfg(feature = "secure")]
        if matches!(self.addr, Addr::Secure(_)) {
            let _ = std::fs::remove_dir_all(crate::certificates::folder());
        }
    }
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
    /// Starts a server and waits until clients can connect; returns where.
    pub(crate) fn server(peer: &Entry, addr: &Addr, args: impl IntoIterator<Item = String>) -> Result<(Child, String)> {
        let what = format!("server of {}", peer.name);
        let mut server = Child::start(what, &["server", peer.name, "--addr", &addr.to_string()], args)?;
        let addr = server.line(SERVER_START).context("no server")?;
        Ok((server, addr))
    }

    /// Starts a client by the command of this name.
    pub(crate) fn client(command: &str, peer: &Entry, args: impl IntoIterator<Item = String>) -> Result<Child> {
        Child::start(format!("client of {}", peer.name), &[command, peer.name], args)
    }

    /// Starts a process that is no peer's.
    pub(crate) fn bare(what: &str, command: &str) -> Result<Child> {
        Child::start(what.to_owned(), &[command], [])
    }

    /// Starts this same binary with `command` and `args`; `what` names the child in errors.
    fn start(what: String, command: &[&str], args: impl IntoIterator<Item = String>) -> Result<Child> {
        let mut process = Command::new(std::env::current_exe()?);
        #[cfg(feature = "secure")]
        process.env(crate::certificates::VARIABLE, crate::certificates::folder());
        let mut process = process
            .args(command)
            .args(args)
            .arg(ATTACHED)
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
