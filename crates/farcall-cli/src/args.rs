//! The command line: what it may say, and the help that tells so.

use std::ffi::OsString;
use std::time::Duration;

use farcall::{Metadata, StaticResolver};
use lexopt::{Arg, Parser, ValueExt};

use crate::access::Access;
use crate::failure::Failure;
use crate::find::nearest;
use crate::registry;

/// What the user wants.
#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    /// Help, or the version.
    Print(String),
    Describe(Describe),
    Schema(Schema),
    Call(Call),
    Compat(Compat),
    Health(Health),
    Registry(registry::args::Node),
    Operate(registry::args::Operate),
    Ls(registry::args::Ls),
    Watch(registry::args::Watch),
}

/// `farcall describe`.
#[derive(Debug, PartialEq)]
pub(crate) struct Describe {
    pub(crate) address: String,
    /// Only this one.
    pub(crate) service: Option<String>,
    pub(crate) json: bool,
    pub(crate) timeout: Duration,
    pub(crate) access: Access,
}

/// `farcall schema`.
#[derive(Debug, PartialEq)]
pub(crate) struct Schema {
    pub(crate) address: String,
    /// May be left out where there is only one.
    pub(crate) service: Option<String>,
    pub(crate) format: Format,
    /// Told apart by these if the name is served more than once.
    pub(crate) group: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) timeout: Duration,
    pub(crate) access: Access,
}

/// What schemas are written as.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Format {
    Text,
    JsonSchema,
    Proto,
}

/// `farcall call`.
#[derive(Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) address: String,
    pub(crate) service: String,
    pub(crate) method: String,
    pub(crate) arguments: Arguments,
    /// Told apart by these if the name is served more than once.
    pub(crate) group: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) deadline: Option<Duration>,
    pub(crate) metadata: Metadata,
    pub(crate) key: Option<String>,
    pub(crate) timeout: Duration,
    pub(crate) access: Access,
}

/// Where the JSON is.
#[derive(Debug, PartialEq)]
pub(crate) enum Arguments {
    None,
    Text(String),
    Stdin,
}

/// `farcall health`.
#[derive(Debug, PartialEq)]
pub(crate) struct Health {
    pub(crate) address: String,
    /// Only this one.
    pub(crate) service: Option<String>,
    pub(crate) timeout: Duration,
    pub(crate) access: Access,
}

/// `farcall compat`.
#[derive(Debug, PartialEq)]
pub(crate) struct Compat {
    /// A file or an address.
    pub(crate) old: String,
    pub(crate) new: String,
    /// Only this one.
    pub(crate) service: Option<String>,
    /// Who is upgraded first, if only that order counts.
    pub(crate) first: Option<First>,
    pub(crate) timeout: Duration,
    pub(crate) access: Access,
}

/// Who is upgraded first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum First {
    Servers,
    Clients,
}

const COMMANDS: &[&str] = &["describe", "schema", "call", "compat", "health", "registry", "ls", "watch"];

const TIMEOUT: Duration = Duration::from_secs(5);

const HELP: &str = "\
farcall looks at a running farcall provider and calls it, and runs and shows registries.

usage:
  farcall describe ADDR [SERVICE]              what is served there
  farcall schema ADDR [SERVICE]                its types, also as .proto or JSON Schema
  farcall call ADDR SERVICE.METHOD ['JSON']    a call without a stub
  farcall compat OLD NEW [SERVICE]             whether two versions understand each other
  farcall health ADDR [SERVICE]                whether it is ready for calls
  farcall registry                             a registry, for others to register and be found at
  farcall registry disable SERVICE INSTANCE…   an instance turned off and on, or given another weight
  farcall ls [SERVICE]                         what a registry knows
  farcall watch SERVICE                        what happens to a service at a registry
  farcall COMMAND --help                       more about a command
  farcall --version

ADDR is tcp://HOST:PORT, tls://HOST:PORT, quic://HOST:PORT or unix:/PATH; several, separated by commas, are tried
in order.

At tls:// and quic:// addresses the provider must prove its name: to whom --ca FILE (certificates of authorities, PEM)
or --ca system says; --server-name NAME if it is not the host of ADDR. --cert FILE and --cert-key FILE are shown to a
provider that asks who calls by certificate; one file may hold both.

