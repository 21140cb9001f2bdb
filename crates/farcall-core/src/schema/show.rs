//! Schemas for people: type names and listings.

use std::fmt;

use super::{Def, Field, Kind, Payload, Ty, TypeSchema, Variant};

impl TypeSchema {
    /// The root as Rust would write it: `Vec<Order>`, `Option<u64>`.
    pub fn type_name(&self) -> String {
        type_name(&self.root, &self.defs)
    }

    /// All definitions as Rust would write them, with their docs.
    pub fn describe(&self) -> String {
        self.describe_each().collect::<Vec<_>>().join("\n")
    }

    /// The same one by one, in the order of the definitions.
    pub fn describe_each(&self) -> impl Iterator<Item = String> {
        self.defs.iter().map(|def| describe_def(def, &self.defs))
    }
}

pub(crate) fn type_name(ty: &Ty, defs: &[Def]) -> String {
    let mut name = String::new();
    // A string takes all that is written.
    let _ = write_type(&mut name, ty, defs);
    name
}

/// A type's name for an error message, cut to what that can bear: a type from a peer may be large.
pub(crate) fn short_type_name(ty: &Ty, defs: &[Def]) -> String {
    let mut name = Cut { text: String::new(), left: SHORT_NAME };
    match write_type(&mut name, ty, defs) {
        Ok(()) => name.text,
        Err(fmt::Error) => name.text + "…",
    }
}

/// Characters of a type's name in an error message.
const SHORT_NAME: usize = 80;

/// Takes so many characters and refuses the rest, which ends the writing.
struct Cut {
    text: String,
    left: usize,
}

impl fmt::Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
            self.text.push(char);
        }
        Ok(())
    }
}

fn write_type(out: &mut impl fmt::Write, ty: &Ty, defs: &[Def]) -> fmt::Result {
    let text = match ty {
        Ty::Bool => "bool",
        Ty::U8 => "u8",
        Ty::U16 => "u16",
        Ty::U32 => "u32",
        Ty::U64 => "u64",
        Ty::U128 => "u128",
        Ty::I8 => "i8",
        Ty::I16 => "i16",
        Ty::I32 => "i32",
        Ty::I64 => "i64",
        Ty::I128 => "i128",
        Ty::F32 => "f32",
        Ty::F64 => "f64",
        Ty::Char => "char",
        Ty::Str => "String",
        Ty::Bytes => "Bytes",
        Ty::Unit => "()",
        Ty::Option(some) => return write_around(out, "Option<", some, ">", defs),
        Ty::Seq(element) => return write_around(out, "Vec<", element, ">", defs),
        Ty::Map(key, value) => {
            write_around(out, "Map<", key, ", ", defs)?;
            return write_around(out, "", value, ">", defs);
        }
        Ty::Array(element, count) => {
            write_around(out, "[", element, "; ", defs)?;
            return write!(out, "{count}]");
        }
        Ty::Tuple(types) => return write_tuple(out, types, defs),
        Ty::Json => "JSON",
        Ty::Text(layout, format) if format.is_empty() => return write_type(out, layout, defs),
        Ty::Text(_, format) => return write!(out, "text({format})"),
        Ty::Ref(index) => defs.get(*index as usize).map_or("?", |def| def.name.as_str()),
    };
    out.write_str(text)
}

fn write_around(out: &mut impl fmt::Write, before: &str, ty: &Ty, after: &str, defs: &[Def]) -> fmt::Result {
    out.write_str(before)?;
    write_type(out, ty, defs)?;
    out.write_str(after)
}

fn write_tuple(out: &mut impl fmt::Write, types: &[Ty], defs: &[Def]) -> fmt::Result {
    out.write_str("(")?;
    for (at, ty) in types.iter().enumerate() {
        write_around(out, if at == 0 { "" } else { ", " }, ty, "", defs)?;
    }
    out.write_str(if types.len() == 1 { ",)" } else { ")" })
}

fn tuple(types: &[Ty], defs: &[Def]) -> String {
    let mut text = String::new();
    let _ = write_tuple(&mut text, types, defs);
    text
}

fn describe_def(def: &Def, defs: &[Def]) -> String {
    let mut out = doc_lines(&def.docs, "");
    if let Some(foreign) = &def.foreign {
        out += &format!("#[farcall(name = {foreign:?})]\n");
    }
    let name = &def.name;
    match &def.kind {
        Kind::Unit => out += &format!("struct {name};\n"),
        Kind::Tuple(types) => out += &format!("struct {name}{};\n", tuple(types, defs)),
        Kind::Newtype(ty) => out += &format!("struct {name}({});\n", type_name(ty, defs)),
        Kind::Struct(fields) => {
            let fields: String = fields.iter().map(|field| describe_field(field, defs, "    ")).collect();
            out += &format!("struct {name} {{\n{fields}}}\n");
        }
        Kind::Enum(variants) => {
            let variants: String = variants.iter().map(|variant| describe_variant(variant, defs)).collect();
            out += &format!("enum {name} {{\n{variants}}}\n");
        }
    }
    out
}

fn describe_variant(variant: &Variant, defs: &[Def]) -> String {
    let payload = match &variant.payload {
        Payload::Unit => String::new(),
        Payload::Newtype(ty) => format!("({})", type_name(ty, defs)),
        Payload::Tuple(types) => tuple(types, defs),
        Payload::Struct(fields) => {
            let fields: String = fields.iter().map(|field| describe_field(field, defs, "        ")).collect();
            format!(" {{\n{fields}    }}")
        }
    };
    let mut notes = notes(variant.tag, variant.foreign.as_deref(), &variant.aliases);
    notes.extend(variant.other.then(|| "stands for unknown ones".to_owned()));
    format!("{}    {}{payload},{}\n", doc_lines(&variant.docs, "    "), variant.name, comment(&notes))
}

fn describe_field(field: &Field, defs: &[Def], indent: &str) -> String {
    let mut notes = notes(field.tag, field.foreign.as_deref(), &field.aliases);
    notes.extend(field.default.then(|| "may be missing".to_owned()));
    notes.extend(field.must_understand.then(|| "must be understood".to_owned()));
    let (docs, ty) = (doc_lines(&field.docs, indent), type_name(&field.ty, defs));
    format!("{docs}{indent}{}: {ty},{}\n", field.name, comment(&notes))
}

fn doc_lines(docs: &str, indent: &str) -> String {
    docs.lines().map(|line| format!("{indent}/// {line}\n")).collect()
}

/// What Rust has no place for.
fn notes(tag: Option<u32>, foreign: Option<&str>, aliases: &[String]) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(tag.map(|tag| format!("number {tag}")));
    notes.extend(foreign.map(|name| format!("elsewhere `{name}`")));
    notes.extend(aliases.iter().map(|alias| format!("was `{alias}`")));
    notes
}

/// Notes behind their line.
fn comment(notes: &[String]) -> String {
    match notes {
        [] => String::new(),
        _ => format!(" // {}", notes.join(", ")),
    }
}
