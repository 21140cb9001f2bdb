//! The calls the peer made: its rows translated to our methods, which of its calls are running, and
//! how many it may still make.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use farcall_core::{Code, CodecId, Fingerprint, Limits, Reading, RpcError, compact};

use crate::failure::{Failure, cut};
use crate::frame::{Frame, HEADER, Header, Kind, Violation, flags, status};
use crate::hello::PeerLimits;
use crate::options::CallOptions;
use crate::outbound::{CALL_COST, STOP, Streams};
use crate::outbuf::OutBuf;
use crate::table::{Bind, Catalogue, MAX_ROWS, Parts, Texts, Verdict, agree};

/// A call to be run.
#[derive(Debug)]
pub struct Request {
    /// The peer's number; meaningless for a one-way call.
    pub id: u32,
    /// No reply is wanted.
    pub oneway: bool,
    /// Place of the service in the catalogue.
    pub service: u32,
    /// Row of the method in the service's own descriptor.
    pub method: u16,
    /// Row of the peer's table.
    pub row: u16,
    /// The two sides differ on that row: ask [`Inbound::difference`].
    pub differs: bool,
    /// Milliseconds until the caller's deadline, if it has one.
    pub deadline: Option<u32>,
    /// Metadata, trace and codec.
    pub options: CallOptions,
    /// The encoded arguments, or their first piece.
    pub body: Bytes,
    /// The rest of the body follows: hand the request to [`Inbound::hold`] until it is whole.
    pub more: bool,
    /// What flows beside the call.
    pub streams: Streams,
    /// What it took of the connection's credit, for [`Inbound::taken`].
    pub cost: u32,
    /// When it was read, on the driver's clock: what its deadline counts from.
    pub read_at: u64,
}

#[derive(Debug)]
enum Row {
    Method { service: u32, method: u16, oneway: bool, streams: Streams },
    Refused(Verdict),
    Differs { service: u32, method: u16, oneway: bool, streams: Streams, reading: Option<Arc<Reading>> },
}

/// What becomes of calls on a row on which the two sides differ.
#[derive(Debug)]
pub enum Difference {
    /// They wait until both sides can read each other.
    Held,
    /// They run, and their arguments are read so.
    Read(Arc<Reading>),
    /// They are refused.
    Refused(RpcError),
}

/// The rows of a binding of the peer's that are held.
#[derive(Debug)]
pub struct HeldRows {
    pub(crate) binding: u32,
    pub(crate) rows: Vec<HeldRow>,
}

#[derive(Debug)]
pub(crate) struct HeldRow {
    pub(crate) row: u16,
    pub(crate) service: u32,
    pub(crate) method: u16,
    /// As the peer has it.
    pub(crate) args: Fingerprint,
    pub(crate) differs: Parts,
}

/// A parked call: its full number and the driver's token for it.
#[derive(Debug, Clone, Copy)]
struct Parked {
    id: u32,
    token: usize,
}

/// See the module's text.
#[derive(Debug)]
pub struct Inbound {
    rows: Vec<Row>,
    parked: Vec<Option<Parked>>,
    running: usize,
    accepted: u64,
    limits: Limits,
    /// Slots that a caller who keeps to our limits may use.
    slots: usize,
    draining: bool,
    /// Rows on which the sides differ are held, not refused.
    holds: bool,
    /// Calls whose bodies are not whole.
    partial: HashMap<u32, Request>,
    /// Of the credit of the connection: cost of the calls that came, of those that were taken, and what
    /// we gave.
    received: u64,
    taken: u64,
    granted: u64,
    window: u64,
}

/// The token of a call that is not parked but whose number is in use.
const NO_TOKEN: usize = usize::MAX;
/// The token of a call that waits to be started.
const QUEUED: usize = usize::MAX - 1;

