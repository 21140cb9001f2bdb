//! The command lines of `registry`, `ls` and `watch`.

use std::time::Duration;

use farcall_registry::embedded::Grant;
use lexopt::{Arg, Parser};

use crate::access::Shown;
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

/// Which registry to look at, and what to show to it.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct At {
    /// Its URL.
    pub(crate) registry: String,
    /// Where the URL says nothing of it.
    pub(crate) shown: Shown,
}

/// `farcall registry disable` and the like.
#[derive(Debug, PartialEq)]
pub(crate) struct Operate {
    pub(crate) at: At,
    pub(crate) what: What,
    pub(crate) service: String,
    /// At least one.
    pub(crate) instances: Vec<String>,
}

/// What is to become of instances.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum What {
    Disable,
    Enable,
    Weight(u32),
    Reset,
}

/// `farcall ls`.
#[derive(Debug, PartialEq)]
pub(crate) struct Ls {
    pub(crate) at: At,
    /// All, if none.
    pub(crate) service: Option<String>,
    pub(crate) json: bool,
}

/// `farcall watch`.
#[derive(Debug, PartialEq)]
pub(crate) struct Watch {
    pub(crate) at: At,
    pub(crate) service: String,
    pub(crate) json: bool,
}

/// Where a registry is if the command line does not say.
const VARIABLE: &str = "FARCALL_REGISTRY";

const AT: &[&str] = &["registry", "token", "token-file", "token-in-clear"];

impl At {
    /// Takes one of its options, and its value if it has one.
    fn take(&mut self, option: &str, args: &mut Parser) -> Result<(), Failure> {
        match option {
            "registry" => self.registry = value(args)?,
            shown => self.shown.take(shown, || value(args))?,
        }
        Ok(())
    }

    /// With what the environment says where the command line says nothing.
    fn complete(mut self) -> Result<At, Failure> {
        if self.registry.is_empty() {
            let none = || usage(format!("which registry? say --registry farcall://HOST:PORT, or set {VARIABLE}"));
            self.registry = std::env::var(VARIABLE).ok().filter(|url| !url.is_empty()).ok_or_else(none)?;
        }
        Ok(self)
    }
}

const NODE: &str = "\
farcall registry [--listen ADDR]
farcall registry disable | enable | reset SERVICE INSTANCE…
farcall registry weight N SERVICE INSTANCE…

Runs a node of the registry until it gets SIGTERM or Ctrl-C. Providers register at farcall://HOST:PORT, consumers find them there,
and farcall ls shows them. The other forms change how consumers use single instances; farcall registry disable --help tells more.

options:
  --listen ADDR   tcp://HOST:PORT or unix:/PATH; may be repeated. Default tcp://127.0.0.1:7400; port 0 is a
                  free one, which the first line of the output tells
  --lease TIME    how long entries stay when nothing is heard of their provider: default 15s
  --data DIR      keeps entries and rules there, to serve them at once after a start. Default: it forgets
  --peers ADDRS   the other nodes of this registry, tcp://HOST:PORT, at most 7, separated by commas: they copy
                  from each other what only one of them heard. Each node is told of all others
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

const OPERATE: &str = "\
farcall registry disable SERVICE INSTANCE…      not called any more: new calls go elsewhere, running ones end where they are
farcall registry enable SERVICE INSTANCE…       called again, also if its provider has registered it as disabled
farcall registry weight N SERVICE INSTANCE…     its share of the calls, where 100 is usual and 0 is none
farcall registry reset SERVICE INSTANCE…        as its provider says

SERVICE is written NAME, GROUP/NAME:VERSION or any part of it; INSTANCE is an address, or 4 digits or more of an instance's name, as
farcall ls SERVICE shows them. What is said of an address holds for whatever is started there, of a name until its process ends. It is a
rule at the registry, obeyed by consumers within moments and written only by who may write rules (registry --allow WHO:rules:SERVICE).

options:
  --registry URL  farcall://HOST:PORT or another registry; default: the environment variable FARCALL_REGISTRY
  --token TOKEN, --token-file FILE, --token-in-clear
                  what to show, as with farcall call; default: the environment variable FARCALL_TOKEN
";

const LS: &str = "\
farcall ls [SERVICE]

Prints the services that a registry knows, with how many entries and consumers each has; with SERVICE, as NAME, GROUP/NAME,
NAME:VERSION or GROUP/NAME:VERSION, its entries, its consumers and its rules.

