//! A service as a `.proto` file.

use std::fmt::Write;

use super::Graph;
use super::parts::{Part, Role, parts};
use crate::codec::CodecError;
use crate::descriptor::{MethodDescriptor, ServiceDescriptor};
use crate::messages::{Messages, Names, write_docs};
use crate::schema::Ty;

/// The service with its messages, as the protobuf codec writes them; of methods that travel as JSON alone only a comment. Fails if
/// numbers of fields collide.
pub fn proto(service: &ServiceDescriptor) -> Result<String, CodecError> {
    let full_name = service.foreign_name.as_deref().unwrap_or(&service.name);
    let (package, name) = full_name.rsplit_once('.').unwrap_or(("", full_name));
    let name = Names::default().unique(name);
    let mut graph = Graph::default();
    let (json_only, others): (Vec<_>, Vec<_>) = service.methods.iter().partition(|method| method.is_json_only());
    let methods = others.into_iter().map(|method| Ok((method, parts(method)?))).collect::<Result<Vec<_>, CodecError>>()?;
    let roots: Vec<(String, Ty)> = methods.iter().flat_map(|(method, parts)| roots(method, parts, &mut graph)).collect();
    let messages = Messages::of_roots(graph.defs(), &roots, &[&name])?;

    let mut out = "syntax = \"proto3\";\n".to_owned();
    if !package.is_empty() {
        let parts: Vec<String> = package.split('.').map(|part| Names::default().unique(part)).collect();
        let _ = writeln!(out, "\npackage {};", parts.join("."));
    }
    out.push('\n');
    write_docs(&mut out, &service.docs, "");
    let _ = writeln!(out, "service {name} {{");
    let (mut at, mut names) = (0, Names::default());
    for (method, parts) in &methods {
        write_docs(&mut out, &method.docs, "  ");
        let name = names.unique(method.foreign_name.as_deref().unwrap_or(&method.name));
        let types: Vec<(Role, &str)> = parts.iter().zip(at..).map(|(part, root)| (part.role, messages.root_name(root))).collect();
        write_rpc(&mut out, method, &name, &types);
        at += parts.len();
    }
    for method in json_only {
        let _ = writeln!(out, "  // {}: not here, because it travels as JSON alone.", names.unique(&method.name));
    }
    out.push_str("}\n");
    Ok(out + &messages.proto())
}

/// What a method carries, and what that is called if it has no name.
fn roots(method: &MethodDescriptor, parts: &[Part<'_>], graph: &mut Graph) -> Vec<(String, Ty)> {
    let root = |part: &Part<'_>| (format!("{} {}", method.name, words(part.role)), graph.add_type(part.ty, part.defs));
    parts.iter().map(root).collect()
}

fn words(role: Role) -> &'static str {
    match role {
        Role::Arguments => "args",
        Role::ArgumentsItem => "args item",
        Role::ArgumentsStreamError => "args stream error",
        Role::Result => "result",
        Role::ResultItem => "result item",
        Role::ResultStreamError => "result stream error",
        Role::Error => "error",
    }
}

/// A line of the service. What proto3 has no words for is a comment: a stream beside the arguments, and errors.
fn write_rpc(out: &mut String, method: &MethodDescriptor, name: &str, types: &[(Role, &str)]) {
    let of = |role: Role| types.iter().find(|(found, _)| *found == role).map(|(_, name)| *name);
    let comments = [
        ("Its own error", Role::Error),
        ("Behind the arguments follows a stream of", Role::ArgumentsItem),
        ("The stream behind the arguments may end with", Role::ArgumentsStreamError),
        ("The stream of results may end with", Role::ResultStreamError),
    ];
    for (text, role) in comments {
        if let Some(ty) = of(role) {
            let _ = writeln!(out, "  // {text}: {ty}");
        }
    }
    if method.traits.oneway {
        out.push_str("  // One-way: there is no reply.\n");
    }
    let result = match of(Role::ResultItem) {
        Some(item) => format!("stream {item}"),
        None => of(Role::Result).unwrap_or("?").to_owned(),
    };
    let _ = writeln!(out, "  rpc {name}({}) returns ({result});", of(Role::Arguments).unwrap_or("?"));
}
