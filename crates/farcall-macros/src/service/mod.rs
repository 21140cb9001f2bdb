//! `#[service]`: a trait becomes a client stub, a server skeleton and a descriptor.
//!
//! `parse` reads the trait and refuses what cannot be a remote method, on the user's own line;
//! `emit` writes the code. What is emitted names `<crate>::__rt` only.

mod emit;
mod lent;
mod parse;

use proc_macro2::TokenStream;
use quote::quote;

/// The expansion of the attribute.
pub(crate) fn expand(args: TokenStream, item: TokenStream) -> TokenStream {
    match parse::service(args, item.clone()) {
        Ok(service) => emit::service(&service),
        Err(error) => {
            // The trait stays as far as it is one, so that one mistake gives one message.
            let kept = parse::without_attributes(item);
            let error = error.into_compile_error();
            quote!(#kept #error)
        }
    }
}
