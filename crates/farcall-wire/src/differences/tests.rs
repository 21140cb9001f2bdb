//! Two sides that differ: what they say to each other, what becomes of calls, and what a hostile side gets.

use bytes::{Bytes, BytesMut};
use farcall_core::schema::{Def, Field, Kind as Shape, Ty};
use farcall_core::{AppError, CodecId, MethodTraits, Never, RpcError, Schema, error};

use super::*;
use crate::frame::get_frame;
use crate::inbound::{Difference, Request};
use crate::outbound::{Answer, Body, CallId, Start, Streams};
use crate::{Bind, CallOptions, Session};

struct One(ServiceDescriptor);

impl Catalogue for One {
    fn find(&self, _: &str, _: &str, _: &str) -> Result<(usize, &ServiceDescriptor), RpcError> {
        Ok((0, &self.0))
    }

    fn get(&self, place: usize) -> Option<&ServiceDescriptor> {
        (place == 0).then_some(&self.0)
    }
}

fn method<A: Schema, R: Schema, E: farcall_core::__rt::ErrorSchema>(name: &str) -> MethodDescriptor {
    MethodDescriptor::build::<A, R, E>(name, None, "", &[], name, MethodTraits::default())
}

fn oneway<A: Schema>(name: &str) -> MethodDescriptor {
    MethodDescriptor::build::<A, (), Never>(name, None, "", &[], name, MethodTraits { oneway: true, ..Default::default() })
}

fn service(methods: Vec<MethodDescriptor>) -> ServiceDescriptor {
    let text = String::new;
    ServiceDescriptor { name: "Shop".into(), foreign_name: None, docs: text(), version: text(), group: text(), methods }
}

fn kept(methods: Vec<MethodDescriptor>) -> &'static ServiceDescriptor {
    Box::leak(Box::new(service(methods)))
}

#[error(crate = farcall_core)]
enum Late {
    Closed,
}

fn is_error<E: AppError>(_: E) {}

/// A side and what it has to say.
struct Side {
    session: Session<u32>,
    out: OutBuf,
    catalogue: One,
    settled: Vec<Settled>,
    held: Vec<Request>,
    log: Vec<String>,
}

impl Side {
    fn new(methods: Vec<MethodDescriptor>, limits: &Limits) -> Side {
        let session = Session::new([1; 16], 1, limits);
        Side { session, out: OutBuf::default(), catalogue: One(service(methods)), settled: Vec::new(), held: Vec::new(), log: Vec::new() }
    }

    fn take(&mut self) -> Vec<u8> {
        let mut out = OutBuf::default();
        self.session.outbound.take(&mut out);
        let bytes = [out.contiguous().unwrap(), self.out.contiguous().unwrap()].concat();
        self.out = OutBuf::default();
        bytes
    }

    fn feed(&mut self, frame: Frame) -> Result<(), Violation> {
        let Session { outbound, inbound, differences, .. } = &mut self.session;
        let (out, catalogue, settled) = (&mut self.out, &self.catalogue, &mut self.settled);
        let header = frame.header;
        match header.kind {
            Kind::Bind => {
                let held = inbound.on_bind(&frame, catalogue, out)?;
                differences.offer(held, catalogue, out, settled);
            }
            Kind::Bound => {
                if let Some(held) = outbound.on_bound(header.id, header.aux, &frame.payload, differences.in_use())? {
                    differences.answer(held, out, settled);
                }
            }
            Kind::Schema => {
                let what = if frame.payload.len() > HEAD { "schema" } else { "name" };
                self.log.push(format!("{what} {} of {}", frame.payload[0], header.aux));
                differences.on_schema(&frame, catalogue, out, settled)?;
            }
            Kind::Ready => {
                self.log.push(format!("{} {}", if frame.payload.is_empty() { "ready" } else { "not ready" }, header.aux));
                differences.on_ready(&frame, settled)?;
            }
            Kind::Call => {
                if let Some(request) = inbound.on_call(frame, 0, out)? {
                    self.called(request);
                }
            }
            _ => outbound.on_reply(header, frame.payload, &mut Vec::new())?,
        }
        for settled in std::mem::take(&mut self.settled) {
            self.settle(settled);
        }
        Ok(())
    }

