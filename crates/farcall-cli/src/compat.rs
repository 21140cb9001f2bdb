//! `farcall compat`: whether two versions of a provider's services understand each other.

use std::fmt::Write;

use farcall::ServiceDescriptor;
use farcall::compat::{Compatibility, MethodCompatibility, ServiceCompatibility, services};

use crate::args::{Compat, First};
use crate::description::{Description, Service};
use crate::failure::Failure;
use crate::output::Output;
use crate::text::plain;
use crate::{args, provider};

/// Names of the services that come with farcall itself.
const BUILT_IN: &str = "farcall.";

/// Compares; it fails only where there is nothing to compare.
pub(crate) async fn run(options: Compat) -> Result<Output, Failure> {
    let old = version(&options.old, &options).await?;
    let new = version(&options.new, &options).await?;
    let found = services(&old, &new);
    if found.is_empty() {
        return Err(Failure::Usage(match &options.service {
            Some(name) => format!("neither {} nor {} has a service {name:?}", options.old, options.new),
            None => format!("neither {} nor {} has a service", options.old, options.new),
        }));
    }
    let old_client = found.iter().any(|service| service.breaks().0);
    let new_client = found.iter().any(|service| service.breaks().1);
    let breaks = match options.first {
        None => old_client || new_client,
        Some(First::Servers) => old_client,
        Some(First::Clients) => new_client,
    };
    let mut text: String = found.iter().map(service_text).collect();
    let verdict = |breaks| if breaks { "breaks" } else { "safe" };
    // Writing to a string cannot fail.
    let _ = writeln!(text, "old clients with new servers: {}", verdict(old_client));
    let _ = writeln!(text, "new clients with old servers: {}", verdict(new_client));
    Ok(Output { text, exit_code: u8::from(breaks) })
}

/// The services in a file or at an address, those of farcall itself only if one was asked for.
async fn version(place: &str, options: &Compat) -> Result<Vec<ServiceDescriptor>, Failure> {
    let description = match args::is_address(place) {
        true => provider::describe(place, &options.access, options.timeout).await.map_err(Failure::NotCompared)?,
        false => read(place)?,
    };
    let wanted = |service: &Service| match &options.service {
        Some(name) => service.name() == name,
        None => !service.name().starts_with(BUILT_IN),
    };
    let descriptors = description.services.into_iter().filter(wanted).map(Service::descriptor);
    descriptors.collect::<Result<_, _>>().map_err(|why| Failure::Usage(format!("{place}: {why}")))
}

fn read(path: &str) -> Result<Description, Failure> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        let hint = if path.contains(':') { "; an address is tcp://HOST:PORT or unix:/PATH" } else { "" };
        Failure::Usage(format!("cannot read {path:?}: {e}{hint}"))
    })?;
    let advice = "write the file with `farcall describe ADDR --json`";
    serde_json::from_str(&text).map_err(|e| Failure::Usage(format!("{path:?} is not a description: {e}; {advice}")))
}

fn service_text(service: &ServiceCompatibility) -> String {
    let mut notes = Vec::new();
    notes.extend((!service.group.is_empty()).then(|| format!("group {:?}", service.group)));
    notes.extend((!service.version.is_empty()).then(|| format!("version {:?}", service.version)));
    let notes = if notes.is_empty() { String::new() } else { format!("  ({})", notes.join(", ")) };
    let methods: String = service.methods.iter().map(method_text).collect();
    format!("{}{}\n{methods}\n", plain(&service.name), plain(&notes))
}

fn method_text(method: &MethodCompatibility) -> String {
    let MethodCompatibility { name, old_client, new_client } = method;
    match (old_client, new_client) {
        (Compatibility::Safe, Compatibility::Safe) => format!("  {}: safe\n", plain(name)),
        _ => {
            let (old, new) = (direction("old client, new server", old_client), direction("new client, old server", new_client));
            format!("  {}\n{old}{new}", plain(name))
        }
    }
}

fn direction(who: &str, found: &Compatibility) -> String {
    let verdict = match found {
        Compatibility::Safe => "safe",
        Compatibility::SafeWith(_) => "safe, but",
        Compatibility::Breaks(_) => "breaks",
    };
    let issues: String = found.issues().iter().map(|issue| format!("      {}\n", plain(&issue.to_string()))).collect();
    format!("    {who}: {verdict}\n{issues}")
}
