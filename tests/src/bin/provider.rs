//! A provider process for tests: `provider ADDRESS` serves a till there, says where on its standard
//! output and ends when its standard input does.

use std::io::Read;
use std::process::ExitCode;

use farcall::prelude::*;
use farcall_tests::{PaymentServer, Till};

fn main() -> ExitCode {
    let address = std::env::args().nth(1).unwrap_or_else(|| "tcp://127.0.0.1:0".into());
    match Server::builder().serve(PaymentServer::new(Till::default())).listen(address).wait() {
        Ok(server) => {
            println!("{}", server.address());
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            drop(server);
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("provider: {e}");
            ExitCode::FAILURE
        }
    }
}
