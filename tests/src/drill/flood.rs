//! Twenty thousand connections, made by four processes from forty numbers of this machine and all held open: silent ones,
//! the beginning of TLS, plaintext, noise. A caller that stays, and one that comes anew each time, must not notice; the
//! provider's memory and files are bounded.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use farcall::http::Http;
use farcall::prelude::*;
use farcall::{Authorities, CertifiedKey, TlsClient, TlsServer};
use tokio::net::{TcpSocket, TcpStream};

use super::roles::{Books, call, until_stdin_ends};
use super::{Stage, hold};
use crate::certificates::Authority;
use crate::{PaymentClient, PaymentServer, Till};

/// Processes of the crowd, and the connections that each makes.
const CROWDS: usize = 4;
const LINKS: u64 = 5_000;
/// The default of the limit `half_open`, and links that are on their way in or out.
const MOST_FILES: usize = 1024 + 300;
const MOST_MEMORY_KIB: usize = 64 << 10;

/// See the module's text.
pub(super) async fn run(stage: &mut Stage) -> Result<(), String> {
    let cast = &mut stage.cast;
    let folder = cast.folder().to_path_buf();
    Authority::new().write_to(&folder);
    let folder = folder.display().to_string();
    let door = cast.start("door", &["--tls", &folder])?;
    let mut caller = cast.start("caller", &["--to", &door.address, "--tls", &folder])?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (quiet, (files_before, memory_before)) = (caller.report()?, taken_by(door.pid())?);
    let start = Instant::now();
    let mut crowds = Vec::new();
    for n in 0..CROWDS {
        crowds.push(cast.start("strangers", &["--to", &door.address, "--number", &n.to_string(), "--links", &LINKS.to_string()])?);
    }
    let (mut made, mut most_files) = (0, 0);
    while made < LINKS * CROWDS as u64 {
        made = 0;
        for crowd in &mut crowds {
            let report = crowd.report()?;
            made += report.ok;
            hold_quietly(&format!("a connection could not be made: {}", report.error), report.failed() == 0)?;
        }
        most_files = most_files.max(taken_by(door.pid())?.0);
        if start.elapsed() > Duration::from_secs(120) {
            return Err(format!("only {made} connections were made"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = start.elapsed();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (crowded, memory) = (caller.report()?, taken_by(door.pid())?.1);
    let grown = memory.saturating_sub(memory_before);
    println!("  {made} connections in {} ms; {} calls before them, {} beside", took.as_millis(), quiet.ok, crowded.ok - quiet.ok);
    hold(&format!("at most {most_files} files, {files_before} before"), most_files < files_before + MOST_FILES)?;
    hold(&format!("{grown} KiB more memory"), grown < MOST_MEMORY_KIB)?;
    hold(&format!("no call beside it failed ({})", crowded.error), crowded.failed() == 0)?;
    hold(&format!("the longest time without an answer was {} ms", crowded.gap_ms), crowded.gap_ms < 2000)?;
    hold("calls went on", crowded.ok > quiet.ok + 50)?;
    drop(crowds);
    let gone = Instant::now();
    while taken_by(door.pid())?.0 > files_before + 20 {
        hold_quietly("their files are free again", gone.elapsed() < Duration::from_secs(20))?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    hold("their files are free again", true)
}

/// Says something only if it does not hold.
fn hold_quietly(what: &str, holds: bool) -> Result<(), String> {
    if holds { Ok(()) } else { hold(what, false) }
}

/// What the system says of a process: open files, and kibibytes of memory.
fn taken_by(pid: u32) -> Result<(usize, usize), String> {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).map_err(|e| e.to_string())?.count();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|e| e.to_string())?;
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok((files, memory.trim().trim_end_matches(" kB").parse().map_err(|_| "VmRSS is no number")?))
}

/// A provider on TLS and nothing else, with the limits that it has by default.
pub(super) async fn door(folder: &str) -> Result<(), String> {
    let folder = Path::new(folder);
    let identity = CertifiedKey::files(folder.join("chain.pem"), folder.join("key.pem"));
    let tls = TlsServer::builder(identity).build().map_err(|e| e.to_string())?;
    let server = Server::builder().serve(PaymentServer::new(Till::default())).protocol(Http::new()).tls(&tls);
    let server = server.listen("tls://127.0.0.1:0").await.map_err(|e| e.to_string())?;
    println!("ready {}", server.address());
    until_stdin_ends(|| "0 0 0 0 -".to_owned()).await;
    Ok(())
}

/// Calls `to` on a connection that stays, and on a new one each time.
pub(super) async fn caller(to: &str, folder: &str) -> Result<(), String> {
    let ca = Authorities::file(Path::new(folder).join("ca.pem"));
    let tls = TlsClient::builder().ca(ca).build().map_err(|e| e.to_string())?;
    let connect = {
        let to = to.to_owned();
        move || PaymentClient::connect(&to).tls(&tls)
    };
    let (stays, books) = (connect().await.map_err(|e| e.to_string())?, Arc::new(Books::default()));
    println!("ready -");
    tokio::spawn(call(stays, Arc::clone(&books), 0, Duration::from_millis(2)));
    let newcomers = Arc::clone(&books);
    tokio::spawn(async move {
        loop {
            let paid = match connect().await {
                Ok(client) => client.status(7).await.map(drop),
                Err(e) => Err(e),
            };
            let certainty = paid.as_ref().err().map_or(Certainty::MaybeExecuted, RpcError::certainty);
            newcomers.enter(paid.err().map(|e| e.to_string()), certainty);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    until_stdin_ends(move || books.show()).await;
    Ok(())
}

/// Connections that one process of strangers makes at a time.
const AT_A_TIME: usize = 50;

/// Makes `links` connections to `to` from ten numbers of this machine and holds all of them. Its books: how many were made.
pub(super) async fn strangers(to: &str, number: u8, links: u64) -> Result<(), String> {
    let to: SocketAddr = to.trim_start_matches("tls://").parse().map_err(|_| "--to is no address")?;
    let (books, next) = (Arc::new(Books::default()), Arc::new(AtomicU64::new(0)));
    println!("ready -");
    for _ in 0..AT_A_TIME {
        let (books, next) = (Arc::clone(&books), Arc::clone(&next));
        tokio::spawn(async move {
            let mut held = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::SeqCst);
                if n >= links {
                    break;
                }
                match stranger([127, 0, 1 + number, 1 + (n % 10) as u8], to, n).await {
                    Ok(link) => {
                        held.push(link);
                        books.enter(None, Certainty::NotSent);
                    }
                    Err(e) => books.enter(Some(e.to_string()), Certainty::NotExecuted),
                }
            }
            std::future::pending::<()>().await;
        });
    }
    until_stdin_ends(move || books.show()).await;
    Ok(())
}

async fn stranger(from: [u8; 4], to: SocketAddr, n: u64) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((IpAddr::from(from), 0).into())?;
    let link = socket.connect(to).await?;
    let says: &[u8] = match n % 4 {
        0 => b"",
        1 => &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc],
        2 => b"GET / HTTP/1.1\r\nhost: ",
        _ => &[0x16, 3, 1, 0, 4, 1, 2, 3, 4],
    };
    // Who was pushed out already does not hear of it.
    let _ = link.try_write(says);
    Ok(link)
}
