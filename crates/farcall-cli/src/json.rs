//! JSON as text: checked, shaped into arguments and laid out without ever becoming values, so that
//! large numbers and the order of members stay as they are.

use std::collections::BTreeMap;

use farcall::meta::MethodInfo;
use serde::de::IgnoredAny;

/// Characters shown on each side of a mistake.
const AROUND: usize = 40;

/// Whether `text` is JSON; else what is wrong, at which line and column, and the place itself.
pub(crate) fn check(text: &str) -> Result<(), String> {
    let Err(e) = serde_json::from_str::<IgnoredAny>(text) else { return Ok(()) };
    let hint = match text.trim_start().starts_with('{') && !text.contains('"') {
        true => "\n  every name needs double quotes; if you wrote them, the shell took them: put the JSON in single quotes",
        false => "",
    };
    Err(format!("the JSON cannot be read: {e}\n{}{hint}", place(text, e.line(), e.column())))
}

/// The line with a mark below the column.
fn place(text: &str, line: usize, column: usize) -> String {
    let line = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    // The column counts bytes, the last one read included.
    let before = line.char_indices().filter(|(at, _)| *at + 1 < column).count();
    let from = before.saturating_sub(AROUND);
    let shown: String = line.chars().skip(from).take(2 * AROUND).map(|c| if c == '\t' { ' ' } else { c }).collect();
    format!("  {shown}\n  {}^", " ".repeat(before - from))
}

/// The arguments of a call as one JSON object, from what the user wrote. `text` has been
/// [`check`]ed.
pub(crate) fn arguments(text: Option<&str>, method: &MethodInfo) -> Result<String, String> {
    let Some(text) = text else {
        named(&BTreeMap::new(), method)?;
        return Ok("{}".to_owned());
    };
    let members = serde_json::from_str::<BTreeMap<String, IgnoredAny>>(text).ok();
    if let [(name, ty)] = method.params.as_slice()
        && is_bare(members.as_ref(), name, ty)
    {
        return Ok(format!("{{\"{name}\":{text}}}"));
    }
    match members {
        Some(members) => named(&members, method).map(|()| text.to_owned()),
        None => Err(format!("the arguments are an object by parameter name, such as {}\n  {}", example(method), method.signature)),
    }
}

/// Whether JSON for the only parameter is its value rather than the object of all arguments. An
/// object is taken for the value if the type can be one and there is no member of the parameter's
/// name.
fn is_bare(members: Option<&BTreeMap<String, IgnoredAny>>, name: &str, ty: &str) -> bool {
    match members {
        None => true,
        Some(members) => !members.contains_key(name) && may_be_object(ty),
    }
}

fn may_be_object(ty: &str) -> bool {
    const NEVER: [&str; 20] = [
        "bool",
        "u8",
        "u16",
        "u32",
        "u64",
        "u128",
        "usize",
        "i8",
        "i16",
        "i32",
        "i64",
        "i128",
        "isize",
        "f32",
        "f64",
        "char",
        "String",
        "Bytes",
        "str",
        "Cow<'_, str>",
    ];
    let ty = inside_option(ty).unwrap_or(ty);
    let ty = ty.strip_prefix('&').unwrap_or(ty);
    let never = NEVER.contains(&ty) || ty.starts_with(['(', '[']) || ty.starts_with("Vec<");
    !never
}

fn inside_option(ty: &str) -> Option<&str> {
    ty.strip_prefix("Option<")?.strip_suffix('>')
}

/// Whether the members are the parameters.
fn named(members: &BTreeMap<String, IgnoredAny>, method: &MethodInfo) -> Result<(), String> {
    let params = || method.params.iter().map(|(name, _)| name.as_str());
    let unknown: Vec<String> = members.keys().filter(|m| !params().any(|p| p == *m)).map(|m| format!("{m:?}")).collect();
    let missing = method.params.iter().filter(|(name, ty)| !members.contains_key(name) && inside_option(ty).is_none());
    let missing: Vec<String> = missing.map(|(name, _)| format!("{name:?}")).collect();
    let what = match (unknown.is_empty(), missing.is_empty()) {
        (true, true) => return Ok(()),
        (true, false) => format!("missing {}", missing.join(", ")),
        (false, true) => format!("there is no parameter {}", unknown.join(", ")),
        (false, false) => format!("there is no parameter {}; missing {}", unknown.join(", "), missing.join(", ")),
    };
    let write =
        if method.params.is_empty() { "it takes none: leave the JSON out".to_owned() } else { format!("write {}", example(method)) };
    Err(format!("arguments: {what}\n  {}\n  {write}", method.signature))
}

fn example(method: &MethodInfo) -> String {
    let members: Vec<String> = method.params.iter().map(|(name, ty)| format!("{name:?}: <{ty}>")).collect();
    format!("'{{{}}}'", members.join(", "))
}

