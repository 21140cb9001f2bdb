//! The command line, parsed once into values that cannot be wrong.
use crate::config::{ClientConfig, Payload, ServerConfig};
use crate::load::Window;
use crate::peers::Entry;
use std::collections::HashMap;
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

pub(crate) const USAGE: &str = "\
usage: farcall-bench [run] [options]           measure; prints a table
       farcall-bench list                      the peers of this build
       farcall-bench server PEER [--addr A] [--pin CPU]
       farcall-bench client PEER --addr A [--payload P] [--inflight N] [--connections N] [--secs S] [--warmup S]
                                 [--server-pid PID] [--pin CPU]

options of run:
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

const MAX_INFLIGHT: usize = 65_536;
const MAX_CONNECTIONS: usize = 1_024;
const MAX_ROUNDS: usize = 1_000;
const MAX_SECS: f64 = 3_600.0;

pub(crate) enum Command {
    Help,
    List,
    Run(Plan),
    Server(ServerArgs),
    Client(ClientArgs),
}

/// What `run` measures.
pub(crate) struct Plan {
    pub(crate) peers: Vec<&'static Entry>,
    pub(crate) payloads: Vec<Payload>,
    pub(crate) inflight: Vec<usize>,
    pub(crate) connections: usize,
    pub(crate) length: Duration,
    pub(crate) warmup: Duration,
    pub(crate) rounds: usize,
    /// The core both processes run on; `None` leaves them to the scheduler.
    pub(crate) pin: Option<usize>,
    pub(crate) json: Option<PathBuf>,
}

pub(crate) struct ServerArgs {
    pub(crate) peer: &'static Entry,
    pub(crate) config: ServerConfig,
    pub(crate) process: ProcessArgs,
}

pub(crate) struct ClientArgs {
    pub(crate) peer: &'static Entry,
    pub(crate) config: ClientConfig,
    pub(crate) window: Window,
    pub(crate) process: ProcessArgs,
}

/// For both kinds of child process.
pub(crate) struct ProcessArgs {
    pub(crate) pin: Option<usize>,
    /// `--attached`, given by `run`: end when stdin closes, which it does however the parent dies.
    pub(crate) attached: bool,
}

type Parsed<T> = Result<T, String>;

pub(crate) fn parse(words: impl Iterator<Item = String>) -> Parsed<Command> {
    let mut words = words.peekable();
    if words.peek().is_some_and(|word| word == "--help" || word == "-h" || word == "help") {
        return Ok(Command::Help);
    }
    let command = words.next_if(|word| !word.starts_with('-')).unwrap_or("run".into());
    match command.as_str() {
        "run" => Plan::parse(Options::read(words, RUN)?).map(Command::Run),
        "list" => Options::read(words, &[]).map(|_| Command::List),
        "server" => {
            let peer = peer(words.next())?;
            ServerArgs::parse(peer, Options::read(words, SERVER)?).map(Command::Server)
        }
        "client" => {
            let peer = peer(words.next())?;
            ClientArgs::parse(peer, Options::read(words, CLIENT)?).map(Command::Client)
        }
        _ => Err(format!("no command {command:?}")),
    }
}

fn peer(word: Option<String>) -> Parsed<&'static Entry> {
    Entry::named(&word.ok_or("the peer's name is missing")?)
}

const RUN: &[&str] =
    &["--peers", "--payload", "--inflight", "--connections", "--secs", "--warmup", "--rounds", "--pin", UNPINNED, "--json"];
const SERVER: &[&str] = &["--addr", "--pin", ATTACHED];
const CLIENT: &[&str] = &["--addr", "--payload", "--inflight", "--connections", "--secs", "--warmup", "--server-pid", "--pin", ATTACHED];

const UNPINNED: &str = "--unpinned";
const ATTACHED: &str = "--attached";

