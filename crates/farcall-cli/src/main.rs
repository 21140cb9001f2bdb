//! The command `farcall`: looks at a running provider and calls its methods without a stub; runs a registry and shows one.
//!
//! It is a client of the built-in service `farcall.Meta` and knows nothing of a provider that this
//! service does not tell. Arguments travel as JSON; what is checked here is checked again there.

mod access;
mod args;
mod call;
mod compat;
mod describe;
mod description;
mod failure;
mod find;
mod health;
mod json;
mod output;
mod provider;
mod registry;
mod schema;
mod text;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use args::Command;
use failure::Failure;
use output::Output;

fn main() -> ExitCode {
    let done = args::parse(lexopt::Parser::from_env()).and_then(run).and_then(|output| print(&output.text).map(|()| output.exit_code));
    match done {
        Ok(exit_code) => exit_code.into(),
        Err(failure) => {
            // With stderr closed there is nobody left to tell; the exit code still says it.
            let _ = std::io::stderr().write_all(failure.to_string().as_bytes());
            failure.exit_code()
        }
    }
}

/// Runs a command; what it returns goes to stdout.
fn run(command: Command) -> Result<Output, Failure> {
    match command {
        Command::Print(text) => Ok(text.into()),
        Command::Describe(options) => on_a_runtime(describe::run(options)).map(Output::from),
        Command::Schema(options) => on_a_runtime(schema::run(options)).map(Output::from),
        Command::Call(options) => on_a_runtime(call::run(options)).map(Output::from),
        Command::Compat(options) => on_a_runtime(compat::run(options)),
        Command::Registry(options) => on_a_runtime(registry::node(options)).map(Output::from),
        Command::Operate(options) => on_a_runtime(registry::operate(options)).map(Output::from),
        Command::Ls(options) => on_a_runtime(registry::ls(options)).map(Output::from),
        Command::Watch(options) => on_a_runtime(registry::watch(options)).map(Output::from),
        Command::Health(options) => on_a_runtime(health::run(options)),
    }
}

fn on_a_runtime<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Io)?;
    let done = runtime.block_on(command);
    // A name that is still being looked up must not hold up the exit.
    runtime.shutdown_background();
    done
}

/// A reader that has seen enough, such as `head`, closes the pipe: no error.
fn print(output: &str) -> Result<(), Failure> {
    is_read(output).map(drop)
}

/// Prints, and says whether anybody still reads.
pub(crate) fn is_read(output: &str) -> Result<bool, Failure> {
    let mut stdout = std::io::stdout();
    match stdout.write_all(output.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).map_err(Failure::Io),
    }
}
