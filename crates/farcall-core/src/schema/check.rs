//! Checks on a schema that came from a peer, before anything else looks at it.

use std::collections::HashSet;
use std::fmt;

use super::{Def, Field, Kind, Payload, Ty, TypeSchema, Variant};

/// Definitions in one schema.
pub const MAX_DEFS: usize = 1024;
/// Types, fields, variants and their aliases in one schema, all together.
pub const MAX_NODES: usize = 1 << 14;
/// Bytes of the name of a field or variant, and of an alias.
pub const MAX_NAME: usize = 256;
/// How deep types may nest without a definition between: `Vec<Option<Vec<…>>>`.
pub const MAX_TY_DEPTH: usize = 64;

/// Why a schema is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaError(String);

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bad schema: {}", self.0)
    }
}

impl std::error::Error for SchemaError {}

fn refuse<T>(why: impl Into<String>) -> Result<T, SchemaError> {
    Err(SchemaError(why.into()))
}

impl TypeSchema {
    /// Whether the schema is sound and small enough to work with.
    ///
    /// It may still describe values without end or a great many values without bytes: whoever walks values by it
    /// needs a depth limit and a budget.
    pub fn validate(&self) -> Result<(), SchemaError> {
        self.checked_size().map(drop)
    }

    /// The number of types, fields, variants and aliases, if the schema is sound.
    pub(crate) fn checked_size(&self) -> Result<usize, SchemaError> {
        if self.defs.len() > MAX_DEFS {
            return refuse(format!("{} definitions, at most {MAX_DEFS}", self.defs.len()));
        }
        let mut check = Check { defs: self.defs.len(), nodes: 0 };
        check.ty(&self.root, 0)?;
        for def in &self.defs {
            let found = check.def(def);
            found.map_err(|SchemaError(why)| SchemaError(format!("{}: {why}", short(&def.name))))?;
        }
        Ok(check.nodes)
    }
}

/// A name from a peer, cut to what an error message can bear.
pub(crate) fn short(name: &str) -> String {
    name.chars().take(64).collect()
}

struct Check {
    defs: usize,
    nodes: usize,
}

impl Check {
    fn node(&mut self) -> Result<(), SchemaError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return refuse(format!("more than {MAX_NODES} types, fields, variants and aliases"));
        }
        Ok(())
    }

    /// A field or a variant, and its names.
    fn named(&mut self, name: &str, aliases: &[String]) -> Result<(), SchemaError> {
        for name in std::iter::once(name).chain(aliases.iter().map(String::as_str)) {
            self.node()?;
            if name.len() > MAX_NAME {
                return refuse(format!("the name `{}…` is longer than {MAX_NAME} bytes", short(name)));
            }
        }
        Ok(())
    }

    fn ty(&mut self, ty: &Ty, depth: usize) -> Result<(), SchemaError> {
        self.node()?;
        if depth > MAX_TY_DEPTH {
            return refuse(format!("a type nests deeper than {MAX_TY_DEPTH}"));
        }
        match ty {
            Ty::Option(inner) | Ty::Seq(inner) | Ty::Array(inner, _) => self.ty(inner, depth + 1),
            Ty::Map(key, value) => {
                self.ty(key, depth + 1)?;
                self.ty(value, depth + 1)
            }
            Ty::Tuple(types) => self.types(types, depth + 1),
            Ty::Text(_, format) if format.len() > MAX_NAME => {
                refuse(format!("the format `{}…` is longer than {MAX_NAME} bytes", short(format)))
            }
            Ty::Text(layout, _) => self.ty(layout, depth + 1),
            Ty::Ref(index) if *index as usize >= self.defs => refuse(format!("definition {index} is not there")),
            _ => Ok(()),
        }
    }

    fn types(&mut self, types: &[Ty], depth: usize) -> Result<(), SchemaError> {
        types.iter().try_for_each(|ty| self.ty(ty, depth))
    }

    fn def(&mut self, def: &Def) -> Result<(), SchemaError> {
        match &def.kind {
            Kind::Unit => Ok(()),
            Kind::Struct(fields) => self.fields(fields),
            Kind::Tuple(types) => self.types(types, 0),
            Kind::Enum(variants) => self.variants(variants),
            // A chain of these would be walked without taking a byte, and without an end if it is a ring.
            Kind::Newtype(ty) if matches!(ty.layout(), Ty::Ref(_)) => refuse("it is written as another definition: that goes without one"),
            Kind::Newtype(ty) => self.ty(ty, 0),
        }
    }

    fn fields(&mut self, fields: &[Field]) -> Result<(), SchemaError> {
        unique(fields.iter().map(|field| field.name.as_str()))?;
        for field in fields {
            self.named(&field.name, &field.aliases)?;
            self.ty(&field.ty, 0)?;
        }
        Ok(())
    }

    fn variants(&mut self, variants: &[Variant]) -> Result<(), SchemaError> {
        unique(variants.iter().map(|variant| variant.name.as_str()))?;
        if variants.iter().filter(|variant| variant.other).count() > 1 {
            return refuse("more than one variant stands for unknown ones");
        }
        for variant in variants {
            self.named(&variant.name, &variant.aliases)?;
            if variant.other && variant.payload != Payload::Unit {
                return refuse(format!("`{}` stands for unknown variants, so it cannot hold anything", short(&variant.name)));
            }
            match &variant.payload {
                Payload::Unit => {}
                Payload::Newtype(ty) => self.ty(ty, 0)?,
                Payload::Tuple(types) => self.types(types, 0)?,
                Payload::Struct(fields) => self.fields(fields)?,
            }
        }
        Ok(())
    }
}

fn unique<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), SchemaError> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return refuse(format!("two things are called `{}`", short(name)));
        }
    }
    Ok(())
}
