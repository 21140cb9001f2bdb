//! The bytes of protocol version 1. Whoever changes one of these lines changes the protocol, and
//! `docs/protocol.md`, which shows each of them.

use bytes::{Bytes, BytesMut};
use farcall_core::schema::{Fingerprint, TypeSchema};
use farcall_core::{Code, CodecId, Detail, Limits, Metadata, RpcError, ServiceDescriptor, Stage, Trace, compact};
use farcall_wire::{
    Answer, Bind, BindRow, Body, CallId, CallKey, CallOptions, Catalogue, Failure, Frame, Hello, Inbound, Item, KeyMoment, Kind, OutBuf,
    Outbound, PREFACE_LEN, PeerLimits, Preface, Receiver, Sendable, Sender, Session, Start, Streams, Verdict, begin_reply, control,
    end_reply, features, flags, get_frame, reply_failure, status,
};

/// Hex text to bytes. `#` begins a comment.
fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.lines().flat_map(|l| l.split('#').next().unwrap_or("").bytes()).filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// The same lines, comments included, stand in the specification.
#[track_caller]
fn in_the_specification(golden: &str) {
    let lines = |text: &'static str| text.lines().map(str::trim).collect::<Vec<_>>();
    let spec = lines(include_str!("../../../docs/protocol.md"));
    let wanted: Vec<&str> = golden.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    assert!(spec.windows(wanted.len()).any(|w| w == wanted), "docs/protocol.md does not show\n{}", wanted.join("\n"));
}

/// `made` is what we write for it; the frame read back is returned for the other direction.
#[track_caller]
fn check(golden: &str, made: &[u8]) -> Frame {
    let bytes = unhex(golden);
    let shown = |b: &[u8]| b.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
    assert_eq!(shown(made), shown(&bytes));
    in_the_specification(golden);
    let mut buf = BytesMut::from(&bytes[..]);
    let frame = get_frame(&mut buf, 1 << 20).unwrap().expect("a whole frame");
    assert!(buf.is_empty(), "one frame only");
    frame
}

fn bytes_of(out: &OutBuf) -> &[u8] {
    out.contiguous().expect("no segments")
}

const HELLO: &str = "
    66 61 72 63 61 6c 6c 01                          # preface: \"farcall\", version 1
    53 00 00 00 01 00 00 00 00 00 00 00              # 83 bytes, Hello
    02 10 53 53 53 53 53 53 53 53 53 53 53 53 53 53 53 53   # 2 session
    04 08 07 00 00 00 00 00 00 00                    # 4 incarnation 7
    06 1c                                            # 6 limits, 28 bytes
    80 88 0c 80 80 80 08 80 80 04 80 80 04 80 20     # frame 197632, body 16777216, in_flight 65536, metadata 65536, bound_methods 4096
    80 08 00 00                                      # streams 1024, exports 0, pipelined 0
    80 80 80 08 80 80 10 80 08                       # credit 16777216, stream_bytes 262144, stream_items 1024
    09 08 02 00 00 00 00 00 00 00                    # 9 features: schemas
    0d 0d 66 61 72 63 61 6c 6c 2f 30 2e 31 2e 30     # 13 software \"farcall/0.1.0\"
";

#[test]
fn preface_and_hello() {
    let hello = Hello { software: "farcall/0.1.0".into(), ..Hello::new([0x53; 16], 7, &Limits::default()) };
    let opening = Session::<()>::opening(&hello);
    assert_eq!(opening[..PREFACE_LEN], Preface::ours());
    assert_eq!(Preface::parse(&unhex(HELLO)), Preface::Farcall(1));
    let (preface, rest) = HELLO.trim_start_matches('\n').split_once('\n').unwrap();
    in_the_specification(preface);
    let frame = check(rest, &opening[PREFACE_LEN..]);
    assert_eq!(control::expect_hello(frame).unwrap(), hello);
}

const FINGERPRINT: &str = "
    01 16 01 00 00 00 04                             # version 1, tuple of 1: u32
    1e e3 16 a9 8d 48 70 5d 4a 85 b2 5c 60 8f fe 8f  # its fingerprint
";

#[test]
fn a_canonical_layout_and_its_fingerprint() {
    let schema = TypeSchema::of::<(u32,)>();
    let made = [&schema.canonical()[..], &schema.fingerprint().0].concat();
    assert_eq!(made, unhex(FINGERPRINT), "{made:02x?}");
    in_the_specification(FINGERPRINT);
}

const BIND: &str = "
    76 00 00 00 02 00 00 00 01 00 00 00              # 118 bytes, Bind, first row 0, binding 1
    05 63 6c 6f 63 6b 00 02 76 32                    # service \"clock\", group \"\", version \"v2\"
    02                                               # 2 rows
    03 67 65 74                                      # \"get\"
    a1 a1 a1 a1 a1 a1 a1 a1 a1 a1 a1 a1 a1 a1 a1 a1  # arguments
    a2 a2 a2 a2 a2 a2 a2 a2 a2 a2 a2 a2 a2 a2 a2 a2  # result
    a3 a3 a3 a3 a3 a3 a3 a3 a3 a3 a3 a3 a3 a3 a3 a3  # error
    00                                               # two-way
    03 73 65 74                                      # \"set\"
    b1 b1 b1 b1 b1 b1 b1 b1 b1 b1 b1 b1 b1 b1 b1 b1  # arguments
    b2 b2 b2 b2 b2 b2 b2 b2 b2 b2 b2 b2 b2 b2 b2 b2  # result
    b3 b3 b3 b3 b3 b3 b3 b3 b3 b3 b3 b3 b3 b3 b3 b3  # error
    01                                               # one-way
    00                                               # no options
";

