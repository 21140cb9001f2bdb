//! ZooKeeper's encoding, and the requests and replies that we use. No I/O.
//!
//! Big-endian numbers; text and bytes with their length in four bytes, -1 for none. A packet is its length and then the rest.

use std::fmt;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Writes a packet.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// Begins with a request's number and kind.
    pub(crate) fn request(xid: i32, op: Op) -> Writer {
        let mut writer = Writer::default();
        writer.int(xid);
        writer.int(op as i32);
        writer
    }

    pub(crate) fn int(&mut self, n: i32) -> &mut Writer {
        self.0.extend_from_slice(&n.to_be_bytes());
        self
    }

    pub(crate) fn long(&mut self, n: i64) -> &mut Writer {
        self.0.extend_from_slice(&n.to_be_bytes());
        self
    }

    pub(crate) fn bool(&mut self, yes: bool) -> &mut Writer {
        self.0.push(yes.into());
        self
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Writer {
        // A packet of 2 GiB is never made: MAX_PACKET is looked at before.
        self.int(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Writer {
        self.bytes(text.as_bytes())
    }

    /// What was written elsewhere.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Writer {
        self.0.extend_from_slice(bytes);
        self
    }

    /// What is written, without a length before it.
    pub(crate) fn body(self) -> Vec<u8> {
        self.0
    }

    /// The packet, its length before it.
    pub(crate) fn packet(self) -> Vec<u8> {
        let mut packet = i32::try_from(self.0.len()).unwrap_or(i32::MAX).to_be_bytes().to_vec();
        packet.extend_from_slice(&self.0);
        packet
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Reads a packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (first, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn int(&mut self) -> Result<i32, Malformed> {
        self.take().map(i32::from_be_bytes)
    }

    pub(crate) fn long(&mut self) -> Result<i64, Malformed> {
        self.take().map(i64::from_be_bytes)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = match self.int()? {
            -1 => 0,
            length => usize::try_from(length).map_err(|_| Malformed)?,
        };
        let (first, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(first)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    pub(crate) fn texts(&mut self) -> Result<Vec<String>, Malformed> {
        let count = usize::try_from(self.int()?.max(0)).map_err(|_| Malformed)?;
        // Each is four bytes at least: what is claimed cannot make us reserve more than what came.
        let mut texts = Vec::with_capacity(count.min(self.0.len() / 4));
        for _ in 0..count {
            texts.push(self.text()?.to_owned());
        }
        Ok(texts)
    }

    /// What is told of a node.
    pub(crate) fn stat(&mut self) -> Result<Stat, Malformed> {
        self.long()?; // czxid
        self.long()?; // mzxid
        let created = self.long()?;
        self.long()?; // mtime
        for _ in 0..3 {
            self.int()?; // version, cversion, aversion
        }
        let owner = self.long()?;
        self.int()?; // dataLength
        self.int()?; // numChildren
        self.long()?; // pzxid
        Ok(Stat { owner, created })
    }
}

/// What is told of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// The session that it goes with; 0 if it stays.
    pub(crate) owner: i64,
    /// When it was made, by the server's clock (milliseconds since 1970).
    pub(crate) created: i64,
}

/// Kinds of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Op {
    Create = 1,
    Delete = 2,
    Exists = 3,
    GetData = 4,
    SetData = 5,
    Ping = 11,
    GetChildren2 = 12,
    RemoveWatches = 18,
    Auth = 100,
    AddWatch = 106,
    CloseSession = -11,
}

/// Numbers of packets that answer no request.
pub(crate) const XID_EVENT: i32 = -1;
pub(crate) const XID_PING: i32 = -2;
pub(crate) const XID_AUTH: i32 = -4;

/// What a server refuses a request with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    NoNode,
    NodeExists,
    NotEmpty,
    NoAuth,
    AuthFailed,
    SessionExpired,
    Unimplemented,
    QuotaExceeded,
    BadArguments,
    ReadOnly,
    Other(i32),
}

impl Refusal {
    pub(crate) fn from_code(code: i32) -> Option<Refusal> {
        Some(match code {
            0 => return None,
            -6 => Refusal::Unimplemented,
            -8 => Refusal::BadArguments,
            -101 => Refusal::NoNode,
            -102 => Refusal::NoAuth,
            -110 => Refusal::NodeExists,
            -111 => Refusal::NotEmpty,
            -112 => Refusal::SessionExpired,
            -115 => Refusal::AuthFailed,
            -119 => Refusal::ReadOnly,
            -125 => Refusal::QuotaExceeded,
            other => Refusal::Other(other),
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NoNode => f.write_str("no such node"),
            Refusal::NodeExists => f.write_str("the node exists"),
            Refusal::NotEmpty => f.write_str("there are nodes below"),
            Refusal::NoAuth => f.write_str("its access list does not let us"),
            Refusal::AuthFailed => f.write_str("it does not take our credentials"),
            Refusal::SessionExpired => f.write_str("the session is over"),
            Refusal::Unimplemented => f.write_str("the server does not know the request"),
            Refusal::QuotaExceeded => f.write_str("its quota is used up"),
            Refusal::BadArguments => f.write_str("the server does not take the path"),
            Refusal::ReadOnly => f.write_str("the server is read-only for now"),
            Refusal::Other(code) => write!(f, "error {code}"),
        }
    }
}

/// What happened to a watched node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) kind: EventKind,
    pub(crate) path: String,
}

/// Kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventKind {
    Created,
    Deleted,
    DataChanged,
    ChildrenChanged,
    /// Not about a node.
    None,
}

impl Event {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Event, Malformed> {
        let kind = match reader.int()? {
            1 => EventKind::Created,
            2 => EventKind::Deleted,
            3 => EventKind::DataChanged,
            4 => EventKind::ChildrenChanged,
            _ => EventKind::None,
        };
        reader.int()?; // the state of the connection, which we know
        Ok(Event { kind, path: reader.text()?.to_owned() })
    }
}

/// The first packet of a connection: takes a session up again, or asks for a new one (`id` 0).
pub(crate) fn connect(last_zxid: i64, timeout_ms: i32, id: i64, password: &[u8]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.int(0).long(last_zxid).int(timeout_ms).long(id).bytes(password).bool(false);
    writer.packet()
}

/// The answer to [`connect`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connected {
    /// What the server settled on; 0 or less: the session that was asked for is over.
    pub(crate) timeout_ms: i32,
    pub(crate) id: i64,
    pub(crate) password: Vec<u8>,
}