To a server that asks who calls, each command shows the token in the environment variable FARCALL_TOKEN,
or that of --token TOKEN (which other users of this machine can see) or --token-file FILE. It is never
printed. Over plain TCP to another machine it is not sent, unless --token-in-clear says so.

exit code: 0 done; 1 no connection, or the call failed, or the versions do not understand each other;
2 wrong usage, nothing was called; 3 the method answered with its own error
";

const DESCRIBE: &str = "\
farcall describe ADDR [SERVICE]

Prints every service at ADDR, or only SERVICE: its names, group and version, docs, and of every
method the id, the signature, what may be done with it, docs, the fingerprints of arguments, result
and error, and the types it uses. Two sides whose fingerprints are equal understand each other; what
others do, farcall compat says.

options:
  --json          for machines, and for farcall compat: it holds all there is to know of the types
  --timeout TIME  to connect, and again to answer: 500ms, 2s, 1m; default 5s
";

const SCHEMA: &str = "\
farcall schema ADDR [SERVICE]

Prints the methods of SERVICE and all types they use, each once. SERVICE may be left out if ADDR
serves only one.

options:
  --text               as Rust would write them; this is the default
  --proto              a .proto file (proto3) of what the protobuf codec writes. Fields without a
                       number of their own, #[farcall(tag = n)], are numbered by their place
  --json-schema        a JSON Schema document (2020-12): under \"methods\" the arguments, result and
                       error of each method, under \"$defs\" the types
  --group NAME         if SERVICE is served in several groups
  --service-version V  if SERVICE is served in several versions
  --timeout TIME       to connect, and again to answer: 500ms, 2s, 1m; default 5s
";

const CALL: &str = "\
farcall call ADDR SERVICE.METHOD ['JSON']

Calls a method: asks the provider for its description, checks the JSON against the names of the
parameters and sends it. The result goes to stdout as JSON. The method's own error goes to stderr as
JSON (exit code 3), any other failure as text with its code, its stage, and whether the method may
have run (exit code 1). If anything is wrong with what you wrote (exit code 2), nothing was called.

