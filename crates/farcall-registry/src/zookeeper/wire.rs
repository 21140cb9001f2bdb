//! A connection to one ZooKeeper server: packets in and out, and the opening.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::target::Target;
use crate::zookeeper::jute::{Connected, Malformed, Op, Reader, Writer, XID_AUTH, connect};

/// Longest packet that is read: a list of all nodes of a service comes in one.
pub(crate) const MAX_PACKET: usize = 64 << 20;

/// Read at a time: a packet that announces more than comes does not make us reserve it.
const STEP: usize = 64 << 10;

/// A session, as a server has given it; `id` 0 is none yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Session {
    pub(crate) id: i64,
    pub(crate) password: Vec<u8>,
    /// How long it outlives its connection, as the server settled it.
    pub(crate) timeout: Duration,
    /// The last change that was seen: a server that is behind it refuses us.
    pub(crate) seen: i64,
}

/// How an opening ended.
pub(crate) enum Opened {
    /// The session lives on this connection now.
    Connected(TcpStream, Session),
    /// The session that was asked for is over.
    Expired,
}

/// Connects to a host and takes the session up, or begins one if there is none.
pub(crate) async fn open(place: &str, session: &Session, wanted: Duration, auth: Option<&[u8]>, patience: Duration) -> io::Result<Opened> {
    match timeout(patience, open_unbounded(place, session, wanted, auth)).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {patience:?}"))),
    }
}

async fn open_unbounded(place: &str, session: &Session, wanted: Duration, auth: Option<&[u8]>) -> io::Result<Opened> {
    let mut stream = TcpStream::connect(place).await?;
    stream.set_nodelay(true)?;
    let wanted = i32::try_from(wanted.as_millis()).unwrap_or(i32::MAX);
    stream.write_all(&connect(session.seen, wanted, session.id, &session.password)).await?;
    let answer = read_packet(&mut stream).await?;
    let connected = Connected::read(&answer).map_err(|Malformed| malformed())?;
    let Ok(granted @ 1..) = u64::try_from(connected.timeout_ms) else { return Ok(Opened::Expired) };
    if let Some(auth) = auth {
        let mut request = Writer::request(XID_AUTH, Op::Auth);
        request.int(0).text("digest").bytes(auth);
        stream.write_all(&request.packet()).await?;
        expect_auth(&read_packet(&mut stream).await?)?;
    }
    let session = Session { id: connected.id, password: connected.password, timeout: Duration::from_millis(granted), seen: session.seen };
    Ok(Opened::Connected(stream, session))
}

/// A server that does not take credentials says so and hangs up.
fn expect_auth(packet: &[u8]) -> io::Result<()> {
    let mut reader = Reader(packet);
    let answer = (|| Ok::<_, Malformed>((reader.int()?, reader.long()?, reader.int()?)))();
    match answer.map_err(|Malformed| malformed())? {
        (XID_AUTH, _, 0) => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::PermissionDenied, "it does not take our user and password")),
    }
}

/// Reads a packet, without its length.
pub(crate) async fn read_packet(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = from.read_i32().await?;
    let length = usize::try_from(length).ok().filter(|&length| length <= MAX_PACKET);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a packet of an impossible length"))?;
    let mut packet = Vec::new();
    while packet.len() < length {
        let before = packet.len();
        packet.resize(length.min(before + STEP), 0);
        from.read_exact(&mut packet[before..]).await?;
    }
    Ok(packet)
}

pub(crate) fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what it sent is not ZooKeeper's protocol")
}

/// Hosts by turns, from any one on: not every client begins with the first.
#[derive(Debug)]
pub(crate) struct Hosts {
    places: Vec<String>,
    next: usize,
}

impl Hosts {
    pub(crate) fn new(target: &Target) -> Hosts {
        let places = target.places.clone();
        let next = crate::random::number() as usize % places.len().max(1);
        Hosts { places, next }
    }

    /// The one to try now, and whether all have been tried since it was last this one's turn.
    pub(crate) fn next(&mut self) -> &str {
        self.next = (self.next + 1) % self.places.len().max(1);
        self.places.get(self.next).map_or("", String::as_str)
    }

    pub(crate) fn count(&self) -> usize {
        self.places.len()
    }
}
