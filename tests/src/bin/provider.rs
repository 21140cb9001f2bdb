//! A provider process for tests: `provider ADDRESS` serves a till there, says where on its standard
//! output and ends when its standard input does. `provider ADDRESS PATIENCE_MS [THREADS]` ends on a
//! signal, gracefully. `provider ADDRESS traced` makes a span of each call. `provider stdio` serves its standard streams. `provider call ADDRESS N` is a consumer that
//! makes N calls and says who answered. With FARCALL_TEST_TLS=FOLDER it proves itself with that folder's `chain.pem`
//! and `key.pem`, or trusts its `ca.pem`.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use farcall::{Authorities, CertifiedKey, Io, StopSignals, TlsClient, TlsServer, prelude::*};
use farcall_tests::{PaymentClient, PaymentServer, Till};
use tokio::net::unix::pipe;

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
    match &*address {
        "stdio" => return farcall::block_on(serve_standard_streams())?,
        "call" => return call(&args.next().unwrap_or_default(), args.next().and_then(|n| n.parse().ok()).unwrap_or(1)),
        _ => {}
    }
    let how = args.next();
    let patience = how.as_deref().and_then(|ms| ms.parse().ok()).map(Duration::from_millis);
    let signals = patience.map(|_| StopSignals::new()).transpose()?;
    let mut server = Server::builder().serve(PaymentServer::new(Till::default())).allow_anonymous();
    if how.as_deref() == Some("traced") {
        server = server.intercept(farcall::intercept::Traced::new());
    }
    if let Some(threads) = args.next().and_then(|n| n.parse().ok()) {
        server = server.threads(threads);
    }
    if let Some(folder) = tls_folder() {
        server = server.tls(&TlsServer::builder(CertifiedKey::files(folder.join("chain.pem"), folder.join("key.pem"))).build()?);
    }
    let server = server.listen(address).wait()?;
    println!("{}", server.address());
    if let (Some(signals), Some(patience)) = (signals, patience) {
        return farcall::block_on(server.drain_on(signals, patience))?;
    }
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    Ok(())
}

fn tls_folder() -> Option<PathBuf> {
    std::env::var_os("FARCALL_TEST_TLS").map(PathBuf::from)
}

/// Until the process that started this one kills it.
async fn serve_standard_streams() -> Result<(), RpcError> {
    let server = Server::builder().serve(PaymentServer::new(Till::default())).listen("mem:unused").await?;
    let broken = |e: std::io::Error| RpcError::new(Code::Internal, e.to_string());
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().and_then(pipe::Receiver::from_owned_fd).map_err(broken)?;
    let stdout = std::io::stdout().as_fd().try_clone_to_owned().and_then(pipe::Sender::from_owned_fd).map_err(broken)?;
    server.serve_link(Io::boxed(tokio::io::join(stdin, stdout)));
    std::future::pending().await
}

fn call(address: &str, times: u64) -> Result<(), RpcError> {
    let mut connecting = PaymentClient::connect(address);
    if let Some(folder) = tls_folder() {
        connecting = connecting.tls(&TlsClient::builder().ca(Authorities::file(folder.join("ca.pem"))).build()?);
    }
    let client = connecting.wait()?;
    for n in 0..times {
        let bytes = vec![n as u8; 20_000 * (n as usize % 5)];
        assert_eq!(client.echo(bytes.clone()).wait()?, bytes);
    }
    println!("{}", client.channel().peer().map(|p| p.facts.address).unwrap_or_default());
    Ok(())
}
