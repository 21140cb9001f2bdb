//! Peers that are not there, are something else, or break the protocol: what the user of the
//! library and of the command line is told, and that nobody else notices.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use farcall::prelude::*;
use farcall::schema::{Def, Field, Ty};
use farcall::{Fingerprint, Limits, Stage, TypeSchema};
use farcall_wire::{
    Bind, CallKey, CallOptions, Failure, Frame, Header, Hello, KeyMoment, Kind, Preface, Session, control, flags, get_frame, status, tag,
};
use tokio::sync::Semaphore;

use crate::cli;

/// Longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `f`, and no longer than `limit`.
pub(crate) fn within<T: Send + 'static>(limit: Duration, f: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    let thread = thread::spawn(move || sender.send(f()));
    match receiver.recv_timeout(limit) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => panic!("not done within {limit:?}"),
        Err(RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(_) => unreachable!("the result was sent"),
        },
    }
}

/// A port on which nobody listens.
pub(crate) fn unused_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A path for a unix socket that no other test uses.
pub(crate) fn socket_path(name: &str) -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("farcall-{name}-{}-{number}.sock", std::process::id()))
}

/// The service of these tests.
#[farcall::service]
pub(crate) trait Echo {
    async fn echo(&self, bytes: Vec<u8>) -> Reply<Vec<u8>>;
    /// `len` bytes.
    async fn make(&self, len: u32) -> Reply<Vec<u8>>;
    /// Answers once the test allows it.
    async fn hold(&self) -> Reply<u8>;
    async fn panic(&self) -> Reply<u8>;
    /// Panics after it had to wait.
    async fn panic_late(&self) -> Reply<u8>;
    fn panic_blocking(&self) -> Reply<u8>;
    #[farcall(oneway)]
    async fn panic_oneway(&self);
}

struct Parrot {
    allowed: Arc<Semaphore>,
}

impl Echo for Parrot {
    async fn echo(&self, bytes: Vec<u8>) -> Reply<Vec<u8>> {
        Ok(bytes)
    }
    async fn make(&self, len: u32) -> Reply<Vec<u8>> {
        Ok(vec![7; len as usize])
    }
    async fn hold(&self) -> Reply<u8> {
        self.allowed.acquire().await.unwrap().forget();
        Ok(1)
    }
    async fn panic(&self) -> Reply<u8> {
        panic!("the till is on fire")
    }
    async fn panic_late(&self) -> Reply<u8> {
        tokio::task::yield_now().await;
        panic!("the till is {}", "still on fire")
    }
    fn panic_blocking(&self) -> Reply<u8> {
        std::panic::panic_any(7)
    }
    async fn panic_oneway(&self) {
        panic!("nobody hears this")
    }
}

/// A server that bad peers come to, and a good client that must not notice.
struct House {
    server: Server,
    good: EchoClient,
    allowed: Arc<Semaphore>,
}

impl House {
    fn open(limits: Limits) -> House {
        let allowed = Arc::new(Semaphore::new(0));
        let parrot = EchoServer::new(Parrot { allowed: Arc::clone(&allowed) });
        let server = Server::builder().serve(parrot).limits(limits).listen("tcp://127.0.0.1:0").wait().unwrap();
        let good = EchoClient::connect(server.address()).wait().unwrap();
        House { server, good, allowed }
    }

    /// The client of before and a new one are both answered.
    #[track_caller]
    fn still_answers(&self) {
        assert_eq!(self.good.echo(vec![1, 2]).wait().unwrap(), [1, 2]);
        let fresh = EchoClient::connect(self.server.address()).wait().unwrap();
        assert_eq!(fresh.echo(vec![3]).wait().unwrap(), [3]);
    }

    fn socket(&self) -> Raw {
        let address = self.server.address().to_string();
        Raw::new(TcpStream::connect(address.strip_prefix("tcp://").unwrap()).unwrap())
    }

    /// A peer that has said hello and may now misbehave.
    fn raw(&self) -> Raw {
        let mut raw = self.socket();
        raw.say_hello();
        raw.hear_hello();
        raw
    }
}

/// One end of a link whose bytes a test writes by hand.
struct Raw {
    stream: TcpStream,
    read: BytesMut,
    /// The other side closed without having read everything: its last words may be lost on the way.
    reset: bool,
}

/// A frame, byte by byte.
pub(crate) fn frame(kind: Kind, bits: u8, aux: u16, id: u32, payload: &[u8]) -> Vec<u8> {
    let header = Header { len: payload.len() as u32, ..Header::new(kind, bits, aux, id) };
    [&header.to_bytes()[..], payload].concat()
}

/// A peer's first bytes: preface and hello.
pub(crate) fn opening() -> Vec<u8> {
    Session::<()>::opening(&Hello::new([9; 16], 1, &Limits::default()))
}

impl Raw {
    fn new(stream: TcpStream) -> Raw {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Raw { stream, read: BytesMut::new(), reset: false }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    fn say_hello(&mut self) {
        self.send(&opening());
    }

    /// Waits for more bytes; `false` if there are no more.
    fn more(&mut self) -> bool {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(n) => {
                self.read.extend_from_slice(&bytes[..n]);
                n > 0
            }
            Err(e) if e.kind() == ErrorKind::ConnectionReset => {
                self.reset = true;
                false
            }
            Err(e) => panic!("{e}"),
        }
    }

    fn hear_hello(&mut self) -> Hello {
        while self.read.len() < Preface::ours().len() {
            assert!(self.more(), "closed before its preface");
        }
        assert_eq!(self.read.split_to(Preface::ours().len())[..], Preface::ours());
        control::expect_hello(self.frame().expect("closed before its hello")).unwrap()
    }

