//! `idle`: what a connection costs a server that nobody talks to. A client process opens many and holds them; the server
//! process's resident memory is compared with what it was before.
//!
//! The kernel's own memory for sockets is not in it, and is the same for every peer.
use crate::child::{Child, ListenAt, Process};
use crate::command::Command;
use crate::config::{ClientConfig, Payload, Transport};
use crate::json_lines::JsonLines;
use crate::options::{ATTACHED, Options, Parsed};
use crate::peers::Entry;
use crate::proc_stat::settled_rss_kib;
use crate::{open_files, placement};
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "idle",
        usage: IDLE_USAGE,
        prepare: |words| {
            let plan = Plan::parse(&words.options(IDLE)?)?;
            Ok(Box::new(move || plan.run()))
        },
    },
    Command {
        name: "hold",
        usage: HOLD_USAGE,
        prepare: |mut words| {
            let peer = words.peer()?;
            let holder = Holder::parse(&words.options(HOLD)?)?;
            Ok(Box::new(move || holder.run(peer)))
        },
    },
];

const IDLE_USAGE: &str = "\
idle [options]            memory of a server with idle connections
  --peers a,b        peers to compare                              (all)
  --connections N    connections held open                         (10000)
  --transport T      tcp, unix, tls or quic                        (tcp)
  --most-kib K       fail if a connection takes more               (no limit)
  --json FILE        append one line per row of the table";
const IDLE: &[&str] = &["--peers", "--connections", "--transport", "--most-kib", "--json"];

const HOLD_USAGE: &str = "hold PEER --addr A [--connections N] [--calls N] [--pin CPU]";
const HOLD: &[&str] = &["--addr", "--connections", "--calls", placement::PIN, ATTACHED];

/// One address has 28 000 ports for clients, unless the system is told otherwise.
const MAX_CONNECTIONS: usize = 25_000;
/// For one more connection, with all its calls.
const PER_CONNECTION: Duration = Duration::from_millis(5);
const GRACE: Duration = Duration::from_secs(10);

/// Calls over each connection before it is idle: what is set up at first use counts too.
const CALLS: [usize; 2] = [0, 1];

struct Plan {
    peers: Vec<&'static Entry>,
    connections: usize,
    transport: Transport,
    most_kib: Option<f64>,
    json: Option<PathBuf>,
}

impl Plan {
    fn parse(options: &Options) -> Parsed<Plan> {
        let transport = options.one("--transport", "tcp")?;
        Ok(Plan {
            peers: options.peers_over(transport)?,
            connections: options.count("--connections", "10000", MAX_CONNECTIONS)?,
            transport,
            most_kib: options.maybe("--most-kib")?,
            json: options.maybe("--json")?,
        })
    }

    fn run(&self) -> Result<()> {
        open_files::allow(self.connections)?;
        let mut json = JsonLines::append_to(self.json.as_deref())?;
        let mut rows = Vec::new();
        println!("{} idle connections over {}\n\n{HEAD}", self.connections, self.transport);
        for calls in CALLS {
            for peer in &self.peers {
                let row = self.measure(peer, calls)?;
                println!("{}", row.line());
                json.add(&row)?;
                rows.push(row);
            }
        }
        self.judge(&rows)
    }

    fn measure(&self, peer: &Entry, calls: usize) -> Result<Row> {
        let at = ListenAt::new(self.transport)?;
        let (server, addr) = Child::server(peer, &at.addr, [])?;
        let before = settled_rss_kib(server.pid())?;
        let mut holder = Child::client("hold", peer, self.holder_args(&addr, calls))?;
        holder.line(GRACE + PER_CONNECTION * self.connections as u32)?;
        let after = settled_rss_kib(server.pid())?;
        let (connections, transport) = (self.connections, self.transport.to_string());
        Ok(Row { peer: peer.name, connections, transport, calls, rss_before_kib: before, rss_after_kib: after })
    }

    fn holder_args(&self, addr: &str, calls: usize) -> Vec<String> {
        let options = [("--addr", addr.to_string()), ("--connections", self.connections.to_string()), ("--calls", calls.to_string())];
        options.into_iter().flat_map(|(name, value)| [name.to_string(), value]).collect()
    }

    fn judge(&self, rows: &[Row]) -> Result<()> {
        let Some(most) = self.most_kib else { return Ok(()) };
        match rows.iter().find(|row| row.kib_per_connection() > most) {
            Some(row) => bail!("{}: {:.1} KiB per connection are more than {most}", row.peer, row.kib_per_connection()),
            None => Ok(()),
        }
    }
}

#[derive(Serialize)]
struct Row {
    peer: &'static str,
    connections: usize,
    transport: String,
    /// Over each connection, before it was idle.
    calls: usize,
    rss_before_kib: u64,
    rss_after_kib: u64,
}

const HEAD: &str = "peer      calls each  RSS before KiB  after KiB  KiB per connection";

impl Row {
    fn kib_per_connection(&self) -> f64 {
        self.rss_after_kib.saturating_sub(self.rss_before_kib) as f64 / self.connections as f64
    }

    fn line(&self) -> String {
        let Row { peer, calls, rss_before_kib, rss_after_kib, .. } = self;
        format!("{peer:9} {calls:>10} {rss_before_kib:>15} {rss_after_kib:>10} {:>19.2}", self.kib_per_connection())
    }
}

/// The process that opens connections and holds them until it is killed.
struct Holder {
    config: ClientConfig,
    calls: usize,
    process: Process,
}

impl Holder {
    fn parse(options: &Options) -> Parsed<Holder> {
        let config = ClientConfig {
            addr: options.required("--addr")?,
            payload: Payload::Tiny,
            inflight: 1,
            connections: options.count("--connections", "1", MAX_CONNECTIONS)?,
        };
        Ok(Holder { config, calls: options.one("--calls", "0")?, process: Process::parse(options)? })
    }

    fn run(self, peer: &Entry) -> Result<()> {
        open_files::allow(self.config.connections)?;
        self.process.settle()?;
        (peer.hold)(self.config, self.calls).with_context(|| format!("client of {}", peer.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Words;

    fn plan(line: &str) -> Plan {
        Plan::parse(&Words::new(line.split_whitespace().map(String::from).collect()).options(IDLE).unwrap()).unwrap()
    }

    #[test]
    fn the_holder_understands_its_arguments() {
        let words = Words::new(plan("--connections 30").holder_args("h:1", 2));
        let Holder { config, calls, .. } = Holder::parse(&words.options(HOLD).unwrap()).unwrap();
        assert_eq!((config.addr.to_string(), config.connections, calls), ("h:1".into(), 30, 2));
    }

    #[test]
    fn a_connection_above_the_limit_fails_and_names_the_peer() {
        let row = |peer, after| Row { peer, connections: 10, transport: "tcp".into(), calls: 1, rss_before_kib: 100, rss_after_kib: after };
        let plan = plan("--most-kib 2");
        plan.judge(&[row("slim", 120)]).unwrap();
        let problem = plan.judge(&[row("slim", 120), row("fat", 121)]).unwrap_err();
        assert_eq!(problem.to_string(), "fat: 2.1 KiB per connection are more than 2");
    }
}
