//! Clients that mean harm or are broken: refused by name, within bounds, and nobody else is the worse for it.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use farcall::auth::{Identity, Tokens};
use farcall::http::{Http, HttpLimits};
use farcall::{Credentials, Limits, Server};
use farcall_tests::{PaymentClient, PaymentServer, Status, Till};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use super::client::{Http1, Opened, open, open_with};
use crate::support::{PATIENCE, run, until};

/// What the server does with these bytes: the statuses of its answers, and whether it hung up.
async fn answers(opened: &Opened, bytes: &[u8]) -> (Vec<u16>, bool) {
    let mut http = Http1::connect(&opened.socket).await;
    http.send(bytes).await;
    let mut statuses = Vec::new();
    loop {
        match tokio::time::timeout(Duration::from_millis(700), http.receive(true)).await {
            Ok(Some(got)) => statuses.push(got.status),
            Ok(None) => return (statuses, true),
            Err(_) => return (statuses, false),
        }
    }
}

/// Bytes of memory that this process has resident.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn quick() -> HttpLimits {
    HttpLimits { idle: Duration::from_millis(300), stall: Duration::from_millis(300), ..HttpLimits::default() }
}

#[test]
fn no_request_hides_in_another() {
    run(async {
        let opened = open(Http::new()).await;
        let hidden = "GET /Payment/notes HTTP/1.1\r\nhost: t\r\n\r\n";
        let post = "POST /Payment/status HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n";
        // Both lengths: chunks count, and the connection ends with that request, so what follows is never one.
        let chunked = "transfer-encoding: chunked\r\n";
        let both = format!("{post}content-length: 4\r\n{chunked}\r\n8\r\n{{\"id\":7}}\r\n0\r\n\r\n{hidden}");
        assert_eq!(answers(&opened, both.as_bytes()).await, (vec![200], true));
        let both = format!("{post}{chunked}content-length: 4\r\n\r\n8\r\n{{\"id\":7}}\r\n0\r\n\r\n{hidden}");
        assert_eq!(answers(&opened, both.as_bytes()).await, (vec![200], true));
        let refused = [
            format!("{post}content-length: 8\r\ncontent-length: 9\r\n\r\n{{\"id\":7}}{hidden}"),
            format!("{post}content-length: 8, 9\r\n\r\n{{\"id\":7}}{hidden}"),
            format!("{post}content-length: +8\r\n\r\n{{\"id\":7}}{hidden}"),
            format!("{post}content-length: -1\r\n\r\n{hidden}"),
            format!("{post}content-length: 99999999999999999999\r\n\r\n{hidden}"),
            format!("{post}transfer-encoding: chunked, identity\r\n\r\n{hidden}"),
            format!("{post}transfer-encoding: chunked, chunked\r\n\r\n8\r\n{{\"id\":7}}\r\n0\r\n\r\n{hidden}"),
            format!("{post}transfer-encoding: gzip, chunked\r\n\r\n8\r\n{{\"id\":7}}\r\n0\r\n\r\n{hidden}"),
            format!("{post}{chunked}{chunked}\r\n8\r\n{{\"id\":7}}\r\n0\r\n\r\n{hidden}"),
            format!("{post}transfer-encoding: xchunked\r\n\r\n{hidden}"),
            format!("{post}transfer-encoding : chunked\r\n\r\n{hidden}"),
            // A folded line.
            format!("{post}x-folded: a\r\n b\r\ncontent-length: 8\r\n\r\n{{\"id\":7}}{hidden}"),
            format!("{post}content-length: 8\r\nx y: z\r\n\r\n{{\"id\":7}}{hidden}"),
            format!("POST /Payment/status HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
            "GET /Payment/notes HTTP/1.1\r\nhost: t\r\nx: a\0b\r\n\r\n".to_owned(),
            "GET /Payment/notes HTTP/1.1\r\nhost: t\r\nx: a\rb\r\n\r\n".to_owned(),
        ];
        for bytes in refused {
            let (statuses, closed) = answers(&opened, bytes.as_bytes()).await;
            assert!(statuses == [400] && closed, "{bytes:?}: {statuses:?}, closed: {closed}");
        }
        // Chunks that are none break their own request, and the connection.
        for chunks in ["zz\r\n", "-1\r\n", "fffffffffffffffff\r\n", "8\r\n{\"id\":7}XX0\r\n\r\n", "8;\n{\"id\":7}\r\n0\r\n\r\n"] {
            let (statuses, closed) = answers(&opened, format!("{post}{chunked}\r\n{chunks}{hidden}").as_bytes()).await;
            assert!(statuses == [400] && closed, "{chunks:?}: {statuses:?}, closed: {closed}");
        }
        // Bare line feeds end lines, as RFC 9112 allows: the same request for everybody, and only one.
        let bare = "GET /Payment/status?id=7 HTTP/1.1\nhost: t\nconnection: close\n\n";
        assert_eq!(answers(&opened, bare.as_bytes()).await, (vec![200], true));
    });
}

#[test]
fn what_is_not_text_is_refused() {
    run(async {
        let opened = open(Http::new()).await;
        let mut cases: Vec<(Vec<u8>, u16)> = Vec::new();
        let get = |path: &[u8]| [b"GET ", path, b" HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n"].concat();
        cases.push((get(b"/Payment/\xff\xfe"), 400));
        cases.push((get(b"/Payment/%ff%fe"), 400));
        cases.push((get(b"/Payment/status?id=%c3%28"), 400));
        cases.push((get(b"/Payment/status?%00=1"), 400));
        cases.push((get(&[b"/Payment/status?", "id=7&".repeat(1000).as_bytes()].concat()), 400));
        cases.push((get(&[b"/Payment/status?", "&".repeat(5000).as_bytes(), b"id=7"].concat()), 200));
        cases.push((get(&[b"/", "a/".repeat(5000).as_bytes()].concat()), 404));
        cases.push((get(&[b"/Payment;", "version=1;".repeat(500).as_bytes(), b"/status"].concat()), 400));
        let header =
            |header: &[u8]| [b"GET /Payment/status?id=7 HTTP/1.1\r\nhost: t\r\nconnection: close\r\n", header, b"\r\n\r\n"].concat();
        cases.push((header(b"farcall-meta-a: \xff"), 400));
        cases.push((header(b"farcall-timeout-ms: \xff"), 400));
        cases.push((header(b"idempotency-key: \xff"), 400));
        cases.push((header(b"traceparent: \xff"), 200));
        cases.push((header(b"user-agent: \xff"), 200));
        let body = |body: &[u8]| {
            let head = format!(
                "POST /Payment/note HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            [head.as_bytes(), body].concat()
        };
        cases.push((body(b"{\"text\":\"\xff\"}"), 400));
        cases.push((body(b"\xef\xbb\xbf{}"), 400));
        cases.push((body(b"{\"text\":\"a\"} x"), 400));
        cases.push((body(&[b"{\"text\":", "[".repeat(100_000).as_bytes()].concat()), 400));
        cases.push((body(&[b"{\"x\":", "{\"x\":".repeat(100_000).as_bytes()].concat()), 400));
        for (bytes, status) in cases {
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
            assert_eq!(answers(&opened, &bytes).await, (vec![status], true), "{shown}");
        }
    });
}

#[test]
fn heads_have_a_size_a_number_and_a_time() {
    run(async {
        let opened = open(Http::new().limits(quick())).await;
        let many: String = (0..101).map(|n| format!("x-{n}: y\r\n")).collect();
        assert_eq!(answers(&opened, format!("GET / HTTP/1.1\r\n{many}\r\n").as_bytes()).await, (vec![431], true));
        let large = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(40_000));
        assert_eq!(answers(&opened, large.as_bytes()).await, (vec![431], true));
        let endless = format!("GET /{}", "y".repeat(200_000));
        let (statuses, closed) = answers(&opened, endless.as_bytes()).await;
        assert!(closed && matches!(statuses[..], [414 | 431]), "{statuses:?}");
        // A head that never ends, a body that never ends, a client that says nothing more: all given up.
        let (statuses, closed) = answers(&opened, b"GET / HTTP/1.1\r\nx: ").await;
        assert!(closed, "{statuses:?}");
        let post = "POST /Payment/status HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: 8\r\n\r\n{\"i";
        assert_eq!(answers(&opened, post.as_bytes()).await, (vec![408], true));
        let kept = "GET /Payment/status?id=7 HTTP/1.1\r\nhost: t\r\n\r\n";
        assert_eq!(answers(&opened, kept.as_bytes()).await, (vec![200], true));
        let slow = open_with(Http::new(), Limits { handshake: Duration::from_millis(100), ..Limits::default() }).await;
        assert_eq!(answers(&slow, b"GE").await.0, [0_u16; 0]);
    });
}

/// Writes these bytes one at a time, with a pause behind each, and then the last of them for ever: until the server
/// hangs up. What it said.
async fn trickle(socket: &str, bytes: &[u8]) -> String {
    let link = TcpStream::connect(socket).await.unwrap();
    link.set_nodelay(true).unwrap();
    let (mut read, mut write) = link.into_split();
    let forever: Vec<u8> = bytes.iter().copied().chain(std::iter::repeat_n(bytes[bytes.len() - 1], 100_000)).collect();
    let writing = tokio::spawn(async move {
        for byte in forever {
            if write.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let mut heard = Vec::new();
    let _ = read.read_to_end(&mut heard).await;
    writing.abort();
    String::from_utf8_lossy(&heard).into_owned()
}

#[test]
fn heads_and_bodies_that_trickle_are_given_up() {
    run(async {
        let opened = open(Http::new().limits(quick())).await;
        beside(&opened, async {
            // No pause is as long as any limit, and the deadline that the client names for itself is far off.
            let head = trickle(&opened.socket, b"GET /Payment/status?id=7 HTTP/1.1\r\nhost: t\r\nx: y").await;
            assert!(head.is_empty() || head.starts_with("HTTP/1.1 4"), "{head}");
            let post = "POST /Payment/echo HTTP/1.1\r\nhost: t\r\nfarcall-timeout-ms: 9999999999\r\ncontent-type: application/json\r\n";
            let body = async |length: &str, body: &str| {
                let mut link = TcpStream::connect(&opened.socket).await.unwrap();
                link.set_nodelay(true).unwrap();
                link.write_all(format!("{post}{length}\r\n\r\n").as_bytes()).await.unwrap();
                let (mut read, mut write) = link.into_split();
                let body = body.to_owned();
                let writing = tokio::spawn(async move {
                    while write.write_all(body.as_bytes()).await.is_ok() {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                });
                let mut heard = Vec::new();
                let _ = read.read_to_end(&mut heard).await;
                writing.abort();
                String::from_utf8_lossy(&heard).into_owned()
            };
            for (length, piece) in [("content-length: 10000000", "7"), ("transfer-encoding: chunked", "1\r\n7\r\n")] {
                let said = body(length, piece).await;
                assert!(said.starts_with("HTTP/1.1 408") && said.contains("`stall`"), "{length}: {said}");
            }
        })
        .await;
        // One that is slow, but not that slow, arrives: 16 KiB each 100 ms.
        let mut http = Http1::connect(&opened.socket).await;
        let length = 128 << 10;
        http.send(format!("POST /Payment/echo HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"))
            .await;
        let whole = format!(r#"{{"bytes":"{}"}}"#, "A".repeat(length - 12));
        for piece in whole.as_bytes().chunks(16 << 10) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            http.send(piece).await;
        }
        assert_eq!(http.receive(true).await.unwrap().status, 200);
    });
}

/// Clients that close their sending side at some point of a request, and keep the other open for ever.
#[test]
fn half_closed_clients_leave_nothing_behind() {
    run(async {
        let opened = open(Http::new()).await;
        let points: [&[u8]; 6] = [
            b"",
            b"GE",
            b"GET / HTTP/1.1\r\nx: ",
            b"POST /Payment/echo HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{",
            b"GET /Payment/status?id=7 HTTP/1.1\r\nhost: t\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        ];
        let mut held = Vec::new();
        beside(&opened, async {
            for _ in 0..50 {
                for says in points {
                    let mut link = TcpStream::connect(&opened.socket).await.unwrap();
                    link.write_all(says).await.unwrap();
                    link.shutdown().await.unwrap();
                    held.push(link);
                }
            }
            // Each is closed by the server, although its client goes on listening.
            for link in &mut held {
                let _ = link.read_to_end(&mut Vec::new()).await;
            }
        })
        .await;
        // No task holds one of them.
        opened.server.drain(Duration::from_secs(10)).await.unwrap();
    });
}

/// Links that have not made a call that they may make: they give way to each other, and not to callers, although they
/// speak a whole protocol.
#[test]
fn a_crowd_that_nobody_knows_locks_nobody_out() {
    run(async {
        let tokens = Tokens::new().token("anna's token", Identity::new("anna"));
        let limits = Limits { half_open: 8, connections: 40, ..Limits::default() };
        let builder = Server::builder().serve(PaymentServer::new(Till::default())).authenticate(tokens).limits(limits);
        let server = builder.protocol(Http::new()).listen("tcp://127.0.0.1:0").await.unwrap();
        let socket = server.address().to_string().trim_start_matches("tcp://").to_owned();
        let anna = ["authorization: Bearer anna's token"];
        let mut known = Http1::connect(&socket).await;
        assert_eq!(known.ask("GET", "/Payment/status?id=8", &anna, "").await.status, 200);
        let mut crowd = Vec::new();
        for n in 0..400 {
            let mut stranger = Http1::connect(&socket).await;
            match n % 4 {
                0 => stranger.send("GET /Payment/status?id=7 HTTP/1.1\r\nx: ").await,
                1 => stranger.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await,
                2 => stranger.send("GET /healthz HTTP/1.1\r\nhost: t\r\n\r\n").await,
                _ => stranger.send("GET /Payment/status?id=7 HTTP/1.1\r\nhost: t\r\nauthorization: Bearer wrong\r\n\r\n").await,
            }
            crowd.push(stranger);
            if n % 50 == 0 {
                // Who is known stays, and who is to be known gets in.
                assert_eq!(known.ask("GET", "/Payment/status?id=8", &anna, "").await.status, 200);
                let mut new = Http1::connect(&socket).await;
                assert_eq!(new.ask("GET", "/Payment/status?id=8", &anna, "").await.status, 200);
                let client = PaymentClient::connect(server.address()).credentials(Credentials::bearer("anna's token")).await.unwrap();
                assert_eq!(client.status(7).await.unwrap(), Status::Paid { cents: 250 });
            }
        }
        // All but eight are closed, without the time that they had.
        for stranger in &mut crowd[..390] {
            while stranger.0.read(&mut [0; 512]).await.is_ok_and(|n| n > 0) {}
        }
    });
}

#[test]
fn requests_for_other_hosts_are_misdirected() {
    run(async {
        let opened = open(Http::new().host("shop.example").host("127.0.0.1:7")).await;
        let ask = async |head: &str| {
            let mut http = Http1::connect(&opened.socket).await;
            http.send(format!("{head}\r\n\r\n")).await;
            http.receive(true).await.unwrap()
        };
        let get = "GET /Payment/status?id=7 HTTP/1.1\r\n";
        for host in ["shop.example", "shop.example:7000", "127.0.0.1:7"] {
            assert_eq!(ask(&format!("{get}host: {host}")).await.status, 200, "{host}");
        }
        for host in ["evil.example", "127.0.0.1", ""] {
            let got = ask(&format!("{get}host: {host}")).await;
            assert_eq!((got.status, &got.json()["code"]), (421, &serde_json::json!("permission_denied")), "{host}");
            assert!(!got.body.contains("shop.example"), "{got:?}");
        }
        // What the target says counts, in both versions.
        assert_eq!(ask("GET http://evil.example/Payment/status?id=7 HTTP/1.1\r\nhost: shop.example").await.status, 421);
        assert_eq!(ask("GET http://shop.example/Payment/status?id=7 HTTP/1.1\r\nhost: evil.example").await.status, 200);
        for (authority, status) in [("shop.example", b"200"), ("evil.example", b"421")] {
            let mut http = Http2::connect(&opened.socket).await;
            let block = [&head("/Payment/status?id=7")[..], &[0x01, authority.len() as u8], authority.as_bytes()].concat();
            http.frame(1, 0x5, 1, &block).await;
            http.frame(7, 0, 0, &[0; 8]).await;
            let said = http.rest().await;
            // 200 has a number of its own in the table of headers, others are spelt.
            let found = if status == b"200" { said.contains(&0x88) } else { has_status(&said, status) };
            assert!(found, "{authority}: {said:?}");
        }
        // Whoever watches over the process need not know its names.
        assert_eq!(ask("GET /healthz HTTP/1.1\r\nhost: 10.0.0.7").await.status, 200);
        // RFC 9112: one, and no more, whatever is allowed.
        let any = open(Http::new()).await;
        for head in [get.trim_end().to_owned(), format!("{get}host: a\r\nhost: b")] {
            assert_eq!(answers(&any, format!("{head}\r\n\r\n").as_bytes()).await.0, [400], "{head}");
        }
        assert_eq!(answers(&any, b"GET /Payment/status?id=7 HTTP/1.0\r\n\r\n").await, (vec![200], true));
    });
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    run(async {
        let opened = open(Http::new().limits(quick())).await;
        let mut link = TcpStream::connect(&opened.socket).await.unwrap();
        link.write_all(b"GET /Counting/count?to=100000000 HTTP/1.1\r\nhost: t\r\n\r\n").await.unwrap();
        let before = resident();
        // It is held back, and then cut off: the server needs it no more for a drain.
        opened.server.drain(PATIENCE).await.unwrap();
        assert!(resident().saturating_sub(before) < 64 << 20, "what it does not take is not kept");
        drop(link);
    });
}

/// A client of HTTP/2 that lets so little be sent ahead that it decides when a reply goes on; and its connection.
async fn shut_window(opened: &Opened) -> (http2::SendRequest<Full<Bytes>>, JoinHandle<hyper::Result<()>>) {
    let link = TokioIo::new(TcpStream::connect(&opened.socket).await.unwrap());
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(32 << 10);
    let (sender, connection) = builder.handshake::<_, Full<Bytes>>(link).await.unwrap();
    (sender, tokio::spawn(connection))
}

/// Asks for so many bytes, which come as text.
fn echo(bytes: usize) -> Request<Full<Bytes>> {
    let body = format!("{{\"bytes\":\"{}\"}}", "A".repeat(bytes));
    Request::post("http://test/Payment/echo").header("content-type", "application/json").body(Full::from(body)).unwrap()
}

#[test]
fn replies_that_a_client_does_not_take_are_bounded_and_not_kept_for_ever() {
    run(async {
        let limits = Limits { body: 1 << 20, held: 1 << 20, ..Limits::default() };
        let opened = open_with(Http::new().limits(HttpLimits { idle: Duration::from_secs(1), ..quick() }), limits).await;
        let (mut sender, connection) = shut_window(&opened).await;
        let (mut untaken, mut statuses) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let reply = sender.send_request(echo(400_000)).await.unwrap();
            statuses.push(reply.status().as_u16());
            untaken.push(reply);
        }
        assert_eq!(statuses, [200, 200, 429], "what was answered and not taken counts against `held`");
        // It asks for nothing more and takes nothing: it is given up, although it still answers pings.
        let _ = tokio::time::timeout(PATIENCE, connection).await.expect("the connection ends").unwrap();
    });
}

#[test]
fn a_client_that_takes_its_reply_slowly_gets_it_whole() {
    run(async {
        let opened = open(Http::new().limits(HttpLimits { idle: Duration::from_millis(500), ..quick() })).await;
        let (mut sender, _connection) = shut_window(&opened).await;
        let mut reply = sender.send_request(echo(800_000)).await.unwrap().into_body();
        let mut got = 0;
        while let Some(frame) = reply.frame().await {
            got += frame.unwrap().data_ref().map_or(0, Bytes::len);
            // In all it takes some seconds: far longer than a connection may be idle.
            tokio::time::sleep(Duration::from_millis(80)).await;
        }
        assert_eq!(got, 800_000 + 2);
    });
}

/// Asks over HTTP/1.1 and takes so many bytes of the answer at a time, with so long a pause behind each, until there is no more or it
/// has `enough`: how many it got, and whether that was all the server had to say.
async fn take_slowly(opened: &Opened, request: &str, (bytes, pause): (usize, Duration), enough: usize) -> (usize, bool) {
    let socket = TcpSocket::new_v4().unwrap();
    // Or the system takes for its program what the program does not take.
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let mut link = socket.connect(opened.socket.parse().unwrap()).await.unwrap();
    link.write_all(request.as_bytes()).await.unwrap();
    let (mut room, mut got) = (vec![0; bytes], 0);
    while got < enough {
        match link.read_exact(&mut room).await {
            Ok(_) => got += bytes,
            Err(_) => return (got, true),
        }
        tokio::time::sleep(pause).await;
    }
    (got, false)
}

const REPLY: usize = 3_200_000;

/// What is asked for: one large reply, and a stream without an end.
fn large_and_endless() -> [String; 2] {
    let body = format!("{{\"bytes\":\"{}\"}}", "A".repeat(REPLY));
    let head = "POST /Payment/echo HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length";
    let endless = "GET /Counting/count?to=100000000 HTTP/1.1\r\nhost: t\r\n\r\n";
    [format!("{head}: {}\r\n\r\n{body}", body.len()), endless.to_owned()]
}

#[test]
fn a_slow_reader_of_http_1_that_keeps_pace_gets_all() {
    run(async {
        let opened = open(Http::new().limits(quick())).await;
        // Ten times as much as is asked of it, and still far less in a `stall` than a system would queue.
        let pace = (64 << 10, Duration::from_millis(100));
        let [large, endless] = large_and_endless();
        let (large, endless) = tokio::join!(take_slowly(&opened, &large, pace, usize::MAX), take_slowly(&opened, &endless, pace, REPLY));
        assert!(large.0 + pace.0 > REPLY && large.1, "{large:?}");
        assert!(endless.0 >= REPLY && !endless.1, "{endless:?}");
    });
}

#[test]
fn a_reader_of_http_1_below_the_pace_is_given_up() {
    run(async {
        let opened = open(Http::new().limits(quick())).await;
        beside(&opened, async {
            // A fifth of what is asked of it, though it never pauses for as long as `stall`.
            let pace = (1 << 10, Duration::from_millis(100));
            let [large, endless] = large_and_endless();
            let start = tokio::time::Instant::now();
            let (large, endless) = tokio::join!(take_slowly(&opened, &large, pace, REPLY), take_slowly(&opened, &endless, pace, REPLY));
            for (got, ended) in [large, endless] {
                assert!(ended && got < 256 << 10, "{got} bytes, ended: {ended}, {:?}", start.elapsed());
            }
        })
        .await;
    });
}

/// farcall's own callers, for as long as something else goes on beside them.
async fn beside<T>(opened: &Opened, attack: impl Future<Output = T>) -> T {
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let client = PaymentClient::connect(opened.server.address()).await.unwrap();
    let load = tokio::spawn({
        let (stop, calls) = (stop.clone(), calls.clone());
        async move {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(client.status(7).await.unwrap(), Status::Paid { cents: 250 });
                calls.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let result = attack.await;
    // None failed, and they went on.
    let before = calls.load(Ordering::Relaxed);
    until("calls go on", || calls.load(Ordering::Relaxed) > before + 10).await;
    stop.store(true, Ordering::Relaxed);
    load.await.unwrap();
    result
}

#[test]
fn crowds_of_slow_clients_do_not_matter_to_others() {
    run(async {
        let opened = open(Http::new().limits(HttpLimits { idle: Duration::from_millis(500), ..quick() })).await;
        let before = resident();
        beside(&opened, async {
            let mut crowd = Vec::new();
            for n in 0..300 {
                let mut link = TcpStream::connect(&opened.socket).await.unwrap();
                let start: &[u8] = match n % 4 {
                    0 => b"GET / HTTP/1.1\r\nx-slow: ",
                    1 => b"POST /Payment/echo HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: 10000000\r\n\r\n{",
                    2 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                    _ => b"GET /Counting/count?to=1000000000 HTTP/1.1\r\nhost: t\r\n\r\n",
                };
                link.write_all(start).await.unwrap();
                crowd.push(link);
            }
            // All are given up without a word from us, long before the times that are so by default.
            let start = tokio::time::Instant::now();
            tokio::time::sleep(Duration::from_secs(1)).await;
            until("all links are given up", || {
                crowd.retain(|link| matches!(link.try_read(&mut [0; 64]), Err(e) if e.kind() == ErrorKind::WouldBlock));
                crowd.is_empty()
            })
            .await;
            assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
        })
        .await;
        assert!(resident().saturating_sub(before) < 96 << 20, "{} MiB", (resident() - before) >> 20);
    });
}

/// An HTTP/2 connection of which only the bytes are made here.
struct Http2(TcpStream);

impl Http2 {
    async fn connect(socket: &str) -> Http2 {
        let mut link = TcpStream::connect(socket).await.unwrap();
        link.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut http = Http2(link);
        http.frame(4, 0, 0, &[]).await;
        http
    }

    /// Says whether the server still listens.
    async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let length = payload.len() as u32;
        let mut frame = length.to_be_bytes()[1..].to_vec();
        frame.extend_from_slice(&[kind, flags]);
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.0.write_all(&frame).await.is_ok()
    }

    /// Until the server hangs up: all that it says.
    async fn rest(mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut piece = vec![0; 16 << 10];
        while let Ok(Ok(n @ 1..)) = tokio::time::timeout(Duration::from_secs(5), self.0.read(&mut piece)).await {
            all.extend_from_slice(&piece[..n]);
        }
        all
    }
}

/// `GET /Counting/silent`-like heads: method GET, scheme http, a literal path.
fn head(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x04, path.len() as u8];
    block.extend_from_slice(path.as_bytes());
    block
}

/// Whether a response's head spells this status, as text or in Huffman's code (five bits for each digit of 421).
fn has_status(bytes: &[u8], status: &[u8]) -> bool {
    // 4 = 011010, 2 = 00010, 1 = 00001 and ones to the end.
    let huffman = [0b0110_1000, 0b0100_0001];
    bytes.windows(3).any(|part| part == status) || bytes.windows(2).any(|part| part == huffman)
}

fn has_goaway(bytes: &[u8]) -> bool {
    has_frame(bytes, 7)
}

fn has_frame(bytes: &[u8], kind: u8) -> bool {
    let mut rest = bytes;
    while rest.len() >= 9 {
        let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        if rest[3] == kind {
            return true;
        }
        rest = rest.get(9 + length..).unwrap_or_default();
    }
    false
}

#[test]
fn floods_of_http2_frames_end_their_connection_only() {
    run(async {
        let opened = open(Http::new()).await;
        let before = resident();
        beside(&opened, async {
            // Streams that are reset as soon as they are opened.
            let mut http = Http2::connect(&opened.socket).await;
            for n in 0..20_000_u32 {
                let stream = 2 * n + 1;
                let open = http.frame(1, 0x4, stream, &head("/Counting/mirror?text=x")).await;
                if !open || !http.frame(3, 0, stream, &8_u32.to_be_bytes()).await {
                    break;
                }
            }
            assert!(has_goaway(&http.rest().await), "rapid reset");
            // A head that goes on and on.
            let mut http = Http2::connect(&opened.socket).await;
            http.frame(1, 0, 1, &head("/x")).await;
            for _ in 0..20_000 {
                // A header that is not indexed, of 4 KiB.
                let header = [&[0x00, 0x01, b'a', 0x7f, 0x81, 0x1f][..], &[b'b'; 4096]].concat();
                if !http.frame(9, 0, 1, &header).await {
                    break;
                }
            }
            assert!(has_goaway(&http.rest().await), "continuation flood");
            // Settings and pings that ask for answers which are not read.
            let mut http = Http2::connect(&opened.socket).await;
            for _ in 0..100_000 {
                let written = tokio::time::timeout(Duration::from_millis(200), http.frame(6, 0, 0, &[0; 8])).await;
                if !matches!(written, Ok(true)) {
                    break;
                }
            }
            drop(http);
            // As many streams as there are numbers: most are refused, each by itself.
            let mut http = Http2::connect(&opened.socket).await;
            for n in 0..2_000_u32 {
                if !http.frame(1, 0x4, 2 * n + 1, &head("/Payment/slow")).await {
                    break;
                }
            }
            drop(http);
        })
        .await;
        assert!(resident().saturating_sub(before) < 64 << 20, "{} MiB", (resident() - before) >> 20);
    });
}

#[test]
fn what_a_connection_holds_is_bounded() {
    run(async {
        let limits = Limits { body: 256 << 10, held: 256 << 10, ..Limits::default() };
        let opened = open_with(Http::new(), limits).await;
        // Bodies on one HTTP/2 connection, none whole, each within the window of its stream, together above the limit.
        let mut http = Http2::connect(&opened.socket).await;
        let mut block = vec![0x83, 0x86, 0x04, 13];
        block.extend_from_slice(b"/Payment/echo");
        block.extend_from_slice(&[0x0f, 0x10, 16]);
        block.extend_from_slice(b"application/json");
        // Until the server has said how much it takes, it is less.
        let mut said = Vec::new();
        while !has_frame(&said, 8) {
            assert!(http.0.read_buf(&mut said).await.unwrap() > 0);
        }
        for stream in [1, 3, 5, 7, 9] {
            http.frame(1, 0x4, stream, &block).await;
            for _ in 0..5 {
                http.frame(0, 0, stream, &[b'x'; 12 << 10]).await;
            }
        }
        let said = String::from_utf8_lossy(&http.rest().await).into_owned();
        assert!(said.contains("`held`"), "{said}");
    });
}
