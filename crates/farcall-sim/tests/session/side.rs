//! One side: a session and what a driver keeps beside it, and everybody who uses them.

use std::collections::{HashMap, VecDeque};
use std::io::IoSlice;
use std::sync::{Arc, LazyLock};

use bytes::{Bytes, BytesMut};
use farcall_core::{Limits, MethodDescriptor, MethodTraits, Never, RpcError, Schema, ServiceDescriptor};
use farcall_wire::{CallId, Catalogue, OutBuf, Readings, Receiver, Request, Sendable, Sender, Session, Streams};

use crate::ledger::{Key, Who};
use crate::tap::{Line, Tap};

/// Methods of both sides, by row.
pub(crate) const ECHO: u16 = 0;
pub(crate) const NOTE: u16 = 1;
/// The sides do not agree on this one, and never will.
pub(crate) const ODD: u16 = 2;
pub(crate) const FOLD: u16 = 3;
pub(crate) const FOLLOW: u16 = 4;
pub(crate) const CHAT: u16 = 5;
/// Those of another version: the sides differ on them, and can read each other.
pub(crate) const GROWN_ECHO: u16 = 6;
pub(crate) const GROWN_NOTE: u16 = 7;
pub(crate) const GROWN_CHAT: u16 = 8;

pub(crate) fn is_oneway(method: u16) -> bool {
    matches!(method, NOTE | GROWN_NOTE)
}

/// Whether the arguments end with a stream, and whether the result is one.
pub(crate) fn streams(method: u16) -> Streams {
    Streams { args: matches!(method, FOLD | CHAT | GROWN_CHAT), results: matches!(method, FOLLOW | CHAT | GROWN_CHAT) }
}

const TWO_WAY: MethodTraits =
    MethodTraits { idempotent: false, oneway: false, cancel: false, blocking: false, args_stream: false, result_stream: false };
const METHODS: [(&str, MethodTraits); 9] = [
    ("echo", TWO_WAY),
    ("note", MethodTraits { oneway: true, ..TWO_WAY }),
    ("odd", TWO_WAY),
    ("fold", MethodTraits { args_stream: true, ..TWO_WAY }),
    ("follow", MethodTraits { result_stream: true, ..TWO_WAY }),
    ("chat", MethodTraits { args_stream: true, result_stream: true, ..TWO_WAY }),
    ("grown_echo", TWO_WAY),
    ("grown_note", MethodTraits { oneway: true, ..TWO_WAY }),
    ("grown_chat", MethodTraits { args_stream: true, result_stream: true, ..TWO_WAY }),
];

/// What a stream carries, and what it may end with.
type Items<T> = (T, ());

/// As callers have it, or as providers do, which is later.
fn service(later: bool) -> ServiceDescriptor {
    fn build<A: Schema, R: Schema>(name: &str, traits: MethodTraits) -> MethodDescriptor {
        MethodDescriptor::build::<A, R, Never>(name, None, "", &[], name, traits)
    }
    let method = |&(name, traits): &(&str, MethodTraits)| match (name, later) {
        ("odd", false) => build::<(String,), u64>(name, traits),
        ("grown_echo", false) => build::<(u8,), u16>(name, traits),
        ("grown_note", false) => build::<(u8,), ()>(name, traits),
        ("grown_note", true) => build::<(u32,), ()>(name, traits),
        ("grown_chat", false) => build::<((u8,), Items<u8>), Items<u16>>(name, traits),
        ("grown_chat", true) => build::<((u32,), Items<u32>), Items<u64>>(name, traits),
        ("fold", _) => build::<((u32,), Items<u32>), u64>(name, traits),
        ("follow", _) => build::<(u32,), Items<u32>>(name, traits),
        ("chat", _) => build::<((u32,), Items<u32>), Items<u32>>(name, traits),
        _ => build::<(u32,), u64>(name, traits),
    };
    ServiceDescriptor {
        name: "Echo".to_owned(),
        foreign_name: None,
        docs: String::new(),
        version: String::new(),
        group: String::new(),
        methods: METHODS.iter().map(method).collect(),
    }
}

