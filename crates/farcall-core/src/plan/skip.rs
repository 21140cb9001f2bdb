//! Steps over a value that the reader does not want.

use std::collections::HashMap;

use crate::codec::CodecError;
use crate::compact::{Decoder, bad_flag, no_variant};
use crate::schema::{Field, Kind, Payload, Ty, TypeSchema};

use super::empty::Empty;

/// A step's index.
pub(super) type Id = u32;

/// The step over what takes no bytes.
pub(super) const NOTHING: Id = 0;

/// The steps of one plan.
#[derive(Debug)]
pub(super) struct Skips(Vec<Skip>);

#[derive(Debug)]
enum Skip {
    Nothing,
    Bytes(u8),
    Varint,
    Varint128,
    /// A count of bytes, and the bytes.
    Sized,
    Option(Id),
    List(Id),
    Array(Id, u32),
    Map(Id, Id),
    All(Box<[Id]>),
    Enum(Box<[Id]>),
}

/// Makes the steps over types of one schema. Every definition gets one step, however often it is named.
pub(super) struct SkipCompiler<'a> {
    schema: &'a TypeSchema,
    empty: &'a Empty,
    skips: Vec<Skip>,
    defs: HashMap<u32, Id>,
    /// Definitions whose step has to be made yet: made from here, not by descending into them, so that a long chain
    /// uses no stack.
    todo: Vec<(Id, u32)>,
}

impl<'a> SkipCompiler<'a> {
    pub(super) fn new(schema: &'a TypeSchema, empty: &'a Empty) -> SkipCompiler<'a> {
        SkipCompiler { schema, empty, skips: vec![Skip::Nothing], defs: HashMap::new(), todo: Vec::new() }
    }

    pub(super) fn finish(mut self) -> Skips {
        while let Some((id, def)) = self.todo.pop() {
            let skip = self.kind(&self.schema.defs[def as usize].kind);
            self.skips[id as usize] = skip;
        }
        Skips(self.skips)
    }

    pub(super) fn ty(&mut self, ty: &Ty) -> Id {
        match ty.layout() {
            layout if self.empty.is_empty(layout) => NOTHING,
            Ty::Ref(def) => self.def(*def),
            layout => {
                let skip = self.shape(layout);
                self.push(skip)
            }
        }
    }

    /// The step over a type that is no definition.
    fn shape(&mut self, ty: &Ty) -> Skip {
        match ty {
            Ty::Unit => Skip::Nothing,
            Ty::Bool | Ty::U8 | Ty::I8 => Skip::Bytes(1),
            Ty::F32 => Skip::Bytes(4),
            Ty::F64 => Skip::Bytes(8),
            Ty::U16 | Ty::U32 | Ty::U64 | Ty::I16 | Ty::I32 | Ty::I64 => Skip::Varint,
            Ty::U128 | Ty::I128 => Skip::Varint128,
            Ty::Char | Ty::Str | Ty::Bytes | Ty::Json => Skip::Sized,
            Ty::Option(some) => Skip::Option(self.ty(some)),
            Ty::Seq(element) => Skip::List(self.ty(element)),
            Ty::Array(element, count) => Skip::Array(self.ty(element), *count),
            Ty::Map(key, value) => Skip::Map(self.ty(key), self.ty(value)),
            Ty::Tuple(types) => Skip::All(types.iter().map(|ty| self.ty(ty)).collect()),
            Ty::Ref(_) | Ty::Text(..) => Skip::All([self.ty(ty)].into()),
        }
    }

    pub(super) fn payload(&mut self, payload: &Payload) -> Id {
        match payload {
            Payload::Unit => NOTHING,
            // One value is a level of depth of its own, as it is to the encoder.
            Payload::Newtype(ty) => self.all(std::iter::once(ty)),
            Payload::Tuple(types) => self.all(types.iter()),
            Payload::Struct(fields) => self.fields(fields),
        }
    }

    pub(super) fn fields(&mut self, fields: &[Field]) -> Id {
        self.all(fields.iter().map(|field| &field.ty))
    }

    fn all<'t>(&mut self, types: impl Iterator<Item = &'t Ty>) -> Id {
        let all = Skip::All(types.map(|ty| self.ty(ty)).collect());
        self.push(all)
    }

    fn def(&mut self, def: u32) -> Id {
        if let Some(&id) = self.defs.get(&def) {
            return id;
        }
        let id = self.push(Skip::Nothing);
        self.defs.insert(def, id);
        self.todo.push((id, def));
        id
    }

    fn kind(&mut self, kind: &Kind) -> Skip {
        match kind {
            Kind::Unit => Skip::Nothing,
            Kind::Struct(fields) => Skip::All(fields.iter().map(|field| self.ty(&field.ty)).collect()),
            Kind::Tuple(types) => Skip::All(types.iter().map(|ty| self.ty(ty)).collect()),
            Kind::Enum(variants) => Skip::Enum(variants.iter().map(|variant| self.payload(&variant.payload)).collect()),
            // No level of depth, as it is none to the encoder.
            Kind::Newtype(ty) => self.shape(ty.layout()),
        }
    }

    fn push(&mut self, skip: Skip) -> Id {
        self.skips.push(skip);
        (self.skips.len() - 1) as Id
    }
}

impl Skips {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Bytes that they take, roughly.
    pub(super) fn weight(&self) -> usize {
        let parts = |skip: &Skip| match skip {
            Skip::All(parts) | Skip::Enum(parts) => size_of_val(&**parts),
            _ => 0,
        };
        size_of_val(&*self.0) + self.0.iter().map(parts).sum::<usize>()
    }

    /// Steps over a value.
    pub(super) fn skip(&self, decoder: &mut Decoder<'_>, id: Id) -> Result<(), CodecError> {
        match &self.0[id as usize] {
            Skip::Nothing => Ok(()),
            Skip::Bytes(count) => decoder.take((*count).into()).map(drop),
            Skip::Varint => decoder.varint().map(drop),
            Skip::Varint128 => decoder.varint128().map(drop),
            Skip::Sized => decoder.bytes().map(drop),
            Skip::Option(some) => match decoder.byte()? {
                0 => Ok(()),
                1 => decoder.nested(|decoder| self.skip(decoder, *some)),
                byte => Err(bad_flag("an option", byte)),
            },
            Skip::List(element) => {
                let count = decoder.count()?;
                self.repeat(decoder, count, &[*element])
            }
            Skip::Array(element, count) => self.repeat(decoder, *count as usize, &[*element]),
            Skip::Map(key, value) => {
                let count = decoder.count()?;
                self.repeat(decoder, count, &[*key, *value])
            }
            Skip::All(parts) => self.repeat(decoder, 1, parts),
            Skip::Enum(variants) => {
                let number = decoder.varint()?;
                let payload = usize::try_from(number).ok().and_then(|number| variants.get(number));
                self.skip(decoder, *payload.ok_or_else(|| no_variant(number))?)
            }
        }
    }

    /// What takes no bytes is passed over whole: without that a few bytes could say "a billion times nothing".
    fn repeat(&self, decoder: &mut Decoder<'_>, times: usize, parts: &[Id]) -> Result<(), CodecError> {
        if parts.iter().all(|part| *part == NOTHING) {
            return Ok(());
        }
        decoder.nested(|decoder| {
            for _ in 0..times {
                parts.iter().try_for_each(|part| self.skip(decoder, *part))?;
            }
            Ok(())
        })
    }
}
