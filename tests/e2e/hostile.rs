//! Those who come to do harm before a word was said: floods, silence, trickles, garbage. Each beside callers
//! that must not notice.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use farcall::{Authorities, Limits, TlsClient, TlsServer, prelude::*};
use farcall_tests::certificates::{Authority, LOCAL};
use farcall_tests::{PaymentClient, PaymentServer, Status, Till};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use crate::bad_peer::opening;
use crate::support::{Provider, TempDir, run, run_on, until};

const MS: Duration = Duration::from_millis(1);

/// Callers beside what happens: one that stays, and one that comes anew for each call. None may fail.
struct Load {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    async fn on(address: &str, tls: &TlsClient) -> Load {
        let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (address, tls) = (address.to_owned(), tls.clone());
        let connect = move || PaymentClient::connect(&address).tls(&tls);
        let stays = connect().await.unwrap();
        let mut tasks = Vec::new();
        for comes_anew in [false, true] {
            let (stop, calls, connect, stays) = (stop.clone(), calls.clone(), connect.clone(), stays.clone());
            tasks.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let client = if comes_anew { connect().await.expect("a new caller gets in") } else { stays.clone() };
                    let status = client.status(7).await.expect("a call beside the attack");
                    assert_eq!(status, Status::Paid { cents: 250 });
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        Load { stop, calls, tasks }
    }

    /// Waits until more calls were made beside what went before, and ends them.
    async fn end(self) {
        let so_far = self.calls.load(Ordering::Relaxed);
        until("calls go on", || self.calls.load(Ordering::Relaxed) >= so_far + 10 || self.tasks.iter().any(|t| t.is_finished())).await;
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

fn socket_address(server: &str) -> SocketAddr {
    server.split_once("://").unwrap().1.parse().unwrap()
}

/// From one of the many numbers that this machine has.
async fn from(host: [u8; 4], to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(IpAddr::from(host), 0))?;
    socket.connect(to).await
}

/// Reads to the end, however it ends; what came.
async fn hear_out(link: &mut TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    let _ = link.read_to_end(&mut heard).await;
    heard
}

async fn serve(authority: &Authority, limits: Limits) -> Server {
    let builder = Server::builder().serve(PaymentServer::new(Till::default())).limits(limits);
    builder.tls(&authority.server()).listen("tls://127.0.0.1:0").await.unwrap()
}

/// A ClientHello without extensions, as of this version; what TLS 1.2 and older clients send.
fn old_hello(version: u8) -> Vec<u8> {
    let mut body = vec![3, version];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2f, 1, 0]);
    let handshake = [&[1, 0, 0, body.len() as u8], &body[..]].concat();
    [&[0x16, 3, 1, 0, handshake.len() as u8], &handshake[..]].concat()
}

/// The ClientHello of a real client.
async fn real_hello(tls: &TlsClient) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tls://{}", listener.local_addr().unwrap());
    let tls = tls.clone();
    let connecting = tokio::spawn(async move { PaymentClient::connect(address).tls(&tls).await.map(|_| ()) });
    let (mut link, _) = listener.accept().await.unwrap();
    let mut hello = vec![0; 5];
    link.read_exact(&mut hello).await.unwrap();
    let len = usize::from(u16::from_be_bytes([hello[3], hello[4]]));
    hello.resize(5 + len, 0);
    link.read_exact(&mut hello[5..]).await.unwrap();
    connecting.abort();
    hello
}

