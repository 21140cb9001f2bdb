//! Receiving: items to their readers, pieces put together, credit given back.

use super::*;

impl<W> Outbound<W> {
    pub(in crate::outbound) fn receive(&mut self, flow: Flow, discarded: bool) -> Receiver {
        self.flows.serial += 1;
        let serial = self.flows.serial;
        let receiving = Receiving {
            serial,
            flow,
            granted: self.window,
            received: Totals::default(),
            taken: Totals::default(),
            partial: None,
            items: VecDeque::new(),
            end: None,
            discarded,
            waiting: None,
        };
        let index = match self.flows.free.pop() {
            Some(index) => {
                self.flows.receiving[index as usize] = Some(receiving);
                index
            }
            None => {
                self.flows.receiving.push(Some(receiving));
                self.flows.receiving.len() as u32 - 1
            }
        };
        self.flows.by_flow.insert(flow, index);
        Receiver { index, serial }
    }

    /// The stream of results of one of our calls begins.
    pub(in crate::outbound) fn receive_results(&mut self, id: CallId, discarded: bool) -> Receiver {
        self.receive(Flow::results(id.0), discarded)
    }

    /// A body in fragments begins with these bytes.
    pub(crate) fn assemble(&mut self, flow: Flow, status: u16, first: &Bytes, discarded: bool) {
        let bytes = if discarded { Vec::new() } else { first.to_vec() };
        self.flows.held += if flow.results { 0 } else { bytes.len() };
        self.flows.assembling.insert(flow, Assembly { status, bytes, received: 0, granted: self.window.bytes, discarded });
    }

    /// The arguments of a call that the peer made begin with these bytes.
    pub fn assemble_args(&mut self, id: u32, first: &Bytes) {
        self.assemble(Flow::args(id), status::OK, first, false);
    }

    /// Nobody wants the rest of a call's arguments.
    pub fn forget_args(&mut self, id: u32) {
        if let Some(body) = self.flows.assembling.remove(&Flow::args(id)) {
            self.flows.held -= body.bytes.len();
        }
    }

    /// A body that is under way to us is not wanted any more; what comes of it is thrown away.
    pub(in crate::outbound) fn discard_results(&mut self, id: CallId) {
        if let Some(body) = self.flows.assembling.get_mut(&Flow::results(id.0)) {
            (body.discarded, body.bytes) = (true, Vec::new());
        }
    }

    /// A Data frame. Data of flows that are not there belongs to calls that were withdrawn, refused
    /// or broken off, and is thrown away.
    pub fn on_data(&mut self, frame: Frame, limits: &Limits, wake: &mut Vec<W>) -> Result<Delivered, Violation> {
        let flow = Flow::of(frame.header);
        let more = match frame.header.flags & !flags::RESULTS {
            0 => false,
            flags::MORE => true,
            other => return Err(Violation(format!("a Data frame with flags {other:#04x}, which are not in this protocol version"))),
        };
        if self.flows.assembling.contains_key(&flow) {
            return self.on_piece(flow, &frame.payload, more, limits, wake);
        }
        self.on_item(flow, frame.payload, more, limits.body, wake)?;
        Ok(Delivered::Nothing)
    }

    pub(in crate::outbound) fn on_piece(
        &mut self,
        flow: Flow,
        piece: &Bytes,
        more: bool,
        limits: &Limits,
        wake: &mut Vec<W>,
    ) -> Result<Delivered, Violation> {
        let window = self.window.bytes;
        let Some(body) = self.flows.assembling.get_mut(&flow) else { return Ok(Delivered::Nothing) };
        body.received += piece.len() as u64;
        if body.received > body.granted {
            return Err(beyond_credit("a body", body.received, body.granted));
        }
        if !body.discarded {
            if body.bytes.len() + piece.len() > limits.body {
                return Err(Violation(format!("a body in fragments of more than {} bytes, the limit `body`", limits.body)));
            }
            if !flow.results {
                if self.flows.held + piece.len() > limits.held.max(limits.body) {
                    self.forget_args(flow.call);
                    return Ok(Delivered::TooMuch(flow.call));
                }
                self.flows.held += piece.len();
            }
            body.bytes.extend_from_slice(piece);
        }
        if more {
            // Put together at once, so credit comes back at once: what bounds bodies is `body`. Nobody
            // needs more of what is thrown away.
            if !body.discarded && body.received + window - body.granted >= (FRAGMENT as u64).min(window / 2) {
                body.granted = body.received + window;
                let total = Totals { bytes: body.granted, items: 0 };
                self.give_credit(flow, total);
            }
            return Ok(Delivered::Nothing);
        }
        let Some(body) = self.flows.assembling.remove(&flow) else { return Ok(Delivered::Nothing) };
        let bytes = Bytes::from(body.bytes);
        if flow.results {
            self.answer_whole(CallId(flow.call), body.status, bytes, wake)?;
            return Ok(Delivered::Nothing);
        }
        self.flows.held -= bytes.len();
        Ok(Delivered::Arguments(flow.call, bytes))
    }

