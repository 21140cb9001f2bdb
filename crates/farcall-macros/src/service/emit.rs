//! Writes the code of a service: the trait, a marker type per method, the client and the server.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{Ident, Lifetime, Path, parse_quote};

use super::lent::Lent;
use super::parse::{Items, Method, Service, show, span_of};
use crate::attrs::plain;
use crate::schema::probed;

/// Everything that a service trait becomes.
pub(crate) fn service(service: &Service) -> TokenStream {
    let the_trait = the_trait(service);
    let object = object_form(service);
    let markers = service.methods.iter().enumerate().map(|(row, m)| marker(service, row, m));
    let client = client(service);
    let server = server(service);
    let travels = travels(service);
    quote!(#the_trait #travels #(#markers)* #object #client #server)
}

/// Asks of every type that it can travel, before anything else does: so the first error about one
/// that cannot is the one with the right advice.
fn travels(service: &Service) -> TokenStream {
    let root = &service.root;
    let types = service.methods.iter().flat_map(|m| {
        let streams = || m.up.iter().map(|(_, items)| items).chain(&m.down);
        let out = m.down.is_none().then_some(&m.out);
        let lent = m.params.iter().filter_map(|p| p.lent.travels(&p.ty));
        let owned = out.into_iter().chain(streams().map(|s| &s.item));
        let lent = lent.map(|ty| quote_spanned!(span_of(&ty)=> #root::__rt::travels_lent::<#ty>();));
        let owned = owned.map(|ty| quote_spanned!(span_of(ty)=> #root::__rt::travels::<#ty>();));
        let values = lent.chain(owned).collect::<Vec<_>>().into_iter();
        let error = m
            .error
            .iter()
            .chain(streams().filter_map(|s| s.error.as_ref()))
            .map(|ty| quote_spanned!(span_of(ty)=> #root::__rt::is_app_error::<#ty>();));
        values.chain(error).collect::<Vec<_>>()
    });
    quote! {
        #[allow(deprecated)]
        const _: fn() = || { #(#types)* };
    }
}

fn marker_name(service: &Service, method: &Method) -> Ident {
    format_ident!("{}_{}", service.ident, plain(&method.ident), span = method.ident.span())
}

fn args_name(service: &Service, method: &Method) -> Ident {
    format_ident!("{}_{}_Args", service.ident, plain(&method.ident), span = method.ident.span())
}

fn object_name(service: &Service) -> Ident {
    format_ident!("__Farcall{}", service.ident)
}

fn client_name(service: &Service) -> Ident {
    format_ident!("{}Client", service.ident)
}

fn server_name(service: &Service) -> Ident {
    format_ident!("{}Server", service.ident)
}

/// `order: Order, fast: bool, lines: Streaming<String>`
fn params(method: &Method) -> TokenStream {
    let params = method.params.iter().map(|p| {
        let (ident, ty) = (&p.ident, &p.ty);
        quote!(#ident: #ty)
    });
    let stream = method.up.iter().map(|(ident, items)| {
        let ty = &items.ty;
        quote!(#ident: #ty)
    });
    let params = params.chain(stream);
    quote!(#(#params),*)
}

/// `order, fast, lines`
fn all_names(method: &Method) -> TokenStream {
    let names = method.params.iter().map(|p| &p.ident).chain(method.up.iter().map(|(ident, _)| ident));
    quote!(#(#names),*)
}

/// The same, of the fields of the arguments.
fn given(method: &Method) -> TokenStream {
    let params = method.params.iter().map(|p| p.lent.give(&p.ident));
    let stream = method.up.iter().map(|(ident, _)| quote!(#ident));
    let all = params.chain(stream);
    quote!(#(#all),*)
}

/// The arguments, of the parameters.
fn arguments(service: &Service, method: &Method) -> TokenStream {
    let (root, marker, args) = (&service.root, marker_name(service, method), args_name(service, method));
    let fields = method.params.iter().map(|p| {
        let (ident, value) = (&p.ident, p.lent.lend(&p.ident, root));
        match p.lent {
            Lent::No | Lent::Type => quote!(#ident),
            _ => quote!(#ident: #value),
        }
    });
    let arguments = quote!(#args { #(#fields),* });
    if method.lends() { quote!(#root::__rt::Early::<#marker>::new(#arguments)) } else { arguments }
}

/// What a call holds of its arguments.
fn held_arguments(service: &Service, method: &Method) -> TokenStream {
    let (root, marker, args) = (&service.root, marker_name(service, method), args_name(service, method));
    if method.lends() { quote!(#root::__rt::Early<#marker>) } else { quote!(#args) }
}

/// The lifetime of arguments that are borrowed.
fn call_lifetime() -> Lifetime {
    parse_quote!('__call)
}

/// The form of a stream.
fn stream_form(root: &Path, items: &Items) -> TokenStream {
    let form = if items.bytes { quote!(AsBytes) } else { quote!(AsValue) };
    quote!(#root::__rt::AsStream<#root::__rt::#form>)
}

/// What goes beside the arguments: its type, and how it is made of the parameter.
fn up(root: &Path, method: &Method) -> (TokenStream, TokenStream) {
    match &method.up {
        None => (quote!(()), quote!(())),
        Some((ident, items)) => {
            let (ty, form) = (&items.ty, stream_form(root, items));
            (quote!(#root::__rt::StreamArg<#ty, #form>), quote!(#root::__rt::StreamArg::new(#ident)))
        }
    }
}

/// The schema of a stream.
fn items_schema(root: &Path, items: &Items) -> TokenStream {
    let item = probed(root, &items.item);
    let error = items.error.as_ref().map_or_else(|| quote!(#root::__rt::Never), |e| quote!(#e));
    quote!(#root::__rt::Ty::Tuple(::std::vec![#item, <#error as #root::__rt::ErrorSchema>::error_ty(builder)]))
}

/// `order, fast`, without the stream.
fn names(method: &Method) -> TokenStream {
    let names = method.params.iter().map(|p| &p.ident);
    quote!(#(#names),*)
}

/// What the trait's method gives, inside of its future if it has one.
fn output(method: &Method) -> TokenStream {
    match &method.reply {
        Some(reply) => quote!(#reply),
        None => quote!(()),
    }
}

fn error_type(root: &Path, method: &Method) -> TokenStream {
    match &method.error {
        Some(error) => quote!(#error),
        None => quote!(#root::__rt::Never),
    }
}

fn the_trait(service: &Service) -> TokenStream {
    let Service { vis, ident, attrs, .. } = service;
    let methods = service.methods.iter().map(|m| {
        let (attrs, name, params, output) = (&m.attrs, &m.ident, params(m), output(m));
        match (m.blocking, m.oneway) {
            (true, true) => quote!(#(#attrs)* fn #name(&self, #params);),
            (true, false) => quote!(#(#attrs)* fn #name(&self, #params) -> #output;),
            (false, _) => quote! {
                #(#attrs)*
                fn #name(&self, #params) -> impl ::core::future::Future<Output = #output> + ::core::marker::Send;
            },
        }
    });
    quote! {
        #(#attrs)*
        #vis trait #ident: ::core::marker::Send + ::core::marker::Sync + 'static {
            #(#methods)*
        }
    }
}

/// The marker type of a method and the struct of its arguments.
fn marker(service: &Service, row: usize, method: &Method) -> TokenStream {
    let Service { root, vis, .. } = service;
    let (marker, args, object) = (marker_name(service, method), args_name(service, method), object_name(service));
    let client = client_name(service);
    let lifetime = call_lifetime();
    let fields = method.params.iter().map(|p| {
        let (attrs, ident, ty) = (&p.attrs, &p.ident, p.lent.field(&p.ty, root, &lifetime));
        quote!(#(#attrs)* pub #ident: #ty)
    });
    let generics = method.lends().then(|| quote!(<#lifetime>));
    let lending = method.lends().then(|| {
        quote! {
            #[allow(private_interfaces)]
            impl #root::__rt::Lending for #marker {
                type Lent<#lifetime> = #args<#lifetime>;
            }
        }
    });
    let held = held_arguments(service, method);
    let json = json_only(service, method);
    let (out, error) = (&method.out, error_type(root, method));
    let form = match &method.down {
        Some(items) => stream_form(root, items),
        None => {
            let form = if method.bytes { quote!(AsBytes) } else { quote!(AsValue) };
            quote_spanned!(span_of(&method.out)=> #root::__rt::#form)
        }
    };
    let (up, _) = up(root, method);
    let docs = format!("The method `{}` of [`{}`] as a type.", plain(&method.ident), service.ident);
    let (oneway, row) = (method.oneway, row as u16);
    let call = format_ident!("__farcall_{}", plain(&method.ident));
    let idempotent = method.idempotent.then(|| quote!(impl #root::__rt::Idempotent for #marker {}));
    quote! {
        #[doc = #docs]
        #[allow(non_camel_case_types)]
        #vis enum #marker {}

        #[doc(hidden)]
        #[allow(nonstandard_style, private_interfaces, missing_docs, clippy::all, clippy::pedantic)]
        #[#root::__rt::data(crate = #root)]
        #[schema(probe)]
        #vis struct #args #generics { #(#fields),* }

        #lending

        #[allow(private_interfaces)]
        impl #root::__rt::Method for #marker {
            type Args = #held;
            type Up = #up;
            type Out = #out;
            type Err = #error;
            type Form = #form;
            const INDEX: u16 = #row;
            const ONEWAY: bool = #oneway;
            const JSON: bool = #json;
            #[inline]
            fn service() -> &'static #root::__rt::ServiceDescriptor {
                #client::descriptor()
            }
            fn local(
                target: &#root::__rt::LocalTarget,
                args: #held,
                up: Self::Up,
            ) -> #root::__rt::BoxFuture<'static, #root::__rt::Reply<#out, #error>> {
                match target.downcast_ref::<::std::sync::Arc<dyn #object>>() {
                    ::core::option::Option::Some(provider) => ::std::sync::Arc::clone(provider).#call(args, up),
                    ::core::option::Option::None => #root::__rt::wrong_target::<Self>(),
                }
            }
        }
        #idempotent
    }
}

/// Whether one of a method's types has no schema: then all of it travels as JSON.
fn json_only(service: &Service, method: &Method) -> TokenStream {
    let root = &service.root;
    let streams = method.up.iter().map(|(_, items)| items).chain(&method.down).map(|items| items.item.clone());
    let out = method.down.is_none().then(|| method.out.clone());
    let types = method.params.iter().filter_map(|p| p.lent.travels(&p.ty)).chain(out).chain(streams);
    quote!({
        #[allow(unused_imports)]
        use #root::__rt::NoSchema as _;
        false #(|| !#root::__rt::Probe::<#types>::HAS)*
    })
}

/// The object-safe form, through which a client calls a provider of its own process.
fn object_form(service: &Service) -> TokenStream {
    let Service { root, vis, ident, .. } = service;
    let object = object_name(service);
    // Names that a parameter of the user cannot meet.
    let (args, up_arg) = (Ident::new("args", Span::mixed_site()), Ident::new("up", Span::mixed_site()));
    let signatures: Vec<TokenStream> = service
        .methods
        .iter()
        .map(|m| {
            let (call, held, out, error) =
                (format_ident!("__farcall_{}", plain(&m.ident)), held_arguments(service, m), &m.out, error_type(root, m));
            let (up_type, _) = up(root, m);
            quote! {
                fn #call(
                    self: ::std::sync::Arc<Self>,
                    #args: #held,
                    #up_arg: #up_type,
                ) -> #root::__rt::BoxFuture<'static, #root::__rt::Reply<#out, #error>>
            }
        })
        .collect();
    let bodies = service.methods.iter().map(|m| {
        let (name, names, given, struct_name) = (&m.ident, names(m), given(m), args_name(service, m));
        let stream = m.up.as_ref().map_or_else(|| quote!(let () = #up_arg;), |(ident, _)| quote!(let #ident = #up_arg.into_inner();));
        let called = quote!(<__Provider as #ident>::#name(&*self, #given));
        // What is borrowed is borrowed from the arguments, which the future keeps.
        let read = m.lends().then(|| quote!(let #struct_name { #names } = #args.read()?;));
        let open = (!m.lends()).then(|| quote!(let #struct_name { #names } = #args;));
        let body = match (m.blocking, m.oneway, m.lends()) {
            (true, oneway, true) => {
                let ok = if oneway { quote!({ #called; ::core::result::Result::Ok(()) }) } else { called };
                quote!(#root::__rt::local_blocking(move || { #read #ok }).await?)
            }
            (true, true, false) => quote!(#root::__rt::local_blocking(move || #called).await?; ::core::result::Result::Ok(())),
            (true, false, false) => quote!(#root::__rt::local_blocking(move || #called).await?),
            (false, true, _) => quote!(#read #called.await; ::core::result::Result::Ok(())),
            (false, false, _) => quote!(#read #called.await),
        };
        quote!({
            #open
            #stream
            ::std::boxed::Box::pin(async move { #body })
        })
    });
    quote! {
        #[doc(hidden)]
        #[allow(private_interfaces, missing_docs)]
        #vis trait #object: ::core::marker::Send + ::core::marker::Sync + 'static {
            #(#signatures;)*
        }

        #[allow(private_interfaces, deprecated)]
        impl<__Provider: #ident> #object for __Provider {
            #(#signatures #bodies)*
        }
    }
}

fn descriptor(service: &Service) -> TokenStream {
    let Service { root, docs, name, version, group, .. } = service;
    let foreign = option(service.foreign.as_deref());
    let methods = service.methods.iter().map(|m| {
        let (args, error) = (args_name(service, m), error_type(root, m));
        let args_ty = quote!(<#args as #root::__rt::Schema>::ty(builder));
        let args = match &m.up {
            Some((_, items)) => {
                let items = items_schema(root, items);
                quote!(#root::__rt::Ty::Tuple(::std::vec![#args_ty, #items]))
            }
            None => args_ty,
        };
        let out = m.down.as_ref().map_or_else(|| probed(root, &m.out), |items| items_schema(root, items));
        let (name, docs, foreign) = (plain(&m.ident), &m.docs, option(m.foreign.as_deref()));
        let stream = m.up.iter().map(|(ident, items)| (plain(ident), show(&items.ty)));
        let params: Vec<(String, String)> = m.params.iter().map(|p| (plain(&p.ident), show(&p.ty))).chain(stream).collect();
        let listed = params.iter().map(|(name, ty)| quote!((#name, #ty)));
        let shown: Vec<String> = params.iter().map(|(name, ty)| format!("{name}: {ty}")).collect();
        let arrow = m.reply.as_ref().map_or_else(String::new, |r| format!(" -> {}", show(r)));
        let signature = format!("{name}({}){arrow}", shown.join(", "));
        let Method { idempotent, oneway, cancel, blocking, roles, .. } = m;
        let roles = (!roles.is_empty()).then(|| quote!(.with_roles(&[#(#roles),*])));
        let (args_stream, result_stream) = (m.up.is_some(), m.down.is_some());
        quote! {
            #root::__rt::MethodDescriptor::build_of::<#error>(
                #name, #foreign, #docs, &[#(#listed),*], #signature,
                #root::__rt::MethodTraits {
                    idempotent: #idempotent,
                    oneway: #oneway,
                    cancel: #cancel,
                    blocking: #blocking,
                    args_stream: #args_stream,
                    result_stream: #result_stream,
                },
                |builder| #args,
                |builder| #out,
            )#roles
        }
    });
    quote! {
        static DESCRIPTOR: ::std::sync::OnceLock<#root::__rt::ServiceDescriptor> = ::std::sync::OnceLock::new();
        DESCRIPTOR.get_or_init(|| #root::__rt::ServiceDescriptor {
            name: ::std::string::String::from(#name),
            foreign_name: ::core::option::Option::map(#foreign, ::std::string::String::from),
            docs: ::std::string::String::from(#docs),
            version: ::std::string::String::from(#version),
            group: ::std::string::String::from(#group),
            methods: ::std::vec![#(#methods),*],
        })
    }
}

fn option(text: Option<&str>) -> TokenStream {
    match text {
        Some(text) => quote!(::core::option::Option::Some(#text)),
        None => quote!(::core::option::Option::None::<&str>),
    }
}

fn client(service: &Service) -> TokenStream {
    let Service { root, vis, ident, .. } = service;
    let (client, object) = (client_name(service), object_name(service));
    let descriptor = descriptor(service);
    let own = service.methods.iter().map(|m| {
        let (attrs, name, params, arguments) = (&m.attrs, &m.ident, params(m), arguments(service, m));
        let marker = marker_name(service, m);
        let (_, up) = up(root, m);
        quote! {
            #(#attrs)*
            #[inline]
            pub fn #name(&self, #params) -> #root::__rt::Call<#marker> {
                #root::__rt::Call::new(::core::clone::Clone::clone(&self.channel), #arguments, #up)
            }
        }
    });
    let as_trait = service.methods.iter().map(|m| {
        let (name, params, names, output) = (&m.ident, params(m), all_names(m), output(m));
        let called = quote!(#client::#name(self, #names));
        match (m.blocking, m.oneway) {
            (true, true) => quote!(fn #name(&self, #params) { let _ = #called.wait(); }),
            (true, false) => quote!(fn #name(&self, #params) -> #output { #called.wait() }),
            (false, true) => quote! {
                fn #name(&self, #params) -> impl ::core::future::Future<Output = ()> + ::core::marker::Send {
                    let call = #called;
                    async move { let _ = call.await; }
                }
            },
            (false, false) => quote! {
                fn #name(&self, #params) -> impl ::core::future::Future<Output = #output> + ::core::marker::Send {
                    #called
                }
            },
        }
    });
    let docs = format!(
        "A client of [`{ident}`]: its methods return a [`Call`]({}::Call), to be awaited, waited for, sent or given a callback. \
         It also implements the trait itself. Cheap to clone.",
        crate::data::text(root)
    );
    quote! {
        #[doc = #docs]
        #[derive(Clone, Debug)]
        #vis struct #client {
            channel: #root::__rt::Channel,
        }

        #[allow(private_interfaces)]
        impl #client {
            /// Connects to a provider by address: `tcp://host:port`, `unix:/path` or `mem:name`;
            /// several, separated by commas, are tried in order.
            pub fn connect(addresses: impl ::core::fmt::Display) -> #root::__rt::Connect<Self> {
                #root::__rt::Connect::to(&::std::string::ToString::to_string(&addresses))
            }

            /// Connects to a provider that a resolver finds.
            pub fn connect_with(resolver: impl #root::__rt::Resolver) -> #root::__rt::Connect<Self> {
                #root::__rt::Connect::with_resolver(resolver)
            }

            /// A client of a provider in this process: nothing is encoded, everything else is the same.
            pub fn local(provider: impl #ident) -> Self {
                let provider: ::std::sync::Arc<dyn #object> = ::std::sync::Arc::new(provider);
                Self { channel: #root::__rt::Channel::local(::std::sync::Arc::new(provider)) }
            }

            /// The way to the provider.
            pub fn channel(&self) -> &#root::__rt::Channel {
                &self.channel
            }

            /// What the service is.
            #[inline]
            pub fn descriptor() -> &'static #root::__rt::ServiceDescriptor {
                #descriptor
            }

            #(#own)*
        }

        impl ::core::convert::From<#root::__rt::Channel> for #client {
            fn from(channel: #root::__rt::Channel) -> Self {
                Self { channel }
            }
        }

        impl #root::__rt::Stub for #client {
            fn descriptor() -> &'static #root::__rt::ServiceDescriptor {
                #client::descriptor()
            }
        }

        #[allow(deprecated)]
        impl #ident for #client {
            #(#as_trait)*
        }
    }
}

/// A name that a parameter of the user cannot meet.
fn hidden(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

/// Takes the stream behind the arguments out of the call, if the method has one.
fn with_stream(root: &Path, method: &Method, marker: &Ident, call: &Ident, reply: TokenStream) -> TokenStream {
    let Some((ident, items)) = &method.up else { return reply };
    let (ty, form) = (&items.ty, stream_form(root, items));
    quote! {
        match #call.stream::<#marker, #ty, #form>() {
            ::core::result::Result::Ok(#ident) => { #reply }
            ::core::result::Result::Err(error) => #call.fail(&error),
        }
    }
}

/// A plain `fn` that borrows: the thread that runs it decodes the arguments.
fn lending_and_blocking(
    service: &Service,
    row: u16,
    method: &Method,
    called: &TokenStream,
    ok: &TokenStream,
    reply: &TokenStream,
) -> TokenStream {
    let (root, marker, args, names) = (&service.root, marker_name(service, method), args_name(service, method), names(method));
    let (call, lender) = (hidden("call"), hidden("lender"));
    let run = quote! {
        match #root::__rt::Incoming::blocking(move || #lender.args().map(|#args { #names }| #called)).await {
            // `ok` is what the handler returned, inside of what decoding did.
            Ok(#ok) => #call.reply::<#marker>(#reply),
            Ok(Err(error)) | Err(error) => #call.fail(&error),
        }
    };
    let run = with_stream(root, method, &marker, &call, run);
    quote! {
        #row => {
            let #lender = #call.lender::<#marker>();
            #run
        }
    }
}

fn server(service: &Service) -> TokenStream {
    let Service { root, vis, ident, .. } = service;
    let (client, server) = (client_name(service), server_name(service));
    // Names that a parameter of the user cannot meet.
    let (provider, call, lender) = (hidden("provider"), hidden("call"), hidden("lender"));
    let arms = service.methods.iter().enumerate().map(|(row, m)| {
        let (name, names, row) = (&m.ident, names(m), row as u16);
        let (marker, args) = (marker_name(service, m), args_name(service, m));
        let given = given(m);
        let called = quote!(<__Provider as #ident>::#name(&*#provider, #given));
        let reply = match (m.blocking, m.oneway) {
            (true, oneway) => {
                let ok = if oneway { quote!(Ok(())) } else { quote!(Ok(reply)) };
                let reply = if oneway { quote!(::core::result::Result::Ok(())) } else { quote!(reply) };
                if m.lends() {
                    return lending_and_blocking(service, row, m, &called, &ok, &reply);
                }
                quote! {
                    match #root::__rt::Incoming::blocking(move || #called).await {
                        #ok => #call.reply::<#marker>(#reply),
                        Err(error) => #call.fail(&error),
                    }
                }
            }
            (false, true) => quote!(#called.await; #call.reply::<#marker>(::core::result::Result::Ok(()))),
            (false, false) => quote!(let reply = #called.await; #call.reply::<#marker>(reply)),
        };
        let reply = with_stream(root, m, &marker, &call, reply);
        if m.lends() {
            return quote! {
                #row => {
                    let #lender = #call.lender::<#marker>();
                    match #lender.args() {
                        ::core::result::Result::Ok(#args { #names }) => { #reply }
                        ::core::result::Result::Err(error) => #call.fail(&error),
                    }
                }
            };
        }
        quote! {
            #row => match #call.args::<#marker>() {
                ::core::result::Result::Ok(#args { #names }) => { #reply }
                ::core::result::Result::Err(error) => #call.fail(&error),
            }
        }
    });
    let docs = format!("Serves a provider of [`{ident}`]: give it to a server's `serve`.");
    quote! {
        #[doc = #docs]
        #vis struct #server<P>(::std::sync::Arc<P>);

        #[allow(deprecated)]
        impl<P: #ident> #server<P> {
            /// Serves this provider.
            pub fn new(provider: P) -> Self {
                Self(::std::sync::Arc::new(provider))
            }

            /// Serves a provider that others hold too.
            pub fn shared(provider: ::std::sync::Arc<P>) -> Self {
                Self(provider)
            }
        }

        #[allow(deprecated)]
        impl<__Provider: #ident> #root::__rt::Skeleton for #server<__Provider> {
            fn descriptor(&self) -> &#root::__rt::ServiceDescriptor {
                #client::descriptor()
            }

            fn runner(&self) -> ::std::boxed::Box<dyn #root::__rt::Runner> {
                #root::__rt::runner(
                    ::std::sync::Arc::clone(&self.0),
                    |#provider: ::std::sync::Arc<__Provider>, #call: #root::__rt::Incoming| async move {
                        match #call.method() {
                            #(#arms)*
                            _ => #call.no_such_row(),
                        }
                    },
                )
            }
        }
    }
}
