//! `streams`: what the items of a stream cost, in both directions. One stream over one connection; every cell in interleaved
//! rounds, a fresh server and client for each.
use super::calls::{CLIENT_GRACE, MAX_ROUNDS, judge, length, progress, warmup, with_retries};
use crate::child::{Child, ListenAt, Process};
use crate::command::Command;
use crate::config::{ClientConfig, Payload, Transport};
use crate::flow::{Direction, Flow};
use crate::json_lines::JsonLines;
use crate::load::Window;
use crate::options::{ATTACHED, Options, Parsed, STREAMS};
use crate::peers::Entry;
use crate::placement::{self, Placement};
use crate::report::{median, three_digits};
use anyhow::{Context, Result};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "streams",
        usage: STREAMS_USAGE,
        prepare: |words| {
            let plan = Plan::parse(&words.options(STREAMS_OPTIONS)?)?;
            Ok(Box::new(move || plan.run()))
        },
    },
    Command {
        name: "flow",
        usage: FLOW_USAGE,
        prepare: |mut words| {
            let peer = words.peer()?;
            let client = Client::parse(&words.options(FLOW)?)?;
            Ok(Box::new(move || client.run(peer)))
        },
    },
];

const STREAMS_USAGE: &str = "\
streams [options]         measure a stream's items; prints a table
  --peers a,b        peers to compare, ratios are to the first     (all with streams)
  --items n,m        bytes of an item (64, 64k)                    (64,64k)
  --direction d,e    down (the server sends), up (the client)      (down,up)
  --secs, --warmup, --rounds, --json, --pin, --pin-apart, --unpinned as of run";
const STREAMS_OPTIONS: &[&str] = &[
    "--peers",
    "--items",
    "--direction",
    "--secs",
    "--warmup",
    "--rounds",
    placement::PIN,
    placement::APART,
    placement::UNPINNED,
    "--json",
];

const FLOW_USAGE: &str = "flow PEER --addr A [--direction D] [--item N] [--secs S] [--warmup S] [--server-pid PID] [--pin CPU]";
const FLOW: &[&str] = &["--addr", "--direction", "--item", "--secs", "--warmup", "--server-pid", placement::PIN, ATTACHED];

struct Plan {
    peers: Vec<&'static Entry>,
    items: Vec<usize>,
    directions: Vec<Direction>,
    length: Duration,
    warmup: Duration,
    rounds: usize,
    placement: Placement,
    json: Option<PathBuf>,
}

/// One point of the matrix.
#[derive(Clone, Copy, PartialEq)]
struct Cell {
    direction: Direction,
    item: usize,
}

impl Plan {
    fn parse(options: &Options) -> Parsed<Plan> {
        Ok(Plan {
            peers: options.peers_that(|peer| peer.streams().map(drop))?,
            items: options.sizes("--items", "64,64k")?,
            directions: options.list("--direction", "down,up")?,
            length: length(options, "1")?,
            warmup: warmup(options)?,
            rounds: options.count("--rounds", "5", MAX_ROUNDS)?,
            placement: Placement::parse(options)?,
            json: options.maybe("--json")?,
        })
    }

    fn cells(&self) -> Vec<Cell> {
        let with_item = |&item: &usize| self.directions.iter().map(move |&direction| Cell { direction, item });
        self.items.iter().flat_map(with_item).collect()
    }

    fn run(&self) -> Result<()> {
        let mut json = JsonLines::append_to(self.json.as_deref())?;
        let (mut rows, mut failed) = (Vec::new(), 0);
        for round in 0..self.rounds {
            for cell in self.cells() {
                for peer in &self.peers {
                    let what = format!("{}, {} items of {}", peer.name, cell.direction, Payload::Bytes(cell.item));
                    progress(&format!("round {} of {}: {what}", round + 1, self.rounds));
                    let Some(flow) = with_retries(&what, || self.measure(peer, cell)) else {
                        failed += 1;
                        continue;
                    };
                    let row = Row::new(peer.name, cell, self.placement.name(), round, flow);
                    json.add(&row)?;
                    rows.push(row);
                }
            }
        }
        progress("");
        println!("One stream, {}, medians of {} x {:?}\n\n{HEAD}", self.placement.describe(), self.rounds, self.length);
        print!("{}", self.table(&rows));
        judge(failed)
    }

    fn measure(&self, peer: &Entry, cell: Cell) -> Result<Flow> {
        let at = ListenAt::new(Transport::Tcp)?;
        let server_args = [STREAMS.to_string()].into_iter().chain(self.placement.server_args());
        let (server, addr) = Child::server(peer, &at.addr, server_args)?;
        let mut client = Child::client("flow", peer, self.client_args(cell, &addr, server.pid()))?;
        let line = client.line(self.warmup + self.length + CLIENT_GRACE)?;
        serde_json::from_str(&line).with_context(|| format!("the client of {} printed {line:?}", peer.name))
    }

    fn client_args(&self, cell: Cell, addr: &str, server_pid: u32) -> Vec<String> {
        let options = [
            ("--addr", addr.to_string()),
            ("--direction", cell.direction.to_string()),
            ("--item", cell.item.to_string()),
            ("--secs", self.length.as_secs_f64().to_string()),
            ("--warmup", self.warmup.as_secs_f64().to_string()),
            ("--server-pid", server_pid.to_string()),
        ];
        options.into_iter().flat_map(|(name, value)| [name.to_string(), value]).chain(self.placement.client_args()).collect()
    }

