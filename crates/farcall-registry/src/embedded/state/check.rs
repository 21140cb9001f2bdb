//! What is refused, by name.

use std::collections::BTreeMap;

use farcall_core::{Code, RpcError};

use crate::embedded::limits::RegistryLimits;
use crate::embedded::packed::Stored;
use crate::entry::{Entry, ServiceKey};
use crate::registry::{Consumer, Rule};

/// A limit is reached.
pub(super) fn full(limit: &str, most: usize, what: &str) -> RpcError {
    let why = format!("the registry's limit `{limit}` is reached: {most} {what}");
    RpcError::not_executed(Code::ResourceExhausted, why)
}

fn invalid(why: String) -> RpcError {
    RpcError::not_executed(Code::InvalidArgument, why)
}

fn at_most(limit: &str, most: usize, found: usize, what: &str) -> Result<(), RpcError> {
    match found > most {
        true => {
            Err(RpcError::not_executed(Code::ResourceExhausted, format!("{found} {what}: the registry takes {most} (its limit `{limit}`)")))
        }
        false => Ok(()),
    }
}

/// A name's length, and that it has no control characters, which would break people's terminals.
pub(super) fn name(what: &str, text: &str, limits: &RegistryLimits) -> Result<(), RpcError> {
    at_most("name_bytes", limits.name_bytes, text.len(), &format!("bytes in the {what}"))?;
    match text.chars().any(char::is_control) {
        true => Err(invalid(format!("the {what} {text:?} has control characters in it"))),
        false => Ok(()),
    }
}

pub(super) fn service(service: &ServiceKey, limits: &RegistryLimits) -> Result<(), RpcError> {
    if service.name.is_empty() {
        return Err(invalid("the service has no name".into()));
    }
    name("service's name", &service.name, limits)?;
    name("service's group", &service.group, limits)?;
    name("service's version", &service.version, limits)
}

pub(super) fn consumer(consumer: &Consumer, limits: &RegistryLimits) -> Result<(), RpcError> {
    name("consumer's application", &consumer.application, limits)?;
    name("consumer's host", &consumer.host, limits)
}

fn labels(what: &str, labels: &BTreeMap<String, String>, limits: &RegistryLimits) -> Result<(), RpcError> {
    at_most("labels", limits.labels, labels.len(), what)?;
    labels.keys().try_for_each(|key| name(what, key, limits))
}

/// All of an entry but its size, which is seen when it is encoded.
pub(super) fn entry(entry: &Entry, limits: &RegistryLimits) -> Result<(), RpcError> {
    service(&entry.service, limits)?;
    name("application", &entry.application, limits)?;
    if entry.addresses.is_empty() {
        return Err(invalid("an entry without addresses: consumers could not reach it".into()));
    }
    at_most("addresses", limits.addresses, entry.addresses.len(), "addresses")?;
    for address in &entry.addresses {
        name("address", &address.address, limits)?;
        name("address's protocol", &address.protocol, limits)?;
    }
    labels("labels", &entry.labels, limits)?;
    labels("params", &entry.params, limits)?;
    at_most("methods", limits.methods, entry.methods.len(), "methods")?;
    entry.methods.iter().try_for_each(|method| name("method's name", &method.name, limits))
}

pub(super) fn size(stored: &Stored, limits: &RegistryLimits) -> Result<(), RpcError> {
    at_most("entry_bytes", limits.entry_bytes, stored.body.len() + stored.table.len(), "bytes of an entry")
}

pub(super) fn rule(rule: &Rule, limits: &RegistryLimits) -> Result<(), RpcError> {
    service(&rule.service, limits)?;
    name("rule's kind", &rule.kind, limits)?;
    // Other registries have it as a part of a path.
    if rule.kind.is_empty() || rule.kind.contains('/') {
        return Err(invalid(format!("the rule's kind {:?}: write one word, such as tag-router", rule.kind)));
    }
    name("rule's name", &rule.name, limits)?;
    at_most("rule_bytes", limits.rule_bytes, rule.body.len(), "bytes of a rule")
}
