//! The service that is called: a method without owned data and one whose owned fields are known by number.

use farcall::prelude::*;

#[farcall::data]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Letter {
    pub(crate) id: u64,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) urgent: Option<String>,
    pub(crate) lines: Vec<Line>,
    pub(crate) seal: Vec<u8>,
}

#[farcall::data]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) number: u32,
    pub(crate) text: String,
}

impl Letter {
    const LINES: u32 = 5;
    /// `from`, `to`, `urgent`, `lines`, `seal`, and a text per line.
    pub(crate) const OWNED: u64 = 5 + Letter::LINES as u64;

    pub(crate) fn sample() -> Letter {
        let line = |number| Line { number, text: format!("line {number} of the letter") };
        Letter {
            id: 7,
            from: "Gao Ming".into(),
            to: "Gao Jue".into(),
            urgent: Some("at once".into()),
            lines: (0..Letter::LINES).map(line).collect(),
            seal: vec![0xa5; 32],
        }
    }
}

#[farcall::service]
pub(crate) trait Post {
    /// The number after `n`.
    async fn next(&self, n: u64) -> Reply<u64>;
    /// The length of a name that is borrowed on both sides.
    async fn measure(&self, name: &str, seal: &[u8]) -> Reply<u64>;
    /// The letter itself.
    async fn echo(&self, letter: Letter) -> Reply<Letter>;
}

/// A version later.
pub(crate) mod newer {
    #[farcall::data]
    #[derive(Clone, Debug, PartialEq)]
    pub(crate) struct Letter {
        pub(crate) seal: Vec<u8>,
        pub(crate) lines: Vec<Line>,
        pub(crate) to: String,
        pub(crate) from: String,
        pub(crate) urgent: Option<String>,
        pub(crate) id: u128,
        pub(crate) stamp: Option<u32>,
    }

    #[farcall::data]
    #[derive(Clone, Debug, PartialEq)]
    pub(crate) struct Line {
        pub(crate) text: String,
        pub(crate) number: u64,
    }

    impl Letter {
        pub(crate) fn sample() -> Letter {
            let super::Letter { id, from, to, urgent, lines, seal } = super::Letter::sample();
            let lines = lines.into_iter().map(|line| Line { text: line.text, number: line.number.into() });
            Letter { seal, lines: lines.collect(), to, from, urgent, id: id.into(), stamp: Some(50) }
        }
    }
}

pub(crate) struct Office;

impl Post for Office {
    async fn next(&self, n: u64) -> Reply<u64> {
        Ok(n + 1)
    }

    async fn measure(&self, name: &str, seal: &[u8]) -> Reply<u64> {
        Ok((name.len() + seal.len()) as u64)
    }

    async fn echo(&self, letter: Letter) -> Reply<Letter> {
        Ok(letter)
    }
}