    /// The next frame; `None` at the end.
    fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = get_frame(&mut self.read, 1 << 24).unwrap() {
                return Some(frame);
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// The next frame of this kind.
    #[track_caller]
    fn frame_of(&mut self, kind: Kind) -> Frame {
        loop {
            let frame = self.frame().unwrap_or_else(|| panic!("closed before a {kind:?} frame"));
            if frame.header.kind == kind {
                return frame;
            }
        }
    }

    /// The GoAway frame and the end of the link after it.
    #[track_caller]
    fn hung_up(&mut self) -> RpcError {
        let go_away = control::on_go_away(&self.frame_of(Kind::GoAway).payload).unwrap();
        assert_eq!((self.frame(), self.reset), (None, false), "a GoAway is the last frame");
        go_away.reason
    }

    /// Everything until the end, as text.
    fn text(&mut self) -> String {
        while self.more() {}
        String::from_utf8_lossy(&self.read).into_owned()
    }

    /// Binds the service of these tests; its rows start at 0.
    fn bind(&mut self) {
        self.send(&frame(Kind::Bind, 0, 0, 1, &Bind::of(EchoClient::descriptor()).encode()));
        assert_eq!(self.frame_of(Kind::Bound).header.aux, 0);
    }
}

/// A peer to connect to, whose every connection goes by this script. Returns its address.
fn peer(script: impl Fn(Raw) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    thread::spawn(move || listener.incoming().for_each(|stream| script(Raw::new(stream.unwrap()))));
    address
}

/// What connecting to `address` fails with, in the library and at the command line.
#[track_caller]
fn check_connect(address: &str, code: Code, stage: Stage, advice: &[&str]) {
    let (to, limits) = (address.to_owned(), Limits { handshake: Duration::from_millis(300), ..Limits::default() });
    let e = within(PATIENCE, move || EchoClient::connect(to).limits(limits).wait().err().unwrap());
    assert_eq!((e.code(), e.certainty(), e.stage()), (code, Certainty::NotSent, Some(stage)), "{e}");
    for text in advice {
        assert!(e.message().contains(text), "{text:?} is not in\n{e}");
    }
    let ran = cli::run(&["describe", "--timeout", "300ms", address]);
    if e.code() == Code::InvalidArgument && stage == Stage::Resolve || address.starts_with("mem:") {
        return ran.check(2, &[], if address.starts_with("mem:") { &["inside one process"] } else { advice });
    }
    let (code, stage) = (format!("code       {code}"), format!("stage      {stage}"));
    ran.check(1, &[], advice);
    ran.check(1, &[], &["farcall: ", "certainty  not sent", &code, &stage]);
}

#[test]
fn an_address_that_leads_nowhere() {
    check_connect("127.0.0.1:1", Code::InvalidArgument, Stage::Resolve, &["did you mean \"tcp://127.0.0.1:1\"?"]);
    check_connect("http://h:1", Code::InvalidArgument, Stage::Resolve, &["scheme \"http\" is not known", "tcp://HOST:PORT"]);
    check_connect("tcp://h:99999", Code::InvalidArgument, Stage::Resolve, &["0 to 65535"]);
    let nobody = ["nobody listens there: is the provider running, is the address right?"];
    check_connect(&format!("tcp://127.0.0.1:{}", unused_port()), Code::Unavailable, Stage::Connect, &nobody);
    check_connect("mem:nobody", Code::Unavailable, Stage::Connect, &nobody);
    let path = socket_path("nobody");
    check_connect(
        &format!("unix:{}", path.display()),
        Code::Unavailable,
        Stage::Connect,
        &["there is no such socket", "is the path right?"],
    );
    // A socket file whose process is gone.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    check_connect(&format!("unix:{}", path.display()), Code::Unavailable, Stage::Connect, &nobody);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_host_that_does_not_resolve() {
    let e = within(PATIENCE, || EchoClient::connect("tcp://no-such-host.invalid:1").wait().err().unwrap());
    assert_eq!((e.code(), e.certainty(), e.stage()), (Code::Unavailable, Certainty::NotSent, Some(Stage::Resolve)), "{e}");
    assert!(
        e.message().contains("the host name \"no-such-host.invalid\" cannot be resolved") && e.message().contains("check its spelling"),
        "{e}"
    );
    cli::run(&["describe", "tcp://no-such-host.invalid:1"]).check(1, &[], &["cannot be resolved", "stage      resolving the address"]);
}

#[test]
fn a_peer_that_is_no_farcall_peer() {
    let http = peer(|mut raw| {
        raw.more();
        raw.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    });
    check_connect(&http, Code::InvalidArgument, Stage::Connect, &["not a farcall peer", "HTTP/1.1 400", "is the port right?"]);
    // Whether it has read the hello or not, and so resets the connection, is all the same.
    let closes = ["closed the connection without a hello", "may not be a farcall port"];
    check_connect(&peer(drop), Code::Unavailable, Stage::Connect, &closes);
    let reads = peer(|mut raw| {
        raw.more();
    });
    check_connect(&reads, Code::Unavailable, Stage::Connect, &closes);
    let silent = peer(|mut raw| while raw.more() {});
    check_connect(&silent, Code::Unavailable, Stage::Connect, &["no hello within 300 ms", "something other than a farcall port"]);
}

#[test]
fn a_peer_of_another_version() {
    let (sender, told) = mpsc::channel();
    let newer = peer(move |mut raw| {
        raw.send(b"farcall\x09");
        raw.hear_hello();
        sender.send(raw.hung_up()).unwrap();
    });
    check_connect(
        &newer,
        Code::Unimplemented,
        Stage::Connect,
        &["the peer speaks farcall protocol 9, this side 1", "use the same major version"],
    );
    let told = told.recv_timeout(PATIENCE).unwrap();
    assert!(told.message().contains("this side speaks farcall protocol 1, not 9"), "{told}");
}

#[test]
fn a_peer_whose_hello_is_wrong() {
    let broke = |say: Vec<u8>, advice: &str| {
        let wrong = peer(move |mut raw| {
            raw.send(&say);
            raw.text();
        });
        check_connect(&wrong, Code::InvalidArgument, Stage::Connect, &["the peer broke the protocol: ", advice]);
    };
    let after_preface = |bytes: Vec<u8>| [&Preface::ours()[..], &bytes].concat();
    broke(after_preface(frame(Kind::Ping, 0, 0, 0, b"")), "its first frame is Ping, not Hello");
    broke(after_preface(frame(Kind::Hello, 0, 0, 0, b"")), "the hello's session id cannot be read");
    broke(after_preface(vec![0xff; 12]), "a 0xff frame of 4294967295 bytes is announced");
    let refuses = peer(|mut raw| {
        let reason = [&0u64.to_le_bytes()[..], &[Code::Unavailable as u8], b"closed for lunch"].concat();
        raw.send(&[&Preface::ours()[..], &frame(Kind::GoAway, 0, 0, 0, &reason)].concat());
        raw.text();
    });
    check_connect(&refuses, Code::Unavailable, Stage::Connect, &["closed for lunch"]);
    let stops = peer(|mut raw| {
        raw.more();
        raw.send(&opening()[..20]);
    });
    check_connect(&stops, Code::Unavailable, Stage::Connect, &["in the middle of its hello"]);
}

/// Connects to a peer that says hello, waits for the first call and then does `then`. Returns how the
/// call ended.
fn call_to(then: impl Fn(&mut Raw, Frame) + Send + 'static) -> RpcError {
    let address = peer(move |mut raw| {
        raw.say_hello();
        raw.hear_hello();
        let call = raw.frame_of(Kind::Call);
        then(&mut raw, call);
    });
    within(PATIENCE, move || EchoClient::connect(address).wait().unwrap().echo(vec![1]).wait().unwrap_err())
}

#[test]
fn a_peer_that_fails_in_the_middle_of_a_call() {
    let check = |e: RpcError, code, certainty, advice: &[&str]| {
        assert_eq!((e.code(), e.certainty(), e.method()), (code, certainty, Some("Echo.echo")), "{e}");
        for text in advice {
            assert!(e.to_string().contains(text), "{text:?} is not in\n{e}");
        }
    };
    let lost = |e, advice: &[&str]| check(e, Code::Unavailable, Certainty::MaybeExecuted, advice);
    lost(
        call_to(|_, _| {}),
        &["the connection ended before the reply: the peer closed the connection", "may have been executed, peer tcp://127.0.0.1:"],
    );
    let broke = "the connection ended before the reply: the peer broke the protocol: ";
    let saying = |bytes: Vec<u8>| {
        let (sender, told) = mpsc::channel();
        let e = call_to(move |raw, _| {
            raw.send(&bytes);
            sender.send(raw.hung_up()).unwrap();
        });
        let told = told.recv_timeout(PATIENCE).unwrap();
        assert!(told.message().starts_with("protocol error: "), "{told}");
        e
    };
    lost(saying(b"garbage garbage garbage".to_vec()), &[broke, "a 0x61 frame of 1651663207 bytes is announced, the limit is"]);
    let huge = Header { len: 1 << 30, ..Header::new(Kind::Reply, 0, status::OK, 0) };
    lost(
        saying(huge.to_bytes().to_vec()),
        &[broke, "a Reply frame of 1073741824 bytes is announced", "send smaller bodies or raise the limit `body`"],
    );
    lost(saying(frame(Kind::Reply, 0, 0, 0x7777, b"")), &[broke, "a reply to call 0x7777, which"]);
    lost(saying(frame(Kind::Reply, 0, 9, 0, b"")), &[broke, "a reply with status 9"]);
    lost(saying(frame(Kind::Reply, 0, status::FAILURE, 0, b"\xff")), &[broke, "a failure that cannot be read"]);
    lost(saying(frame(Kind::Data, 0x40, 0, 0, b"")), &[broke, "a Data frame with flags 0x40"]);
    lost(saying(frame(Kind::Reply, flags::STREAM, status::OK, 0, b"")), &[broke, "a reply with a stream that nobody asked for"]);
    lost(saying(frame(Kind::Reply, flags::MORE, status::FAILURE, 0, b"")), &[broke, "a reply in fragments with status 2"]);
    // A reply that is no Vec<u8>.
    let e = call_to(|raw, call| {
        raw.send(&frame(Kind::Reply, 0, status::OK, call.header.id, b"\x09abc"));
        raw.text();
    });
    check(e, Code::Internal, Certainty::MaybeExecuted, &["the result cannot be decoded"]);
    let e = call_to(|raw, _| {
        let reason = [&0u64.to_le_bytes()[..], &[Code::Unavailable as u8], b"closed for lunch"].concat();
        raw.send(&frame(Kind::GoAway, 0, 0, 0, &reason));
        raw.text();
    });
    check(e, Code::Unavailable, Certainty::NotExecuted, &["closed for lunch"]);
}

/// A bad peer says `bytes` after its hello and is told `why`.
#[track_caller]
fn check_violation(house: &House, bytes: &[u8], why: &str) {
    let mut raw = house.raw();
    raw.bind();
    raw.send(bytes);
    let told = raw.hung_up();
    assert_eq!(told.code(), Code::InvalidArgument);
    assert!(told.message().starts_with("protocol error: ") && told.message().contains(why), "{why:?} is not in\n{told}");
    house.still_answers();
}

#[test]
fn a_server_tells_who_breaks_the_protocol_and_goes_on() {
    within(PATIENCE, || {
        let house = House::open(Limits::default());
        let check = |bytes: &[u8], why: &str| check_violation(&house, bytes, why);
        let rows = EchoClient::descriptor().methods.len() as u16;
        check(&[0xff; 100], "a 0xff frame of 4294967295 bytes is announced, the limit is");
        check(&[0x10; 12], "a Call frame of 269488144 bytes is announced");
        check(&Header { len: u32::MAX, ..Header::new(Kind::Call, 0, 0, 0) }.to_bytes(), "a Call frame of 4294967295 bytes is announced");
        check(b"\0\0\0\0\x77\0\0\0\0\0\0\0", "frame kind 0x77 is not in protocol version 1");
        check(&frame(Kind::Bind, 0, rows, 2, b"\xff\xff\xff"), "a Bind frame that cannot be read");
        check(&frame(Kind::Bind, 0, 99, 2, &Bind::of(EchoClient::descriptor()).encode()), "rows from 99, the next row is");
        check(&frame(Kind::Call, 0, 99, 0, &[0; 8]), "a call on row 99, which is not bound");
        check(&frame(Kind::Call, 0, 0, 0, b"\0"), "a Call frame without its deadline");
        check(&frame(Kind::Call, 0x80, 0, 0, &[0; 8]), "flags 0x80");
        check(&opening()[8..], "a second Hello");
        check(&frame(Kind::Reply, 0, status::OK, 3, b"x"), "a reply to call 0x3, which");
        check(&frame(Kind::Bound, 0, 0, 7, b""), "Bound");
        check(&frame(Kind::GoAway, 0, 0, 0, b"\0"), "a GoAway frame that ends early");
        let hold = frame(Kind::Call, 0, 2, 5, &[0; 4]);
        check(&[&hold[..], &hold].concat(), "call 0x5 uses a slot whose call is still running");
        let not_built = [
            (Kind::Ack, "a Ack frame: resuming a session"),
            (Kind::Resume, "a Resume frame: resuming a session"),
            (Kind::Release, "a Release frame: remote objects"),
            (Kind::Revoked, "a Revoked frame: remote objects"),
        ];
        for (kind, why) in not_built {
            check(&frame(kind, 0, 0, 0, b""), why);
        }
        check(&frame(Kind::Schema, 0, 0, 1, b""), "a Schema frame that ends early");
        check(&frame(Kind::Schema, 0, 0, 1, &[0; 17]), "a Schema frame for row 0 of binding 1, which is not held");
        check(&frame(Kind::Schema, flags::THEIRS, 0, 1, &[0; 17]), "a Schema frame for row 0 of binding 1, which is not held");
        check(&frame(Kind::Schema, 0, 0, 1, &[0; 70_000]), "a Schema frame of 70000 bytes, the limit is 65536");
        check(&frame(Kind::Ready, 0, 0, 1, b""), "a Ready frame for row 0 of binding 1, which is not held");
        check(&frame(Kind::Data, 0x80, 0, 0, b""), "a Data frame with flags 0x80");
        check(&frame(Kind::Credit, 0, 0, 0, b"1234567"), "a Credit frame that ends early");
        check(&frame(Kind::Credit, 0, 7, 0, &[0; 16]), "a Credit frame for 7, which is neither the connection nor a call");
        check(&frame(Kind::End, 0, 3, 0, b""), "an End with status 3");
        check(&frame(Kind::Reset, 0, 0, 0, b""), "a failure that cannot be read");
        let failure = Failure::from_error(&RpcError::new(Code::Aborted, "x")).encode();
        check(&frame(Kind::Reset, 0, 5, 0, &failure), "a Reset of 5");
        let begun = frame(Kind::Call, flags::MORE, 0, 4, &[0; 10]);
        check(&[&begun[..], &frame(Kind::End, 0, 0, 4, b"")].concat(), "an End in the middle of a body");
        check(&[&begun[..], &frame(Kind::Reset, 0, 0, 4, &failure)].concat(), "for which there is Cancel");
    });
}

#[test]
fn noise_ends_its_own_link_only() {
    within(PATIENCE, || {
        let house = House::open(Limits::default());
        let rows = EchoClient::descriptor().methods.len() as u16;
        let call = |id: u32, bits: u8, body: &[u8]| frame(Kind::Call, bits, 0, id, body);
        let frames = [
            call(0, 0, b"\0\0\0\0\x02hi"),
            call(1, flags::OPTIONS, b"\0\0\0\0\x03\x04\x01\x01\x02hi"),
            frame(Kind::Bind, 0, rows, 2, &Bind::of(EchoClient::descriptor()).encode()),
            frame(Kind::Cancel, 0, 0, 0, b""),
            frame(Kind::Ping, 0, 0, 7, b""),
            frame(Kind::Void, 0, 0, 0, b"abc"),
            call(2, flags::ONEWAY, b"\0\0\0\0\x02hi"),
            frame(Kind::Bound, 0, 1, 1, b"\0"),
            frame(Kind::Reply, 0, status::FAILURE, 0, &Failure::from_error(&RpcError::new(Code::Internal, "x")).encode()),
            frame(Kind::GoAway, 0, 0, 0, b"\0\0\0\0\0\0\0\0\x0ebye"),
        ]
        .concat();
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            // xorshift64: the same noise in every run.
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed as usize % below
        };
        for round in 0..300 {
            let mut noise = frames.clone();
            for _ in 0..=random(6) {
                let at = random(noise.len());
                noise[at] ^= 1 << random(8);
            }
            let mut raw = house.raw();
            raw.bind();
            // The server may hang up before it has all of it.
            let _ = raw.stream.write_all(&noise);
            let _ = raw.stream.shutdown(std::net::Shutdown::Write);
            raw.text();
            assert_eq!(house.good.echo(vec![1]).wait().unwrap(), [1], "after round {round}");
        }
        house.still_answers();
    });
}