impl Connected {
    pub(crate) fn read(packet: &[u8]) -> Result<Connected, Malformed> {
        let mut reader = Reader(packet);
        reader.int()?; // protocol version
        let (timeout_ms, id) = (reader.int()?, reader.long()?);
        let password = reader.bytes()?;
        match password.len() {
            // ZooKeeper's are 16 bytes.
            0..=64 => Ok(Connected { timeout_ms, id, password: password.to_vec() }),
            _ => Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::request(7, Op::Create);
        writer.text("/a").bytes(b"").bool(true).long(-5);
        let packet = writer.packet();
        let mut reader = Reader(&packet);
        assert_eq!(reader.int(), Ok(packet.len() as i32 - 4));
        assert_eq!((reader.int(), reader.int()), (Ok(7), Ok(1)));
        assert_eq!((reader.text(), reader.bytes()), (Ok("/a"), Ok(&b""[..])));
        assert_eq!(reader.take(), Ok([1u8]));
        assert_eq!(reader.long(), Ok(-5));
        assert_eq!(reader.int(), Err(Malformed));
    }

    #[test]
    fn a_hostile_server_gets_nothing() {
        for bad in [&[0xff, 0xff, 0xff, 0xfe][..], &[0x7f, 0xff, 0xff, 0xff], &[0, 0, 0, 2, 0xff, 0xff], &[0, 0, 0, 9, b'x']] {
            assert_eq!(Reader(bad).text(), Err(Malformed), "{bad:?}");
        }
        assert_eq!(Reader(&[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]).texts(), Err(Malformed));
        assert_eq!(Reader(&[0xff, 0xff, 0xff, 0xff]).texts(), Ok(vec![]));
        assert_eq!(Connected::read(&[0; 10]), Err(Malformed));
        let mut long = [0; 16].to_vec();
        long.extend_from_slice(&65i32.to_be_bytes());
        long.extend_from_slice(&[0; 65]);
        assert_eq!(Connected::read(&long), Err(Malformed));
        assert_eq!(Event::read(&mut Reader(&[0; 11])), Err(Malformed));
    }
}
