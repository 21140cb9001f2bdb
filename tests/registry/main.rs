//! Providers found by the name of their service: clients and servers over registries that work, and that do not.

mod failures;
mod faulty;
mod finding;
mod misfits;
mod namespaces;
mod operators;
mod processes;
mod support;
