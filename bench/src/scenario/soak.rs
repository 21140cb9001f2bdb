//! `soak`: memory stays flat over many calls. Resident memory of client and server is read after a tenth of the calls and
//! after the last; what grows with the number of calls shows, whatever else the machine does.
use crate::child::{Child, ListenAt, Process};
use crate::command::Command;
use crate::config::{ClientConfig, Payload, Transport};
use crate::options::{ATTACHED, Options, Parsed};
use crate::peers::Entry;
use crate::placement;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::time::Duration;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "soak",
        usage: SOAK_USAGE,
        prepare: |words| {
            let plan = Plan::parse(&words.options(SOAK)?)?;
            Ok(Box::new(move || plan.run()))
        },
    },
    Command {
        name: "repeat",
        usage: REPEAT_USAGE,
        prepare: |mut words| {
            let peer = words.peer()?;
            let client = Repeat::parse(&words.options(REPEAT)?)?;
            Ok(Box::new(move || client.run(peer)))
        },
    },
];

const SOAK_USAGE: &str = "\
soak [options]            many calls; fails if memory grows with them
  --peers a,b        peers to look at                              (farcall)
  --calls N          calls of each                                 (1000000)
  --payload p,q      as of run                                     (tiny,order)
  --inflight N       calls in flight                               (16)
  --most-kib K       growth of client or server that is let pass   (512)";
const SOAK: &[&str] = &["--peers", "--calls", "--payload", "--inflight", "--most-kib"];

const REPEAT_USAGE: &str = "repeat PEER --addr A --server-pid PID [--calls N] [--payload P] [--inflight N] [--pin CPU]";
const REPEAT: &[&str] = &["--addr", "--server-pid", "--calls", "--payload", "--inflight", placement::PIN, ATTACHED];

const MAX_CALLS: usize = 1_000_000_000;
const MAX_INFLIGHT: usize = 65_536;
/// The slowest call that is waited for.
const PER_CALL: Duration = Duration::from_micros(500);
const GRACE: Duration = Duration::from_secs(10);

struct Plan {
    peers: Vec<&'static Entry>,
    calls: usize,
    payloads: Vec<Payload>,
    inflight: usize,
    most_kib: u64,
}

/// Resident memory after the warm-up and at the end, as the client process prints it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Growth {
    pub(crate) client_kib: [u64; 2],
    pub(crate) server_kib: [u64; 2],
}

impl Plan {
    fn parse(options: &Options) -> Parsed<Plan> {
        Ok(Plan {
            peers: match options.has("--peers") {
                true => options.peers_over(Transport::Tcp)?,
                false => vec![Entry::named("farcall")?],
            },
            calls: options.count("--calls", "1000000", MAX_CALLS)?,
            payloads: options.list("--payload", "tiny,order")?,
            inflight: options.count("--inflight", "16", MAX_INFLIGHT)?,
            most_kib: options.one("--most-kib", "512")?,
        })
    }

    fn run(&self) -> Result<()> {
        println!("{} calls, {} in flight; resident KiB after a tenth of them and at the end\n\n{HEAD}", self.calls, self.inflight);
        let mut grown = Vec::new();
        for payload in &self.payloads {
            for peer in &self.peers {
                let growth = self.measure(peer, *payload)?;
                let Growth { client_kib: [c0, c1], server_kib: [s0, s1] } = growth;
                println!("{:9} {payload:>9} {c0:>9} {c1:>9} {s0:>9} {s1:>9}", peer.name);
                if growth.most() > self.most_kib {
                    grown.push(format!("{} with {payload}: {} KiB", peer.name, growth.most()));
                }
            }
        }
        ensure!(grown.is_empty(), "memory grew by more than {} KiB: {}", self.most_kib, grown.join(", "));
        Ok(())
    }

    fn measure(&self, peer: &Entry, payload: Payload) -> Result<Growth> {
        let at = ListenAt::new(Transport::Tcp)?;
        let (server, addr) = Child::server(peer, &at.addr, [])?;
        let mut client = Child::client("repeat", peer, self.client_args(payload, &addr, server.pid()))?;
        let line = client.line(GRACE + PER_CALL * self.calls as u32)?;
        serde_json::from_str(&line).with_context(|| format!("the client of {} printed {line:?}", peer.name))
    }

    fn client_args(&self, payload: Payload, addr: &str, server_pid: u32) -> Vec<String> {
        let options = [
            ("--addr", addr.to_string()),
            ("--server-pid", server_pid.to_string()),
            ("--calls", self.calls.to_string()),
            ("--payload", payload.to_string()),
            ("--inflight", self.inflight.to_string()),
        ];
        options.into_iter().flat_map(|(name, value)| [name.to_string(), value]).collect()
    }
}

const HEAD: &str = "peer        payload client at      end server at      end";

impl Growth {
    /// Of the side that has grown most.
    pub(crate) fn most(&self) -> u64 {
        let of = |[before, after]: [u64; 2]| after.saturating_sub(before);
        of(self.client_kib).max(of(self.server_kib))
    }
}

/// The process that makes the calls.
struct Repeat {
    config: ClientConfig,
    calls: usize,
    server_pid: u32,
    process: Process,
}

impl Repeat {
    fn parse(options: &Options) -> Parsed<Repeat> {
        let config = ClientConfig {
            addr: options.required("--addr")?,
            payload: options.one("--payload", "tiny")?,
            inflight: options.count("--inflight", "16", MAX_INFLIGHT)?,
            connections: 1,
        };
        let calls = options.count("--calls", "1000000", MAX_CALLS)?;
        Ok(Repeat { config, calls, server_pid: options.required("--server-pid")?, process: Process::parse(options)? })
    }

    fn run(self, peer: &Entry) -> Result<()> {
        self.process.settle()?;
        let growth = (peer.repeat)(self.config, self.calls, self.server_pid).with_context(|| format!("client of {}", peer.name))?;
        println!("{}", serde_json::to_string(&growth)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Words;

    #[test]
    fn the_client_understands_its_arguments() {
        let plan = Plan::parse(&Words::new(vec!["--calls".into(), "30".into()]).options(SOAK).unwrap()).unwrap();
        let words = Words::new(plan.client_args(Payload::Order, "h:1", 42));
        let Repeat { config, calls, server_pid, .. } = Repeat::parse(&words.options(REPEAT).unwrap()).unwrap();
        assert_eq!((config.payload, config.inflight, calls, server_pid), (Payload::Order, 16, 30, 42));
    }

    #[test]
    fn the_side_that_grew_most_counts() {
        let growth = |client_kib, server_kib| Growth { client_kib, server_kib }.most();
        assert_eq!(growth([10, 15], [10, 12]), 5);
        assert_eq!(growth([10, 8], [10, 17]), 7);
        assert_eq!(growth([10, 8], [10, 9]), 0);
    }
}
