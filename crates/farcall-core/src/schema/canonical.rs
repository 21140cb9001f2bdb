//! The canonical layout, as the module above defines it.

use std::collections::HashMap;

use super::{Def, Field, Kind, Payload, Ty, TypeSchema, Variant};

const LAYOUT_VERSION: u8 = 1;

impl TypeSchema {
    /// The bytes that the fingerprint is the hash of.
    ///
    /// A reference to a definition that is not there is numbered like any other and has no body;
    /// [`validate`](TypeSchema::validate) refuses it.
    pub fn canonical(&self) -> Vec<u8> {
        let mut layout = Layout { out: vec![LAYOUT_VERSION], numbers: HashMap::new(), order: Vec::new() };
        layout.ty(&self.root);
        // Bodies are written from a queue, not by descending into them: a hostile chain of a thousand definitions
        // must not use a thousand stack frames.
        let mut next = 0;
        while let Some(&index) = layout.order.get(next) {
            if let Some(def) = self.defs.get(index as usize) {
                layout.body(def);
            }
            next += 1;
        }
        layout.out
    }
}

struct Layout {
    out: Vec<u8>,
    /// From the index in the schema to the number in the layout.
    numbers: HashMap<u32, u32>,
    /// Indexes in the order of their numbers.
    order: Vec<u32>,
}

impl Layout {
    fn ty(&mut self, ty: &Ty) {
        match ty {
            Ty::Bool => self.out.push(1),
            Ty::U8 => self.out.push(2),
            Ty::U16 => self.out.push(3),
            Ty::U32 => self.out.push(4),
            Ty::U64 => self.out.push(5),
            Ty::U128 => self.out.push(6),
            Ty::I8 => self.out.push(7),
            Ty::I16 => self.out.push(8),
            Ty::I32 => self.out.push(9),
            Ty::I64 => self.out.push(10),
            Ty::I128 => self.out.push(11),
            Ty::F32 => self.out.push(12),
            Ty::F64 => self.out.push(13),
            Ty::Char => self.out.push(14),
            Ty::Str => self.out.push(15),
            Ty::Bytes => self.out.push(16),
            Ty::Unit => self.out.push(17),
            Ty::Option(some) => {
                self.out.push(18);
                self.ty(some);
            }
            Ty::Seq(element) if *element.layout() == Ty::U8 => self.out.push(16),
            Ty::Seq(element) => {
                self.out.push(19);
                self.ty(element);
            }
            Ty::Map(key, value) => {
                self.out.push(20);
                self.ty(key);
                self.ty(value);
            }
            Ty::Array(element, count) => {
                self.out.push(21);
                self.number(*count);
                self.ty(element);
            }
            Ty::Tuple(types) => {
                self.out.push(22);
                self.types(types);
            }
            Ty::Ref(index) => {
                self.out.push(23);
                let number = self.def_number(*index);
                self.number(number);
            }
            Ty::Json => self.out.push(24),
            Ty::Text(layout, _) => self.ty(layout),
        }
    }

    fn def_number(&mut self, index: u32) -> u32 {
        let next = self.order.len() as u32;
        let number = *self.numbers.entry(index).or_insert(next);
        if number == next {
            self.order.push(index);
        }
        number
    }

    fn body(&mut self, def: &Def) {
        match &def.kind {
            Kind::Unit => self.out.push(0),
            Kind::Struct(fields) => {
                self.out.push(1);
                self.fields(fields);
            }
            Kind::Tuple(types) => {
                self.out.push(2);
                self.types(types);
            }
            Kind::Enum(variants) => {
                self.out.push(3);
                self.count(variants.len());
                variants.iter().for_each(|variant| self.variant(variant));
            }
            Kind::Newtype(ty) => {
                self.out.push(4);
                self.ty(ty);
            }
        }
    }

    fn variant(&mut self, variant: &Variant) {
        self.str(&variant.name);
        match &variant.payload {
            Payload::Unit => self.out.push(0),
            Payload::Newtype(ty) => {
                self.out.push(1);
                self.ty(ty);
            }
            Payload::Tuple(types) => {
                self.out.push(2);
                self.types(types);
            }
            Payload::Struct(fields) => {
                self.out.push(3);
                self.fields(fields);
            }
        }
    }

    fn fields(&mut self, fields: &[Field]) {
        self.count(fields.len());
        for field in fields {
            self.str(&field.name);
            self.ty(&field.ty);
        }
    }

    fn types(&mut self, types: &[Ty]) {
        self.count(types.len());
        types.iter().for_each(|ty| self.ty(ty));
    }

    fn str(&mut self, text: &str) {
        self.count(text.len());
        self.out.extend_from_slice(text.as_bytes());
    }

    fn count(&mut self, count: usize) {
        self.number(count as u32);
    }

    fn number(&mut self, number: u32) {
        self.out.extend_from_slice(&number.to_le_bytes());
    }
}