/// The service of [`BIND`].
fn clock() -> ServiceDescriptor {
    use farcall_core::{MethodDescriptor, MethodTraits, Never, Prints};
    let method = |name: &str, oneway: bool, n: u8| {
        let traits = MethodTraits { oneway, ..MethodTraits::default() };
        let built = MethodDescriptor::build::<(), (), Never>(name, None, "", &[], &format!("fn {name}()"), traits);
        let print = |i: u8| Fingerprint([n + i; 16]);
        MethodDescriptor { prints: Prints { args: print(1), result: print(2), error: print(3) }, ..built }
    };
    ServiceDescriptor {
        name: "clock".into(),
        foreign_name: None,
        docs: String::new(),
        version: "v2".into(),
        group: String::new(),
        methods: vec![method("get", false, 0xa0), method("set", true, 0xb0)],
    }
}

/// [`clock`] as a stub has it.
fn kept_clock() -> &'static ServiceDescriptor {
    static CLOCK: std::sync::OnceLock<ServiceDescriptor> = std::sync::OnceLock::new();
    CLOCK.get_or_init(clock)
}

struct Only(ServiceDescriptor);

impl Catalogue for Only {
    fn get(&self, place: usize) -> Option<&ServiceDescriptor> {
        (place == 0).then_some(&self.0)
    }

    fn find(&self, name: &str, group: &str, version: &str) -> Result<(usize, &ServiceDescriptor), RpcError> {
        assert_eq!((name, group, version), ("clock", "", "v2"));
        Ok((0, &self.0))
    }
}

/// A caller that has bound [`clock`], its buffer empty.
fn caller() -> (Outbound<()>, OutBuf) {
    let mut outbound = Outbound::new(&PeerLimits::BEFORE_HELLO);
    outbound.established(PeerLimits::BEFORE_HELLO, "peer".into());
    assert_eq!(outbound.bind(kept_clock()).unwrap(), 0);
    let mut out = OutBuf::default();
    outbound.take(&mut out);
    (outbound, out)
}

#[test]
fn bind() {
    let (_, out) = caller();
    let frame = check(BIND, bytes_of(&out));
    assert_eq!((frame.header.kind, frame.header.aux, frame.header.id), (Kind::Bind, 0, 1));
    let row = |name: &str, n: u8, bits: u8| {
        let print = |i: u8| Fingerprint([n + i; 16]);
        BindRow { name: name.into(), args: print(1), result: print(2), error: print(3), bits }
    };
    let rows = vec![row("get", 0xa0, 0), row("set", 0xb0, 1)];
    let bind = Bind { service: "clock".into(), group: String::new(), version: "v2".into(), rows, extra: Vec::new() };
    assert_eq!(Bind::decode(&frame.payload).unwrap(), bind);
    assert_eq!(bind.encode(), frame.payload);
}

const BOUND: &str = "
    00 00 00 00 03 00 00 00 01 00 00 00              # Bound, all rows agree, binding 1
";
const BOUND_REFUSED: &str = "
    7a 00 00 00 03 00 01 00 01 00 00 00              # 122 bytes, Bound, some rows are refused, binding 1
    01                                               # 1 verdict
    00 09 76                                         # row 0, FailedPrecondition, 118 bytes of text
    63 6c 6f 63 6b 2e 67 65 74 3a 20 74 68 65 20 72 65 73 75 6c 74 20 64 69 66 66 65 72 73 20 62 65
    74 77 65 65 6e 20 63 61 6c 6c 65 72 20 61 6e 64 20 70 72 6f 76 69 64 65 72 3b 20 74 68 65 20 70
    72 6f 76 69 64 65 72 20 68 61 73 20 60 66 6e 20 67 65 74 28 29 60 3b 20 62 75 69 6c 64 20 62 6f
    74 68 20 66 72 6f 6d 20 74 68 65 20 73 61 6d 65 20 74 79 70 65 73 # \"clock.get: the result differs between caller and provider; the provider has `fn get()`; build both from the same types\"
";

#[test]
fn bound() {
    let ask = |served: ServiceDescriptor| {
        let (_, asked) = caller();
        let frame = get_frame(&mut BytesMut::from(bytes_of(&asked)), 1 << 20).unwrap().unwrap();
        let mut out = OutBuf::default();
        Inbound::new(Limits::default()).on_bind(&frame, &Only(served), &mut out).unwrap();
        bytes_of(&out).to_vec()
    };
    let told = |frame: &Frame| {
        let (mut outbound, _) = caller();
        outbound.on_bound(frame.header.id, frame.header.aux, &frame.payload, false).unwrap();
        outbound.start(0, Start { row: 0, deadline: None, options: &[], body: Body::Copy(b""), streams: Streams::default() }, None)
    };
    let frame = check(BOUND, &ask(clock()));
    assert!(told(&frame).is_ok());

    let mut other = clock();
    other.methods[0].prints.result.0[0] ^= 1;
    let frame = check(BOUND_REFUSED, &ask(other));
    let verdicts: Vec<Verdict> = compact::decode(&frame.payload).unwrap();
    assert_eq!((verdicts.len(), verdicts[0].row, verdicts[0].code), (1, 0, Code::FailedPrecondition as u8));
    assert_eq!(told(&frame).unwrap_err().message(), verdicts[0].message);
}

const CALL: &str = "
    07 00 00 00 10 00 00 00 00 00 00 00              # 7 bytes, Call, row 0, call 0 (slot 0, generation 0)
    00 00 00 00                                      # no deadline
    01 02 03                                         # arguments
";
const CALL_DEADLINE: &str = "
    07 00 00 00 10 00 00 00 00 00 00 00              # 7 bytes, Call, row 0, call 0 (slot 0, generation 0)
    c8 00 00 00                                      # 200 ms left
    01 02 03                                         # arguments