    fn settle(&mut self, settled: Settled) {
        match settled {
            Settled::Ours(row, replies) => self.session.outbound.settle(row, replies),
            Settled::Theirs(row, reading) => {
                self.session.inbound.settle(row, reading);
                let held = std::mem::take(&mut self.held);
                held.into_iter().for_each(|request| self.called(request));
            }
        }
    }

    fn called(&mut self, request: Request) {
        if !request.differs {
            return self.log.push(format!("run {}", request.row));
        }
        match self.session.inbound.difference(request.row) {
            Difference::Held => self.held.push(request),
            Difference::Read(_) => self.log.push(format!("run {} by a plan", request.row)),
            Difference::Refused(e) => {
                crate::reply_failure(&mut self.out, request.id, &e);
                self.session.inbound.finished(request.id, request.oneway);
            }
        }
    }
}

const HEAD: usize = 17;

struct Pair {
    caller: Side,
    provider: Side,
}

impl Pair {
    fn of(provider: Vec<MethodDescriptor>, limits: &Limits) -> Pair {
        let (mut caller, mut provider) = (Side::new(Vec::new(), limits), Side::new(provider, limits));
        let (theirs, ours) = (provider.session.hello.clone(), caller.session.hello.clone());
        caller.session.established(&theirs, "provider".into());
        provider.session.established(&ours, "caller".into());
        Pair { caller, provider }
    }

    fn call(&mut self, service: &'static ServiceDescriptor, method: u16, codec: CodecId) -> Result<CallId, RpcError> {
        let outbound = &mut self.caller.session.outbound;
        let options = CallOptions { codec, ..CallOptions::default() }.encode();
        let options = if codec == CodecId::Compact { &[][..] } else { &options };
        let row = outbound.bind(service)? + method;
        outbound.start(0, Start { row, deadline: None, options, body: Body::Copy(b""), streams: Streams::default() }, None)
    }

    /// Until neither has more to say.
    #[track_caller]
    fn talk(&mut self) {
        loop {
            let (ours, theirs) = (self.caller.take(), self.provider.take());
            if ours.is_empty() && theirs.is_empty() {
                return;
            }
            frames(&ours).into_iter().for_each(|frame| self.provider.feed(frame).unwrap());
            frames(&theirs).into_iter().for_each(|frame| self.caller.feed(frame).unwrap());
        }
    }

    fn answer(&mut self, id: CallId) -> Option<Answer> {
        self.caller.session.outbound.poll(id, |_| {})
    }
}

fn frames(bytes: &[u8]) -> Vec<Frame> {
    let mut buf = BytesMut::from(bytes);
    std::iter::from_fn(|| get_frame(&mut buf, 1 << 20).unwrap()).collect()
}

/// Calls each method once, all in the first write; what provider and caller hear, and what calls are told at once.
#[track_caller]
fn check(caller: Vec<MethodDescriptor>, provider: Vec<MethodDescriptor>, heard: (&[&str], &[&str]), refused: &[(u16, &str)]) {
    let (count, service) = (caller.len() as u16, kept(caller));
    let mut pair = Pair::of(provider, &Limits::default());
    let ids: Vec<CallId> = (0..count).map(|method| pair.call(service, method, CodecId::Compact).unwrap()).collect();
    pair.talk();
    assert_eq!(
        (&pair.provider.log[..], &pair.caller.log[..]),
        (&heard.0.iter().map(|s| s.to_string()).collect::<Vec<_>>()[..], &heard.1.iter().map(|s| s.to_string()).collect::<Vec<_>>()[..])
    );
    for (method, id) in (0..count).zip(ids) {
        let why = refused.iter().find(|(refused, _)| *refused == method).map(|(_, why)| *why);
        match (pair.answer(id), why) {
            (None, None) => assert!(pair.call(service, method, CodecId::Compact).is_ok()),
            (Some(Answer::Failed(e)), Some(why)) => {
                assert_eq!((e.code(), e.certainty(), e.message()), (Code::FailedPrecondition, farcall_core::Certainty::NotExecuted, why));
                let again = pair.call(service, method, CodecId::Compact).unwrap_err();
                assert_eq!((again.certainty(), again.message()), (farcall_core::Certainty::NotSent, why), "once known it is not sent");
            }
            (answer, why) => panic!("{answer:?}, expected {why:?}"),
        }
    }
}