#[test]
fn a_server_tells_who_does_not_say_hello_and_goes_on() {
    within(PATIENCE, || {
        let house = House::open(Limits { handshake: Duration::from_millis(300), ..Limits::default() });
        let line = "this port speaks farcall 1; what you sent is something else\r\n";
        let tls = "this port speaks farcall 1; what you sent is TLS, which it does not have: use tcp://\r\n";
        let request = format!("GET / HTTP/1.1\r\nHost: shop\r\nX-Long: {}\r\n\r\n", "x".repeat(10_000));
        for bytes in [request.as_bytes(), b"\x16\x03\x01\x02\0", b"farcast\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
            let mut raw = house.socket();
            raw.send(bytes);
            let line = if bytes[0] == 0x16 { tls } else { line };
            assert_eq!((raw.text().as_str(), raw.reset), (line, false), "{}", bytes.escape_ascii());
            house.still_answers();
        }
        let preface = Preface::ours();
        for (bytes, why) in [
            (b"farcall\x09".to_vec(), "this side speaks farcall protocol 1, not 9: use the same major version on both"),
            ([&preface[..], &frame(Kind::Call, 0, 0, 0, &[0; 8])].concat(), "its first frame is Call, not Hello"),
            ([&preface[..], &frame(Kind::Hello, 0, 0, 0, &[2, 200])].concat(), "the hello's last entry cannot be read"),
            ([&preface[..], &frame(Kind::Hello, 0, 0, 0, &[8, 0])].concat(), "hello entry 8 is not known here"),
            ([&preface[..], &[0xff; 100]].concat(), "frame of 4294967295 bytes is announced, the limit is"),
        ] {
            let mut raw = house.socket();
            raw.send(&bytes);
            raw.hear_hello();
            let told = raw.hung_up();
            assert!(told.message().contains(why), "{why:?} is not in\n{told}");
            house.still_answers();
        }
        // These say too little to be told anything, and are not waited for.
        for bytes in [&b""[..], b"far", &preface, &opening()[..20]] {
            let mut raw = house.socket();
            raw.send(bytes);
            raw.text();
            house.still_answers();
        }
    });
}