JSON is an object with a member per parameter: '{\"order\": 7, \"cents\": 250}'. A parameter of type
Option may be left out. A method without parameters needs no JSON. A method with one parameter, such
as f(order: Order), also takes its value alone, unless that is an object with a member of the
parameter's name: then write '{\"order\": {...}}'. Integers of 64 and 128 bits may be written as strings,
and come back as strings beyond 2^53, where browsers lose digits. \"-\" reads the JSON from stdin. A value that starts
with a minus goes behind \"--\".

A one-way method has no result, not even an error: the command ends once the provider has the call.

options:
  --deadline TIME      for the call: 500ms, 2s, 1m; default 10s
  --meta KEY=VALUE     metadata beside the arguments; may be repeated
  --key KEY            idempotency key, 1 to 64 bytes: while the provider remembers it, 10 minutes by
                       default, the same call with the same key is answered and not run again
  --group NAME         if SERVICE is served in several groups
  --service-version V  if SERVICE is served in several versions
  --timeout TIME       to connect, and again to get the description; default 5s
";

const COMPAT: &str = "\
farcall compat OLD NEW [SERVICE]

Says whether old and new clients and servers of all services, or only of SERVICE, understand each
other, method by method and in both directions, and if not, why not. OLD and NEW are each a file,
written by farcall describe ADDR --json, or an address. Of arguments the client is the writer and the
server the reader; of results and errors it is the other way round.

  safe       every value is understood
  safe, but  some values are refused when they come, or not all is used: see what is listed
  breaks     calls are refused before they run

exit code: 0 safe in both directions, or in the one that is asked for; 1 it breaks; 2 nothing was
compared: wrong usage, a file that cannot be read, no connection

options:
  --servers-first  only old clients with new servers count for the exit code
  --clients-first  only new clients with old servers count for the exit code
  --timeout TIME   to connect, and again for each answer: 500ms, 2s, 1m; default 5s
";

const HEALTH: &str = "\
farcall health ADDR [SERVICE]

Says of every service at ADDR, or only of SERVICE, whether it is ready for calls.

exit code: 0 all of them are; 1 one is not, or there is no connection; 2 wrong usage

options:
  --timeout TIME  to connect, and again to answer: 500ms, 2s, 1m; default 5s
";

/// Reads the command line.
pub(crate) fn parse(mut args: Parser) -> Result<Command, Failure> {
    match next(&mut args)? {
        None => Err(usage(format!("which command?\n\n{}", HELP.trim_end()))),
        Some(Arg::Long("help") | Arg::Short('h')) => Ok(Command::Print(HELP.to_owned())),
        Some(Arg::Long("version") | Arg::Short('V')) => Ok(Command::Print(format!("farcall {}\n", env!("CARGO_PKG_VERSION")))),
        Some(Arg::Value(command)) => match &*text(command)? {
            "describe" => describe(args),
            "schema" => schema(args),
            "call" => call(args),
            "compat" => compat(args),
            "health" => health(args),
            "registry" => registry::args::node(args),
            "ls" => registry::args::ls(args),
            "watch" => registry::args::watch(args),
            "help" => Ok(Command::Print(HELP.to_owned())),
            other => {
                let hint = did_you_mean(other, COMMANDS);
                Err(usage(format!("no command {other:?}{hint}; there are {}", COMMANDS.join(", "))))
            }
        },
        Some(other) => Err(unknown(&other, &["help", "version"], "farcall --help")),
    }
}

fn describe(mut args: Parser) -> Result<Command, Failure> {
    let mut options = Describe { address: String::new(), service: None, json: false, timeout: TIMEOUT, access: Access::default() };
    let mut values = Vec::new();
    while let Some(arg) = next(&mut args)? {
        match arg {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Print(DESCRIBE.to_owned())),
            Arg::Long("json") => options.json = true,
            Arg::Long(name) if Access::takes(name) => {
                let name = name.to_owned();
                options.access.take(&name, || value(&mut args))?;
            }
            Arg::Long("timeout") => options.timeout = time("--timeout", &mut args)?,
            Arg::Value(value) => values.push(text(value)?),
            other => {
                return Err(unknown(&other, &with_access(&["help", "json", "timeout"]), "farcall describe --help"));
            }
        }
    }
    let mut values = values.into_iter();
    options.address = address(values.next(), "farcall describe ADDR [SERVICE]")?;
    options.service = values.next();
    match values.next() {
        Some(more) => Err(usage(format!("{more:?} is one too many: farcall describe ADDR [SERVICE]"))),
        None => Ok(Command::Describe(options)),
    }
}

fn schema(mut args: Parser) -> Result<Command, Failure> {
    const USAGE: &str = "farcall schema ADDR [SERVICE]";
    let (mut group, mut version, mut format, mut timeout) = (None, None, None, TIMEOUT);
    let mut access = Access::default();
    let mut values = Vec::new();
    while let Some(arg) = next(&mut args)? {
        match arg {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Print(SCHEMA.to_owned())),
            Arg::Long(name) if Access::takes(name) => {
                let name = name.to_owned();
                access.take(&name, || value(&mut args))?;
            }
            Arg::Long("text") => one_format(&mut format, Format::Text)?,
            Arg::Long("proto") => one_format(&mut format, Format::Proto)?,
            Arg::Long("json-schema") => one_format(&mut format, Format::JsonSchema)?,
            Arg::Long("timeout") => timeout = time("--timeout", &mut args)?,
            Arg::Long("group") => group = Some(value(&mut args)?),
            Arg::Long("service-version") => version = Some(value(&mut args)?),
            Arg::Value(value) => values.push(text(value)?),
            other => {
                let known = with_access(&["help", "text", "proto", "json-schema", "timeout", "group", "service-version"]);
                return Err(unknown(&other, &known, "farcall schema --help"));
            }
        }
    }
    let mut values = values.into_iter();
    let (address, service) = (address(values.next(), USAGE)?, values.next());
    match values.next() {
        Some(more) => Err(usage(format!("{more:?} is one too many: {USAGE}"))),
        None => Ok(Command::Schema(Schema { address, service, format: format.unwrap_or(Format::Text), group, version, timeout, access })),
    }
}

