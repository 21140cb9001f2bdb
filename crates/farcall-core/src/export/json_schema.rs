//! A service as JSON Schema (draft 2020-12), for OpenAPI, forms and editors.

use std::collections::HashSet;
use std::fmt;

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use super::Graph;
use super::parts::{Part, Role, parts};
use crate::codec::CodecError;
use crate::descriptor::{MethodDescriptor, ServiceDescriptor};
use crate::schema::{Def, Field, Kind, Payload, Ty, Variant};

/// A document of the JSON that the JSON codec reads and writes. `methods` holds a schema for the arguments, the
/// result and the error of each method; the types they refer to are in `$defs`. A stream has schemas for an item
/// and for the error that it may end with.
///
/// A field that may be missing, or may have an earlier name, is not required; earlier names are deprecated properties.
pub fn json_schema(service: &ServiceDescriptor) -> Result<String, CodecError> {
    let mut all = SchemaSet::default();
    let methods: Vec<_> = service.methods.iter().map(|method| Ok((method, all.add(method)?))).collect::<Result<_, CodecError>>()?;
    let schemas = all.named("#/$defs/");
    let method = |(method, roots): &(&MethodDescriptor, Vec<(&str, Ty)>)| {
        let parts = roots.iter().map(|(part, ty)| (part.to_string(), schemas.of(ty)));
        (method.name.clone(), object(docs(&method.docs).chain(parts)))
    };
    let document = object(
        [("$schema".to_owned(), text("https://json-schema.org/draft/2020-12/schema")), ("title".to_owned(), text(&service.name))]
            .into_iter()
            .chain(docs(&service.docs))
            .chain([("methods".to_owned(), object(methods.iter().map(method))), ("$defs".to_owned(), object(schemas.defs()))]),
    );
    Ok(document.to_string() + "\n")
}

/// The types of methods, to become JSON Schemas that refer to each other.
#[derive(Clone, Debug, Default)]
pub struct SchemaSet(Graph);

impl SchemaSet {
    /// Adds the types of a method: what each is for (`arguments`, `arguments_item`, `arguments_stream_error`, `result`,
    /// `result_item`, `result_stream_error`, `error`), and the type, whose references are of this set.
    pub fn add(&mut self, method: &MethodDescriptor) -> Result<Vec<(&'static str, Ty)>, CodecError> {
        let mut add = |part: &Part<'_>| (member(part.role), self.0.add_type(part.ty, part.defs));
        Ok(parts(method)?.iter().map(&mut add).collect())
    }

    /// The set as JSON Schemas. A reference is `place` and the name of what it leads to.
    pub fn named(self, place: &'static str) -> NamedSchemas {
        NamedSchemas { names: names(self.0.defs()), graph: self.0, place }
    }
}

/// See [`SchemaSet::named`].
#[derive(Clone, Debug)]
pub struct NamedSchemas {
    graph: Graph,
    /// Of each definition.
    names: Vec<String>,
    place: &'static str,
}

impl NamedSchemas {
    /// The schema of a type of the set.
    pub fn of(&self, ty: &Ty) -> Json {
        self.ty(ty)
    }

    /// All definitions by name: what belongs where the references point to.
    pub fn defs(&self) -> impl Iterator<Item = (String, Json)> {
        self.graph.defs().iter().zip(&self.names).map(|(def, name)| (name.clone(), self.def(def)))
    }

    /// The definition that a type is a reference to.
    pub fn def_of(&self, ty: &Ty) -> Option<&Def> {
        match ty {
            Ty::Ref(index) => self.graph.defs().get(*index as usize),
            _ => None,
        }
    }
}

/// What the schema of a part is called.
fn member(role: Role) -> &'static str {
    match role {
        Role::Arguments => "arguments",
        Role::ArgumentsItem => "arguments_item",
        Role::ArgumentsStreamError => "arguments_stream_error",
        Role::Result => "result",
        Role::ResultItem => "result_item",
        Role::ResultStreamError => "result_stream_error",
        Role::Error => "error",
    }
}

