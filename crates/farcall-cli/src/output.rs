//! What a command that did its work has to say.

/// Text for stdout, and how the process ends.
pub(crate) struct Output {
    pub(crate) text: String,
    /// Not 0 where the answer is a no.
    pub(crate) exit_code: u8,
}

impl From<String> for Output {
    fn from(text: String) -> Output {
        Output { text, exit_code: 0 }
    }
}
