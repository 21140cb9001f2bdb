//! What the frames of a method carry, one type at a time.

use crate::codec::CodecError;
use crate::descriptor::MethodDescriptor;
use crate::schema::{Def, Ty, TypeSchema, short_type_name};

/// A type and what it is for.
pub(super) struct Part<'m> {
    pub(super) role: Role,
    pub(super) ty: &'m Ty,
    pub(super) defs: &'m [Def],
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Role {
    Arguments,
    /// Of the stream behind the arguments.
    ArgumentsItem,
    ArgumentsStreamError,
    Result,
    /// Of the stream that is the result.
    ResultItem,
    ResultStreamError,
    Error,
}

/// All that a method carries. Fails if a peer says that it has a stream and gives it no types.
pub(super) fn parts(method: &MethodDescriptor) -> Result<Vec<Part<'_>>, CodecError> {
    let mut parts = Vec::new();
    match method.traits.args_stream {
        true => {
            let (args, stream) = pair(method, &method.args, &method.args.root)?;
            parts.push(Part { role: Role::Arguments, ty: args, defs: &method.args.defs });
            let (item, error) = pair(method, &method.args, stream)?;
            add_stream(&mut parts, &method.args, (Role::ArgumentsItem, item), (Role::ArgumentsStreamError, error));
        }
        false => parts.push(whole(Role::Arguments, &method.args)),
    }
    match method.traits.result_stream {
        true => {
            let (item, error) = pair(method, &method.result, &method.result.root)?;
            add_stream(&mut parts, &method.result, (Role::ResultItem, item), (Role::ResultStreamError, error));
        }
        false => parts.push(whole(Role::Result, &method.result)),
    }
    parts.extend(method.error.iter().map(|error| whole(Role::Error, error)));
    Ok(parts)
}

fn whole(role: Role, schema: &TypeSchema) -> Part<'_> {
    Part { role, ty: &schema.root, defs: &schema.defs }
}

fn add_stream<'m>(parts: &mut Vec<Part<'m>>, schema: &'m TypeSchema, item: (Role, &'m Ty), error: (Role, &'m Ty)) {
    // A stream without an error of its own has the unit type in its place.
    let error = Some(error).filter(|(_, ty)| **ty != Ty::Unit);
    parts.extend([Some(item), error].into_iter().flatten().map(|(role, ty)| Part { role, ty, defs: &schema.defs }));
}

fn pair<'m>(method: &MethodDescriptor, schema: &'m TypeSchema, ty: &'m Ty) -> Result<(&'m Ty, &'m Ty), CodecError> {
    if let Ty::Tuple(types) = ty
        && let [first, second] = types.as_slice()
    {
        return Ok((first, second));
    }
    let name = short_type_name(&schema.root, &schema.defs);
    Err(CodecError::new(format!("{}: it has a stream, and its schema `{name}` does not say of what", method.name)))
}