/// JSON laid out for people, its tokens as they are. What is not JSON is an error.
pub(crate) fn pretty(json: &[u8]) -> Result<String, String> {
    let json = std::str::from_utf8(json).map_err(|e| e.to_string())?;
    serde_json::from_str::<IgnoredAny>(json).map_err(|e| e.to_string())?;
    let mut out = String::new();
    let (mut depth, mut quoted, mut escaped, mut open) = (0usize, false, false, false);
    for c in json.chars() {
        if quoted {
            out.push(c);
            (quoted, escaped) = (escaped || c != '"', c == '\\' && !escaped);
            continue;
        }
        if c.is_ascii_whitespace() {
            continue;
        }
        let closes = matches!(c, '}' | ']');
        depth -= usize::from(closes);
        // Empty brackets stay together.
        if closes != open && (closes || open) {
            out.push('\n');
            out.extend(std::iter::repeat_n("  ", depth));
        }
        out.push(c);
        open = matches!(c, '{' | '[');
        depth += usize::from(open);
        quoted = c == '"';
        match c {
            ':' => out.push(' '),
            ',' => {
                out.push('\n');
                out.extend(std::iter::repeat_n("  ", depth));
            }
            _ => {}
        }
    }
    out.push('\n');
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method(params: &[(&str, &str)]) -> MethodInfo {
        let params: Vec<_> = params.iter().map(|(n, t)| (n.to_string(), t.to_string())).collect();
        let print = [0; 16];
        MethodInfo {
            name: "m".into(),
            foreign_name: None,
            docs: String::new(),
            signature: "m(…)".into(),
            params,
            idempotent: false,
            oneway: false,
            args_stream: false,
            result_stream: false,
            roles: Vec::new(),
            json_only: false,
            args_print: print,
            result_print: print,
            error_print: print,
            types: String::new(),
        }
    }

    fn sent(params: &[(&str, &str)], text: &str) -> Result<String, String> {
        arguments((!text.is_empty()).then_some(text), &method(params))
    }

    #[test]
    fn arguments_go_as_they_were_written() {
        let two = [("a", "u128"), ("b", "Option<u8>")];
        for text in ["{\"b\": 1, \"a\":340282366920938463463374607431768211455}", "{\"a\":1}"] {
            assert_eq!(sent(&two, text).unwrap(), text);
        }
        assert_eq!(sent(&[], "").unwrap(), "{}");
        assert_eq!(sent(&[], "{ }").unwrap(), "{ }");
        assert_eq!(sent(&[("a", "Option<u8>")], "").unwrap(), "{}");
    }

    #[test]
    fn names_are_checked() {
        let two = [("a", "u8"), ("b", "u8")];
        for (text, says) in [
            ("", "missing \"a\", \"b\"\n  m(…)\n  write '{\"a\": <u8>, \"b\": <u8>}'"),
            ("{\"a\":1}", "missing \"b\""),
            ("{\"a\":1,\"b\":2,\"c\":3}", "there is no parameter \"c\"\n"),
            ("{\"a\":1,\"B\":2}", "there is no parameter \"B\"; missing \"b\""),
            ("[1,2]", "an object by parameter name"),
        ] {
            let e = sent(&two, text).unwrap_err();
            assert!(e.contains(says), "{text}: {e}");
        }
        assert!(sent(&[], "{\"a\":1}").unwrap_err().contains("leave the JSON out"));
    }

    #[test]
    fn one_parameter_may_stand_alone() {
        let check = |ty, text, expected| assert_eq!(sent(&[("order", ty)], text).unwrap(), expected);
        check("u64", "7", "{\"order\":7}");
        check("u64", "{\"order\":7}", "{\"order\":7}");
        check("Vec<u8>", "[1]", "{\"order\":[1]}");
        check("Order", "{\"id\":7}", "{\"order\":{\"id\":7}}");
        check("Order", "{\"order\":{\"id\":7}}", "{\"order\":{\"id\":7}}");
        check("Option<Order>", "null", "{\"order\":null}");
        // A number is no object: this is a misspelled parameter.
        assert!(sent(&[("order", "Option<u64>")], "{\"ordr\":7}").unwrap_err().contains("no parameter \"ordr\""));
        // It could be all arguments or an order of which a field is called order.
        assert!(sent(&[("order", "Order")], "{\"order\":1,\"id\":7}").unwrap_err().contains("no parameter \"id\""));
    }

    #[test]
    fn mistakes_are_shown() {
        let check = |text: &str, expected: &str| assert_eq!(check(text).unwrap_err(), expected);
        check("{\"a\": 7 \"b\": 2}", "the JSON cannot be read: expected `,` or `}` at line 1 column 9\n  {\"a\": 7 \"b\": 2}\n          ^");
        check("{\n\"ä\": }", "the JSON cannot be read: expected value at line 2 column 7\n  \"ä\": }\n       ^");
        let e = super::check("{a: 1}").unwrap_err();
        assert!(e.contains("single quotes"), "{e}");
        let long = format!("[{}x]", "1,".repeat(500));
        assert!(super::check(&long).unwrap_err().len() < 300);
        assert!(super::check("").unwrap_err().contains("line 1 column 0"));
    }

    #[test]
    fn json_is_laid_out_and_not_changed() {
        let check = |json: &str, expected: &str| assert_eq!(pretty(json.as_bytes()).unwrap(), expected);
        check("7", "7\n");
        check("[ ]", "[]\n");
        check("{\"z\":{},\"a\":[1,[\"x, \\\"]\"]]}", "{\n  \"z\": {},\n  \"a\": [\n    1,\n    [\n      \"x, \\\"]\"\n    ]\n  ]\n}\n");
        check("340282366920938463463374607431768211455", "340282366920938463463374607431768211455\n");
        assert!(pretty(b"{]").is_err());
        assert!(pretty(&[b'"', 0xff, b'"']).is_err());
    }
}