#[test]
fn what_is_alike_is_not_talked_about() {
    let both = || vec![method::<(u32,), u64, Never>("a")];
    check(both(), both(), (&["run 0"], &[]), &[]);
}

#[test]
fn each_side_says_what_it_writes_and_calls_wait_for_both() {
    is_error(Late::Closed);
    let (old, new) = (method::<(u8,), u8, Late>("a"), method::<(u32,), u64, Late>("a"));
    check(
        vec![old, method::<(u8,), u8, Never>("b")],
        vec![new, method::<(u8,), u8, Never>("b")],
        (&["run 1", "schema 0 of 0", "ready 0", "run 0 by a plan"], &["schema 1 of 0", "name 2 of 0", "ready 0"]),
        &[],
    );
}

#[test]
fn arguments_that_are_alike_need_no_waiting_for_them() {
    let (old, new) = (method::<(u8,), u8, Never>("a"), method::<(u8,), u64, Never>("a"));
    check(vec![old], vec![new], (&["schema 0 of 0", "ready 0", "run 0 by a plan"], &["schema 1 of 0", "name 2 of 0", "ready 0"]), &[]);
}

#[test]
fn a_schema_travels_once() {
    let old = |name: &str| method::<(u8,), u8, Never>(name);
    let new = |name: &str| method::<(u32,), u64, Never>(name);
    check(
        vec![old("a"), old("b")],
        vec![new("a"), new("b")],
        (
            &["schema 0 of 0", "name 0 of 1", "ready 0", "run 0 by a plan", "ready 1", "run 1 by a plan"],
            &["schema 1 of 0", "name 2 of 0", "name 1 of 1", "name 2 of 1", "ready 0", "ready 1"],
        ),
        &[],
    );
}

#[test]
fn either_side_may_refuse_and_both_say_the_same() {
    let why = "Shop.a: the provider cannot read the caller: arguments `0`: the writer sends String, the reader reads u32: \
               give what changed a new name";
    check(
        vec![method::<(String,), u8, Never>("a")],
        vec![method::<(u32,), u8, Never>("a")],
        (&["schema 0 of 0", "ready 0"], &["name 1 of 0", "name 2 of 0", "not ready 0"]),
        &[(0, why)],
    );
    let why = "Shop.a: the caller cannot read the provider: result: the writer sends String, the reader reads u8: \
               give what changed a new name";
    check(
        vec![method::<(u8,), u8, Never>("a")],
        vec![method::<(u8,), String, Never>("a")],
        (&["schema 0 of 0", "not ready 0"], &["schema 1 of 0", "name 2 of 0", "ready 0"]),
        &[(0, why)],
    );
    let why = "Shop.a: the caller cannot read the provider: the server may answer with an application error, the client knows of \
               none: give the changed method a new name";
    check(
        vec![method::<(u8,), u8, Never>("a")],
        vec![method::<(u8,), u8, Late>("a")],
        (&["schema 0 of 0", "not ready 0"], &["name 1 of 0", "schema 2 of 0", "ready 0"]),
        &[(0, why)],
    );
}

