//! Calls with streams that we serve: their numbers are in use until all of their parts are over.

use super::*;

impl<W> Outbound<W> {
    /// A call of the peer with a stream begins; its number is in use until
    /// [`take_over`](Outbound::take_over) says so. Returns the stream of its arguments, if it has one.
    pub fn serve(&mut self, call: u32, args: bool) -> Option<Receiver> {
        self.flows.served.insert(call, Served { running: true, args, results: false });
        args.then(|| self.receive(Flow::args(call), false))
    }

    /// Whether this is a call with streams that we serve.
    pub fn serves(&self, call: u32) -> bool {
        self.flows.served.contains_key(&call)
    }

    /// Calls with streams that we serve.
    pub fn serving(&self) -> usize {
        self.flows.served.len()
    }

    /// The handler of such a call has ended with its one reply queued, or none.
    pub fn served(&mut self, call: u32) {
        self.part_over(call, |s| s.running = false);
    }

    /// The handler of such a call has answered with a stream: queues the Reply that opens it.
    pub fn open_results(&mut self, call: u32) -> Sender {
        self.queue(Header::new(Kind::Reply, flags::STREAM, status::OK, call), &[]);
        if let Some(s) = self.flows.served.get_mut(&call) {
            (s.running, s.results) = (false, true);
        }
        self.open(Flow::results(call), Bytes::new())
    }

    /// Sends a reply whose body, `head` and `tail` together, is too large for one frame. The head goes
    /// in the first piece: it is at most [`FRAGMENT`] bytes.
    pub fn reply_in_fragments(&mut self, call: u32, status: u16, head: &[u8], mut tail: Bytes) {
        debug_assert!(head.len() <= FRAGMENT, "a head of {} bytes", head.len());
        let first = tail.split_to(FRAGMENT.saturating_sub(head.len()).min(tail.len()));
        self.queue_segment(Header::new(Kind::Reply, flags::MORE, status, call), &[head], first);
        self.send_body(Flow::results(call), tail);
    }

    /// The caller of a call that we serve is gone: what we still send of its results is broken off,
    /// its arguments end.
    pub fn caller_gone(&mut self, call: u32, wake: &mut Vec<W>) {
        let error = RpcError::new(Code::Cancelled, "the caller went away");
        self.break_off(Flow::results(call), &error, wake);
        self.received_end(Flow::args(call), Item::Failed(error), wake);
    }

    pub(in crate::outbound) fn results_over(&mut self, flow: Flow) {
        if flow.results {
            self.part_over(flow.call, |s| s.results = false);
        }
    }

    pub(super) fn part_over(&mut self, call: u32, part: impl FnOnce(&mut Served)) {
        let Some(served) = self.flows.served.get_mut(&call) else { return };
        part(served);
        if !(served.running || served.args || served.results) {
            self.flows.served.remove(&call);
            self.flows.over.push(call);
        }
    }

    /// Numbers of served calls that are over since this was asked last; the peer may use them again
    /// once what is queued now is written.
    pub fn take_over(&mut self, into: &mut Vec<u32>) {
        into.append(&mut self.flows.over);
    }

    /// The link is gone: every flow ends.
    pub(in crate::outbound) fn lose_flows(&mut self, reason: &RpcError, wake: &mut Vec<W>) {
        let flows = std::mem::take(&mut self.flows);
        self.flows.unsent = flows.unsent;
        for s in flows.sending.into_values() {
            self.flows.unsent.push(s.tail);
            wake.extend(s.waiting);
        }
        self.flows.serial = flows.serial;
        (self.flows.receiving, self.flows.free) = (flows.receiving, flows.free);
        let mut gone = Vec::new();
        for (index, place) in self.flows.receiving.iter_mut().enumerate() {
            let Some(r) = place else { continue };
            wake.extend(r.waiting.take());
            r.end.get_or_insert_with(|| Item::Failed(reason.clone().with_certainty(Certainty::MaybeExecuted)));
            if r.discarded {
                gone.push(Receiver { index: index as u32, serial: r.serial });
            }
        }
        gone.into_iter().for_each(|at| self.flows.forget(at));
    }
}
