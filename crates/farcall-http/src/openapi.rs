//! The services as OpenAPI 3.1 (<https://spec.openapis.org/oas/v3.1.1>), for tools that know HTTP.
//!
//! What cannot be called through the door (streams from a client) is not in it. A schema's names are those of the types.

use farcall_core::export::{Json, NamedSchemas, SchemaSet};
use farcall_core::schema::{Field, Kind, Payload, Ty};
use farcall_core::{CodecError, MethodDescriptor, ServiceDescriptor};

use crate::caller::Caller;
use crate::headers;

/// How callers say who they are.
const SCHEME: &str = "bearer";

/// What `caller` may call. The title names the services that are not built in.
pub(crate) fn document(caller: &Caller<'_>) -> Result<String, CodecError> {
    let mut set = SchemaSet::default();
    let mut methods = Vec::new();
    let mut tags = Vec::new();
    for service in caller.visible() {
        tags.push(service);
        for method in caller.methods(service).filter(|m| !m.traits.args_stream) {
            methods.push(Entry { service, method, types: set.add(method)? });
        }
    }
    let schemas = set.named("#/components/schemas/");
    let paths = methods.iter().map(|entry| (path(entry), entry.item(&schemas)));
    let title: Vec<&str> = tags.iter().map(|s| s.name.as_str()).filter(|name| !name.starts_with("farcall.")).collect();
    let info = object([("title", text(title.join(", "))), ("version", text(version(&tags)))]);
    let tag = |s: &&ServiceDescriptor| object([("name", text(&s.name)), ("description", text(&s.docs))]);
    let document = object([
        ("openapi", text("3.1.0")),
        ("info", info),
        ("tags", Json::List(tags.iter().map(tag).collect())),
        ("paths", Json::Object(paths.collect())),
        ("components", components(&schemas, caller.is_asked())),
    ]);
    Ok(document.to_string())
}

/// The version of the services, if they have the same.
fn version(services: &[&ServiceDescriptor]) -> String {
    let mut versions = services.iter().filter(|s| !s.name.starts_with("farcall.")).map(|s| s.version.as_str());
    let first = versions.next().unwrap_or_default();
    if versions.all(|version| version == first) && !first.is_empty() { first.to_owned() } else { "0".to_owned() }
}

struct Entry<'s> {
    service: &'s ServiceDescriptor,
    method: &'s MethodDescriptor,
    types: Vec<(&'static str, Ty)>,
}

fn path(entry: &Entry<'_>) -> String {
    format!("/{}/{}", crate::route::shown(entry.service), entry.method.name)
}

impl Entry<'_> {
    fn ty(&self, part: &str) -> Option<&Ty> {
        self.types.iter().find(|(name, _)| *name == part).map(|(_, ty)| ty)
    }

    /// All that may be done with the method's path.
    fn item(&self, schemas: &NamedSchemas) -> Json {
        let reads = self.method.traits.idempotent && !self.method.traits.oneway;
        let get = reads.then(|| ("get", self.operation(schemas, true)));
        Json::Object([Some(("post", self.operation(schemas, false))), get].into_iter().flatten().map(owned).collect())
    }

    fn operation(&self, schemas: &NamedSchemas, reads: bool) -> Json {
        let MethodDescriptor { name, docs, traits, .. } = self.method;
        let id = format!("{}.{name}{}", self.service.name, if reads { ".get" } else { "" });
        let mut members = vec![("operationId", text(id)), ("tags", Json::List(vec![text(&self.service.name)]))];
        if let Some(summary) = docs.lines().next() {
            members.extend([("summary", text(summary)), ("description", text(docs))]);
        }
        let shared = ["Timeout", "Traceparent"].into_iter().chain((!reads && !traits.oneway && !traits.result_stream).then_some("Key"));
        let mut parameters: Vec<Json> = shared.map(|name| refer("parameters", name)).collect();
        match (reads, self.ty("arguments")) {
            (true, Some(ty)) => parameters.extend(fields(schemas, ty).iter().map(|field| parameter(schemas, field))),
            (false, Some(ty)) => {
                let required = fields(schemas, ty).iter().any(is_required);
                members.push(("requestBody", object([("required", Json::Bool(required)), ("content", of_json(schemas.of(ty)))])));
            }
            (_, None) => {}
        }
        members.push(("parameters", Json::List(parameters)));
        members.push(("responses", self.responses(schemas)));
        if !self.method.roles.is_empty() {
            let roles = self.method.roles.iter().map(text).collect();
            members.push(("security", Json::List(vec![object([(SCHEME, Json::List(roles))])])));
        }
        Json::Object(members.into_iter().map(owned).collect())
    }

    fn responses(&self, schemas: &NamedSchemas) -> Json {
        let MethodDescriptor { traits, .. } = self.method;
        let response = |what: &str, content| object([("description", text(what)), ("content", content)]);
        let mut members = Vec::new();
        match (traits.oneway, self.ty("result"), self.ty("result_item")) {
            (true, ..) => members.push(("202", object([("description", text("It has begun; nobody hears how it ends."))]))),
            (_, Some(result), _) => members.push(("200", response("The result.", of_json(schemas.of(result))))),
            (_, _, Some(item)) => {
                let what = "Server-sent events: the data of an event without a name is an item, whose schema `x-item` is; the event \
                            `end` is the last one, and so is `error`, whose data is an error.";
                let events = object([("schema", object([("type", text("string"))])), ("x-item", schemas.of(item))]);
                members.push(("200", response(what, object([("text/event-stream", events)]))));
            }
            _ => {}
        }
        if let Some(error) = self.ty("error").or_else(|| self.ty("result_stream_error")) {
            let app = object([
                ("type", text("object")),
                (
                    "properties",
                    object([
                        ("code", object([("const", text("app_error"))])),
                        ("message", object([("type", text("string"))])),
                        ("error", schemas.of(error)),
                    ]),
                ),
                ("required", Json::List(["code", "message", "error"].map(text).into())),
            ]);
            members.push(("422", response("The method answered with its own error.", of_json(app))));
        }
        members.push(("default", refer("responses", "Error")));
        Json::Object(members.into_iter().map(owned).collect())
    }
}

