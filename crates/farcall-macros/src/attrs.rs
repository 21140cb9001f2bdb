//! Reads `#[serde(…)]`, `#[schema(…)]`, `#[farcall(…)]` and doc comments, and refuses what cannot be carried.

use proc_macro2::Span;
use syn::ext::IdentExt;
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{Attribute, Expr, ExprLit, Ident, Lit, LitInt, LitStr, Meta, Path, Type, parse_quote, token};

/// What a struct or enum says about itself.
#[derive(Default)]
pub(crate) struct TypeAttrs {
    pub(crate) rename: Option<String>,
    pub(crate) rename_all: Option<Case>,
    pub(crate) rename_all_fields: Option<Case>,
    pub(crate) default: bool,
    pub(crate) transparent: bool,
    /// The arguments of a method: a type without a schema travels as JSON.
    pub(crate) probe: bool,
    pub(crate) schema_as: Option<Type>,
    pub(crate) foreign: Option<String>,
    pub(crate) docs: String,
}

/// What a field says about itself.
#[derive(Default)]
pub(crate) struct FieldAttrs {
    pub(crate) rename: Option<String>,
    pub(crate) aliases: Vec<String>,
    pub(crate) default: bool,
    pub(crate) must_understand: bool,
    pub(crate) skip: Option<Span>,
    pub(crate) skip_if: Option<Span>,
    /// It is written as bytes, whatever its type.
    pub(crate) bytes: bool,
    /// It is a `Cow` that is written as what it lends.
    pub(crate) lent: bool,
    pub(crate) schema_as: Option<Type>,
    pub(crate) tag: Option<Tag>,
    pub(crate) foreign: Option<String>,
    pub(crate) docs: String,
}

/// What a variant says about itself.
#[derive(Default)]
pub(crate) struct VariantAttrs {
    pub(crate) rename: Option<String>,
    pub(crate) rename_all: Option<Case>,
    pub(crate) aliases: Vec<String>,
    /// It stands for the variants that a reader does not know. serde checks its place and that it holds nothing.
    pub(crate) other: bool,
    pub(crate) tag: Option<Tag>,
    pub(crate) foreign: Option<String>,
    pub(crate) docs: String,
}

/// A number for formats that go by number, and where it stands.
#[derive(Clone, Copy)]
pub(crate) struct Tag {
    pub(crate) number: u32,
    pub(crate) span: Span,
}

/// The crate that generated code refers to: `#[schema(crate = path)]`, or `::farcall`.
pub(crate) fn root(attrs: &[Attribute]) -> Path {
    let mut root = parse_quote!(::farcall);
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("schema")) {
        // Errors in the attribute are reported where it is read in full.
        let _ = attr.parse_nested_meta(|meta| {
            if meta.path.is_ident("crate") {
                root = meta.value()?.call(Path::parse_mod_style)?;
            } else {
                skip_value(&meta)?;
            }
            Ok(())
        });
    }
    root
}

/// Runs `read` for every entry of the attributes called `name`.
pub(crate) fn each(attrs: &[Attribute], name: &str, mut read: impl FnMut(&str, &ParseNestedMeta) -> syn::Result<()>) -> syn::Result<()> {
    for attr in attrs.iter().filter(|attr| attr.path().is_ident(name)) {
        attr.parse_nested_meta(|meta| {
            let key = meta.path.get_ident().map(|ident| ident.unraw().to_string()).unwrap_or_default();
            read(&key, &meta)
        })?;
    }
    Ok(())
}

impl TypeAttrs {
    pub(crate) fn read(attrs: &[Attribute]) -> syn::Result<TypeAttrs> {
        let mut out = TypeAttrs { docs: docs(attrs), ..TypeAttrs::default() };
        each(attrs, "schema", |key, meta| match key {
            "as" => set(&mut out.schema_as, meta.value()?.parse()?, meta),
            "crate" => skip_value(meta),
            "probe" => {
                out.probe = true;
                Ok(())
            }
            _ => Err(meta.error("unknown: on a type, `#[schema(…)]` takes `as = Type` and `crate = path`")),
        })?;
        each(attrs, "farcall", |key, meta| match key {
            "name" => set(&mut out.foreign, string(meta)?, meta),
            _ => Err(meta.error("unknown: on a type, `#[farcall(…)]` takes `name = \"…\"`, its name in foreign formats")),
        })?;
        let replaced = out.schema_as.is_some();
        each(attrs, "serde", |key, meta| match key {
            "rename" => set(&mut out.rename, name(meta)?, meta),
            "rename_all" => set(&mut out.rename_all, case(meta)?, meta),
            "rename_all_fields" => set(&mut out.rename_all_fields, case(meta)?, meta),
            "default" => {
                out.default = true;
                skip_value(meta)
            }
            "transparent" => {
                out.transparent = true;
                Ok(())
            }
            "bound" | "crate" | "deny_unknown_fields" | "expecting" => skip_value(meta),
            "from" | "try_from" | "into" if replaced => skip_value(meta),
            _ => Err(refuse_on_type(key, meta)),
        })?;
        Ok(out)
    }
}