#[test]
fn a_call_that_is_not_built_is_refused_and_the_link_goes_on() {
    within(PATIENCE, || {
        let house = House::open(Limits::default());
        let mut raw = house.raw();
        raw.bind();
        for (id, bits, why) in [
            (0, flags::TARGET_OBJECT, "remote objects are not built"),
            (1, flags::TARGET_ANSWER, "results that are not there yet are not built"),
            (2, flags::STREAM, "its binding says otherwise"),
        ] {
            raw.send(&frame(Kind::Call, bits, 0, id, &[0; 8]));
            let reply = raw.frame_of(Kind::Reply);
            let e = Failure::decode(&reply.payload).unwrap().into_error();
            assert_eq!((reply.header.id, reply.header.aux, e.certainty()), (id, status::FAILURE, Certainty::NotExecuted));
            assert!(matches!(e.code(), Code::Unimplemented | Code::FailedPrecondition), "{e}");
            assert!(e.message().contains(why), "{e}");
        }
        raw.send(&frame(Kind::Call, 0, 0, 3, b"\0\0\0\0\x02hi"));
        let reply = raw.frame_of(Kind::Reply);
        assert_eq!((reply.header.id, reply.payload), (3, Bytes::from_static(b"\x02hi")));
    });
}

/// The same service as another team has it.
mod other {
    use farcall::prelude::*;