fn one_format(format: &mut Option<Format>, wanted: Format) -> Result<(), Failure> {
    match format.replace(wanted) {
        Some(before) if before != wanted => Err(usage("--text, --proto and --json-schema exclude each other")),
        _ => Ok(()),
    }
}

fn call(mut args: Parser) -> Result<Command, Failure> {
    const USAGE: &str = "farcall call ADDR SERVICE.METHOD ['JSON']";
    let (mut group, mut version, mut key, mut deadline, mut timeout) = (None, None, None, None, TIMEOUT);
    let (mut metadata, mut access) = (Metadata::default(), Access::default());
    let mut values = Vec::new();
    while let Some(arg) = next(&mut args)? {
        match arg {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Print(CALL.to_owned())),
            Arg::Long(name) if Access::takes(name) => {
                let name = name.to_owned();
                access.take(&name, || value(&mut args))?;
            }
            Arg::Long("deadline") => deadline = Some(time("--deadline", &mut args)?),
            Arg::Long("timeout") => timeout = time("--timeout", &mut args)?,
            Arg::Long("group") => group = Some(value(&mut args)?),
            Arg::Long("service-version") => version = Some(value(&mut args)?),
            Arg::Long("key") => key = Some(value(&mut args)?),
            Arg::Long("meta") => add_metadata(&mut metadata, &value(&mut args)?)?,
            Arg::Value(value) => values.push(text(value)?),
            Arg::Short(digit @ '0'..='9') => {
                return Err(usage(format!(
                    "no option -{digit}; a negative number goes behind --: farcall call ADDR SERVICE.METHOD -- -{digit}"
                )));
            }
            other => {
                let known = with_access(&["help", "deadline", "timeout", "group", "service-version", "meta", "key"]);
                return Err(unknown(&other, &known, "farcall call --help"));
            }
        }
    }
    let mut values = values.into_iter();
    let address = address(values.next(), USAGE)?;
    let Some(target) = values.next() else { return Err(usage(format!("which method? {USAGE}"))) };
    // A service's name may hold dots, a method's cannot.
    let Some((service, method)) = target.rsplit_once('.').filter(|(s, m)| !s.is_empty() && !m.is_empty()) else {
        return Err(usage(format!("{target:?} is not SERVICE.METHOD: {USAGE}")));
    };
    let arguments = match values.next() {
        None => Arguments::None,
        Some(text) if text == "-" => Arguments::Stdin,
        Some(text) => Arguments::Text(text),
    };
    if let Some(more) = values.next() {
        return Err(usage(format!("{more:?} is one too many; is the JSON in single quotes? {USAGE}")));
    }
    let (service, method) = (service.to_owned(), method.to_owned());
    Ok(Command::Call(Call { address, service, method, arguments, group, version, deadline, metadata, key, timeout, access }))
}

fn compat(mut args: Parser) -> Result<Command, Failure> {
    const USAGE: &str = "farcall compat OLD NEW [SERVICE]";
    let (mut first, mut timeout, mut values) = (None, TIMEOUT, Vec::new());
    let mut access = Access::default();
    while let Some(arg) = next(&mut args)? {
        let chosen = match arg {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Print(COMPAT.to_owned())),
            Arg::Long("servers-first") => First::Servers,
            Arg::Long("clients-first") => First::Clients,
            Arg::Long("timeout") => {
                timeout = time("--timeout", &mut args)?;
                continue;
            }
            Arg::Long(name) if Access::takes(name) => {
                let name = name.to_owned();
                access.take(&name, || value(&mut args))?;
                continue;
            }
            Arg::Value(value) => {
                values.push(text(value)?);
                continue;
            }
            other => {
                return Err(unknown(&other, &with_access(&["help", "servers-first", "clients-first", "timeout"]), "farcall compat --help"));
            }
        };
        if first.replace(chosen).is_some_and(|before| before != chosen) {
            return Err(usage("--servers-first or --clients-first: without either, both count"));
        }
    }
    let mut values = values.into_iter();
    let (Some(old), Some(new)) = (values.next(), values.next()) else {
        return Err(usage(format!("which two versions? {USAGE}: each is a file or an address")));
    };
    for place in [&old, &new].into_iter().filter(|place| is_address(place)) {
        address(Some(place.clone()), USAGE)?;
    }
    let service = values.next();
    match values.next() {
        Some(more) => Err(usage(format!("{more:?} is one too many: {USAGE}"))),
        None => Ok(Command::Compat(Compat { old, new, service, first, timeout, access })),
    }
}