#[test]
fn an_error_that_the_provider_never_sends_stands_in_nobodys_way() {
    check(
        vec![method::<(u8,), u8, Late>("a")],
        vec![method::<(u8,), u8, Never>("a")],
        (&["schema 0 of 0", "ready 0", "run 0 by a plan"], &["name 1 of 0", "name 2 of 0", "ready 0"]),
        &[],
    );
}

#[test]
fn nobody_reads_what_a_oneway_call_gives_back() {
    let mut pair = Pair::of(vec![oneway::<(u32,)>("a")], &Limits::default());
    let service = kept(vec![oneway::<(u8,)>("a")]);
    let outbound = &mut pair.caller.session.outbound;
    let row = outbound.bind(service).unwrap();
    outbound.start_oneway(Start { row, deadline: None, options: &[], body: Body::Copy(b""), streams: Streams::default() }).unwrap();
    pair.talk();
    assert_eq!(pair.provider.log, ["schema 0 of 0", "ready 0", "run 0 by a plan"]);
    assert_eq!(pair.caller.log, ["ready 0"]);
}

#[test]
fn without_the_feature_on_both_sides_rows_are_refused() {
    let limits = Limits { schemas: 0, ..Limits::default() };
    let mut pair = Pair::of(vec![method::<(u32,), u8, Never>("a")], &limits);
    let id = pair.call(kept(vec![method::<(u8,), u8, Never>("a")]), 0, CodecId::Compact).unwrap();
    pair.talk();
    let Some(Answer::Failed(e)) = pair.answer(id) else { panic!() };
    assert!(e.message().contains("the arguments differ between caller and provider"), "{e}");
    assert!(pair.provider.log.is_empty() && pair.caller.log.is_empty());
}

#[test]
fn only_codecs_with_plans_or_names_are_read_in_another_version() {
    let service = kept(vec![method::<(u8,), u8, Never>("a")]);
    let mut pair = Pair::of(vec![method::<(u32,), u8, Never>("a")], &Limits::default());
    let calls: Vec<_> = [CodecId::Json, CodecId::Xdr, CodecId::Protobuf].map(|codec| pair.call(service, 0, codec).unwrap()).into();
    pair.talk();
    assert_eq!(pair.provider.log.last().map(String::as_str), Some("run 0 by a plan"));
    assert!(pair.answer(calls[0]).is_none());
    for id in &calls[1..] {
        let Some(Answer::Failed(e)) = pair.answer(*id) else { panic!() };
        assert_eq!((e.code(), e.certainty()), (Code::FailedPrecondition, farcall_core::Certainty::NotExecuted));
        assert!(e.message().contains("only compact and JSON are read in another version"), "{e}");
    }
}

#[test]
fn a_description_that_is_out_of_date_is_said_so() {
    let mut pair = Pair::of(vec![method::<(u32,), u8, Never>("a")], &Limits::default());
    let described = service(vec![method::<(u8,), u8, Never>("a")]);
    let outbound = &mut pair.caller.session.outbound;
    let row = outbound.bind_by_value(&described).unwrap();
    let id = outbound.start(0, Start { row, deadline: None, options: &[], body: Body::Copy(b""), streams: Streams::default() }, None);
    pair.talk();
    let Some(Answer::Failed(e)) = pair.answer(id.unwrap()) else { panic!() };
    assert_eq!(e.certainty(), farcall_core::Certainty::NotExecuted);
    assert!(e.message().ends_with("describe it again"), "{e}");
}

#[test]
fn what_a_peer_makes_us_keep_is_bounded() {
    let limits = Limits { schemas: 600, ..Limits::default() };
    let names: Vec<String> = (0..20).map(|n| format!("m{n}")).collect();
    let old = |name: &String| method::<(u8, Vec<(u16, String)>), (), Never>(name);
    let new = |name: &String| method::<(u32, Vec<(u64, String)>), (), Never>(name);
    let mut pair = Pair::of(names.iter().map(new).collect(), &limits);
    let service = kept(names.iter().map(old).collect());
    let ids: Vec<CallId> = (0..20).map(|n| pair.call(service, n, CodecId::Compact).unwrap()).collect();
    pair.talk();
    let refused: Vec<RpcError> =
        ids.iter().filter_map(|id| pair.answer(*id)).map(|a| if let Answer::Failed(e) = a { e } else { panic!() }).collect();
    assert!((1..20).contains(&refused.len()), "{} refused", refused.len());
    assert!(refused.iter().all(|e| e.code() == Code::ResourceExhausted && e.message().contains("more than 600 bytes")), "{refused:?}");
}