    #[farcall::service]
    pub(crate) trait Echo {
        async fn echo(&self, bytes: Vec<u8>) -> Reply<Vec<u8>>;
        async fn make(&self, len: u64) -> Reply<Vec<u8>>;
        async fn hold(&self) -> Reply<String, Late>;
        #[farcall(oneway)]
        async fn panic(&self);
        async fn sing(&self) -> Reply<u8>;
    }

    #[farcall::error]
    #[derive(Debug)]
    pub(crate) struct Late;

    #[farcall::service]
    pub(crate) trait Choir {
        async fn sing(&self) -> Reply<u8>;
    }
}

#[test]
fn two_versions_of_a_service_differ_method_by_method() {
    within(PATIENCE, || {
        let house = House::open(Limits::default());
        let other = other::EchoClient::connect(house.server.address()).wait().unwrap();
        let check = |e: RpcError, certainty, code, advice: &[&str]| {
            assert_eq!((e.code(), e.certainty()), (code, certainty), "{e}");
            for text in advice {
                assert!(e.to_string().contains(text), "{text:?} is not in\n{e}");
            }
        };
        // Arguments of another type are read, and refused only if the value does not fit.
        assert_eq!(other.make(7).wait().unwrap(), [7; 7]);
        let e = other.make(1 << 40).wait().unwrap_err();
        check(e, Certainty::NotExecuted, Code::InvalidArgument, &["len: the number 1099511627776 does not fit u32"]);
        let hold = other.hold().wait().unwrap_err().rpc().unwrap().clone();
        let why = "Echo.hold: the caller cannot read the provider: result: the writer sends u8, the reader reads String";
        check(hold, Certainty::NotSent, Code::FailedPrecondition, &[why]);
        // A side that does not resolve types refuses them. The first is under way before it has said so.
        let strict = Limits { schemas: 0, ..Limits::default() };
        let strict = other::EchoClient::connect(house.server.address()).limits(strict).wait().unwrap();
        for certainty in [Certainty::NotExecuted, Certainty::NotSent] {
            let make = strict.make(7).wait().unwrap_err();
            check(
                make,
                certainty,
                Code::FailedPrecondition,
                &[
                    "Echo.make: the arguments differ between caller and provider",
                    "`make(len: u32) -> Reply<Vec<u8>>`",
                    "build both from the same types",
                ],
            );
        }
        let hold = strict.hold().wait().unwrap_err().rpc().unwrap().clone();
        check(hold, Certainty::NotSent, Code::FailedPrecondition, &["Echo.hold: the result and error differ", "`hold() -> Reply<u8>`"]);
        let sing = other.sing().wait().unwrap_err();
        check(sing, Certainty::NotSent, Code::Unimplemented, &["Echo has no method \"sing\" here; it has echo, make, hold, panic"]);
        assert_eq!(other.echo(vec![5]).wait().unwrap(), [5]);
        let choir = other::ChoirClient::connect(house.server.address()).wait().unwrap();
        for certainty in [Certainty::NotExecuted, Certainty::NotSent] {
            let sing = choir.sing().wait().unwrap_err();
            check(
                sing,
                certainty,
                Code::Unimplemented,
                &["Choir.sing: there is no service \"Choir\" here; services: Echo, farcall.Health, farcall.Meta"],
            );
        }
        house.still_answers();
    });
}

