//! Benchmarks of RPC systems over loopback. `bench/README.md` tells how to run them, what the columns mean and how to
//! add a peer or a scenario.
//!
//! A scenario starts server and client processes from this same binary; these are usable by hand under `perf` or
//! `strace`.

#[cfg(feature = "secure")]
mod certificates;
mod child;
mod command;
mod company;
mod config;
mod delay;
mod flow;
mod histogram;
mod json_lines;
mod load;
mod open_files;
mod options;
mod order;
mod peers;
mod placement;
mod proc_stat;
mod report;
mod scenario;

use std::process::ExitCode;

const FAILED: u8 = 1;
const BAD_ARGUMENTS: u8 = 2;

fn main() -> ExitCode {
    let job = match command::parse(std::env::args().skip(1).collect()) {
        Ok(job) => job,
        Err(problem) => {
            eprintln!("farcall-bench: {problem}\n\n{}", command::usage());
            return ExitCode::from(BAD_ARGUMENTS);
        }
    };
    match job() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("farcall-bench: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}
