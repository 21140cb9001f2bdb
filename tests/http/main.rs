//! The HTTP door over real sockets: a binary of its own, for what it is tested with is heavy.

mod calls;
mod client;
mod hostile;
mod openapi;
mod support;
mod tls;
mod trust;