impl Inbound {
    /// Nothing bound, nothing running.
    pub fn new(limits: Limits) -> Inbound {
        // A caller that did not have our hello yet kept to the first limits.
        let slots = limits.in_flight.max(PeerLimits::BEFORE_HELLO.in_flight as usize);
        let window = PeerLimits::of(&limits).credit.into();
        Inbound {
            rows: Vec::new(),
            parked: Vec::new(),
            running: 0,
            accepted: 0,
            limits,
            slots,
            draining: false,
            holds: false,
            partial: HashMap::new(),
            received: 0,
            taken: 0,
            granted: window,
            window,
        }
    }

    /// From now on rows on which the sides differ are held, to be resolved, and not refused.
    pub fn hold_differing(&mut self) {
        self.holds = true;
    }

    /// A Bind frame: looks the rows up and answers with Bound. Returns the rows that are held.
    pub fn on_bind(&mut self, frame: &Frame, catalogue: &impl Catalogue, out: &mut OutBuf) -> Result<HeldRows, Violation> {
        let Header { id, aux: first, .. } = frame.header;
        let bind = Bind::decode(&frame.payload).map_err(|e| Violation(format!("a Bind frame that cannot be read: {e}")))?;
        if first as usize != self.rows.len() {
            return Err(Violation(format!("a Bind frame for rows from {first}, the next row is {}", self.rows.len())));
        }
        bind.check()?;
        let limit = self.limits.bound_methods.clamp(PeerLimits::BEFORE_HELLO.bound_methods as usize, MAX_ROWS);
        if self.rows.len() + bind.rows.len() > limit {
            return Err(Violation(format!("more than {limit} methods bound on one connection (limit `bound_methods`)")));
        }
        let found = match bind.extra.iter().find(|(tag, _)| tag % 2 == 0) {
            Some((tag, _)) => {
                Err(RpcError::new(Code::Unimplemented, format!("binding option {tag} is not known here and may not be skipped")))
            }
            None => catalogue.find(&bind.service, &bind.group, &bind.version),
        };
        let (mut verdicts, mut texts, mut held) = (Vec::new(), Texts::new(), Vec::new());
        for wanted in &bind.rows {
            let row = self.rows.len() as u16;
            let agreed = match &found {
                Ok((index, service)) => match agree(wanted, service, self.holds) {
                    Ok((method, differs)) if differs == Parts::default() => Ok((*index as u32, method, differs)),
                    other => match service.method(&wanted.name).map_or(Ok(()), |(method, _)| catalogue.may_know(*index, method)) {
                        Ok(()) => other.map(|(method, differs)| (*index as u32, method, differs)),
                        Err(e) => Err((e.code(), e.message().to_owned())),
                    }
                    .map_err(|(code, why)| (code, texts.cut(&why))),
                },
                Err(e) => Err((e.code(), texts.cut(e.message()))),
            };
            let (oneway, streams) = (wanted.bits & 1 == 1, wanted.streams());
            self.rows.push(match agreed {
                Ok((service, method, differs)) if differs == Parts::default() => Row::Method { service, method, oneway, streams },
                Ok((service, method, differs)) => {
                    verdicts.push(Verdict { row, code: 0, message: String::new() });
                    held.push(HeldRow { row, service, method, args: wanted.args, differs });
                    Row::Differs { service, method, oneway, streams, reading: None }
                }
                Err((code, message)) => {
                    let verdict = Verdict { row, code: code as u8, message };
                    verdicts.push(verdict.clone());
                    Row::Refused(verdict)
                }
            });
        }
        let payload = match verdicts.is_empty() {
            true => Vec::new(),
            false => compact::encode(&verdicts).unwrap_or_default(),
        };
        out.frame(Header::new(Kind::Bound, 0, !verdicts.is_empty() as u16, id), &[&payload]);
        Ok(HeldRows { binding: id, rows: held })
    }

    /// What has been decided of a row that was held.
    pub fn settle(&mut self, row: u16, settled: Result<Arc<Reading>, Verdict>) {
        let Some(at @ Row::Differs { .. }) = self.rows.get_mut(row as usize) else { return };
        match (settled, at) {
            (Ok(new), Row::Differs { reading, .. }) => *reading = Some(new),
            (Err(verdict), at) => *at = Row::Refused(verdict),
            (Ok(_), _) => {}
        }
    }

