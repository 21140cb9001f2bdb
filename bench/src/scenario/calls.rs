//! `run`: what unary calls cost. Every cell of the plan in interleaved rounds, a fresh server and client for each.
use crate::child::{Child, ListenAt, Process};
use crate::command::Command;
use crate::config::{ClientConfig, Payload, Transport};
use crate::json_lines::JsonLines;
use crate::load::{Measurement, Window};
use crate::options::{ATTACHED, Options, Parsed};
use crate::peers::Entry;
use crate::placement::{self, Placement};
use crate::report::{Results, Row};
use anyhow::{Context, Result, bail};
use std::fmt::{self, Display};
use std::io::IsTerminal;
use std::path::PathBuf;
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
  --payload p,q      tiny, order, a byte count (64, 64k),          (tiny,order,64k)
                     slow-wait, slow-work: as tiny, one handler in a
                     hundred waits 1 ms or computes 200 us
  --inflight n,m     calls in flight over each connection          (1,16,256)
  --connections n,m  connections of the client                     (1)
  --transport T      tcp, unix, tls or quic                        (tcp)
  --secs S           measured seconds per cell and round           (1)
  --warmup S         seconds before that                           (0.3)
  --rounds N         rounds, medians are over them                 (5)
  --json FILE        append one line per peer, cell and round
  --pin CPU          the core that client and server share         (the last one)
  --pin-apart        client on the first core, server on the last
  --unpinned         leave placement to the scheduler";
const RUN: &[&str] = &[
    "--peers",
    "--payload",
    "--inflight",
    "--connections",
    "--transport",
    "--secs",
    "--warmup",
    "--rounds",
    placement::PIN,
    placement::APART,
    placement::UNPINNED,
    "--json",
];

const CLIENT_USAGE: &str = "\
client PEER --addr A [--payload P] [--inflight N] [--connections N] [--secs S] [--warmup S]
                     [--server-pid PID] [--pin CPU]";
const CLIENT: &[&str] =
    &["--addr", "--payload", "--inflight", "--connections", "--secs", "--warmup", "--server-pid", placement::PIN, ATTACHED];

const MAX_INFLIGHT: usize = 65_536;
const MAX_CONNECTIONS: usize = 1_024;
pub(super) const MAX_ROUNDS: usize = 1_000;
/// A failing cell is tried so often.
const TRIES: usize = 3;
/// For connecting and for the last calls, beyond warm-up and window.
pub(super) const CLIENT_GRACE: Duration = Duration::from_secs(10);

/// What `run` measures.
pub(crate) struct Plan {
    peers: Vec<&'static Entry>,
    payloads: Vec<Payload>,
    inflight: Vec<usize>,
    connections: Vec<usize>,
    pub(crate) transport: Transport,
    pub(crate) length: Duration,
    warmup: Duration,
    pub(crate) rounds: usize,
    pub(crate) placement: Placement,
    json: Option<PathBuf>,
}

impl Plan {
    fn parse(options: &Options) -> Parsed<Plan> {
        let transport = options.one("--transport", "tcp")?;
        let plan = Plan {
            peers: options.peers_over(transport)?,
            payloads: options.list("--payload", "tiny,order,64k")?,
            inflight: options.counts("--inflight", "1,16,256", MAX_INFLIGHT)?,
            connections: options.counts("--connections", "1", MAX_CONNECTIONS)?,
            transport,
            length: length(options, "1")?,
            warmup: warmup(options)?,
            rounds: options.count("--rounds", "5", MAX_ROUNDS)?,
            placement: Placement::parse(options)?,
            json: options.maybe("--json")?,
        };
        let most = plan.cells().iter().map(|cell| cell.inflight * cell.connections).max().unwrap_or(0);
        match most > MAX_INFLIGHT {
            true => Err(format!("{most} calls in flight over all connections are more than {MAX_INFLIGHT}")),
            false => Ok(plan),
        }
    }
}

pub(super) fn length(options: &Options, default: &str) -> Parsed<Duration> {
    match options.secs("--secs", default)? {
        Duration::ZERO => Err("--secs must be above 0".into()),
        length => Ok(length),
    }
}

pub(super) fn warmup(options: &Options) -> Parsed<Duration> {
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
        let window = Window { warmup: warmup(options)?, length: length(options, "1")?, server_pid: options.maybe("--server-pid")? };
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
    /// Over each connection.
    pub(crate) inflight: usize,
    pub(crate) connections: usize,
}

impl Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} in flight x {}", self.payload, self.inflight, self.connections)
    }
}

