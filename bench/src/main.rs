//! Closed-loop unary benchmark of RPC systems over loopback. `bench/README.md` tells how to run it, what the
//! columns mean and how to add a peer.
//!
//! `run` (the default) starts a server and a client process per cell from this same binary; `server` and `client`
//! are those processes, usable by hand under `perf` or `strace`.

mod args;
mod child;
mod config;
mod histogram;
mod load;
mod order;
mod peers;
mod proc_stat;
mod report;
mod run;

use args::Command;
use std::process::ExitCode;

const FAILED: u8 = 1;
const BAD_ARGUMENTS: u8 = 2;

fn main() -> ExitCode {
    let command = match args::parse(std::env::args().skip(1)) {
        Ok(command) => command,
        Err(problem) => {
            eprintln!("farcall-bench: {problem}\n\n{}", args::USAGE);
            return ExitCode::from(BAD_ARGUMENTS);
        }
    };
    let done = match command {
        Command::Help => {
            println!("{}", args::USAGE);
            Ok(())
        }
        Command::List => {
            peers::ALL.iter().for_each(|peer| println!("{:10} {}", peer.name, peer.about));
            Ok(())
        }
        Command::Run(plan) => run::run(&plan),
        Command::Server(server) => child::be_server(server),
        Command::Client(client) => child::be_client(client),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("farcall-bench: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}
