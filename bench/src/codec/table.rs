//! The tables, and what ours must not exceed.

use std::time::{Duration, Instant};

use crate::cases::{Case, What};

/// A case, measured.
pub(crate) struct Measured {
    codec: &'static str,
    value: &'static str,
    what: What,
    bytes: usize,
    nanos: f64,
    instructions: Option<u64>,
}

/// Rounds of which the least counts.
const ROUNDS: u32 = 12;

pub(crate) fn measure(cases: Vec<Case>, round: Duration, instructions: Option<&[u64]>) -> Vec<Measured> {
    let measured = |(at, mut case): (usize, Case)| Measured {
        codec: case.codec,
        value: case.value,
        what: case.what,
        bytes: case.bytes,
        nanos: least(&mut case.run, round),
        instructions: instructions.and_then(|counts| counts.get(at).copied()),
    };
    cases.into_iter().enumerate().map(measured).collect()
}

/// The nanoseconds of one run, in the quickest of the rounds.
fn least(run: &mut dyn FnMut(), round: Duration) -> f64 {
    let once = |runs: u32, run: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..runs).for_each(|_| run());
        start.elapsed().as_nanos() as f64 / f64::from(runs)
    };
    let rough = once(10, run).max(1.0);
    let runs = (round.as_nanos() as f64 / rough).clamp(5.0, 1_000_000.0) as u32;
    (0..ROUNDS).map(|_| once(runs, run)).fold(rough, f64::min)
}

fn find<'m>(all: &'m [Measured], codec: &str, value: &str, what: What) -> Option<&'m Measured> {
    all.iter().find(|m| m.codec == codec && m.value == value && m.what == what)
}

/// A table for each value.
pub(crate) fn print(all: &[Measured]) {
    let mut values: Vec<&str> = all.iter().map(|m| m.value).collect();
    values.dedup();
    for value in values {
        println!("\n{value}\n| codec | bytes | encode ns | decode ns | encode Ir | decode Ir |\n|---|--:|--:|--:|--:|--:|");
        let mut codecs: Vec<&str> = all.iter().filter(|m| m.value == value && m.what != What::Compile).map(|m| m.codec).collect();
        codecs.dedup();
        for codec in codecs {
            let (encode, decode) = (find(all, codec, value, What::Encode), find(all, codec, value, What::Decode));
            let bytes = encode.or(decode).map_or(0, |m| m.bytes);
            println!("| {codec} | {bytes} | {} | {} | {} | {} |", time(encode), time(decode), count(encode), count(decode));
        }
    }
    println!();
    if let Some(plan) = all.iter().find(|m| m.what == What::Compile) {
        println!("plan for the order: {:.1} us, {} instructions", plan.nanos / 1e3, count(Some(plan)));
    }
}

fn time(measured: Option<&Measured>) -> String {
    measured.map_or_else(String::new, |m| format!("{:.1}", m.nanos))
}

fn count(measured: Option<&Measured>) -> String {
    measured.and_then(|m| m.instructions).map_or_else(String::new, |n| n.to_string())
}

/// Instructions of ours per instruction of another, and the most that may be. Says how many are beyond it.
pub(crate) fn aims(all: &[Measured]) -> usize {
    let ratios = [
        ("encode an order, of postcard", "farcall", "postcard", "order", What::Encode, 1.0),
        ("decode an order, of postcard", "farcall", "postcard", "order", What::Decode, 1.05),
        ("decode an order by a plan, of without", "farcall, by a plan", "farcall", "order", What::Decode, 1.35),
        ("encode 64 KiB, of a copy", "farcall", "(a copy)", "64 KiB as bytes", What::Encode, 1.1),
        ("decode 64 KiB, of a copy", "farcall", "(a copy)", "64 KiB as bytes", What::Decode, 1.1),
    ];
    let mut missed = 0;
    for (name, ours, theirs, value, what, most) in ratios {
        let theirs_does = if theirs == "(a copy)" { What::Decode } else { what };
        let count = |codec, what| find(all, codec, value, what).and_then(|m| m.instructions);
        let (Some(ours), Some(theirs)) = (count(ours, what), count(theirs, theirs_does)) else { continue };
        let ratio = ours as f64 / theirs as f64;
        missed += usize::from(ratio > most);
        println!("{name}: {ratio:.3} of its instructions, at most {most}{}", if ratio > most { "  MISSED" } else { "" });
    }
    missed
}
