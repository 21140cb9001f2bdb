//! Percent-encoding, as in URLs (RFC 3986, section 2.1).

/// The text that `encoded` stands for. An error says what is wrong with it.
pub(crate) fn decode(encoded: &str) -> Result<String, String> {
    if !encoded.contains('%') {
        return Ok(encoded.to_owned());
    }
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = (rest.next().and_then(hex), rest.next().and_then(hex));
        let (Some(high), Some(low)) = digits else { return Err("a `%` is not followed by two hexadecimal digits".to_owned()) };
        bytes.push(high << 4 | low);
    }
    String::from_utf8(bytes).map_err(|_| "what is percent-encoded is not UTF-8".to_owned())
}

/// The value of a hexadecimal digit.
pub(crate) fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_decoded_or_refused() {
        let decoded = |text: &str| decode(text).map_err(|e| e.split_once(" is").map_or(String::new(), |(front, _)| front.to_owned()));
        assert_eq!(decoded("plain+text"), Ok("plain+text".to_owned()));
        assert_eq!(decoded("%e5%8D%83 %25"), Ok("千 %".to_owned()));
        for bad in ["%", "%1", "%zz", "a%4", "%%41"] {
            assert_eq!(decoded(bad), Err("a `%`".to_owned()), "{bad}");
        }
        assert_eq!(decoded("%ff"), Err("what".to_owned()));
        assert_eq!(decoded("%c0%80"), Err("what".to_owned()));
    }
}