    /// What becomes of calls on a row on which the two sides differ.
    pub fn difference(&self, row: u16) -> Difference {
        match self.rows.get(row as usize) {
            Some(Row::Differs { reading: Some(reading), .. }) => Difference::Read(Arc::clone(reading)),
            Some(Row::Refused(verdict)) => Difference::Refused(verdict.to_error()),
            Some(Row::Differs { reading: None, .. } | Row::Method { .. }) | None => Difference::Held,
        }
    }

    /// A Call frame. What cannot run is answered at once; what can is returned and counts as running
    /// until [`finished`](Inbound::finished).
    #[inline]
    pub fn on_call(&mut self, frame: Frame, now: u64, out: &mut OutBuf) -> Result<Option<Request>, Violation> {
        let Header { flags: bits, aux: row, id, len, .. } = frame.header;
        let cost = len.saturating_add(CALL_COST as u32);
        let mut body = frame.payload;
        let oneway = bits & flags::ONEWAY != 0;
        if self.draining {
            // Later than the number in our GoAway: its sender knows that it was not executed.
            return Ok(None);
        }
        // What is not started yet is kept in memory; this is what bounds it.
        self.received += u64::from(cost);
        if self.received > self.granted {
            return Err(beyond_credit(self.received, self.granted));
        }
        let (slot, more) = ((id & 0xffff) as usize, bits & flags::MORE != 0);
        if (!oneway || more) && (slot >= self.slots || self.parked.get(slot).is_some_and(|p| p.is_some())) {
            return Err(bad_slot(id, self.slots));
        }
        let Some(deadline) = body.first_chunk::<4>().map(|d| u32::from_le_bytes(*d)) else {
            return Err(Violation("a Call frame without its deadline".into()));
        };
        bytes::Buf::advance(&mut body, 4);
        if bits & !flags::CALL != 0 {
            return Err(Violation(format!("a call with flags {bits:#04x}, which are not in this protocol version")));
        }
        let as_bound = |declared: bool, streams: Streams| {
            declared == oneway && streams.args == (bits & flags::STREAM != 0) && bits & flags::TARGET == 0
        };
        let (service, method, streams, differs) = match self.rows.get(row as usize) {
            Some(Row::Method { service, method, oneway, streams }) if as_bound(*oneway, *streams) => (*service, *method, *streams, false),
            Some(Row::Differs { service, method, oneway, streams, .. }) if as_bound(*oneway, *streams) => {
                (*service, *method, *streams, true)
            }
            other => {
                let error = refusal(bits, row, other)?;
                self.accepted += 1;
                return Ok(self.refuse(id, bits, cost, &error, out));
            }
        };
        // From here on it is a call by the rules, whether it can be run or not: it has a number.
        self.accepted += 1;
        if self.running >= self.limits.in_flight {
            let why = format!("{} calls of this connection are running here, the limit `in_flight`", self.running);
            return Ok(self.refuse(id, bits, cost, &RpcError::not_executed(Code::ResourceExhausted, why), out));
        }
        let options = match bits & flags::OPTIONS {
            0 => CallOptions::default(),
            _ => match CallOptions::take(&mut body, self.limits.metadata) {
                Ok(options) => options,
                Err(error) => return Ok(self.refuse(id, bits, cost, &error, out)),
            },
        };
        if differs && !matches!(options.codec, CodecId::Compact | CodecId::Json) {
            return Ok(self.refuse(id, bits, cost, &unplanned(options.codec), out));
        }
        if body.len() > self.limits.body {
            let why = format!("the arguments are {} bytes, the limit `body` is {}", body.len(), self.limits.body);
            return Ok(self.refuse(id, bits, cost, &RpcError::not_executed(Code::ResourceExhausted, why), out));
        }
        self.running += 1;
        let deadline = (deadline != 0).then_some(deadline);
        Ok(Some(Request { id, oneway, service, method, row, differs, deadline, options, body, more, streams, cost, read_at: now }))
    }

