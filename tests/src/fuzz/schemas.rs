//! Schemas from a peer, and all that is made of them.

use farcall::compat::ServiceCompatibility;
use farcall::export::{Graph, json_schema, proto};
use farcall::messages::Messages;
use farcall::meta::{MethodSchemas, ServiceInfo};
use farcall::plan::decode_with;
use farcall::{Plan, TypeSchema, compact};

use super::data::{Later, Order, later_schema, order_schema, orders};

/// What a schema in an error message or a finding may take.
const LONGEST_FINDING: usize = 4096;

pub(super) fn schema(input: &[u8]) -> bool {
    let Ok(schema) = compact::decode::<TypeSchema>(input) else { return false };
    // These work on what was not checked, too.
    let print = schema.fingerprint();
    schema.type_name();
    let once = compact::encode(&schema).expect("what was read can be written");
    let again = compact::decode::<TypeSchema>(&once).expect("what was written can be read");
    assert_eq!((&again, again.fingerprint()), (&schema, print));
    if schema.validate().is_err() {
        return false;
    }
    assert!(schema.describe().len() <= 64 * (input.len() + 64) * 8, "a listing out of proportion");
    let _ = Messages::of(&schema);
    let mut graph = Graph::default();
    let root = graph.add(&schema);
    let same = TypeSchema { root, defs: graph.defs().to_vec() };
    if same.defs.len() == schema.defs.len() {
        assert_eq!(same.fingerprint(), print, "sorting definitions changes nothing");
    }
    // Definitions that are alike are one there.
    if let Ok(plan) = Plan::compile(&schema, &same) {
        assert!(plan.is_same(), "the graph has another type");
    }
    if let Ok(plan) = Plan::compile(&schema, &schema) {
        assert!(plan.notes().is_empty(), "{:?}", plan.notes());
    }
    for other in [order_schema(), later_schema()] {
        check_findings(&schema, other);
        check_findings(other, &schema);
    }
    true
}

fn check_findings(writer: &TypeSchema, reader: &TypeSchema) {
    match Plan::compile(writer, reader) {
        Ok(plan) => assert!(plan.notes().iter().all(|note| note.to_string().len() < LONGEST_FINDING)),
        Err(error) => assert!(error.to_string().len() < 64 * LONGEST_FINDING),
    }
}

pub(super) fn schema_seeds() -> Vec<Vec<u8>> {
    let own = TypeSchema::of::<TypeSchema>();
    [order_schema(), later_schema(), &own].into_iter().map(|schema| compact::encode(schema).unwrap()).collect()
}

/// The length of a schema as two bytes, the schema, and a message that its writer may have written.
pub(super) fn plan(input: &[u8]) -> bool {
    let Some((length, rest)) = input.split_first_chunk::<2>() else { return false };
    let Some((schema, message)) = rest.split_at_checked(u16::from_le_bytes(*length).into()) else { return false };
    let Ok(writer) = compact::decode::<TypeSchema>(schema) else { return false };
    let mut understood = false;
    if let Ok(plan) = Plan::compile(&writer, later_schema())
        && let Ok(later) = decode_with::<Later>(&plan, message)
    {
        let once = compact::encode(&later).expect("what was read can be written");
        compact::decode::<Later>(&once).expect("what was written can be read");
        understood = true;
    }
    if let Ok(plan) = Plan::compile(&writer, order_schema()) {
        let read = decode_with::<Order>(&plan, message);
        if plan.is_same() {
            assert_eq!(read.is_ok(), compact::decode::<Order>(message).is_ok());
        }
        understood |= read.is_ok();
    }
    understood
}

pub(super) fn plan_seeds() -> Vec<Vec<u8>> {
    let schema = compact::encode(order_schema()).unwrap();
    let length = (schema.len() as u16).to_le_bytes();
    orders().iter().map(|order| [&length[..], &schema, &compact::encode(order).unwrap()].concat()).collect()
}

/// What a provider says of itself, and what tools make of that.
pub(super) fn describe(input: &[u8]) -> bool {
    let Ok((info, schemas)) = compact::decode::<(ServiceInfo, Vec<MethodSchemas>)>(input) else { return false };
    let mut service = info.to_descriptor();
    for (method, schemas) in service.methods.iter_mut().zip(schemas) {
        (method.args, method.result, method.error) = (schemas.args, schemas.result, schemas.error);
    }
    let all = || service.methods.iter().flat_map(|m| [&m.args, &m.result].into_iter().chain(&m.error));
    if all().any(|schema| schema.validate().is_err()) {
        return false;
    }
    let _ = proto(&service);
    let _ = json_schema(&service);
    ServiceCompatibility::of_services(&service, &service);
    true
}

pub(super) fn describe_seeds() -> Vec<Vec<u8>> {
    let service = crate::PaymentClient::descriptor();
    let info = ServiceInfo::of(service);
    let of = |m: &farcall::MethodDescriptor| MethodSchemas { args: m.args.clone(), result: m.result.clone(), error: m.error.clone() };
    let schemas: Vec<MethodSchemas> = service.methods.iter().map(of).collect();
    vec![compact::encode(&(info, schemas)).unwrap()]
}
