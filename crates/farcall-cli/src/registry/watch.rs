//! `farcall watch`: what happens to a service, as it happens.

use std::time::Duration;

use farcall_registry::{Consumer, EntryKey, Gone, Registry, Update};
use serde_json::{Value, json};

use super::args::Watch;
use super::show::{entry, entry_json, is_complete, rule, rule_json};
use super::{open, service_key};
use crate::failure::Failure;
use crate::is_read;
use crate::text::plain;

/// Before it subscribes again.
const PAUSE: Duration = Duration::from_secs(1);

/// Until it is interrupted, or nobody reads what it prints.
pub(crate) async fn run(options: Watch) -> Result<String, Failure> {
    let registry = open(&options.at)?;
    let mut once = false;
    loop {
        let e = match follow(&*registry, &options, &mut once).await {
            Err(Failure::Rpc { error, .. }) if once => error,
            ended => return ended.map(|()| String::new()),
        };
        let json = json!({ "event": "lost", "why": e.message() });
        if !say(&options, vec![(format!("!  {}; subscribing again", plain(e.message())), json)])? {
            return Ok(String::new());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Until the subscription ends, which is an error, or nobody reads.
async fn follow(registry: &dyn Registry, options: &Watch, once: &mut bool) -> Result<(), Failure> {
    let me = Consumer { application: "farcall watch".into(), host: format!("/{}", std::process::id()) };
    let mut updates = registry.subscribe(&service_key(&options.service), Some(me)).await?;
    loop {
        let update = updates.next().await?;
        *once = true;
        if !say(options, lines(&update))? {
            return Ok(());
        }
    }
}

/// Prints, and says whether anybody still reads.
fn say(options: &Watch, lines: Vec<(String, Value)>) -> Result<bool, Failure> {
    is_read(&lines.into_iter().map(|(text, json)| if options.json { format!("{json}\n") } else { format!("{text}\n") }).collect::<String>())
}

/// An update, for people and for machines.
fn lines(update: &Update) -> Vec<(String, Value)> {
    match update {
        Update::All(listing) => {
            let complete = is_complete(listing.completeness);
            let note = if complete { "" } else { "; the registry does not see all yet" };
            let json = json!({
                "event": "all",
                "complete": complete,
                "entries": listing.entries.iter().map(|e| entry_json(e, listing.suspect.contains(&e.key()))).collect::<Vec<_>>(),
            });
            let mut text = format!("=  {} entries{note}", listing.entries.len());
            for one in &listing.entries {
                let suspect = if listing.suspect.contains(&one.key()) { "  suspect" } else { "" };
                text += &format!("\n     {}{suspect}", entry(one));
            }
            vec![(text, json)]
        }
        Update::Put(one) => vec![(format!("+  {}", entry(one)), json!({ "event": "put", "entry": entry_json(one, false) }))],
        Update::Suspect(key) => vec![named('?', "suspect", key, "")],
        Update::Gone(key, why) => vec![named('-', "gone", key, why_gone(*why))],
        Update::Rules(rules) => {
            let text = format!("=  {} rules", rules.len()) + &rules.iter().map(|r| format!("\n     {}", rule(r))).collect::<String>();
            vec![(text, json!({ "event": "rules", "rules": rules.iter().map(|r| rule_json(r)).collect::<Vec<_>>() }))]
        }
    }
}

fn named(sign: char, event: &str, key: &EntryKey, why: &str) -> (String, Value) {
    let text = format!("{sign}  [{}] {event} {why}", &key.instance.to_string()[..8]);
    (text.trim_end().to_owned(), json!({ "event": event, "instance": key.instance.to_string(), "why": why }))
}

fn why_gone(why: Gone) -> &'static str {
    match why {
        Gone::Withdrawn => "withdrawn",
        Gone::Expired => "expired",
        Gone::Unsaid => "",
    }
}
