//! Reads a service trait and refuses what cannot be called remotely.

use std::collections::HashMap;

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote};
use syn::parse::Parser;
use syn::spanned::Spanned;
use syn::{
    Attribute, FnArg, GenericArgument, Generics, Ident, ItemTrait, Pat, Path, PathArguments, ReceiverKind, ReturnType, Safety, Signature,
    TraitItem, TraitItemFn, Type, Visibility, parse_quote,
};

use super::lent::{Lent, lent};
use crate::attrs::{docs, each, plain, set, skip_value, string};
use crate::data::argument;
use crate::schema::{is_named, last_segment};

/// Functions that the generated client has of its own.
const TAKEN: [&str; 7] = ["connect", "connect_with", "local", "channel", "descriptor", "clone", "from"];
/// More methods than a method table may have rows is not a service but a mistake.
const MAX_METHODS: usize = 1024;
/// Bytes of a role's name.
const MAX_ROLE: usize = 64;

/// A service trait, checked.
pub(crate) struct Service {
    pub(crate) root: Path,
    pub(crate) vis: Visibility,
    pub(crate) ident: Ident,
    /// The trait's other attributes, docs included.
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) docs: String,
    pub(crate) name: String,
    pub(crate) foreign: Option<String>,
    pub(crate) version: String,
    pub(crate) group: String,
    /// For methods that say nothing of their own.
    pub(crate) roles: Vec<String>,
    pub(crate) methods: Vec<Method>,
}

/// A method, checked.
pub(crate) struct Method {
    pub(crate) ident: Ident,
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) docs: String,
    pub(crate) foreign: Option<String>,
    /// Without the stream.
    pub(crate) params: Vec<Param>,
    /// The last parameter, if it is a stream.
    pub(crate) up: Option<(Ident, Items)>,
    /// The result, if it is a stream.
    pub(crate) down: Option<Items>,
    /// The whole return type of a two-way method, as written.
    pub(crate) reply: Option<Type>,
    pub(crate) out: Type,
    /// `None`: no application error.
    pub(crate) error: Option<Type>,
    /// The result goes as bytes.
    pub(crate) bytes: bool,
    pub(crate) idempotent: bool,
    pub(crate) oneway: bool,
    pub(crate) cancel: bool,
    pub(crate) blocking: bool,
    /// A caller needs one of these.
    pub(crate) roles: Vec<String>,
}

/// A stream's type, taken apart.
pub(crate) struct Items {
    /// All of it, as written.
    pub(crate) ty: Type,
    pub(crate) item: Type,
    /// `None`: no application error.
    pub(crate) error: Option<Type>,
    /// Items go as bytes.
    pub(crate) bytes: bool,
}

impl Method {
    /// Whether it has a parameter that is borrowed.
    pub(crate) fn lends(&self) -> bool {
        self.params.iter().any(|param| !matches!(param.lent, Lent::No))
    }
}

/// A parameter, checked.
pub(crate) struct Param {
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
    pub(crate) lent: Lent,
    /// `#[farcall(tag, name)]`, for the field it becomes.
    pub(crate) attrs: Vec<Attribute>,
}

pub(super) fn err<T>(at: impl ToTokens, message: impl std::fmt::Display) -> syn::Result<T> {
    Err(syn::Error::new_spanned(at, message))
}

