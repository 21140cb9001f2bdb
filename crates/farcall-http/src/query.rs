//! Arguments in a query: `?id=7&tag=a&tag=b`, or all of them as JSON: `?args={"id":7}`.
//!
//! What a parameter's text means depends on its type, so the method's schema is asked: text stays text, numbers and
//! truth values are read, a list may be there several times, and everything else is JSON.

use farcall_core::MethodDescriptor;
use farcall_core::schema::{Def, Field, Kind, Payload, Ty};
use serde::de::IgnoredAny;

use crate::percent;

/// The parameter that holds all arguments, unless the method has one of this name.
const ALL: &str = "args";

/// The arguments of `method` as JSON. An error names the parameter and what is wrong with it.
pub(crate) fn arguments(method: &MethodDescriptor, query: &str) -> Result<String, String> {
    let (fields, defs) = (fields(method), &method.args.defs);
    let pairs = pairs(query)?;
    if let [(name, value)] = &pairs[..]
        && name == ALL
        && !fields.iter().any(|f| is_named(f, ALL))
    {
        return json(ALL, value).map(str::to_owned);
    }
    let mut members: Vec<(&Field, Vec<String>)> = Vec::new();
    for (name, value) in &pairs {
        let field = fields.iter().find(|f| is_named(f, name)).ok_or_else(|| no_such(name, fields))?;
        let one = match &field.ty {
            Ty::Seq(element) => element,
            ty => ty,
        };
        let value = member(name, one, defs, value)?;
        match members.iter_mut().find(|(known, _)| std::ptr::eq(*known, field)) {
            None => members.push((field, vec![value])),
            Some((_, values)) if matches!(field.ty, Ty::Seq(_)) => values.push(value),
            Some(_) => return Err(format!("the parameter `{name}` is there twice")),
        }
    }
    let member = |(field, values): &(&Field, Vec<String>)| match &field.ty {
        Ty::Seq(_) => format!("{}:[{}]", text(&field.name), values.join(",")),
        _ => format!("{}:{}", text(&field.name), values.concat()),
    };
    Ok(format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(",")))
}

fn fields(method: &MethodDescriptor) -> &[Field] {
    match &method.args.root {
        Ty::Ref(index) => match method.args.defs.get(*index as usize).map(|def| &def.kind) {
            Some(Kind::Struct(fields)) => fields,
            _ => &[],
        },
        _ => &[],
    }
}

fn is_named(field: &Field, name: &str) -> bool {
    field.name == name || field.aliases.iter().any(|alias| alias == name)
}

fn no_such(name: &str, fields: &[Field]) -> String {
    let known: Vec<&str> = fields.iter().map(|f| f.name.as_str()).collect();
    match known.is_empty() {
        true => format!("there is no parameter {name:?}: the method takes none"),
        false => format!("there is no parameter {name:?}; parameters: {}", known.join(", ")),
    }
}

/// The names and values of a query, as forms encode them.
fn pairs(query: &str) -> Result<Vec<(String, String)>, String> {
    let decode = |text: &str| percent::decode(&text.replace('+', " ")).map_err(|e| format!("the query: {e}"));
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decode(name)?, decode(value)?))
    };
    query.split('&').filter(|p| !p.is_empty()).map(pair).collect()
}

/// What the text of a parameter is in JSON.
fn member(name: &str, ty: &Ty, defs: &[Def], value: &str) -> Result<String, String> {
    let wrong = |what: &str| Err(format!("the parameter `{name}` must be {what}; it is {value:?}"));
    match ty {
        Ty::Str | Ty::Char | Ty::Bytes => Ok(text(value)),
        Ty::Bool if matches!(value, "true" | "false") => Ok(value.to_owned()),
        Ty::Bool => wrong("`true` or `false`"),
        Ty::U8 | Ty::U16 | Ty::U32 | Ty::I8 | Ty::I16 | Ty::I32 if is_integer(value) => Ok(value.to_owned()),
        // In this form they may be of any size.
        Ty::U64 | Ty::I64 | Ty::U128 | Ty::I128 if is_integer(value) => Ok(text(value)),
        Ty::U8 | Ty::U16 | Ty::U32 | Ty::U64 | Ty::U128 | Ty::I8 | Ty::I16 | Ty::I32 | Ty::I64 | Ty::I128 => wrong("an integer"),
        Ty::F32 | Ty::F64 if serde_json::from_str::<f64>(value).is_ok() => Ok(value.to_owned()),
        Ty::F32 | Ty::F64 => wrong("a number"),
        Ty::Option(some) => member(name, some, defs, value),
        Ty::Ref(index) if is_plain_variant(defs, *index, value) => Ok(text(value)),
        _ => json(name, value).map(str::to_owned),
    }
}

