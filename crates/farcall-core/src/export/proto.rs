//! A service as a `.proto` file.

use std::fmt::Write;

use super::Graph;
use crate::codec::CodecError;
use crate::descriptor::{MethodDescriptor, ServiceDescriptor};
use crate::messages::{Messages, Names, write_docs};
use crate::schema::Ty;

/// The service with its messages, as the protobuf codec writes them. Fails if numbers of fields collide.
pub fn proto(service: &ServiceDescriptor) -> Result<String, CodecError> {
    let full_name = service.foreign_name.as_deref().unwrap_or(&service.name);
    let (package, name) = full_name.rsplit_once('.').unwrap_or(("", full_name));
    let name = Names::default().unique(name);
    let mut graph = Graph::default();
    let roots: Vec<(String, Ty)> = service.methods.iter().flat_map(|method| roots(method, &mut graph)).collect();
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
    for method in &service.methods {
        write_docs(&mut out, &method.docs, "  ");
        if method.error.is_some() {
            let _ = writeln!(out, "  // Its own error: {}", messages.root_name(at + 2));
        }
        if method.traits.oneway {
            out.push_str("  // One-way: there is no reply.\n");
        }
        let method_name = names.unique(method.foreign_name.as_deref().unwrap_or(&method.name));
        let _ = writeln!(out, "  rpc {method_name}({}) returns ({});", messages.root_name(at), messages.root_name(at + 1));
        at += 2 + usize::from(method.error.is_some());
    }
    out.push_str("}\n");
    Ok(out + &messages.proto())
}

/// Arguments, result and error, and what they are called if they have no name.
fn roots(method: &MethodDescriptor, graph: &mut Graph) -> Vec<(String, Ty)> {
    let mut root = |what: &str, schema| (format!("{} {what}", method.name), graph.add(schema));
    let mut roots = vec![root("args", &method.args), root("result", &method.result)];
    roots.extend(method.error.iter().map(|error| root("error", error)));
    roots
}