/// Reads the attribute and the trait.
pub(crate) fn service(args: TokenStream, item: TokenStream) -> syn::Result<Service> {
    let item: ItemTrait = syn::parse2(item).map_err(|e| syn::Error::new(e.span(), format!("`#[service]` goes on a trait ({e})")))?;
    let ident = item.ident.clone();
    let mut service = Service {
        root: parse_quote!(::farcall),
        vis: item.vis.clone(),
        docs: docs(&item.attrs),
        name: plain(&ident),
        ident,
        attrs: foreign_attrs(&item.attrs),
        foreign: None,
        version: String::new(),
        group: String::new(),
        roles: Vec::new(),
        methods: Vec::new(),
    };
    arguments(&mut service, args)?;
    each(&item.attrs, "farcall", |key, meta| match key {
        "name" => set(&mut service.foreign, string(meta)?, meta),
        "role" => role(&mut service.roles, meta),
        _ => Err(meta.error(
            "unknown: on a service, `#[farcall(…)]` takes `name = \"…\"`, its name in other protocols, and `role = \"…\"`, \
             which its callers need",
        )),
    })?;
    shape(&item)?;
    // Every method's mistakes are shown, not only the first's.
    let mut errors: Option<syn::Error> = None;
    for item in &item.items {
        match method(item, &service.roles) {
            Ok(method) => service.methods.push(method),
            Err(e) => match &mut errors {
                Some(all) => all.combine(e),
                None => errors = Some(e),
            },
        }
    }
    if let Some(errors) = errors {
        return Err(errors);
    }
    unique(&service.methods)?;
    if service.methods.is_empty() {
        return err(&service.ident, "a service needs at least one method: `async fn name(&self) -> Reply<T>;`");
    }
    if service.methods.len() > MAX_METHODS {
        return err(&service.ident, format!("{} methods in one service; split it: {MAX_METHODS} is the limit", service.methods.len()));
    }
    Ok(service)
}

fn arguments(service: &mut Service, args: TokenStream) -> syn::Result<()> {
    let parser = syn::meta::parser(|meta| {
        let key = meta.path.get_ident().map(Ident::to_string).unwrap_or_default();
        match key.as_str() {
            "crate" => service.root = meta.value()?.call(Path::parse_mod_style)?,
            "name" => service.name = string(&meta)?,
            "version" => service.version = string(&meta)?,
            "group" => service.group = string(&meta)?,
            _ => {
                return Err(meta.error("unknown: `#[service]` takes `name = \"…\"`, `version = \"…\"`, `group = \"…\"` and `crate = path`"));
            }
        }
        Ok(())
    });
    parser.parse2(args)
}

fn shape(item: &ItemTrait) -> syn::Result<()> {
    if !item.generics.params.is_empty() || item.generics.where_clause.is_some() {
        return err(&item.generics, "a service cannot be generic: both processes must know all its types; write one trait per type");
    }
    if let Some(unsafety) = &item.unsafety {
        return err(unsafety, "a service trait cannot be unsafe: its client implements it too");
    }
    let auto = |bound: &&syn::TypeParamBound| match bound {
        syn::TypeParamBound::Trait(t) => !["Send", "Sync"].iter().any(|name| t.path.is_ident(name)),
        syn::TypeParamBound::Lifetime(l) => l.ident != "static",
        _ => true,
    };
    match item.supertraits.iter().find(auto) {
        Some(bound) => err(bound, "a service has no supertraits: its client could not implement them; put them on the provider's type"),
        None => Ok(()),
    }
}

/// `role = "teller"`: one more of the roles of which a caller needs one.
fn role(roles: &mut Vec<String>, meta: &syn::meta::ParseNestedMeta) -> syn::Result<()> {
    let text: syn::LitStr = meta.value()?.parse()?;
    let role = text.value();
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != ',';
    if role.is_empty() || role.len() > MAX_ROLE || !role.chars().all(plain) {
        let why = format!("a role is 1 to {MAX_ROLE} bytes without blanks and commas; for several write `role = \"a\", role = \"b\"`");
        return Err(syn::Error::new(text.span(), why));
    }
    if roles.contains(&role) {
        return Err(syn::Error::new(text.span(), format!("the role {role:?} is given twice")));
    }
    roles.push(role);
    Ok(())
}