";
const CALL_OPTIONS: &str = "
    34 00 00 00 10 01 00 00 00 00 00 00              # 52 bytes, Call with OPTIONS, row 0, call 0
    00 00 00 00                                      # no deadline
    2c                                               # 44 bytes of options
    01 0c 01 06 74 65 6e 61 6e 74 03 62 6c 75        # 1 metadata: 1 pair, \"tenant\" \"blu\"
    03 19 74 74 74 74 74 74 74 74 74 74 74 74 74 74 74 74 70 70 70 70 70 70 70 70 01   # 3 trace: id, span, flags
    04 01 01                                         # 4 codec: JSON
    5b 31 5d                                         # arguments \"[1]\"
";
const CALL_KEY: &str = "
    22 00 00 00 10 01 00 00 00 00 00 00              # 34 bytes, Call with OPTIONS, row 0, call 0
    00 00 00 00                                      # no deadline
    1c                                               # 28 bytes of options
    06 08 6f 72 64 65 72 2d 31 37                    # 6 key: \"order-17\"
    0a 10 01 02 03 04 05 06 07 08 e8 03 00 00 00 00 00 00   # 10 attempted: record 0x0807060504030201, not before its ms 1000
    09                                               # arguments
";
const CALL_ONEWAY: &str = "
    05 00 00 00 10 04 01 00 00 00 00 00              # 5 bytes, Call with ONEWAY, row 1, call 0
    00 00 00 00                                      # no deadline
    09                                               # arguments
";

/// One call as [`Outbound`] writes it, and what [`Inbound`] makes of it.
#[track_caller]
fn check_call(golden: &str, row: u16, deadline: Option<u64>, options: &CallOptions, body: &[u8]) {
    let (mut outbound, mut out) = caller();
    out = std::mem::take(&mut out);
    out.advance(out.len());
    let encoded = options.encode();
    let start = Start { row, deadline, options: &encoded, body: Body::Copy(body), streams: Streams::default() };
    match row {
        0 => drop(outbound.start(0, start, None).unwrap()),
        _ => outbound.start_oneway(start).unwrap(),
    }
    outbound.take(&mut out);
    let frame = check(golden, bytes_of(&out));

    let mut inbound = Inbound::new(Limits::default());
    let (_, bind) = caller();
    let bind = get_frame(&mut BytesMut::from(bytes_of(&bind)), 1 << 20).unwrap().unwrap();
    inbound.on_bind(&bind, &Only(clock()), &mut OutBuf::default()).unwrap();
    let request = inbound.on_call(frame, 0, &mut OutBuf::default()).unwrap().unwrap();
    assert_eq!((request.id, request.oneway, request.method, request.deadline), (0, row == 1, row, deadline.map(|ms| ms as u32)));
    assert_eq!((&request.options, &request.body[..]), (options, body));
}

#[test]
fn call() {
    check_call(CALL, 0, None, &CallOptions::default(), &[1, 2, 3]);
    check_call(CALL_DEADLINE, 0, Some(200), &CallOptions::default(), &[1, 2, 3]);
    check_call(CALL_ONEWAY, 1, None, &CallOptions::default(), &[9]);
    let mut metadata = Metadata::default();
    metadata.set("tenant", "blu").unwrap();
    let trace = Some(Trace { trace_id: [0x74; 16], span_id: [0x70; 8], flags: 1 });
    check_call(CALL_OPTIONS, 0, None, &CallOptions { metadata: Some(metadata), trace, codec: CodecId::Json, ..Default::default() }, b"[1]");
    let attempted = Some(KeyMoment { record: 0x0807_0605_0403_0201, ms: 1000 });
    let key = Some(Box::new(CallKey { bytes: b"order-17"[..].into(), attempted }));
    check_call(CALL_KEY, 0, None, &CallOptions { key, ..Default::default() }, &[9]);
}

const REPLY_OK: &str = "
    02 00 00 00 11 00 00 00 00 00 00 00              # 2 bytes, Reply, status 0, call 0
    07 08                                            # result
";
const REPLY_APP_ERROR: &str = "
    01 00 00 00 11 00 01 00 00 00 00 00              # 1 byte, Reply, status 1, call 0
    05                                               # application error
";
const REPLY_FAILURE: &str = "
    0e 00 00 00 11 00 02 00 00 00 00 00              # 14 bytes, Reply, status 2, call 0
    08 01 05                                         # ResourceExhausted, not executed, stage 5 (server queue)
    04 66 75 6c 6c                                   # \"full\"
    01 01 74 02 78 79                                # 1 detail: type \"t\", value \"xy\"
";

/// What the caller of call 0 gets for a reply.
fn answer(frame: Frame) -> Answer {
    let (mut outbound, mut out) = caller();
    let id = outbound
        .start(0, Start { row: 0, deadline: None, options: &[], body: Body::Copy(b""), streams: Streams::default() }, Some(()))
        .unwrap();
    out.advance(out.len());
    outbound.take(&mut out);
    outbound.on_reply(frame.header, frame.payload, &mut Vec::new()).unwrap();
    outbound.poll(id, |_| {}).unwrap()
}

