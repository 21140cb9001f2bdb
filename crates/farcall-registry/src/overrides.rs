//! What operators say of single instances: rules of the kind `instance`, which every consumer obeys.
//!
//! The rule's name is the instance, written as its 32 digits or as one of its addresses: the first holds for one process, the second
//! for whatever is started there. Its body is words `enabled=true|false` and `weight=N`; others are passed over, so that later
//! versions may say more.

use std::fmt;
use std::sync::Arc;

use crate::entry::{Entry, ServiceKey};
use crate::registry::Rule;

/// See the module's text. What it does not say stays as the provider says.
///
/// ```
/// use farcall_registry::Override;
/// let off = Override { enabled: Some(false), ..Override::default() };
/// assert_eq!(off.to_string(), "enabled=false");
/// assert_eq!(Override::parse("weight=20 enabled=false").weight, Some(20));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Override {
    /// Whether it may be called.
    pub enabled: Option<bool>,
    /// Its share of the calls.
    pub weight: Option<u32>,
}

impl Override {
    /// The kind of the rules.
    pub const KIND: &str = "instance";

    /// Of a rule's body.
    pub fn parse(body: &str) -> Override {
        let value = |name: &str| body.split_whitespace().filter_map(|word| word.split_once('=')).find(|(n, _)| *n == name).map(|(_, v)| v);
        Override { enabled: value("enabled").and_then(|v| v.parse().ok()), weight: value("weight").and_then(|v| v.parse().ok()) }
    }

    /// What the rules say of an instance by this name; nothing if there is none.
    pub fn named(rules: &[Arc<Rule>], name: &str) -> Override {
        let of = |rule: &&Arc<Rule>| rule.kind == Override::KIND && rule.name == name;
        rules.iter().find(of).map(|rule| Override::parse(&rule.body)).unwrap_or_default()
    }

    /// The rule that says so; one that says nothing takes the rule away.
    pub fn rule(&self, service: &ServiceKey, name: &str) -> Rule {
        Rule { service: service.clone(), kind: Override::KIND.to_owned(), name: name.to_owned(), body: self.to_string() }
    }

    /// An entry as these rules have it: what is said of the instance outweighs what is said of its address.
    pub fn apply(rules: &[Arc<Rule>], entry: &Arc<Entry>) -> Arc<Entry> {
        if !rules.iter().any(|rule| rule.kind == Override::KIND) {
            return Arc::clone(entry);
        }
        let by_address = entry.addresses.iter().map(|a| Override::named(rules, &a.address)).find(|o| *o != Override::default());
        let (of, at) = (Override::named(rules, &entry.instance.to_string()), by_address.unwrap_or_default());
        let enabled = of.enabled.or(at.enabled).unwrap_or(entry.enabled);
        let weight = of.weight.or(at.weight).unwrap_or(entry.weight);
        match (enabled, weight) == (entry.enabled, entry.weight) {
            true => Arc::clone(entry),
            false => Arc::new(Entry { enabled, weight, ..Entry::clone(entry) }),
        }
    }
}

/// As a rule's body.
impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let enabled = self.enabled.map(|enabled| format!("enabled={enabled}"));
        let weight = self.weight.map(|weight| format!("weight={weight}"));
        f.write_str(&enabled.into_iter().chain(weight).collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rules: &[(&str, &str)], enabled: bool, weight: u32) {
        let service = ServiceKey { name: "pay".into(), group: String::new(), version: String::new() };
        let entry = Arc::new(crate::entry::Entry::at(&service, "tcp://10.0.0.1:9000"));
        let id = entry.instance.to_string();
        let rule = |(name, body): &(&str, &str)| {
            let name = if *name == "ID" { &id } else { *name };
            Arc::new(Rule { service: service.clone(), kind: Override::KIND.into(), name: name.to_owned(), body: (*body).to_owned() })
        };
        let rules: Vec<Arc<Rule>> = rules.iter().map(rule).collect();
        let applied = Override::apply(&rules, &entry);
        assert_eq!((applied.enabled, applied.weight), (enabled, weight), "{rules:?}");
        assert_eq!(*Arc::new(Entry { enabled: true, weight: 100, ..Entry::clone(&applied) }), *entry, "nothing else changes");
    }

    #[test]
    fn rules_of_instances_are_obeyed_the_nearer_first() {
        let at = "tcp://10.0.0.1:9000";
        check(&[], true, 100);
        check(&[("ID", "enabled=false")], false, 100);
        check(&[(at, "weight=7")], true, 7);
        check(&[(at, "weight=7 enabled=false"), ("ID", "enabled=true")], true, 7);
        check(&[(at, "weight=7"), ("ID", "weight=0")], true, 0);
        check(&[("tcp://10.0.0.2:9000", "enabled=false"), ("", "enabled=false")], true, 100);
    }

    #[test]
    fn what_does_not_read_says_nothing() {
        for body in ["", "enabled", "enabled=no", "weight=-1", "weight=99999999999", "colour=blue", "=", "\u{0}=\u{0}"] {
            check(&[("ID", body)], true, 100);
        }
        check(&[("ID", "colour=blue enabled=false")], false, 100);
    }
}