fn health(mut args: Parser) -> Result<Command, Failure> {
    const USAGE: &str = "farcall health ADDR [SERVICE]";
    let mut options = Health { address: String::new(), service: None, timeout: TIMEOUT, access: Access::default() };
    let mut values = Vec::new();
    while let Some(arg) = next(&mut args)? {
        match arg {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Print(HEALTH.to_owned())),
            Arg::Long(name) if Access::takes(name) => {
                let name = name.to_owned();
                options.access.take(&name, || value(&mut args))?;
            }
            Arg::Long("timeout") => options.timeout = time("--timeout", &mut args)?,
            Arg::Value(value) => values.push(text(value)?),
            other => return Err(unknown(&other, &with_access(&["help", "timeout"]), "farcall health --help")),
        }
    }
    let mut values = values.into_iter();
    (options.address, options.service) = (address(values.next(), USAGE)?, values.next());
    match values.next() {
        Some(more) => Err(usage(format!("{more:?} is one too many: {USAGE}"))),
        None => Ok(Command::Health(options)),
    }
}

/// Whether it is meant as an address; all else is a file.
pub(crate) fn is_address(place: &str) -> bool {
    ["tcp://", "tls://", "quic://", "unix:", "mem:"].iter().any(|scheme| place.starts_with(scheme))
}

pub(crate) fn usage(why: impl Into<String>) -> Failure {
    Failure::Usage(why.into())
}

pub(crate) fn next(args: &mut Parser) -> Result<Option<Arg<'_>>, Failure> {
    args.next().map_err(|e| usage(e.to_string()))
}

pub(crate) fn value(args: &mut Parser) -> Result<String, Failure> {
    args.value().map_err(|e| usage(e.to_string())).and_then(text)
}

pub(crate) fn text(value: OsString) -> Result<String, Failure> {
    value.string().map_err(|e| usage(e.to_string()))
}

pub(crate) fn unknown(arg: &Arg<'_>, known: &[&str], help: &str) -> Failure {
    match arg {
        Arg::Long(name) => usage(format!("no option --{name}{}; see {help}", did_you_mean_option(name, known))),
        Arg::Short(name) => usage(format!("no option -{name}; see {help}")),
        Arg::Value(value) => usage(format!("{value:?} is one too many; see {help}")),
    }
}

