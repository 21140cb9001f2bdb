//! The text of a list: an address a line, with what is known of it.
//!
//! ```text
//! # For every service:
//! tcp://10.0.0.1:9000 zone=a weight=50
//! unix:/run/pay.sock
//! # From here on for one, `group/name:version` as people write it:
//! [org.example.Payment]
//! tcp://10.0.0.3:9000 tag=gray enabled=false
//! ```

use std::sync::Arc;

use farcall_core::Address;

use crate::entry::{Entry, ServiceKey};

/// Largest file that is read, in bytes.
pub(crate) const MAX_FILE: u64 = 4 << 20;

/// A line's instance and the service that it is for; `None`: every service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) service: Option<ServiceKey>,
    entry: Entry,
}

/// All lines, or what is wrong with which.
pub(crate) fn parse(text: &str) -> Result<Vec<Line>, String> {
    // A writer that does not replace a file but writes it anew makes it empty first.
    if text.trim().is_empty() {
        return Err("it is empty; if nobody is meant, write a comment (\"# nobody\")".to_owned());
    }
    let mut lines = Vec::new();
    let mut service = None;
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        let at = |why: String| format!("line {}: {why}", n + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.strip_prefix('[') {
            Some(rest) => service = Some(section(rest).ok_or_else(|| at(format!("{line:?} is not \"[GROUP/NAME:VERSION]\"")))?),
            None => lines.push(Line { service: service.clone(), entry: entry(line).map_err(at)? }),
        }
    }
    let mut seen = std::collections::HashSet::new();
    match lines.iter().find(|line| !seen.insert((&line.service, line.entry.instance))) {
        Some(line) => Err(format!("{:?} is there twice", line.entry.addresses[0].address)),
        None => Ok(lines),
    }
}

fn section(text: &str) -> Option<ServiceKey> {
    let text = text.strip_suffix(']')?.trim();
    let (group, rest) = text.split_once('/').unwrap_or(("", text));
    let (name, version) = rest.split_once(':').unwrap_or((rest, ""));
    let key = ServiceKey { name: name.to_owned(), group: group.to_owned(), version: version.to_owned() };
    (!name.is_empty() && key.to_string() == text).then_some(key)
}

/// An address and `name=value`s.
fn entry(line: &str) -> Result<Entry, String> {
    let mut words = line.split_whitespace();
    let address = words.next().unwrap_or_default();
    let address: Address = address.parse().map_err(|e: farcall_core::RpcError| e.message().to_owned())?;
    let none = ServiceKey { name: String::new(), group: String::new(), version: String::new() };
    let mut entry = crate::Entry::at(&none, address.to_string());
    for word in words {
        let (name, value) = word.split_once('=').ok_or_else(|| format!("{word:?} is not NAME=VALUE"))?;
        set(&mut entry, name, value)?;
    }
    Ok(entry)
}

/// What a list may say of an instance.
pub(crate) fn set(entry: &mut Entry, name: &str, value: &str) -> Result<(), String> {
    match name {
        "weight" => entry.weight = value.parse().map_err(|_| format!("weight {value:?} is not a number"))?,
        "enabled" => entry.enabled = value.parse().map_err(|_| format!("enabled is \"true\" or \"false\", not {value:?}"))?,
        "application" => entry.application = value.to_owned(),
        "protocol" if !value.is_empty() => entry.addresses[0].protocol = value.to_owned(),
        "" | "protocol" => return Err(format!("\"{name}={value}\" lacks a part")),
        label => drop(entry.labels.insert(label.to_owned(), value.to_owned())),
    }
    Ok(())
}

/// Those that are for a service.
pub(crate) fn of_service(lines: &[Line], service: &ServiceKey) -> Vec<Arc<Entry>> {
    let wanted = lines.iter().filter(|line| line.service.as_ref().is_none_or(|key| service.covers(key)));
    wanted
        .map(|line| {
            let key = line.service.as_ref().unwrap_or(service);
            Arc::new(Entry { service: key.clone(), ..line.entry.clone() })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read() {
        let lines = parse(
            "# for all\ntcp://10.0.0.1:9000 zone=a weight=50\r\n\n  unix:/run/pay.sock enabled=false\n[eu/a.Pay:2]\ntcp://[::1]:1 \
             protocol=http tag=x application=till\n",
        )
        .unwrap();
        let pay = ServiceKey { name: "a.Pay".into(), group: "eu".into(), version: "2".into() };
        let other = ServiceKey { name: "a.Other".into(), group: String::new(), version: String::new() };
        assert_eq!((of_service(&lines, &pay).len(), of_service(&lines, &other).len()), (3, 2));
        let last = of_service(&lines, &pay).pop().unwrap();
        assert_eq!((last.address("http"), last.labels["tag"].as_str(), last.application.as_str()), (Some("tcp://[::1]:1"), "x", "till"));
        assert_eq!(of_service(&lines, &other)[0].weight, 50);
        assert!(!of_service(&lines, &other)[1].enabled);
        assert_eq!(parse("# nobody").unwrap(), []);
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (text, why) in [
            ("tcp://a:1\n10.0.0.1:9000", "line 2: address \"10.0.0.1:9000\""),
            ("tcp://a:1 zone", "line 1: \"zone\" is not NAME=VALUE"),
            ("\n\ntcp://a:1 weight=x", "line 3: weight"),
            ("tcp://a:1 enabled=x", "line 1: enabled"),
            ("tcp://a:1 =x", "line 1:"),
            ("[", "line 1: \"[\" is not"),
            ("[a", "line 1:"),
            ("[/a]", "line 1:"),
            ("tcp://a:1\ntcp://a:1 zone=b", "\"tcp://a:1\" is there twice"),
            ("", "it is empty"),
            ("\n \n", "it is empty"),
        ] {
            let e = parse(text).unwrap_err();
            assert!(e.contains(why), "{text:?}: {e}");
        }
    }
}