/// Each of these stops, or goes on a byte at a time, at another point of a connection's beginning.
#[test]
fn who_is_slow_to_begin_is_closed_at_every_stage() {
    run(async {
        let authority = Authority::new();
        let limits = Limits { handshake: 400 * MS, ..Limits::default() };
        let tls = TlsServer::builder(authority.issue(&LOCAL).identity()).accept_plaintext().build().unwrap();
        let builder = Server::builder().serve(PaymentServer::new(Till::default())).limits(limits).tls(&tls);
        let server = builder.listen("tls://127.0.0.1:0").await.unwrap();
        let address = server.address().to_string();
        let load = Load::on(&address, &authority.trusting()).await;
        let hello = real_hello(&authority.trusting()).await;
        let farcall = opening();
        let stages: [(&str, &[u8]); 8] = [
            ("nothing at all", b""),
            ("the first byte of TLS", &hello[..1]),
            ("half a TLS record's header", &hello[..3]),
            ("half a ClientHello", &hello[..hello.len() / 2]),
            ("a ClientHello and then nothing", &hello),
            ("half a preface", &farcall[..4]),
            ("half a frame's header", &farcall[..14]),
            ("half a hello", &farcall[..farcall.len() - 3]),
        ];
        let start = Instant::now();
        let attacks: Vec<_> = stages
            .into_iter()
            .flat_map(|(what, bytes)| [(what, bytes.to_vec(), false), (what, bytes.to_vec(), true)])
            .map(|(what, bytes, trickles)| {
                let to = socket_address(&address);
                tokio::spawn(async move {
                    let mut link = TcpStream::connect(to).await.unwrap();
                    link.set_nodelay(true).unwrap();
                    let pause = 600 * MS / (bytes.len() as u32 + 1);
                    for chunk in bytes.chunks(if trickles { 1 } else { bytes.len().max(1) }) {
                        // The server may have had enough by now.
                        if link.write_all(chunk).await.is_err() {
                            break;
                        }
                        if trickles {
                            tokio::time::sleep(pause).await;
                        }
                    }
                    hear_out(&mut link).await;
                    (what, start.elapsed())
                })
            })
            .collect();
        for attack in attacks {
            let (what, closed_after) = attack.await.unwrap();
            assert!(closed_after >= 300 * MS, "{what}: closed after {closed_after:?}");
        }
        load.end().await;
        until("nothing is left but the callers", || server.connections() <= 2).await;
    });
}

/// After the hello a peer that sends half a frame and stops is asked whether it lives, and given up.
#[test]
fn half_a_frame_and_silence_is_given_up() {
    run(async {
        let limits = Limits { heartbeat: Some(100 * MS), ..Limits::default() };
        let server = Server::builder().serve(PaymentServer::new(Till::default())).limits(limits).listen("tcp://127.0.0.1:0").await.unwrap();
        let address = server.address().to_string();
        let load = Load::on(&address, &Authority::new().trusting()).await;
        for half in [&[1, 0, 0][..], &[0xff, 0xff, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3][..]] {
            let mut link = TcpStream::connect(socket_address(&address)).await.unwrap();
            link.write_all(&opening()).await.unwrap();
            link.write_all(half).await.unwrap();
            hear_out(&mut link).await;
        }
        load.end().await;
    });
}

