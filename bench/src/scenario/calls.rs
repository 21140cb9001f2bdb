//! `run`: what unary calls cost. Every cell of the plan in interleaved rounds, a fresh server and client for each.
use crate::child::{Child, Process};
use crate::command::Command;
use crate::config::{ClientConfig, Payload};
use crate::load::{Measurement, Window};
use crate::options::{ATTACHED, Options, Parsed, UNPINNED, cpus};
use crate::peers::Entry;
use crate::report::{Results, Row};
use anyhow::{Context, Result, bail};
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "run",
        usage: RUN_USAGE,
        prepare: |words| {
            let plan = Plan::parse(&words.options(RUN)?)?;
            Ok(Box::new(move || run(&plan)))
        },
    },
    Command {
        name: "client",
        usage: CLIENT_USAGE,
        prepare: |mut words| {
            let peer = words.peer()?;
            let client = Client::parse(&words.options(CLIENT)?)?;
            Ok(Box::new(move || client.run(peer)))
        },
    },
];

const RUN_USAGE: &str = "\
[run] [options]           measure calls; prints a table
  --peers a,b        peers to compare, ratios are to the first     (all)
  --payload p,q      tiny, order, or a byte count: 64, 64k         (tiny,order,64k)
  --inflight n,m     calls in flight over all connections          (1,16,256)
  --connections N    connections of the client                     (1)
  --secs S           measured seconds per cell and round           (1)
  --warmup S         seconds before that                           (0.3)
  --rounds N         rounds, medians are over them                 (5)
  --pin CPU          the core that client and server share         (the last one)
  --unpinned         leave placement to the scheduler
  --json FILE        append one line per peer, cell and round";
const RUN: &[&str] =
    &["--peers", "--payload", "--inflight", "--connections", "--secs", "--warmup", "--rounds", "--pin", UNPINNED, "--json"];

const CLIENT_USAGE: &str = "\
client PEER --addr A [--payload P] [--inflight N] [--connections N] [--secs S] [--warmup S]
                     [--server-pid PID] [--pin CPU]";
const CLIENT: &[&str] = &["--addr", "--payload", "--inflight", "--connections", "--secs", "--warmup", "--server-pid", "--pin", ATTACHED];

const MAX_INFLIGHT: usize = 65_536;
const MAX_CONNECTIONS: usize = 1_024;
const MAX_ROUNDS: usize = 1_000;
/// A failing cell is tried so often.
const TRIES: usize = 3;
/// For connecting and for the last calls, beyond warm-up and window.
const CLIENT_GRACE: Duration = Duration::from_secs(10);

/// What `run` measures.
pub(crate) struct Plan {
    peers: Vec<&'static Entry>,
    payloads: Vec<Payload>,
    inflight: Vec<usize>,
    pub(crate) connections: usize,
    pub(crate) length: Duration,
    warmup: Duration,
    pub(crate) rounds: usize,
    /// The core both processes run on; `None` leaves them to the scheduler.
    pub(crate) pin: Option<usize>,
    json: Option<PathBuf>,
}

impl Plan {
    fn parse(options: &Options) -> Parsed<Plan> {
        let plan = Plan {
            peers: options.peers()?,
            payloads: options.list("--payload", "tiny,order,64k")?,
            inflight: options.counts("--inflight", "1,16,256", MAX_INFLIGHT)?,
            connections: options.count("--connections", "1", MAX_CONNECTIONS)?,
            length: length(options)?,
            warmup: warmup(options)?,
            rounds: options.count("--rounds", "5", MAX_ROUNDS)?,
            pin: match (options.pin()?, options.has(UNPINNED)) {
                (Some(_), true) => return Err("--pin and --unpinned exclude each other".into()),
                (None, false) => cpus()?.last().copied(),
                (pin, _) => pin,
            },
            json: options.maybe("--json")?,
        };
        match plan.inflight.iter().find(|inflight| **inflight < plan.connections) {
            Some(few) => Err(format!("--inflight {few} leaves some of the {} connections without a call", plan.connections)),
            None => Ok(plan),
        }
    }
}

fn length(options: &Options) -> Parsed<Duration> {
    match options.secs("--secs", "1")? {
        Duration::ZERO => Err("--secs must be above 0".into()),
        length => Ok(length),
    }
}

fn warmup(options: &Options) -> Parsed<Duration> {
    options.secs("--warmup", "0.3")
}

/// The process that makes the calls of one cell.
struct Client {
    config: ClientConfig,
    window: Window,
    process: Process,
}

impl Client {
    fn parse(options: &Options) -> Parsed<Client> {
        let config = ClientConfig {
            addr: options.required("--addr")?,
            payload: options.one("--payload", "tiny")?,
            inflight: options.count("--inflight", "16", MAX_INFLIGHT)?,
            connections: options.count("--connections", "1", MAX_CONNECTIONS)?,
        };
        let window = Window { warmup: warmup(options)?, length: length(options)?, server_pid: options.maybe("--server-pid")? };
        Ok(Client { config, window, process: Process::parse(options)? })
    }

