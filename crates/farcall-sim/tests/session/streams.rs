//! Those who send and read streams.

use farcall_core::{Code, RpcError};
use farcall_wire::{Failure, Item, PeerLimits, Sendable, Sender, status};

use crate::ledger::{Course, Key, LARGEST, Seen, Who, body, item, key_of};
use crate::pair::Pair;
use crate::side::{Producer, Reader};
use crate::tap::Line;

impl Pair {
    /// A stream begins to be sent.
    pub(crate) fn open(&mut self, who: usize, to: Sender, key: Key, line: Line) {
        let items = if self.rng.one_in(4) { self.rng.below(100) } else { self.rng.below(8) } as u64;
        let how = self.rng.pick(&[status::OK, status::OK, status::OK, status::APP_ERROR, status::FAILURE]);
        self.sides[who].producers.push(Producer { to, key, line, asleep: false, items, how });
    }

    /// A producer sends what it may.
    pub(crate) fn produce(&mut self, who: usize) {
        if self.sides[who].producers.is_empty() {
            return;
        }
        let at = self.rng.below(self.sides[who].producers.len());
        for _ in 0..1 + self.rng.below(30) {
            if !self.produce_one(who, at) {
                return;
            }
        }
    }

    /// Sends an item, or the end; says whether there may be more.
    fn produce_one(&mut self, who: usize, at: usize) -> bool {
        let window = self.sides[1 - who].session.hello.limits;
        let side = &mut self.sides[who];
        let Producer { to, key, line, asleep, items, .. } = side.producers[at];
        let results = line.2;
        let sendable = side.session.outbound.poll_sendable(to, |waiting| *waiting = Some(Who::Producer(key, results)));
        assert!(!asleep || sendable == Sendable::Later, "{key} may send and was not told");
        let course = self.ledger.get_mut(&key).unwrap().course(results);
        match sendable {
            Sendable::Later => {
                side.producers[at].asleep = true;
                false
            }
            Sendable::Never => {
                side.producers.swap_remove(at);
                false
            }
            Sendable::Now if course.sent < items => {
                let bytes = item(key, results, course.sent, self.heavy);
                let head = self.rng.below(bytes.len() + 1);
                side.session.outbound.send_item(to, &bytes[..head], &mut bytes.slice(head..)).unwrap();
                course.sent += 1;
                course.sent_bytes += bytes.len() as u64;
                check_window(course, bytes.len() as u64, &window);
                // The end may be said while fragments of the last item wait for their turn.
                let last = bytes.len() > 16 << 10 && self.rng.one_in(3);
                if last {
                    self.end(who, at);
                }
                !last
            }
            Sendable::Now => {
                self.end(who, at);
                false
            }
        }
    }

    fn end(&mut self, who: usize, at: usize) {
        let Producer { to, key, line, how, .. } = self.sides[who].producers.swap_remove(at);
        self.ledger.get_mut(&key).unwrap().course(line.2).ended = Some(how);
        self.sides[who].session.outbound.end_items(to, how, last_words(key, how));
    }

    /// A producer goes away in the middle.
    pub(crate) fn drop_producer(&mut self, who: usize) {
        let side = &mut self.sides[who];
        if side.producers.is_empty() {
            return;
        }
        let Producer { to, key, line, .. } = side.producers.swap_remove(self.rng.below(side.producers.len()));
        if side.session.outbound.poll_sendable(to, |_| {}) != Sendable::Never {
            self.ledger.get_mut(&key).unwrap().course(line.2).ended = Some(status::FAILURE);
        }
        side.session.outbound.end_items(to, status::FAILURE, last_words(key, status::FAILURE));
    }

    /// A reader takes what is there.
    pub(crate) fn read(&mut self, who: usize) {
        if self.sides[who].readers.is_empty() {
            return;
        }
        let at = self.rng.below(self.sides[who].readers.len());
        for _ in 0..1 + self.rng.below(if self.busy { 10 } else { 100 }) {
            if !self.read_one(who, at) {
                return;
            }
        }
    }

