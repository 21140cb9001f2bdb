//! Listens on the wire: every frame as it is written and as it arrives, checked against the rules
//! of credit and order that hold whatever the sessions think.

use std::collections::{HashMap, HashSet};

use farcall_wire::{FRAGMENT, Frame, Hello, Kind, PeerLimits, WHOLE, flags};

use crate::ledger::{Key, Record, begins_with};

/// Cost of a Call frame beside its payload.
const CALL_COST: u64 = 64;

/// One direction of one call: the side that made it, its number, whether it is the results.
pub(crate) type Line = (usize, u32, bool);

#[derive(Debug, Default)]
struct Course {
    /// The call whose body it is.
    body: Option<Key>,
    granted: (u64, u64),
    sent: (u64, u64),
    /// Its call was withdrawn: what is said of it is thrown away.
    void: bool,
    /// In the middle of an item.
    partial: bool,
    over: bool,
    /// Its end, or its call's Cancel, has arrived.
    closed: bool,
    received: u64,
    /// Bytes of the item that is arriving.
    arriving: u64,
    taken: (u64, u64),
    /// What was taken and what was arriving, at its highest: an item that is not whole is given what
    /// it needs to become so.
    used: u64,
}

impl Course {
    fn use_up(&mut self) {
        self.used = self.used.max(self.taken.0 + self.arriving);
    }
}

/// What one side may spend on calls and has spent, and what the other has taken of them.
#[derive(Debug, Default, Clone, Copy)]
struct Account {
    granted: u64,
    spent: u64,
    taken: u64,
}

#[derive(Debug)]
pub(crate) struct Tap {
    courses: HashMap<Line, Course>,
    accounts: [Account; 2],
    limits: [PeerLimits; 2],
    /// Rows of each side's table of which each side has said that it can read the other; the caller's word as it
    /// arrived.
    ready: [HashSet<u16>; 2],
    /// Credit frames and pieces of bodies seen: a simulation that never gets there shows nothing.
    pub(crate) credits: usize,
    pub(crate) pieces: usize,
    pub(crate) resets: usize,
}

impl Tap {
    pub(crate) fn new(limits: [PeerLimits; 2]) -> Tap {
        let granted = Account { granted: PeerLimits::BEFORE_HELLO.credit.into(), ..Account::default() };
        Tap { courses: HashMap::new(), accounts: [granted; 2], limits, ready: Default::default(), credits: 0, pieces: 0, resets: 0 }
    }

    fn begin(&mut self, line: Line, sender: usize, body: Option<Key>) {
        let window = &self.limits[1 - sender];
        let granted = (window.stream_bytes.into(), window.stream_items.into());
        self.courses.insert(line, Course { body, granted, ..Course::default() });
    }

    /// `from` wrote a whole frame.
    pub(crate) fn wrote(&mut self, from: usize, frame: &Frame, ledger: &mut HashMap<Key, Record>) {
        let (header, payload) = (frame.header, &frame.payload);
        let (id, bits, len) = (header.id, header.flags, u64::from(header.len));
        let results = bits & flags::RESULTS != 0;
        let piece = header.kind == Kind::Data || header.kind == Kind::Reply && bits & flags::MORE != 0;
        // The rest of an item may be as large as any whole frame.
        let most = if bits & flags::MORE != 0 { FRAGMENT } else { WHOLE };
        assert!(!piece || len <= most as u64, "a piece of {len} bytes, which others wait for");
        // Who made the call, if `from` sends the flow; if it receives it, the other one.
        let (sends, receives) = if results { (1 - from, from) } else { (from, 1 - from) };
        match header.kind {
            Kind::Call => {
                let account = &mut self.accounts[from];
                account.spent += CALL_COST + len;
                assert!(account.spent <= account.granted, "calls beyond the connection's credit: {account:?}");
                let key = begins_with(&payload[4..]);
                match bits & (flags::MORE | flags::STREAM) {
                    0 => ledger.get_mut(&key).unwrap().sent = true,
                    flags::MORE => self.begin((from, id, false), from, Some(key)),
                    flags::STREAM => {
                        ledger.get_mut(&key).unwrap().sent = true;
                        self.begin((from, id, false), from, None);
                    }
                    _ => panic!("arguments in fragments beside a stream"),
                }
            }
            Kind::Void => drop(self.courses.insert((from, id, false), Course { void: true, ..Course::default() })),
            Kind::Data | Kind::End | Kind::Reset if self.courses.get(&(sends, id, results)).is_some_and(|c| c.void) => {}
            Kind::Reply if bits & flags::MORE != 0 => self.begin((1 - from, id, true), from, Some(0)),
            Kind::Reply if bits & flags::STREAM != 0 => self.begin((1 - from, id, true), from, None),
            Kind::Cancel => drop(self.courses.get_mut(&(from, id, false)).map(|c| c.over = true)),
            Kind::Data => {
                self.pieces += 1;
                let course = self.courses.get_mut(&(sends, id, results)).expect("Data of no flow");
                assert!(!course.over, "Data after the end");
                course.sent.0 += len;
                course.sent.1 += u64::from(!course.partial && course.body.is_none());
                assert!(course.sent.0 <= course.granted.0 && course.sent.1 <= course.granted.1, "Data beyond credit: {course:?}");
                course.partial = bits & flags::MORE != 0;
                if let Some(key) = course.body.filter(|_| !course.partial) {
                    course.over = true;
                    if !results {
                        ledger.get_mut(&key).unwrap().sent = true;
                    }
                }
            }
            Kind::End => {
                let course = self.courses.get_mut(&(sends, id, results)).expect("an End of no flow");
                assert!(!course.over && !course.partial && course.body.is_none(), "an End out of place: {course:?}");
                course.over = true;
            }
            Kind::Reset => {
                self.resets += 1;
                if header.aux == 0 {
                    let course = self.courses.get_mut(&(sends, id, results)).expect("a Reset of no flow");
                    assert!(!std::mem::replace(&mut course.over, true), "a Reset after the end");
                }
            }
            Kind::Credit => {
                self.credits += 1;
                self.gave(from, (receives, id, results), header.aux, totals(payload));
            }
            _ => {}
        }
    }

