//! A service in a namespace: its entries, its rules, its readers, and the log that they read.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use farcall_core::{Code, RpcError, compact};

use super::{TopicKey, check};
use crate::embedded::api::{Known, Leaver, Moment, Name, Packed, Push, RuleVersion, Table};
use crate::embedded::limits::RegistryLimits;
use crate::embedded::packed::{Stored, hash};
use crate::entry::InstanceId;
use crate::registry::{Consumer, Gone, Rule, ServiceSummary};

/// Bytes that a topic's log may hold: beyond it a reader who is behind gets all of the topic, which is hardly more.
const LOG_BYTES: usize = 256 << 10;

/// What every push bears.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    pub(crate) epoch: u64,
    pub(crate) complete: bool,
}

/// An entry, and why it is here.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) stored: Stored,
    /// The session that holds it. Without one it is loose.
    pub(super) session: Option<u64>,
    pub(super) suspect: bool,
    /// A bit for each other node that holds it by a session of its own.
    pub(super) peers: u8,
    /// When it was registered.
    pub(super) since: Moment,
    /// Whose it is, if that is known: nobody else may replace it.
    pub(super) owner: Option<Arc<str>>,
}

/// What happened to an instance since readers were last told.
#[derive(Debug)]
enum Change {
    /// It is new, or other than before.
    Put,
    /// It became suspect.
    Suspect,
    /// It went.
    Gone(Name, Gone),
}

/// A push, encoded.
#[derive(Debug)]
struct Logged {
    from: u64,
    to: u64,
    bytes: Bytes,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) key: TopicKey,
    records: HashMap<InstanceId, Record>,
    /// Those taken away among them.
    rules: Vec<(RuleVersion, u64)>,
    /// Of all hashes, of entries and rules.
    digest: u64,
    /// Of the last change.
    revision: u64,
    readers: HashMap<u64, Option<Consumer>>,
    log: VecDeque<Logged>,
    log_bytes: usize,
    /// Up to here nothing is in the log any more.
    floor: u64,
    /// Up to here readers were told.
    told: u64,
    pending: HashMap<InstanceId, Change>,
    rules_changed: bool,
    /// Readers must be told although nothing else changed.
    announce: bool,
    pace: Pace,
    /// All of it, encoded at a revision.
    whole: Option<(u64, bool, Bytes)>,
}

impl Topic {
    pub(super) fn new(key: TopicKey, revision: u64) -> Topic {
        Topic {
            key,
            records: HashMap::new(),
            rules: Vec::new(),
            digest: 0,
            revision,
            readers: HashMap::new(),
            log: VecDeque::new(),
            log_bytes: 0,
            floor: revision,
            told: revision,
            pending: HashMap::new(),
            rules_changed: false,
            announce: false,
            pace: Pace::default(),
            whole: None,
        }
    }

    pub(super) fn record(&self, instance: InstanceId) -> Option<&Record> {
        self.records.get(&instance)
    }

    /// Nothing would be lost with it.
    pub(super) fn is_idle(&self) -> bool {
        self.records.is_empty() && self.readers.is_empty() && self.rules.is_empty()
    }