impl FieldAttrs {
    pub(crate) fn read(attrs: &[Attribute]) -> syn::Result<FieldAttrs> {
        let mut out = FieldAttrs { docs: docs(attrs), ..FieldAttrs::default() };
        each(attrs, "schema", |key, meta| match key {
            "as" => set(&mut out.schema_as, meta.value()?.parse()?, meta),
            _ => Err(meta.error("unknown: on a field, `#[schema(…)]` takes `as = Type`, the type it is written as")),
        })?;
        each(attrs, "farcall", |key, meta| match key {
            "tag" => set(&mut out.tag, tag(meta, 1, MAX_FIELD_NUMBER)?, meta),
            "name" => set(&mut out.foreign, string(meta)?, meta),
            "must_understand" => {
                out.must_understand = true;
                Ok(())
            }
            _ => Err(meta.error("unknown: on a field, `#[farcall(…)]` takes `tag = 3`, `name = \"…\"` and `must_understand`")),
        })?;
        let replaced = out.schema_as.is_some();
        each(attrs, "serde", |key, meta| match key {
            "rename" => set(&mut out.rename, name(meta)?, meta),
            "alias" => {
                out.aliases.push(string(meta)?);
                Ok(())
            }
            "default" => {
                out.default = true;
                skip_value(meta)
            }
            "skip" => {
                out.skip = Some(meta.path.span());
                Ok(())
            }
            "skip_serializing_if" => {
                out.skip_if = Some(meta.path.span());
                check_skip_if(meta)
            }
            "with" => {
                let module = meta.value()?.parse::<LitStr>()?;
                out.bytes = is_bytes_module(&module.value());
                out.lent = is_lent_module(&module.value());
                if out.bytes || out.lent || replaced { Ok(()) } else { Err(refuse_on_field(key, meta)) }
            }
            "serialize_with" | "deserialize_with" if replaced => skip_value(meta),
            "bound" | "borrow" => skip_value(meta),
            _ => Err(refuse_on_field(key, meta)),
        })?;
        Ok(out)
    }
}

impl VariantAttrs {
    pub(crate) fn read(attrs: &[Attribute]) -> syn::Result<VariantAttrs> {
        let mut out = VariantAttrs { docs: docs(attrs), ..VariantAttrs::default() };
        each(attrs, "schema", |_, meta| Err(meta.error("`#[schema(…)]` goes on a type or a field, not on a variant")))?;
        each(attrs, "farcall", |key, meta| match key {
            "tag" => set(&mut out.tag, tag(meta, 0, u32::MAX)?, meta),
            "name" => set(&mut out.foreign, string(meta)?, meta),
            _ => Err(meta.error("unknown: on a variant, `#[farcall(…)]` takes `tag = 3` and `name = \"…\"`")),
        })?;
        each(attrs, "serde", |key, meta| match key {
            "rename" => set(&mut out.rename, name(meta)?, meta),
            "rename_all" => set(&mut out.rename_all, case(meta)?, meta),
            "alias" => {
                out.aliases.push(string(meta)?);
                Ok(())
            }
            "other" => {
                out.other = true;
                Ok(())
            }
            "bound" => skip_value(meta),
            _ => Err(refuse_on_variant(key, meta)),
        })?;
        Ok(out)
    }
}

/// The greatest field number of protobuf.
const MAX_FIELD_NUMBER: u32 = (1 << 29) - 1;