/// JSON whose members keep their order. Shown, it is the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    /// A string.
    Text(String),
    /// `true` or `false`.
    Bool(bool),
    /// A number that is not negative.
    Count(u32),
    /// A number.
    Whole(i128),
    /// An array.
    List(Vec<Json>),
    /// An object.
    Object(Vec<(String, Json)>),
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string_pretty(self).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Json::Text(text) => to.serialize_str(text),
            Json::Bool(value) => to.serialize_bool(*value),
            Json::Count(count) => to.serialize_u32(*count),
            Json::Whole(number) => to.serialize_i128(*number),
            Json::List(elements) => {
                let mut list = to.serialize_seq(Some(elements.len()))?;
                elements.iter().try_for_each(|element| list.serialize_element(element))?;
                list.end()
            }
            Json::Object(members) => {
                let mut map = to.serialize_map(Some(members.len()))?;
                members.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
                map.end()
            }
        }
    }
}

fn text(text: &str) -> Json {
    Json::Text(text.to_owned())
}

fn object(members: impl IntoIterator<Item = (String, Json)>) -> Json {
    Json::Object(members.into_iter().collect())
}

fn with<const N: usize>(members: [(&str, Json); N]) -> Json {
    object(members.map(|(name, value)| (name.to_owned(), value)))
}

fn of_type(name: &str) -> Json {
    with([("type", text(name))])
}

fn docs(docs: &str) -> impl Iterator<Item = (String, Json)> {
    (!docs.is_empty()).then(|| ("description".to_owned(), text(docs))).into_iter()
}

fn integer(least: i128, most: i128) -> Json {
    with([("type", text("integer")), ("minimum", Json::Whole(least)), ("maximum", Json::Whole(most))])
}

/// A number that browsers may not hold: beyond 2^53 it is a string, and either form is read.
fn integer_or_string() -> Json {
    Json::List(vec![text("integer"), text("string")])
}

/// A number; those that are not finite are strings.
fn float() -> Json {
    with([("type", Json::List(vec![text("number"), text("string")])), ("pattern", text("^(NaN|-?Infinity)$"))])
}

/// The name of each definition, used once.
fn names(defs: &[Def]) -> Vec<String> {
    let mut taken = HashSet::new();
    let name = |def: &Def| {
        // `/` and `~` mean something in a reference.
        let plain: String = def.name.chars().map(|c| if c.is_alphanumeric() || c == '_' { c } else { '.' }).collect();
        let (mut name, mut count) = (plain.clone(), 1);
        while !taken.insert(name.clone()) {
            count += 1;
            name = format!("{plain}{count}");
        }
        name
    };
    defs.iter().map(name).collect()
}

