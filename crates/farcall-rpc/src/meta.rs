//! The built-in service `farcall.Meta`: what a server serves, without knowing its traits.
//!
//! The commands of `farcall` are clients of it, and an example of `#[farcall::service]` inside a
//! crate below the facade.

use farcall_core::descriptor::MadeOf;
use farcall_core::schema::TypeSchema;
use farcall_core::{Code, Fingerprint, MethodDescriptor, MethodTraits, Prints, Reply, RpcError, ServiceDescriptor, data};

/// A service as its provider describes it.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceInfo {
    /// Service name.
    pub name: String,
    /// The name under which other protocols know it.
    pub foreign_name: Option<String>,
    /// Doc comments of the trait.
    pub docs: String,
    /// Group, empty if none.
    pub group: String,
    /// Version, empty if none.
    pub version: String,
    /// In the order of the trait: a method's place is its id.
    pub methods: Vec<MethodInfo>,
}

/// A method as its provider describes it.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
pub struct MethodInfo {
    /// Method name.
    pub name: String,
    /// The name under which other protocols know it.
    pub foreign_name: Option<String>,
    /// Doc comments.
    pub docs: String,
    /// Parameter names and types, as written.
    pub params: Vec<(String, String)>,
    /// The signature in one line.
    pub signature: String,
    /// Running it twice is the same as once.
    pub idempotent: bool,
    /// No reply.
    pub oneway: bool,
    /// The last parameter is a stream.
    pub args_stream: bool,
    /// The result is a stream.
    pub result_stream: bool,
    /// A caller needs one of these roles; none if the list is empty.
    pub roles: Vec<String>,
    /// One of its types has no schema, so all of it travels as JSON.
    pub json_only: bool,
    /// Fingerprint of the arguments, 16 bytes.
    pub args_print: [u8; 16],
    /// Fingerprint of the result, 16 bytes.
    pub result_print: [u8; 16],
    /// Fingerprint of the application error, 16 bytes.
    pub error_print: [u8; 16],
    /// The types it uses, for people.
    pub types: String,
}

/// The types of a method, for those who compare, check or show them.
#[data(crate = farcall_core)]
#[derive(Debug, Clone, PartialEq)]
pub struct MethodSchemas {
    /// The parameters as one struct.
    pub args: TypeSchema,
    /// The result.
    pub result: TypeSchema,
    /// The application error, if the method has one.
    pub error: Option<TypeSchema>,
}

/// Describes the services of a server.
#[farcall_rpc::service(crate = farcall_rpc, name = "farcall.Meta")]
pub trait Describe {
    /// All services here, this one included, with the methods that the caller may call.
    #[farcall(idempotent)]
    async fn services(&self) -> Reply<Vec<ServiceInfo>>;
    /// The types of one service's methods, in the order of [`services`](Describe::services).
    #[farcall(idempotent)]
    async fn schemas(&self, service: String, group: String, version: String) -> Reply<Vec<MethodSchemas>>;
}

/// Answers for a server with what it was told when the server was made.
pub(crate) struct Meta {
    services: Vec<ServiceInfo>,
    /// Of each service, in the same order.
    schemas: Vec<Vec<MethodSchemas>>,
}

impl Meta {
    /// Describes these services and itself.
    pub(crate) fn describing<'a>(services: impl Iterator<Item = &'a ServiceDescriptor>) -> Meta {
        let own = std::iter::once(DescribeClient::descriptor());
        let (services, schemas) = services.chain(own).map(|s| (ServiceInfo::of(s), MethodSchemas::of(s))).unzip();
        Meta { services, schemas }
    }
}

impl Describe for Meta {
    async fn services(&self) -> Reply<Vec<ServiceInfo>> {
        let cx = crate::context();
        let seen = |s: &ServiceInfo| ServiceInfo { methods: s.methods.iter().filter(|m| callable(m, &cx)).cloned().collect(), ..s.clone() };
        // A service of which nothing may be called is not told of.
        Ok(self.services.iter().map(seen).filter(|s| !s.methods.is_empty()).collect())
    }

