//! `slow-reader`: a server streams to a client that stops reading again and again. What a sender may be ahead of its reader is
//! limited, so neither process may grow, however much there is to send.
use crate::child::{Child, ListenAt, Process};
use crate::command::Command;
use crate::config::{ClientConfig, Payload, Transport};
use crate::flow::Pauses;
use crate::options::{ATTACHED, Options, Parsed, STREAMS};
use crate::peers::Entry;
use crate::placement;
use crate::scenario::soak::Growth;
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "slow-reader",
        usage: SLOW_READER_USAGE,
        prepare: |words| {
            let plan = Plan::parse(&words.options(SLOW_READER)?)?;
            Ok(Box::new(move || plan.run()))
        },
    },
    Command {
        name: "read-slowly",
        usage: READ_SLOWLY_USAGE,
        prepare: |mut words| {
            let peer = words.peer()?;
            let reader = Reader::parse(&words.options(READ_SLOWLY)?)?;
            Ok(Box::new(move || reader.run(peer)))
        },
    },
];

const SLOW_READER_USAGE: &str = "\
slow-reader [options]     a stream whose reader pauses for 5 ms every 64 MiB; fails if memory grows with it
  --peers a,b        peers to look at                              (farcall)
  --gib N            length of the stream                          (10)
  --item N           bytes of an item (64, 64k)                    (64k)
  --most-mib M       growth of a peak that is let pass             (16)";
const SLOW_READER: &[&str] = &["--peers", "--gib", "--item", "--most-mib"];

const READ_SLOWLY_USAGE: &str = "read-slowly PEER --addr A --server-pid PID [--gib N] [--item N] [--pin CPU]";
const READ_SLOWLY: &[&str] = &["--addr", "--server-pid", "--gib", "--item", placement::PIN, ATTACHED];

const MAX_GIB: usize = 10_000;
/// As often as it stops, the sender runs ahead as far as it may; the pauses themselves take 80 ms per GiB.
const EVERY: u64 = 64 << 20;
const PAUSE: Duration = Duration::from_millis(5);
/// The slowest stream that is waited for.
const PER_GIB: Duration = Duration::from_secs(20);
const GRACE: Duration = Duration::from_secs(10);

struct Plan {
    peers: Vec<&'static Entry>,
    gib: usize,
    item: usize,
    most_mib: f64,
}

impl Plan {
    fn parse(options: &Options) -> Parsed<Plan> {
        Ok(Plan {
            peers: match options.has("--peers") {
                true => options.peers_that(|peer| peer.streams().map(drop))?,
                false => vec![Entry::named("farcall")?],
            },
            gib: gib(options)?,
            item: item(options)?,
            most_mib: options.one("--most-mib", "16")?,
        })
    }

    fn run(&self) -> Result<()> {
        let item = Payload::Bytes(self.item);
        println!("{} GiB in items of {item}; peaks of resident KiB before and after the stream\n\n{HEAD}", self.gib);
        let mut grown = Vec::new();
        for peer in &self.peers {
            let began = Instant::now();
            let growth = self.measure(peer)?;
            let Growth { client_kib: [c0, c1], server_kib: [s0, s1] } = growth;
            println!("{:9} {c0:>13} {c1:>9} {s0:>13} {s1:>9} {:>7.1}", peer.name, began.elapsed().as_secs_f64());
            if self.is_too_much(&growth) {
                grown.push(format!("{}: {} KiB", peer.name, growth.most()));
            }
        }
        ensure!(grown.is_empty(), "a peak rose by more than {} MiB: {}", self.most_mib, grown.join(", "));
        Ok(())
    }

    fn is_too_much(&self, growth: &Growth) -> bool {
        growth.most() as f64 > self.most_mib * 1024.0
    }

    fn measure(&self, peer: &Entry) -> Result<Growth> {
        let at = ListenAt::new(Transport::Tcp)?;
        let (server, addr) = Child::server(peer, &at.addr, [STREAMS.to_string()])?;
        let mut reader = Child::client("read-slowly", peer, self.reader_args(&addr, server.pid()))?;
        let line = reader.line(GRACE + PER_GIB * self.gib as u32)?;
        serde_json::from_str(&line).with_context(|| format!("the client of {} printed {line:?}", peer.name))
    }

    fn reader_args(&self, addr: &str, server_pid: u32) -> Vec<String> {
        let options = [
            ("--addr", addr.to_string()),
            ("--server-pid", server_pid.to_string()),
            ("--gib", self.gib.to_string()),
            ("--item", self.item.to_string()),
        ];
        options.into_iter().flat_map(|(name, value)| [name.to_string(), value]).collect()
    }
}

fn gib(options: &Options) -> Parsed<usize> {
    options.count("--gib", "10", MAX_GIB)
}

fn item(options: &Options) -> Parsed<usize> {
    options.size("--item", "64k")
}

const HEAD: &str = "peer      client before     after server before     after    secs";

/// The process that reads.
struct Reader {
    config: ClientConfig,
    pauses: Pauses,
    server_pid: u32,
    process: Process,
}

impl Reader {
    fn parse(options: &Options) -> Parsed<Reader> {
        let config = ClientConfig { addr: options.required("--addr")?, payload: Payload::Tiny, inflight: 1, connections: 1 };
        let pauses = Pauses { bytes: (gib(options)? as u64) << 30, item: item(options)?, every: EVERY, pause: PAUSE };
        Ok(Reader { config, pauses, server_pid: options.required("--server-pid")?, process: Process::parse(options)? })
    }

    fn run(self, peer: &Entry) -> Result<()> {
        self.process.settle()?;
        let streams = peer.streams().map_err(anyhow::Error::msg)?;
        let growth = (streams.read_slowly)(self.config, self.pauses, self.server_pid);
        println!("{}", serde_json::to_string(&growth.with_context(|| format!("client of {}", peer.name))?)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Words;

    fn parse(line: &str) -> Parsed<Plan> {
        Plan::parse(&Words::new(line.split_whitespace().map(String::from).collect()).options(SLOW_READER)?)
    }

    #[test]
    fn the_reader_understands_its_arguments() {
        let plan = parse("--gib 3 --item 128k").unwrap_or_else(|problem| panic!("{problem}"));
        let words = Words::new(plan.reader_args("h:1", 42));
        let Reader { pauses, server_pid, .. } = Reader::parse(&words.options(READ_SLOWLY).unwrap()).unwrap();
        assert_eq!(pauses, Pauses { bytes: 3 << 30, item: 128 << 10, every: EVERY, pause: PAUSE });
        assert_eq!(server_pid, 42);
    }

    #[test]
    fn growth_above_the_bound_is_too_much() {
        let plan = parse("--most-mib 2").unwrap_or_else(|problem| panic!("{problem}"));
        let growth = |client: u64, server: u64| Growth { client_kib: [100, 100 + client], server_kib: [100, 100 + server] };
        assert!(!plan.is_too_much(&growth(2048, 2048)));
        assert!(plan.is_too_much(&growth(2049, 0)) && plan.is_too_much(&growth(0, 2049)));
    }

    #[test]
    fn a_peer_without_streams_is_refused_by_name() {
        assert_eq!(parse("--peers raw-spin").err().as_deref(), Some("raw-spin has no streams here"));
    }
}
