//! A service's types for other people's tools: a `.proto` file, and JSON Schema.
//!
//! Both are made of the schemas in a [`ServiceDescriptor`](crate::ServiceDescriptor), merged into one graph: a type that several methods use
//! stands there once. Schemas from a peer must have passed [`TypeSchema::validate`](crate::TypeSchema::validate).

mod graph;
#[cfg(feature = "json")]
mod json_schema;
mod parts;
mod proto;

pub use graph::Graph;
#[cfg(feature = "json")]
pub use json_schema::{Json, NamedSchemas, SchemaSet, json_schema};
pub use proto::proto;
