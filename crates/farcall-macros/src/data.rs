//! `#[data]` and `#[error]`: the derives a type needs to travel, and the fast path for bytes.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::visit_mut::VisitMut;
use syn::{Attribute, Data, DeriveInput, Field, GenericArgument, Lifetime, Path, PathArguments, Token, Type, parse_quote};

use crate::schema::{is_named, last_segment, no_union, owned};

/// Which of the two attributes it is.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Flavour {
    /// `#[data]`
    Data,
    /// `#[error]`
    Error,
}

impl Flavour {
    fn name(self) -> &'static str {
        match self {
            Flavour::Data => "data",
            Flavour::Error => "error",
        }
    }
}

/// The expansion of the attribute.
pub(crate) fn expand(flavour: Flavour, args: TokenStream, item: TokenStream) -> TokenStream {
    let mut input: DeriveInput = match syn::parse2(item.clone()) {
        Ok(input) => input,
        Err(_) => return not_a_type(flavour, &item),
    };
    let checked = root(flavour, args).and_then(|root| check(flavour, &input).map(|()| root));
    match checked {
        Ok(root) => derive(flavour, input, &root),
        Err(error) => {
            // The type stays, without the attributes that nobody reads now: one mistake, one message.
            strip(&mut input);
            let error = error.into_compile_error();
            quote!(#input #error)
        }
    }
}

fn not_a_type(flavour: Flavour, item: &TokenStream) -> TokenStream {
    let message = format!("`#[{}]` goes on a struct or an enum", flavour.name());
    let error = syn::Error::new(proc_macro2::Span::call_site(), message).into_compile_error();
    quote!(#item #error)
}

/// `crate = path`, or `::farcall`.
fn root(flavour: Flavour, args: TokenStream) -> syn::Result<Path> {
    let mut root = parse_quote!(::farcall);
    let parser = syn::meta::parser(|meta| {
        if !meta.path.is_ident("crate") {
            return Err(meta.error(format!("unknown: `#[{}]` takes only `crate = path`", flavour.name())));
        }
        root = meta.value()?.call(Path::parse_mod_style)?;
        Ok(())
    });
    parser.parse2(args)?;
    Ok(root)
}

fn check(flavour: Flavour, input: &DeriveInput) -> syn::Result<()> {
    if let Data::Union(data) = &input.data {
        return Err(no_union(data.union_token.span));
    }
    owned(input)?;
    derived_twice(flavour, input)?;
    if let (Some(lifetime), Flavour::Error) = (input.generics.lifetimes().next(), flavour) {
        return Err(syn::Error::new(lifetime.span(), "an application error cannot borrow: it outlives the message it came in"));
    }
    match input.generics.type_params().next() {
        Some(param) if flavour == Flavour::Error => {
            Err(syn::Error::new(param.span(), "an application error is one type: it cannot have type parameters"))
        }
        _ => Ok(()),
    }
}

fn derived_twice(flavour: Flavour, input: &DeriveInput) -> syn::Result<()> {
    for attr in input.attrs.iter().filter(|attr| attr.path().is_ident("derive")) {
        // What does not parse is for rustc to refuse.
        let derives = attr.parse_args_with(Punctuated::<Path, Token![,]>::parse_terminated).unwrap_or_default();
        for path in &derives {
            let ours = |name: &str| path.segments.last().is_some_and(|segment| segment.ident == name);
            if ["Serialize", "Deserialize", "Schema"].into_iter().any(ours) {
                let message = format!("`#[{}]` derives this already: take it out here", flavour.name());
                return Err(syn::Error::new_spanned(path, message));
            }
        }
    }
    Ok(())
}

fn derive(flavour: Flavour, mut input: DeriveInput, root: &Path) -> TokenStream {
    let container_default = input.attrs.iter().any(|attr| has_serde(attr, &["default"]));
    let lifetimes: Vec<Lifetime> = input.generics.lifetimes().map(|param| param.lifetime.clone()).collect();
    for field in fields_mut(&mut input.data) {
        send_as_bytes(field, root, container_default);
        borrow(field, root, &lifetimes);
    }
    let serde = text(&quote!(#root::__rt::serde));
    let app_error = (flavour == Flavour::Error).then(|| {
        let name = &input.ident;
        let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
        quote!(impl #impl_generics #root::__rt::AppError for #name #type_generics #where_clause {})
    });
    quote! {
        #[derive(#root::__rt::serde::Serialize, #root::__rt::serde::Deserialize, #root::__rt::Schema)]
        #[serde(crate = #serde)]
        #[schema(crate = #root)]
        #input
        #app_error
    }
}

fn fields_mut(data: &mut Data) -> Box<dyn Iterator<Item = &mut Field> + '_> {
    match data {
        Data::Struct(data) => Box::new(data.fields.iter_mut()),
        Data::Enum(data) => Box::new(data.variants.iter_mut().flat_map(|variant| variant.fields.iter_mut())),
        Data::Union(data) => Box::new(data.fields.named.iter_mut()),
    }
}

/// Through plain serde a list of bytes is 40 to 60 times slower than bytes.
fn send_as_bytes(field: &mut Field, root: &Path, container_default: bool) {
    const CHOSEN: [&str; 5] = ["with", "serialize_with", "deserialize_with", "skip", "flatten"];
    if field.attrs.iter().any(|attr| has_serde(attr, &CHOSEN)) {
        return;
    }
    let inside = argument(&field.ty, "Option");
    let module = match inside.unwrap_or(&field.ty) {
        ty if argument(ty, "Vec").is_some_and(|element| is_named(element, "u8")) => quote!(#root::__rt::byte_vec),
        ty if is_named(ty, "Bytes") => quote!(#root::__rt::frame_bytes),
        _ => return,
    };
    let module = text(&module);
    // `with` takes from an Option that it may be missing in JSON: give that back.
    let has_default = container_default || field.attrs.iter().any(|attr| has_serde(attr, &["default"]));
    let default = (inside.is_some() && field.ident.is_some() && !has_default).then(|| quote!(, default));
    field.attrs.push(parse_quote!(#[serde(with = #module #default)]));
}

/// Lets a field borrow from the message if its type can.
fn borrow(field: &mut Field, root: &Path, lifetimes: &[Lifetime]) {
    if !mentions(&field.ty, lifetimes) || field.attrs.iter().any(|attr| has_serde(attr, &["borrow", "skip"])) {
        return;
    }
    let lends = |ty: &Type| is_named(ty, "Cow") && lent_by_cow(ty).is_some_and(is_text_or_bytes);
    let has_with = field.attrs.iter().any(|attr| has_serde(attr, &["with", "serialize_with", "deserialize_with"]));
    match lends(argument(&field.ty, "Option").unwrap_or(&field.ty)) && !has_with {
        true => {
            let module = text(&quote!(#root::__rt::lent));
            let default = is_named(&field.ty, "Option") && field.ident.is_some();
            let default = (default && !field.attrs.iter().any(|attr| has_serde(attr, &["default"]))).then(|| quote!(, default));
            field.attrs.push(parse_quote!(#[serde(borrow, with = #module #default)]));
        }
        false => field.attrs.push(parse_quote!(#[serde(borrow)])),
    }
}

/// `T` of `Cow<'a, T>`.
fn lent_by_cow(ty: &Type) -> Option<&Type> {
    let PathArguments::AngleBracketed(args) = &last_segment(ty)?.arguments else { return None };
    args.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}

fn is_text_or_bytes(ty: &Type) -> bool {
    match ty {
        Type::Slice(slice) => is_named(&slice.elem, "u8"),
        ty => is_named(ty, "str"),
    }
}

/// Whether a type mentions one of these lifetimes.
pub(crate) fn mentions(ty: &Type, lifetimes: &[Lifetime]) -> bool {
    struct Find<'a>(&'a [Lifetime], bool);
    impl VisitMut for Find<'_> {
        fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
            self.1 |= self.0.contains(lifetime);
        }
    }
    let mut find = Find(lifetimes, false);
    find.visit_type_mut(&mut ty.clone());
    find.1
}

/// `T` of `name<T>`.
pub(crate) fn argument<'a>(ty: &'a Type, name: &str) -> Option<&'a Type> {
    let last = last_segment(ty).filter(|segment| segment.ident == name)?;
    let PathArguments::AngleBracketed(args) = &last.arguments else { return None };
    match args.args.first() {
        Some(GenericArgument::Type(ty)) => Some(ty),
        _ => None,
    }
}

/// Whether this is a serde attribute with one of these entries.
fn has_serde(attr: &Attribute, keys: &[&str]) -> bool {
    if !attr.path().is_ident("serde") {
        return false;
    }
    let entries = attr.parse_args_with(Punctuated::<syn::Meta, Token![,]>::parse_terminated).unwrap_or_default();
    entries.iter().any(|entry| keys.iter().any(|key| entry.path().is_ident(key)))
}

/// Takes out the attributes that only the derives know.
fn strip(input: &mut DeriveInput) {
    let foreign = |attr: &Attribute| !["serde", "schema", "farcall"].iter().any(|name| attr.path().is_ident(name));
    input.attrs.retain(foreign);
    if let Data::Enum(data) = &mut input.data {
        data.variants.iter_mut().for_each(|variant| variant.attrs.retain(foreign));
    }
    fields_mut(&mut input.data).for_each(|field| field.attrs.retain(foreign));
}

/// A path as serde's attributes want it: in a string.
pub(crate) fn text(path: &impl ToTokens) -> String {
    path.to_token_stream().to_string().replace(' ', "")
}
