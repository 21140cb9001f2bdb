//! The command line, parsed at the edge: inside of the program no option can be wrong.

use std::collections::BTreeMap;
use std::str::FromStr;

use farcall::Address;

use crate::demo::{self, Sabotage};
use crate::order::{self, Version};
use crate::process::Home;
use crate::{customer, journal, payment, registry};

/// What is printed when the command line is wrong, or on `--help`.
pub(crate) const USAGE: &str = "\
usage: shop demo [--once] [--orders N] [--seed S]
       shop registry  [--listen ADDR]
       shop journal   --registry URL [--listen ADDR] [--stock N] [--file PATH]
       shop payment   --registry URL [--listen ADDR] [--advertise ADDR]
       shop warehouse --registry URL [--listen ADDR]
       shop order     --registry URL [--listen ADDR] [--version 1|2]
       shop customer  --registry URL [--listen ADDR] [--version 1|2] [--seed S]

demo starts the others, two of most, kills and restarts some of them while orders run, and compares
their books: exit 0 if they agree, 1 if not. With --once it ends then; without, it stays up until Ctrl-C.

  --orders N        orders to place, 1 to 100000 (3000)
  --seed S          which orders (1)
  --registry URL    where to register, and to find the others by name
  --listen ADDR     tcp://HOST:PORT or unix:/PATH (tcp://127.0.0.1:0, a free port)
  --advertise ADDR  the address to register, if others reach it under another
  --version N       which version of Order is served, or spoken (1)
  --stock N         pieces of each item at the start, more or less (1000)
  --file PATH       where the journal writes (nowhere)
Each service prints `ready ADDR` and ends on Ctrl-C or SIGTERM; with --until-stdin-closes also when
its stdin does. Customers buy when they are told to: farcall call ADDR Customer.buy '{\"first\": 1, \"count\": 10}'";

/// The most orders of a demo. The ledgers travel whole, and 100 000 lines of them fit well into
/// farcall's default limit of 16 MiB.
const MOST_ORDERS: u64 = 100_000;

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Help,
    Demo(demo::Options),
    Registry(registry::Options),
    Journal(journal::Options),
    Payment(payment::Options),
    Warehouse(Home),
    Order(order::Options),
    Customer(customer::Options),
}

/// Parses the arguments after the program's name.
pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Command, String> {
    let mut args = args.peekable();
    let Some(name) = args.next() else { return Err("say what to run".to_owned()) };
    let mut words = Words::read(args)?;
    if words.flag("--help") || name == "--help" || name == "help" {
        return Ok(Command::Help);
    }
    let command = match name.as_str() {
        "demo" => Command::Demo(demo(&mut words)?),
        "registry" => {
            Command::Registry(registry::Options { listen: listen(&mut words)?, until_stdin_closes: words.flag("--until-stdin-closes") })
        }
        "journal" => Command::Journal(journal(&mut words)?),
        "payment" => Command::Payment(payment::Options { home: home(&mut words)?, crash_at: words.parsed("--crash-at")? }),
        "warehouse" => Command::Warehouse(home(&mut words)?),
        "order" => {
            let (home, version) = (home(&mut words)?, version(&mut words)?);
            Command::Order(order::Options { home, version, without_keys: words.flag("--without-keys") })
        }
        "customer" => {
            let (home, version) = (home(&mut words)?, version(&mut words)?);
            Command::Customer(customer::Options { home, version, seed: words.parsed("--seed")?.unwrap_or(1) })
        }
        other => return Err(format!("there is no command {other:?}")),
    };
    words.nothing_left(&name)?;
    Ok(command)
}

/// `--crash-payment-at CENTS` and `--sabotage WHAT` are for tests, so the usage does not show them.
fn demo(words: &mut Words) -> Result<demo::Options, String> {
    Ok(demo::Options {
        once: words.flag("--once"),
        orders: orders(words)?,
        seed: words.parsed("--seed")?.unwrap_or(1),
        crash_payment_at: words.parsed("--crash-payment-at")?,
        sabotage: words.parsed::<Sabotage>("--sabotage")?,
    })
}

fn journal(words: &mut Words) -> Result<journal::Options, String> {
    Ok(journal::Options {
        home: home(words)?,
        stock: words.parsed("--stock")?.unwrap_or(1000),
        file: words.parsed("--file")?,
        forgetful: words.flag("--forgetful"),
    })
}

fn version(words: &mut Words) -> Result<Version, String> {
    Ok(words.parsed("--version")?.unwrap_or(Version::One))
}

