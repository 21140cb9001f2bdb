//! The command lines of `registry`, `ls` and `watch`.

use std::time::Duration;

use farcall_registry::embedded::Grant;
use lexopt::{Arg, Parser};

use crate::args::{Command, next, text, time, unknown, usage, value};
use crate::failure::Failure;

/// `farcall registry`.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Node {
    /// At least one.
    pub(crate) listen: Vec<String>,
    pub(crate) lease: Option<Duration>,
    /// The other nodes.
    pub(crate) peers: Vec<String>,
    /// Where it keeps what it knows.
    pub(crate) data: Option<String>,
    pub(crate) grants: Vec<Grant>,
    /// A file of tokens and names.
    pub(crate) tokens: Option<String>,
    /// A file with what it shows to the other nodes.
    pub(crate) token_file: Option<String>,
    pub(crate) anonymous: bool,
}

/// `farcall ls`.
#[derive(Debug, PartialEq)]
pub(crate) struct Ls {
    pub(crate) registry: String,
    /// All, if none.
    pub(crate) service: Option<String>,
    pub(crate) json: bool,
}

/// `farcall watch`.
#[derive(Debug, PartialEq)]
pub(crate) struct Watch {
    pub(crate) registry: String,
    pub(crate) service: String,
    pub(crate) json: bool,
}

/// Where a registry is if the command line does not say.
const VARIABLE: &str = "FARCALL_REGISTRY";

const NODE: &str = "\
farcall registry [--listen ADDR]

Runs a node of the registry until it gets SIGTERM or Ctrl-C. Providers register at farcall://HOST:PORT, consumers find them there,
and farcall ls shows them.

options:
  --listen ADDR   tcp://HOST:PORT or unix:/PATH; may be repeated. Default tcp://127.0.0.1:7400; port 0 is a
                  free one, which the first line of the output tells
  --lease TIME    how long entries stay when nothing is heard of their provider: default 15s
  --data DIR      keeps entries and rules there, to serve them at once after a start. Default: it forgets
  --peers ADDRS   the other nodes of this registry, at most 7, separated by commas: they copy from each other
                  what only one of them heard. Each node is told of all others
  --tokens FILE   who may come: a line per caller with its bearer token, its name and, if it has some, its
                  roles, all separated by blanks. Without it a node listens on this machine only
  --token-file FILE
                  the bearer token that this node shows to its peers
  --allow GRANT   WHO:ACTIONS:SERVICES[@NAMESPACES], may be repeated. WHO is a name, role=ROLE or *; ACTIONS are
                  read, register, rules, peer, or * for all but peer; * in SERVICES and NAMESPACES is anything:
                  --allow 'bank:register:org.pay.*@prod' --allow '*:read:*'. Without any, whoever comes may do
                  everything
  --allow-anonymous
                  lets callers in that show no token, also from other machines
";

const LS: &str = "\
farcall ls [SERVICE]

Prints the services that a registry knows, with how many entries and consumers each has; with SERVICE, as NAME, GROUP/NAME:VERSION
or any part of it, its entries, its consumers and its rules.

options:
  --registry URL  farcall://HOST:PORT or another registry; default: the environment variable FARCALL_REGISTRY
  --json          for machines
";

const WATCH: &str = "\
farcall watch SERVICE

Prints the entries of SERVICE, written NAME or GROUP/NAME:VERSION, and then every change as it comes, until it is interrupted:

  =  all there is    +  new or changed    ?  suspect: its connection broke    -  gone

options:
  --registry URL  farcall://HOST:PORT or another registry; default: the environment variable FARCALL_REGISTRY
  --json          a JSON object per line
";

const OPTIONS: &[&str] = &["help", "listen", "lease", "peers", "data", "tokens", "token-file", "allow", "allow-anonymous"];

pub(crate) fn node(mut args: Parser) -> Result<Command, Failure> {
    let mut options = Node::default();
    while let Some(arg) = next(&mut args)? {
        match arg {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Print(NODE.to_owned())),
            Arg::Long("listen") => options.listen.push(value(&mut args)?),
            Arg::Long("lease") => options.lease = Some(lease(&mut args)?),
            Arg::Long("peers") => options.peers.extend(value(&mut args)?.split(',').map(|peer| peer.trim().to_owned())),
            Arg::Long("data") => options.data = Some(value(&mut args)?),
            Arg::Long("tokens") => options.tokens = Some(value(&mut args)?),
            Arg::Long("token-file") => options.token_file = Some(value(&mut args)?),
            Arg::Long("allow") => options.grants.push(value(&mut args)?.parse().map_err(|e: farcall::RpcError| usage(e.message()))?),
            Arg::Long("allow-anonymous") => options.anonymous = true,
            other => return Err(unknown(&other, OPTIONS, "farcall registry --help")),
        }
    }
    if options.listen.is_empty() {
        options.listen.push(format!("tcp://127.0.0.1:{}", farcall_registry::embedded::DEFAULT_PORT));
    }
    Ok(Command::Registry(options))
}

fn lease(args: &mut Parser) -> Result<Duration, Failure> {
    let lease = time("--lease", args)?;
    match lease < Duration::from_millis(100) {
        true => Err(usage(format!("--lease {} ms: at least 100ms, or providers could not renew in time", lease.as_millis()))),
        false => Ok(lease),
    }
}

pub(crate) fn ls(mut args: Parser) -> Result<Command, Failure> {
    let (mut registry, mut service, mut json) = (None, None, false);
    while let Some(arg) = next(&mut args)? {
        match arg {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Print(LS.to_owned())),
            Arg::Long("registry") => registry = Some(value(&mut args)?),
            Arg::Long("json") => json = true,
            Arg::Value(value) if service.is_none() => service = Some(text(value)?),
            other => return Err(unknown(&other, &["help", "registry", "json"], "farcall ls --help")),
        }
    }
    Ok(Command::Ls(Ls { registry: url(registry)?, service, json }))
}

pub(crate) fn watch(mut args: Parser) -> Result<Command, Failure> {
    let (mut registry, mut service, mut json) = (None, None, false);
    while let Some(arg) = next(&mut args)? {
        match arg {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Print(WATCH.to_owned())),
            Arg::Long("registry") => registry = Some(value(&mut args)?),
            Arg::Long("json") => json = true,
            Arg::Value(value) if service.is_none() => service = Some(text(value)?),
            other => return Err(unknown(&other, &["help", "registry", "json"], "farcall watch --help")),
        }
    }
    let Some(service) = service else { return Err(usage("which service? farcall watch SERVICE; farcall ls shows them")) };
    Ok(Command::Watch(Watch { registry: url(registry)?, service, json }))
}

fn url(given: Option<String>) -> Result<String, Failure> {
    let none = || usage(format!("which registry? say --registry farcall://HOST:PORT, or set {VARIABLE}"));
    given.or_else(|| std::env::var(VARIABLE).ok()).filter(|url| !url.is_empty()).ok_or_else(none)
}
