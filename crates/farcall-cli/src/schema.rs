//! `farcall schema`: a service's types, for people and for other people's compilers.

use farcall::export::{Graph, json_schema, proto};
use farcall::meta::ServiceInfo;
use farcall::schema::Ty;
use farcall::{Code, CodecError, MethodDescriptor, RpcError, ServiceDescriptor, TypeSchema};

use crate::args::{Format, Schema};
use crate::description::Service;
use crate::failure::Failure;
use crate::text::{indented, plain};
use crate::{find, provider};

/// The service that describes the others.
const META: &str = "farcall.Meta";
/// What the names of built-in services begin with.
const BUILT_IN: &str = "farcall.";

/// Asks, and writes the answer down.
pub(crate) async fn run(options: Schema) -> Result<String, Failure> {
    let (meta, all) = provider::ask(&options.address, &options.access, options.timeout).await?;
    let name = match &options.service {
        Some(name) => name,
        None => only(&all)?,
    };
    let service = find::named(&all, name, options.group.as_deref(), options.version.as_deref())?;
    let service = checked(provider::with_its_schemas(&meta, service, options.timeout).await?, &options.address)?;
    match options.format {
        Format::Text => Ok(for_people(&service)),
        Format::Proto => proto(&service).map(|text| plain(&text).into_owned()).map_err(|e| cannot_be(&service, "a .proto file", &e)),
        Format::JsonSchema => json_schema(&service).map_err(|e| cannot_be(&service, "JSON Schema", &e)),
    }
}

fn only(all: &[ServiceInfo]) -> Result<&str, Failure> {
    let mut names: Vec<&str> = all.iter().map(|service| service.name.as_str()).filter(|name| !name.starts_with(BUILT_IN)).collect();
    names.dedup();
    match names.as_slice() {
        [one] => Ok(one),
        [] => Ok(META),
        several => Err(Failure::Usage(format!("which service? farcall schema ADDR SERVICE\n  services: {}", several.join(", ")))),
    }
}

/// The descriptor of a service. Its schemas come from elsewhere and are held against the rules here.
fn checked(service: Service, address: &str) -> Result<ServiceDescriptor, Failure> {
    let service = service.descriptor().map_err(|why| Failure::Usage(format!("{address}: {why}")))?;
    for method in &service.methods {
        for schema in [&method.args, &method.result].into_iter().chain(&method.error) {
            schema.validate().map_err(|e| RpcError::new(Code::Internal, format!("{}.{}: {e}", service.name, method.name)))?;
        }
    }
    Ok(service)
}

fn cannot_be(service: &ServiceDescriptor, what: &str, e: &CodecError) -> Failure {
    RpcError::not_sent(Code::FailedPrecondition, format!("{} cannot be written as {what}: {e}", service.name)).into()
}

fn for_people(service: &ServiceDescriptor) -> String {
    let mut graph = Graph::default();
    let mut out = format!("{}\n{}", plain(&service.name), indented(&service.docs, "  "));
    for method in &service.methods {
        out += &format!("\n  {}\n{}", plain(&method.signature), indented(&method.docs, "    "));
        for schema in [&method.args, &method.result].into_iter().chain(&method.error) {
            graph.add(schema);
        }
    }
    // The structs of the arguments are ours; the signatures show them better.
    let arguments: Vec<&str> = service.methods.iter().filter_map(arguments_name).collect();
    let types = TypeSchema { root: Ty::Unit, defs: graph.defs().to_vec() };
    for (def, text) in types.defs.iter().zip(types.describe_each()) {
        if !arguments.contains(&def.name.as_str()) {
            out += &format!("\n{}", indented(&text, "  "));
        }
    }
    out
}

fn arguments_name(method: &MethodDescriptor) -> Option<&str> {
    let ty = match &method.args.root {
        Ty::Tuple(types) if method.traits.args_stream => types.first()?,
        ty => ty,
    };
    let Ty::Ref(index) = ty else { return None };
    method.args.defs.get(*index as usize).map(|def| def.name.as_str())
}