/// Reads a method; `roles` are the service's.
fn method(item: &TraitItem, roles: &[String]) -> syn::Result<Method> {
    let item = match item {
        TraitItem::Fn(item) => item,
        TraitItem::Const(c) => return err(&c.ident, "a service has no constants: make it a method"),
        TraitItem::Type(t) => return err(&t.ident, "a service has no associated types: both processes must know all its types"),
        other => return err(other, "a service has only methods"),
    };
    let TraitItemFn { attrs, sig, default, .. } = item;
    let mut method = Method {
        ident: sig.ident.clone(),
        attrs: foreign_attrs(attrs),
        docs: docs(attrs),
        foreign: None,
        params: Vec::new(),
        up: None,
        down: None,
        reply: None,
        out: parse_quote!(()),
        error: None,
        bytes: false,
        idempotent: false,
        oneway: false,
        cancel: false,
        blocking: sig.asyncness.is_none(),
        roles: Vec::new(),
    };
    let mut public = None;
    each(attrs, "farcall", |key, meta| {
        match key {
            "role" => return role(&mut method.roles, meta),
            "public" => public = Some(meta.path.span()),
            "idempotent" => method.idempotent = true,
            "oneway" => method.oneway = true,
            "cancel" => method.cancel = true,
            "name" => return set(&mut method.foreign, string(meta)?, meta),
            _ => {
                return Err(meta.error(
                    "unknown: on a method, `#[farcall(…)]` takes `idempotent`, `oneway`, `cancel`, `name = \"…\"`, `role = \"…\"` and `public`",
                ));
            }
        }
        Ok(())
    })?;
    match public {
        Some(at) if !method.roles.is_empty() => {
            return Err(syn::Error::new(at, "`public` means that no role is needed, and there is one: take one of the two off"));
        }
        Some(_) => {}
        None if method.roles.is_empty() => method.roles = roles.to_vec(),
        None => {}
    }
    if let Some(cfg) = attrs.iter().find(|a| a.path().is_ident("cfg")) {
        return err(cfg, "a method cannot depend on `cfg`: both processes must have the same table of methods");
    }
    if let Some(body) = default {
        return err(body, "a remote method has no default body: it would run at the caller instead of at the provider");
    }
    signature(sig, &mut method)?;
    result(sig, &mut method)?;
    if method.oneway && method.cancel {
        return err(&sig.ident, "nobody waits for a one-way call, so nobody can cancel it: take `cancel` off");
    }
    if let Some((stream, _)) = &method.up {
        if method.oneway {
            return err(stream, "a one-way method cannot take a stream: nobody would learn that it broke off; take `oneway` off");
        }
        if method.idempotent {
            return err(stream, "a method that takes a stream cannot be idempotent: a stream cannot be sent twice; take `idempotent` off");
        }
    }
    let streamed = method.up.is_some() || method.down.is_some();
    method.cancel |= (method.idempotent || streamed) && !method.oneway;
    Ok(method)
}

fn signature(sig: &Signature, method: &mut Method) -> syn::Result<()> {
    let Generics { params, where_clause, .. } = &sig.generics;
    if !params.is_empty() || where_clause.is_some() {
        let at = if params.is_empty() { where_clause.to_token_stream() } else { params.to_token_stream() };
        return err(at, "a remote method cannot be generic: the other process must know its types; write one method per type");
    }
    if !matches!(sig.safety, Safety::Default) || sig.abi.is_some() || sig.constness.is_some() {
        return err(sig.fn_token, "a remote method is a plain `async fn` (or a plain `fn`, which runs on the blocking pool)");
    }
    if TAKEN.contains(&plain(&sig.ident).as_str()) {
        return err(&sig.ident, format!("the client has a function `{}` of its own: give the method another name", sig.ident));
    }
    let mut inputs = sig.inputs.iter();
    match inputs.next() {
        Some(FnArg::Receiver(receiver)) => match &receiver.kind {
            ReceiverKind::Reference(_, None, None) => {}
            ReceiverKind::Reference(_, _, Some(_)) => {
                return err(
                    receiver,
                    "`&mut self` is reserved for remote objects that serve one caller at a time: write `&self` and keep state in a Mutex or atomic",
                );
            }
            ReceiverKind::Reference(_, Some(_), None) => return err(receiver, "a remote method takes plain `&self`, without a lifetime"),
            _ => return err(receiver, "a remote method takes `&self`: the provider is shared by all its callers"),
        },
        Some(FnArg::Typed(first)) => return err(first, "`&self` is missing: a remote method is called on a provider; write `(&self, …)`"),
        None => return err(&sig.ident, "`&self` is missing: a remote method is called on a provider; write `(&self)`"),
    }
    for input in inputs {
        let FnArg::Typed(input) = input else { continue };
        if let Some((stream, _)) = &method.up {
            return err(stream, "a stream must be the last parameter, and the only one: its items follow the other arguments");
        }
        match is_named(&input.ty, "Streaming") {
            true => method.up = Some((plain_name(&input.pat)?.ident.clone(), items(&input.ty)?)),
            false => method.params.push(param(input)?),
        }
    }
    Ok(())
}

