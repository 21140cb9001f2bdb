//! Text from a peer on its way to a terminal.

use std::borrow::Cow;

/// `text` without control characters but newline and tab: a provider must not move the cursor or
/// rename the window of whoever looks at it.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    let harmless = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    match text.chars().all(harmless) {
        true => Cow::Borrowed(text),
        false => text.chars().map(|c| if harmless(c) { c.to_string() } else { c.escape_default().to_string() }).collect(),
    }
}

/// `text` with `indent` before every line that is not empty.
pub(crate) fn indented(text: &str, indent: &str) -> String {
    let line = |line: &str| if line.trim().is_empty() { "\n".to_owned() } else { format!("{indent}{line}\n") };
    plain(text).trim_matches('\n').lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_sees_no_escape_codes() {
        assert_eq!(plain("a\tb\nü"), "a\tb\nü");
        assert_eq!(plain("\u{1b}[2Jx\u{9b}m\r"), "\\u{1b}[2Jx\\u{9b}m\\r");
    }

    #[test]
    fn empty_lines_stay_empty() {
        assert_eq!(indented("\na\n\n b\n", "  "), "  a\n\n   b\n");
    }
}
