//! Inputs that were right, with something changed.

use bytes::BytesMut;
use farcall_sim::Rng;
use farcall_wire::{HEADER, PREFACE_LEN, get_frame};

/// What lengths, counts and numbers are made of when they are wrong.
const NASTY: [&[u8]; 8] =
    [b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff", b"\x80", b"\0", b"\x01", b"[[[[", b"\"1\""];

/// A few bytes of an input changed, put in, left out or repeated.
pub(crate) fn of_bytes(rng: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[rng.below(seeds.len())].clone();
    for _ in 0..=rng.below(4) {
        let at = rng.below(bytes.len());
        match rng.below(7) {
            _ if bytes.is_empty() => bytes.push(rng.any() as u8),
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = rng.any() as u8,
            2 => drop(bytes.splice(at..at, rng.pick(&NASTY).iter().copied())),
            3 => drop(bytes.drain(at..(at + 1 + rng.below(4)).min(bytes.len()))),
            4 => bytes.truncate(at),
            5 => {
                let from = rng.below(bytes.len());
                let part = bytes[from..(from + rng.below(40)).min(bytes.len())].to_vec();
                drop(bytes.splice(at..at, part));
            }
            _ => {
                let part = bytes[at..].to_vec();
                bytes.extend(part.iter().take(400));
            }
        }
    }
    bytes
}

/// The beginning of an input, and then anything; small numbers are more likely.
pub(crate) fn noise(rng: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = seeds[rng.below(seeds.len())].clone();
    bytes.truncate(rng.below(bytes.len() + 1));
    bytes.extend((0..rng.below(200)).map(|_| rng.any() as u8 >> rng.below(8)));
    bytes
}

/// A frame repeated, dropped, moved, or a few bytes of it changed, put in or left out; lengths are kept right in most, so that
/// mutants get past the framing.
pub(crate) fn of_frames(rng: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let whole = &seeds[rng.below(seeds.len())];
    let mut frames = frames(whole);
    for _ in 0..=rng.below(3) {
        let at = rng.below(frames.len());
        let body = frames[at].len() - HEADER;
        let byte = HEADER + rng.below(body);
        match rng.below(8) {
            0 => frames.insert(at, frames[rng.below(frames.len())].clone()),
            1 if frames.len() > 1 => drop(frames.remove(at)),
            2 => {
                let other = rng.below(frames.len());
                frames.swap(at, other);
            }
            // The header: kind, flags, aux, id.
            3 => frames[at][4 + rng.below(8)] = rng.any() as u8,
            4 => frames[at].insert(byte, rng.any() as u8),
            5 if body > 0 => drop(frames[at].remove(byte)),
            6 if body > 0 => frames[at][byte] = rng.pick(&[0, 1, 0x7f, 0x80, 0xff]),
            _ => {
                let byte = rng.below(frames[at].len());
                frames[at][byte] ^= 1 << rng.below(8);
                continue;
            }
        }
        for frame in &mut frames {
            let len = (frame.len() - HEADER) as u32;
            frame[..4].copy_from_slice(&len.to_le_bytes());
        }
    }
    [&whole[..PREFACE_LEN], &frames.concat()].concat()
}

/// What comes after the preface.
fn frames(conversation: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = BytesMut::from(&conversation[PREFACE_LEN..]);
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let start = conversation.len() - rest.len();
        get_frame(&mut rest, 1 << 20).unwrap().unwrap();
        frames.push(conversation[start..conversation.len() - rest.len()].to_vec());
    }
    frames
}
