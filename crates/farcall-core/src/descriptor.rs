//! What is known of a service without its types: names, docs, signatures, schemas and fingerprints.
//!
//! `#[farcall::service]` makes one [`ServiceDescriptor`] per trait. The method table, `farcall
//! describe` and the doors to other protocols read it; nobody else needs to know the trait.

use crate::codec::{CodecError, Made, Shape};
use crate::schema::{Fingerprint, Schema, SchemaBuilder, Ty, TypeSchema};

/// A service: what the trait says.
#[derive(Debug, Clone)]
pub struct ServiceDescriptor {
    /// The trait's name, or the one set by `#[farcall::service(name = "…")]`.
    pub name: String,
    /// The name under which other protocols know it, as in `#[farcall(name = "org.example.Pay")]`.
    pub foreign_name: Option<String>,
    /// Doc comments of the trait.
    pub docs: String,
    /// `#[farcall::service(version = "…")]`; empty if none. Providers and consumers must agree.
    pub version: String,
    /// `#[farcall::service(group = "…")]`; empty if none. Providers and consumers must agree.
    pub group: String,
    /// In the order of the trait: a method's place is its row.
    pub methods: Vec<MethodDescriptor>,
}

/// A method: what its signature and attributes say.
#[derive(Debug, Clone)]
pub struct MethodDescriptor {
    /// As in the trait.
    pub name: String,
    /// The name under which other protocols know it.
    pub foreign_name: Option<String>,
    /// Doc comments.
    pub docs: String,
    /// Parameter names and types, as written.
    pub params: Vec<(String, String)>,
    /// The signature in one line, as a reader of the trait sees it.
    pub signature: String,
    /// The parameters as one struct.
    pub args: TypeSchema,
    /// The result.
    pub result: TypeSchema,
    /// The application error; `None` if the method has none.
    pub error: Option<TypeSchema>,
    /// What callers and servers may do with a call of it.
    pub traits: MethodTraits,
    /// A caller needs one of these to call it: `#[farcall(role = "…")]`. Empty = whoever was let in may. Not a part
    /// of the fingerprints.
    pub roles: Vec<String>,
    /// Fingerprints of arguments, result and error (the unit type's where there is none).
    pub prints: Prints,
    /// What codecs have made of the schemas so far.
    pub made: MadeOf,
}

/// What codecs have made of a method's schemas so far: nothing at first.
#[derive(Debug, Clone, Default)]
pub struct MadeOf {
    args: Made,
    args_item: Made,
    args_stream_error: Made,
    result: Made,
    result_item: Made,
    result_stream_error: Made,
    error: Made,
}

/// What may be done with a call of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MethodTraits {
    /// Running it twice is the same as once: may be retried, hedged and cancelled.
    pub idempotent: bool,
    /// No reply, not even an error.
    pub oneway: bool,
    /// A running handler is dropped when its caller goes away.
    pub cancel: bool,
    /// A plain `fn`: runs on the blocking pool.
    pub blocking: bool,
    /// The last parameter is a stream.
    pub args_stream: bool,
    /// The result is a stream.
    pub result_stream: bool,
}

/// The fingerprints of one row of a method table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prints {
    /// Of the arguments.
    pub args: Fingerprint,
    /// Of the result.
    pub result: Fingerprint,
    /// Of the application error.
    pub error: Fingerprint,
}

impl MethodDescriptor {
    /// Puts the schemas and their fingerprints together: called by generated code.
    #[doc(hidden)]
    #[allow(clippy::too_many_arguments)]
    pub fn build<A: Schema, R: Schema, E: ErrorSchema>(
        name: &str,
        foreign_name: Option<&str>,
        docs: &str,
        params: &[(&str, &str)],
        signature: &str,
        traits: MethodTraits,
    ) -> MethodDescriptor {
        MethodDescriptor::build_of::<E>(name, foreign_name, docs, params, signature, traits, A::ty, R::ty)
    }

    /// The same of arguments and result whose types may have no schema.
    #[doc(hidden)]
    #[allow(clippy::too_many_arguments)]
    pub fn build_of<E: ErrorSchema>(
        name: &str,
        foreign_name: Option<&str>,
        docs: &str,
        params: &[(&str, &str)],
        signature: &str,
        traits: MethodTraits,
        args: fn(&mut SchemaBuilder) -> Ty,
        result: fn(&mut SchemaBuilder) -> Ty,
    ) -> MethodDescriptor {
        let (args, result, error) = (TypeSchema::made_by(args), TypeSchema::made_by(result), E::schema());
        let no_error = || TypeSchema::of::<()>().fingerprint();
        MethodDescriptor {
            name: name.to_owned(),
            foreign_name: foreign_name.map(str::to_owned),
            docs: docs.to_owned(),
            params: params.iter().map(|(n, t)| (n.to_string(), t.to_string())).collect(),
            signature: signature.to_owned(),
            prints: Prints {
                args: args.fingerprint(),
                result: result.fingerprint(),
                error: error.as_ref().map_or_else(no_error, TypeSchema::fingerprint),
            },
            args,
            result,
            error,
            traits,
            roles: Vec::new(),
            made: MadeOf::default(),
        }
    }