#[test]
fn reply() {
    let made = |status: u16, body: &[u8]| {
        let mut out = Vec::new();
        let start = begin_reply(&mut out, 0, status);
        out.extend_from_slice(body);
        end_reply(&mut out, start);
        out
    };
    let got = answer(check(REPLY_OK, &made(status::OK, &[7, 8])));
    assert!(matches!(got, Answer::Ok(body) if body[..] == [7, 8]));
    let got = answer(check(REPLY_APP_ERROR, &made(status::APP_ERROR, &[5])));
    assert!(matches!(got, Answer::AppError(body) if body[..] == [5]));

    let error = RpcError::not_executed(Code::ResourceExhausted, "full")
        .with_stage(Stage::ServerQueue)
        .with_detail(Detail { type_name: "t".into(), value: b"xy".to_vec() });
    let mut out = OutBuf::default();
    reply_failure(&mut out, 0, &error);
    let frame = check(REPLY_FAILURE, bytes_of(&out));
    assert_eq!(Failure::decode(&frame.payload).unwrap(), Failure::from_error(&error));
    let Answer::Failed(e) = answer(frame) else { panic!() };
    assert_eq!((e.code(), e.certainty(), e.stage(), e.message()), (error.code(), error.certainty(), error.stage(), "full"));
    assert_eq!(e.details(), error.details());
}

const CALL_MORE: &str = "
    04 00 01 00 10 02 00 00 00 00 00 00              # 65540 bytes, Call with MORE, row 0, call 0
    00 00 00 00                                      # no deadline; then the first 65536 bytes of the arguments
";
const DATA_MORE: &str = "
    00 00 01 00 20 02 00 00 00 00 00 00              # 65536 bytes, Data with MORE, call 0: the next piece
";
const DATA_LAST: &str = "
    01 00 00 00 20 00 00 00 00 00 00 00              # 1 byte, Data, call 0: the last piece
    5a
";
const REPLY_MORE: &str = "
    00 00 01 00 11 02 00 00 00 00 00 00              # 65536 bytes, Reply with MORE, status 0, call 0
";
const DATA_RESULT_LAST: &str = "
    01 00 00 00 20 10 00 00 00 00 00 00              # 1 byte, Data with RESULTS, call 0: the last piece
    5a
";
const CALL_STREAM: &str = "
    05 00 00 00 10 08 00 00 00 00 00 00              # 5 bytes, Call with STREAM, row 0, call 0
    00 00 00 00                                      # no deadline
    09                                               # arguments
";
const DATA_ITEM: &str = "
    02 00 00 00 20 00 00 00 00 00 00 00              # 2 bytes, Data, call 0: an item of the arguments
    01 02
";
const END: &str = "
    00 00 00 00 22 00 00 00 00 00 00 00              # End, status 0, call 0: no more arguments
";
const REPLY_STREAM: &str = "
    00 00 00 00 11 08 00 00 00 00 00 00              # Reply with STREAM, call 0
";
const DATA_RESULT_ITEM: &str = "
    03 00 00 00 20 10 00 00 00 00 00 00              # 3 bytes, Data with RESULTS, call 0: an item of the results
    03 04 05
";
const END_APP_ERROR: &str = "
    01 00 00 00 22 10 01 00 00 00 00 00              # 1 byte, End with RESULTS, status 1, call 0
    05                                               # application error
";
const END_FAILURE: &str = "
    0b 00 00 00 22 10 02 00 00 00 00 00              # 11 bytes, End with RESULTS, status 2, call 0
    0a 02 ff                                         # Aborted, possibly executed, no stage
    06 65 6e 6f 75 67 68                             # \"enough\"
    00                                               # no details
";
const CREDIT: &str = "
    10 00 00 00 21 00 00 00 00 00 00 00              # 16 bytes, Credit for the connection
    00 00 18 00 00 00 00 00                          # calls may cost 1572864 in all
    00 00 00 00 00 00 00 00                          # not used
";
const CREDIT_CALL: &str = "
    10 00 00 00 21 10 01 00 00 00 00 00              # 16 bytes, Credit with RESULTS, call 0
    18 00 10 00 00 00 00 00                          # 1048600 bytes in all
    18 00 00 00 00 00 00 00                          # 24 items in all
";
const RESET_STOP: &str = "
    1f 00 00 00 23 10 01 00 00 00 00 00              # 31 bytes, Reset 1 with RESULTS, call 0: send no more
    01 02 ff                                         # Cancelled, possibly executed, no stage
    1a 6e 6f 62 6f 64 79 20 72 65 61 64 73 20 74 68 69 73 20 61 6e 79 20 6d 6f 72 65   # \"nobody reads this any more\"
    00                                               # no details
";
const RESET_NO_MORE: &str = "
    15 00 00 00 23 00 00 00 00 00 00 00              # 21 bytes, Reset 0, call 0: no more arguments come
    01 02 ff                                         # Cancelled, possibly executed, no stage
    10 74 68 65 20 63 61 6c 6c 20 69 73 20 6f 76 65 72   # \"the call is over\"
    00                                               # no details
";

/// The two ends of one call 0.
struct Ends {
    caller: Outbound<()>,
    provider: Outbound<()>,
    id: CallId,
    to: Option<Sender>,
}

impl Ends {
    /// A call with this body, which was written; and its frames.
    fn call(body: Vec<u8>, streams: Streams) -> (Ends, Vec<Frame>) {
        let roomy = PeerLimits { frame: 192 << 10, body: 1 << 20, streams: 8, stream_bytes: 1 << 20, ..PeerLimits::BEFORE_HELLO };
        let mut caller = Outbound::new(&roomy);
        caller.established(roomy, "peer".into());
        caller.bind(kept_clock()).unwrap();
        frames(&mut caller);
        let call = Start { row: 0, deadline: None, options: &[], body: Body::Segment(body.into()), streams };
        let id = caller.start(0, call, Some(())).unwrap();
        let to = streams.args.then(|| caller.open_args(id));
        let mut provider = Outbound::new(&roomy);
        provider.established(roomy, "peer".into());
        let frames = frames(&mut caller);
        (Ends { caller, provider, id, to }, frames)
    }

