//! Sending: items as their receiver gives credit, large bodies a fragment at a time.

use super::*;

impl<W> Outbound<W> {
    pub(in crate::outbound) fn check_streams(&self) -> Result<(), RpcError> {
        let (open, limit) = (self.flows.streams(), self.peer.streams as usize);
        match open < limit {
            true => Ok(()),
            false => {
                let why = format!("{open} streams are open on this connection, the provider's limit `streams` is {limit}");
                Err(RpcError::not_sent(Code::ResourceExhausted, why).with_stage(Stage::ClientQueue))
            }
        }
    }

    pub(in crate::outbound) fn open(&mut self, flow: Flow, body: Bytes) -> Sender {
        self.flows.serial += 1;
        let serial = self.flows.serial;
        let granted = Totals { bytes: self.peer.stream_bytes.into(), items: self.peer.stream_items.into() };
        self.flows.resting += body.len();
        let sending = Sending {
            serial,
            granted,
            sent: Totals::default(),
            head: Bytes::new(),
            body: !body.is_empty(),
            tail: body,
            in_turn: false,
            end: None,
            waiting: None,
        };
        self.flows.sending.insert(flow, sending);
        self.flows.turn(flow);
        Sender { flow, serial }
    }

    /// Sends the rest of a body behind its first frame.
    pub(in crate::outbound) fn send_body(&mut self, flow: Flow, rest: Bytes) {
        self.open(flow, rest);
    }

    /// Opens the stream of arguments of a call that was just started.
    pub fn open_args(&mut self, id: CallId) -> Sender {
        self.open(Flow::args(id.0), Bytes::new())
    }

    pub(super) fn sending(&mut self, at: Sender) -> Option<&mut Sending<W>> {
        self.flows.sending.get_mut(&at.flow).filter(|s| s.serial == at.serial)
    }

    /// Whether an item may be sent. `waiting` may look at who waits, and replace it: they are told
    /// when an item may be sent, and when none may any more.
    pub fn poll_sendable(&mut self, at: Sender, waiting: impl FnOnce(&mut Waiting<W>)) -> Sendable {
        let Some(s) = self.sending(at) else { return Sendable::Never };
        waiting(&mut s.waiting);
        match s.rest() == 0 && s.sent.items < s.granted.items && s.sent.bytes < s.granted.bytes {
            true => Sendable::Now,
            false => Sendable::Later,
        }
    }

    /// Sends an item, `head` and `tail` together, after [`poll_sendable`](Outbound::poll_sendable)
    /// said that one may be. What is left in `tail` afterwards was copied, or is not wanted. An item above
    /// the receiver's limit is refused, and nothing is sent.
    pub fn send_item(&mut self, at: Sender, head: &[u8], tail: &mut Bytes) -> Result<(), RpcError> {
        let (len, limit) = (head.len() + tail.len(), self.peer.body as usize);
        if len > limit {
            let why = format!("a stream item is {len} bytes, the receiver's limit `body` is {limit}");
            // The item was not sent, but the call that it belongs to was.
            return Err(RpcError::new(Code::ResourceExhausted, why).with_stage(Stage::Encode));
        }
        let Some(s) = self.sending(at) else { return Ok(()) };
        s.sent.items += 1;
        if len <= SMALL && s.sent.bytes + len as u64 <= s.granted.bytes {
            s.sent.bytes += len as u64;
            self.queue(at.flow.header(Kind::Data, 0, 0), &[head, tail]);
            return Ok(());
        }
        (s.head, s.tail) = (Bytes::copy_from_slice(head), std::mem::take(tail));
        self.flows.turn(at.flow);
        Ok(())
    }

    /// Ends a stream, after what is under way of its last item.
    pub fn end_items(&mut self, at: Sender, how: u16, payload: Vec<u8>) {
        let Some(s) = self.sending(at) else { return };
        if s.rest() > 0 {
            s.end = Some((how, payload));
            return;
        }
        self.flows.sending.remove(&at.flow);
        self.queue(at.flow.header(Kind::End, 0, how), &[&payload]);
        self.results_over(at.flow);
    }

    /// Breaks a stream or body off that we send. Says whether there was one.
    pub(in crate::outbound) fn break_off(&mut self, flow: Flow, error: &RpcError, wake: &mut Vec<W>) -> bool {
        if !self.forget_sending(flow, wake) {
            return false;
        }
        self.queue(flow.header(Kind::Reset, 0, NO_MORE), &[&Failure::from_error(error).encode()]);
        match flow.results {
            true => self.results_over(flow),
            false => self.sending_over(CallId(flow.call)),
        }
        true
    }

    /// Breaks off what we send of a call's arguments.
    #[cold]
    pub(in crate::outbound) fn break_off_args(&mut self, id: CallId, wake: &mut Vec<W>) {
        let error = RpcError::new(Code::Cancelled, "the call is over");
        self.break_off(Flow::args(id.0), &error, wake);
    }