fn is_integer(value: &str) -> bool {
    let digits = value.strip_prefix('-').unwrap_or(value);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'))
}

/// Whether this is the name of a variant that holds nothing.
fn is_plain_variant(defs: &[Def], index: u32, value: &str) -> bool {
    let Some(Kind::Enum(variants)) = defs.get(index as usize).map(|def| &def.kind) else { return false };
    let named = |name: &str, aliases: &[String]| name == value || aliases.iter().any(|alias| alias == value);
    variants.iter().any(|v| matches!(v.payload, Payload::Unit) && named(&v.name, &v.aliases))
}

fn json<'v>(name: &str, value: &'v str) -> Result<&'v str, String> {
    match serde_json::from_str::<IgnoredAny>(value) {
        Ok(_) => Ok(value),
        Err(e) => Err(format!("the parameter `{name}` must be JSON: {e}")),
    }
}

fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use farcall_core::{MethodTraits, Schema};

    use super::*;

    /// What is looked for.
    #[farcall_core::data(crate = farcall_core)]
    struct Args {
        id: u64,
        #[serde(default)]
        small: u8,
        #[serde(default, alias = "title")]
        name: String,
        #[serde(default)]
        tags: Vec<String>,
        #[serde(default)]
        sure: bool,
        #[serde(default)]
        ratio: f64,
        #[serde(default)]
        kind: Option<Sort>,
        #[serde(default)]
        place: (u8, u8),
    }

    #[farcall_core::data(crate = farcall_core)]
    enum Sort {
        Plain,
        Other(u8),
    }

    fn method<A: Schema>() -> MethodDescriptor {
        MethodDescriptor::build::<A, (), farcall_core::Never>("find", None, "", &[], "", MethodTraits::default())
    }

    fn check(query: &str, expected: Result<&str, &str>) {
        let found = arguments(&method::<Args>(), query);
        match expected {
            Ok(json) => assert_eq!(found.as_deref(), Ok(json), "{query}"),
            Err(part) => assert!(found.as_ref().is_err_and(|e| e.contains(part)), "{query}: {found:?}, but it should be: {part}"),
        }
    }

    #[test]
    fn parameters_are_read_by_their_types() {
        check("", Ok("{}"));
        check("id=7", Ok(r#"{"id":"7"}"#));
        check("id=7&small=255&sure=true&ratio=1.5e3", Ok(r#"{"id":"7","small":255,"sure":true,"ratio":1.5e3}"#));
        check("name=a+%22b%22&id=1", Ok(r#"{"name":"a \"b\"","id":"1"}"#));
        check("title=7", Ok(r#"{"name":"7"}"#));
        check("tags=a&tags=b&id=1", Ok(r#"{"tags":["a","b"],"id":"1"}"#));
        check("kind=Plain", Ok(r#"{"kind":"Plain"}"#));
        check("kind=%7B%22Other%22:3%7D&place=[1,2]", Ok(r#"{"kind":{"Other":3},"place":[1,2]}"#));
        check("args=%7B%22id%22:7%7D", Ok(r#"{"id":7}"#));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        check("idd=7", Err("there is no parameter \"idd\"; parameters: id, small, name, tags, sure, ratio, kind, place"));
        check("id=7&id=8", Err("`id` is there twice"));
        check("id=seven", Err("`id` must be an integer"));
        check("id=07", Err("`id` must be an integer"));
        check("small=+1", Err("`small` must be an integer"));
        check("sure=yes", Err("`sure` must be `true` or `false`"));
        check("ratio=NaN", Err("`ratio` must be a number"));
        check("place=1,2", Err("`place` must be JSON"));
        check("args=%7B", Err("`args` must be JSON"));
        check("args=%7B%7D&id=1", Err("there is no parameter \"args\""));
        check("id=%f0", Err("not UTF-8"));
        check("id=7&%", Err("hexadecimal"));
        let deep = format!("args={}", "[".repeat(10_000));
        check(&deep, Err("`args` must be JSON"));
        assert!(arguments(&method::<()>(), "a=1").unwrap_err().contains("the method takes none"));
    }
}