/// A provider with one row held, and the caller's frames about it: Schema and Ready.
fn held() -> (Pair, Vec<Frame>) {
    let mut pair = Pair::of(vec![method::<(u32,), u64, Never>("a")], &Limits::default());
    pair.call(kept(vec![method::<(u8,), u8, Never>("a")]), 0, CodecId::Compact).unwrap();
    for frame in frames(&pair.caller.take()) {
        pair.provider.feed(frame).unwrap();
    }
    for frame in frames(&pair.provider.take()) {
        pair.caller.feed(frame).unwrap();
    }
    let said = frames(&pair.caller.take());
    assert_eq!(said.iter().map(|f| f.header.kind).collect::<Vec<_>>(), [Kind::Schema, Kind::Ready]);
    (pair, said)
}

#[track_caller]
fn broken(change: impl FnOnce(&mut Vec<Frame>), why: &str) {
    let (mut pair, mut said) = held();
    change(&mut said);
    let mut taken = 0;
    let result = said.into_iter().try_for_each(|frame| pair.provider.feed(frame).inspect(|()| taken += 1));
    let found = result.expect_err(why).0;
    assert!(found.contains(why), "{found:?} does not say {why:?}");
    let ran = pair.provider.log.iter().any(|line| line.starts_with("run"));
    assert_eq!(ran, taken >= 2, "what runs has had its schema and its word before");
}

fn payload(frame: &mut Frame, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = frame.payload.to_vec();
    change(&mut bytes);
    frame.payload = bytes.into();
}

/// The same frame with another schema, and its fingerprint.
fn with_schema(frame: &mut Frame, schema: &TypeSchema, print: Fingerprint) {
    frame.payload = [&[ARGS][..], &print.0, &schema.bare()].concat().into();
}

#[test]
fn frames_out_of_place_break_the_link() {
    broken(|said| said.push(said[0].clone()), "or a second one");
    broken(|said| said.push(said[1].clone()), "a second Ready frame for row 0");
    broken(|said| said.swap(0, 1), "a Ready frame for row 0 before its schemas");
    broken(|said| said[0].header.aux = 1, "row 1 of binding 1, which is not held");
    broken(|said| said[0].header.id = 2, "row 0 of binding 2, which is not held");
    broken(|said| said[1].header.id = 2, "row 0 of binding 2, which is not held");
    broken(|said| said[0].header.flags = flags::THEIRS, "row 0 of binding 1, which is not held");
    broken(|said| payload(&mut said[0], |p| p[0] = RESULT), "for part 1 of row 0, which is not asked for");
    broken(|said| payload(&mut said[0], |p| p[0] = 9), "for part 9 of row 0, which is not asked for");
    broken(|said| payload(&mut said[0], |p| p[1] ^= 1), "another fingerprint than its binding said");
    broken(|said| payload(&mut said[0], |p| p.truncate(16)), "ends early");
    broken(|said| payload(&mut said[0], |p| p.truncate(17)), "refers to a schema that was never sent");
    broken(|said| payload(&mut said[0], |p| p.truncate(18)), "a schema that cannot be read");
    broken(|said| payload(&mut said[0], |p| p.resize((64 << 10) + 1, 0)), "of 65537 bytes, the limit is 65536");
    broken(|said| payload(&mut said[1], |p| p.push(7)), "a Ready frame that cannot be read");
    let verdict = |row, code| encode(&Verdict { row, code, message: "no".into() });
    broken(|said| payload(&mut said[1], |p| *p = verdict(0, 0)), "whose verdict says nothing");
    broken(|said| payload(&mut said[1], |p| *p = verdict(7, 9)), "with the verdict on row 7");
    let print = TypeSchema::of::<(u8,)>().fingerprint();
    broken(|said| with_schema(&mut said[0], &TypeSchema::of::<(u16,)>(), print), "of another fingerprint than its frame says");
}

