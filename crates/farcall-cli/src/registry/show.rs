//! Entries, consumers and rules as text and as JSON.

use farcall_registry::{Completeness, Consumer, Entry, Rule, ServiceKey};
use serde_json::{Value, json};

use crate::text::plain;

/// An entry in one line.
pub(super) fn entry(entry: &Entry) -> String {
    let addresses: Vec<String> = entry.addresses.iter().map(|a| spoken(&a.protocol, &a.address)).collect();
    let mut words = vec![addresses.join(" ")];
    words.extend((!entry.application.is_empty()).then(|| entry.application.clone()));
    words.extend((entry.weight != 100).then(|| format!("weight={}", entry.weight)));
    words.extend((!entry.enabled).then(|| "disabled".to_owned()));
    words.extend(entry.labels.iter().map(|(name, value)| format!("{name}={value}")));
    words.push(format!("[{}]", &entry.instance.to_string()[..8]));
    plain(&words.join("  ")).into_owned()
}

fn spoken(protocol: &str, address: &str) -> String {
    match protocol {
        "farcall" => address.to_owned(),
        other => format!("{other}:{address}"),
    }
}

pub(super) fn consumer(consumer: &Consumer) -> String {
    let application = if consumer.application.is_empty() { "(no name)" } else { &consumer.application };
    plain(&format!("{application}  {}", consumer.host)).into_owned()
}

pub(super) fn rule(rule: &Rule) -> String {
    plain(&format!("{} {:?}: {}", rule.kind, rule.name, rule.body)).into_owned()
}

pub(super) fn service_json(service: &ServiceKey) -> Value {
    json!({ "name": service.name, "group": service.group, "version": service.version })
}

pub(super) fn entry_json(entry: &Entry, suspect: bool) -> Value {
    let addresses: Vec<Value> = entry.addresses.iter().map(|a| json!({ "protocol": a.protocol, "address": a.address })).collect();
    json!({
        "instance": entry.instance.to_string(),
        // As text: it may be beyond what other programs' numbers hold.
        "incarnation": entry.incarnation.to_string(),
        "application": entry.application,
        "addresses": addresses,
        "labels": entry.labels,
        "weight": entry.weight,
        "enabled": entry.enabled,
        "suspect": suspect,
        "methods": entry.methods.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(),
        "params": entry.params,
    })
}

pub(super) fn consumer_json(consumer: &Consumer) -> Value {
    json!({ "application": consumer.application, "host": consumer.host })
}

pub(super) fn rule_json(rule: &Rule) -> Value {
    json!({ "kind": rule.kind, "name": rule.name, "body": rule.body })
}

pub(super) fn is_complete(completeness: Completeness) -> bool {
    completeness == Completeness::Complete
}
