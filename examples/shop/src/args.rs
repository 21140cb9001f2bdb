//! The command line, parsed at the edge: inside of the program no option can be wrong.

use std::collections::BTreeMap;
use std::str::FromStr;

use farcall::Address;

use crate::demo::{self, Sabotage};
use crate::process::Home;
use crate::{customer, order, payment, warehouse};

/// What is printed when the command line is wrong, or on `--help`.
pub(crate) const USAGE: &str = "\
usage: shop demo [--once] [--orders N] [--seed S]
       shop payment   [--listen ADDR]
       shop warehouse [--listen ADDR] [--stock N]
       shop order     [--listen ADDR] [--payment ADDR] [--till ADDR] [--warehouse ADDR]
       shop customer  [--listen ADDR] [--order ADDR] [--orders N] [--seed S]
       shop registry  [--listen ADDR]

demo starts the five others and compares their books: exit 0 if they agree, 1 if not.
With --once it ends then; without, it stays up until Ctrl-C.

  --orders N   orders to place, 1 to 100000 (3000)
  --seed S     which orders (1)
  --stock N    pieces of each item at the start, more or less (1000)
  --till ADDR  where money is moved, if not straight at payment; demo puts a bad wire there
  --listen, --payment, --till, --warehouse, --order
               tcp://HOST:PORT or unix:/PATH; listening is on tcp://127.0.0.1:0, a free port,
               unless said otherwise
  --registry URL
               register there, and find by name those whose address is not given
Each service prints `ready ADDR` and ends on Ctrl-C or SIGTERM; with --until-stdin-closes also when
its stdin does.";

/// The most orders of a demo. The ledgers travel whole, and 100 000 lines of them fit well into
/// farcall's default limit of 16 MiB.
const MOST_ORDERS: u64 = 100_000;

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Help,
    Demo(demo::Options),
    Payment(payment::Options),
    Warehouse(warehouse::Options),
    Order(order::Options),
    Customer(customer::Options),
    Registry(Home),
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
        "payment" => Command::Payment(payment::Options { home: home(&mut words)?, crash_after: words.parsed("--crash-after")? }),
        "warehouse" => Command::Warehouse(warehouse::Options { home: home(&mut words)?, stock: words.parsed("--stock")?.unwrap_or(1000) }),
        "registry" => Command::Registry(home(&mut words)?),
        "order" => Command::Order(order(&mut words)?),
        "customer" => {
            let home = home(&mut words)?;
            let order = words.address_unless_named("--order", &home)?;
            Command::Customer(customer::Options { home, order, orders: orders(&mut words)?, seed: words.parsed("--seed")?.unwrap_or(1) })
        }
        other => return Err(format!("there is no command {other:?}")),
    };
    words.nothing_left(&name)?;
    Ok(command)
}

/// `--crash-payment-after N` and `--sabotage WHAT` are for tests, so the usage does not show them.
fn demo(words: &mut Words) -> Result<demo::Options, String> {
    Ok(demo::Options {
        once: words.flag("--once"),
        orders: orders(words)?,
        seed: words.parsed("--seed")?.unwrap_or(1),
        crash_payment_after: words.parsed("--crash-payment-after")?,
        sabotage: words.parsed::<Sabotage>("--sabotage")?,
    })
}

fn order(words: &mut Words) -> Result<order::Options, String> {
    let home = home(words)?;
    Ok(order::Options {
        payment: words.address_unless_named("--payment", &home)?,
        till: words.address("--till")?,
        without_keys: words.flag("--without-keys"),
        warehouse: words.address_unless_named("--warehouse", &home)?,
        home,
    })
}

fn home(words: &mut Words) -> Result<Home, String> {
    let listen = words.address("--listen")?.unwrap_or_else(|| "tcp://127.0.0.1:0".to_owned());
    let registry = words.parsed("--registry")?;
    Ok(Home { listen, registry, until_stdin_closes: words.flag("--until-stdin-closes") })
}

fn orders(words: &mut Words) -> Result<u64, String> {
    match words.parsed("--orders")?.unwrap_or(3000) {
        n @ 1..=MOST_ORDERS => Ok(n),
        n => Err(format!("--orders {n}: from 1 to {MOST_ORDERS}, please")),
    }
}

/// Options that take no value.
const FLAGS: [&str; 4] = ["--once", "--help", "--until-stdin-closes", "--without-keys"];

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

    /// An address; none if there is a registry to ask.
    fn address_unless_named(&mut self, name: &str, home: &Home) -> Result<Option<String>, String> {
        match self.address(name)? {
            None if home.registry.is_none() => Err(format!("{name} ADDR is missing, or --registry URL")),
            address => Ok(address),
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
        let home = |listen: &str| Home { listen: listen.to_owned(), registry: None, until_stdin_closes: false };
        let demo = demo::Options { once: false, orders: 3000, seed: 1, crash_payment_after: None, sabotage: None };
        let check = |line: &str, expected: Command| assert_eq!(parsed(line), Ok(expected), "{line}");
        check("demo", Command::Demo(demo.clone()));
        check("demo --seed 9 --once --orders 600", Command::Demo(demo::Options { once: true, orders: 600, seed: 9, ..demo.clone() }));
        check("demo --sabotage stock", Command::Demo(demo::Options { sabotage: Some(Sabotage::Stock), ..demo }));
        check("payment", Command::Payment(payment::Options { home: home("tcp://127.0.0.1:0"), crash_after: None }));
        check("warehouse --listen unix:/run/w", Command::Warehouse(warehouse::Options { home: home("unix:/run/w"), stock: 1000 }));
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
            ("demo --sabotage luck", "--sabotage \"luck\": money, stock, calls or keys"),
            ("order --payment tcp://h:1", "--warehouse ADDR is missing, or --registry URL"),
            ("customer --order localhost:80", "did you mean \"tcp://localhost:80\"?"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
