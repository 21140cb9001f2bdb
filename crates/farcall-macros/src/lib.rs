//! The attributes of farcall: data, error and service.
//!
//! Macros never panic: whatever is wrong becomes a compile error on the user's own code that says what to do.

mod attrs;
mod data;
mod schema;
mod service;

use proc_macro::TokenStream;

/// Makes a struct or enum travel in calls: derives serde's `Serialize` and `Deserialize` and farcall's `Schema`.
///
/// Of the standard library travels all that serde knows, but `OsString`: numbers, text, paths, collections, arrays and
/// tuples of up to 16, pointers and cells, ranges, addresses, `Duration`, `SystemTime`, `Result`; besides,
/// `bytes::Bytes`. The types of uuid, chrono, jiff, url and rust_decimal travel with farcall's feature of that name. A
/// type of any other crate is wrapped in one of your own, or written as another with `#[schema(as = Type)]`; whether
/// such a promise is kept, `farcall::check::schema_of` tells in a test.
///
/// Fields spelled `Vec<u8>` or `Bytes` (also in an `Option`) go as bytes, not as lists of numbers. Fields spelled
/// `Cow<'a, str>` or `Cow<'a, [u8]>` (also in an `Option`) borrow from the message: such a type can be a parameter.
/// `#[data(crate = path)]` names another crate than `::farcall` to refer to.
///
/// On fields and variants, `#[farcall(tag = 3)]` gives a number and `#[farcall(name = "x")]` a name for foreign
/// formats; `#[farcall(name = "org.example.Order")]` on the type names the type there. serde's own attributes are
/// honoured; those that cannot work without field names in the message are refused, and `deny_unknown_fields` holds
/// in JSON alone.
///
/// # When the type changes
///
/// A new field is an `Option` or has `#[serde(default)]`; a renamed field or variant keeps its old name as
/// `#[serde(alias = "old")]`; a unit variant with `#[serde(other)]`, the last one, stands for those that a reader does
/// not know. A reader skips fields that its type lacks, unless the writer's field says
/// `#[farcall(must_understand)]`: then it refuses the value. Variants travel by their place, not by a discriminant
/// (`= 5`), which is for your program alone.
#[proc_macro_attribute]
pub fn data(args: TokenStream, item: TokenStream) -> TokenStream {
    data::expand(data::Flavour::Data, args.into(), item.into()).into()
}

/// Makes a struct or enum an application error of remote methods: all of [`macro@data`], and `AppError`.
#[proc_macro_attribute]
pub fn error(args: TokenStream, item: TokenStream) -> TokenStream {
    data::expand(data::Flavour::Error, args.into(), item.into()).into()
}

/// Derives `Schema` by reading the very serde attributes that serde's derives obey.
///
/// A field with `#[serde(with = …)]`, or a type with `#[serde(from, try_from, into)]`, needs `#[schema(as = Type)]`:
/// the type that it is written as.
#[proc_macro_derive(Schema, attributes(serde, schema, farcall))]
pub fn derive_schema(item: TokenStream) -> TokenStream {
    schema::expand(item.into()).into()
}

/// Makes a trait a remote service: `NameClient` (the stub), `NameServer<P>` (the skeleton) and a descriptor.
///
/// Methods are `async fn name(&self, …) -> Reply<T>` or `Reply<T, E>`; a plain `fn` runs on the blocking pool.
/// Put `#[farcall::data]` on your own types; a type with serde's derives alone makes its method travel as JSON.
///
/// Results are owned. A parameter may be borrowed for the call: `&str`, `&[u8]`, `&[T]`, `&T`, `Option`s of these,
/// `Cow<'_, str>`, or a `#[data]` type with a lifetime. The client then encodes all arguments at once, into one
/// allocation; the handler borrows text and bytes from the message (in JSON, text with escapes is copied), and of other
/// types a decoded value.
///
/// Handlers of one connection run in that connection's task: one after the other until they wait, then side by side.
/// A handler that computes for long holds up its neighbours: make it a plain `fn`, or move the work with
/// `farcall::spawn_blocking`. Calls of one client start in the order in which they were made.
///
/// | on the trait | |
/// |---|---|
/// | `#[service(name = "…")]` | its name on the wire, instead of the trait's |
/// | `#[service(version = "…", group = "…")]` | providers and consumers must agree on both |
/// | `#[service(crate = path)]` | the crate that generated code refers to, instead of `::farcall` |
/// | `#[farcall(name = "org.example.Pay")]` | its name in other protocols |
///
/// | on a method | |
/// |---|---|
/// | `#[farcall(idempotent)]` | running it twice is the same as once: it may be repeated and is cancelled with its caller |
/// | `#[farcall(cancel)]` | a running handler is dropped when its caller goes away |
/// | `#[farcall(oneway)]` | no reply, not even an error; the method has no result |
/// | `#[farcall(name = "sayHello")]` | its name in other protocols |
///
/// A parameter takes `#[farcall(tag = 3, name = "…", must_understand)]` and `#[serde(default, alias = "…")]` like a
/// field of a data type.
#[proc_macro_attribute]
pub fn service(args: TokenStream, item: TokenStream) -> TokenStream {
    service::expand(args.into(), item.into()).into()
}
