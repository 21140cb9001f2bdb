//! `farcall describe`: what a provider says of itself.

use std::fmt::Write;

use farcall::Fingerprint;
use farcall::meta::{MethodInfo, ServiceInfo};
use farcall::schema::TypeSchema;
use serde::Serialize;

use crate::args::Describe;
use crate::failure::Failure;
use crate::find;
use crate::provider;
use crate::text::{indented, plain};

/// Asks, and writes the answer down.
pub(crate) async fn run(options: Describe) -> Result<String, Failure> {
    let (_meta, all) = provider::ask(&options.address, options.timeout).await?;
    let chosen: Vec<&ServiceInfo> = match &options.service {
        Some(name) => find::services(&all, name)?,
        None => all.iter().collect(),
    };
    match options.json {
        true => Ok(for_machines(&options.address, &chosen)),
        false => Ok(chosen.into_iter().map(for_people).collect::<Vec<_>>().join("\n")),
    }
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

/// The whole of `--json`. Members may be added, none renamed or removed.
#[derive(Serialize)]
struct Provider<'a> {
    address: &'a str,
    services: Vec<Service<'a>>,
}

#[derive(Serialize)]
struct Service<'a> {
    name: &'a str,
    foreign_name: Option<&'a str>,
    group: &'a str,
    version: &'a str,
    docs: &'a str,
    methods: Vec<Method<'a>>,
}

#[derive(Serialize)]
struct Method<'a> {
    id: usize,
    name: &'a str,
    foreign_name: Option<&'a str>,
    signature: &'a str,
    params: Vec<Param<'a>>,
    idempotent: bool,
    oneway: bool,
    docs: &'a str,
    fingerprints: Fingerprints,
    types: &'a str,
}

#[derive(Serialize)]
struct Param<'a> {
    name: &'a str,
    r#type: &'a str,
}

#[derive(Serialize)]
struct Fingerprints {
    arguments: String,
    result: String,
    error: String,
}

fn for_machines(address: &str, services: &[&ServiceInfo]) -> String {
    let provider = Provider { address, services: services.iter().map(|s| Service::of(s)).collect() };
    // Strings, numbers and lists of them: nothing in it can fail to be written.
    serde_json::to_string_pretty(&provider).unwrap_or_default() + "\n"
}

impl Service<'_> {
    fn of(service: &ServiceInfo) -> Service<'_> {
        Service {
            name: &service.name,
            foreign_name: service.foreign_name.as_deref(),
            group: &service.group,
            version: &service.version,
            docs: &service.docs,
            methods: service.methods.iter().enumerate().map(|(id, m)| Method::of(id, m)).collect(),
        }
    }
}

impl Method<'_> {
    fn of(id: usize, method: &MethodInfo) -> Method<'_> {
        Method {
            id,
            name: &method.name,
            foreign_name: method.foreign_name.as_deref(),
            signature: &method.signature,
            params: method.params.iter().map(|(name, ty)| Param { name, r#type: ty }).collect(),
            idempotent: method.idempotent,
            oneway: method.oneway,
            docs: &method.docs,
            fingerprints: Fingerprints {
                arguments: print(&method.args_print),
                result: print(&method.result_print),
                error: print(&method.error_print),
            },
            types: &method.types,
        }
    }
}
