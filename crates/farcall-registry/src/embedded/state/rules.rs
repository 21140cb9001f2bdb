//! Rules: the later of two writes counts, at every node; one that lost without its writer knowing is kept to be shown.

use std::time::Instant;

use super::{State, TopicKey, check, topic_key};
use crate::embedded::api::{Moment, RuleVersion};
use crate::embedded::packed::hash;
use crate::entry::ServiceKey;
use crate::registry::Rule;
use farcall_core::{RpcError, compact};

/// Lost versions that are kept.
const CONFLICTS: usize = 256;
/// Rules of all services that are kept.
const RULES: usize = 10_000;

impl State {
    /// Writes a rule, or takes it away; gives its version, to be put on disk before the writer is told.
    pub(crate) fn write_rule(&mut self, now: Instant, namespace: &str, rule: Rule, who: &str) -> Result<RuleVersion, RpcError> {
        check::name("namespace", namespace, &self.limits)?;
        check::rule(&rule, &self.limits)?;
        let key = topic_key(namespace, &rule.service);
        let known = self.numbers.get(&key).and_then(|number| self.topics.get(number)?.rule(&rule.kind, &rule.name)).map(|v| v.at);
        let version = RuleVersion { namespace: namespace.to_owned(), rule, at: self.moment(now), who: who.to_owned(), replaces: known };
        self.put_rule(now, key, version.clone())?;
        Ok(version)
    }

    /// A version of a rule from another node or from disk.
    pub(crate) fn merge_rule(&mut self, now: Instant, version: RuleVersion) -> Result<(), RpcError> {
        check::name("namespace", &version.namespace, &self.limits)?;
        check::rule(&version.rule, &self.limits)?;
        self.saw(version.at);
        let key = topic_key(&version.namespace, &version.rule.service);
        let known = self.numbers.get(&key).and_then(|number| self.topics.get(number)?.rule(&version.rule.kind, &version.rule.name));
        match known.map(|known| (known.at, known.replaces)) {
            Some((at, _)) if at == version.at => Ok(()),
            Some((at, replaces)) if at > version.at => {
                // Older: a conflict, unless it is what was replaced knowingly.
                if replaces.is_none_or(|replaced| replaced < version.at) {
                    self.note_conflict(version);
                }
                Ok(())
            }
            _ => self.put_rule(now, key, version),
        }
    }

    fn put_rule(&mut self, now: Instant, key: TopicKey, version: RuleVersion) -> Result<(), RpcError> {
        let count: usize = self.topics.values().map(|t| t.rule_versions().count()).sum();
        if count >= RULES {
            return Err(check::full("rules", RULES, "rules at this node"));
        }
        let topic = self.topic_of(key)?;
        let Some(t) = self.topics.get_mut(&topic) else { return Ok(()) };
        self.revision += 1;
        let replaces = version.replaces;
        let before = match t.put_rule(version, self.revision, &self.limits) {
            Ok(before) => before,
            Err(e) => {
                self.forget_if_empty(topic);
                return Err(e);
            }
        };
        self.changed(now, topic);
        if let Some(before) = before
            && replaces.is_none_or(|replaced| replaced < before.at)
        {
            self.note_conflict(before);
        }
        Ok(())
    }

    fn note_conflict(&mut self, lost: RuleVersion) {
        if !self.conflicts.contains(&lost) {
            self.conflicts.push_back(lost);
            if self.conflicts.len() > CONFLICTS {
                self.conflicts.pop_front();
            }
        }
    }

    /// What another node saw this one will not be before.
    pub(super) fn saw(&mut self, at: Moment) {
        if (at.ms, at.count) > (self.moment.ms, self.moment.count) {
            (self.moment.ms, self.moment.count) = (at.ms, at.count);
        }
    }

    /// The rules of a service, and those that lost.
    pub(crate) fn rules(&self, namespace: &str, service: &ServiceKey) -> (Vec<RuleVersion>, Vec<RuleVersion>) {
        let topic = self.numbers.get(&topic_key(namespace, service)).and_then(|number| self.topics.get(number));
        let lost = self.conflicts.iter().filter(|v| v.namespace == namespace && v.rule.service == *service);
        (topic.map(|t| t.rule_versions().cloned().collect()).unwrap_or_default(), lost.cloned().collect())
    }

    /// Every rule, those taken away included.
    pub(crate) fn all_rules(&self) -> Vec<RuleVersion> {
        self.topics.values().flat_map(|t| t.rule_versions().cloned()).collect()
    }

    /// Of all rules, whatever their order.
    pub(super) fn rules_digest(&self) -> u64 {
        let of = |v: &RuleVersion| compact::encode(v).map_or(0, |bytes| hash(&bytes, &[]));
        self.topics.values().flat_map(|t| t.rule_versions().map(of)).fold(0, |all, one| all ^ one)
    }
}
