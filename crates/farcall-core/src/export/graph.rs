//! Several schemas as one: a definition that two of them have stands there once.

use std::collections::{HashMap, HashSet};

use crate::compact;
use crate::schema::{Def, Field, Kind, Payload, Ty, TypeSchema, Variant};

/// Definitions of several schemas.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    defs: Vec<Def>,
    /// Definitions by all that they are made of.
    known: HashMap<Vec<u8>, u32>,
}

impl Graph {
    /// Adds what a schema defines; its root refers to definitions of the graph.
    pub fn add(&mut self, schema: &TypeSchema) -> Ty {
        self.add_type(&schema.root, &schema.defs)
    }

    /// The same for a type over these definitions.
    pub(super) fn add_type(&mut self, ty: &Ty, defs: &[Def]) -> Ty {
        let mut numbers = HashMap::new();
        let mut new = Vec::new();
        for index in reachable(defs, ty) {
            let next = self.defs.len() as u32;
            let number = *self.known.entry(whole(defs, index)).or_insert(next);
            numbers.insert(index, number);
            if number == next {
                self.defs.push(defs[index as usize].clone());
                new.push(number);
            }
        }
        for number in new {
            let def = &mut self.defs[number as usize];
            *def = renumbered(def, &mut |index| numbers.get(&index).copied().unwrap_or(index));
        }
        renumbered_ty(ty, &mut |index| numbers.get(&index).copied().unwrap_or(index))
    }

    /// All definitions; a [`Ty::Ref`] is an index into them.
    pub fn defs(&self) -> &[Def] {
        &self.defs
    }
}

/// The definitions that a type leads to, in the order of the first way there.
fn reachable(defs: &[Def], from: &Ty) -> Vec<u32> {
    let (mut order, mut known) = (Vec::new(), HashSet::new());
    // Only the references matter; what is renumbered is dropped.
    let mut found = Vec::new();
    renumbered_ty(from, &mut |index| note(&mut found, index));
    let mut next = 0;
    loop {
        order.extend(found.drain(..).filter(|&index| (index as usize) < defs.len() && known.insert(index)));
        let Some(&index) = order.get(next) else { return order };
        next += 1;
        renumbered(&defs[index as usize], &mut |index| note(&mut found, index));
    }
}

fn note(found: &mut Vec<u32>, index: u32) -> u32 {
    found.push(index);
    index
}

/// A definition with all that it leads to, as bytes: equal for equal types, wherever they are defined.
fn whole(defs: &[Def], index: u32) -> Vec<u8> {
    let order = reachable(defs, &Ty::Ref(index));
    let mut number = |index: u32| order.iter().position(|&found| found == index).map_or(u32::MAX, |at| at as u32);
    let reached: Vec<Def> = order.iter().map(|&index| renumbered(&defs[index as usize], &mut number)).collect();
    // A schema that was validated is not too deep to be written.
    compact::encode(&reached).unwrap_or_default()
}

fn renumbered(def: &Def, number: &mut dyn FnMut(u32) -> u32) -> Def {
    let kind = match &def.kind {
        Kind::Unit => Kind::Unit,
        Kind::Struct(fields) => Kind::Struct(renumbered_fields(fields, number)),
        Kind::Tuple(types) => Kind::Tuple(types.iter().map(|ty| renumbered_ty(ty, number)).collect()),
        Kind::Newtype(ty) => Kind::Newtype(renumbered_ty(ty, number)),
        Kind::Enum(variants) => Kind::Enum(variants.iter().map(|variant| renumbered_variant(variant, number)).collect()),
    };
    Def { kind, ..def.clone() }
}

fn renumbered_variant(variant: &Variant, number: &mut dyn FnMut(u32) -> u32) -> Variant {
    let payload = match &variant.payload {
        Payload::Unit => Payload::Unit,
        Payload::Newtype(ty) => Payload::Newtype(renumbered_ty(ty, number)),
        Payload::Tuple(types) => Payload::Tuple(types.iter().map(|ty| renumbered_ty(ty, number)).collect()),
        Payload::Struct(fields) => Payload::Struct(renumbered_fields(fields, number)),
    };
    Variant { payload, ..variant.clone() }
}

fn renumbered_fields(fields: &[Field], number: &mut dyn FnMut(u32) -> u32) -> Vec<Field> {
    fields.iter().map(|field| Field { ty: renumbered_ty(&field.ty, number), ..field.clone() }).collect()
}

fn renumbered_ty(ty: &Ty, number: &mut dyn FnMut(u32) -> u32) -> Ty {
    match ty {
        Ty::Option(some) => Ty::Option(renumbered_ty(some, number).into()),
        Ty::Seq(element) => Ty::Seq(renumbered_ty(element, number).into()),
        Ty::Map(key, value) => Ty::Map(renumbered_ty(key, number).into(), renumbered_ty(value, number).into()),
        Ty::Array(element, count) => Ty::Array(renumbered_ty(element, number).into(), *count),
        Ty::Tuple(types) => Ty::Tuple(types.iter().map(|ty| renumbered_ty(ty, number)).collect()),
        Ty::Ref(index) => Ty::Ref(number(*index)),
        Ty::Text(layout, format) => Ty::Text(renumbered_ty(layout, number).into(), format.clone()),
        plain => plain.clone(),
    }
}