#[test]
fn a_refused_one_way_call_does_not_hold_up_the_next() {
    within(PATIENCE, || {
        let house = House::open(Limits::default());
        let other = other::EchoClient::connect(house.server.address()).wait().unwrap();
        other.make(7).wait().unwrap();
        for _ in 0..200 {
            let e = other.panic().wait().unwrap_err();
            assert_eq!((e.code(), e.certainty()), (Code::FailedPrecondition, Certainty::NotSent), "{e}");
            let says = e.message().starts_with("Echo.panic: ") && e.message().contains("the provider has `panic() -> Reply<u8>`");
            assert!(says, "{e}");
            assert_eq!(other.echo(vec![5]).deadline(Duration::from_secs(2)).wait().unwrap(), [5]);
        }
    });
}

#[test]
fn a_body_over_the_limit_costs_that_call_only() {
    within(PATIENCE, || {
        let house = House::open(Limits { body: 1000, ..Limits::default() });
        let e = house.good.echo(vec![0; 2000]).wait().unwrap_err();
        assert_eq!((e.code(), e.certainty(), e.stage()), (Code::ResourceExhausted, Certainty::NotSent, Some(Stage::Encode)), "{e}");
        assert!(e.message().contains("the arguments are 2002 bytes, the provider's limit `body` is 1000"), "{e}");
        // What fits into a frame but not into the limit of the body, from a peer that does not keep to it.
        let mut raw = house.raw();
        raw.bind();
        raw.send(&frame(Kind::Call, 0, 0, 0, &[&[0; 4][..], &[0; 2000]].concat()));
        let e = Failure::decode(&raw.frame_of(Kind::Reply).payload).unwrap().into_error();
        assert_eq!((e.code(), e.certainty()), (Code::ResourceExhausted, Certainty::NotExecuted), "{e}");
        house.still_answers();

        let small = Limits { body: 1000, ..Limits::default() };
        let picky = EchoClient::connect(house.server.address()).limits(small).wait().unwrap();
        let e = picky.make(2000).wait().unwrap_err();
        assert_eq!((e.code(), e.certainty()), (Code::ResourceExhausted, Certainty::MaybeExecuted), "{e}");
        assert!(e.message().contains("the result is 2002 bytes, the caller's limit `body` is 1000"), "{e}");
        assert_eq!(picky.make(3).wait().unwrap(), [7; 3]);
        assert_eq!(house.good.make(2000).wait().unwrap().len(), 2000);
    });
}

#[test]
fn a_panicking_handler_answers_that_call_only() {
    within(PATIENCE, || {
        let house = House::open(Limits::default());
        let held = house.good.hold().send();
        let check = |e: RpcError, method: &str, text: &str| {
            assert_eq!((e.code(), e.certainty(), e.stage()), (Code::Internal, Certainty::MaybeExecuted, Some(Stage::Handler)), "{e}");
            assert_eq!((e.message(), e.method()), (text, Some(method)));
        };
        check(house.good.panic().wait().unwrap_err(), "Echo.panic", "the handler panicked: the till is on fire");
        check(house.good.panic_late().wait().unwrap_err(), "Echo.panic_late", "the handler panicked: the till is still on fire");
        check(house.good.panic_blocking().wait().unwrap_err(), "Echo.panic_blocking", "the handler panicked: (no text)");
        house.good.panic_oneway().wait().unwrap();
        house.still_answers();
        house.allowed.add_permits(1);
        // It was in flight on the same connection all the while.
        assert_eq!(held.wait().unwrap(), 1);
        let address = house.server.address().to_string();
        cli::run(&["call", &address, "Echo.panic"]).check(
            1,
            &[],
            &["Echo.panic: the handler panicked: the till is on fire", "code       Internal", "stage      in the handler"],
        );
    });
}

/// A call of `Echo.echo` with these options.
fn call_with(id: u32, options: &CallOptions) -> Vec<u8> {
    frame(Kind::Call, flags::OPTIONS, 0, id, &[&[0; 4][..], &options.encode(), &[1, 7]].concat())
}