    /// Both ways a stream, the results opened.
    fn streams() -> (Ends, Sender, Receiver) {
        let (mut ends, _) = Ends::call(vec![9], Streams { args: true, results: true });
        ends.provider.serve(0, true);
        let to = ends.provider.open_results(0);
        ends.reply();
        let Some(Answer::Stream(results)) = ends.caller.poll(ends.id, |_| {}) else { panic!() };
        (ends, to, results)
    }

    /// The provider's reply reaches the caller.
    fn reply(&mut self) -> Vec<Frame> {
        let frames = frames(&mut self.provider);
        let reply = frames[0].clone();
        self.caller.on_reply(reply.header, reply.payload, &mut Vec::new()).unwrap();
        frames
    }
}

/// What leaves now.
fn frames(outbound: &mut Outbound<()>) -> Vec<Frame> {
    let (mut out, mut bytes) = (OutBuf::default(), BytesMut::new());
    outbound.take(&mut out);
    outbound.pump(&mut out, usize::MAX, &mut Vec::new());
    while !out.is_empty() {
        let mut slices = [std::io::IoSlice::new(&[]); 8];
        let count = out.slices(&mut slices);
        slices[..count].iter().for_each(|s| bytes.extend_from_slice(s));
        let n = slices[..count].iter().map(|s| s.len()).sum();
        out.advance(n);
    }
    std::iter::from_fn(|| get_frame(&mut bytes, 1 << 20).unwrap()).collect()
}

fn only(outbound: &mut Outbound<()>) -> Frame {
    let [frame] = &frames(outbound)[..] else { panic!("one frame") };
    frame.clone()
}

/// As [`check`], for a frame of which the specification shows only the beginning.
#[track_caller]
fn check_front(golden: &str, frame: &Frame) {
    let bytes = [&frame.header.to_bytes()[..], &frame.payload].concat();
    let front = unhex(golden);
    assert_eq!(bytes[..front.len()], front, "{:02x?}", &bytes[..front.len()]);
    in_the_specification(golden);
}

#[track_caller]
fn check_whole(golden: &str, frame: &Frame) {
    check(golden, &[&frame.header.to_bytes()[..], &frame.payload].concat());
}

#[test]
fn bodies_in_fragments() {
    let body = vec![0x5a; (128 << 10) + 1];
    let (mut ends, call) = Ends::call(body.clone(), Streams::default());
    assert_eq!(call.len(), 3);
    check_front(CALL_MORE, &call[0]);
    check_front(DATA_MORE, &call[1]);
    check_whole(DATA_LAST, &call[2]);
    ends.provider.reply_in_fragments(0, status::OK, &[], body.clone().into());
    let reply = ends.reply();
    assert_eq!(reply.len(), 3);
    check_front(REPLY_MORE, &reply[0]);
    check_whole(DATA_RESULT_LAST, &reply[2]);
    for piece in &reply[1..] {
        ends.caller.on_data(piece.clone(), &Limits::default(), &mut Vec::new()).unwrap();
    }
    assert!(matches!(ends.caller.poll(ends.id, |_| {}), Some(Answer::Ok(got)) if got == body));
}

#[test]
fn streams() {
    let (mut ends, call) = Ends::call(vec![9], Streams { args: true, results: true });
    check_whole(CALL_STREAM, &call[0]);
    let (to, args) = (ends.to.unwrap(), ends.provider.serve(0, true).unwrap());
    ends.caller.send_item(to, &[1], &mut Bytes::from_static(&[2])).unwrap();
    let item = only(&mut ends.caller);
    check_whole(DATA_ITEM, &item);
    ends.provider.on_data(item, &Limits::default(), &mut Vec::new()).unwrap();
    assert!(matches!(ends.provider.poll_item(args, |_| {}), Some(Item::Item(got)) if got[..] == [1, 2]));
    ends.caller.end_items(to, status::OK, Vec::new());
    let end = only(&mut ends.caller);
    check_whole(END, &end);
    ends.provider.on_end(end, &mut Vec::new()).unwrap();
    assert!(matches!(ends.provider.poll_item(args, |_| {}), Some(Item::End)));

    let to = ends.provider.open_results(0);
    check_whole(REPLY_STREAM, &ends.reply()[0]);
    let Some(Answer::Stream(results)) = ends.caller.poll(ends.id, |_| {}) else { panic!() };
    ends.provider.send_item(to, &[3, 4, 5], &mut Bytes::new()).unwrap();
    let item = only(&mut ends.provider);
    check_whole(DATA_RESULT_ITEM, &item);
    ends.caller.on_data(item, &Limits::default(), &mut Vec::new()).unwrap();
    assert!(matches!(ends.caller.poll_item(results, |_| {}), Some(Item::Item(got)) if got[..] == [3, 4, 5]));
    ends.provider.end_items(to, status::APP_ERROR, vec![5]);
    let end = only(&mut ends.provider);
    check_whole(END_APP_ERROR, &end);
    ends.caller.on_end(end, &mut Vec::new()).unwrap();
    assert!(matches!(ends.caller.poll_item(results, |_| {}), Some(Item::AppError(got)) if got[..] == [5]));
}

#[test]
fn streams_that_fail_or_are_broken_off() {
    let (mut ends, to, results) = Ends::streams();
    ends.provider.end_items(to, status::FAILURE, Failure::from_error(&RpcError::new(Code::Aborted, "enough")).encode());
    let end = only(&mut ends.provider);
    check_whole(END_FAILURE, &end);
    ends.caller.on_end(end, &mut Vec::new()).unwrap();
    assert!(matches!(ends.caller.poll_item(results, |_| {}), Some(Item::Failed(e)) if e.code() == Code::Aborted));

    let (mut ends, to, results) = Ends::streams();
    ends.caller.drop_receiver(results, &mut Vec::new());
    let [stop, no_more] = &frames(&mut ends.caller)[..] else { panic!() };
    check_whole(RESET_STOP, stop);
    check_whole(RESET_NO_MORE, no_more);
    ends.provider.on_reset(stop, &mut Vec::new()).unwrap();
    ends.provider.on_reset(no_more, &mut Vec::new()).unwrap();
    assert_eq!(ends.provider.poll_sendable(to, |_| {}), Sendable::Never);
    ends.caller.on_reset(&only(&mut ends.provider), &mut Vec::new()).unwrap();
    assert_eq!((ends.caller.in_flight(), ends.provider.serving()), (0, 0));
}