    /// With these roles: called by generated code.
    #[doc(hidden)]
    pub fn with_roles(mut self, roles: &[&str]) -> MethodDescriptor {
        self.roles = roles.iter().map(|role| role.to_string()).collect();
        self
    }

    /// Whether it travels as JSON and in no other codec: one of its types has no schema.
    pub fn is_json_only(&self) -> bool {
        [&self.args, &self.result].into_iter().chain(&self.error).any(TypeSchema::is_json_only)
    }

    /// The arguments, for codecs that go by schema; without the stream behind them.
    pub fn args_shape(&self) -> Option<Shape<'_>> {
        let all = Shape::new(&self.args, &self.made.args);
        if self.traits.args_stream { all.part(0, &self.made.args) } else { Some(all) }
    }

    /// An error of the arguments, with the names of their type: see [`CodecError::named_by`].
    pub fn name_args_steps(&self, error: CodecError) -> CodecError {
        match &self.args.root {
            // Behind the arguments stands what the stream is of.
            Ty::Tuple(parts) if self.traits.args_stream => match parts.first() {
                Some(args) => error.named_by(&TypeSchema { root: args.clone(), defs: self.args.defs.clone() }),
                None => error,
            },
            _ => error.named_by(&self.args),
        }
    }

    /// An item of the stream behind the arguments.
    pub fn args_item_shape(&self) -> Option<Shape<'_>> {
        self.args_stream_shape()?.part(0, &self.made.args_item)
    }

    /// The error that the stream behind the arguments may end with.
    pub fn args_stream_error_shape(&self) -> Option<Shape<'_>> {
        self.args_stream_shape()?.part(1, &self.made.args_stream_error)
    }

    fn args_stream_shape(&self) -> Option<Shape<'_>> {
        if self.traits.args_stream { Shape::new(&self.args, &self.made.args).part(1, &self.made.args_item) } else { None }
    }

    /// The result, for codecs that go by schema, if it is no stream.
    pub fn result_shape(&self) -> Option<Shape<'_>> {
        (!self.traits.result_stream).then(|| Shape::new(&self.result, &self.made.result))
    }

    /// An item of the stream that is the result.
    pub fn result_item_shape(&self) -> Option<Shape<'_>> {
        self.result_stream_shape()?.part(0, &self.made.result_item)
    }

    /// The error that the stream may end with that is the result.
    pub fn result_stream_error_shape(&self) -> Option<Shape<'_>> {
        self.result_stream_shape()?.part(1, &self.made.result_stream_error)
    }

    fn result_stream_shape(&self) -> Option<Shape<'_>> {
        self.traits.result_stream.then(|| Shape::new(&self.result, &self.made.result))
    }

    /// The application error, for codecs that go by schema.
    pub fn error_shape(&self) -> Option<Shape<'_>> {
        self.error.as_ref().map(|error| Shape::new(error, &self.made.error))
    }
}

impl ServiceDescriptor {
    /// `Service.method`, as errors and the command line name it.
    pub fn full_name(&self, method: usize) -> String {
        match self.methods.get(method) {
            Some(m) => format!("{}.{}", self.name, m.name),
            None => self.name.clone(),
        }
    }

    /// The method of this name and its row.
    pub fn method(&self, name: &str) -> Option<(usize, &MethodDescriptor)> {
        self.methods.iter().enumerate().find(|(_, m)| m.name == name)
    }
}

/// The schema of an application error; none for [`Never`](crate::Never).
#[doc(hidden)]
pub trait ErrorSchema {
    /// The schema, if there is an error at all.
    fn schema() -> Option<TypeSchema>;
    /// The type as a part of another; the unit type if there is no error.
    fn error_ty(builder: &mut SchemaBuilder) -> Ty;
}

impl ErrorSchema for crate::Never {
    fn schema() -> Option<TypeSchema> {
        None
    }
    fn error_ty(_: &mut SchemaBuilder) -> Ty {
        Ty::Unit
    }
}

impl<E: Schema + crate::AppError> ErrorSchema for E {
    fn schema() -> Option<TypeSchema> {
        Some(TypeSchema::of::<E>())
    }
    fn error_ty(builder: &mut SchemaBuilder) -> Ty {
        E::ty(builder)
    }
}