#[test]
fn a_peer_that_says_strange_things_of_its_keys() {
    let keyed = |record| {
        let attempted = Some(KeyMoment { record, ms: u64::MAX });
        CallOptions { key: Some(Box::new(CallKey { bytes: b"k"[..].into(), attempted })), ..CallOptions::default() }
    };
    let failure = |frame: Frame| Failure::decode(&frame.payload).unwrap().into_error();
    let house = House::open(Limits::default());
    let mut raw = house.socket();
    raw.say_hello();
    let keys = raw.hear_hello().keys.unwrap();
    raw.bind();
    // An attempt at another record; then one that was made in this one's future, which is its own affair.
    raw.send(&call_with(0, &keyed(!keys.record)));
    let e = failure(raw.frame_of(Kind::Reply));
    assert_eq!((e.code(), e.certainty()), (Code::FailedPrecondition, Certainty::MaybeExecuted), "{e}");
    raw.send(&call_with(1, &keyed(keys.record)));
    assert_eq!(raw.frame_of(Kind::Reply).payload[..], [1, 7]);
    // An attempt without a key.
    let block = [&[18, tag::ATTEMPTED, 16][..], &[0; 16]].concat();
    raw.send(&frame(Kind::Call, flags::OPTIONS, 0, 2, &[&[0; 4][..], &block, &[1, 7]].concat()));
    let e = failure(raw.frame_of(Kind::Reply));
    assert_eq!((e.code(), e.certainty()), (Code::InvalidArgument, Certainty::NotExecuted), "{e}");
    house.still_answers();

    let without = House::open(Limits { keys: 0, ..Limits::default() });
    let mut raw = without.socket();
    raw.say_hello();
    assert_eq!(raw.hear_hello().keys, None);
    raw.bind();
    raw.send(&call_with(0, &keyed(7)));
    let e = failure(raw.frame_of(Kind::Reply));
    assert_eq!((e.code(), e.certainty()), (Code::Unimplemented, Certainty::MaybeExecuted), "{e}");
    without.still_answers();
}

/// A peer whose method `make` has other types than the server's: its binding, and what it writes there.
struct Differing {
    bind: Bind,
    print: Fingerprint,
    schema: Vec<u8>,
}

const MAKE: u16 = 1;

impl Differing {
    fn of(schema: &TypeSchema) -> Differing {
        let (mut bind, print) = (Bind::of(EchoClient::descriptor()), schema.fingerprint());
        bind.rows[MAKE as usize].args = print;
        Differing { bind, print, schema: schema.bare() }
    }

    /// As the older version of `make` has it.
    fn older() -> Differing {
        Differing::of(&other::EchoClient::descriptor().methods[MAKE as usize].args)
    }

    fn bind(&self, raw: &mut Raw) {
        raw.send(&frame(Kind::Bind, 0, 0, 1, &self.bind.encode()));
        let bound = raw.frame_of(Kind::Bound);
        assert_eq!((bound.header.aux, &bound.payload[..]), (1, &[1, MAKE as u8, 0, 0][..]), "the row is held");
    }

    fn says(&self) -> Vec<u8> {
        frame(Kind::Schema, 0, MAKE, 1, &[&[0][..], &self.print.0, &self.schema].concat())
    }
}

fn ready() -> Vec<u8> {
    frame(Kind::Ready, 0, MAKE, 1, b"")
}

/// A call of `make(len)` under this number, with so many milliseconds.
fn make(id: u32, ms: u32, len: u8) -> Vec<u8> {
    frame(Kind::Call, 0, MAKE, id, &[&ms.to_le_bytes()[..], &[len]].concat())
}

#[test]
fn calls_on_a_row_that_is_held_wait_expire_and_are_cancelled() {
    within(PATIENCE, || {
        let (house, peer) = (House::open(Limits::default()), Differing::older());
        let mut raw = house.raw();
        peer.bind(&mut raw);
        let echo = |id: u32| frame(Kind::Call, 0, 0, id, b"\0\0\0\0\x02hi");
        raw.send(&[make(0, 0, 3), make(1, 20, 4), make(2, 0, 5), make(3, 0, 6), echo(4)].concat());
        // What does not differ passes by, and what waits too long ends.
        let mut replies = [raw.frame_of(Kind::Reply), raw.frame_of(Kind::Reply)];
        replies.sort_by_key(|reply| reply.header.id);
        let failure = |frame: &Frame| Failure::decode(&frame.payload).unwrap().into_error();
        let late = failure(&replies[0]);
        assert_eq!((replies[0].header.id, late.code(), late.certainty()), (1, Code::DeadlineExceeded, Certainty::NotExecuted));
        assert_eq!(replies[1].header.id, 4);
        raw.send(&frame(Kind::Cancel, 0, 0, 2, b""));
        let reply = raw.frame_of(Kind::Reply);
        let gone = failure(&reply);
        assert_eq!((reply.header.id, gone.code(), gone.certainty()), (2, Code::Cancelled, Certainty::NotExecuted));
        // A server that leaves answers what it took.
        let server = house.server;
        let (sender, drained) = mpsc::channel();
        thread::spawn(move || sender.send(farcall::block_on(server.drain(PATIENCE)).unwrap()));
        raw.frame_of(Kind::GoAway);
        raw.send(&make(5, 0, 7));
        raw.send(&peer.says());
        let word = raw.frame_of(Kind::Ready);
        assert_eq!((word.header.flags, word.header.aux, word.payload.len()), (flags::THEIRS, MAKE, 0));
        raw.send(&ready());
        for (id, len) in [(0, 3), (3, 6)] {
            let reply = raw.frame_of(Kind::Reply);
            assert_eq!((reply.header.id, reply.header.aux, reply.payload.len()), (id, status::OK, len + 1), "in their order");
        }
        assert_eq!(raw.frame(), None, "the call after the GoAway is not answered");
        drained.recv().unwrap().unwrap();
    });
}

#[test]
fn a_link_that_ends_takes_the_calls_with_it_that_are_held() {
    within(PATIENCE, || {
        let (house, peer) = (House::open(Limits::default()), Differing::older());
        let mut raw = house.raw();
        peer.bind(&mut raw);
        raw.send(&[make(0, 0, 3), make(1, 0, 4)].concat());
        raw.send(&frame(Kind::Ping, 0, 0, 7, b""));
        raw.frame_of(Kind::Pong);
        drop(raw);
        house.still_answers();
    });
}

