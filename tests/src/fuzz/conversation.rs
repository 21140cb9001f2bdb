//! What a peer says in a conversation that has all kinds of frames.

use std::sync::OnceLock;

use farcall::schema::Fingerprint;
use farcall::{Code, MethodDescriptor, MethodTraits, Never, RpcError, Schema, ServiceDescriptor, compact};
use farcall_wire::{
    Body, Catalogue, Failure, Header, Hello, Kind, OutBuf, Outbound, PeerLimits, Session, Start, Streams, Verdict, begin_reply, end_reply,
    flags, status,
};

use super::control::{failure, options};
use super::session::limits;

/// The row with a stream each way.
pub(super) const CHAT: u16 = 3;

/// The service as this side has it.
pub(super) struct Echo(pub(super) ServiceDescriptor);

impl Catalogue for Echo {
    fn get(&self, _: usize) -> Option<&ServiceDescriptor> {
        Some(&self.0)
    }

    fn find(&self, service: &str, _: &str, _: &str) -> Result<(usize, &ServiceDescriptor), RpcError> {
        match service == self.0.name {
            true => Ok((0, &self.0)),
            false => Err(RpcError::not_executed(Code::Unimplemented, "no such service here")),
        }
    }
}

fn method<Args: Schema, Out: Schema>(name: &str, traits: MethodTraits) -> MethodDescriptor {
    MethodDescriptor::build::<Args, Out, Never>(name, None, "", &[], name, traits)
}

pub(super) fn echo() -> &'static Echo {
    static ECHO: OnceLock<Echo> = OnceLock::new();
    ECHO.get_or_init(|| {
        let traits = |oneway, stream| MethodTraits { oneway, args_stream: stream, result_stream: stream, ..MethodTraits::default() };
        let methods = [("echo", false, false), ("note", true, false), ("odd", false, false), ("chat", false, true)];
        let methods = methods.map(|(name, oneway, stream)| method::<(u32,), u64>(name, traits(oneway, stream)));
        let grown = ["more", "most"].map(|name| method::<(u64, Wide), Wide>(name, MethodTraits::default()));
        Echo(ServiceDescriptor {
            name: "Echo".into(),
            foreign_name: None,
            docs: String::new(),
            version: String::new(),
            group: String::new(),
            methods: methods.into_iter().chain(grown).collect(),
        })
    })
}

/// The rows on which both sides differ. They are to be the last.
const MORE: u16 = 4;
const MOST: u16 = 5;

#[farcall::data]
struct Narrow {
    n: u8,
    list: Vec<(u16, String)>,
    next: Option<Box<Narrow>>,
}

#[farcall::data]
struct Wide {
    n: u32,
    list: Vec<(u64, String)>,
    next: Option<Box<Wide>>,
    note: Option<String>,
}

/// As the peer has it: an older version.
fn older() -> &'static ServiceDescriptor {
    static OLDER: OnceLock<ServiceDescriptor> = OnceLock::new();
    OLDER.get_or_init(|| {
        let mut older = echo().0.clone();
        older.methods.truncate(MORE as usize);
        older.methods.extend(["more", "most"].map(|name| method::<(u32, Narrow), Narrow>(name, MethodTraits::default())));
        older
    })
}

/// What the peer says of the rows on which both sides differ: of its own, then of ours.
fn differences(out: &mut OutBuf) {
    let old = &older().methods[MORE as usize];
    let mut frame = |kind, bits, aux, payload: &[u8]| out.frame(Header::new(kind, bits, aux, 1), &[payload]);
    let said = |part: u8, print: Fingerprint, schema: &[u8]| [&[part], &print.0[..], schema].concat();
    let (args, result) = (old.args.bare(), old.result.bare());
    frame(Kind::Schema, 0, MORE, &said(0, old.prints.args, &args));
    frame(Kind::Ready, 0, MORE, b"");
    frame(Kind::Schema, 0, MOST, &said(0, old.prints.args, b""));
    let no = Verdict { row: MOST, code: 9, message: "they differ".into() };
    frame(Kind::Ready, 0, MOST, &compact::encode(&no).unwrap());
    for (row, result) in [(MORE, &result[..]), (MOST, b"")] {
        frame(Kind::Schema, flags::THEIRS, row, &said(1, old.prints.result, result));
        frame(Kind::Schema, flags::THEIRS, row, &said(2, old.prints.error, b""));
        frame(Kind::Ready, flags::THEIRS, row, b"");
    }
    let mut call = |id: u32, row: u16| out.frame(Header::new(Kind::Call, 0, row, id), &[b"\0\0\0\0arguments"]);
    call(13, MORE);
    call(14, MOST);
}

