//! `fair`: what a small call waits because of what else goes over its connection: large replies, or a stream that is read
//! slowly. (Slow handlers are payloads of `run`.)
use super::calls::{CLIENT_GRACE, MAX_ROUNDS, judge, length, progress, warmup, with_retries};
use crate::child::{Child, ListenAt, Process};
use crate::command::Command;
use crate::company::{Beside, Company};
use crate::config::{ClientConfig, Payload, Transport};
use crate::json_lines::JsonLines;
use crate::load::Window;
use crate::options::{ATTACHED, Options, Parsed};
use crate::peers::Entry;
use crate::placement::{self, Placement};
use crate::report::median;
use anyhow::{Context, Result};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "fair",
        usage: FAIR_USAGE,
        prepare: |words| {
            let plan = Plan::parse(&words.options(FAIR)?)?;
            Ok(Box::new(move || plan.run()))
        },
    },
    Command {
        name: "beside",
        usage: BESIDE_USAGE,
        prepare: |mut words| {
            let peer = words.peer()?;
            let client = Client::parse(&words.options(BESIDE)?)?;
            Ok(Box::new(move || client.run(peer)))
        },
    },
];

const FAIR_USAGE: &str = "\
fair [options]            small calls alone, beside 100 MB replies, beside a stream with a slow reader
  --peers a,b        peers to look at                              (farcall)
  --inflight N       small calls in flight                         (1)
  --secs S           measured seconds per cell and round           (2)
  --warmup, --rounds, --json, --pin, --pin-apart, --unpinned as of run";
const FAIR: &[&str] =
    &["--peers", "--inflight", "--secs", "--warmup", "--rounds", placement::PIN, placement::APART, placement::UNPINNED, "--json"];

const BESIDE_USAGE: &str = "\
beside PEER --addr A [--beside nothing|large|slow-reader] [--inflight N] [--secs S] [--warmup S]
                     [--server-pid PID] [--pin CPU]";
const BESIDE: &[&str] = &["--addr", "--beside", "--inflight", "--secs", "--warmup", "--server-pid", placement::PIN, ATTACHED];

const MAX_INFLIGHT: usize = 65_536;
/// What farcall cuts large bodies into; the other peers' p99 is set beside the same measure.
const FRAGMENT: f64 = 65_536.0;

struct Plan {
    peers: Vec<&'static Entry>,
    inflight: usize,
    length: Duration,
    warmup: Duration,
    rounds: usize,
    placement: Placement,
    json: Option<PathBuf>,
}

impl Plan {
    fn parse(options: &Options) -> Parsed<Plan> {
        Ok(Plan {
            peers: match options.has("--peers") {
                true => options.peers_that(|peer| peer.mixing().map(drop))?,
                false => vec![Entry::named("farcall")?],
            },
            inflight: options.count("--inflight", "1", MAX_INFLIGHT)?,
            length: length(options, "2")?,
            warmup: warmup(options)?,
            rounds: options.count("--rounds", "5", MAX_ROUNDS)?,
            placement: Placement::parse(options)?,
            json: options.maybe("--json")?,
        })
    }

    fn run(&self) -> Result<()> {
        let mut json = JsonLines::append_to(self.json.as_deref())?;
        let (mut rows, mut failed) = (Vec::new(), 0);
        for round in 0..self.rounds {
            for beside in Beside::ALL {
                for peer in &self.peers {
                    let what = format!("{}, small calls beside {beside}", peer.name);
                    progress(&format!("round {} of {}: {what}", round + 1, self.rounds));
                    let Some(company) = with_retries(&what, || self.measure(peer, beside)) else {
                        failed += 1;
                        continue;
                    };
                    let (placement, inflight) = (self.placement.name(), self.inflight);
                    let row = Row { peer: peer.name, beside, beside_name: beside.to_string(), inflight, placement, round, company };
                    json.add(&row)?;
                    rows.push(row);
                }
            }
        }
        progress("");
        let (placement, rounds, length) = (self.placement.describe(), self.rounds, self.length);
        println!("Small calls, {} in flight, {placement}, medians of {rounds} x {length:?}\n\n{HEAD}", self.inflight);
        self.peers.iter().for_each(|peer| print!("{}", table(peer.name, &rows)));
        judge(failed)
    }

    fn measure(&self, peer: &Entry, beside: Beside) -> Result<Company> {
        let at = ListenAt::new(Transport::Tcp)?;
        let (server, addr) = Child::server(peer, &at.addr, self.placement.server_args())?;
        let mut client = Child::client("beside", peer, self.client_args(beside, &addr, server.pid()))?;
        let line = client.line(self.warmup + self.length + CLIENT_GRACE)?;
        serde_json::from_str(&line).with_context(|| format!("the client of {} printed {line:?}", peer.name))
    }

    fn client_args(&self, beside: Beside, addr: &str, server_pid: u32) -> Vec<String> {
        let options = [
            ("--addr", addr.to_string()),
            ("--beside", beside.to_string()),
            ("--inflight", self.inflight.to_string()),
            ("--secs", self.length.as_secs_f64().to_string()),
            ("--warmup", self.warmup.as_secs_f64().to_string()),
            ("--server-pid", server_pid.to_string()),
        ];
        options.into_iter().flat_map(|(name, value)| [name.to_string(), value]).chain(self.placement.client_args()).collect()
    }
}