/// The parameters of a method, as its arguments' schema has them.
fn fields<'n>(schemas: &'n NamedSchemas, ty: &Ty) -> &'n [Field] {
    match schemas.def_of(ty).map(|def| &def.kind) {
        Some(Kind::Struct(fields)) => fields,
        _ => &[],
    }
}

fn is_required(field: &Field) -> bool {
    !field.default && field.aliases.is_empty() && !matches!(field.ty, Ty::Option(_))
}

/// A parameter of a query, in the form in which `query` reads it.
fn parameter(schemas: &NamedSchemas, field: &Field) -> Json {
    let value = match &field.ty {
        Ty::Option(some) => some,
        ty => ty,
    };
    let plain = match value {
        Ty::Seq(element) => is_plain(schemas, element),
        ty => is_plain(schemas, ty),
    };
    let mut members = vec![("name", text(&field.name)), ("in", text("query")), ("required", Json::Bool(is_required(field)))];
    members.extend((!field.docs.is_empty()).then(|| ("description", text(&field.docs))));
    match plain {
        true => members.push(("schema", schemas.of(value))),
        false => members.push(("content", of_json(schemas.of(value)))),
    }
    Json::Object(members.into_iter().map(owned).collect())
}

/// Whether a value stands in a query as it is, not as JSON.
fn is_plain(schemas: &NamedSchemas, ty: &Ty) -> bool {
    match ty {
        Ty::Unit | Ty::Option(_) | Ty::Seq(_) | Ty::Map(..) | Ty::Array(..) | Ty::Tuple(_) => false,
        Ty::Ref(_) => match schemas.def_of(ty).map(|def| &def.kind) {
            Some(Kind::Enum(variants)) => variants.iter().all(|v| matches!(v.payload, Payload::Unit)),
            _ => false,
        },
        _ => true,
    }
}

fn components(schemas: &NamedSchemas, asks: bool) -> Json {
    let error = object([
        ("type", text("object")),
        (
            "properties",
            object([
                ("code", object([("type", text("string"))])),
                ("message", object([("type", text("string"))])),
                ("certainty", object([("enum", Json::List(["not_executed", "maybe_executed"].map(text).into()))])),
                ("stage", object([("type", text("string"))])),
                ("details", object([("type", text("array"))])),
            ]),
        ),
        ("required", Json::List(["code", "message", "certainty"].map(text).into())),
    ]);
    let header = |name: &str, what: &str, schema| {
        object([("name", text(name)), ("in", text("header")), ("description", text(what)), ("schema", schema)])
    };
    let string = || object([("type", text("string"))]);
    let ms = object([("type", text("integer")), ("minimum", Json::Count(0))]);
    let parameters = object([
        ("Timeout", header(headers::TIMEOUT, "How long the caller waits, in milliseconds.", ms)),
        ("Traceparent", header(headers::TRACEPARENT, "W3C trace context.", string())),
        ("Key", header(headers::KEY, "Calls with the same key run once.", string())),
    ]);
    let responses = object([("Error", object([("description", text("The call failed.")), ("content", of_json(error))]))]);
    let bearer = object([("type", text("http")), ("scheme", text("bearer"))]);
    let security = if asks { object([(SCHEME, bearer)]) } else { object([]) };
    object([
        ("schemas", Json::Object(schemas.defs().collect())),
        ("parameters", parameters),
        ("responses", responses),
        ("securitySchemes", security),
    ])
}

fn of_json(schema: Json) -> Json {
    object([("application/json", object([("schema", schema)]))])
}

fn refer(kind: &str, name: &str) -> Json {
    object([("$ref", text(format!("#/components/{kind}/{name}")))])
}

fn text(text: impl Into<String>) -> Json {
    Json::Text(text.into())
}

fn object<const N: usize>(members: [(&str, Json); N]) -> Json {
    Json::Object(members.into_iter().map(owned).collect())
}

fn owned((name, value): (&str, Json)) -> (String, Json) {
    (name.to_owned(), value)
}