    pub(super) fn summary(&self) -> ServiceSummary {
        let consumers = self.readers.values().flatten().count() as u64;
        ServiceSummary { service: self.key.service.clone(), entries: self.records.len() as u64, consumers }
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    pub(super) fn record_mut(&mut self, instance: InstanceId) -> Option<&mut Record> {
        self.records.get_mut(&instance)
    }

    // Changes.

    pub(super) fn put(&mut self, record: Record, revision: u64) {
        let instance = record.stored.name.instance;
        self.digest ^= record.stored.hash;
        let (hash, suspect) = (record.stored.hash, record.suspect);
        if let Some(before) = self.records.insert(instance, record) {
            self.digest ^= before.stored.hash;
            if before.stored.hash == hash && before.suspect == suspect {
                // The same again: its session changed, at most, which is nothing to readers.
                return;
            }
        }
        self.note(instance, Change::Put, revision);
    }

    pub(super) fn doubt(&mut self, instance: InstanceId, suspect: bool, revision: u64) {
        let Some(record) = self.records.get_mut(&instance) else { return };
        if std::mem::replace(&mut record.suspect, suspect) == suspect {
            return;
        }
        match (suspect, self.pending.get(&instance)) {
            // It is sent whole anyway.
            (true, Some(Change::Put)) => {}
            (true, _) => self.note(instance, Change::Suspect, revision),
            (false, _) => self.note(instance, Change::Put, revision),
        }
    }

    /// A record that no session holds any more.
    pub(super) fn loosen(&mut self, instance: InstanceId) {
        if let Some(record) = self.records.get_mut(&instance) {
            record.session = None;
        }
    }

    pub(super) fn remove(&mut self, instance: InstanceId, why: Gone, revision: u64) -> Option<Record> {
        let record = self.records.remove(&instance)?;
        self.digest ^= record.stored.hash;
        self.note(instance, Change::Gone(record.stored.name, why), revision);
        Some(record)
    }

    /// The version of a rule that counts here.
    pub(super) fn rule(&self, kind: &str, name: &str) -> Option<&RuleVersion> {
        self.rules.iter().map(|(version, _)| version).find(|v| v.rule.kind == kind && v.rule.name == name)
    }

    /// Puts a rule in the place of the one of its name; gives that.
    pub(super) fn put_rule(
        &mut self,
        version: RuleVersion,
        revision: u64,
        limits: &RegistryLimits,
    ) -> Result<Option<RuleVersion>, RpcError> {
        let same = |known: &Rule| known.kind == version.rule.kind && known.name == version.rule.name;
        let at = self.rules.iter().position(|(known, _)| same(&known.rule));
        if at.is_none() && self.rules.len() >= limits.rules {
            // One that was taken away makes room.
            let Some(oldest) = self.rules.iter().position(|(known, _)| known.rule.body.is_empty()) else {
                return Err(check::full("rules", limits.rules, "rules of one service"));
            };
            self.rules.remove(oldest);
        }
        let hash = rule_hash(&version.rule)?;
        let before = at.map(|at| self.rules.remove(at));
        self.digest ^= hash ^ before.as_ref().map_or(0, |(_, hash)| *hash);
        self.rules.push((version, hash));
        (self.rules_changed, self.revision) = (true, revision);
        Ok(before.map(|(version, _)| version))
    }

    pub(super) fn rule_versions(&self) -> impl Iterator<Item = &RuleVersion> {
        self.rules.iter().map(|(version, _)| version)
    }

    /// Readers are to be told what every push bears, if nothing else.
    pub(super) fn announce(&mut self, revision: u64) {
        (self.announce, self.revision) = (true, revision);
    }

    fn note(&mut self, instance: InstanceId, change: Change, revision: u64) {
        self.revision = revision;
        if self.has_readers() {
            self.pending.insert(instance, change);
        }
    }

    // Telling.

    pub(super) fn has_readers(&self) -> bool {
        !self.readers.is_empty()
    }

    /// Nobody reads: nothing needs to be kept for them.
    pub(super) fn forget_changes(&mut self) {
        self.pending.clear();
        self.log.clear();
        (self.log_bytes, self.floor, self.told) = (0, self.revision, self.revision);
        (self.rules_changed, self.announce, self.whole) = (false, false, None);
    }

    /// When readers may be told next.
    pub(super) fn due(&self, now: Instant, limits: &RegistryLimits) -> Instant {
        self.pace.due(now, limits)
    }

    /// Puts what changed into the log; whether there was anything.
    pub(super) fn flush(&mut self, now: Instant, stamp: Stamp, limits: &RegistryLimits) -> bool {
        if self.pending.is_empty() && !self.rules_changed && !self.announce {
            return false;
        }
        let push = self.delta(stamp);
        let Ok(bytes) = compact::encode(&push) else {
            // It is made of what was encoded before. Were it to fail, readers get all of it instead.
            self.forget_changes();
            return true;
        };
        self.pace.told(now, limits);
        self.log_bytes += bytes.len();
        self.log.push_back(Logged { from: self.told, to: self.revision, bytes: bytes.into() });
        self.told = self.revision;
        (self.rules_changed, self.announce) = (false, false);
        while self.log.len() > limits.log.max(1) || (self.log_bytes > LOG_BYTES && self.log.len() > 1) {
            let Some(oldest) = self.log.pop_front() else { break };
            (self.log_bytes, self.floor) = (self.log_bytes - oldest.bytes.len(), oldest.to);
        }
        true
    }

    fn delta(&mut self, stamp: Stamp) -> Push {
        let mut push = self.empty(stamp, self.told);
        let mut tables = TableIndex::default();
        for (instance, change) in std::mem::take(&mut self.pending) {
            match (change, self.records.get(&instance)) {
                (Change::Suspect, Some(record)) => push.suspect.push(record.stored.name),
                (_, Some(record)) => push.put.push(tables.pack(record)),
                (Change::Gone(name, why), None) => push.gone.push(Leaver { name, withdrawn: why == Gone::Withdrawn }),
                // Not noted as gone, so it never was there.
                (_, None) => {}
            }
        }
        push.tables = tables.tables;
        push.rules = self.rules_changed.then(|| self.rules());
        push
    }

    fn empty(&self, stamp: Stamp, from: u64) -> Push {
        Push {
            epoch: stamp.epoch,
            from,
            to: self.revision,
            whole: false,
            complete: stamp.complete,
            count: self.records.len() as u32,
            digest: self.digest,
            tables: Vec::new(),
            put: Vec::new(),
            suspect: Vec::new(),
            gone: Vec::new(),
            rules: None,
        }
    }

    fn rules(&self) -> Vec<Rule> {
        self.rules.iter().map(|(version, _)| &version.rule).filter(|rule| !rule.body.is_empty()).cloned().collect()
    }

    /// All of it, encoded once as long as it stays the same.
    fn whole(&mut self, stamp: Stamp) -> Result<Bytes, RpcError> {
        if let Some((revision, complete, bytes)) = &self.whole
            && (*revision, *complete) == (self.revision, stamp.complete)
        {
            return Ok(bytes.clone());
        }
        let mut tables = TableIndex::default();
        let put = self.records.values().map(|record| tables.pack(record)).collect();
        let push = Push { whole: true, put, tables: tables.tables, rules: Some(self.rules()), ..self.empty(stamp, 0) };
        let bytes = encoded(&push)?;
        if self.has_readers() {
            self.whole = Some((self.revision, stamp.complete, bytes.clone()));
        }
        Ok(bytes)
    }

    // Reading.

    pub(super) fn add_reader(&mut self, reader: u64, consumer: Option<Consumer>) {
        if self.readers.is_empty() {
            // Nothing was noted so far.
            self.forget_changes();
        }
        self.readers.insert(reader, consumer);
    }

    /// Whether there was such a reader.
    pub(super) fn remove_reader(&mut self, reader: u64) -> bool {
        let removed = self.readers.remove(&reader).is_some();
        if self.readers.is_empty() {
            self.forget_changes();
        }
        removed
    }

    pub(super) fn consumers(&self) -> Vec<Consumer> {
        let mut all: Vec<Consumer> = self.readers.values().flatten().cloned().collect();
        all.sort();
        all.dedup();
        all
    }

    /// All of it, or nothing but where it stands if the reader has the same.
    pub(super) fn listing(&mut self, stamp: Stamp, known: Option<Known>) -> Result<Bytes, RpcError> {
        match known {
            Some(known) if known.digest == self.digest => encoded(&self.empty(stamp, known.revision)),
            _ => self.whole(stamp),
        }
    }

    /// What comes after `at`. The `first` time there always is something.
    pub(super) fn read(&mut self, stamp: Stamp, at: Option<Known>, first: bool) -> Result<Option<(Bytes, Known)>, RpcError> {
        let here = |revision, topic: &Topic| Known { epoch: stamp.epoch, revision, digest: topic.digest };
        let behind = at.filter(|at| at.epoch == stamp.epoch && (self.floor..=self.revision).contains(&at.revision));
        let Some(at) = behind else {
            let same = first && at.is_some_and(|at| at.digest == self.digest);
            let bytes = if same { encoded(&self.empty(stamp, 0))? } else { self.whole(stamp)? };
            return Ok(Some((bytes, here(self.revision, self))));
        };
        if let Some(next) = self.log.iter().find(|logged| logged.to > at.revision) {
            debug_assert!(next.from <= at.revision || first);
            return Ok(Some((next.bytes.clone(), here(next.to, self))));
        }
        match first {
            true => Ok(Some((encoded(&self.empty(stamp, at.revision))?, at))),
            false => Ok(None),
        }
    }
}

/// 0 of one that was taken away: readers do not see it.
fn rule_hash(rule: &Rule) -> Result<u64, RpcError> {
    if rule.body.is_empty() {
        return Ok(0);
    }
    let unfit = |e| RpcError::not_executed(Code::InvalidArgument, format!("a rule that cannot be encoded: {e}"));
    Ok(hash(&compact::encode(rule).map_err(unfit)?, &[]))
}

fn encoded(push: &Push) -> Result<Bytes, RpcError> {
    let unfit = |e| RpcError::new(Code::Internal, format!("a listing cannot be encoded: {e}"));
    compact::encode(push).map(Bytes::from).map_err(unfit)
}

/// Method tables of one push, each once.
#[derive(Default)]
pub(super) struct TableIndex {
    pub(super) tables: Vec<Table>,
    places: HashMap<Bytes, u32>,
}

impl TableIndex {
    pub(super) fn pack(&mut self, record: &Record) -> Packed {
        let bytes = &record.stored.table;
        let place = match self.places.get(bytes) {
            Some(place) => *place,
            None => {
                let place = self.tables.len() as u32;
                self.tables.push(Table { bytes: bytes.clone() });
                self.places.insert(bytes.clone(), place);
                place
            }
        };
        Packed { table: place, suspect: record.suspect, body: record.stored.body.clone() }
    }
}

/// When readers may be told: at once after a calm, then after pauses that grow while changes go on.
#[derive(Debug, Default)]
struct Pace {
    last: Option<Instant>,
    pause: Duration,
}

impl Pace {
    fn due(&self, now: Instant, limits: &RegistryLimits) -> Instant {
        let pause = self.pause.clamp(limits.push_least, limits.push_most.max(limits.push_least));
        self.last.map_or(now, |last| last + pause)
    }

    fn told(&mut self, now: Instant, limits: &RegistryLimits) {
        let calm = self.last.is_none_or(|last| now.saturating_duration_since(last) > self.pause * 2 + limits.push_least);
        self.pause =
            if calm { limits.push_least } else { (self.pause * 2).clamp(limits.push_least, limits.push_most.max(limits.push_least)) };
        self.last = Some(now);
    }
}
