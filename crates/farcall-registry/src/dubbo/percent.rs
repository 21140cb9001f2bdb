//! `application/x-www-form-urlencoded` text as Java's `URLEncoder` writes it, and base64 for what is not text.

/// What is written as it is.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-*_".contains(&byte)
}

/// As Java's `URLEncoder.encode(text, "UTF-8")`: a space is `+`, what is not a letter, a digit or one of `.-*_` is `%XX`.
pub(crate) fn encode(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len() + text.len() / 4);
    for &byte in text.as_bytes() {
        match byte {
            b' ' => out.push('+'),
            _ if is_plain(byte) => out.push(char::from(byte)),
            _ => {
                out.push('%');
                out.push(char::from(HEX[usize::from(byte >> 4)]));
                out.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
    out
}

/// Reads what Java, Go or we have encoded; `None` if it is cut off, not hexadecimal or not UTF-8.
pub(crate) fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => out.push(hex_digit(bytes.next()?)? << 4 | hex_digit(bytes.next()?)?),
            _ => out.push(byte),
        }
    }
    String::from_utf8(out).ok()
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Base64 in the alphabet of file names and URLs, without padding: none of it is escaped.
pub(crate) fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |group, &byte| group << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(group >> (18 - 6 * at)) as usize & 63]));
        }
    }
    text
}

/// Reads [`to_base64`]'s text; `None` if it is not such.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for chunk in text.as_bytes().chunks(4) {
        let count = chunk.len().checked_sub(1).filter(|&count| count > 0)?;
        let mut group = 0u32;
        for &digit in chunk {
            group = group << 6 | ALPHABET.iter().position(|&known| known == digit)? as u32;
        }
        group <<= 6 * (4 - chunk.len());
        let [_, all @ ..] = group.to_be_bytes();
        bytes.extend_from_slice(&all[..count]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_encoded_as_java_does() {
        for (plain, encoded) in [
            ("dubbo://10.0.0.1:20880/a.B?x=1&y=*", "dubbo%3A%2F%2F10.0.0.1%3A20880%2Fa.B%3Fx%3D1%26y%3D*"),
            ("a b+c~d_e-f", "a+b%2Bc%7Ed_e-f"),
            ("千里", "%E5%8D%83%E9%87%8C"),
            ("", ""),
        ] {
            assert_eq!(encode(plain), encoded);
            assert_eq!(decode(encoded).unwrap(), plain);
        }
    }

    #[test]
    fn what_is_not_encoded_text_is_refused() {
        for bad in ["%", "%4", "%zz", "a%2", "%ff", "%C3"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
        // As Go writes it: the tilde stays, the star does not.
        assert_eq!(decode("~%2a%2A").unwrap(), "~**");
    }

    #[test]
    fn bytes_go_through_base64() {
        for length in 0..40u8 {
            let bytes: Vec<u8> = (0..length).map(|n| n.wrapping_mul(77)).collect();
            let text = to_base64(&bytes);
            assert!(encode(&text) == text, "nothing of it is escaped");
            assert_eq!(from_base64(&text).unwrap(), bytes);
        }
        for bad in ["A", "AAAAA", "A=", "!!", "AA=="] {
            assert_eq!(from_base64(bad), None, "{bad}");
        }
    }
}