    /// A line per cell and peer. Ratios are to the first peer that was measured at the cell.
    fn table(&self, rows: &[Row]) -> String {
        let mut table = String::new();
        for cell in self.cells() {
            let in_cell = || rows.iter().filter(|row| row.cell == cell);
            let anchor = in_cell().next().map(|row| row.peer);
            for peer in &self.peers {
                let of = |name: &str, value: fn(&Flow) -> f64| {
                    median(in_cell().filter(|row| row.peer == name).map(|row| value(&row.flow)).collect())
                };
                let [rate, cpu, client, server]: [fn(&Flow) -> f64; 4] =
                    [|f| f.items_per_s, |f| f.cpu_us_per_item, |f| f.client_cpu_us_per_item, |f| f.server_cpu_us_per_item];
                let ratio = |value| of(peer.name, value) / anchor.map_or(f64::NAN, |anchor| of(anchor, value));
                table.push_str(&format!(
                    "{:9} {:>9} {:>6} {:>10.0} {:>8.3} {:>6.2} {:>9} {:>6.2} {:>8} {:>8} {:>7.1}\n",
                    peer.name,
                    Payload::Bytes(cell.item).to_string(),
                    cell.direction.to_string(),
                    of(peer.name, rate),
                    of(peer.name, |f| f.gib_per_s),
                    ratio(rate),
                    three_digits(of(peer.name, cpu)),
                    ratio(cpu),
                    three_digits(of(peer.name, client)),
                    three_digits(of(peer.name, server)),
                    of(peer.name, |f| f.rss_kib as f64) / 1024.0,
                ));
            }
        }
        table
    }
}

const HEAD: &str = "peer           item stream    items/s    GiB/s  ratio    CPU us  ratio   client   server RSS MiB";

#[derive(Serialize)]
struct Row {
    peer: &'static str,
    item: usize,
    direction: String,
    placement: &'static str,
    round: usize,
    #[serde(flatten)]
    flow: Flow,
    #[serde(skip)]
    cell: Cell,
}

impl Row {
    fn new(peer: &'static str, cell: Cell, placement: &'static str, round: usize, flow: Flow) -> Row {
        Row { peer, item: cell.item, direction: cell.direction.to_string(), placement, round, flow, cell }
    }
}

/// The process at the other end of the stream.
struct Client {
    config: ClientConfig,
    direction: Direction,
    item: usize,
    window: Window,
    process: Process,
}

impl Client {
    fn parse(options: &Options) -> Parsed<Client> {
        let config = ClientConfig { addr: options.required("--addr")?, payload: Payload::Tiny, inflight: 1, connections: 1 };
        let window = Window { warmup: warmup(options)?, length: length(options, "1")?, server_pid: options.maybe("--server-pid")? };
        let item = options.size("--item", "64")?;
        Ok(Client { config, direction: options.one("--direction", "down")?, item, window, process: Process::parse(options)? })
    }

    /// Prints what was measured as one line of JSON.
    fn run(self, peer: &Entry) -> Result<()> {
        self.process.settle()?;
        let streams = peer.streams().map_err(anyhow::Error::msg)?;
        let flow = (streams.flow)(self.config, self.direction, self.item, self.window);
        println!("{}", serde_json::to_string(&flow.with_context(|| format!("client of {}", peer.name))?)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Words;

    fn parse(line: &str) -> Parsed<Plan> {
        Plan::parse(&Words::new(line.split_whitespace().map(String::from).collect()).options(STREAMS_OPTIONS)?)
    }

    #[test]
    fn the_client_understands_its_arguments() {
        let plan = parse("--items 64k --direction up --secs 0.25").unwrap_or_else(|problem| panic!("{problem}"));
        let words = Words::new(plan.client_args(plan.cells()[0], "h:1", 42));
        let Client { direction, item, window, .. } = Client::parse(&words.options(FLOW).unwrap()).unwrap();
        assert_eq!((direction, item), (Direction::Up, 65_536));
        assert_eq!(window, Window { length: plan.length, warmup: plan.warmup, server_pid: Some(42) });
    }

    #[test]
    fn what_cannot_stream_is_refused_by_name() {
        for (line, expected) in [
            ("--peers raw,raw-spin", "raw-spin has no streams here"),
            ("--items order", "--items order is no byte count (64, 64k)"),
            ("--items 0", "--items 0 is no byte count (64, 64k)"),
            ("--direction out", "--direction \"out\": neither down (the server sends) nor up (the client sends)"),
        ] {
            assert_eq!(parse(line).err().as_deref(), Some(expected), "{line:?}");
        }
        assert!(parse("").unwrap_or_else(|problem| panic!("{problem}")).peers.iter().all(|peer| peer.streams().is_ok()));
    }

    #[test]
    fn ratios_are_to_the_first_peer_of_the_same_cell() {
        let plan = parse("--peers raw,farcall --items 64 --direction down").unwrap_or_else(|problem| panic!("{problem}"));
        let row = |peer, round, items_per_s, cpu| {
            let flow = Flow {
                items_per_s,
                gib_per_s: 1.0,
                cpu_us_per_item: cpu,
                client_cpu_us_per_item: cpu / 2.0,
                server_cpu_us_per_item: cpu / 2.0,
                rss_kib: 2048,
            };
            Row::new(peer, plan.cells()[0], "apart", round, flow)
        };
        let table = plan.table(&[row("raw", 0, 100.0, 1.0), row("farcall", 0, 30.0, 4.0), row("raw", 1, 300.0, 3.0)]);
        let fields: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        let picked: Vec<_> = fields.iter().map(|f| [f[0], f[3], f[5], f[6], f[7]]).collect();
        assert_eq!(picked, [["raw", "200", "1.00", "2.000", "1.00"], ["farcall", "30", "0.15", "4.000", "2.00"]]);
    }
}
