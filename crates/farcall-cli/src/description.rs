//! What a provider says of itself, as JSON: `farcall describe --json` writes it, `farcall compat` reads it.
//!
//! Members may be added, none renamed or removed.

use farcall::meta::{MethodInfo, MethodSchemas, ServiceInfo};
use farcall::schema::TypeSchema;
use farcall::{Fingerprint, ServiceDescriptor};
use serde::{Deserialize, Serialize};

/// A provider.
#[derive(Serialize, Deserialize)]
pub(crate) struct Description {
    pub(crate) address: String,
    pub(crate) services: Vec<Service>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Service {
    name: String,
    foreign_name: Option<String>,
    group: String,
    version: String,
    docs: String,
    methods: Vec<Method>,
}

#[derive(Serialize, Deserialize)]
struct Method {
    id: usize,
    name: String,
    foreign_name: Option<String>,
    signature: String,
    params: Vec<Param>,
    idempotent: bool,
    oneway: bool,
    #[serde(default)]
    args_stream: bool,
    #[serde(default)]
    result_stream: bool,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    json_only: bool,
    docs: String,
    fingerprints: Fingerprints,
    types: String,
    /// A provider or a farcall from before there were schemas to ask for leaves them out.
    schemas: Option<Schemas>,
}

#[derive(Serialize, Deserialize)]
struct Param {
    name: String,
    r#type: String,
}

#[derive(Serialize, Deserialize)]
struct Fingerprints {
    arguments: String,
    result: String,
    error: String,
}

#[derive(Serialize, Deserialize)]
struct Schemas {
    arguments: TypeSchema,
    result: TypeSchema,
    error: Option<TypeSchema>,
}

impl Service {
    /// A service and, where its provider tells them, the schemas of its methods.
    pub(crate) fn of(service: &ServiceInfo, schemas: Option<Vec<MethodSchemas>>) -> Service {
        let mut schemas = schemas.unwrap_or_default().into_iter();
        let methods = service.methods.iter().enumerate().map(|(id, method)| Method::of(id, method, schemas.next())).collect();
        let ServiceInfo { name, foreign_name, docs, group, version, .. } = service.clone();
        Service { name, foreign_name, group, version, docs, methods }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The descriptor that it was made from, as far as it says.
    pub(crate) fn descriptor(self) -> Result<ServiceDescriptor, String> {
        let Service { name, foreign_name, group, version, docs, methods } = self;
        let (methods, schemas): (Vec<MethodInfo>, Vec<Option<Schemas>>) = methods.into_iter().map(Method::info).unzip();
        let mut service = ServiceInfo { name, foreign_name, docs, group, version, methods }.to_descriptor();
        for (method, schemas) in service.methods.iter_mut().zip(schemas) {
            let Some(Schemas { arguments, result, error }) = schemas else {
                return Err(format!(
                    "{}.{} has no schemas: describe it again, with a farcall of today on both sides",
                    service.name, method.name
                ));
            };
            (method.args, method.result, method.error) = (arguments, result, error);
        }
        Ok(service)
    }
}

impl Method {
    fn of(id: usize, method: &MethodInfo, schemas: Option<MethodSchemas>) -> Method {
        let print = |bytes: &[u8; 16]| Fingerprint(*bytes).to_string();
        let MethodInfo {
            name,
            foreign_name,
            docs,
            params,
            signature,
            idempotent,
            oneway,
            args_stream,
            result_stream,
            roles,
            json_only,
            types,
            ..
        } = method.clone();
        Method {
            id,
            name,
            foreign_name,
            signature,
            params: params.into_iter().map(|(name, r#type)| Param { name, r#type }).collect(),
            idempotent,
            oneway,
            args_stream,
            result_stream,
            roles,
            json_only,
            docs,
            fingerprints: Fingerprints {
                arguments: print(&method.args_print),
                result: print(&method.result_print),
                error: print(&method.error_print),
            },
            types,
            schemas: schemas.map(|MethodSchemas { args, result, error }| Schemas { arguments: args, result, error }),
        }
    }

    /// The fingerprints are left out: whoever has the schemas does not need them.
    fn info(self) -> (MethodInfo, Option<Schemas>) {
        let Method {
            name,
            foreign_name,
            signature,
            params,
            idempotent,
            oneway,
            args_stream,
            result_stream,
            roles,
            json_only,
            docs,
            types,
            schemas,
            ..
        } = self;
        let info = MethodInfo {
            name,
            foreign_name,
            docs,
            params: params.into_iter().map(|param| (param.name, param.r#type)).collect(),
            signature,
            idempotent,
            oneway,
            args_stream,
            result_stream,
            roles,
            json_only,
            args_print: [0; 16],
            result_print: [0; 16],
            error_print: [0; 16],
            types,
        };
        (info, schemas)
    }
}