impl Plan {
    fn parse(options: Options) -> Parsed<Plan> {
        let plan = Plan {
            peers: match options.words.get("--peers") {
                None => crate::peers::ALL.iter().collect(),
                Some(names) => names.split(',').map(Entry::named).collect::<Parsed<_>>()?,
            },
            payloads: options.list("--payload", "tiny,order,64k")?,
            inflight: options.counts("--inflight", "1,16,256", MAX_INFLIGHT)?,
            connections: options.count("--connections", "1", MAX_CONNECTIONS)?,
            length: options.length()?,
            warmup: options.warmup()?,
            rounds: options.count("--rounds", "5", MAX_ROUNDS)?,
            pin: match (options.pin()?, options.has(UNPINNED)) {
                (Some(_), true) => return Err("--pin and --unpinned exclude each other".into()),
                (None, false) => cpus()?.last().copied(),
                (pin, _) => pin,
            },
            json: options.words.get("--json").map(PathBuf::from),
        };
        match plan.inflight.iter().find(|inflight| **inflight < plan.connections) {
            Some(few) => Err(format!("--inflight {few} leaves some of the {} connections without a call", plan.connections)),
            None => Ok(plan),
        }
    }
}

impl ServerArgs {
    fn parse(peer: &'static Entry, options: Options) -> Parsed<ServerArgs> {
        let addr = options.words.get("--addr").cloned().unwrap_or("127.0.0.1:7100".into());
        Ok(ServerArgs { peer, config: ServerConfig { addr }, process: options.process()? })
    }
}

impl ClientArgs {
    fn parse(peer: &'static Entry, options: Options) -> Parsed<ClientArgs> {
        let config = ClientConfig {
            addr: options.words.get("--addr").cloned().ok_or("--addr is missing")?,
            payload: options.one("--payload", "tiny")?,
            inflight: options.count("--inflight", "16", MAX_INFLIGHT)?,
            connections: options.count("--connections", "1", MAX_CONNECTIONS)?,
        };
        let server_pid = options.words.get("--server-pid").map(|pid| value("--server-pid", pid)).transpose()?;
        let window = Window { warmup: options.warmup()?, length: options.length()?, server_pid };
        Ok(ClientArgs { peer, config, window, process: options.process()? })
    }
}

/// The options of one command, by name, each known to it and given once.
struct Options {
    words: HashMap<String, String>,
}

impl Options {
    fn read(mut words: impl Iterator<Item = String>, known: &[&str]) -> Parsed<Options> {
        let mut read = HashMap::new();
        while let Some(name) = words.next() {
            if !known.contains(&name.as_str()) {
                return Err(format!("no option {name:?}"));
            }
            let value = match name.as_str() {
                UNPINNED | ATTACHED => String::new(),
                _ => words.next().filter(|value| !value.starts_with("--")).ok_or_else(|| format!("{name} needs a value"))?,
            };
            if read.insert(name.clone(), value).is_some() {
                return Err(format!("{name} is given twice"));
            }
        }
        Ok(Options { words: read })
    }

    fn has(&self, name: &str) -> bool {
        self.words.contains_key(name)
    }

    fn one<T: FromStr<Err: Display>>(&self, name: &str, default: &str) -> Parsed<T> {
        value(name, self.words.get(name).map_or(default, String::as_str))
    }

    fn list<T: FromStr<Err: Display>>(&self, name: &str, default: &str) -> Parsed<Vec<T>> {
        self.words.get(name).map_or(default, String::as_str).split(',').map(|word| value(name, word)).collect()
    }

    fn counts(&self, name: &str, default: &str, max: usize) -> Parsed<Vec<usize>> {
        let counts: Vec<usize> = self.list(name, default)?;
        match counts.iter().find(|count| !(1..=max).contains(*count)) {
            Some(count) => Err(format!("{name} {count} is not within 1 to {max}")),
            None => Ok(counts),
        }
    }

    fn count(&self, name: &str, default: &str, max: usize) -> Parsed<usize> {
        match self.counts(name, default, max)?[..] {
            [count] => Ok(count),
            _ => Err(format!("{name} takes one number")),
        }
    }

    fn length(&self) -> Parsed<Duration> {
        match self.secs("--secs", "1")? {
            Duration::ZERO => Err("--secs must be above 0".into()),
            length => Ok(length),
        }
    }

    fn warmup(&self) -> Parsed<Duration> {
        self.secs("--warmup", "0.3")
    }

