//! The names on an error's path, looked up in the schema by place.

use crate::codec::Step;

use super::{Field, Kind, MAX_TY_DEPTH, Payload, Ty, TypeSchema};

/// Where on the way down we are.
enum At<'a> {
    Type(&'a Ty),
    Types(&'a [Ty]),
    Fields(&'a [Field]),
}

impl TypeSchema {
    /// Puts the schema's names into the steps of a path, outermost first. Steps it cannot follow stay as they are.
    pub(crate) fn name_steps<'s>(&self, steps: impl Iterator<Item = &'s mut Step>) {
        let mut at = At::Type(&self.root);
        for step in steps {
            match self.step(at, step) {
                Some(next) => at = next,
                None => return,
            }
        }
    }

    fn step<'a>(&'a self, at: At<'a>, step: &mut Step) -> Option<At<'a>> {
        let ty = match at {
            At::Type(ty) => self.without_options(ty),
            At::Types(types) => return tuple_step(types, step),
            At::Fields(fields) => return field_step(fields, step),
        };
        match (ty, step) {
            (Ty::Seq(element) | Ty::Array(element, _), Step::Index(_) | Step::Field(..)) => Some(At::Type(element)),
            // Keys are plain as a rule: what has fields is the value.
            (Ty::Map(_, value), Step::Index(_)) => Some(At::Type(value)),
            (Ty::Tuple(types), step) => tuple_step(types, step),
            (Ty::Ref(index), step) => match &self.defs.get(*index as usize)?.kind {
                Kind::Unit | Kind::Newtype(_) => None,
                Kind::Struct(fields) => field_step(fields, step),
                Kind::Tuple(types) => tuple_step(types, step),
                Kind::Enum(variants) => {
                    let Step::Variant(number, name) = step else { return None };
                    let variant = match number {
                        Some(number) => variants.get(*number)?,
                        None => variants.iter().find(|variant| variant.name == *name)?,
                    };
                    *name = variant.name.clone().into();
                    match &variant.payload {
                        Payload::Unit => None,
                        Payload::Newtype(ty) => Some(At::Type(ty)),
                        Payload::Tuple(types) => Some(At::Types(types)),
                        Payload::Struct(fields) => Some(At::Fields(fields)),
                    }
                }
            },
            _ => None,
        }
    }

    /// An `Option` is no step of a path, nor is a struct that is written as its field.
    fn without_options<'a>(&'a self, mut ty: &'a Ty) -> &'a Ty {
        // Newtypes that lead to nothing but each other have no values, and no path leads there.
        for _ in 0..self.defs.len() + MAX_TY_DEPTH {
            ty = match ty {
                Ty::Option(some) | Ty::Text(some, _) => some,
                Ty::Ref(index) => match self.defs.get(*index as usize).map(|def| &def.kind) {
                    Some(Kind::Newtype(inner)) => inner,
                    _ => return ty,
                },
                _ => return ty,
            };
        }
        ty
    }
}

fn field_step<'a>(fields: &'a [Field], step: &mut Step) -> Option<At<'a>> {
    let Step::Field(index, name) = step else { return None };
    // A plan knows the name, and not the place.
    let field = match index {
        Some(index) => fields.get(*index)?,
        None => fields.iter().find(|field| field.name == *name)?,
    };
    *name = field.name.clone().into();
    Some(At::Type(&field.ty))
}

fn tuple_step<'a>(types: &'a [Ty], step: &Step) -> Option<At<'a>> {
    let Step::Field(Some(index), _) = step else { return None };
    types.get(*index).map(At::Type)
}
