//! What encoding and decoding cost: ours beside other codecs, on the same values.
//!
//! Instructions are counted by callgrind where it is installed, on a copy of this process: they are the same on a busy
//! machine. Times are the least of many short rounds. `--check` fails if ours is dearer than its aims allow.

mod cases;
mod count;
mod table;
mod types;

use std::process::ExitCode;
use std::time::Duration;

use cases::cases;

/// Told to the copy that callgrind runs.
const COUNT: &str = "--count-instructions";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut check = false;
    let mut round = Duration::from_millis(30);
    for arg in &args {
        match arg.as_str() {
            COUNT => {
                count::run_each(cases());
                return ExitCode::SUCCESS;
            }
            "--check" => check = true,
            "--quick" => round = Duration::from_millis(2),
            other => {
                eprintln!("codec-bench: unknown option {other:?}; there are --check (fail beyond the aims) and --quick (shorter rounds)");
                return ExitCode::from(2);
            }
        }
    }
    let instructions = match count::instructions() {
        Ok(counts) => Some(counts),
        Err(why) => {
            eprintln!("no instruction counts: {why}");
            None
        }
    };
    let measured = table::measure(cases(), round, instructions.as_deref());
    table::print(&measured);
    let missed = table::aims(&measured);
    if check && instructions.is_none() && std::env::var_os("FARCALL_FOREIGN").is_some_and(|wish| wish == "required") {
        eprintln!("codec-bench: the aims are in instructions, and there are none");
        return ExitCode::FAILURE;
    }
    if check && missed > 0 {
        eprintln!("codec-bench: {missed} aims missed");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