    #[cold]
    fn refuse(&mut self, id: u32, bits: u8, cost: u32, error: &RpcError, out: &mut OutBuf) -> Option<Request> {
        self.taken(cost);
        match (bits & flags::ONEWAY != 0, bits & flags::MORE != 0) {
            (false, _) => reply_failure(out, id, error),
            (true, true) => stop_args(out, id, error),
            (true, false) => {}
        }
        None
    }

    /// Refuses the call that is held under this number, if there is one.
    #[cold]
    pub fn refuse_held(&mut self, id: u32, error: &RpcError, out: &mut OutBuf) -> bool {
        let Some(request) = self.held(id) else { return false };
        let bits = flags::MORE | if request.oneway { flags::ONEWAY } else { 0 };
        self.finished(id, request.oneway);
        self.refuse(id, bits, request.cost, error, out);
        true
    }

    /// A withdrawn call: it has a number and nothing else.
    pub fn on_void(&mut self) {
        // What we said in our GoAway stands.
        self.accepted += !self.draining as u64;
    }

    /// Keeps a call whose body is not whole; its number is in use.
    pub fn hold(&mut self, request: Request) {
        self.park(request.id, NO_TOKEN);
        self.partial.insert(request.id, request);
    }

    /// The call that was held under this number, if there is one. Its body is as it was.
    pub fn held(&mut self, id: u32) -> Option<Request> {
        let request = self.partial.remove(&id)?;
        // A two-way call's number stays in use until it is parked otherwise, or answered.
        if request.oneway {
            self.parked[(id & 0xffff) as usize] = None;
        }
        Some(request)
    }

    /// A call left the queue to its handler, or was refused: its cost may be spent again.
    #[inline]
    pub fn taken(&mut self, cost: u32) {
        self.taken += u64::from(cost);
    }

    /// What the calls cost that were taken.
    pub fn taken_so_far(&self) -> u64 {
        self.taken
    }

    /// Gives the peer new credit for calls if half of what it had is used.
    #[inline]
    pub fn return_credit(&mut self, out: &mut OutBuf) {
        if self.taken + self.window - self.granted >= self.window / 2 {
            self.granted = self.taken + self.window;
            out.frame(Header::new(Kind::Credit, 0, 0, 0), &[&self.granted.to_le_bytes(), &[0; 8]]);
        }
    }

    /// A call waits to be started; its number is in use.
    pub fn queue(&mut self, id: u32) {
        self.park(id, QUEUED);
    }

    /// Whether the call of this number waits to be started.
    pub fn is_queued(&self, id: u32) -> bool {
        self.parked.get((id & 0xffff) as usize).copied().flatten().is_some_and(|p| p.id == id && p.token == QUEUED)
    }

    /// A call's number stays in use although its handler has ended, or is kept elsewhere.
    pub fn occupy(&mut self, id: u32) {
        self.park(id, NO_TOKEN);
    }

    /// A call could not end at once: the driver keeps it under `token`.
    pub fn park(&mut self, id: u32, token: usize) {
        let slot = (id & 0xffff) as usize;
        if self.parked.len() <= slot {
            self.parked.resize(slot + 1, None);
        }
        self.parked[slot] = Some(Parked { id, token });
    }

    /// A Cancel frame: the token of the call it means, if that still runs.
    pub fn on_cancel(&self, id: u32) -> Option<usize> {
        self.parked.get((id & 0xffff) as usize).copied().flatten().filter(|p| p.id == id && p.token < QUEUED).map(|p| p.token)
    }

    /// A call has ended and, if it was two-way, its reply is queued.
    #[inline]
    pub fn finished(&mut self, id: u32, oneway: bool) {
        self.running -= 1;
        if !oneway && let Some(parked) = self.parked.get_mut((id & 0xffff) as usize) {
            *parked = None;
        }
    }

