//! A peer that sends anything: mutants and truncations of a recorded conversation. Nothing may
//! panic, nothing may be kept or answered out of proportion.

mod support;

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use farcall_core::schema::Fingerprint;
use farcall_core::{Code, Detail, Limits, Metadata, MethodDescriptor, MethodTraits, Never, RpcError, ServiceDescriptor, Trace};
use farcall_wire::{
    Answer, Body, CallId, CallKey, CallOptions, Delivered, Differences, Failure, Frame, Header, Hello, Inbound, Item, KeyMoment, Kind,
    Load, OutBuf, Outbound, PREFACE_LEN, PeerLimits, Preface, Readings, Receiver, Request, Session, Settled, Start, Streams, Verdict,
    begin_reply, control, end_reply, flags, get_frame, read_room, status,
};
use support::{One, Rng, seeds, service};

const LIMITS: usize = 64 << 10;

/// As the sessions of one server share it.
static READINGS: OnceLock<Arc<Readings>> = OnceLock::new();

fn limits() -> Limits {
    Limits { body: LIMITS, metadata: 8 << 10, in_flight: 16, ..Limits::default() }
}

/// The row with a stream each way.
const CHAT: u16 = 3;

fn echo() -> &'static One {
    static ECHO: OnceLock<One> = OnceLock::new();
    ECHO.get_or_init(|| {
        let mut echo = service("Echo", &[("echo", false), ("note", true), ("odd", false), ("chat", false)]);
        let chat = &mut echo.methods[CHAT as usize].traits;
        (chat.args_stream, chat.result_stream) = (true, true);
        let grown = |name: &str| MethodDescriptor::build::<(u64, Wide), Wide, Never>(name, None, "", &[], "", MethodTraits::default());
        echo.methods.extend(["more", "most"].map(grown));
        One(echo)
    })
}

/// The rows on which both sides differ. They are to be the last.
const MORE: u16 = 4;
const MOST: u16 = 5;

#[farcall_core::data(crate = farcall_core)]
#[allow(dead_code)]
struct Narrow {
    n: u8,
    list: Vec<(u16, String)>,
    next: Option<Box<Narrow>>,
}