impl NamedSchemas {
    fn ty(&self, ty: &Ty) -> Json {
        match ty {
            Ty::Bool => of_type("boolean"),
            Ty::U8 => integer(0, u8::MAX.into()),
            Ty::U16 => integer(0, u16::MAX.into()),
            Ty::U32 => integer(0, u32::MAX.into()),
            Ty::I8 => integer(i8::MIN.into(), i8::MAX.into()),
            Ty::I16 => integer(i16::MIN.into(), i16::MAX.into()),
            Ty::I32 => integer(i32::MIN.into(), i32::MAX.into()),
            Ty::U64 | Ty::U128 => with([("type", integer_or_string()), ("minimum", Json::Whole(0)), ("pattern", text("^[0-9]+$"))]),
            Ty::I64 | Ty::I128 => with([("type", integer_or_string()), ("pattern", text("^-?[0-9]+$"))]),
            Ty::F32 | Ty::F64 => float(),
            Ty::Char => with([("type", text("string")), ("minLength", Json::Count(1)), ("maxLength", Json::Count(1))]),
            Ty::Str => of_type("string"),
            Ty::Bytes => with([("type", text("string")), ("contentEncoding", text("base64"))]),
            Ty::Unit => of_type("null"),
            Ty::Option(some) => with([("anyOf", Json::List(vec![self.ty(some), of_type("null")]))]),
            Ty::Seq(element) => with([("type", text("array")), ("items", self.ty(element))]),
            Ty::Map(_, value) => with([("type", text("object")), ("additionalProperties", self.ty(value))]),
            Ty::Array(element, count) => with([
                ("type", text("array")),
                ("items", self.ty(element)),
                ("minItems", Json::Count(*count)),
                ("maxItems", Json::Count(*count)),
            ]),
            Ty::Tuple(types) => self.tuple(types),
            // Anything.
            Ty::Json => Json::Bool(true),
            Ty::Text(_, format) if format.is_empty() => of_type("string"),
            Ty::Text(_, format) => with([("type", text("string")), ("format", text(format))]),
            Ty::Ref(index) => {
                let name = self.names.get(*index as usize).map_or("", String::as_str);
                with([("$ref", text(&format!("{}{name}", self.place)))])
            }
        }
    }

    fn tuple(&self, types: &[Ty]) -> Json {
        let items = types.iter().map(|ty| self.ty(ty)).collect::<Vec<_>>();
        let mut members = vec![("type".to_owned(), text("array"))];
        // An empty list of prefixes is no JSON Schema.
        members.extend((!items.is_empty()).then(|| ("prefixItems".to_owned(), Json::List(items))));
        members.push(("items".to_owned(), Json::Bool(false)));
        members.push(("minItems".to_owned(), Json::Count(types.len() as u32)));
        Json::Object(members)
    }

    fn def(&self, def: &Def) -> Json {
        let body = match &def.kind {
            Kind::Unit => of_type("null"),
            Kind::Struct(fields) => self.fields(fields),
            Kind::Tuple(types) => self.tuple(types),
            Kind::Newtype(ty) => self.ty(ty),
            Kind::Enum(variants) => with([("oneOf", Json::List(variants.iter().map(|variant| self.variant(variant)).collect()))]),
        };
        described(&def.docs, body)
    }

    fn variant(&self, variant: &Variant) -> Json {
        let value = match &variant.payload {
            Payload::Unit => return described(&variant.docs, with([("const", text(&variant.name))])),
            Payload::Newtype(ty) => self.ty(ty),
            Payload::Tuple(types) => self.tuple(types),
            Payload::Struct(fields) => self.fields(fields),
        };
        let properties = object([(variant.name.clone(), value)]);
        let body = with([
            ("type", text("object")),
            ("properties", properties),
            ("required", Json::List(vec![text(&variant.name)])),
            ("additionalProperties", Json::Bool(false)),
        ]);
        described(&variant.docs, body)
    }

    fn fields(&self, fields: &[Field]) -> Json {
        let mut properties = Vec::new();
        let mut required = Vec::new();
        for field in fields {
            properties.push((field.name.clone(), described(&field.docs, self.ty(&field.ty))));
            for alias in &field.aliases {
                let deprecated = [("deprecated".to_owned(), Json::Bool(true))];
                properties.push((alias.clone(), merged(deprecated, self.ty(&field.ty))));
            }
            if !field.default && field.aliases.is_empty() && !matches!(field.ty.layout(), Ty::Option(_)) {
                required.push(text(&field.name));
            }
        }
        with([("type", text("object")), ("properties", Json::Object(properties)), ("required", Json::List(required))])
    }
}

fn described(text: &str, schema: Json) -> Json {
    merged(docs(text), schema)
}

fn merged(first: impl IntoIterator<Item = (String, Json)>, schema: Json) -> Json {
    match schema {
        Json::Object(members) => object(first.into_iter().chain(members)),
        other => other,
    }
}