fn plain_name(pat: &Pat) -> syn::Result<&syn::PatIdent> {
    match pat {
        Pat::Ident(name) if name.by_ref.is_none() && name.subpat.is_none() => Ok(name),
        other => err(other, "a parameter of a remote method needs a plain name: it is the field's name in other formats"),
    }
}

/// `Streaming<T>` or `Streaming<T, E>`.
fn items(ty: &Type) -> syn::Result<Items> {
    let advice = "a stream is `Streaming<T>`, or `Streaming<T, E>` if it may end with an application error";
    let Some(PathArguments::AngleBracketed(arguments)) = last_segment(ty).map(|s| &s.arguments) else { return err(ty, advice) };
    let (item, error) = one_or_two(ty, &arguments.args, advice)?;
    refuse_type(&item, "a stream's item")?;
    error.as_ref().map_or(Ok(()), |e| refuse_type(e, "an error"))?;
    let error = error.filter(|e| !is_named(e, "Never"));
    Ok(Items { ty: ty.clone(), bytes: is_bytes(&item), item, error })
}

fn is_bytes(ty: &Type) -> bool {
    argument(ty, "Vec").is_some_and(|element| is_named(element, "u8")) || is_named(ty, "Bytes")
}

/// One type argument, or two.
fn one_or_two<'a>(at: &Type, arguments: impl IntoIterator<Item = &'a GenericArgument>, advice: &str) -> syn::Result<(Type, Option<Type>)> {
    let mut types = Vec::new();
    for argument in arguments {
        match argument {
            GenericArgument::Type(ty) => types.push(ty.clone()),
            other => return err(other, advice),
        }
    }
    let mut types = types.into_iter();
    match (types.next(), types.next(), types.next()) {
        (Some(first), second, None) => Ok((first, second)),
        _ => err(at, advice),
    }
}

fn param(input: &syn::PatType) -> syn::Result<Param> {
    let pat = plain_name(&input.pat)?;
    let lent = lent(&input.ty)?;
    const KNOWN: &str = "on a parameter only `#[farcall(tag = …)]`, `#[farcall(name = \"…\")]`, `#[farcall(must_understand)]`, \
                         `#[serde(alias = \"…\")]` and `#[serde(default)]` are understood";
    if let Some(other) = input.attrs.iter().find(|a| !a.path().is_ident("farcall") && !a.path().is_ident("serde")) {
        return err(other, KNOWN);
    }
    // The rest of serde's would take the parameter out of the message, or write it as another type.
    each(&input.attrs, "serde", |key, meta| match key {
        "alias" | "default" => skip_value(meta),
        _ => Err(meta.error(KNOWN)),
    })?;
    Ok(Param { ident: pat.ident.clone(), ty: (*input.ty).clone(), lent, attrs: input.attrs.clone() })
}

pub(super) fn refuse_type(ty: &Type, what: &str) -> syn::Result<()> {
    if let Some(lifetime) = crate::service::lent::lifetime_in(ty) {
        let advice = "only a parameter can borrow; use an owned type (`String`, `Vec<T>`, `Bytes`)";
        return err(lifetime, format!("{what} cannot borrow: {advice}"));
    }
    let inside = !is_named(ty, "Streaming") && show(ty).split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "Streaming");
    if inside {
        return err(ty, format!("{what} cannot hold a stream: only a parameter and the result itself, `Reply<Streaming<T>>`, can be one"));
    }
    match ty {
        Type::Reference(_) => err(
            ty,
            format!("{what} cannot be a reference: only a parameter can be borrowed; use an owned type (`String`, `Vec<T>`, `Bytes`)"),
        ),
        Type::ImplTrait(_) => err(ty, format!("{what} cannot be `impl Trait`: the other process must know its type; name it")),
        Type::TraitObject(_) => err(ty, format!("{what} cannot be `dyn Trait`: remote objects are not built in this version")),
        Type::Ptr(_) | Type::FnPtr(_) => err(ty, format!("{what} cannot be a pointer: it means nothing in another process")),
        _ if is_named(ty, "Streaming") => {
            err(ty, format!("{what} cannot be a stream: only a parameter and the result itself, `Reply<Streaming<T>>`, can"))
        }
        _ => Ok(()),
    }
}

