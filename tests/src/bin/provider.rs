//! A provider process for tests: `provider ADDRESS` serves a till there, says where on its standard
//! output and ends when its standard input does. `provider ADDRESS PATIENCE_MS [THREADS]` ends on a
//! signal, gracefully.

use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use farcall::{StopSignals, prelude::*};
use farcall_tests::{PaymentServer, Till};

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("provider: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut args: impl Iterator<Item = String>) -> Result<(), RpcError> {
    let address = args.next().unwrap_or_else(|| "tcp://127.0.0.1:0".into());
    let patience = args.next().and_then(|ms| ms.parse().ok()).map(Duration::from_millis);
    let signals = patience.map(|_| StopSignals::new()).transpose()?;
    let mut server = Server::builder().serve(PaymentServer::new(Till::default()));
    if let Some(threads) = args.next().and_then(|n| n.parse().ok()) {
        server = server.threads(threads);
    }
    let server = server.listen(address).wait()?;
    println!("{}", server.address());
    if let (Some(signals), Some(patience)) = (signals, patience) {
        return farcall::block_on(server.drain_on(signals, patience))?;
    }
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    Ok(())
}