pub(crate) struct One(&'static ServiceDescriptor);

impl Catalogue for One {
    fn get(&self, place: usize) -> Option<&ServiceDescriptor> {
        (place == 0).then_some(self.0)
    }

    fn find(&self, _: &str, _: &str, _: &str) -> Result<(usize, &ServiceDescriptor), RpcError> {
        Ok((0, self.0))
    }
}

/// A call that may have to wait for credit.
pub(crate) struct Plan {
    pub(crate) key: Key,
    pub(crate) method: u16,
    pub(crate) body: Bytes,
    pub(crate) segment: bool,
    pub(crate) deadline: Option<u64>,
}

/// Somebody who reads a stream.
pub(crate) struct Reader {
    pub(crate) at: Receiver,
    pub(crate) key: Key,
    pub(crate) line: Line,
    pub(crate) asleep: bool,
    /// The handler it belongs to.
    pub(crate) owner: Option<u32>,
}

/// Somebody who sends a stream.
pub(crate) struct Producer {
    pub(crate) to: Sender,
    pub(crate) key: Key,
    pub(crate) line: Line,
    pub(crate) asleep: bool,
    /// Items it sends, and how it ends then.
    pub(crate) items: u64,
    pub(crate) how: u16,
}

pub(crate) struct Handler {
    pub(crate) id: u32,
    pub(crate) oneway: bool,
    pub(crate) key: Key,
    pub(crate) method: u16,
    /// Dropped when its caller goes away.
    pub(crate) cancel: bool,
}

impl Handler {
    /// Streams flow beside its call.
    pub(crate) fn streamed(&self) -> bool {
        streams(self.method) != Streams::default()
    }
}

/// A call that was read and is not started.
pub(crate) struct Arrived {
    pub(crate) request: Request,
    pub(crate) args: Option<Receiver>,
    /// The order in which they came whole.
    pub(crate) serial: u64,
}

pub(crate) struct Side {
    who: usize,
    pub(crate) session: Session<Who>,
    pub(crate) limits: Limits,
    pub(crate) catalogue: One,
    /// What this side calls; some methods differ from what the other has.
    pub(crate) calls: &'static ServiceDescriptor,
    pub(crate) requests: OutBuf,
    pub(crate) replies: OutBuf,
    pub(crate) read: BytesMut,
    pub(crate) preface_read: bool,
    pub(crate) greeted: bool,
    pub(crate) draining: bool,
    /// Too much waits to be written: no call is started.
    pub(crate) full: bool,
    /// Calls whose callers still want an answer.
    pub(crate) waiting: Vec<(CallId, Key)>,
    /// Calls that wait for credit, and whether they have been told to look again.
    pub(crate) room: Vec<Plan>,
    pub(crate) room_awake: bool,
    pub(crate) backlog: VecDeque<Arrived>,
    /// Calls on rows that are held.
    pub(crate) held: Vec<Arrived>,
    /// The last call that was run of each row, and of all that came.
    pub(crate) last_run: HashMap<u16, u64>,
    pub(crate) serial: u64,
    pub(crate) handlers: Vec<Handler>,
    pub(crate) readers: Vec<Reader>,
    pub(crate) producers: Vec<Producer>,
    /// A copy of what was written, for the tap.
    pub(crate) written: BytesMut,
    pub(crate) max_frame: usize,
}

impl Side {
    pub(crate) fn new(who: usize, limits: &Limits) -> Side {
        static CALLS: LazyLock<ServiceDescriptor> = LazyLock::new(|| service(false));
        static SERVED: LazyLock<ServiceDescriptor> = LazyLock::new(|| service(true));
        static READINGS: LazyLock<Arc<Readings>> = LazyLock::new(Arc::default);
        let mut session = Session::new([who as u8; 16], 1, limits);
        session.differences.share(Arc::clone(&READINGS));
        let mut replies = OutBuf::default();
        replies.small().extend_from_slice(&Session::<Who>::opening(&session.hello));
        let max_frame = session.hello.limits.frame as usize;
        Side {
            who,
            session,
            limits: limits.clone(),
            catalogue: One(&SERVED),
            calls: &CALLS,
            requests: OutBuf::default(),
            replies,
            read: BytesMut::new(),
            preface_read: false,
            greeted: false,
            draining: false,
            full: false,
            waiting: Vec::new(),
            room: Vec::new(),
            room_awake: false,
            backlog: VecDeque::new(),
            held: Vec::new(),
            last_run: HashMap::new(),
            serial: 0,
            handlers: Vec::new(),
            readers: Vec::new(),
            producers: Vec::new(),
            written: BytesMut::new(),
            max_frame,
        }
    }

    /// Numbers of calls with streams that are over may be used again: nothing more may come or go
    /// under them.
    pub(crate) fn reap(&mut self, tap: &Tap) {
        let mut over = Vec::new();
        self.session.outbound.take_over(&mut over);
        for id in over {
            let call = (1 - self.who, id);
            assert!(!tap.is_open((call.0, call.1, false)), "the arguments of {id:#x} are not over");
            for producer in self.producers.iter().filter(|p| p.line == (call.0, call.1, true)) {
                let sendable = self.session.outbound.poll_sendable(producer.to, |_| {});
                assert_eq!(sendable, Sendable::Never, "the results of {id:#x} are not over");
            }
            self.session.inbound.finished(id, false);
        }
    }

    /// Takes over what is queued, as a driver does when it has written what it had.
    pub(crate) fn take_queued(&mut self, budget: usize, tap: &Tap, wake: &mut Vec<Who>) {
        let outbound = &mut self.session.outbound;
        let taken = outbound.take(&mut self.requests);
        let pumped = outbound.pump(&mut self.requests, budget, wake);
        self.room_awake |= taken || pumped;
        self.reap(tap);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
            && self.room.is_empty()
            && self.backlog.is_empty()
            && self.held.is_empty()
            && self.handlers.is_empty()
            && self.readers.is_empty()
            && self.producers.is_empty()
    }
}

/// The next bytes of `out`, at most `n`.
pub(crate) fn front(out: &OutBuf, n: usize) -> Vec<u8> {
    let mut slices = [IoSlice::new(&[]); 8];
    let count = out.slices(&mut slices);
    let mut bytes = Vec::new();
    for slice in &slices[..count] {
        bytes.extend_from_slice(&slice[..slice.len().min(n - bytes.len())]);
    }
    bytes
}
