//! A method table as one short text: the fingerprints once each, then which of them each method has.
//!
//! Bytes, as base64: version 1; how many fingerprints (varint); these, 16 bytes each; per method, in the order of their names in the
//! parameter `methods`: the places of arguments, result and error among them (varints), bits.

use crate::dubbo::percent;
use crate::entry::MethodPrints;

/// The form of what follows.
const VERSION: u8 = 1;

/// The table as text.
pub(crate) fn to_text(methods: &[MethodPrints]) -> String {
    let mut distinct: Vec<[u8; 16]> = methods.iter().flat_map(|m| [m.args, m.result, m.error]).collect();
    distinct.sort_unstable();
    distinct.dedup();
    let mut bytes = vec![VERSION];
    varint(distinct.len(), &mut bytes);
    distinct.iter().for_each(|print| bytes.extend_from_slice(print));
    for method in methods {
        for print in [method.args, method.result, method.error] {
            // It is there: it was put there above.
            varint(distinct.binary_search(&print).unwrap_or_default(), &mut bytes);
        }
        bytes.push(method.bits);
    }
    percent::to_base64(&bytes)
}

/// The table of the methods with these names; `None` if the text is damaged or of a later form.
pub(crate) fn from_text(names: &[String], text: &str) -> Option<Vec<MethodPrints>> {
    let bytes = percent::from_base64(text)?;
    let mut rest = bytes.strip_prefix(&[VERSION])?;
    let count = read_varint(&mut rest)?;
    let length = count.checked_mul(16)?;
    let distinct = rest.get(..length)?;
    rest = &rest[length..];
    let print = |rest: &mut &[u8]| -> Option<[u8; 16]> {
        let at = read_varint(rest)?.checked_mul(16)?;
        distinct.get(at..at.checked_add(16)?)?.try_into().ok()
    };
    let mut methods = Vec::with_capacity(names.len());
    for name in names {
        let (args, result, error) = (print(&mut rest)?, print(&mut rest)?, print(&mut rest)?);
        let (&bits, after) = rest.split_first()?;
        rest = after;
        methods.push(MethodPrints { name: name.clone(), args, result, error, bits });
    }
    rest.is_empty().then_some(methods)
}

fn varint(mut number: usize, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn read_varint(bytes: &mut &[u8]) -> Option<usize> {
    let mut number = 0usize;
    for shift in [0, 7, 14, 21] {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn methods() -> Vec<MethodPrints> {
        let method = |name: &str, n: u8| MethodPrints { name: name.into(), args: [n; 16], result: [9; 16], error: [0; 16], bits: n & 7 };
        (0..200).map(|n| method(&format!("m{n:03}"), n)).collect()
    }

    #[test]
    fn a_table_goes_through_text_and_is_short() {
        let methods = methods();
        let names: Vec<String> = methods.iter().map(|m| m.name.clone()).collect();
        let text = to_text(&methods);
        assert_eq!(from_text(&names, &text).unwrap(), methods);
        assert!(text.len() < 200 * 16 * 2, "{}: results and errors are alike and stand there once", text.len());
        assert_eq!(from_text(&[], &to_text(&[])).unwrap(), []);
    }

    #[test]
    fn a_damaged_table_is_no_table() {
        let methods = &methods()[..3];
        let names: Vec<String> = methods.iter().map(|m| m.name.clone()).collect();
        let text = to_text(methods);
        for end in 0..text.len() {
            assert_eq!(from_text(&names, &text[..end]), None, "cut at {end}");
        }
        assert_eq!(from_text(&names[..2], &text), None, "another number of methods");
        assert_eq!(from_text(&names, &format!("{text}AAAA")), None);
        let later = percent::to_base64(&[2, 0]);
        assert_eq!(from_text(&[], &later), None);
        let huge = percent::to_base64(&[1, 0xff, 0xff, 0xff, 0x7f]);
        assert_eq!(from_text(&names, &huge), None);
    }
}
