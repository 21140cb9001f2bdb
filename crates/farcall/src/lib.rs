//! Remote calls for Rust: what users depend on.