/// These options and those that every command has that connects.
fn with_access(own: &[&'static str]) -> Vec<&'static str> {
    [own, Access::OPTIONS].concat()
}

fn did_you_mean_option(name: &str, known: &[&str]) -> String {
    nearest(name, known.iter().copied()).map_or_else(String::new, |n| format!(", did you mean --{n}?"))
}

fn did_you_mean(name: &str, known: &[&str]) -> String {
    nearest(name, known.iter().copied()).map_or_else(String::new, |n| format!(", did you mean {n}?"))
}

fn address(given: Option<String>, help: &str) -> Result<String, Failure> {
    let Some(address) = given else { return Err(usage(format!("which address? {help}"))) };
    match StaticResolver::parse(&address) {
        Ok(_) if address.split(',').any(|a| a.trim().starts_with("mem:")) => {
            Err(usage(format!("address {address:?}: a mem: address is inside one process and cannot be reached from another")))
        }
        Ok(_) => Ok(address),
        Err(e) => Err(usage(e.message())),
    }
}

fn add_metadata(metadata: &mut Metadata, pair: &str) -> Result<(), Failure> {
    match pair.split_once('=') {
        Some((key, value)) => metadata.set(key, value).map_err(|e| usage(format!("--meta: {}", e.message()))),
        None => Err(usage(format!("--meta {pair:?}: write KEY=VALUE"))),
    }
}

pub(crate) fn time(option: &str, args: &mut Parser) -> Result<Duration, Failure> {
    let given = value(args)?;
    duration(&given).ok_or_else(|| usage(format!("{option} {given:?}: write a time above zero with its unit, such as 500ms, 2s or 1m")))
}

/// A whole number and its unit.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        _ => return None,
    };
    let total = number.parse::<u64>().ok()?.checked_mul(milliseconds)?;
    // Sixty years are for ever, and further ones overflow clocks.
    (1..=60 * 365 * 86_400_000).contains(&total).then(|| Duration::from_millis(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &str) -> Result<Command, String> {
        parse(Parser::from_args(words.split_whitespace())).map_err(|e| e.to_string())
    }

    fn call_of(words: &str) -> Call {
        match parse_words(words) {
            Ok(Command::Call(call)) => call,
            other => panic!("{words}: {other:?}"),
        }
    }

    #[test]
    fn times_have_a_unit() {
        for (text, ms) in [("500ms", 500), ("2s", 2000), ("1m", 60_000)] {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "s", "0s", "-1s", "1h", "1.5s", "99999999999999999999s", "18446744073709551615m"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn a_service_name_may_hold_dots() {
        let call = call_of("call tcp://h:1 farcall.Meta.services");
        assert_eq!((&*call.service, &*call.method, call.arguments), ("farcall.Meta", "services", Arguments::None));
    }

    #[test]
    fn options_stand_anywhere() {
        let call = call_of("call --deadline 2s tcp://h:1 --meta a=b=c P.pay --key order-17 --meta=d= -");
        assert_eq!(call.key.as_deref(), Some("order-17"));
        assert_eq!((call.deadline, &call.arguments), (Some(Duration::from_secs(2)), &Arguments::Stdin));
        assert_eq!(call.metadata.iter().collect::<Vec<_>>(), [("a", "b=c"), ("d", "")]);
        assert_eq!(call_of("call tcp://h:1 P.add -- -5").arguments, Arguments::Text("-5".into()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (words, advice) in [
            ("", "usage:"),
            ("desribe", "did you mean describe?"),
            ("--jsn", "no option --jsn"),
            ("describe", "which address?"),
            ("describe localhost:1", "did you mean \"tcp://localhost:1\"?"),
            ("describe mem:x", "inside one process"),
            ("describe tcp://h:1 A B", "\"B\" is one too many"),
            ("describe tcp://h:1 --jsn", "did you mean --json?"),
            ("shema", "did you mean schema?"),
            ("schema", "which address?"),
            ("schema tcp://h:1 A B", "\"B\" is one too many"),
            ("schema tcp://h:1 --prto", "did you mean --proto?"),
            ("schema tcp://h:1 --proto --text", "exclude each other"),
            ("call tcp://h:1", "which method?"),
            ("call tcp://h:1 pay", "not SERVICE.METHOD"),
            ("call tcp://h:1 P.pay {a: 1}", "single quotes"),
            ("call tcp://h:1 P.add -5", "-- -5"),
            ("call tcp://h:1 P.pay --deadline 5", "500ms"),
            ("call tcp://h:1 P.pay --meta x", "KEY=VALUE"),
            ("call tcp://h:1 P.pay --meta Ten=x", "write \"ten\""),
            ("registry x", "\"x\" is one too many"),
            ("registry disable", "which service?"),
            ("registry disable P", "which instances of P?"),
            ("registry weight P 1", "write farcall registry weight N SERVICE INSTANCE"),
            ("registry enable P x --regstry u", "did you mean --registry?"),
            ("registry --listn", "did you mean --listen?"),
            ("registry --lease 50ms", "at least 100ms"),
            ("registry --allow bank:pay:*", "there is no action \"pay\""),
            ("ls --registri x", "did you mean --registry?"),
            ("watch --registry farcall://h", "which service?"),
            ("compat", "which two versions?"),
            ("compat old.json", "which two versions?"),
            ("compat old.json new.json P x", "\"x\" is one too many"),
            ("compat old.json mem:x", "inside one process"),
            ("compat old.json tcp://h", "tcp://h"),
            ("compat old.json new.json --server-first", "did you mean --servers-first?"),
            ("compat old.json new.json --clients-first --servers-first", "both count"),
        ] {
            let e = parse_words(words).unwrap_err();
            assert!(e.starts_with("farcall: ") && e.contains(advice), "{words}: {e}");
        }
    }
}