#[test]
fn frames_that_were_not_negotiated_break_the_link() {
    let (_, said) = held();
    for frame in said {
        let mut side = Side::new(Vec::new(), &Limits::default());
        let found = side.feed(frame).unwrap_err().0;
        assert!(found.ends_with("was not negotiated"), "{found}");
    }
}

/// A provider whose caller binds this schema for its arguments, and says it.
fn tells(schema: &TypeSchema) -> (Side, Result<(), Violation>) {
    let mut side = Side::new(vec![method::<(u32,), (), Never>("a")], &Limits::default());
    let hello = side.session.hello.clone();
    side.session.established(&hello, "caller".into());
    let mut wanted = Bind::of(&service(vec![method::<(u32,), (), Never>("a")]));
    wanted.rows[0].args = schema.fingerprint();
    let frame = |kind, payload: Vec<u8>| Frame { header: Header::new(kind, 0, 0, 1), payload: Bytes::from(payload) };
    side.feed(frame(Kind::Bind, wanted.encode())).unwrap();
    let said = [&[ARGS][..], &schema.fingerprint().0, &schema.bare()].concat();
    let result = side.feed(frame(Kind::Schema, said));
    (side, result)
}

#[track_caller]
fn refused(schema: &TypeSchema, why: &str) {
    let (mut side, result) = tells(schema);
    result.unwrap();
    let ready = frames(&side.take()).pop().unwrap();
    assert_eq!(ready.header.kind, Kind::Ready);
    let verdict = read_verdict(0, &ready.payload).unwrap();
    assert_eq!(verdict.code, Code::FailedPrecondition as u8);
    assert!(verdict.message.contains(why), "{} does not say {why}", verdict.message);
}

fn def(kind: Shape) -> Def {
    Def { name: "T".into(), foreign: None, docs: String::new(), kind }
}

fn field(name: &str, ty: Ty) -> Field {
    let (aliases, docs) = (Vec::new(), String::new());
    Field { name: name.into(), aliases, default: false, must_understand: false, docs, tag: None, foreign: None, ty }
}

#[test]
fn hostile_schemas_are_refused_by_name() {
    // A reference to nothing, twice one name, types that contain themselves, and 2^60 doublings.
    refused(&TypeSchema { root: Ty::Ref(3), defs: Vec::new() }, "definition 3 is not there");
    let twice = Shape::Struct(vec![field("x", Ty::U8), field("x", Ty::U8)]);
    refused(&TypeSchema { root: Ty::Ref(0), defs: vec![def(twice)] }, "two things are called `x`");
    let endless = Shape::Tuple(vec![Ty::Ref(0), Ty::Ref(0)]);
    refused(&TypeSchema { root: Ty::Ref(0), defs: vec![def(endless)] }, "the writer sends");
    let doubling = |n: u32| def(Shape::Struct(vec![field("a", Ty::Ref(n + 1)), field("b", Ty::Ref(n + 1))]));
    let defs: Vec<Def> = (0..60).map(doubling).chain([def(Shape::Unit)]).collect();
    refused(&TypeSchema { root: Ty::Tuple(vec![Ty::Ref(0)]), defs }, "the writer sends");
    let deep = (0..100).fold(Ty::U8, |ty, _| Ty::Option(Box::new(ty)));
    refused(&TypeSchema { root: deep, defs: Vec::new() }, "nests deeper than 64");
    let many = (0..2000).map(|_| def(Shape::Unit)).collect();
    refused(&TypeSchema { root: Ty::Unit, defs: many }, "2000 definitions, at most 1024");
}

