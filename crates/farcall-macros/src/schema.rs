//! `derive(Schema)`: says what serde will do, by reading the attributes that serde reads.

use std::collections::HashMap;

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Field, Fields, FieldsUnnamed, Path, PathSegment, Type, Variant, parse_quote};

use crate::attrs::{self, Case, FieldAttrs, Tag, TypeAttrs, VariantAttrs};

/// The expansion of the derive.
pub(crate) fn expand(item: TokenStream) -> TokenStream {
    let input: DeriveInput = match syn::parse2(item) {
        Ok(input) => input,
        Err(error) => return error.into_compile_error(),
    };
    let root = attrs::root(&input.attrs);
    match body(&input, &root) {
        Ok(body) => implement(&input, &root, &body),
        Err(error) => {
            // With an implementation the one real error is not followed by "not implemented" at every use.
            let stub = implement(&input, &root, &quote!(#root::__rt::Ty::Unit));
            let error = error.into_compile_error();
            quote!(#error #stub)
        }
    }
}

fn implement(input: &DeriveInput, root: &Path, body: &TokenStream) -> TokenStream {
    let name = &input.ident;
    let mut generics = input.generics.clone();
    for param in generics.type_params_mut() {
        param.bounds.push(parse_quote!(#root::__rt::Schema));
        param.bounds.push(parse_quote!('static));
    }
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    quote! {
        #[automatically_derived]
        impl #impl_generics #root::__rt::Schema for #name #type_generics #where_clause {
            fn ty(builder: &mut #root::__rt::SchemaBuilder) -> #root::__rt::Ty {
                #body
            }
        }
    }
}

fn body(input: &DeriveInput, root: &Path) -> syn::Result<TokenStream> {
    owned(input)?;
    let attrs = TypeAttrs::read(&input.attrs)?;
    let derive = Derive { root, probe: attrs.probe };
    if let Some(ty) = &attrs.schema_as {
        return Ok(derive.ty(ty));
    }
    match &input.data {
        Data::Struct(data) if attrs.transparent => {
            let inner = derive.transparent(&data.fields)?;
            Ok(derive.newtype(input, &attrs, &inner))
        }
        Data::Struct(data) => match &data.fields {
            Fields::Unnamed(fields) if fields.unnamed.len() == 1 => {
                let inner = derive.only(fields)?;
                Ok(derive.newtype(input, &attrs, &inner))
            }
            fields => {
                let kind = derive.struct_kind(fields, &attrs)?;
                Ok(derive.define(input, &attrs, &kind))
            }
        },
        Data::Enum(data) => {
            let variants = all(data.variants.iter().map(|variant| derive.variant(variant, &attrs)))?;
            distinct(variants.iter().filter_map(|(_, tag, _)| *tag))?;
            let idents = data.variants.iter().map(|variant| variant.ident.span());
            distinct_names(idents.zip(variants.iter().map(|(_, _, names)| names.clone())))?;
            let variants = variants.iter().map(|(tokens, ..)| tokens);
            let kind = quote!(#root::__rt::Kind::Enum(::std::vec![#(#variants),*]));
            Ok(derive.define(input, &attrs, &kind))
        }
        Data::Union(data) => Err(no_union(data.union_token.span)),
    }
}

pub(crate) fn no_union(span: Span) -> syn::Error {
    syn::Error::new(span, "a union does not say which field it holds, so it cannot travel: use an enum")
}

/// Refuses references: text with escapes in JSON, for one, is nowhere to be borrowed.
pub(crate) fn owned(input: &DeriveInput) -> syn::Result<()> {
    const ADVICE: &str = "own the data (`String` for `&str`, `Vec` for slices, `bytes::Bytes` for bytes without a copy), \
                          or write `Cow<'a, str>`, `Cow<'a, [u8]>`, which borrow where they can";
    let mut found = Vec::new();
    for field in fields_of(&input.data).filter(|field| matches!(field.ty, Type::Reference(_))) {
        found.push(syn::Error::new_spanned(&field.ty, format!("a field that travels cannot be a reference; {ADVICE}")));
    }
    join(found).map_or(Ok(()), Err)
}

fn fields_of(data: &Data) -> Box<dyn Iterator<Item = &Field> + '_> {
    match data {
        Data::Struct(data) => Box::new(data.fields.iter()),
        Data::Enum(data) => Box::new(data.variants.iter().flat_map(|variant| variant.fields.iter())),
        Data::Union(_) => Box::new(std::iter::empty()),
    }
}

fn join(errors: impl IntoIterator<Item = syn::Error>) -> Option<syn::Error> {
    errors.into_iter().reduce(|mut all, error| {
        all.combine(error);
        all
    })
}

/// All results, or all errors: people mend more than one thing at a time.
fn all<T>(results: impl Iterator<Item = syn::Result<T>>) -> syn::Result<Vec<T>> {
    let (mut values, mut errors) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(error) => errors.push(error),
        }
    }
    join(errors).map_or(Ok(values), Err)
}

fn distinct(tags: impl Iterator<Item = Tag>) -> syn::Result<()> {
    let mut first: HashMap<u32, Span> = HashMap::new();
    let mut errors = Vec::new();
    for Tag { number, span } in tags {
        if let Some(&first) = first.get(&number) {
            errors.push(syn::Error::new(span, format!("the number {number} is taken: every number is used once")));
            errors.push(syn::Error::new(first, format!("the number {number} is first used here")));
        } else {
            first.insert(number, span);
        }
    }
    join(errors).map_or(Ok(()), Err)
}

/// Names by which fields or variants are found, those of each with its place. serde would give what comes under a name
/// of two to the first.
fn distinct_names(parts: impl Iterator<Item = (Span, Vec<String>)>) -> syn::Result<()> {
    let mut first: HashMap<String, Span> = HashMap::new();
    let mut errors = Vec::new();
    for (span, mut names) in parts {
        names.sort_unstable();
        names.dedup();
        for name in names {
            if let Some(&first) = first.get(&name) {
                let what = format!("the name `{name}` is taken: change this one's `rename` or `alias`, or the other's");
                errors.push(syn::Error::new(span, what));
                errors.push(syn::Error::new(first, format!("the name `{name}` is first used here")));
            } else {
                first.insert(name, span);
            }
        }
    }
    join(errors).map_or(Ok(()), Err)
}

/// `Some("x".into())` or `None`.
fn option(value: Option<impl ToTokens>) -> TokenStream {
    match value {
        Some(value) => quote!(::std::option::Option::Some(#value.into())),
        None => quote!(::std::option::Option::None),
    }
}

/// Makes the parts of a schema, naming the crate `root`.
struct Derive<'a> {
    root: &'a Path,
    /// Types without a schema are allowed.
    probe: bool,
}

impl Derive<'_> {
    /// The type's own schema; if it has none, the error points at the type.
    fn ty(&self, ty: &Type) -> TokenStream {
        let root = self.root;
        if self.probe {
            return probed(root, ty);
        }
        let span = Span::call_site().located_at(ty.span());
        quote_spanned!(span=> <#ty as #root::__rt::Schema>::ty(builder))
    }

    fn field_ty(&self, field: &Field, attrs: &FieldAttrs) -> TokenStream {
        let root = self.root;
        match &attrs.schema_as {
            Some(ty) => self.ty(ty),
            None if attrs.bytes && is_option(&field.ty) => {
                quote!(#root::__rt::Ty::Option(::std::boxed::Box::new(#root::__rt::Ty::Bytes)))
            }
            None if attrs.bytes => quote!(#root::__rt::Ty::Bytes),
            None if attrs.lent => {
                let ty = &field.ty;
                quote!(<#ty as #root::__rt::lent::LentField>::ty())
            }
            None => self.ty(&field.ty),
        }
    }

    fn define(&self, input: &DeriveInput, attrs: &TypeAttrs, kind: &TokenStream) -> TokenStream {
        let (itself, head) = (itself(input), self.head(input, attrs));
        quote!(builder.define::<#itself>(#head, |builder| #kind))
    }

    /// A struct that is written as its one field.
    fn newtype(&self, input: &DeriveInput, attrs: &TypeAttrs, inner: &TokenStream) -> TokenStream {
        let (itself, head) = (itself(input), self.head(input, attrs));
        quote!(builder.newtype::<#itself>(#head, |builder| #inner))
    }

    fn head(&self, input: &DeriveInput, attrs: &TypeAttrs) -> TokenStream {
        let root = self.root;
        let name = attrs.rename.clone().unwrap_or_else(|| attrs::plain(&input.ident));
        let args = input.generics.type_params().map(|param| &param.ident);
        let foreign = option(attrs.foreign.as_ref());
        let docs = &attrs.docs;
        quote! {
            #root::__rt::DefHead {
                name: #name,
                args: &[#(<#args as #root::__rt::Schema>::ty),*],
                foreign: #foreign,
                docs: #docs,
            }
        }
    }

    /// serde writes the one field that is not skipped.
    fn transparent(&self, fields: &Fields) -> syn::Result<TokenStream> {
        for field in fields {
            let attrs = FieldAttrs::read(&field.attrs)?;
            if attrs.skip.is_none() && !is_named(&field.ty, "PhantomData") {
                return Ok(self.field_ty(field, &attrs));
            }
        }
        Err(syn::Error::new(fields.span(), "a transparent struct needs a field that it is written as"))
    }

    /// A struct with one unnamed field is written as that field.
    fn only(&self, fields: &FieldsUnnamed) -> syn::Result<TokenStream> {
        let tys = self.unnamed(fields)?;
        Ok(quote!(#(#tys)*))
    }

    fn struct_kind(&self, fields: &Fields, attrs: &TypeAttrs) -> syn::Result<TokenStream> {
        let root = self.root;
        match fields {
            Fields::Unit => Ok(quote!(#root::__rt::Kind::Unit)),
            Fields::Unnamed(fields) => {
                let tys = self.unnamed(fields)?;
                Ok(quote!(#root::__rt::Kind::Tuple(::std::vec![#(#tys),*])))
            }
            Fields::Named(_) => {
                let fields = self.named(fields, attrs.rename_all, attrs.default)?;
                Ok(quote!(#root::__rt::Kind::Struct(#fields)))
            }
        }
    }

    /// The variant, its number, and its names.
    fn variant(&self, variant: &Variant, ty: &TypeAttrs) -> syn::Result<(TokenStream, Option<Tag>, Vec<String>)> {
        let root = self.root;
        let attrs = VariantAttrs::read(&variant.attrs)?;
        let plain = attrs::plain(&variant.ident);
        let renamed = ty.rename_all.map_or_else(|| plain.clone(), |case| case.variant(&plain));
        let name = attrs.rename.unwrap_or(renamed);
        let payload = self.payload(&variant.fields, attrs.rename_all.or(ty.rename_all_fields))?;
        let (aliases, other, docs) = (&attrs.aliases, attrs.other, &attrs.docs);
        let (tag, foreign) = (option(attrs.tag.map(|tag| tag.number)), option(attrs.foreign.as_ref()));
        let tokens = quote! {
            #root::__rt::Variant {
                name: #name.into(),
                aliases: ::std::vec![#(#aliases.into()),*],
                other: #other,
                docs: #docs.into(),
                tag: #tag,
                foreign: #foreign,
                payload: #payload,
            }
        };
        let names = attrs.aliases.iter().chain([&name]).cloned().collect();
        Ok((tokens, attrs.tag, names))
    }

    fn payload(&self, fields: &Fields, case: Option<Case>) -> syn::Result<TokenStream> {
        let root = self.root;
        match fields {
            Fields::Unit => Ok(quote!(#root::__rt::Payload::Unit)),
            Fields::Named(_) => {
                let fields = self.named(fields, case, false)?;
                Ok(quote!(#root::__rt::Payload::Struct(#fields)))
            }
            Fields::Unnamed(unnamed) if unnamed.unnamed.len() == 1 => {
                let ty = self.only(unnamed)?;
                Ok(quote!(#root::__rt::Payload::Newtype(#ty)))
            }
            Fields::Unnamed(unnamed) => {
                let tys = self.unnamed(unnamed)?;
                Ok(quote!(#root::__rt::Payload::Tuple(::std::vec![#(#tys),*])))
            }
        }
    }

    fn unnamed(&self, fields: &FieldsUnnamed) -> syn::Result<Vec<TokenStream>> {
        all(fields.unnamed.iter().map(|field| {
            let attrs = FieldAttrs::read(&field.attrs)?;
            // serde leaves such a field out without telling the codec, which then has no place to write the zero.
            if let Some(span) = attrs.skip.or(attrs.skip_if) {
                return Err(syn::Error::new(span, "only a field with a name can be left out: name the fields"));
            }
            if let Some(tag) = attrs.tag {
                return Err(syn::Error::new(tag.span, "only a field with a name takes a number: name the fields"));
            }
            Ok(self.field_ty(field, &attrs))
        }))
    }

    fn named(&self, fields: &Fields, case: Option<Case>, all_default: bool) -> syn::Result<TokenStream> {
        let read = all(fields.iter().map(|field| Ok((field, FieldAttrs::read(&field.attrs)?))))?;
        distinct(read.iter().filter_map(|(_, attrs)| attrs.tag))?;
        let travels = || read.iter().filter(|(_, attrs)| attrs.skip.is_none());
        distinct_names(
            travels().map(|(field, attrs)| {
                (field.ident.span(), attrs.aliases.iter().cloned().chain([field_name(field, attrs, case)]).collect())
            }),
        )?;
        let fields = travels().map(|(field, attrs)| self.field(field, attrs, case, all_default));
        Ok(quote!(::std::vec![#(#fields),*]))
    }

    fn field(&self, field: &Field, attrs: &FieldAttrs, case: Option<Case>, all_default: bool) -> TokenStream {
        let root = self.root;
        let name = field_name(field, attrs, case);
        let (aliases, docs) = (&attrs.aliases, &attrs.docs);
        let (default, must_understand) = (attrs.default || all_default, attrs.must_understand);
        let (tag, foreign) = (option(attrs.tag.map(|tag| tag.number)), option(attrs.foreign.as_ref()));
        let ty = self.field_ty(field, attrs);
        quote! {
            #root::__rt::Field {
                name: #name.into(),
                aliases: ::std::vec![#(#aliases.into()),*],
                default: #default,
                must_understand: #must_understand,
                docs: #docs.into(),
                tag: #tag,
                foreign: #foreign,
                ty: #ty,
            }
        }
    }
}

fn field_name(field: &Field, attrs: &FieldAttrs, case: Option<Case>) -> String {
    let plain = field.ident.as_ref().map(attrs::plain).unwrap_or_default();
    attrs.rename.clone().unwrap_or_else(|| case.map_or_else(|| plain.clone(), |case| case.field(&plain)))
}

/// The type's own schema, or JSON if it has none.
pub(crate) fn probed(root: &Path, ty: &Type) -> TokenStream {
    quote!({
        #[allow(unused_imports)]
        use #root::__rt::NoSchema as _;
        #root::__rt::Probe::<#ty>::ty(builder)
    })
}

/// The type itself, as one that lives for ever: what it borrows makes no other type of it.
fn itself(input: &DeriveInput) -> TokenStream {
    let name = &input.ident;
    if input.generics.lifetimes().next().is_none() {
        return quote!(Self);
    }
    let lifetimes = input.generics.lifetimes().map(|_| quote!('static));
    let types = input.generics.type_params().map(|param| param.ident.to_token_stream());
    let consts = input.generics.const_params().map(|param| param.ident.to_token_stream());
    let arguments = lifetimes.chain(types).chain(consts);
    quote!(#name<#(#arguments),*>)
}

fn is_option(ty: &Type) -> bool {
    is_named(ty, "Option")
}

/// Whether the last part of the type's path is this name.
pub(crate) fn is_named(ty: &Type, name: &str) -> bool {
    last_segment(ty).is_some_and(|segment| segment.ident == name)
}

/// The last part of the type's path. A type that came through a `macro_rules` parameter sits in an unseen group.
pub(crate) fn last_segment(ty: &Type) -> Option<&PathSegment> {
    match ty {
        Type::Path(path) => path.path.segments.last(),
        Type::Group(group) => last_segment(&group.elem),
        Type::Paren(paren) => last_segment(&paren.elem),
        _ => None,
    }
}
