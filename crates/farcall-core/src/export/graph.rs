//! Several schemas as one: a definition that two of them have stands there once.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::compact;
use crate::schema::{Def, Field, Kind, Payload, Ty, TypeSchema, Variant};

/// Definitions of several schemas.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    defs: Vec<Def>,
    /// Of each definition.
    shapes: Vec<Shape>,
}

/// What two definitions are compared by.
#[derive(Clone, Debug)]
struct Shape {
    /// All that it is made of, but what it refers to.
    own: u64,
    /// What it refers to, in order.
    refs: Vec<u32>,
}

impl Graph {
    /// Adds what a schema defines; its root refers to definitions of the graph.
    pub fn add(&mut self, schema: &TypeSchema) -> Ty {
        self.add_type(&schema.root, &schema.defs)
    }

    /// The same for a type over these definitions.
    pub(super) fn add_type(&mut self, ty: &Ty, defs: &[Def]) -> Ty {
        let order = reachable(defs, ty);
        let known = self.defs.len();
        let places: HashMap<u32, u32> = order.iter().copied().zip(known as u32..).collect();
        let shapes: Vec<Shape> = order.iter().map(|&index| Shape::of(&defs[index as usize], &places)).collect();
        let classes = classes(&self.shapes.iter().chain(&shapes).collect::<Vec<_>>());
        let mut by_class: HashMap<u64, u32> = classes[..known].iter().copied().zip(0..).collect();
        let (mut numbers, mut new) = (HashMap::new(), Vec::new());
        for ((index, shape), class) in order.into_iter().zip(shapes).zip(&classes[known..]) {
            let next = self.defs.len() as u32;
            let number = *by_class.entry(*class).or_insert(next);
            numbers.insert(index, number);
            if number == next {
                self.defs.push(defs[index as usize].clone());
                self.shapes.push(shape);
                new.push(number as usize);
            }
        }
        let mut number = |index: u32| numbers.get(&index).copied().unwrap_or(index);
        for at in new {
            self.defs[at] = renumbered(&self.defs[at], &mut number);
            self.shapes[at] = Shape { refs: references(&self.defs[at]), ..self.shapes[at] };
        }
        renumbered_ty(ty, &mut number)
    }

    /// All definitions; a [`Ty::Ref`] is an index into them.
    pub fn defs(&self) -> &[Def] {
        &self.defs
    }
}

impl Shape {
    fn of(def: &Def, places: &HashMap<u32, u32>) -> Shape {
        // A schema that was validated is not too deep to be written.
        let own = compact::encode(&renumbered(def, &mut |_| 0)).unwrap_or_default();
        let place = |index: u32| places.get(&index).copied().unwrap_or(u32::MAX);
        Shape { own: hash(own), refs: references(def).into_iter().map(place).collect() }
    }
}

/// A number for each definition, equal for equal types, wherever they are defined. Definitions that look alike are taken
/// for equal until what they refer to turns out to differ; a few rounds tell all apart that a chain of a few definitions does.
fn classes(shapes: &[&Shape]) -> Vec<u64> {
    let mut classes: Vec<u64> = shapes.iter().map(|shape| shape.own).collect();
    let (mut finer, mut sorted) = (classes.clone(), classes.clone());
    let mut count = 0;
    loop {
        sorted.clone_from(&classes);
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() == count {
            return classes;
        }
        count = sorted.len();
        for (class, shape) in finer.iter_mut().zip(shapes) {
            let mut hasher = DefaultHasher::new();
            shape.own.hash(&mut hasher);
            shape.refs.iter().for_each(|&at| classes.get(at as usize).hash(&mut hasher));
            *class = hasher.finish();
        }
        std::mem::swap(&mut classes, &mut finer);
    }
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// What a definition refers to, in order.
fn references(def: &Def) -> Vec<u32> {
    let mut found = Vec::new();
    renumbered(def, &mut |index| note(&mut found, index));
    found
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
