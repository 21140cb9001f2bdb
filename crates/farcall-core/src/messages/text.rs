//! Messages as a `.proto` file, for other people's compilers.

use std::collections::HashSet;
use std::fmt::Write;

use super::{Body, Enum, Field, Label, Message, Messages, Type};

impl Messages {
    /// The messages and enums as proto3 text, without head.
    pub(crate) fn proto(&self) -> String {
        let mut out = String::new();
        for message in self.messages.iter().filter(|message| !self.is_unseen(message)) {
            self.write_message(&mut out, message);
        }
        self.enums.iter().for_each(|found| write_enum(&mut out, found));
        out
    }

    /// The entry of a `map` is a message that the file does not show.
    fn is_unseen(&self, message: &Message) -> bool {
        matches!(&message.body, Body::Entry(key, _) if is_map_key(key.ty))
    }

    fn write_message(&self, out: &mut String, message: &Message) {
        out.push('\n');
        write_docs(out, &message.docs, "");
        let _ = writeln!(out, "message {} {{", message.name);
        let mut names = Names::default();
        match &message.body {
            Body::Fields(fields) => fields.iter().for_each(|field| self.write_field(out, field, &mut names, "  ")),
            Body::Wrapper(field) => self.write_field(out, field, &mut names, "  "),
            Body::Entry(key, value) => [key, value].into_iter().for_each(|field| self.write_field(out, field, &mut names, "  ")),
            Body::Choice(fields) if fields.is_empty() => {}
            Body::Choice(fields) => {
                let mut variants = String::new();
                for field in fields {
                    let field = Field { name: snake(&field.name), ..field.clone() };
                    self.write_field(&mut variants, &field, &mut names, "    ");
                }
                let _ = writeln!(out, "  oneof {} {{\n{variants}  }}", names.unique("variant"));
            }
        }
        out.push_str("}\n");
    }

    fn write_field(&self, out: &mut String, field: &Field, names: &mut Names, indent: &str) {
        write_docs(out, &field.docs, indent);
        let name = names.unique(field.foreign.as_deref().unwrap_or(&field.name));
        let ty = match field.label {
            Label::Plain => self.type_name(field.ty),
            Label::Optional => format!("optional {}", self.type_name(field.ty)),
            Label::List => format!("repeated {}", self.type_name(field.ty)),
            Label::Map => self.map_name(field.ty),
        };
        let _ = writeln!(out, "{indent}{ty} {name} = {};{}", field.number, note(field.ty));
    }

    fn type_name(&self, ty: Type) -> String {
        let text = match ty {
            Type::Bool => "bool",
            Type::Uint32 | Type::Char => "uint32",
            Type::Uint64 => "uint64",
            Type::Int32 => "int32",
            Type::Int64 => "int64",
            Type::Float => "float",
            Type::Double => "double",
            Type::Str => "string",
            Type::Bytes | Type::U128 | Type::I128 | Type::ByteArray(_) => "bytes",
            Type::Enum(id) => self.enums.get(id).map_or("?", |found| &found.name),
            Type::Message(id) => self.messages.get(id).map_or("?", |message| &message.name),
        };
        text.to_owned()
    }

    fn map_name(&self, ty: Type) -> String {
        let Type::Message(id) = ty else { return "?".to_owned() };
        match self.messages.get(id).map(|message| &message.body) {
            Some(Body::Entry(key, value)) if is_map_key(key.ty) => {
                format!("map<{}, {}>", self.type_name(key.ty), self.type_name(value.ty))
            }
            _ => format!("repeated {}", self.type_name(ty)),
        }
    }
}

fn is_map_key(ty: Type) -> bool {
    use Type::*;
    matches!(ty, Bool | Uint32 | Uint64 | Int32 | Int64 | Str | Char)
}

/// What a reader of the file cannot see in the type.
fn note(ty: Type) -> String {
    match ty {
        Type::Char => "  // a Unicode code point".to_owned(),
        Type::U128 => "  // an unsigned number of 16 bytes, big-endian; none is zero".to_owned(),
        Type::I128 => "  // a signed number of 16 bytes, big-endian; none is zero".to_owned(),
        Type::ByteArray(count) => format!("  // {count} bytes"),
        _ => String::new(),
    }
}

fn write_enum(out: &mut String, found: &Enum) {
    out.push('\n');
    write_docs(out, &found.docs, "");
    let _ = writeln!(out, "enum {} {{", found.name);
    let prefix = snake(&found.name).to_ascii_uppercase();
    let mut names = Names::default();
    // proto3 wants a zero, and it first.
    if !found.values.iter().any(|value| value.number == 0) {
        let _ = writeln!(out, "  {} = 0;  // not sent; refused when read", names.unique(&format!("{prefix}_UNSPECIFIED")));
    }
    let (zero, others): (Vec<_>, Vec<_>) = found.values.iter().partition(|value| value.number == 0);
    for value in zero.into_iter().chain(others) {
        write_docs(out, &value.docs, "  ");
        // An enum's values are names of its whole file.
        let own = format!("{prefix}_{}", snake(&value.name).to_ascii_uppercase());
        let name = names.unique(value.foreign.as_deref().unwrap_or(&own));
        let _ = writeln!(out, "  {name} = {};", value.number);
    }
    out.push_str("}\n");
}

pub(crate) fn write_docs(out: &mut String, docs: &str, indent: &str) {
    for line in docs.lines() {
        let _ = writeln!(out, "{}", format!("{indent}// {line}").trim_end());
    }
}

/// The names in one message or enum: identifiers, each once also in the camel case that JSON has.
#[derive(Default)]
pub(crate) struct Names(HashSet<String>);

impl Names {
    pub(crate) fn unique(&mut self, name: &str) -> String {
        let mut plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        if !plain.starts_with(|c: char| c.is_ascii_alphabetic()) {
            plain.insert_str(0, "value_");
        }
        let (mut name, mut count) = (plain.clone(), 1);
        while !self.0.insert(name.replace('_', "").to_ascii_lowercase()) {
            count += 1;
            name = format!("{plain}_{count}");
        }
        name
    }
}

/// `PaidOut` as `paid_out`.
fn snake(name: &str) -> String {
    let mut out = String::new();
    let mut before = '_';
    for c in name.chars() {
        if c.is_ascii_uppercase() && before != '_' && !before.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
        before = c;
    }
    out
}
