//! Schemas for people: type names and listings.

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
    let name = |ty| type_name(ty, defs);
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
        Ty::Option(some) => return format!("Option<{}>", name(some)),
        Ty::Seq(element) => return format!("Vec<{}>", name(element)),
        Ty::Map(key, value) => return format!("Map<{}, {}>", name(key), name(value)),
        Ty::Array(element, count) => return format!("[{}; {count}]", name(element)),
        Ty::Tuple(types) => return tuple(types, defs),
        Ty::Ref(index) => defs.get(*index as usize).map_or("?", |def| def.name.as_str()),
    };
    text.to_owned()
}

fn tuple(types: &[Ty], defs: &[Def]) -> String {
    let names: Vec<String> = types.iter().map(|ty| type_name(ty, defs)).collect();
    match names.as_slice() {
        [one] => format!("({one},)"),
        _ => format!("({})", names.join(", ")),
    }
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
    let notes = notes(variant.tag, variant.foreign.as_deref(), &variant.aliases, false);
    format!("{}    {}{payload},{notes}\n", doc_lines(&variant.docs, "    "), variant.name)
}

fn describe_field(field: &Field, defs: &[Def], indent: &str) -> String {
    let notes = notes(field.tag, field.foreign.as_deref(), &field.aliases, field.default);
    let (docs, ty) = (doc_lines(&field.docs, indent), type_name(&field.ty, defs));
    format!("{docs}{indent}{}: {ty},{notes}\n", field.name)
}

fn doc_lines(docs: &str, indent: &str) -> String {
    docs.lines().map(|line| format!("{indent}/// {line}\n")).collect()
}

/// What Rust has no place for, as a comment behind the line.
fn notes(tag: Option<u32>, foreign: Option<&str>, aliases: &[String], default: bool) -> String {
    let mut notes = Vec::new();
    notes.extend(tag.map(|tag| format!("number {tag}")));
    notes.extend(foreign.map(|name| format!("elsewhere `{name}`")));
    notes.extend(aliases.iter().map(|alias| format!("was `{alias}`")));
    notes.extend(default.then(|| "may be missing".to_owned()));
    if notes.is_empty() {
        return String::new();
    }
    format!(" // {}", notes.join(", "))
}
