//! Providers found by the name of their service: clients and servers over registries that work, and that do not.

mod faulty;
mod finding;
mod support;