fn result(sig: &Signature, method: &mut Method) -> syn::Result<()> {
    let ty = match &sig.output {
        ReturnType::Default if method.oneway => return Ok(()),
        ReturnType::Default => {
            return err(
                &sig.ident,
                "a two-way method returns `Reply<T>` (here `Reply<()>`), because a call can fail; or mark it #[farcall(oneway)]",
            );
        }
        ReturnType::Type(_, ty) if method.oneway => {
            return err(ty, "a one-way method has no result: nobody waits for it; take the result or `oneway` off");
        }
        ReturnType::Type(_, ty) => &**ty,
    };
    if !is_named(ty, "Reply") && !is_named(ty, "Streaming") {
        refuse_type(ty, "a result")?;
    }
    let advice = "a two-way method returns `Reply<T>` or `Reply<T, E>`, because a call can fail";
    let Some(last) = last_segment(ty).filter(|s| s.ident == "Reply") else {
        let shown = show(ty);
        return err(ty, format!("{advice}: write `Reply<{}>`", first_argument(ty).map_or(shown, |t| show(&t))));
    };
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return err(ty, advice) };
    let (out, error) = one_or_two(ty, &arguments.args, advice)?;
    if is_named(&out, "Streaming") {
        method.down = Some(items(&out)?);
    } else {
        refuse_type(&out, "a result")?;
    }
    error.as_ref().map_or(Ok(()), |e| refuse_type(e, "an error"))?;
    method.bytes = is_bytes(&out);
    method.reply = Some(ty.clone());
    method.error = error.filter(|e| !is_named(e, "Never"));
    method.out = out;
    Ok(())
}

/// `T` of `Result<T, …>`, for advice.
fn first_argument(ty: &Type) -> Option<Type> {
    argument(ty, "Result").cloned()
}

fn unique(methods: &[Method]) -> syn::Result<()> {
    let mut names: HashMap<String, Span> = HashMap::new();
    let mut foreign: HashMap<&str, &Ident> = HashMap::new();
    for method in methods {
        if names.insert(plain(&method.ident), method.ident.span()).is_some() {
            return err(&method.ident, format!("`{}` is there twice: methods are found by name, so each needs its own", method.ident));
        }
        if let Some(name) = &method.foreign
            && let Some(first) = foreign.insert(name, &method.ident)
        {
            return err(&method.ident, format!("the foreign name {name:?} is taken by `{first}`: each method needs its own"));
        }
    }
    Ok(())
}

/// The attributes that are not ours.
fn foreign_attrs(attrs: &[Attribute]) -> Vec<Attribute> {
    attrs.iter().filter(|a| !a.path().is_ident("farcall")).cloned().collect()
}

/// A type as its author wrote it, near enough.
pub(crate) fn show(ty: &impl ToTokens) -> String {
    let mut text = ty.to_token_stream().to_string();
    for (spaced, tight) in [
        (" :: ", "::"),
        (" < ", "<"),
        (" <", "<"),
        ("< ", "<"),
        (" >", ">"),
        (" ,", ","),
        ("& ", "&"),
        ("( ", "("),
        (" )", ")"),
        ("[ ", "["),
        (" ]", "]"),
        (" ;", ";"),
    ] {
        text = text.replace(spaced, tight);
    }
    text
}

/// The item without attributes that only this macro reads.
pub(crate) fn without_attributes(item: TokenStream) -> TokenStream {
    let Ok(mut item) = syn::parse2::<ItemTrait>(item.clone()) else { return item };
    item.attrs = foreign_attrs(&item.attrs);
    for item in &mut item.items {
        if let TraitItem::Fn(f) = item {
            f.attrs = foreign_attrs(&f.attrs);
            f.attrs.push(parse_quote!(#[allow(unused, async_fn_in_trait)]));
            for input in &mut f.sig.inputs {
                if let FnArg::Typed(input) = input {
                    input.attrs.clear();
                }
            }
        }
    }
    let allow: Attribute = parse_quote!(#[allow(unused, async_fn_in_trait)]);
    quote!(#allow #item)
}

/// Kept for spans of generated code.
pub(crate) fn span_of(ty: &Type) -> Span {
    ty.span()
}