fn refuse_on_type(key: &str, meta: &ParseNestedMeta) -> syn::Error {
    let advice = match key {
        "untagged" => "variants travel by number, so drop `untagged`",
        "tag" | "content" => "variants travel by number: drop it; JSON then uses serde's default, `{\"Variant\": …}`",
        "from" | "try_from" | "into" => "say what the type is written as: `#[schema(as = Type)]`",
        "remote" => "derive on a type of your own and convert",
        "variant_identifier" | "field_identifier" => "this is no type for calls",
        _ => "drop it",
    };
    refuse(key, advice, meta)
}

fn refuse_on_field(key: &str, meta: &ParseNestedMeta) -> syn::Error {
    let advice = match key {
        "flatten" => "fields travel by position: keep the inner struct as a field",
        "with" | "serialize_with" | "deserialize_with" => "say what the field is written as: `#[schema(as = Type)]`",
        "skip_serializing" | "skip_deserializing" => "both sides must see the same fields: use `skip`, or an `Option`",
        "getter" => "derive on a type of your own and convert",
        _ => "drop it",
    };
    refuse(key, advice, meta)
}

fn refuse_on_variant(key: &str, meta: &ParseNestedMeta) -> syn::Error {
    let advice = match key {
        "skip" | "skip_serializing" | "skip_deserializing" => "it would shift the numbers of the variants after it: take the variant out",
        "untagged" => "variants travel by number, so drop `untagged`",
        "with" | "serialize_with" | "deserialize_with" => "give the variant a field with a type of its own",
        _ => "drop it",
    };
    refuse(key, advice, meta)
}

fn refuse(key: &str, advice: &str, meta: &ParseNestedMeta) -> syn::Error {
    meta.error(format!("`#[serde({key})]` cannot be used in a farcall type: {advice}"))
}

/// None, empty and false are one zero byte in the compact codec; nothing else can be left out.
fn check_skip_if(meta: &ParseNestedMeta) -> syn::Result<()> {
    let path: LitStr = meta.value()?.parse()?;
    let text = path.value().replace(' ', "");
    let last: Vec<&str> = text.rsplit("::").take(2).collect();
    match last.as_slice() {
        ["is_none", "Option"] | ["not", "Not"] => Ok(()),
        ["is_empty", owner] if EMPTY_IS_ZERO.contains(owner) => Ok(()),
        _ => Err(syn::Error::new(
            path.span(),
            "only None, an empty standard collection or string, or false can be left out: \
             use `Option::is_none`, `Vec::is_empty`, `String::is_empty`, `std::ops::Not::not` or the like",
        )),
    }
}

const EMPTY_IS_ZERO: [&str; 9] = ["Vec", "VecDeque", "String", "str", "HashMap", "BTreeMap", "HashSet", "BTreeSet", "Bytes"];

/// The `with` module of what is borrowed, which is written as what it borrows.
fn is_lent_module(path: &str) -> bool {
    path.ends_with("__rt::lent")
}

/// The `with` modules that write bytes.
fn is_bytes_module(path: &str) -> bool {
    let last = path.rsplit("::").next().unwrap_or_default().trim();
    matches!(last, "serde_bytes" | "byte_vec" | "frame_bytes")
}

/// `rename = "x"`; the two-way form would give one field two names.
fn name(meta: &ParseNestedMeta) -> syn::Result<String> {
    one_name(meta)?;
    string(meta)
}

fn case(meta: &ParseNestedMeta) -> syn::Result<Case> {
    one_name(meta)?;
    let rule: LitStr = meta.value()?.parse()?;
    Case::parse(&rule.value()).ok_or_else(|| syn::Error::new(rule.span(), "serde has no such rule; \"camelCase\" for example"))
}

fn one_name(meta: &ParseNestedMeta) -> syn::Result<()> {
    if meta.input.peek(token::Paren) {
        return Err(meta.error("both directions must use one name: write `= \"…\"`, and `alias` for names that are read too"));
    }
    Ok(())
}

fn tag(meta: &ParseNestedMeta, least: u32, most: u32) -> syn::Result<Tag> {
    let number: LitInt = meta.value()?.parse()?;
    match number.base10_parse::<u32>() {
        Ok(value) if (least..=most).contains(&value) => Ok(Tag { number: value, span: number.span() }),
        _ => Err(syn::Error::new(number.span(), format!("a number from {least} to {most} goes here"))),
    }
}

pub(crate) fn string(meta: &ParseNestedMeta) -> syn::Result<String> {
    Ok(meta.value()?.parse::<LitStr>()?.value())
}

