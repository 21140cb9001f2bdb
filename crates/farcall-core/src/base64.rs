//! Base64 (RFC 4648, the standard alphabet, padded): how bytes travel in JSON.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Writes `bytes` as padded base64.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |group, &byte| group << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let six = (group >> (18 - 6 * at)) as usize & 63;
            text.push(if at <= chunk.len() { char::from(ALPHABET[six]) } else { '=' });
        }
    }
    text
}

/// Reads base64, padded or not; `None` if it is not base64 or its last bits are not zero.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = match text.len() % 4 {
        0 => text.strip_suffix("==").or(text.strip_suffix('=')).unwrap_or(text),
        _ => text,
    };
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for chunk in digits.as_bytes().chunks(4) {
        decode_group(chunk, &mut bytes)?;
    }
    Some(bytes)
}

/// Two to four digits are one to three bytes.
fn decode_group(digits: &[u8], bytes: &mut Vec<u8>) -> Option<()> {
    let count = digits.len().checked_sub(1).filter(|&count| count > 0)?;
    let mut group = 0u32;
    for &digit in digits {
        group = group << 6 | digit_value(digit)?;
    }
    group <<= 6 * (4 - digits.len());
    let [_, all @ ..] = group.to_be_bytes();
    // Bits that belong to no byte must be zero, or two texts would mean the same bytes.
    if all[count..].iter().any(|&byte| byte != 0) {
        return None;
    }
    bytes.extend_from_slice(&all[..count]);
    Some(())
}

fn digit_value(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_rfc_4648() {
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="), ("foobar", "Zm9vYmFy")];
        for (bytes, text) in cases {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()));
            assert_eq!(decode(text.trim_end_matches('=')).as_deref(), Some(bytes.as_bytes()));
        }
    }

    #[test]
    fn every_byte_goes_round() {
        let bytes: Vec<u8> = (0..=255).collect();
        for count in 0..=256 {
            assert_eq!(decode(&encode(&bytes[..count])).as_deref(), Some(&bytes[..count]));
        }
    }

    #[test]
    fn refuses_what_is_not_base64() {
        for text in ["A", "Zg=", "Zg===", "Zh==", "Zm9=", "Z m9", "Zm9v=", "====", "=", "Zm8=Zm8=", "é/8", "-_8="] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
