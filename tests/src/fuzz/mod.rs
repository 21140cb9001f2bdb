//! Every decoder of bytes from a peer as a plain function: give it anything, it must return.
//!
//! What each holds, beyond not panicking: what it takes for a value it can write and read again, and what it keeps is
//! bounded by what it was given. `tests/hostile` drives them with a seeded mutator in every test run; `./run fuzz` with
//! cargo-fuzz, by hand, for as long as one likes. An input that once broke one is kept under `tests/hostile/found`.

mod control;
mod conversation;
mod data;
mod schemas;
mod session;

/// A decoder, and inputs that are all right to begin with.
pub struct Target {
    /// As on the command line of `./run fuzz`.
    pub name: &'static str,
    /// Takes any bytes, and panics if it breaks one of its promises; whether it understood them.
    pub run: fn(&[u8]) -> bool,
    /// Inputs that it understands.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "compact", run: data::compact, seeds: data::compact_seeds },
    Target { name: "borrowed", run: data::borrowed, seeds: data::borrowed_seeds },
    Target { name: "json", run: data::json, seeds: data::json_seeds },
    Target { name: "xdr", run: data::xdr, seeds: data::xdr_seeds },
    Target { name: "protobuf", run: data::protobuf, seeds: data::protobuf_seeds },
    Target { name: "schema", run: schemas::schema, seeds: schemas::schema_seeds },
    Target { name: "plan", run: schemas::plan, seeds: schemas::plan_seeds },
    Target { name: "describe", run: schemas::describe, seeds: schemas::describe_seeds },
    Target { name: "session", run: session::session, seeds: session::session_seeds },
    Target { name: "control", run: control::control, seeds: control::control_seeds },
    Target { name: "address", run: control::address, seeds: control::address_seeds },
];

/// The target of this name.
///
/// # Panics
/// If there is none.
pub fn run(name: &str, input: &[u8]) {
    match TARGETS.iter().find(|target| target.name == name) {
        Some(target) => drop((target.run)(input)),
        None => panic!("there is no fuzz target {name:?}"),
    }
}