#[test]
fn a_server_survives_what_peers_say_of_their_types() {
    within(PATIENCE, || {
        let house = House::open(Limits::default());
        let check = |peer: Differing, bytes: Vec<u8>, why: &str| {
            let mut raw = house.raw();
            peer.bind(&mut raw);
            raw.send(&bytes);
            let told = raw.hung_up();
            assert!(told.message().contains(why), "{why:?} is not in\n{told}");
        };
        let older = Differing::older;
        check(older(), ready(), "a Ready frame for row 1 before its schemas");
        check(older(), [older().says(), older().says()].concat(), "or a second one");
        check(older(), [older().says(), ready(), ready()].concat(), "a second Ready frame for row 1");
        check(older(), Differing { print: Fingerprint([1; 16]), ..older() }.says(), "of another fingerprint than its binding said");
        let lies = Differing { schema: TypeSchema::of::<u8>().bare(), ..older() };
        check(older(), lies.says(), "a schema of another fingerprint than its frame says");
        check(older(), Differing { schema: vec![0xff; 99], ..older() }.says(), "a schema that cannot be read");
        // Sound by its form, but nothing to work with: that costs the method only.
        let bad = Differing::of(&TypeSchema { root: Ty::Ref(9), defs: Vec::new() });
        let mut raw = house.raw();
        bad.bind(&mut raw);
        raw.send(&[make(0, 0, 3), bad.says(), ready(), make(1, 0, 3)].concat());
        for _ in 0..2 {
            let e = Failure::decode(&raw.frame_of(Kind::Reply).payload).unwrap().into_error();
            assert_eq!((e.code(), e.certainty()), (Code::FailedPrecondition, Certainty::NotExecuted), "{e}");
            assert!(e.message().contains("bad schema: definition 9 is not there"), "{e}");
        }
        raw.send(&frame(Kind::Call, 0, 0, 2, b"\0\0\0\0\x02hi"));
        assert_eq!(raw.frame_of(Kind::Reply).payload[..], *b"\x02hi");
        house.still_answers();
    });
}

#[test]
fn a_flood_of_schemas_is_read_within_its_limit() {
    within(PATIENCE, || {
        let house = House::open(Limits { schemas: 100_000, ..Limits::default() });
        let mut raw = house.raw();
        // Many rows of one method, each with a large schema of its own.
        let schema = |n: u32| {
            let name = |i: u32| format!("field_{n}_{i}");
            let field = |i| Field {
                name: name(i),
                aliases: Vec::new(),
                default: false,
                must_understand: false,
                docs: String::new(),
                tag: None,
                foreign: None,
                ty: Ty::Str,
            };
            let kind = farcall::schema::Kind::Struct((0..1000).map(field).collect());
            let def = Def { name: "Large".into(), foreign: None, docs: String::new(), kind };
            TypeSchema { root: Ty::Ref(0), defs: vec![def] }
        };
        let schemas: Vec<TypeSchema> = (0..30).map(schema).collect();
        let mut bind = Bind::of(EchoClient::descriptor());
        let row = bind.rows[MAKE as usize].clone();
        bind.rows = schemas.iter().map(|s| farcall_wire::BindRow { args: s.fingerprint(), ..row.clone() }).collect();
        raw.send(&frame(Kind::Bind, 0, 0, 1, &bind.encode()));
        let mut refused = 0;
        for (row, schema) in schemas.iter().enumerate() {
            let said = [&[0][..], &schema.fingerprint().0, &schema.bare()].concat();
            raw.send(&frame(Kind::Schema, 0, row as u16, 1, &said));
            let word = raw.frame_of(Kind::Ready);
            let verdict: farcall_wire::Verdict = farcall::compact::decode(&word.payload).unwrap();
            refused += usize::from(verdict.code == Code::ResourceExhausted as u8);
        }
        assert!(refused >= 25, "{refused} refused");
        house.still_answers();
    });
}

/// What is written of a hello in another version of farcall, after the preface.
fn hello_of(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut payload = Hello::new([9; 16], 1, &Limits::default()).encode();
    change(&mut payload);
    [&Preface::ours()[..], &frame(Kind::Hello, 0, 0, 0, &payload)].concat()
}

#[test]
fn a_later_farcall_is_understood_as_far_as_it_allows() {
    within(PATIENCE, || {
        let house = House::open(Limits::default());
        // An entry that may be skipped; one that may not.
        let mut raw = house.socket();
        raw.send(&hello_of(|hello| hello.extend([201, 3, 1, 2, 3])));
        raw.hear_hello();
        raw.bind();
        raw.send(&frame(Kind::Call, 0, 0, 0, b"\0\0\0\0\x02hi"));
        assert_eq!(raw.frame_of(Kind::Reply).payload[..], *b"\x02hi");
        let mut raw = house.socket();
        raw.send(&hello_of(|hello| hello.extend([200, 0])));
        raw.hear_hello();
        assert!(raw.hung_up().message().contains("hello entry 200 is not known here and may not be skipped"));
        // Version 2, whose hello nobody here can read: told in the layout that all versions keep.
        let mut raw = house.socket();
        raw.send(b"farcall\x02\x05\0\0\0\x01\0\0\0\0\0\0\0later");
        raw.hear_hello();
        let go_away = raw.frame_of(Kind::GoAway);
        let text = b"this side speaks farcall protocol 1, not 2: use the same major version on both";
        assert_eq!(go_away.payload[..], [&0u64.to_le_bytes()[..], &[12], text].concat());
        house.still_answers();
    });
    // The other way round: an acceptor that speaks only version 2, and says so.
    let address = peer(|mut raw| {
        let text = b"this side speaks farcall 2";
        let payload = [&0u64.to_le_bytes()[..], &[Code::Unimplemented as u8], text].concat();
        raw.send(&[&b"farcall\x02"[..], &frame(Kind::GoAway, 0, 0, 0, &payload)].concat());
        raw.text();
    });
    check_connect(&address, Code::Unimplemented, Stage::Connect, &["the peer speaks farcall protocol 2, this side 1"]);
}
