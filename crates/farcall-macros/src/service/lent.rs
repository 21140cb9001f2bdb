//! Parameters that are borrowed: what the struct of the arguments has in their place, and how one becomes the other.

use proc_macro2::TokenStream;
use quote::quote;
use syn::visit_mut::VisitMut;
use syn::{GenericArgument, Ident, Lifetime, Path, PathArguments, Type, TypeReference, parse_quote};

use super::parse::{err, refuse_type};
use crate::data::argument;
use crate::schema::{is_named, last_segment};

/// How a parameter is borrowed.
pub(crate) enum Lent {
    /// It is owned.
    No,
    /// `&str`
    Text,
    /// `&[u8]`
    Octets,
    /// `&[T]`
    Many(Type),
    /// `&T`
    One(Type),
    /// One of these in an `Option`.
    Option(Box<Lent>),
    /// A type with a lifetime, such as `Cow<'_, str>`.
    Type,
}

/// How a parameter of this type is borrowed. Refuses what can not be.
pub(crate) fn lent(ty: &Type) -> syn::Result<Lent> {
    if let Some(inner) = argument(ty, "Option").and_then(reference) {
        return Ok(Lent::Option(Box::new(referred(inner)?)));
    }
    if let Some(reference) = reference(ty) {
        return referred(reference);
    }
    refuse_nested(ty)?;
    match lifetime_in(ty) {
        None => {
            refuse_type(ty, "a parameter")?;
            Ok(Lent::No)
        }
        Some(lifetime) if lifetime.ident == "_" => Ok(Lent::Type),
        Some(lifetime) => err(lifetime, "a parameter is borrowed for the call and no longer: write `'_` here"),
    }
}

fn reference(ty: &Type) -> Option<&TypeReference> {
    match ty {
        Type::Reference(reference) => Some(reference),
        Type::Group(group) => reference(&group.elem),
        Type::Paren(paren) => reference(&paren.elem),
        _ => None,
    }
}

fn referred(reference: &TypeReference) -> syn::Result<Lent> {
    if reference.mutability.is_some() {
        return err(reference, "a parameter cannot be `&mut`: what a handler changes does not travel back; return it instead");
    }
    if let Some(lifetime) = reference.lifetime.as_ref().filter(|lifetime| lifetime.ident != "_") {
        return err(lifetime, "a parameter is borrowed for the call and no longer: leave the lifetime out");
    }
    refuse_nested(&reference.elem)?;
    match &*reference.elem {
        Type::Slice(slice) if is_named(&slice.elem, "u8") => Ok(Lent::Octets),
        Type::Slice(slice) => Ok(Lent::Many((*slice.elem).clone())),
        ty if is_named(ty, "str") => Ok(Lent::Text),
        ty => match lifetime_in(ty) {
            Some(lifetime) if lifetime.ident != "_" => err(lifetime, "a parameter is borrowed for the call and no longer: write `'_` here"),
            Some(_) => Ok(Lent::One(ty.clone())),
            None => {
                refuse_type(ty, "a parameter")?;
                Ok(Lent::One(ty.clone()))
            }
        },
    }
}

/// References inside of types, and a `Cow` that hides its lifetime.
fn refuse_nested(ty: &Type) -> syn::Result<()> {
    struct Find(syn::Result<()>);
    impl VisitMut for Find {
        fn visit_type_mut(&mut self, ty: &mut Type) {
            if let Type::Reference(inner) = ty {
                let advice = "a reference is a parameter itself, or in an `Option`: in here use `Cow<'_, str>` or an owned type";
                self.0 = self.0.clone().and_then(|()| err(&*inner, advice));
            } else if is_named(ty, "Cow") && !has_lifetime_argument(ty) {
                self.0 = self.0.clone().and_then(|()| err(&*ty, "write the lifetime of a `Cow` that is borrowed: `Cow<'_, str>`"));
            }
            syn::visit_mut::visit_type_mut(self, ty);
        }
    }
    let mut find = Find(Ok(()));
    find.visit_type_mut(&mut ty.clone());
    find.0
}

fn has_lifetime_argument(ty: &Type) -> bool {
    let Some(PathArguments::AngleBracketed(arguments)) = last_segment(ty).map(|segment| &segment.arguments) else { return false };
    arguments.args.iter().any(|argument| matches!(argument, GenericArgument::Lifetime(_)))
}

/// The first lifetime in a type that is not for ever.
pub(crate) fn lifetime_in(ty: &Type) -> Option<Lifetime> {
    struct Find(Option<Lifetime>);
    impl VisitMut for Find {
        fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
            if lifetime.ident != "static" {
                self.0.get_or_insert_with(|| lifetime.clone());
            }
        }
    }
    let mut find = Find(None);
    find.visit_type_mut(&mut ty.clone());
    find.0
}

/// The type with this lifetime for every `'_`.
pub(crate) fn with_lifetime(ty: &Type, lifetime: &Lifetime) -> Type {
    struct Replace<'a>(&'a Lifetime);
    impl VisitMut for Replace<'_> {
        fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
            if lifetime.ident == "_" {
                *lifetime = self.0.clone();
            }
        }
    }
    let mut ty = ty.clone();
    Replace(lifetime).visit_type_mut(&mut ty);
    ty
}

impl Lent {
    /// The field of the arguments for a parameter of this type.
    pub(crate) fn field(&self, ty: &Type, root: &Path, lifetime: &Lifetime) -> Type {
        match self {
            Lent::No => ty.clone(),
            Lent::Type => with_lifetime(ty, lifetime),
            Lent::Text => parse_quote!(#root::__rt::Text<#lifetime>),
            Lent::Octets => parse_quote!(#root::__rt::Octets<#lifetime>),
            Lent::Many(element) => {
                let element = with_lifetime(element, lifetime);
                parse_quote!(#root::__rt::Many<#lifetime, #element>)
            }
            Lent::One(one) => {
                let one = with_lifetime(one, lifetime);
                parse_quote!(#root::__rt::One<#lifetime, #one>)
            }
            Lent::Option(inner) => {
                let inner = inner.field(ty, root, lifetime);
                parse_quote!(::core::option::Option<#inner>)
            }
        }
    }

    /// The type that must be able to travel.
    pub(crate) fn travels(&self, ty: &Type) -> Option<Type> {
        let always: Lifetime = parse_quote!('static);
        match self {
            Lent::Text | Lent::Octets => None,
            Lent::No | Lent::Type => Some(with_lifetime(ty, &always)),
            Lent::Many(inner) | Lent::One(inner) => Some(with_lifetime(inner, &always)),
            Lent::Option(inner) => inner.travels(ty),
        }
    }

    /// The parameter as the field.
    pub(crate) fn lend(&self, name: &Ident, root: &Path) -> TokenStream {
        match self {
            Lent::No | Lent::Type => quote!(#name),
            Lent::Text => quote!(#root::__rt::Text::lent(#name)),
            Lent::Octets => quote!(#root::__rt::Octets::lent(#name)),
            Lent::Many(_) => quote!(#root::__rt::Many::lent(#name)),
            Lent::One(_) => quote!(#root::__rt::One::lent(#name)),
            Lent::Option(inner) => {
                let each = inner.lend(name, root);
                quote!(#name.map(|#name| #each))
            }
        }
    }

    /// The field as the parameter.
    pub(crate) fn give(&self, name: &Ident) -> TokenStream {
        match self {
            Lent::No | Lent::Type => quote!(#name),
            Lent::Option(_) => quote!(#name.as_deref()),
            _ => quote!(&*#name),
        }
    }
}
