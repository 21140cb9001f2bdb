//! `farcall describe`: what a provider says of itself.

use std::fmt::Write;

use farcall::Fingerprint;
use farcall::meta::{MethodInfo, ServiceInfo};
use farcall::schema::TypeSchema;

use crate::args::Describe;
use crate::description::Description;
use crate::failure::Failure;
use crate::find;
use crate::provider;
use crate::text::{indented, plain};

/// Asks, and writes the answer down.
pub(crate) async fn run(options: Describe) -> Result<String, Failure> {
    let (meta, all) = provider::ask(&options.address, &options.access, options.timeout).await?;
    let chosen: Vec<&ServiceInfo> = match &options.service {
        Some(name) => find::services(&all, name)?,
        None => all.iter().collect(),
    };
    if options.json {
        let services = provider::with_schemas(&meta, &chosen, options.timeout).await?;
        return Ok(for_machines(&Description { address: options.address, services }));
    }
    Ok(chosen.into_iter().map(for_people).collect::<Vec<_>>().join("\n"))
}

fn for_machines(description: &Description) -> String {
    // Strings, numbers and lists of them: nothing in it can fail to be written.
    serde_json::to_string_pretty(description).unwrap_or_default() + "\n"
}

fn for_people(service: &ServiceInfo) -> String {
    let mut notes = Vec::new();
    notes.extend((!service.group.is_empty()).then(|| format!("group {:?}", service.group)));
    notes.extend((!service.version.is_empty()).then(|| format!("version {:?}", service.version)));
    notes.extend(service.foreign_name.as_ref().map(|name| format!("elsewhere {name}")));
    let notes = if notes.is_empty() { String::new() } else { format!("  ({})", notes.join(", ")) };
    let mut out = format!("{}{}\n", plain(&service.name), plain(&notes));
    out += &indented(&service.docs, "  ");
    for (id, method) in service.methods.iter().enumerate() {
        out.push('\n');
        out += &method_for_people(id, method);
    }
    out
}

fn method_for_people(id: usize, method: &MethodInfo) -> String {
    let mut out = format!("  {id:<3}{}\n", plain(&method.signature));
    let mut notes = Vec::new();
    notes.extend(method.idempotent.then(|| "idempotent: may be repeated".to_owned()));
    notes.extend(method.oneway.then(|| "one-way: no reply".to_owned()));
    notes.extend(method.args_stream.then(|| "takes a stream".to_owned()));
    notes.extend(method.result_stream.then(|| "gives a stream".to_owned()));
    notes.extend((!method.roles.is_empty()).then(|| format!("for the role {}", method.roles.join(" or "))));
    notes.extend(method.json_only.then(|| "travels as JSON: a type of it has no schema".to_owned()));
    notes.extend(method.foreign_name.as_ref().map(|name| format!("elsewhere {name}")));
    out += &indented(&notes.join(", "), "     ");
    out += &indented(&method.docs, "     ");
    // Writing to a string cannot fail.
    let _ = writeln!(out, "     arguments  {}", print(&method.args_print));
    if !method.oneway {
        let _ = writeln!(out, "     result     {}", print(&method.result_print));
        let no_error = method.error_print == TypeSchema::of::<()>().fingerprint().0;
        let _ = writeln!(out, "     error      {}", if no_error { "none".to_owned() } else { print(&method.error_print) });
    }
    out + &indented(&method.types, "       ")
}

fn print(bytes: &[u8; 16]) -> String {
    Fingerprint(*bytes).to_string()
}