    /// Prints the measurement as one line of JSON.
    fn run(self, peer: &Entry) -> Result<()> {
        self.process.settle()?;
        let measured = (peer.drive)(self.config, self.window).with_context(|| format!("client of {}", peer.name))?;
        println!("{}", serde_json::to_string(&measured)?);
        Ok(())
    }
}

/// One point of the matrix; every peer is measured at it, one after the other.
#[derive(Clone, Copy)]
pub(crate) struct Cell {
    pub(crate) payload: Payload,
    pub(crate) inflight: usize,
}

fn run(plan: &Plan) -> Result<()> {
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
    let (server, addr) = Child::server(peer, plan.pin_args())?;
    let mut client = Child::client("client", peer, plan.client_args(cell, &addr, server.pid()))?;
    let line = client.line(plan.warmup + plan.length + CLIENT_GRACE)?;
    serde_json::from_str(&line).with_context(|| format!("the client of {} printed {line:?}", peer.name))
}

impl Plan {
    fn cells(&self) -> impl Iterator<Item = Cell> {
        self.payloads.iter().flat_map(|payload| self.inflight.iter().map(|inflight| Cell { payload: *payload, inflight: *inflight }))
    }

    fn client_args(&self, cell: Cell, addr: &str, server_pid: u32) -> Vec<String> {
        let options = [
            ("--addr", addr.to_string()),
            ("--payload", cell.payload.to_string()),
            ("--inflight", cell.inflight.to_string()),
            ("--connections", self.connections.to_string()),
            ("--secs", self.length.as_secs_f64().to_string()),
            ("--warmup", self.warmup.as_secs_f64().to_string()),
            ("--server-pid", server_pid.to_string()),
        ];
        options.into_iter().flat_map(|(name, value)| [name.to_string(), value]).chain(self.pin_args()).collect()
    }

    fn pin_args(&self) -> impl Iterator<Item = String> {
        self.pin.into_iter().flat_map(|cpu| ["--pin".into(), cpu.to_string()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Words;

    fn plan(line: &str) -> Plan {
        let words = Words::new(line.split_whitespace().map(String::from).collect());
        Plan::parse(&words.options(RUN).unwrap()).unwrap_or_else(|problem| panic!("{line:?}: {problem}"))
    }

    #[test]
    fn nothing_given_means_the_defaults() {
        let plan = plan("");
        assert_eq!(plan.peers.len(), crate::peers::ALL.len());
        assert_eq!(plan.payloads, [Payload::Tiny, Payload::Order, Payload::Bytes(65_536)]);
        assert_eq!((plan.inflight, plan.connections, plan.rounds), (vec![1, 16, 256], 1, 5));
        assert_eq!((plan.length, plan.warmup), (Duration::from_secs(1), Duration::from_millis(300)));
        assert_eq!(plan.pin, cpus().unwrap().last().copied());
        assert_eq!(plan.json, None);
    }

    #[test]
    fn everything_given() {
        let cpu = cpus().unwrap()[0];
        let plan = plan(&format!(
            "--peers raw --payload 64,order --inflight 4 --connections 2 --secs 0.5 --warmup 0 --rounds 1 --pin {cpu} --json out.jsonl"
        ));
        assert_eq!(plan.peers.iter().map(|peer| peer.name).collect::<Vec<_>>(), ["raw"]);
        assert_eq!(plan.payloads, [Payload::Bytes(64), Payload::Order]);
        assert_eq!((plan.inflight, plan.connections, plan.rounds), (vec![4], 2, 1));
        assert_eq!((plan.length, plan.warmup), (Duration::from_millis(500), Duration::ZERO));
        assert_eq!((plan.pin, plan.json), (Some(cpu), Some("out.jsonl".into())));
    }

    #[test]
    fn unpinned_leaves_placement_to_the_scheduler() {
        assert_eq!(plan("--unpinned").pin, None);
    }

    /// What `run` gives its client is what the client's parser reads.
    #[test]
    fn the_client_understands_its_arguments() {
        let plan = plan("--secs 0.25 --payload 64k --inflight 8");
        let cell = plan.cells().next().unwrap();
        let words = Words::new(plan.client_args(cell, "h:1", 42));
        let Client { config, window, .. } = Client::parse(&words.options(CLIENT).unwrap()).unwrap();
        assert_eq!(config, ClientConfig { addr: "h:1".into(), payload: cell.payload, inflight: 8, connections: 1 });
        assert_eq!(window, Window { length: plan.length, warmup: plan.warmup, server_pid: Some(42) });
    }
}