#[test]
fn credit() {
    let mut inbound = Inbound::new(Limits { credit: 0, ..Limits::default() });
    inbound.taken(1 << 19);
    let mut out = OutBuf::default();
    inbound.return_credit(&mut out);
    let frame = check(CREDIT, bytes_of(&out));
    let (mut caller, _) = caller();
    assert!(caller.on_credit(&frame, &mut Vec::new()).unwrap(), "it is for the connection");

    let (mut ends, to, results) = Ends::streams();
    for _ in 0..8 {
        ends.provider.send_item(to, &[3, 4, 5], &mut Bytes::new()).unwrap();
        ends.caller.on_data(only(&mut ends.provider), &Limits::default(), &mut Vec::new()).unwrap();
        ends.caller.poll_item(results, |_| {}).unwrap();
    }
    let credit = only(&mut ends.caller);
    check_whole(CREDIT_CALL, &credit);
    assert!(!ends.provider.on_credit(&credit, &mut Vec::new()).unwrap());
}

const CANCEL: &str = "
    00 00 00 00 12 00 00 00 00 00 00 00              # Cancel call 0
";
const VOID: &str = "
    07 00 00 00 00 00 00 00 00 00 00 00              # 7 bytes, Void: was call 0, withdrawn
    00 00 00 00                                      # skipped
    01 02 03                                         # skipped
";

#[test]
fn cancel_and_void() {
    let cancelled = |taken: bool| {
        let (mut outbound, mut out) = caller();
        out.advance(out.len());
        let id = outbound
            .start(0, Start { row: 0, deadline: None, options: &[], body: Body::Copy(&[1, 2, 3]), streams: Streams::default() }, Some(()))
            .unwrap();
        if taken {
            outbound.take(&mut out);
            out.advance(out.len());
        }
        outbound.cancel(id, &mut Vec::new());
        outbound.take(&mut out);
        bytes_of(&out).to_vec()
    };
    let mut inbound = Inbound::new(Limits::default());
    inbound.park(0, 77);
    assert_eq!(inbound.on_cancel(check(CANCEL, &cancelled(true)).header.id), Some(77));
    assert_eq!(check(VOID, &cancelled(false)).header.kind, Kind::Void);
}

const PING: &str = "
    00 00 00 00 31 00 00 00 2a 00 00 00              # Ping, token 42
";
const PONG: &str = "
    00 00 00 00 32 00 00 00 2a 00 00 00              # Pong, token 42
";
const GO_AWAY: &str = "
    10 00 00 00 33 00 00 00 00 00 00 00              # 16 bytes, GoAway
    03 00 00 00 00 00 00 00                          # call 3 was the last
    0e                                               # Unavailable
    6c 65 61 76 69 6e 67                             # \"leaving\"
";

#[test]
fn ping_pong_and_go_away() {
    let mut out = OutBuf::default();
    out.frame(farcall_wire::Header::new(Kind::Ping, 0, 0, 42), &[]);
    let ping = check(PING, bytes_of(&out));
    let mut out = OutBuf::default();
    control::pong(&ping, &mut out);
    assert_eq!(check(PONG, bytes_of(&out)).header.kind, Kind::Pong);

    let mut inbound = Inbound::new(Limits::default());
    (0..3).for_each(|_| inbound.on_void());
    let mut out = OutBuf::default();
    inbound.drain(&RpcError::new(Code::Unavailable, "leaving"), &mut out);
    let frame = check(GO_AWAY, bytes_of(&out));
    let read = control::on_go_away(&frame.payload).unwrap();
    assert_eq!((read.last, read.reason.code(), read.reason.message()), (3, Code::Unavailable, "leaving"));
}

#[test]
fn numbers_of_flags_and_states() {
    assert_eq!([flags::OPTIONS, flags::MORE, flags::ONEWAY, flags::STREAM, flags::RESULTS], [1, 2, 4, 8, 0x10]);
    assert_eq!([flags::TARGET, flags::TARGET_METHOD, flags::TARGET_OBJECT, flags::TARGET_ANSWER], [0x30, 0, 0x10, 0x20]);
    assert_eq!([status::OK, status::APP_ERROR, status::FAILURE], [0, 1, 2]);
    assert!(CallOptions::take(&mut Bytes::from_static(&[0]), 100).unwrap().is_default(), "an empty block is allowed");
}

const BOUND_HELD: &str = "
    04 00 00 00 03 00 01 00 01 00 00 00              # 4 bytes, Bound, not all rows agree, binding 1
    01                                               # 1 verdict
    00 00 00                                         # row 0, held, no text
";
const SCHEMA_ARGS: &str = "
    15 00 00 00 04 00 00 00 01 00 00 00              # 21 bytes, Schema, row 0, binding 1: what the caller writes
    00                                               # part 0, the arguments
    1e e3 16 a9 8d 48 70 5d 4a 85 b2 5c 60 8f fe 8f  # their fingerprint
    15 01 03 00                                      # tuple of 1: u32; no definitions
";
const SCHEMA_RESULT: &str = "
    13 00 00 00 04 10 00 00 01 00 00 00              # 19 bytes, Schema with THEIRS, row 0, binding 1: what the provider writes
    01                                               # part 1, the result
    c6 81 33 9c 86 c7 07 15 ac 59 92 47 04 10 52 cd  # its fingerprint
    03 00                                            # u32, no definitions