#[test]
fn plans_are_kept_by_what_the_schemas_are_not_by_their_fingerprints() {
    // Two writers of one layout, of which one says that a field must be understood.
    let schema = |must_understand| {
        let extra = Field { must_understand, ..field("extra", Ty::U8) };
        let args = Shape::Struct(vec![field("n", Ty::U32), extra]);
        TypeSchema { root: Ty::Ref(0), defs: vec![def(args)] }
    };
    assert_eq!(schema(true).fingerprint(), schema(false).fingerprint());
    let reader = TypeSchema { root: Ty::Ref(0), defs: vec![def(Shape::Struct(vec![field("n", Ty::U32)]))] };
    let readings = Readings::default();
    for (must_understand, reads) in [(false, true), (true, false), (false, true)] {
        let writer = schema(must_understand);
        let mut schemas = Schemas::new(1 << 20);
        let payload = [&[ARGS][..], &writer.fingerprint().0, &writer.bare()].concat();
        let said = Said::read(&payload).unwrap();
        let read = schemas.read(&readings, (Part::Arguments, false), &said, (Some(&reader), reader.fingerprint())).unwrap();
        assert_eq!(read.is_ok(), reads);
    }
}

#[test]
fn what_is_kept_for_others_is_bounded() {
    let readings = Readings::default();
    let reader = TypeSchema::of::<(u32,)>();
    for n in 0..400u32 {
        let fields = (0..300).map(|i| field(&format!("f{i}_{n}"), Ty::U8)).collect();
        let writer = TypeSchema { root: Ty::Ref(0), defs: vec![def(Shape::Struct(fields))] };
        let reader = if n % 2 == 0 { &reader } else { &TypeSchema { root: Ty::Ref(0), defs: vec![def(Shape::Unit)] } };
        let key = readings::Key { part: Part::Result, stream: false, writer: writer.bare().into(), reader: reader.bare() };
        let made = readings.compile(key.clone(), &writer, Some(reader));
        assert_eq!(made.is_ok(), n % 2 == 1);
        assert!(readings.find(&key).is_some(), "the newest is kept");
        assert!(readings.weight() <= farcall_core::limits::READINGS);
    }
    assert!(readings.weight() > farcall_core::limits::READINGS / 2);
}

/// Serves a method that the peer may not call.
struct Guarded(One);

impl Catalogue for Guarded {
    fn find(&self, service: &str, group: &str, version: &str) -> Result<(usize, &ServiceDescriptor), RpcError> {
        self.0.find(service, group, version)
    }

    fn get(&self, place: usize) -> Option<&ServiceDescriptor> {
        self.0.get(place)
    }

    fn may_know(&self, _: usize, _: usize) -> Result<(), RpcError> {
        Err(RpcError::not_executed(Code::PermissionDenied, "it needs a role"))
    }
}

#[test]
fn who_may_not_call_a_method_is_not_told_its_types() {
    let catalogue = Guarded(One(service(vec![method::<(u32,), u8, Never>("a"), method::<(u32,), u8, Never>("b")])));
    let bind = Bind::of(&service(vec![method::<(u8,), u8, Never>("a"), method::<(u32,), u8, Never>("b")]));
    for hold in [false, true] {
        let mut side = Side::new(Vec::new(), &Limits::default());
        if hold {
            side.session.inbound.hold_differing();
        }
        let frame = Frame { header: Header::new(Kind::Bind, 0, 0, 1), payload: bind.encode().into() };
        let held = side.session.inbound.on_bind(&frame, &catalogue, &mut side.out).unwrap();
        assert!(held.rows.is_empty());
        let bound = frames(&side.take()).remove(0);
        let verdicts: Vec<Verdict> = compact::decode(&bound.payload).unwrap();
        assert_eq!(verdicts, [Verdict { row: 0, code: Code::PermissionDenied as u8, message: "it needs a role".into() }]);
    }
}
