//! The shop: order, payment, warehouse and a customer as four processes, and a registry.
//!
//! The customer places an order with the order desk, which writes it down, lets payment charge the
//! card, writes that down, and lets the warehouse ship. A card may be declined, the stock may run
//! out: then what was paid is refunded. `shop demo` starts all four, and at the end asks each for its
//! books and compares them: orders, money, stock and calls, to the last one.
//!
//! Start with [`api`]: the services as traits. Then [`order`]: a handler that calls two others. Then
//! [`customer`]: one call in three styles.
//!
//! They find each other by name, at a [`registry`] that the demo kills and starts again while orders are placed.
//!
//! What it does not do: keep anything on disk, but the lists of who is where.

mod api;
mod args;
mod calls;
mod customer;
mod demo;
mod generate;
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
        Command::Payment(options) => payment::run(options),
        Command::Warehouse(options) => warehouse::run(options),
        Command::Order(options) => order::run(options),
        Command::Customer(options) => customer::run(options),
        Command::Registry(home) => registry::run(&home),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            complain(&e);
            ExitCode::FAILURE
        }
    }
}