";
const SCHEMA_ERROR: &str = "
    11 00 00 00 04 10 00 00 01 00 00 00              # 17 bytes, Schema with THEIRS, row 0, binding 1
    02                                               # part 2, the error
    da c6 b4 b5 5b 81 45 4e 67 2d b2 f8 4b 93 4b 9e  # its fingerprint, which is the caller's own: there is none
";
const READY: &str = "
    00 00 00 00 05 00 00 00 01 00 00 00              # Ready, row 0, binding 1: the caller can read the provider
";
const READY_THEIRS: &str = "
    00 00 00 00 05 10 00 00 01 00 00 00              # Ready with THEIRS, row 0, binding 1: the provider can read the caller
";
const NOT_READY: &str = "
    8e 00 00 00 05 10 00 00 01 00 00 00              # 142 bytes, Ready with THEIRS: the provider cannot
    00 09 8a 01                                      # row 0, FailedPrecondition, 138 bytes of text
    63 6c 6f 63 6b 2e 67 65 74 3a 20 74 68 65 20 70 72 6f 76 69 64 65 72 20 63 61 6e 6e 6f 74 20 72
    65 61 64 20 74 68 65 20 63 61 6c 6c 65 72 3a 20 61 72 67 75 6d 65 6e 74 73 20 60 30 60 3a 20 74
    68 65 20 77 72 69 74 65 72 20 73 65 6e 64 73 20 75 33 32 2c 20 74 68 65 20 72 65 61 64 65 72 20
    72 65 61 64 73 20 53 74 72 69 6e 67 3a 20 67 69 76 65 20 77 68 61 74 20 63 68 61 6e 67 65 64 20
    61 20 6e 65 77 20 6e 61 6d 65 # \"clock.get: the provider cannot read the caller: arguments `0`: the writer sends u32, the reader reads String: give what changed a new name\"
";

/// [`clock`] with one method that takes and gives numbers.
fn grown<A: farcall_core::Schema, R: farcall_core::Schema>() -> ServiceDescriptor {
    use farcall_core::{MethodDescriptor, MethodTraits, Never};
    let method = MethodDescriptor::build::<A, R, Never>("get", None, "", &[], "", MethodTraits::default());
    ServiceDescriptor { methods: vec![method], ..clock() }
}

/// What the provider says to a binding on which it differs, what the caller says to that, and the last word.
fn differ(caller: &'static ServiceDescriptor, provider: ServiceDescriptor) -> [Vec<u8>; 3] {
    let hello = Hello::new([1; 16], 1, &Limits::default());
    let mut ends = [(); 2].map(|()| Session::<()>::new([2; 16], 1, &Limits::default()));
    ends.iter_mut().for_each(|end| end.established(&hello, "peer".into()));
    let [ours, theirs] = &mut ends;
    ours.outbound.bind(caller).unwrap();
    let (catalogue, mut settled) = (Only(provider), Vec::new());
    let mut asked = OutBuf::default();
    ours.outbound.take(&mut asked);
    let mut first = OutBuf::default();
    for frame in frames_of(bytes_of(&asked)) {
        let held = theirs.inbound.on_bind(&frame, &catalogue, &mut first).unwrap();
        theirs.differences.offer(held, &catalogue, &mut first, &mut settled);
    }
    let mut second = OutBuf::default();
    for frame in frames_of(bytes_of(&first)) {
        let header = frame.header;
        match header.kind {
            Kind::Bound => {
                let held = ours.outbound.on_bound(header.id, header.aux, &frame.payload, true).unwrap().unwrap();
                ours.differences.answer(held, &mut second, &mut settled);
            }
            Kind::Schema => ours.differences.on_schema(&frame, &catalogue, &mut second, &mut settled).unwrap(),
            _ => ours.differences.on_ready(&frame, &mut settled).unwrap(),
        }
    }
    let mut third = OutBuf::default();
    for frame in frames_of(bytes_of(&second)) {
        match frame.header.kind {
            Kind::Schema => theirs.differences.on_schema(&frame, &catalogue, &mut third, &mut settled).unwrap(),
            _ => theirs.differences.on_ready(&frame, &mut settled).unwrap(),
        }
    }
    [first, second, third].map(|out| bytes_of(&out).to_vec())
}

fn frames_of(bytes: &[u8]) -> Vec<Frame> {
    let mut buf = BytesMut::from(bytes);
    std::iter::from_fn(|| get_frame(&mut buf, 1 << 20).unwrap()).collect()
}

#[track_caller]
fn check_all(golden: &[&str], made: &[u8]) {
    let shown = |b: &[u8]| b.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
    assert_eq!(shown(made), shown(&golden.iter().flat_map(|g| unhex(g)).collect::<Vec<_>>()));
    golden.iter().for_each(|golden| in_the_specification(golden));
}

#[test]
fn rows_on_which_the_sides_differ() {
    let old = Box::leak(Box::new(grown::<(u32,), u16>()));
    let [first, second, third] = differ(old, grown::<(u64,), u32>());
    check_all(&[BOUND_HELD, SCHEMA_RESULT, SCHEMA_ERROR], &first);
    check_all(&[SCHEMA_ARGS, READY], &second);
    check_all(&[READY_THEIRS], &third);
    // The same arguments, of which the provider makes text.
    let [_, _, third] = differ(old, grown::<(String,), u16>());
    check_all(&[NOT_READY], &third);
}