    pub(in crate::outbound) fn on_item(
        &mut self,
        flow: Flow,
        payload: Bytes,
        more: bool,
        limit: usize,
        wake: &mut Vec<W>,
    ) -> Result<(), Violation> {
        let Some(r) = self.flows.by_flow(flow) else { return Ok(()) };
        r.received.bytes += payload.len() as u64;
        r.received.items += u64::from(r.partial.is_none());
        if r.received.bytes > r.granted.bytes {
            return Err(beyond_credit("a stream", r.received.bytes, r.granted.bytes));
        }
        if r.received.items > r.granted.items {
            let (sent, granted) = (r.received.items, r.granted.items);
            return Err(Violation(format!("a stream of {sent} items, of which {granted} have credit")));
        }
        if r.discarded {
            r.partial = more.then(Vec::new);
            return Ok(());
        }
        let whole = match (&mut r.partial, more) {
            (None, false) => payload,
            (partial, _) => {
                let partial = partial.get_or_insert_default();
                if partial.len() + payload.len() > limit {
                    return Err(Violation(format!("a stream item of more than {limit} bytes, the limit `body`")));
                }
                partial.extend_from_slice(&payload);
                if more {
                    self.return_credit(flow);
                    return Ok(());
                }
                r.partial.take().unwrap_or_default().into()
            }
        };
        // A slice of the read buffer keeps all of it: a reader that is behind must not keep many.
        let whole = match r.items.len() >= UNCOPIED && whole.len() <= SMALL {
            true => Bytes::copy_from_slice(&whole),
            false => whole,
        };
        r.items.push_back(whole);
        wake.extend(r.waiting.take());
        Ok(())
    }

    pub(in crate::outbound) fn give_credit(&mut self, flow: Flow, total: Totals) {
        let header = flow.header(Kind::Credit, 0, OF_CALL);
        self.queue(header, &[&total.bytes.to_le_bytes(), &total.items.to_le_bytes()]);
    }

    /// Gives the sender new credit if half of it is used: for what was taken, and for an item that
    /// is not whole and could not become so otherwise.
    pub(in crate::outbound) fn return_credit(&mut self, flow: Flow) {
        let window = self.window;
        let Some(r) = self.flows.by_flow(flow).filter(|r| !r.discarded) else { return };
        let used = r.taken.bytes + r.partial.as_ref().map_or(0, |p| p.len() as u64);
        let next = Totals { bytes: r.granted.bytes.max(used + window.bytes), items: r.taken.items + window.items };
        if next.bytes - r.granted.bytes >= window.bytes / 2 || next.items - r.granted.items >= window.items / 2 {
            r.granted = next;
            self.give_credit(flow, next);
        }
    }

    /// The next item of a stream, if it is here. Otherwise `waiting` may look at who waits, and
    /// replace it. After anything but an item the stream is over and gone.
    pub fn poll_item(&mut self, at: Receiver, waiting: impl FnOnce(&mut Waiting<W>)) -> Option<Item> {
        let Some(r) = self.flows.receiving(at) else { return Some(Item::End) };
        if let Some(item) = r.items.pop_front() {
            r.taken.bytes += item.len() as u64;
            r.taken.items += 1;
            let (flow, over) = (r.flow, r.end.is_some());
            if !over {
                self.return_credit(flow);
            }
            return Some(Item::Item(item));
        }
        match r.end.take() {
            Some(end) => {
                self.flows.forget(at);
                Some(end)
            }
            None => {
                waiting(&mut r.waiting);
                None
            }
        }
    }

