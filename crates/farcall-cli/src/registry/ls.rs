//! `farcall ls`: what a registry knows.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use farcall::Code;
use farcall_registry::{Consumer, Entry, EntryKey, Listing, MethodPrints, Override, Registry, ServiceKey, ServiceSummary};
use serde_json::{Value, json};

use super::args::Ls;
use super::show::{consumer, consumer_json, entry, entry_json, is_complete, rule, rule_json, service_json};
use super::{open, service_key};
use crate::failure::Failure;
use crate::find::nearest;
use crate::text::plain;

/// Asks, and writes the answer down.
pub(crate) async fn run(options: Ls) -> Result<String, Failure> {
    let registry = open(&options.at)?;
    let mut all = match registry.services().await {
        // It knows none by name, and tells of one that is named.
        Err(e) if e.code() == Code::Unimplemented => match &options.service {
            Some(_) => Vec::new(),
            None => return Err(Failure::Usage(format!("{}; name one: farcall ls SERVICE", e.message()))),
        },
        all => all?,
    };
    all.sort();
    let Some(wanted) = options.service else {
        return Ok(if options.json { lines(all.iter().map(summary_json)) } else { summaries(&all) });
    };
    let mut out = String::new();
    let key = service_key(&wanted);
    let (found, mut unknown) = match named(&all, &wanted) {
        Ok(found) => (found, None),
        // A list may be for every service.
        Err(unknown) => (vec![&key], Some(unknown)),
    };
    for service in found {
        let looked = Looked::at(&*registry, service).await?;
        if looked.listing.entries.is_empty()
            && let Some(unknown) = unknown.take()
        {
            return Err(unknown);
        }
        out += &if options.json { lines([looked.json()].into_iter()) } else { looked.text() };
    }
    Ok(out)
}

fn lines(values: impl Iterator<Item = Value>) -> String {
    values.map(|value| format!("{value}\n")).collect()
}

fn summary_json(summary: &ServiceSummary) -> Value {
    json!({ "service": service_json(&summary.service), "entries": summary.entries, "consumers": summary.consumers })
}

fn summaries(all: &[ServiceSummary]) -> String {
    if all.is_empty() {
        return "no services\n".to_owned();
    }
    let named: Vec<(String, &ServiceSummary)> = all.iter().map(|s| (plain(&s.service.to_string()).into_owned(), s)).collect();
    let width = named.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max("SERVICE".len());
    let mut out = format!("{:width$}  ENTRIES  CONSUMERS\n", "SERVICE");
    for (name, summary) in named {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name:width$}  {:7}  {:9}", summary.entries, summary.consumers);
    }
    out
}

/// The services that are meant: this one, or all of this name.
pub(super) fn named<'a>(all: &'a [ServiceSummary], wanted: &str) -> Result<Vec<&'a ServiceKey>, Failure> {
    let key = service_key(wanted);
    let fits = |service: &&ServiceKey| {
        let or_any = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        service.name == key.name && or_any(&key.group, &service.group) && or_any(&key.version, &service.version)
    };
    let found: Vec<&ServiceKey> = all.iter().map(|s| &s.service).filter(fits).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let names = || all.iter().map(|s| s.service.name.as_str());
    // A Java interface is known by its last word.
    let last = || names().find(|name| name.rsplit('.').next() == Some(&key.name));
    let hint = nearest(&key.name, names()).or_else(last);
    let hint = hint.map_or_else(String::new, |name| format!(", did you mean {name:?}?"));
    Err(Failure::Usage(format!("the registry knows no service {wanted:?}{hint}; farcall ls shows them")))
}

/// A service with all that is known of it.
struct Looked<'a> {
    service: &'a ServiceKey,
    listing: Listing,
    consumers: Vec<Consumer>,
}

impl<'a> Looked<'a> {
    async fn at(registry: &dyn Registry, service: &'a ServiceKey) -> Result<Looked<'a>, Failure> {
        let mut listing = registry.list(service).await?;
        // As consumers use them.
        listing.entries = listing.entries.iter().map(|entry| Override::apply(&listing.rules, entry)).collect();
        listing.entries.sort_by(|a, b| (&a.application, a.instance).cmp(&(&b.application, b.instance)));
        let consumers = match registry.consumers(service).await {
            Ok(consumers) => consumers,
            // Where they are not recorded there are none to show.
            Err(e) if e.code() == Code::Unimplemented => Vec::new(),
            Err(e) => return Err(e.into()),
        };
        Ok(Looked { service, listing, consumers })
    }

    fn is_suspect(&self, key: &EntryKey) -> bool {
        self.listing.suspect.contains(key)
    }

    fn text(&self) -> String {
        let known = if is_complete(self.listing.completeness) { "" } else { "  (the registry does not see all yet)" };
        let mut out = format!("{}{known}\n", plain(&self.service.to_string()));
        for one in &self.listing.entries {
            let suspect = if self.is_suspect(&one.key()) { "  suspect" } else { "" };
            let _ = writeln!(out, "  {}{suspect}", entry(one));
        }
        if let Some(differs) = differing(&self.listing.entries) {
            let _ = writeln!(out, "  {}", plain(&differs));
        }
        for (title, all) in [
            ("consumers", self.consumers.iter().map(consumer).collect::<Vec<_>>()),
            ("rules", self.listing.rules.iter().map(|r| rule(r)).collect()),
        ] {
            if !all.is_empty() {
                let _ = writeln!(out, "  {title}:");
                all.iter().for_each(|one| out += &format!("    {one}\n"));
            }
        }
        out
    }

    fn json(&self) -> Value {
        json!({
            "service": service_json(self.service),
            "complete": is_complete(self.listing.completeness),
            "differing": differing_methods(&self.listing.entries),
            "entries": self.listing.entries.iter().map(|e| entry_json(e, self.is_suspect(&e.key()))).collect::<Vec<_>>(),
            "consumers": self.consumers.iter().map(consumer_json).collect::<Vec<_>>(),
            "rules": self.listing.rules.iter().map(|r| rule_json(r)).collect::<Vec<_>>(),
        })
    }
}

/// The methods whose types are not the same in all instances that tell theirs.
fn differing_methods(entries: &[Arc<Entry>]) -> BTreeSet<&str> {
    let tables = || entries.iter().map(|entry| &entry.methods).filter(|table| !table.is_empty());
    let everywhere = |row: &MethodPrints| tables().all(|table| table.contains(row));
    tables().flatten().filter(|row| !everywhere(row)).map(|row| row.name.as_str()).collect()
}

/// Says so, with what to do. Whether they fit depends on the consumer, which asks and avoids those that do not.
fn differing(entries: &[Arc<Entry>]) -> Option<String> {
    let methods: Vec<&str> = differing_methods(entries).into_iter().collect();
    let mut first: Vec<(&[MethodPrints], &str)> = Vec::new();
    for entry in entries.iter().filter(|entry| !entry.methods.is_empty()) {
        if !first.iter().any(|(known, _)| *known == entry.methods) {
            first.push((&entry.methods, entry.address("farcall").unwrap_or("ADDR")));
        }
    }
    let addresses: Vec<&str> = first.iter().take(2).map(|(_, address)| *address).collect();
    (!methods.is_empty()).then(|| {
        format!(
            "{} kinds of instances, which differ in {}: consumers avoid those that they do not understand; farcall compat {} compares",
            first.len(),
            methods.join(", "),
            addresses.join(" ")
        )
    })
}
