//! One side: a session and what a driver keeps beside it, and everybody who uses them.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Bytes, BytesMut};
use farcall_core::{Limits, MethodDescriptor, MethodTraits, Never, RpcError, ServiceDescriptor};
use farcall_wire::{CallId, Catalogue, OutBuf, Receiver, Request, Sendable, Sender, Session};

use crate::ledger::{Key, Who};
use crate::tap::{Line, Tap};

/// Methods of both sides, by row.
pub(crate) const ECHO: u16 = 0;
pub(crate) const NOTE: u16 = 1;
/// The sides do not agree on this one.
pub(crate) const ODD: u16 = 2;
pub(crate) const FOLD: u16 = 3;
pub(crate) const FOLLOW: u16 = 4;
pub(crate) const CHAT: u16 = 5;

const TWO_WAY: MethodTraits =
    MethodTraits { idempotent: false, oneway: false, cancel: false, blocking: false, args_stream: false, result_stream: false };
const METHODS: [(&str, MethodTraits); 6] = [
    ("echo", TWO_WAY),
    ("note", MethodTraits { oneway: true, ..TWO_WAY }),
    ("odd", TWO_WAY),
    ("fold", MethodTraits { args_stream: true, ..TWO_WAY }),
    ("follow", MethodTraits { result_stream: true, ..TWO_WAY }),
    ("chat", MethodTraits { args_stream: true, result_stream: true, ..TWO_WAY }),
];

fn service() -> ServiceDescriptor {
    let method = |&(name, traits): &(&str, MethodTraits)| MethodDescriptor::build::<(u32,), u64, Never>(name, None, "", &[], name, traits);
    ServiceDescriptor {
        name: "Echo".to_owned(),
        foreign_name: None,
        docs: String::new(),
        version: String::new(),
        group: String::new(),
        methods: METHODS.iter().map(method).collect(),
    }
}

pub(crate) struct One(ServiceDescriptor);

impl Catalogue for One {
    fn find(&self, _: &str, _: &str, _: &str) -> Result<(usize, &ServiceDescriptor), RpcError> {
        Ok((0, &self.0))
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
        matches!(self.method, FOLD | FOLLOW | CHAT)
    }
}

/// A call that was read and is not started.
pub(crate) struct Arrived {
    pub(crate) request: Request,
    pub(crate) args: Option<Receiver>,
}

pub(crate) struct Side {
    who: usize,
    pub(crate) session: Session<Who>,
    pub(crate) limits: Limits,
    pub(crate) catalogue: One,
    /// What this side calls; one method differs from what the other has.
    pub(crate) calls: ServiceDescriptor,
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
    pub(crate) handlers: Vec<Handler>,
    pub(crate) readers: Vec<Reader>,
    pub(crate) producers: Vec<Producer>,
    /// A copy of what was written, for the tap.
    pub(crate) written: BytesMut,
    pub(crate) max_frame: usize,
}

impl Side {
    pub(crate) fn new(who: usize, limits: &Limits) -> Side {
        let mut calls = service();
        calls.methods[ODD as usize].prints.args.0[0] ^= 1;
        let session = Session::new([who as u8; 16], 1, limits);
        let mut replies = OutBuf::default();
        replies.small().extend_from_slice(&Session::<Who>::opening(&session.hello));
        let max_frame = session.hello.limits.frame as usize;
        Side {
            who,
            session,
            limits: limits.clone(),
            catalogue: One(service()),
            calls,
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