    /// Calls running now.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Stops taking calls and queues the GoAway that says which was the last.
    pub fn drain(&mut self, reason: &RpcError, out: &mut OutBuf) {
        if !std::mem::replace(&mut self.draining, true) {
            go_away(self.accepted, reason, out);
        }
    }

    /// Calls that arrived, withdrawn and refused ones included.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// The limits we announced.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

#[cold]
fn refusal(bits: u8, row: u16, found: Option<&Row>) -> Result<RpcError, Violation> {
    let unbuilt = |what: &str| Ok(RpcError::not_executed(Code::Unimplemented, format!("{what} are not built in this version")));
    match (bits & flags::TARGET, found) {
        (flags::TARGET_OBJECT, _) => unbuilt("calls on remote objects"),
        (flags::TARGET_ANSWER, _) => unbuilt("calls on results that are not there yet"),
        (flags::TARGET_METHOD, Some(Row::Refused(verdict))) => Ok(verdict.to_error()),
        (flags::TARGET_METHOD, Some(Row::Method { .. } | Row::Differs { .. })) => Ok(RpcError::not_executed(
            Code::FailedPrecondition,
            "the call is one-way or has a stream of arguments, and its binding says otherwise",
        )),
        (flags::TARGET_METHOD, None) => Err(Violation(format!("a call on row {row}, which is not bound"))),
        _ => Err(Violation(format!("a call with flags {bits:#04x}, which are not in this protocol version"))),
    }
}

/// A codec without names, and without plans.
#[cold]
fn unplanned(codec: CodecId) -> RpcError {
    let why = format!(
        "the types of caller and provider differ on this method, and only compact and JSON are read in another version: \
         call without the codec {codec}, or build both from the same types"
    );
    RpcError::not_executed(Code::FailedPrecondition, why)
}

#[cold]
fn beyond_credit(received: u64, granted: u64) -> Violation {
    Violation(format!("calls that cost {received} of the connection's credit, which is {granted} (limit `credit`)"))
}

#[cold]
fn bad_slot(id: u32, slots: usize) -> Violation {
    match (id & 0xffff) as usize >= slots {
        true => Violation(format!("call {id:#x} uses slot {}, the limit `in_flight` is {slots}", id & 0xffff)),
        false => Violation(format!("call {id:#x} uses a slot whose call is still running")),
    }
}

/// Queues a GoAway.
pub(crate) fn go_away(last: u64, reason: &RpcError, out: &mut OutBuf) {
    let header = Header::new(Kind::GoAway, 0, 0, 0);
    let why = cut(reason.message(), farcall_core::limits::ERROR_MESSAGE);
    out.frame(header, &[&last.to_le_bytes(), &[reason.code() as u8], why.as_bytes()]);
}

/// Opens a Reply in `out`, whose body is then appended; returns where it starts, for [`end_reply`].
#[inline]
pub fn begin_reply(out: &mut Vec<u8>, id: u32, status: u16) -> usize {
    let start = out.len();
    out.extend_from_slice(&Header::new(Kind::Reply, 0, status, id).to_bytes());
    start
}

/// Closes the Reply that starts at `start`; its length is what was appended since.
#[inline]
pub fn end_reply(out: &mut [u8], start: usize) {
    let len = (out.len() - start - HEADER) as u32;
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
}

/// Tells the caller of a call without a reply to send no more of it.
#[cold]
fn stop_args(out: &mut OutBuf, id: u32, error: &RpcError) {
    out.frame(Header::new(Kind::Reset, 0, STOP, id), &[&Failure::from_error(error).encode()]);
}

/// Queues a Reply that is a system error.
#[cold]
pub fn reply_failure(out: &mut OutBuf, id: u32, error: &RpcError) {
    let body = Failure::from_error(error).encode();
    out.frame(Header::new(Kind::Reply, 0, status::FAILURE, id), &[&body]);
}

#[cfg(test)]
mod tests;