#[derive(Serialize)]
struct Row {
    peer: &'static str,
    #[serde(skip)]
    beside: Beside,
    #[serde(rename = "beside")]
    beside_name: String,
    inflight: usize,
    placement: &'static str,
    round: usize,
    #[serde(flatten)]
    company: Company,
}

const HEAD: &str = "\
peer      beside       calls/s   p50 us   p99 us p99.9 us  p99 more us  beside GiB/s  64 KiB take us  p99 more in 64 KiB  CPU us";

/// The lines of one peer. What company costs is its p99 less the p99 alone; of large replies, whose speed nothing else limits,
/// that is also told in the time that 64 KiB of them take.
fn table(peer: &str, rows: &[Row]) -> String {
    let of = |beside, value: fn(&Company) -> f64| {
        median(rows.iter().filter(|row| row.peer == peer && row.beside == beside).map(|row| value(&row.company)).collect())
    };
    let line = |beside| {
        let bytes_per_s = of(beside, |c| c.beside_bytes_per_s);
        let p99 = |beside| of(beside, |c| c.calls.p99_us);
        let more = p99(beside) - p99(Beside::Nothing);
        let [fragment_us, fragments] = match beside {
            Beside::Large => [FRAGMENT / bytes_per_s * 1e6, more / (FRAGMENT / bytes_per_s * 1e6)].map(|value| format!("{value:.1}")),
            Beside::Nothing | Beside::SlowReader => ["-", "-"].map(String::from),
        };
        format!(
            "{peer:9} {beside:11} {:>8.0} {:>8.1} {:>8.1} {:>8.1} {more:>12.1} {:>13.3} {fragment_us:>15} {fragments:>19} {:>7.2}\n",
            of(beside, |c| c.calls.calls_per_s),
            of(beside, |c| c.calls.p50_us),
            p99(beside),
            of(beside, |c| c.calls.p999_us),
            bytes_per_s / (1u64 << 30) as f64,
            of(beside, |c| c.calls.cpu_us_per_call),
        )
    };
    Beside::ALL.into_iter().map(line).collect()
}

/// The process that makes the calls, and keeps their connection busy.
struct Client {
    config: ClientConfig,
    beside: Beside,
    window: Window,
    process: Process,
}

impl Client {
    fn parse(options: &Options) -> Parsed<Client> {
        let inflight = options.count("--inflight", "1", MAX_INFLIGHT)?;
        let config = ClientConfig { addr: options.required("--addr")?, payload: Payload::Tiny, inflight, connections: 1 };
        let window = Window { warmup: warmup(options)?, length: length(options, "2")?, server_pid: options.maybe("--server-pid")? };
        Ok(Client { config, beside: options.one("--beside", "nothing")?, window, process: Process::parse(options)? })
    }

    /// Prints what was measured as one line of JSON.
    fn run(self, peer: &Entry) -> Result<()> {
        self.process.settle()?;
        let mixing = peer.mixing().map_err(anyhow::Error::msg)?;
        let company = mixing(self.config, self.window, self.beside).with_context(|| format!("client of {}", peer.name))?;
        println!("{}", serde_json::to_string(&company)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Measurement;
    use crate::options::Words;

    fn parse(line: &str) -> Parsed<Plan> {
        Plan::parse(&Words::new(line.split_whitespace().map(String::from).collect()).options(FAIR)?)
    }

    #[test]
    fn the_client_understands_its_arguments() {
        let plan = parse("--inflight 4 --secs 0.25").unwrap_or_else(|problem| panic!("{problem}"));
        let words = Words::new(plan.client_args(Beside::SlowReader, "h:1", 42));
        let Client { config, beside, window, .. } = Client::parse(&words.options(BESIDE).unwrap()).unwrap();
        assert_eq!((config.inflight, beside), (4, Beside::SlowReader));
        assert_eq!(window, Window { length: plan.length, warmup: plan.warmup, server_pid: Some(42) });
    }

    #[test]
    fn a_peer_without_company_is_refused_by_name() {
        assert_eq!(parse("--peers farcall,raw").err().as_deref(), Some("raw has no company for small calls here"));
    }

    #[test]
    fn company_costs_what_p99_is_above_p99_alone() {
        let row = |beside: Beside, p99_us, beside_bytes_per_s| {
            let calls = Measurement {
                calls_per_s: 1.0,
                p50_us: 1.0,
                p99_us,
                p999_us: 99.0,
                cpu_us_per_call: 1.0,
                client_cpu_us_per_call: 0.5,
                server_cpu_us_per_call: 0.5,
                rss_kib: 1,
            };
            let company = Company { calls, beside_bytes_per_s };
            Row { peer: "p", beside, beside_name: beside.to_string(), inflight: 1, placement: "apart", round: 0, company }
        };
        let rows = [row(Beside::Nothing, 20.0, 0.0), row(Beside::Large, 151.1, 1e9), row(Beside::SlowReader, 21.5, 65_536e3)];
        let table = table("p", &rows);
        let fields: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        let picked: Vec<_> = fields.iter().map(|f| [f[1], f[4], f[6], f[8], f[9]]).collect();
        assert_eq!(
            picked,
            [["nothing", "20.0", "0.0", "-", "-"], ["large", "151.1", "131.1", "65.5", "2.0"], ["slow-reader", "21.5", "1.5", "-", "-"]]
        );
    }
}