fn listen(words: &mut Words) -> Result<String, String> {
    Ok(words.address("--listen")?.unwrap_or_else(|| "tcp://127.0.0.1:0".to_owned()))
}

fn home(words: &mut Words) -> Result<Home, String> {
    let (listen, advertise) = (listen(words)?, words.address("--advertise")?);
    let registry = words.parsed("--registry")?.ok_or("--registry URL is missing")?;
    Ok(Home { listen, advertise, registry, until_stdin_closes: words.flag("--until-stdin-closes") })
}

fn orders(words: &mut Words) -> Result<u64, String> {
    match words.parsed("--orders")?.unwrap_or(3000) {
        n @ 1..=MOST_ORDERS => Ok(n),
        n => Err(format!("--orders {n}: from 1 to {MOST_ORDERS}, please")),
    }
}

/// Options that take no value.
const FLAGS: [&str; 5] = ["--once", "--help", "--until-stdin-closes", "--without-keys", "--forgetful"];

/// Options by name, taken out as they are read.
struct Words(BTreeMap<String, String>);

impl Words {
    fn read(mut args: impl Iterator<Item = String>) -> Result<Words, String> {
        let mut words = BTreeMap::new();
        while let Some(name) = args.next() {
            if !name.starts_with("--") {
                return Err(format!("{name:?} is not an option"));
            }
            let value = match FLAGS.contains(&name.as_str()) {
                true => String::new(),
                false => args.next().ok_or_else(|| format!("{name} needs a value"))?,
            };
            if words.insert(name.clone(), value).is_some() {
                return Err(format!("{name} is given twice"));
            }
        }
        Ok(Words(words))
    }

    fn flag(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    fn parsed<T: FromStr<Err: std::fmt::Display>>(&mut self, name: &str) -> Result<Option<T>, String> {
        let parse = |text: String| text.parse().map_err(|e| format!("{name} {text:?}: {e}"));
        self.0.remove(name).map(parse).transpose()
    }

    fn address(&mut self, name: &str) -> Result<Option<String>, String> {
        let address = self.0.remove(name);
        match address.as_deref().map(str::parse::<Address>) {
            Some(Err(e)) => Err(format!("{name}: {}", e.message())),
            _ => Ok(address),
        }
    }

    fn nothing_left(&self, command: &str) -> Result<(), String> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("{command} has no option {name}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn commands_and_their_defaults() {
        let home = |listen: &str| Home {
            listen: listen.to_owned(),
            advertise: None,
            registry: "static:mem:x".to_owned(),
            until_stdin_closes: false,
        };
        let demo = demo::Options { once: false, orders: 3000, seed: 1, crash_payment_at: None, sabotage: None };
        let check = |line: &str, expected: Command| assert_eq!(parsed(line), Ok(expected), "{line}");
        check("demo", Command::Demo(demo.clone()));
        check("demo --seed 9 --once --orders 600", Command::Demo(demo::Options { once: true, orders: 600, seed: 9, ..demo.clone() }));
        check("demo --sabotage stock", Command::Demo(demo::Options { sabotage: Some(Sabotage::Stock), ..demo }));
        let free = "tcp://127.0.0.1:0";
        check("payment --registry static:mem:x", Command::Payment(payment::Options { home: home(free), crash_at: None }));
        check("warehouse --listen unix:/run/w --registry static:mem:x", Command::Warehouse(home("unix:/run/w")));
        let second = order::Options { home: home(free), version: Version::Two, without_keys: false };
        check("order --version 2 --registry static:mem:x", Command::Order(second));
        check("customer --help", Command::Help);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, expected) in [
            ("", "say what to run"),
            ("pay", "there is no command \"pay\""),
            ("demo twice", "\"twice\" is not an option"),
            ("demo --orders", "--orders needs a value"),
            ("demo --orders 0", "--orders 0: from 1 to 100000"),
            ("demo --orders many", "--orders \"many\": invalid digit"),
            ("demo --once --once", "--once is given twice"),
            ("demo --stock 3", "demo has no option --stock"),
            ("demo --sabotage luck", "--sabotage \"luck\": money, stock, calls, keys, journal or cache"),
            ("order --listen tcp://h:1", "--registry URL is missing"),
            ("customer --version 3 --registry x", "--version \"3\": 1 or 2, please"),
            ("warehouse --listen localhost:80", "did you mean \"tcp://localhost:80\"?"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