    /// Credit must not promise more than is free.
    fn gave(&self, from: usize, line: Line, aux: u16, total: (u64, u64)) {
        let window = &self.limits[from];
        if aux == 0 {
            let account = &self.accounts[1 - from];
            assert!(
                total.0 <= account.taken + u64::from(window.credit),
                "more credit for calls than there is room: {total:?}, {account:?}"
            );
            return;
        }
        let Some(course) = self.courses.get(&line) else { return };
        let used = match course.body {
            Some(_) => course.received,
            None => course.used,
        };
        let most = (used + u64::from(window.stream_bytes), course.taken.1 + u64::from(window.stream_items));
        assert!(total.0 <= most.0 && (course.body.is_some() || total.1 <= most.1), "credit of {total:?}, room for {most:?}");
    }

    /// A whole frame reached `to`.
    pub(crate) fn arrived(&mut self, to: usize, frame: &Frame) {
        let (header, payload) = (frame.header, &frame.payload);
        let results = header.flags & flags::RESULTS != 0;
        let (sends, receives) = if results { (1 - to, to) } else { (to, 1 - to) };
        match (header.kind, header.aux) {
            (Kind::Ready, row) if header.flags & flags::THEIRS == 0 && payload.is_empty() => drop(self.ready[1 - to].insert(row)),
            (Kind::End, _) | (Kind::Reset, 0) => self.close((receives, header.id, results)),
            (Kind::Cancel, _) => self.close((1 - to, header.id, false)),
            (Kind::Hello, _) => {
                let said = Hello::decode(payload).unwrap().limits.credit.into();
                self.accounts[to].granted = self.accounts[to].granted.max(said);
            }
            (Kind::Credit, 0) => self.accounts[to].granted = self.accounts[to].granted.max(totals(payload).0),
            (Kind::Credit, _) => {
                if let Some(course) = self.courses.get_mut(&(sends, header.id, results)) {
                    let total = totals(payload);
                    course.granted = (course.granted.0.max(total.0), course.granted.1.max(total.1));
                }
            }
            (Kind::Data, _) => {
                if let Some(course) = self.courses.get_mut(&(receives, header.id, results)) {
                    course.received += payload.len() as u64;
                    let more = header.flags & flags::MORE != 0;
                    course.arriving = if more { course.arriving + payload.len() as u64 } else { 0 };
                    course.use_up();
                }
            }
            _ => {}
        }
    }

    fn close(&mut self, line: Line) {
        if let Some(course) = self.courses.get_mut(&line) {
            course.closed = true;
        }
    }

    /// Whether more of a stream may arrive.
    pub(crate) fn is_open(&self, line: Line) -> bool {
        self.courses.get(&line).is_some_and(|c| !c.closed && c.body.is_none())
    }

    /// A reader took an item.
    pub(crate) fn took(&mut self, line: Line, bytes: usize) {
        let course = self.courses.get_mut(&line).expect("an item of no flow");
        course.taken = (course.taken.0 + bytes as u64, course.taken.1 + 1);
        course.use_up();
    }

    /// A call of the other side left the queue of `who`.
    pub(crate) fn took_call(&mut self, who: usize, cost: u32) {
        self.accounts[1 - who].taken += u64::from(cost);
    }

    /// A call of the other side runs at `who` on a row on which they differ: its caller has said that it can read the
    /// answer.
    pub(crate) fn check_ready(&self, who: usize, row: u16) {
        assert!(self.ready[1 - who].contains(&row), "row {row} runs before its caller can read the answer");
    }

    /// All that was spent on calls was given back.
    pub(crate) fn check_whole(&self, who: usize, spent: u64) {
        let account = &self.accounts[who];
        assert_eq!((account.spent, account.taken), (spent, spent), "credit for calls is lost");
    }
}

fn totals(payload: &[u8]) -> (u64, u64) {
    let number = |at: usize| u64::from_le_bytes(*payload[at..].first_chunk().unwrap());
    (number(0), number(8))
}