options:
  --registry URL  farcall://HOST:PORT or another registry; default: the environment variable FARCALL_REGISTRY
  --token TOKEN, --token-file FILE, --token-in-clear
                  what to show, as with farcall call; default: the environment variable FARCALL_TOKEN
  --json          for machines
";

const WATCH: &str = "\
farcall watch SERVICE

Prints the entries of SERVICE, written NAME or GROUP/NAME:VERSION, and then every change as it comes, until it is interrupted:

  =  all there is    +  new or changed    ?  suspect: its connection broke    -  gone

options:
  --registry URL  farcall://HOST:PORT or another registry; default: the environment variable FARCALL_REGISTRY
  --token TOKEN, --token-file FILE, --token-in-clear
                  what to show, as with farcall call; default: the environment variable FARCALL_TOKEN
  --json          a JSON object per line
";

const OPTIONS: &[&str] = &["help", "listen", "lease", "peers", "data", "tokens", "token-file", "allow", "allow-anonymous"];

pub(crate) fn node(mut args: Parser) -> Result<Command, Failure> {
    let mut options = Node::default();
    let mut first = true;
    while let Some(arg) = next(&mut args)? {
        match arg {
            Arg::Value(word) if first => return operate(&text(word)?, args),
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
        first = false;
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

/// `farcall registry disable` and the like.
fn operate(word: &str, mut args: Parser) -> Result<Command, Failure> {
    const WORDS: &[&str] = &["disable", "enable", "weight", "reset"];
    if !WORDS.contains(&word) {
        return Err(usage(format!("{word:?} is one too many, or none of {}; see farcall registry --help", WORDS.join(", "))));
    }
    let (mut at, mut values) = (At::default(), Vec::new());
    while let Some(arg) = next(&mut args)? {
        match arg {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Print(OPERATE.to_owned())),
            Arg::Long(name) if AT.contains(&name) => {
                let name = name.to_owned();
                at.take(&name, &mut args)?;
            }
            Arg::Value(value) => values.push(text(value)?),
            other => return Err(unknown(&other, &[&["help"], AT].concat(), "farcall registry disable --help")),
        }
    }
    let mut values = values.into_iter();
    let what = match word {
        "disable" => What::Disable,
        "enable" => What::Enable,
        "reset" => What::Reset,
        _ => {
            let given = values.next().unwrap_or_default();
            let weight =
                given.parse().map_err(|_| usage(format!("weight {given:?}: write farcall registry weight N SERVICE INSTANCE…")))?;
            What::Weight(weight)
        }
    };
    let service = values.next().ok_or_else(|| usage(format!("which service? farcall registry {word} SERVICE INSTANCE…")))?;
    let instances: Vec<String> = values.collect();
    match instances.is_empty() {
        true => Err(usage(format!("which instances of {service}? farcall ls {service} shows them"))),
        false => Ok(Command::Operate(Operate { at: at.complete()?, what, service, instances })),
    }
}

pub(crate) fn ls(args: Parser) -> Result<Command, Failure> {
    match look(args, "farcall ls --help")? {
        None => Ok(Command::Print(LS.to_owned())),
        Some((at, service, json)) => Ok(Command::Ls(Ls { at: at.complete()?, service, json })),
    }
}

pub(crate) fn watch(args: Parser) -> Result<Command, Failure> {
    match look(args, "farcall watch --help")? {
        None => Ok(Command::Print(WATCH.to_owned())),
        Some((_, None, _)) => Err(usage("which service? farcall watch SERVICE; farcall ls shows them")),
        Some((at, Some(service), json)) => Ok(Command::Watch(Watch { at: at.complete()?, service, json })),
    }
}

/// A registry, a service, and whether the answer is for machines; `None` = help is wanted.
fn look(mut args: Parser, help: &str) -> Result<Option<(At, Option<String>, bool)>, Failure> {
    let (mut at, mut service, mut json) = (At::default(), None, false);
    while let Some(arg) = next(&mut args)? {
        match arg {
            Arg::Long("help") | Arg::Short('h') => return Ok(None),
            Arg::Long(name) if AT.contains(&name) => {
                let name = name.to_owned();
                at.take(&name, &mut args)?;
            }
            Arg::Long("json") => json = true,
            Arg::Value(value) if service.is_none() => service = Some(text(value)?),
            other => return Err(unknown(&other, &[&["help", "json"], AT].concat(), help)),
        }
    }
    Ok(Some((at, service, json)))
}
