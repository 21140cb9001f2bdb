//! `run`: every cell of the plan in interleaved rounds, a fresh server and client for each.
use crate::args::Plan;
use crate::child::Child;
use crate::config::Payload;
use crate::load::Measurement;
use crate::peers::Entry;
use crate::report::{Results, Row};
use anyhow::{Context, Result, bail};
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

/// A failing cell is tried so often.
const TRIES: usize = 3;
const SERVER_START: Duration = Duration::from_secs(5);
/// For connecting and for the last calls, beyond warm-up and window.
const CLIENT_GRACE: Duration = Duration::from_secs(10);

/// One point of the matrix; every peer is measured at it, one after the other.
#[derive(Clone, Copy)]
pub(crate) struct Cell {
    pub(crate) payload: Payload,
    pub(crate) inflight: usize,
}

pub(crate) fn run(plan: &Plan) -> Result<()> {
    let mut json = plan.json.as_deref().map(open).transpose()?;
    let mut results = Results::new(plan);
    let mut failed = 0;
    for round in 0..plan.rounds {
        for cell in plan.cells() {
            for peer in &plan.peers {
                progress(&format!("round {} of {}: {} {} x{}", round + 1, plan.rounds, peer.name, cell.payload, cell.inflight));
                let Some(measured) = measure_with_retries(plan, peer, cell) else {
                    failed += 1;
                    continue;
                };
                let row = Row::new(plan, peer.name, cell, round, measured);
                if let Some(file) = &mut json {
                    writeln!(file, "{}", serde_json::to_string(&row)?)?;
                }
                results.add(row);
            }
        }
    }
    progress("");
    print!("{}", results.table());
    match failed {
        0 => Ok(()),
        _ => bail!("{failed} measurements are missing: each failed {TRIES} times"),
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).open(path).with_context(|| format!("cannot write {}", path.display()))
}

/// On one line of the terminal; nothing when the errors go to a file.
fn progress(text: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
    }
}

fn measure_with_retries(plan: &Plan, peer: &Entry, cell: Cell) -> Option<Measurement> {
    (1..=TRIES).find_map(|attempt| match measure(plan, peer, cell) {
        Ok(measured) => Some(measured),
        Err(error) => {
            let Cell { payload, inflight } = cell;
            eprintln!("{}, payload {payload}, {inflight} in flight, try {attempt} of {TRIES}: {error:#}", peer.name);
            None
        }
    })
}

fn measure(plan: &Plan, peer: &Entry, cell: Cell) -> Result<Measurement> {
    let mut server = Child::start(format!("server of {}", peer.name), &plan.server_args(peer))?;
    let addr = server.line(SERVER_START).context("no server")?;
    let client_args = plan.client_args(peer, cell, &addr, server.pid());
    let mut client = Child::start(format!("client of {}", peer.name), &client_args)?;
    let line = client.line(plan.warmup + plan.length + CLIENT_GRACE)?;
    serde_json::from_str(&line).with_context(|| format!("the client of {} printed {line:?}", peer.name))
}

impl Plan {
    fn cells(&self) -> impl Iterator<Item = Cell> {
        self.payloads.iter().flat_map(|payload| self.inflight.iter().map(|inflight| Cell { payload: *payload, inflight: *inflight }))
    }

    fn server_args(&self, peer: &Entry) -> Vec<String> {
        let mut args = words(["server", peer.name, "--addr", "127.0.0.1:0"]);
        args.extend(self.pin_args());
        args
    }

    fn client_args(&self, peer: &Entry, cell: Cell, addr: &str, server_pid: u32) -> Vec<String> {
        let mut args = words(["client", peer.name]);
        for (name, value) in [
            ("--addr", addr.to_string()),
            ("--payload", cell.payload.to_string()),
            ("--inflight", cell.inflight.to_string()),
            ("--connections", self.connections.to_string()),
            ("--secs", self.length.as_secs_f64().to_string()),
            ("--warmup", self.warmup.as_secs_f64().to_string()),
            ("--server-pid", server_pid.to_string()),
        ] {
            args.extend([name.to_string(), value]);
        }
        args.extend(self.pin_args());
        args
    }

    fn pin_args(&self) -> impl Iterator<Item = String> {
        self.pin.into_iter().flat_map(|cpu| ["--pin".into(), cpu.to_string()])
    }
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(String::from).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Command, parse};

    /// What `run` gives a child is what the child's parser reads.
    #[test]
    fn children_understand_their_arguments() {
        let Ok(Command::Run(plan)) = parse(words(["--secs", "0.25", "--payload", "64k", "--inflight", "8"]).into_iter()) else { panic!() };
        let (peer, cell) = (plan.peers[0], plan.cells().next().unwrap());
        let Ok(Command::Server(server)) = parse(plan.server_args(peer).into_iter()) else { panic!() };
        assert_eq!((server.peer.name, server.process.pin), (peer.name, plan.pin));
        let Ok(Command::Client(client)) = parse(plan.client_args(peer, cell, "h:1", 42).into_iter()) else { panic!() };
        assert_eq!((client.config.addr.as_str(), client.config.payload, client.config.inflight), ("h:1", cell.payload, 8));
        assert_eq!((client.window.length, client.window.warmup, client.window.server_pid), (plan.length, plan.warmup, Some(42)));
    }
}