    fn secs(&self, name: &str, default: &str) -> Parsed<Duration> {
        let secs: f64 = self.one(name, default)?;
        match (0.0..=MAX_SECS).contains(&secs) {
            true => Ok(Duration::from_secs_f64(secs)),
            false => Err(format!("{name} {secs} is not within 0 to {MAX_SECS}")),
        }
    }

    fn pin(&self) -> Parsed<Option<usize>> {
        let Some(word) = self.words.get("--pin") else { return Ok(None) };
        let (cpu, allowed) = (value("--pin", word)?, cpus()?);
        match allowed.contains(&cpu) {
            true => Ok(Some(cpu)),
            false => Err(format!("--pin {cpu}: this process may run on {allowed:?} only")),
        }
    }

    fn process(&self) -> Parsed<ProcessArgs> {
        Ok(ProcessArgs { pin: self.pin()?, attached: self.has(ATTACHED) })
    }
}

fn value<T: FromStr<Err: Display>>(name: &str, word: &str) -> Parsed<T> {
    word.parse().map_err(|problem| format!("{name} {word:?}: {problem}"))
}

/// The cores this process may run on.
fn cpus() -> Parsed<Vec<usize>> {
    let set = rustix::thread::sched_getaffinity(None).map_err(|error| format!("cannot read the CPU affinity: {error}"))?;
    Ok((0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Parsed<Command> {
        parse(line.split_whitespace().map(String::from))
    }

    fn plan(line: &str) -> Plan {
        match parse_line(line) {
            Ok(Command::Run(plan)) => plan,
            Ok(_) => panic!("{line:?} is another command"),
            Err(problem) => panic!("{line:?}: {problem}"),
        }
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
            "run --peers raw --payload 64,order --inflight 4 --connections 2 --secs 0.5 --warmup 0 --rounds 1 --pin {cpu} --json out.jsonl"
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

    #[test]
    fn children_are_parsed_too() {
        let Ok(Command::Server(server)) = parse_line("server raw --addr 127.0.0.1:0 --attached") else { panic!() };
        assert_eq!((server.peer.name, server.config.addr.as_str(), server.process.attached), ("raw", "127.0.0.1:0", true));
        let Ok(Command::Client(client)) = parse_line("client raw --addr h:1 --payload order --inflight 3 --server-pid 9") else { panic!() };
        let config = ClientConfig { addr: "h:1".into(), payload: Payload::Order, inflight: 3, connections: 1 };
        assert_eq!((client.config, client.window.server_pid, client.process.attached), (config, Some(9), false));
    }

    #[test]
    fn help_and_list() {
        assert!(matches!(parse_line("--help"), Ok(Command::Help)));
        assert!(matches!(parse_line("list"), Ok(Command::List)));
    }

    #[test]
    fn bad_lines_are_named() {
        for (line, problem) in [
            ("walk", "no command \"walk\""),
            ("run --speed 3", "no option \"--speed\""),
            ("run raw", "no option \"raw\""),
            ("list --secs 1", "no option \"--secs\""),
            ("--secs", "--secs needs a value"),
            ("--secs --rounds 3", "--secs needs a value"),
            ("--secs 1 --secs 2", "--secs is given twice"),
            ("--secs 0", "--secs must be above 0"),
            ("--secs NaN", "--secs NaN is not within 0 to 3600"),
            ("--warmup -1", "--warmup -1 is not within 0 to 3600"),
            ("--rounds x", "--rounds \"x\": invalid digit found in string"),
            ("--rounds 1,2", "--rounds takes one number"),
            ("--inflight 1,0", "--inflight 0 is not within 1 to 65536"),
            ("--inflight 16,4 --connections 8", "--inflight 4 leaves some of the 8 connections without a call"),
            ("--pin 0 --unpinned", "--pin and --unpinned exclude each other"),
            ("--payload big", "--payload \"big\": payload \"big\" is none of tiny, order, a byte count (64, 64k)"),
            ("server", "the peer's name is missing"),
            ("client raw", "--addr is missing"),
        ] {
            assert_eq!(parse_line(line).err().as_deref(), Some(problem), "{line:?}");
        }
        assert!(parse_line("--peers nobody").err().unwrap().starts_with("no peer \"nobody\" in this build"));
        assert!(parse_line("--pin 9999").err().unwrap().starts_with("--pin 9999: this process may run on"));
    }
}
