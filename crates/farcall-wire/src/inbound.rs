//! The calls the peer made: its rows translated to our methods, which of its calls are running, and
//! how many it may still make.

use bytes::Bytes;
use farcall_core::{Code, Limits, RpcError, compact};

use crate::failure::{Failure, cut};
use crate::frame::{Frame, HEADER, Header, Kind, Violation, flags, status};
use crate::hello::PeerLimits;
use crate::options::CallOptions;
use crate::outbuf::OutBuf;
use crate::table::{Bind, Catalogue, MAX_ROWS, Texts, Verdict, agree};

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
    /// Milliseconds until the caller's deadline, if it has one.
    pub deadline: Option<u32>,
    /// Metadata, trace and codec.
    pub options: CallOptions,
    /// The encoded arguments.
    pub body: Bytes,
}

#[derive(Debug)]
enum Row {
    Method { service: u32, method: u16, oneway: bool },
    Refused(Verdict),
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
}

impl Inbound {
    /// Nothing bound, nothing running.
    pub fn new(limits: Limits) -> Inbound {
        // A caller that did not have our hello yet kept to the first limits.
        let slots = limits.in_flight.max(PeerLimits::BEFORE_HELLO.in_flight as usize);
        Inbound { rows: Vec::new(), parked: Vec::new(), running: 0, accepted: 0, limits, slots, draining: false }
    }

    /// A Bind frame: looks the rows up and answers with Bound.
    pub fn on_bind(&mut self, frame: &Frame, catalogue: &impl Catalogue, out: &mut OutBuf) -> Result<(), Violation> {
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
        let (mut verdicts, mut texts) = (Vec::new(), Texts::new());
        for wanted in &bind.rows {
            let row = self.rows.len() as u16;
            let agreed = match &found {
                Ok((index, service)) => match agree(wanted, service) {
                    Ok(method) => Ok((*index as u32, method)),
                    Err((code, why)) => Err((code, texts.cut(&why))),
                },
                Err(e) => Err((e.code(), texts.cut(e.message()))),
            };
            self.rows.push(match agreed {
                Ok((service, method)) => Row::Method { service, method, oneway: wanted.bits & 1 == 1 },
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
        Ok(())
    }

    /// A Call frame. What cannot run is answered at once; what can is returned and counts as running
    /// until [`finished`](Inbound::finished).
    #[inline]
    pub fn on_call(&mut self, frame: Frame, out: &mut OutBuf) -> Result<Option<Request>, Violation> {
        let Header { flags: bits, aux: row, id, .. } = frame.header;
        let mut body = frame.payload;
        let oneway = bits & flags::ONEWAY != 0;
        if self.draining {
            // Later than the number in our GoAway: its sender knows that it was not executed.
            return Ok(None);
        }
        let slot = (id & 0xffff) as usize;
        if !oneway && (slot >= self.slots || self.parked.get(slot).is_some_and(|p| p.is_some())) {
            return Err(bad_slot(id, self.slots));
        }
        let Some(deadline) = body.first_chunk::<4>().map(|d| u32::from_le_bytes(*d)) else {
            return Err(Violation("a Call frame without its deadline".into()));
        };
        bytes::Buf::advance(&mut body, 4);
        if bits & !flags::CALL != 0 {
            return Err(Violation(format!("a call with flags {bits:#04x}, which are not in this protocol version")));
        }
        let (service, method) = match self.rows.get(row as usize) {
            Some(Row::Method { service, method, oneway: declared })
                if *declared == oneway && bits & !(flags::OPTIONS | flags::ONEWAY) == 0 =>
            {
                (*service, *method)
            }
            other => {
                let error = refusal(bits, row, other)?;
                self.accepted += 1;
                return Ok(self.refuse(id, oneway, &error, out));
            }
        };
        // From here on it is a call by the rules, whether it can be run or not: it has a number.
        self.accepted += 1;
        if self.running >= self.limits.in_flight {
            let why = format!("{} calls of this connection are running here, the limit `in_flight`", self.running);
            return Ok(self.refuse(id, oneway, &RpcError::not_executed(Code::ResourceExhausted, why), out));
        }
        let options = match bits & flags::OPTIONS {
            0 => CallOptions::default(),
            _ => match CallOptions::take(&mut body, self.limits.metadata) {
                Ok(options) => options,
                Err(error) => return Ok(self.refuse(id, oneway, &error, out)),
            },
        };
        if body.len() > self.limits.body {
            let why = format!("the arguments are {} bytes, the limit `body` is {}", body.len(), self.limits.body);
            return Ok(self.refuse(id, oneway, &RpcError::not_executed(Code::ResourceExhausted, why), out));
        }
        self.running += 1;
        let deadline = (deadline != 0).then_some(deadline);
        Ok(Some(Request { id, oneway, service, method, deadline, options, body }))
    }

    #[cold]
    fn refuse(&mut self, id: u32, oneway: bool, error: &RpcError, out: &mut OutBuf) -> Option<Request> {
        if !oneway {
            reply_failure(out, id, error);
        }
        None
    }

    /// A withdrawn call: it has a number and nothing else.
    pub fn on_void(&mut self) {
        // What we said in our GoAway stands.
        self.accepted += !self.draining as u64;
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
        self.parked.get((id & 0xffff) as usize).copied().flatten().filter(|p| p.id == id).map(|p| p.token)
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
        _ if bits & flags::MORE != 0 => unbuilt("bodies in fragments"),
        _ if bits & flags::STREAM != 0 => unbuilt("streams"),
        (flags::TARGET_METHOD, Some(Row::Refused(verdict))) => Ok(verdict.to_error()),
        (flags::TARGET_METHOD, Some(Row::Method { .. })) => {
            Ok(RpcError::not_executed(Code::FailedPrecondition, "one side calls this method one-way, the other two-way"))
        }
        (flags::TARGET_METHOD, None) => Err(Violation(format!("a call on row {row}, which is not bound"))),
        _ => Err(Violation(format!("a call with flags {bits:#04x}, which are not in this protocol version"))),
    }
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

/// Queues a Reply that is a system error.
#[cold]
pub fn reply_failure(out: &mut OutBuf, id: u32, error: &RpcError) {
    let body = Failure::from_error(error).encode();
    out.frame(Header::new(Kind::Reply, 0, status::FAILURE, id), &[&body]);
}

#[cfg(test)]
mod tests;
