//! The shop: desks, tills, warehouses, customers, a journal and a registry, each a process, most of them twice.
//!
//! A customer places an order at a desk, which lets a till charge the card and a warehouse ship. A card may be declined, the stock may
//! run out: then what was paid is refunded. None of them keeps anything: what must happen once is in the [`journal`]. `shop demo` starts
//! all, kills and restarts some while orders run, and at the end asks each for its books and compares them: orders, money, stock and
//! calls, to the last one.
//!
//! Start with [`api`]: the services as traits. Then [`order`]: a handler that calls others, and calls again. Then [`customer`]: one call
//! in three styles, in two versions of its argument. Then `demo/story.rs`: what becomes of them.
//!
//! They find each other by name, at a [`registry`].

mod api;
mod args;
mod calls;
mod customer;
mod demo;
mod generate;
mod journal;
mod ledger;
mod order;
mod payment;
mod process;
mod race;
mod registry;
mod say;
mod warehouse;
mod wares;

use std::process::ExitCode;

use args::Command;
use say::complain;

/// What a wrong command line ends with.
const WRONG_USAGE: u8 = 2;

fn main() -> ExitCode {
    let command = match args::parse(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(e) => {
            complain(&format!("{e}\n\n{}", args::USAGE));
            return ExitCode::from(WRONG_USAGE);
        }
    };
    let ended = match command {
        Command::Help => {
            say::say(args::USAGE);
            Ok(())
        }
        Command::Demo(options) => demo::run(&options),
        Command::Registry(options) => registry::run(&options),
        Command::Journal(options) => journal::run(options),
        Command::Payment(options) => payment::run(options),
        Command::Warehouse(home) => warehouse::run(&home),
        Command::Order(options) => order::run(options),
        Command::Customer(options) => customer::run(options),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            complain(&e);
            ExitCode::FAILURE
        }
    }
}