fn run(plan: &Plan) -> Result<()> {
    let mut json = JsonLines::append_to(plan.json.as_deref())?;
    let mut results = Results::new(plan);
    let mut failed = 0;
    for round in 0..plan.rounds {
        for cell in plan.cells() {
            for peer in &plan.peers {
                progress(&format!("round {} of {}: {} {cell}", round + 1, plan.rounds, peer.name));
                let Some(measured) = with_retries(&format!("{}, {cell}", peer.name), || measure(plan, peer, cell)) else {
                    failed += 1;
                    continue;
                };
                let row = Row::new(plan, peer.name, cell, round, measured);
                json.add(&row)?;
                results.add(row);
            }
        }
    }
    progress("");
    print!("{}", results.table());
    judge(failed)
}

/// An error unless all is measured.
pub(super) fn judge(failed: usize) -> Result<()> {
    match failed {
        0 => Ok(()),
        _ => bail!("{failed} measurements are missing: each failed {TRIES} times"),
    }
}

/// On one line of the terminal; nothing when the errors go to a file.
pub(super) fn progress(text: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
    }
}

pub(super) fn with_retries<T>(what: &str, measure: impl Fn() -> Result<T>) -> Option<T> {
    (1..=TRIES).find_map(|attempt| match measure() {
        Ok(measured) => Some(measured),
        Err(error) => {
            eprintln!("{what}, try {attempt} of {TRIES}: {error:#}");
            None
        }
    })
}

fn measure(plan: &Plan, peer: &Entry, cell: Cell) -> Result<Measurement> {
    let at = ListenAt::new(plan.transport)?;
    let (server, addr) = Child::server(peer, &at.addr, plan.placement.server_args())?;
    let mut client = Child::client("client", peer, plan.client_args(cell, &addr, server.pid()))?;
    let line = client.line(plan.warmup + plan.length + CLIENT_GRACE)?;
    serde_json::from_str(&line).with_context(|| format!("the client of {} printed {line:?}", peer.name))
}

impl Plan {
    fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for &payload in &self.payloads {
            for &inflight in &self.inflight {
                cells.extend(self.connections.iter().map(|&connections| Cell { payload, inflight, connections }));
            }
        }
        cells
    }

    fn client_args(&self, cell: Cell, addr: &str, server_pid: u32) -> Vec<String> {
        let options = [
            ("--addr", addr.to_string()),
            ("--payload", cell.payload.to_string()),
            ("--inflight", cell.inflight.to_string()),
            ("--connections", cell.connections.to_string()),
            ("--secs", self.length.as_secs_f64().to_string()),
            ("--warmup", self.warmup.as_secs_f64().to_string()),
            ("--server-pid", server_pid.to_string()),
        ];
        options.into_iter().flat_map(|(name, value)| [name.to_string(), value]).chain(self.placement.client_args()).collect()
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
        assert_eq!((plan.inflight, plan.connections, plan.rounds), (vec![1, 16, 256], vec![1], 5));
        assert_eq!(plan.transport, Transport::Tcp);
        assert_eq!((plan.length, plan.warmup), (Duration::from_secs(1), Duration::from_millis(300)));
        assert_eq!(plan.placement.name(), "together");
        assert_eq!(plan.json, None);
    }

    #[test]
    fn everything_given() {
        let plan = plan(
            "--peers raw --payload 64,order --inflight 4,8 --connections 2,16 --transport unix --secs 0.5 --warmup 0 --rounds 1 \
             --unpinned --json out.jsonl",
        );
        assert_eq!(plan.peers.iter().map(|peer| peer.name).collect::<Vec<_>>(), ["raw"]);
        let cells: Vec<_> = plan.cells().iter().map(|cell| (cell.payload, cell.inflight, cell.connections)).collect();
        let [bytes, order] = [Payload::Bytes(64), Payload::Order];
        assert_eq!(cells[..5], [(bytes, 4, 2), (bytes, 4, 16), (bytes, 8, 2), (bytes, 8, 16), (order, 4, 2)]);
        assert_eq!((plan.transport, plan.rounds), (Transport::Unix, 1));
        assert_eq!((plan.length, plan.warmup), (Duration::from_millis(500), Duration::ZERO));
        assert_eq!((plan.placement, plan.json), (Placement::Unpinned, Some("out.jsonl".into())));
    }

    /// What `run` gives its client is what the client's parser reads.
    #[test]
    fn the_client_understands_its_arguments() {
        let plan = plan("--secs 0.25 --payload 64k --inflight 8 --connections 3");
        let cell = plan.cells()[0];
        let words = Words::new(plan.client_args(cell, "h:1", 42));
        let Client { config, window, .. } = Client::parse(&words.options(CLIENT).unwrap()).unwrap();
        assert_eq!(config, ClientConfig { addr: "h:1".parse().unwrap(), payload: cell.payload, inflight: 8, connections: 3 });
        assert_eq!(window, Window { length: plan.length, warmup: plan.warmup, server_pid: Some(42) });
    }
}
