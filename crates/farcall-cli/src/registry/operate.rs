//! `farcall registry disable`, `enable`, `weight`, `reset`: an operator turns instances off and on, and gives them shares.

use std::fmt::Write;
use std::sync::Arc;

use farcall_registry::{Completeness, Entry, Listing, Override, Registry, Rule, ServiceKey};

use super::args::{Operate, What};
use super::ls::named;
use super::{open, show};
use crate::failure::Failure;
use crate::text::plain;

/// Fewer digits of an instance are taken for a slip.
const LEAST_DIGITS: usize = 4;
/// Digits of an instance's name.
const ALL_DIGITS: usize = 32;

/// Writes a rule for each instance; says what it does now.
pub(crate) async fn run(options: Operate) -> Result<String, Failure> {
    let registry = open(&options.at)?;
    let mut all = registry.services().await?;
    all.sort();
    let services = named(&all, &options.service)?;
    let [service] = services[..] else {
        let names: Vec<String> = services.iter().map(ToString::to_string).collect();
        return Err(Failure::Usage(format!("{:?} is several services: {}; name one", options.service, names.join(", "))));
    };
    let listing = registry.list(service).await?;
    // All of them, before anything is written.
    let names = options.instances.iter().map(|given| name(given, service, &listing)).collect::<Result<Vec<_>, _>>()?;
    let mut out = String::new();
    for name in names {
        let rule = changed(Override::named(&listing.rules, &name), options.what).rule(service, &name);
        registry.write_rule(rule.clone()).await?;
        let said = if rule.body.is_empty() { "as its provider says" } else { &rule.body };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{}  {}", plain(&name), said);
        for one in listing.entries.iter().filter(|entry| is_of(entry, &name)) {
            let _ = writeln!(out, "  {}", show::entry(&Override::apply(&[Arc::new(rule.clone())], one)));
        }
    }
    forget_the_gone(&*registry, &listing).await?;
    Ok(out)
}

fn changed(now: Override, what: What) -> Override {
    match what {
        What::Disable => Override { enabled: Some(false), ..now },
        What::Enable => Override { enabled: Some(true), ..now },
        What::Weight(weight) => Override { weight: Some(weight), ..now },
        What::Reset => Override::default(),
    }
}

/// The name of the rule for what was given: an address as it is, the instance of which some digits were given.
fn name(given: &str, service: &ServiceKey, listing: &Listing) -> Result<String, Failure> {
    let wrong = |why: String| Failure::Usage(format!("instance {given:?} of {service}: {why}"));
    if given.contains(':') {
        let known = listing.entries.iter().any(|entry| is_of(entry, given)) || is_ruled(&listing.rules, given);
        return if known { Ok(given.to_owned()) } else { Err(wrong("no instance has this address; farcall ls shows them".into())) };
    }
    if given.len() < LEAST_DIGITS || given.len() > ALL_DIGITS || !given.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(wrong(format!("write {LEAST_DIGITS} to {ALL_DIGITS} of its digits, or its address, as farcall ls shows them")));
    }
    let digits = given.to_ascii_lowercase();
    let found: Vec<String> = listing.entries.iter().map(|e| e.instance.to_string()).filter(|name| name.starts_with(&digits)).collect();
    match &found[..] {
        [one] => Ok(one.clone()),
        [] if is_ruled(&listing.rules, &digits) => Ok(digits),
        [] => Err(wrong("there is none; farcall ls shows them".into())),
        several => Err(wrong(format!("{} begin so: give more digits", several.len()))),
    }
}

fn is_of(entry: &Entry, name: &str) -> bool {
    entry.instance.to_string() == name || entry.addresses.iter().any(|a| a.address == name)
}

fn is_ruled(rules: &[Arc<Rule>], name: &str) -> bool {
    rules.iter().any(|rule| rule.kind == Override::KIND && rule.name == name)
}

/// Rules of instances that have ended would stand there for ever: an instance's name is for one process.
async fn forget_the_gone(registry: &dyn Registry, listing: &Listing) -> Result<(), Failure> {
    if listing.completeness == Completeness::Incomplete {
        return Ok(());
    }
    let is_digits = |name: &str| name.len() == ALL_DIGITS && name.bytes().all(|b| b.is_ascii_hexdigit());
    let gone = |rule: &&Arc<Rule>| {
        rule.kind == Override::KIND && is_digits(&rule.name) && !listing.entries.iter().any(|entry| is_of(entry, &rule.name))
    };
    for rule in listing.rules.iter().filter(gone) {
        registry.write_rule(Override::default().rule(&rule.service, &rule.name)).await?;
    }
    Ok(())
}