    fn read_one(&mut self, who: usize, at: usize) -> bool {
        let side = &mut self.sides[who];
        let Reader { at: stream, key, line, asleep, .. } = side.readers[at];
        let results = line.2;
        let got = side.session.outbound.poll_item(stream, |waiting| *waiting = Some(Who::Reader(key, results)));
        let Some(got) = got else {
            side.readers[at].asleep = true;
            return false;
        };
        assert!(!asleep, "{key} has an item and was not told");
        let course = self.ledger.get_mut(&key).unwrap().course(results);
        let seen = match got {
            Item::Item(bytes) => {
                assert!(bytes == item(key, results, course.read, self.heavy), "item {} of {key} is another", course.read);
                course.read += 1;
                course.read_bytes += bytes.len() as u64;
                if !self.is_cut() {
                    self.tap.took(line, bytes.len());
                }
                return true;
            }
            Item::End => Seen::Whole,
            Item::AppError(bytes) => {
                assert_eq!(key_of(&bytes, false), key);
                Seen::AppError
            }
            Item::Failed(error) => {
                self.failed(key, results, &error);
                Seen::Failed
            }
        };
        self.ended(who, at, key, results, seen);
        false
    }

    /// A reader saw the end: it must be the one that the producer chose, behind all that it sent.
    fn ended(&mut self, who: usize, at: usize, key: Key, results: bool, seen: Seen) {
        self.sides[who].readers.swap_remove(at);
        let course = self.ledger.get_mut(&key).unwrap().course(results);
        course.seen = Some(seen);
        let said = match seen {
            Seen::Whole => status::OK,
            Seen::AppError => status::APP_ERROR,
            Seen::Failed | Seen::Dropped => return,
        };
        assert_eq!((course.ended, course.read), (Some(said), course.sent), "{key} did not end so, or not yet: {course:?}");
    }

    /// A stream failed: there must be a reason for it.
    fn failed(&mut self, key: Key, results: bool, error: &RpcError) {
        let cut = self.is_cut();
        let record = self.ledger.get_mut(&key).unwrap();
        let course = *record.course(results);
        match error.message() {
            "cut" => assert!(cut),
            "the producer failed" => {
                assert_eq!((course.ended, course.read), (Some(status::FAILURE), course.sent), "{key}: before its last item");
            }
            "the call is over" => assert!(!results && (record.over || record.ended), "{key} is not over"),
            "the caller went away" => assert!(!results && (record.cancelled || record.deadline), "{key}: its caller did not go away"),
            other => panic!("{key}: {other}"),
        }
    }

    pub(crate) fn drop_reader(&mut self, who: usize) {
        let chosen = self.rng.below(self.sides[who].readers.len());
        if let Some(r) = self.sides[who].readers.get(chosen) {
            let (key, results) = (r.key, r.line.2);
            self.drop_readers(who, |r| r.key == key && r.line.2 == results);
        }
    }

    pub(crate) fn drop_readers(&mut self, who: usize, which: impl Fn(&Reader) -> bool) {
        let side = &mut self.sides[who];
        let mut wake = Vec::new();
        while let Some(at) = side.readers.iter().position(&which) {
            let reader = side.readers.swap_remove(at);
            side.session.outbound.drop_receiver(reader.at, &mut wake);
            self.ledger.get_mut(&reader.key).unwrap().course(reader.line.2).seen = Some(Seen::Dropped);
        }
        self.woke(who, wake);
    }
}

/// What is on its way or waits for its reader is bounded by what the reader's side announced.
fn check_window(course: &Course, last: u64, limits: &PeerLimits) {
    let (items, bytes) = (course.sent - course.read, course.sent_bytes - course.read_bytes);
    assert!(items <= limits.stream_items.into(), "{course:?} under {limits:?}");
    // The last item may be begun with a byte of credit; one that is not whole is given what it needs.
    assert!(bytes <= u64::from(limits.stream_bytes) + LARGEST + last, "{course:?} under {limits:?}");
}

fn last_words(key: Key, how: u16) -> Vec<u8> {
    match how {
        status::OK => Vec::new(),
        status::APP_ERROR => body(key, false, 20).to_vec(),
        _ => Failure::from_error(&RpcError::new(Code::Aborted, "the producer failed")).encode(),
    }
}
