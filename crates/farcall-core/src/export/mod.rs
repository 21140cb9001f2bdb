//! A service's types for other people's tools: a `.proto` file.
//!
//! It is made of the schemas in a [`ServiceDescriptor`](crate::ServiceDescriptor), merged into one graph: a type that several methods use
//! stands there once. Schemas from a peer must have passed [`TypeSchema::validate`](crate::TypeSchema::validate).

mod graph;
mod proto;

pub use graph::Graph;
pub use proto::proto;