#[farcall_core::data(crate = farcall_core)]
#[allow(dead_code)]
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
        let old = |name: &str| MethodDescriptor::build::<(u32, Narrow), Narrow, Never>(name, None, "", &[], "", MethodTraits::default());
        older.methods.truncate(MORE as usize);
        older.methods.extend(["more", "most"].map(old));
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
    frame(Kind::Ready, 0, MOST, &farcall_core::compact::encode(&no).unwrap());
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
fn transcript() -> Vec<u8> {
    let mut out = OutBuf::default();
    let mut caller = Outbound::<()>::new(&PeerLimits::BEFORE_HELLO);
    let row = caller.bind(older()).unwrap();
    let mut metadata = Metadata::default();
    metadata.set("tenant", "blue").unwrap();
    let key = CallKey { bytes: b"key"[..].into(), attempted: Some(KeyMoment { record: 1, ms: 2 }) };
    let options = CallOptions {
        metadata: Some(metadata),
        trace: Some(Trace { trace_id: [1; 16], span_id: [2; 8], flags: 1 }),
        key: Some(Box::new(key)),
        ..Default::default()
    };
    let options = options.encode();
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
    out.frame(Header::new(Kind::Bound, 0, 1, 1), &[&farcall_core::compact::encode(&verdicts).unwrap()]);
    let mut reply = |id: u32, status: u16, body: &[u8]| {
        let start = begin_reply(out.small(), id, status);
        out.small().extend_from_slice(body);
        end_reply(out.small(), start);
    };
    reply(0, status::OK, b"result");
    reply(1, status::APP_ERROR, b"error");
    let failure = RpcError::new(Code::Internal, "it broke").with_detail(Detail { type_name: "t".into(), value: vec![1, 2] });
    reply(2, status::FAILURE, &Failure::from_error(&failure).encode());
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

/// A side that made six calls, two of them with streams, and is fed `bytes`. What it had to set aside is checked.
fn feed(bytes: &[u8]) -> Result<usize, String> {
    let ours = PeerLimits { streams: 8, ..PeerLimits::BEFORE_HELLO };
    let mut side = Side {
        outbound: Outbound::new(&ours),
        inbound: Inbound::new(limits()),
        differences: Differences::new(&limits()),
        out: OutBuf::default(),
        parked: Vec::new(),
        readers: Vec::new(),
    };
    side.outbound.established(ours, "peer".into());
    side.inbound.hold_differing();
    side.differences.begin();
    side.differences.share(Arc::clone(READINGS.get_or_init(Arc::default)));
    let row = side.outbound.bind(&echo().0).unwrap();
    let both = Streams { args: true, results: true };
    let start = |row, streams| Start { row, deadline: Some(10), options: &[], body: Body::Copy(b"x"), streams };
    let mut ids: Vec<_> = (0..4).map(|i| side.outbound.start(0, start(row, Streams::default()), Some(i)).unwrap()).collect();
    for i in 4..6 {
        let id = side.outbound.start(0, start(row + CHAT, both), Some(i)).unwrap();
        let to = side.outbound.open_args(id);
        side.outbound.send_item(to, b"item", &mut Bytes::new()).unwrap();
        ids.push(id);
    }
    side.outbound.take(&mut OutBuf::default());
    side.outbound.flushed(1, 0);
    let frames = side.feed_frames(bytes);
    if let Err(why) = &frames {
        assert!(why.len() < 2000, "a violation of {} bytes", why.len());
        control::hang_up(side.inbound.accepted(), &farcall_wire::Violation(why.clone()), &mut side.out);
    }
    // Each frame is answered with a reply, and each row of a binding with a verdict.
    let answered = side.out.len() + side.outbound.queued();
    assert!(answered <= 16_000 + bytes.len() * 100, "{answered} bytes in answer to {}", bytes.len());
    side.end(ids);
    frames
}

/// A side of a session, its driver as small as can be.
struct Side {
    outbound: Outbound<u32>,
    inbound: Inbound,
    differences: Differences,
    out: OutBuf,
    parked: Vec<u32>,
    readers: Vec<Receiver>,
}

impl Side {
    fn feed_frames(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let text = |v: farcall_wire::Violation| v.0;
        match Preface::parse(bytes) {
            Preface::Farcall(1) => {}
            other => return Err(format!("{other:?}")),
        }
        let mut buf = BytesMut::from(&bytes[PREFACE_LEN..]);
        let mut frames = 0;
        while let Some(frame) = get_frame(&mut buf, LIMITS * 2).map_err(text)? {
            frames += 1;
            if frames == 1 {
                let hello = control::expect_hello(frame).map_err(|e| e.message().to_owned())?;
                assert!(hello.software.len() <= 3 * 128);
                self.outbound.established(hello.limits, "peer".into());
                continue;
            }
            self.feed_frame(frame)?;
            let load = self.outbound.load();
            assert!(load.held + load.unread <= bytes.len(), "{load:?} kept of {} bytes", bytes.len());
            assert!(self.inbound.running() <= 16);
        }
        assert!(read_room(&buf, LIMITS * 2) <= LIMITS * 2 + 12);
        Ok(frames)
    }

    fn feed_frame(&mut self, frame: Frame) -> Result<(), String> {
        let text = |v: farcall_wire::Violation| v.0;
        let Side { outbound, inbound, out, differences, .. } = self;
        let (id, mut wake, mut settled) = (frame.header.id, Vec::new(), Vec::new());
        match frame.header.kind {
            Kind::Call => {
                if let Some(request) = inbound.on_call(frame, 0, out).map_err(text)? {
                    self.called(request)?;
                }
            }
            Kind::Void => inbound.on_void(),
            Kind::Bind => differences.offer(inbound.on_bind(&frame, echo(), out).map_err(text)?, echo(), out, &mut settled),
            Kind::Bound => {
                let held = outbound.on_bound(id, frame.header.aux, &frame.payload, differences.in_use()).map_err(text)?;
                held.into_iter().for_each(|held| differences.answer(held, out, &mut settled));
            }
            Kind::Schema => differences.on_schema(&frame, echo(), out, &mut settled).map_err(text)?,
            Kind::Ready => differences.on_ready(&frame, &mut settled).map_err(text)?,
            Kind::Reply => outbound.on_reply(frame.header, frame.payload, &mut wake).map_err(text)?,
            Kind::Data => match outbound.on_data(frame, &limits(), &mut wake).map_err(text)? {
                Delivered::Nothing => {}
                Delivered::Arguments(id, body) => {
                    let request = inbound.held(id).expect("the arguments of a call");
                    self.called(Request { body, more: false, ..request })?;
                }
                Delivered::TooMuch(id) => {
                    assert!(inbound.refuse_held(id, &RpcError::new(Code::ResourceExhausted, "held"), out));
                }
            },
            Kind::Credit => drop(outbound.on_credit(&frame, &mut wake).map_err(text)?),
            Kind::End => outbound.on_end(frame, &mut wake).map_err(text)?,
            Kind::Reset => outbound.on_reset(&frame, &mut wake).map_err(text)?,
            Kind::Cancel => {
                if let Some(token) = inbound.on_cancel(id) {
                    inbound.finished(self.parked[token], false);
                } else if inbound.refuse_held(id, &RpcError::new(Code::Cancelled, "gone"), out) {
                    outbound.forget_args(id);
                }
                outbound.caller_gone(id, &mut wake);
            }
            Kind::Ping => control::pong(&frame, out),
            Kind::Pong => {}
            Kind::GoAway => outbound.go_away(control::on_go_away(&frame.payload).map_err(text)?, &mut wake),
            other => return Err(control::not_built(other).0),
        }
        for settled in settled {
            match settled {
                Settled::Ours(row, replies) => self.outbound.settle(row, replies),
                Settled::Theirs(row, reading) => self.inbound.settle(row, reading),
            }
        }
        let mut over = Vec::new();
        self.outbound.take_over(&mut over);
        over.into_iter().for_each(|id| self.inbound.finished(id, false));
        Ok(())
    }

    fn called(&mut self, mut request: Request) -> Result<(), String> {
        assert!(request.body.len() <= LIMITS);
        if request.more {
            if request.streams.args {
                return Err("fragments beside a stream".into());
            }
            let first = std::mem::take(&mut request.body);
            self.outbound.assemble_args(request.id, &first);
            self.inbound.hold(request);
        } else if request.streams != Streams::default() {
            self.readers.extend(self.outbound.serve(request.id, request.streams.args));
            self.inbound.occupy(request.id);
            self.outbound.open_results(request.id);
        } else if !request.oneway {
            self.inbound.park(request.id, self.parked.len());
            self.parked.push(request.id);
        }
        Ok(())
    }

    /// Whatever was said: the deadline and then the end of the link end every call and every stream.
    fn end(mut self, ids: Vec<CallId>) {
        let mut wake = Vec::new();
        self.outbound.expire(20, &mut wake);
        self.outbound.lose(RpcError::new(Code::Unavailable, "lost"), &mut wake);
        for id in ids {
            if let Answer::Stream(at) = self.outbound.poll(id, |_| {}).expect("an answer") {
                self.readers.push(at);
            }
            self.outbound.cancel(id, &mut wake);
        }
        for at in self.readers {
            let mut items = std::iter::from_fn(|| self.outbound.poll_item(at, |_| {}));
            assert!(items.any(|item| !matches!(item, Item::Item(_))), "a stream without an end");
        }
        assert_eq!((self.outbound.in_flight(), self.outbound.load()), (0, Load::default()));
    }
}

#[test]
fn the_transcript_itself_is_understood() {
    assert_eq!(feed(&transcript()), Ok(55));
}

#[test]
fn every_truncation_is_understood_so_far() {
    let whole = transcript();
    let mut most = 0;
    for cut in 0..whole.len() {
        match feed(&whole[..cut]) {
            Ok(frames) => {
                assert!(frames >= most, "fewer frames in more bytes");
                most = frames;
            }
            Err(why) => assert!(cut < PREFACE_LEN, "{why} at {cut}"),
        }
    }
    assert_eq!(most, 54);
}

#[test]
fn mutants_are_refused_or_understood() {
    let whole = transcript();
    let starts = frame_starts(&whole);
    let (mut understood, mut refused) = (0, 0);
    for seed in seeds(0, 120_000) {
        let bytes = mutant(&mut Rng(seed), &whole, &starts);
        let fed = std::panic::catch_unwind(|| feed(&bytes));
        match fed {
            Ok(Ok(_)) => understood += 1,
            Ok(Err(_)) => refused += 1,
            Err(panic) => {
                eprintln!("seed {seed}: replay with FARCALL_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    if std::env::var_os("FARCALL_SEED").is_none() {
        assert!(understood > 10_000 && refused > 10_000, "{understood} understood, {refused} refused");
    }
}

/// Where the frames begin.
fn frame_starts(bytes: &[u8]) -> Vec<usize> {
    let mut buf = BytesMut::from(&bytes[PREFACE_LEN..]);
    let mut starts = Vec::new();
    while !buf.is_empty() {
        starts.push(bytes.len() - buf.len());
        get_frame(&mut buf, 1 << 20).unwrap().unwrap();
    }
    starts
}

/// A few bytes changed, put in or left out, or a frame repeated, dropped, moved; lengths kept right
/// in most, so that mutants get past the framing.
fn mutant(rng: &mut Rng, whole: &[u8], starts: &[usize]) -> Vec<u8> {
    let frames: Vec<&[u8]> = starts.iter().zip(starts[1..].iter().chain([&whole.len()])).map(|(&a, &b)| &whole[a..b]).collect();
    let mut frames: Vec<Vec<u8>> = frames.into_iter().map(<[u8]>::to_vec).collect();
    for _ in 0..1 + rng.below(3) {
        let at = rng.below(frames.len());
        match rng.below(8) {
            0 => frames.insert(at, frames[rng.below(frames.len())].clone()),
            1 if frames.len() > 1 => drop(frames.remove(at)),
            2 => {
                let other = rng.below(frames.len());
                frames.swap(at, other);
            }
            // The header: kind, flags, aux, id.
            3 => frames[at][4 + rng.below(8)] = rng.any() as u8,
            4 => {
                let byte = 12 + rng.below(frames[at].len() - 12 + 1);
                frames[at].insert(byte, rng.any() as u8);
            }
            5 if frames[at].len() > 12 => {
                let byte = 12 + rng.below(frames[at].len() - 12);
                frames[at].remove(byte);
            }
            6 if frames[at].len() > 12 => {
                let byte = 12 + rng.below(frames[at].len() - 12);
                frames[at][byte] = [0, 1, 0x7f, 0x80, 0xff, rng.any() as u8][rng.below(6)];
            }
            _ => {
                let byte = rng.below(frames[at].len());
                frames[at][byte] ^= 1 << rng.below(8);
                continue;
            }
        }
        for frame in &mut frames {
            let len = frame.len() as u32 - 12;
            frame[..4].copy_from_slice(&len.to_le_bytes());
        }
    }
    [&whole[..PREFACE_LEN], &frames.concat()].concat()
}

#[test]
fn noise_is_refused() {
    for seed in seeds(0, 20_000) {
        let mut rng = Rng(seed);
        let mut bytes = Session::<()>::opening(&Hello::new([7; 16], 1, &limits()));
        let len = rng.below(200);
        bytes.extend((0..len).map(|_| rng.any() as u8));
        let _ = feed(&bytes);
        let payload: Vec<u8> = (0..rng.below(80)).map(|_| rng.any() as u8 >> rng.below(8)).collect();
        let _ = Hello::decode(&payload);
        let _ = CallOptions::take(&mut Bytes::from(payload.clone()), 100);
        let _ = Failure::decode(&payload).map(Failure::into_error);
        let _ = control::on_go_away(&Bytes::from(payload));
    }
}