pub(crate) fn set<T>(slot: &mut Option<T>, value: T, meta: &ParseNestedMeta) -> syn::Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(meta.error("this is given twice")),
    }
}

/// Steps over `= value` or `(…)`.
pub(crate) fn skip_value(meta: &ParseNestedMeta) -> syn::Result<()> {
    if meta.input.peek(syn::Token![=]) {
        meta.value()?.parse::<Expr>()?;
    } else if meta.input.peek(token::Paren) {
        let content;
        syn::parenthesized!(content in meta.input);
        content.parse::<proc_macro2::TokenStream>()?;
    }
    Ok(())
}

pub(crate) fn docs(attrs: &[Attribute]) -> String {
    let lines: Vec<String> = attrs.iter().filter_map(doc_line).collect();
    lines.join("\n").trim().to_owned()
}

fn doc_line(attr: &Attribute) -> Option<String> {
    let Meta::NameValue(pair) = &attr.meta else { return None };
    let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &pair.value else { return None };
    if !pair.path.is_ident("doc") {
        return None;
    }
    let text = text.value();
    Some(text.strip_prefix(' ').unwrap_or(&text).trim_end().to_owned())
}

/// The name of a field or variant as serde sees it before renaming.
pub(crate) fn plain(ident: &Ident) -> String {
    ident.unraw().to_string()
}

/// serde's `rename_all` rules.
#[derive(Clone, Copy)]
pub(crate) enum Case {
    Lower,
    Upper,
    Pascal,
    Camel,
    Snake,
    ScreamingSnake,
    Kebab,
    ScreamingKebab,
}

impl Case {
    fn parse(rule: &str) -> Option<Case> {
        match rule {
            "lowercase" => Some(Case::Lower),
            "UPPERCASE" => Some(Case::Upper),
            "PascalCase" => Some(Case::Pascal),
            "camelCase" => Some(Case::Camel),
            "snake_case" => Some(Case::Snake),
            "SCREAMING_SNAKE_CASE" => Some(Case::ScreamingSnake),
            "kebab-case" => Some(Case::Kebab),
            "SCREAMING-KEBAB-CASE" => Some(Case::ScreamingKebab),
            _ => None,
        }
    }

    /// A field's name, which is written in snake case.
    pub(crate) fn field(self, name: &str) -> String {
        match self {
            Case::Lower | Case::Snake => name.to_owned(),
            Case::Upper | Case::ScreamingSnake => name.to_ascii_uppercase(),
            Case::Pascal => name.split('_').map(capital).collect(),
            Case::Camel => small(&Case::Pascal.field(name)),
            Case::Kebab => name.replace('_', "-"),
            Case::ScreamingKebab => name.to_ascii_uppercase().replace('_', "-"),
        }
    }

    /// A variant's name, which is written in Pascal case.
    pub(crate) fn variant(self, name: &str) -> String {
        match self {
            Case::Pascal => name.to_owned(),
            Case::Lower => name.to_ascii_lowercase(),
            Case::Upper => name.to_ascii_uppercase(),
            Case::Camel => small(name),
            Case::Snake => snake(name),
            Case::ScreamingSnake => snake(name).to_ascii_uppercase(),
            Case::Kebab => snake(name).replace('_', "-"),
            Case::ScreamingKebab => snake(name).to_ascii_uppercase().replace('_', "-"),
        }
    }
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect()
}

fn small(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(chars).collect()
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for (at, char) in name.char_indices() {
        if at > 0 && char.is_uppercase() {
            out.push('_');
        }
        out.push(char.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_serdes() {
        let check = |rule: &str, field: &str, variant: &str| {
            let case = Case::parse(rule).unwrap();
            assert_eq!((case.field("very_tasty_2"), case.variant("VeryTasty")), (field.to_owned(), variant.to_owned()), "{rule}");
        };
        check("lowercase", "very_tasty_2", "verytasty");
        check("UPPERCASE", "VERY_TASTY_2", "VERYTASTY");
        check("PascalCase", "VeryTasty2", "VeryTasty");
        check("camelCase", "veryTasty2", "veryTasty");
        check("snake_case", "very_tasty_2", "very_tasty");
        check("SCREAMING_SNAKE_CASE", "VERY_TASTY_2", "VERY_TASTY");
        check("kebab-case", "very-tasty-2", "very-tasty");
        check("SCREAMING-KEBAB-CASE", "VERY-TASTY-2", "VERY-TASTY");
    }
}