/// What farcall of version 1 wrote before it resolved types: preface and hello, recorded.
const HELLO_WITHOUT_SCHEMAS: &str = "
    66 61 72 63 61 6c 6c 01
    49 00 00 00 01 00 00 00 00 00 00 00
    02 10 53 53 53 53 53 53 53 53 53 53 53 53 53 53 53 53
    04 08 07 00 00 00 00 00 00 00
    06 1c 80 88 0c 80 80 80 08 80 80 04 80 80 04 80 20 80 08 00 00 80 80 80 08 80 80 10 80 08
    0d 0d 66 61 72 63 61 6c 6c 2f 30 2e 31 2e 30
";
/// What a later one may write: two more limits, features that are not known, and an entry that may be skipped.
const HELLO_OF_LATER: &str = "
    66 61 72 63 61 6c 6c 01
    62 00 00 00 01 00 00 00 00 00 00 00
    02 10 53 53 53 53 53 53 53 53 53 53 53 53 53 53 53 53
    04 08 07 00 00 00 00 00 00 00
    06 1e 80 88 0c 80 80 80 08 80 80 04 80 80 04 80 20 80 08 00 00 80 80 80 08 80 80 10 80 08 01 02
    09 08 02 00 00 00 00 01 00 00
    0d 0d 66 61 72 63 61 6c 6c 2f 30 2e 39 2e 30
    c9 0b 6c 61 74 65 72 2c 20 6f 64 64 21
";

/// A session with a peer that wrote this.
fn met(opening: &str) -> Session<()> {
    let frame = frames_of(&unhex(opening)[PREFACE_LEN..]).remove(0);
    let mut session = Session::new([1; 16], 1, &Limits::default());
    session.established(&control::expect_hello(frame).unwrap(), "peer".into());
    session
}

#[test]
fn a_peer_that_does_not_resolve_types() {
    let mut session = met(HELLO_WITHOUT_SCHEMAS);
    assert!(!session.differences.in_use());
    // Its bindings are answered as ever, to the byte.
    let mut other = clock();
    other.methods[0].prints.result.0[0] ^= 1;
    let mut out = OutBuf::default();
    let bind = frames_of(&unhex(BIND)).remove(0);
    session.inbound.on_bind(&bind, &Only(other), &mut out).unwrap();
    assert_eq!(bytes_of(&out), unhex(BOUND_REFUSED));
    // Ours are what they were, and its answers are understood; it may not hold a row.
    session.outbound.bind(kept_clock()).unwrap();
    let mut out = OutBuf::default();
    session.outbound.take(&mut out);
    assert_eq!(bytes_of(&out), unhex(BIND));
    let held = frames_of(&unhex(BOUND_HELD)).remove(0);
    let found = session.outbound.on_bound(1, held.header.aux, &held.payload, session.differences.in_use()).unwrap_err();
    assert!(found.0.contains("which was not negotiated"), "{found}");
    let mut session = met(HELLO_WITHOUT_SCHEMAS);
    session.outbound.bind(kept_clock()).unwrap();
    let refused = frames_of(&unhex(BOUND_REFUSED)).remove(0);
    assert!(session.outbound.on_bound(1, 1, &refused.payload, false).unwrap().is_none());
    let start = Start { row: 0, deadline: None, options: &[], body: Body::Copy(b""), streams: Streams::default() };
    assert_eq!(session.outbound.start(0, start, None).unwrap_err().code(), Code::FailedPrecondition);
}

#[test]
fn a_peer_of_a_later_minor_version() {
    assert!(met(HELLO_OF_LATER).differences.in_use());
    let hello = control::expect_hello(frames_of(&unhex(HELLO_OF_LATER)[PREFACE_LEN..]).remove(0)).unwrap();
    assert_eq!((hello.features & features::SCHEMAS, hello.limits), (2, PeerLimits { ..Hello::new([0; 16], 0, &Limits::default()).limits }));
    // An even entry is one that may not be skipped: the link is refused, and told by which.
    let mut bytes = unhex(HELLO_OF_LATER)[PREFACE_LEN..].to_vec();
    bytes.extend(unhex("ca 00"));
    bytes[0] += 2;
    let e = control::expect_hello(frames_of(&bytes).remove(0)).unwrap_err();
    assert!(e.message().contains("hello entry 202 is not known here and may not be skipped"), "{e}");
    // The same rule for bindings.
    for (tag, aux) in [(7, 0), (8, 1)] {
        let bind = Bind { extra: vec![(tag, vec![1])], ..Bind::of(&clock()) };
        let mut out = OutBuf::default();
        let frame = Frame { payload: bind.encode().into(), ..frames_of(&unhex(BIND)).remove(0) };
        met(HELLO_OF_LATER).inbound.on_bind(&frame, &Only(clock()), &mut out).unwrap();
        assert_eq!(frames_of(bytes_of(&out))[0].header.aux, aux, "option {tag}");
    }
}

/// Preface and first bytes of a version that is not spoken here, and what it is told: in the layout that all keep.
const VERSION_2: &str = "66 61 72 63 61 6c 6c 02 ff ff";
const REFUSAL: &str = "
    11 00 00 00 33 00 00 00 00 00 00 00              # 17 bytes, GoAway in place of a Hello
    00 00 00 00 00 00 00 00                          # no call was taken
    0c                                               # Unimplemented
    76 65 72 73 69 6f 6e 20                          # \"version \"
";

#[test]
fn a_peer_of_another_major_version() {
    assert_eq!(Preface::parse(&unhex(VERSION_2)), Preface::Farcall(2));
    let mut out = OutBuf::default();
    control::refuse(&RpcError::new(Code::Unimplemented, "version "), &mut out);
    let frame = check(REFUSAL, bytes_of(&out));
    let e = control::expect_hello(frame).unwrap_err();
    assert_eq!((e.code(), e.certainty()), (Code::Unimplemented, farcall_core::Certainty::NotExecuted));
}