/// All kinds of frames as a peer sends them, after its preface.
pub(super) fn conversation() -> Vec<u8> {
    let mut out = OutBuf::default();
    let mut caller = Outbound::<()>::new(&PeerLimits::BEFORE_HELLO);
    let row = caller.bind(older()).unwrap();
    let options = options().encode();
    let start = |row, options| Start { row, deadline: Some(50), options, body: Body::Copy(b"arguments"), streams: Streams::default() };
    let ids: Vec<_> = (0..4).map(|i| caller.start(0, start(row + (i % 2) * 2, &options), Some(())).unwrap()).collect();
    caller.start_oneway(start(row + 1, &[])).unwrap();
    caller.cancel(ids[3], &mut Vec::new());
    caller.take(&mut out);
    caller.cancel(ids[0], &mut Vec::new());
    caller.queue(Header::new(Kind::Ping, 0, 0, 9), &[]);
    let mut bytes = Session::<()>::opening(&Hello::new([7; 16], 1, &limits()));
    bytes.extend_from_slice(out.contiguous().unwrap());
    let mut out = OutBuf::default();
    caller.take(&mut out);
    let verdict = |row, code, message: &str| Verdict { row, code, message: message.into() };
    let verdicts = vec![verdict(2, 9, "they differ"), verdict(MORE, 0, ""), verdict(MOST, 0, "")];
    out.frame(Header::new(Kind::Bound, 0, 1, 1), &[&compact::encode(&verdicts).unwrap()]);
    let mut reply = |id: u32, status: u16, body: &[u8]| {
        let start = begin_reply(out.small(), id, status);
        out.small().extend_from_slice(body);
        end_reply(out.small(), start);
    };
    reply(0, status::OK, b"result");
    reply(1, status::APP_ERROR, b"error");
    reply(2, status::FAILURE, &failure());
    differences(&mut out);
    flows(&mut out);
    out.frame(Header::new(Kind::Pong, 0, 0, 9), &[]);
    out.frame(Header::new(Kind::GoAway, 0, 0, 0), &[&5u64.to_le_bytes(), &[14], b"leaving"]);
    bytes.extend_from_slice(out.contiguous().unwrap());
    bytes
}

/// What flows beside the calls of both sides: the peer's from 8 on, ours below.
fn flows(out: &mut OutBuf) {
    use flags::{MORE, ONEWAY, RESULTS, STREAM};
    let failure = Failure::from_error(&RpcError::new(Code::Cancelled, "no more")).encode();
    let credit = |bytes: u64, items: u64| [bytes.to_le_bytes(), items.to_le_bytes()].concat();
    let mut frame = |kind, bits, aux, id, payload: &[u8]| out.frame(Header::new(kind, bits, aux, id), &[payload]);
    frame(Kind::Call, MORE, 0, 8, b"\0\0\0\0argu");
    frame(Kind::Data, MORE, 0, 8, b"men");
    frame(Kind::Data, 0, 0, 8, b"ts");
    frame(Kind::Call, ONEWAY | MORE, 1, 9, b"\0\0\0\0argu");
    frame(Kind::Data, 0, 0, 9, b"ments");
    frame(Kind::Call, MORE, 0, 10, b"\0\0\0\0argu");
    frame(Kind::Cancel, 0, 0, 10, b"");
    frame(Kind::Call, STREAM, CHAT, 11, b"\0\0\0\0arguments");
    frame(Kind::Data, 0, 0, 11, b"item");
    frame(Kind::Data, MORE, 0, 11, b"an");
    frame(Kind::Data, 0, 0, 11, b"other");
    frame(Kind::Credit, RESULTS, 1, 11, &credit(1 << 20, 100));
    frame(Kind::End, 0, status::OK, 11, b"");
    frame(Kind::Call, STREAM, CHAT, 12, b"\0\0\0\0arguments");
    frame(Kind::Reset, RESULTS, 1, 12, &failure);
    frame(Kind::Reset, 0, 0, 12, &failure);
    frame(Kind::Reply, MORE, status::OK, 3, b"res");
    frame(Kind::Data, RESULTS | MORE, 0, 3, b"ul");
    frame(Kind::Data, RESULTS, 0, 3, b"t");
    frame(Kind::Credit, 0, 0, 0, &credit(2 << 20, 0));
    frame(Kind::Reply, STREAM, status::OK, 4, b"");
    frame(Kind::Data, RESULTS, 0, 4, b"item");
    frame(Kind::Credit, 0, 1, 4, &credit(1 << 20, 100));
    frame(Kind::End, RESULTS, status::APP_ERROR, 4, b"error");
    frame(Kind::Reply, STREAM, status::OK, 5, b"");
    frame(Kind::Reset, 0, 1, 5, &failure);
    frame(Kind::Data, RESULTS | MORE, 0, 5, b"it");
    frame(Kind::Reset, RESULTS, 0, 5, &failure);
}