    /// Takes further items of a stream that are here, small ones and a few, to spare their reader a lock
    /// for each.
    pub fn take_items(&mut self, at: Receiver, into: &mut VecDeque<Bytes>) {
        let Some(r) = self.flows.receiving(at) else { return };
        let mut bytes = 0;
        while into.len() < AT_A_TIME
            && let Some(item) = r.items.pop_front_if(|item| bytes + item.len() <= SMALL)
        {
            bytes += item.len();
            into.push_back(item);
        }
        if into.is_empty() {
            return;
        }
        r.taken.bytes += bytes as u64;
        r.taken.items += into.len() as u64;
        let (flow, over) = (r.flow, r.end.is_some());
        if !over {
            self.return_credit(flow);
        }
    }

    /// Nobody reads a stream any more: its sender is told to stop.
    pub fn drop_receiver(&mut self, at: Receiver, wake: &mut Vec<W>) {
        let Some(r) = self.flows.receiving(at) else { return };
        if r.end.is_some() {
            return self.flows.forget(at);
        }
        let flow = r.flow;
        // That an item is not whole must still be known.
        (r.discarded, r.items, r.partial) = (true, VecDeque::new(), r.partial.take().map(|_| Vec::new()));
        wake.extend(r.waiting.take());
        self.stop(flow);
        if flow.results {
            // Who drops the results of a call drops the call.
            self.break_off_args(CallId(flow.call), wake);
        }
    }

    /// Tells the sender of a flow to stop: it is thrown away here.
    pub(in crate::outbound) fn stop(&mut self, flow: Flow) {
        let error = RpcError::new(Code::Cancelled, "nobody reads this any more");
        self.queue(flow.header(Kind::Reset, 0, STOP), &[&Failure::from_error(&error).encode()]);
    }

    /// A stream ends, in whatever way.
    pub(in crate::outbound) fn received_end(&mut self, flow: Flow, end: Item, wake: &mut Vec<W>) {
        let Some(index) = self.flows.by_flow.remove(&flow) else { return };
        if let Some(r) = self.flows.receiving[index as usize].as_mut() {
            wake.extend(r.waiting.take());
            r.end = Some(end);
            if r.discarded {
                let at = Receiver { index, serial: r.serial };
                self.flows.forget(at);
            }
        }
        match flow.results {
            true => {
                self.break_off_args(CallId(flow.call), wake);
                self.stream_over(CallId(flow.call));
            }
            false => self.part_over(flow.call, |s| s.args = false),
        }
    }

    /// An End frame.
    pub fn on_end(&mut self, frame: Frame, wake: &mut Vec<W>) -> Result<(), Violation> {
        let flow = Flow::of(frame.header);
        let end = match frame.header.aux {
            status::OK => Item::End,
            status::APP_ERROR => Item::AppError(frame.payload),
            status::FAILURE => Item::Failed(read_failure(&frame.payload, &self.peer_name)?),
            other => return Err(Violation(format!("an End with status {other}, which is not in this protocol version"))),
        };
        if self.flows.assembling.contains_key(&flow) || self.flows.by_flow(flow).is_some_and(|r| r.partial.is_some()) {
            return Err(Violation("an End in the middle of a body or item".into()));
        }
        self.received_end(flow, end, wake);
        Ok(())
    }

    /// A Reset frame.
    pub fn on_reset(&mut self, frame: &Frame, wake: &mut Vec<W>) -> Result<(), Violation> {
        let flow = Flow::of(frame.header);
        let error = read_failure(&frame.payload, &self.peer_name)?;
        match frame.header.aux {
            NO_MORE if self.flows.assembling.contains_key(&flow) => {
                if !flow.results {
                    return Err(Violation("a Reset of a call's body, for which there is Cancel".into()));
                }
                self.flows.assembling.remove(&flow);
                self.broken_off(CallId(flow.call), error, wake);
            }
            NO_MORE => self.received_end(flow, Item::Failed(error), wake),
            STOP => drop(self.break_off(flow, &error, wake)),
            other => return Err(Violation(format!("a Reset of {other}, which is not in this protocol version"))),
        }
        Ok(())
    }
}