    async fn schemas(&self, service: String, group: String, version: String) -> Reply<Vec<MethodSchemas>> {
        let named = |s: &ServiceInfo| s.name == service && s.group == group && s.version == version;
        let cx = crate::context();
        let at = self.services.iter().position(|s| named(s) && s.methods.iter().any(|m| callable(m, &cx)));
        match at {
            Some(at) => {
                let all = self.services[at].methods.iter().zip(&self.schemas[at]);
                Ok(all.filter(|(m, _)| callable(m, &cx)).map(|(_, schemas)| schemas.clone()).collect())
            }
            None => Err(RpcError::new(
                Code::NotFound,
                format!("there is no service {service:?} in group {group:?} and version {version:?} here: ask for `services`"),
            )),
        }
    }
}

/// Whether the caller's roles are enough for a method: of others it is not told.
fn callable(method: &MethodInfo, cx: &crate::Context) -> bool {
    method.roles.is_empty() || cx.identity().is_some_and(|caller| method.roles.iter().any(|role| caller.has_role(role)))
}

impl MethodSchemas {
    fn of(service: &ServiceDescriptor) -> Vec<MethodSchemas> {
        let of = |m: &MethodDescriptor| MethodSchemas { args: m.args.clone(), result: m.result.clone(), error: m.error.clone() };
        service.methods.iter().map(of).collect()
    }
}

impl ServiceInfo {
    /// A service as it is described.
    pub fn of(service: &ServiceDescriptor) -> ServiceInfo {
        ServiceInfo {
            name: service.name.clone(),
            foreign_name: service.foreign_name.clone(),
            docs: service.docs.clone(),
            group: service.group.clone(),
            version: service.version.clone(),
            methods: service.methods.iter().map(MethodInfo::of).collect(),
        }
    }

    /// Enough of a descriptor to call it without a stub. The schemas are not in it: ask for
    /// [`schemas`](Describe::schemas).
    pub fn to_descriptor(&self) -> ServiceDescriptor {
        ServiceDescriptor {
            name: self.name.clone(),
            foreign_name: self.foreign_name.clone(),
            docs: self.docs.clone(),
            version: self.version.clone(),
            group: self.group.clone(),
            methods: self.methods.iter().map(MethodInfo::to_descriptor).collect(),
        }
    }
}

impl MethodInfo {
    fn of(method: &MethodDescriptor) -> MethodInfo {
        let mut types: Vec<String> = Vec::new();
        for schema in [&method.args, &method.result].into_iter().chain(&method.error) {
            for text in schema.describe().split("\n\n").map(str::trim_end) {
                // The struct of the arguments is ours; the signature shows it better.
                let ours = text.contains("_Args {") || text.ends_with("_Args") || text.ends_with("_Args;");
                if !text.is_empty() && !ours && !types.iter().any(|t| t == text) {
                    types.push(text.to_owned());
                }
            }
        }
        MethodInfo {
            name: method.name.clone(),
            foreign_name: method.foreign_name.clone(),
            docs: method.docs.clone(),
            params: method.params.clone(),
            signature: method.signature.clone(),
            idempotent: method.traits.idempotent,
            oneway: method.traits.oneway,
            args_stream: method.traits.args_stream,
            result_stream: method.traits.result_stream,
            roles: method.roles.clone(),
            json_only: method.is_json_only(),
            args_print: method.prints.args.0,
            result_print: method.prints.result.0,
            error_print: method.prints.error.0,
            types: types.join("\n\n"),
        }
    }

    fn to_descriptor(&self) -> MethodDescriptor {
        MethodDescriptor {
            name: self.name.clone(),
            foreign_name: self.foreign_name.clone(),
            docs: self.docs.clone(),
            params: self.params.clone(),
            signature: self.signature.clone(),
            args: TypeSchema::of::<()>(),
            result: TypeSchema::of::<()>(),
            error: None,
            traits: MethodTraits {
                idempotent: self.idempotent,
                oneway: self.oneway,
                args_stream: self.args_stream,
                result_stream: self.result_stream,
                ..MethodTraits::default()
            },
            roles: self.roles.clone(),
            prints: Prints {
                args: Fingerprint(self.args_print),
                result: Fingerprint(self.result_print),
                error: Fingerprint(self.error_print),
            },
            made: MadeOf::default(),
        }
    }
}
