//! A peer that sends anything: mutants and truncations of a recorded conversation. Nothing may
//! panic, nothing may be kept or answered out of proportion.

mod support;

use std::sync::OnceLock;

use bytes::{Bytes, BytesMut};
use farcall_core::{Code, Detail, Limits, Metadata, RpcError, Trace};
use farcall_wire::{
    Body, CallKey, CallOptions, Failure, Header, Hello, Inbound, KeyMoment, Kind, OutBuf, Outbound, PREFACE_LEN, Preface, Session, Start,
    Verdict, begin_reply, control, end_reply, get_frame, read_room, status,
};
use support::{One, Rng, seeds, service};

const LIMITS: usize = 64 << 10;

fn limits() -> Limits {
    Limits { body: LIMITS, metadata: 8 << 10, in_flight: 16, ..Limits::default() }
}

fn echo() -> &'static One {
    static ECHO: OnceLock<One> = OnceLock::new();
    ECHO.get_or_init(|| One(service("Echo", &[("echo", false), ("note", true), ("odd", false)])))
}

/// All kinds of frames as a peer sends them, after its preface.
fn transcript() -> Vec<u8> {
    let mut out = OutBuf::default();
    let mut caller = Outbound::<()>::new();
    let row = caller.bind(1, &echo().0).unwrap();
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
    caller.cancel(ids[3]);
    caller.take(&mut out);
    caller.cancel(ids[0]);
    caller.queue(Header::new(Kind::Ping, 0, 0, 9), &[]);
    let mut bytes = Session::<()>::opening(&Hello::new([7; 16], 1, &limits()));
    bytes.extend_from_slice(out.contiguous().unwrap());
    let mut out = OutBuf::default();
    caller.take(&mut out);
    let verdicts = vec![Verdict { row: 2, code: 9, message: "they differ".into() }];
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
    out.frame(Header::new(Kind::Pong, 0, 0, 9), &[]);
    out.frame(Header::new(Kind::GoAway, 0, 0, 0), &[&5u64.to_le_bytes(), &[14], b"leaving"]);
    bytes.extend_from_slice(out.contiguous().unwrap());
    bytes
}

/// A side that made four calls and is fed `bytes`. What it had to set aside is checked.
fn feed(bytes: &[u8]) -> Result<usize, String> {
    let catalogue = echo();
    let mut outbound = Outbound::<u32>::new();
    let row = outbound.bind(1, &catalogue.0).unwrap();
    let start = || Start { row, deadline: Some(10), options: &[], body: Body::Copy(b"x"), streams: Streams::default() };
    let ids: Vec<_> = (0..4).map(|i| outbound.start(0, start(), Some(i)).unwrap()).collect();
    let mut requests = OutBuf::default();
    outbound.take(&mut requests);
    outbound.flushed(1, 0);
    let mut inbound = Inbound::new(limits());
    let mut out = OutBuf::default();
    let frames = feed_frames(bytes, catalogue, &mut outbound, &mut inbound, &mut out);
    if let Err(why) = &frames {
        assert!(why.len() < 2000, "a violation of {} bytes", why.len());
        control::hang_up(inbound.accepted(), &farcall_wire::Violation(why.clone()), &mut out);
    }
    // Each frame is answered with a reply, and each row of a binding with a verdict.
    assert!(out.len() <= 16_000 + bytes.len() * 100, "{} bytes in answer to {}", out.len(), bytes.len());
    // Whatever was said: the deadline and then the end of the link end every call.
    outbound.expire(20, &mut Vec::new());
    outbound.lose(RpcError::new(Code::Unavailable, "lost"), &mut Vec::new());
    for id in ids {
        assert!(outbound.poll(id, |_| {}).is_some());
        outbound.cancel(id);
    }
    assert_eq!(outbound.in_flight(), 0);
    frames
}

fn feed_frames(
    bytes: &[u8],
    catalogue: &One,
    outbound: &mut Outbound<u32>,
    inbound: &mut Inbound,
    out: &mut OutBuf,
) -> Result<usize, String> {
    let text = |v: farcall_wire::Violation| v.0;
    match Preface::parse(bytes) {
        Preface::Farcall(1) => {}
        other => return Err(format!("{other:?}")),
    }
    let mut buf = BytesMut::from(&bytes[PREFACE_LEN..]);
    let (mut frames, mut parked) = (0, Vec::new());
    while let Some(frame) = get_frame(&mut buf, LIMITS * 2).map_err(text)? {
        frames += 1;
        if frames == 1 {
            let hello = control::expect_hello(frame).map_err(|e| e.message().to_owned())?;
            assert!(hello.software.len() <= 3 * 128);
            outbound.established(hello.limits, "peer".into());
            continue;
        }
        match frame.header.kind {
            Kind::Call => {
                if let Some(request) = inbound.on_call(frame, 0, out).map_err(text)? {
                    assert!(request.body.len() <= LIMITS);
                    if !request.oneway {
                        inbound.park(request.id, parked.len());
                        parked.push(request.id);
                    }
                }
            }
            Kind::Void => inbound.on_void(),
            Kind::Bind => inbound.on_bind(&frame, catalogue, out).map_err(text)?,
            Kind::Bound => outbound.on_bound(frame.header.id, frame.header.aux, &frame.payload).map_err(text)?,
            Kind::Reply => drop(outbound.on_reply(frame.header, frame.payload).map_err(text)?),
            Kind::Cancel => {
                if let Some(token) = inbound.on_cancel(frame.header.id) {
                    inbound.finished(parked[token], false);
                }
            }
            Kind::Ping => control::pong(&frame, out),
            Kind::Pong => {}
            Kind::GoAway => {
                let go_away = control::on_go_away(&frame.payload).map_err(text)?;
                outbound.go_away(go_away, &mut Vec::new());
            }
            other => return Err(control::not_built(other).0),
        }
        assert!(inbound.running() <= 16);
    }
    assert!(read_room(&buf, LIMITS * 2) <= LIMITS * 2 + 12);
    Ok(frames)
}

#[test]
fn the_transcript_itself_is_understood() {
    assert_eq!(feed(&transcript()), Ok(15));
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
    assert_eq!(most, 14);
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
            3 => frames[at][4 + rng.below(8)] = rng.next() as u8,
            4 => {
                let byte = 12 + rng.below(frames[at].len() - 12 + 1);
                frames[at].insert(byte, rng.next() as u8);
            }
            5 if frames[at].len() > 12 => {
                let byte = 12 + rng.below(frames[at].len() - 12);
                frames[at].remove(byte);
            }
            6 if frames[at].len() > 12 => {
                let byte = 12 + rng.below(frames[at].len() - 12);
                frames[at][byte] = [0, 1, 0x7f, 0x80, 0xff, rng.next() as u8][rng.below(6)];
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
        bytes.extend((0..len).map(|_| rng.next() as u8));
        let _ = feed(&bytes);
        let payload: Vec<u8> = (0..rng.below(80)).map(|_| rng.next() as u8 >> rng.below(8)).collect();
        let _ = Hello::decode(&payload);
        let _ = CallOptions::take(&mut Bytes::from(payload.clone()), 100);
        let _ = Failure::decode(&payload).map(Failure::into_error);
        let _ = control::on_go_away(&Bytes::from(payload));
    }
}