    /// Stops sending without a word.
    pub(in crate::outbound) fn forget_sending(&mut self, flow: Flow, wake: &mut Vec<W>) -> bool {
        let Some(s) = self.flows.sending.remove(&flow) else { return false };
        self.flows.resting -= if s.body { s.rest() } else { 0 };
        self.flows.unsent.extend((!s.tail.is_empty()).then_some(s.tail));
        wake.extend(s.waiting);
        true
    }

    /// Moves fragments of what is large to `into`, whose bytes are written next: one of each flow by
    /// turns, up to about `budget` bytes. Says whether any were moved. What is queued must have been
    /// [taken](Outbound::take) before, into the same: a fragment must not overtake its call.
    pub fn pump(&mut self, into: &mut OutBuf, mut budget: usize, wake: &mut Vec<W>) -> bool {
        debug_assert!(self.out.is_empty(), "a fragment would overtake what is queued");
        let mut moved = false;
        while budget > 0 {
            let Some(flow) = self.flows.turns.pop_front() else { break };
            let least = self.peer.stream_bytes as u64 / 2;
            // An item that fits one frame goes in one: its reader gets it without a copy.
            let whole = WHOLE.min(self.peer.frame as usize);
            let Some(s) = self.flows.sending.get_mut(&flow) else { continue };
            s.in_turn = false;
            let (rest, mut credit) = (s.rest(), s.granted.bytes - s.sent.bytes);
            if s.body {
                // What was received is known from the credit that came back for it.
                let received = s.granted.bytes - u64::from(self.peer.stream_bytes);
                credit = credit.min((received + AHEAD).saturating_sub(s.sent.bytes));
            }
            // A fragment that is small only for want of credit is not worth a frame; once the receiver
            // has taken what it has, the credit is at least half of what it began with.
            let piece = if s.body || rest > whole { rest.min(FRAGMENT) } else { rest };
            if credit < (piece as u64).min(least) {
                continue;
            }
            let n = piece.min(credit as usize);
            let head = s.head.split_to(n.min(s.head.len()));
            let tail = s.tail.split_to(n - head.len());
            s.sent.bytes += n as u64;
            let (more, body) = (n < rest, s.body);
            let header = flow.header(Kind::Data, if more { flags::MORE } else { 0 }, 0);
            into.frame_with_segment(header, &[&head], tail);
            self.appended += (HEADER + n) as u64;
            self.taken = self.appended;
            self.flows.resting -= if s.body { n } else { 0 };
            budget = budget.saturating_sub(n);
            moved = true;
            match (more, body) {
                (true, _) => self.flows.turn(flow),
                (false, true) => self.body_sent(flow),
                (false, false) => self.item_sent(flow, into, wake),
            }
        }
        moved
    }

    pub(in crate::outbound) fn body_sent(&mut self, flow: Flow) {
        self.flows.sending.remove(&flow);
        if !flow.results {
            self.call_left_whole(CallId(flow.call));
        }
    }

    pub(in crate::outbound) fn item_sent(&mut self, flow: Flow, into: &mut OutBuf, wake: &mut Vec<W>) {
        let Some(s) = self.flows.sending.get_mut(&flow) else { return };
        wake.extend(s.waiting.take());
        if let Some((how, payload)) = s.end.take() {
            self.flows.sending.remove(&flow);
            // Not queued: fragments of others follow in this pump, and bytes are counted in the order in
            // which they are written.
            into.frame(flow.header(Kind::End, 0, how), &[&payload]);
            self.appended += (HEADER + payload.len()) as u64;
            self.taken = self.appended;
            self.results_over(flow);
        }
    }

    /// A Credit frame. Says whether it was for the whole connection.
    pub fn on_credit(&mut self, frame: &Frame, wake: &mut Vec<W>) -> Result<bool, Violation> {
        let (Some(bytes), Some(items)) = (frame.payload.first_chunk::<8>(), frame.payload.get(8..16)) else {
            return Err(Violation("a Credit frame that ends early".into()));
        };
        let items = items.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
        let granted = Totals { bytes: u64::from_le_bytes(*bytes), items };
        match frame.header.aux {
            0 => {
                self.credit = self.credit.max(granted.bytes);
                Ok(true)
            }
            OF_CALL => {
                let flow = Flow::of(frame.header);
                if let Some(s) = self.flows.sending.get_mut(&flow) {
                    s.granted.bytes = s.granted.bytes.max(granted.bytes);
                    s.granted.items = s.granted.items.max(granted.items);
                    if s.rest() == 0 {
                        wake.extend(s.waiting.take());
                    }
                    self.flows.turn(flow);
                }
                Ok(false)
            }
            other => Err(Violation(format!("a Credit frame for {other}, which is neither the connection nor a call"))),
        }
    }
}