/// After the hello, frames that come a byte at a time: whole ones are answered, and those that announce much and never
/// come to an end take no more than what came of them, whoever waits beside them.
#[test]
fn frames_that_trickle_are_served_and_hold_nobody_up() {
    let provider = Provider::start("tcp://127.0.0.1:0");
    run(async {
        let to = socket_address(&provider.address);
        let load = Load::on(&provider.address, &Authority::new().trusting()).await;
        // A real client, behind somebody who passes each byte on by itself.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        let between = tokio::spawn(async move {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(to).await.unwrap();
            server.set_nodelay(true).unwrap();
            let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (client.into_split(), server.into_split());
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            while let Ok(byte) = from_client.read_u8().await {
                if to_server.write_u8(byte).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
        let client = PaymentClient::connect(&address).await.unwrap();
        assert_eq!(client.status(7).await.unwrap(), Status::Paid { cents: 250 });
        let bytes = vec![9; 3000];
        assert_eq!(client.echo(bytes.clone()).await.unwrap(), bytes);
        between.abort();
        let (files, memory) = taken_by(provider.pid());
        let mut links = Vec::new();
        for n in 0..400u32 {
            let mut link = TcpStream::connect(to).await.unwrap();
            link.set_nodelay(true).unwrap();
            link.write_all(&opening()).await.unwrap();
            // A MiB, of different kinds of frames.
            let length = (1u32 << 20).to_le_bytes();
            link.write_all(&[length[0], length[1], length[2], length[3], [3, 5, 9][n as usize % 3]]).await.unwrap();
            links.push(link);
        }
        for _ in 0..20 {
            for link in &mut links {
                // Who is found out is hung up on.
                let _ = link.write_all(&[0]).await;
            }
        }
        let (now, grown) = taken_by(provider.pid());
        assert!(now <= files + links.len() + 8, "{now} files");
        let grown = grown.saturating_sub(memory);
        assert!(grown < 24 << 10, "{grown} KiB for {} links that announced a MiB each", links.len());
        drop(links);
        load.end().await;
        until("they are gone", || taken_by(provider.pid()).0 <= files + 8).await;
    });
}

#[test]
fn garbage_and_old_versions_are_refused_in_tls_words() {
    run(async {
        let authority = Authority::new();
        let server = serve(&authority, Limits { handshake: 500 * MS, ..Limits::default() }).await;
        let address = server.address().to_string();
        let load = Load::on(&address, &authority.trusting()).await;
        let hello = real_hello(&authority.trusting()).await;
        let endless = [&[0x16, 3, 1, 0x40, 0][..], &[1, 0xff, 0xff, 0xff], &vec![0; 0x4000 - 4]].concat().repeat(8);
        let cases: [(&str, Vec<u8>); 8] = [
            ("SSL 3.0", old_hello(0)),
            ("TLS 1.0", old_hello(1)),
            ("TLS 1.2", old_hello(3)),
            ("a record of impossible length", vec![0x16, 3, 3, 0xff, 0xff, 1, 2, 3]),
            ("no handshake at all", [&[0x16, 3, 3, 0, 8][..], &[0xee; 8]].concat()),
            ("a ClientHello of 16 MiB", endless),
            ("an application's record first", [&[0x16, 3, 3, 0, 1, 1][..], &[0x17, 3, 3, 0, 1, 9]].concat()),
            ("a ClientHello and then plaintext", [&hello[..], b"farcall\x01 in plaintext"].concat()),
        ];
        for (what, bytes) in cases {
            let mut link = TcpStream::connect(socket_address(&address)).await.unwrap();
            let _ = link.write_all(&bytes).await;
            let heard = hear_out(&mut link).await;
            // An alert, or what a ClientHello is answered with and then an alert.
            assert!(heard.is_empty() || [0x15, 0x16].contains(&heard[0]), "{what}: {heard:?}");
            if what.starts_with("TLS 1") || what.starts_with("SSL") {
                assert_eq!(heard.first(), Some(&0x15), "{what} is told by an alert");
            }
        }
        let mut random = 7u64;
        for n in 0..200usize {
            let mut link = TcpStream::connect(socket_address(&address)).await.unwrap();
            let mut bytes = hello.clone();
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (random >> 33) as usize % bytes.len();
            bytes[at] ^= 1 << (n % 8);
            bytes.truncate(bytes.len() - n % 50);
            let _ = link.write_all(&bytes).await;
            let _ = link.shutdown().await;
            hear_out(&mut link).await;
        }
        load.end().await;
    });
}

/// Somebody on the way who adds to what is sent, or changes it: a second ClientHello (as a renegotiation would
/// begin), a flipped bit, a record in plaintext, an end without a word.
#[test]
fn who_meddles_on_the_way_ends_the_link_and_is_never_believed() {
    run(async {
        let authority = Authority::new();
        let server = serve(&authority, Limits::default()).await;
        let to = socket_address(&server.address().to_string());
        let load = Load::on(&server.address().to_string(), &authority.trusting()).await;
        let meddling: [fn(&mut Vec<u8>); 4] = [
            |bytes| bytes.splice(0..0, old_hello(3)).for_each(drop),
            |bytes| *bytes.last_mut().unwrap() ^= 1,
            |bytes| bytes.splice(0..0, [0x17, 3, 3, 0, 3, b'a', b'b', b'c']).for_each(drop),
            |bytes| bytes.clear(),
        ];
        for meddle in meddling {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = format!("tls://{}", listener.local_addr().unwrap());
            let honest = Arc::new(AtomicBool::new(true));
            let between = tokio::spawn(meddler(listener, to, honest.clone(), meddle));
            let client = PaymentClient::connect(&address).tls(&authority.trusting()).await.unwrap();
            client.status(7).await.unwrap();
            honest.store(false, Ordering::SeqCst);
            let e = client.status(7).await.unwrap_err();
            assert_eq!((e.code(), e.certainty()), (Code::Unavailable, Certainty::MaybeExecuted), "{e}");
            between.abort();
        }
        load.end().await;
    });
}

/// Passes bytes on between a client and `to`; once it is not honest any more, what the client sends is changed.
async fn meddler(listener: TcpListener, to: SocketAddr, honest: Arc<AtomicBool>, meddle: fn(&mut Vec<u8>)) {
    let (client, _) = listener.accept().await.unwrap();
    let server = TcpStream::connect(to).await.unwrap();
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (client.into_split(), server.into_split());
    let back = async {
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
        let _ = to_client.shutdown().await;
    };
    let forth = async {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(n @ 1..) = from_client.read(&mut bytes).await {
            let mut piece = bytes[..n].to_vec();
            if !honest.load(Ordering::SeqCst) {
                meddle(&mut piece);
            }
            if piece.is_empty() || to_server.write_all(&piece).await.is_err() {
                break;
            }
        }
        let _ = to_server.shutdown().await;
    };
    let (mut back, mut forth) = (std::pin::pin!(back), std::pin::pin!(forth));
    let mut ended = (false, false);
    std::future::poll_fn(|cx| {
        ended.0 = ended.0 || back.as_mut().poll(cx).is_ready();
        ended.1 = ended.1 || forth.as_mut().poll(cx).is_ready();
        if ended == (true, true) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

#[test]
fn one_host_cannot_take_all_connections() {
    run(async {
        let limits = Limits { connections: 10, connections_per_host: 4, ..Limits::default() };
        let builder = Server::builder().serve(PaymentServer::new(Till::default())).limits(limits);
        let server = builder.listen("tcp://127.0.0.1:0").await.unwrap();
        let to = socket_address(&server.address().to_string());
        let mut held = Vec::new();
        for _ in 0..4 {
            let mut link = from([127, 0, 0, 2], to).await.unwrap();
            link.write_all(&opening()).await.unwrap();
            held.push(link);
        }
        until("it has its four", || server.connections() == 4).await;
        // A fifth is told which limit it is, in farcall's words.
        let mut fifth = from([127, 0, 0, 2], to).await.unwrap();
        fifth.write_all(&opening()).await.unwrap();
        let heard = String::from_utf8_lossy(&hear_out(&mut fifth).await).into_owned();
        assert!(heard.starts_with("farcall\u{1}") && heard.contains("connections_per_host"), "{heard:?}");
        // Others have their places, as many as come and go.
        for _ in 0..20 {
            let client = PaymentClient::connect(server.address()).await.unwrap();
            assert_eq!(client.status(7).await.unwrap(), Status::Paid { cents: 250 });
        }
        drop(held);
        until("they are gone", || server.connections() == 0).await;
        let mut link = from([127, 0, 0, 2], to).await.unwrap();
        link.write_all(&opening()).await.unwrap();
        until("there is room again", || server.connections() == 1).await;
    });
}

#[test]
fn a_client_of_a_host_with_too_many_connections_is_told_which_limit_it_is() {
    run(async {
        let limits = Limits { connections_per_host: 1, ..Limits::default() };
        let builder = Server::builder().serve(PaymentServer::new(Till::default())).limits(limits);
        let server = builder.listen("tcp://127.0.0.1:0").await.unwrap();
        let _first = PaymentClient::connect(server.address()).await.unwrap();
        let e = PaymentClient::connect(server.address()).await.map(|_| ()).unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::ResourceExhausted, Certainty::NotSent), "{e}");
        assert!(e.message().contains("connections_per_host") && e.message().contains("share one"), "{e}");
    });
}

#[test]
fn silent_links_give_way_and_callers_do_not_notice() {
    run(async {
        let authority = Authority::new();
        let server = serve(&authority, Limits { half_open: 16, handshake: Duration::from_secs(3600), ..Limits::default() }).await;
        let address = server.address().to_string();
        let load = Load::on(&address, &authority.trusting()).await;
        let mut silent = Vec::new();
        for n in 0..200 {
            let mut link = from([127, 0, 0, 2], socket_address(&address)).await.unwrap();
            // Half of them as TLS.
            if n % 2 == 0 {
                link.write_all(&[0x16, 3, 1]).await.unwrap();
            }
            silent.push(link);
        }
        let mut closed = 0;
        for link in &mut silent[..150] {
            hear_out(link).await;
            closed += 1;
        }
        assert_eq!(closed, 150, "the oldest are closed although they have an hour");
        load.end().await;
    });
}

/// Connections that are reset or half closed as soon as they are made.
#[test]
fn half_open_peers_leave_nothing_behind() {
    run(async {
        let authority = Authority::new();
        let server = serve(&authority, Limits::default()).await;
        let address = server.address().to_string();
        let load = Load::on(&address, &authority.trusting()).await;
        for n in 0..300 {
            let mut link = TcpStream::connect(socket_address(&address)).await.unwrap();
            match n % 3 {
                0 => link.set_zero_linger().unwrap(),
                1 => link.shutdown().await.unwrap(),
                _ => link.write_all(&[0x16]).await.unwrap(),
            }
        }
        load.end().await;
        until("only the callers are left", || server.connections() <= 1).await;
        server.drain(Duration::from_secs(5)).await.unwrap();
    });
}

/// What the system says of a process: file descriptors, and kibibytes of memory.
fn taken_by(pid: i32) -> (usize, usize) {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let memory = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    (files, memory.trim().trim_end_matches(" kB").parse().unwrap())
}

/// Twenty thousand connections, from forty hosts, five hundred at a time: silent ones, half a TLS handshake, noise.
#[test]
fn a_flood_of_connections_is_bounded_and_callers_do_not_notice() {
    let folder = TempDir::new("flood");
    Authority::new().write_to(&folder.0);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_provider"));
    let provider = Provider::spawn(command.arg("tls://127.0.0.1:0").env("FARCALL_TEST_TLS", &folder.0));
    run_on(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(), async {
        let tls = TlsClient::builder().ca(Authorities::file(folder.0.join("ca.pem"))).build().unwrap();
        let load = Load::on(&provider.address, &tls).await;
        let to = socket_address(&provider.address);
        let (files_before, memory_before) = taken_by(provider.pid());
        let (mut most_files, mut held) = (0, std::collections::VecDeque::new());
        let start = Instant::now();
        let mut made = 0;
        for step in 0..40u8 {
            for n in 0..500 {
                // A full queue of the listener makes a connection wait: no longer than this.
                let Ok(Ok(mut link)) = tokio::time::timeout(500 * MS, from([127, 0, 1, step + 1], to)).await else { continue };
                let _ = match n % 3 {
                    0 => Ok(0),
                    1 => link.try_write(&[0x16, 3, 1, 2, 0, 1]),
                    _ => link.write(b"GET / HTTP/1.1\r\n").await,
                };
                made += 1;
                held.push_back(link);
            }
            // They are held for four steps.
            if held.len() > 2000 {
                held.drain(..500);
            }
            most_files = most_files.max(taken_by(provider.pid()).0);
            if start.elapsed() > Duration::from_secs(12) {
                eprintln!("a slow machine: stopped the flood after {made} connections");
                break;
            }
        }
        let memory = taken_by(provider.pid()).1;
        drop(held);
        load.end().await;
        assert!(made >= 1000, "{made}");
        // Those that have said nothing (half_open), and those that are being told why not.
        assert!(most_files < files_before + 1024 + 600, "{most_files} file descriptors");
        let grown = memory.saturating_sub(memory_before);
        assert!(grown < 64 << 10, "{grown} KiB more memory after {made} connections");
        eprintln!("{made} connections in {:?}: at most {most_files} file descriptors, {grown} KiB more memory", start.elapsed());
        until("they are closed", || taken_by(provider.pid()).0 <= files_before + 20).await;
    });
}
