//! The fuzz targets on stable Rust: a seeded mutator drives each, on a stack of 2 MiB, and what it allocates is counted.
//!
//! `FARCALL_SEED=n` tries one mutant again. `./run fuzz TARGET` goes on with cargo-fuzz; what that finds goes into
//! `found/TARGET/` and is tried here for ever.

mod allocated;

use std::path::{Path, PathBuf};
use std::thread;

use farcall_tests::fuzz::{TARGETS, Target};

/// Mutants of each target.
const MUTANTS: u64 = 10_000;
/// Of the codec that everybody uses. (Frames have as many in farcall-wire.)
const MANY_MUTANTS: u64 = 100_000;
/// Bytes that a decoder may ask of the allocator for each byte of its input, all it ever asks for together. A list
/// of structs sets aside a struct for each byte of the message, and grows twice as large at most; a target reads, writes
/// and reads again; a schema's compiler keeps a few hundred bytes for each node.
const ALLOCATED_PER_BYTE: usize = 2_000;
/// And whatever the input is: the schemas and tables of our own that it is held against.
const ALLOCATED_BESIDE: usize = 2 << 20;

/// A small seeded generator (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// What lengths, counts and numbers are made of when they are wrong.
const NASTY: [&[u8]; 8] =
    [b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff", b"\x80", b"\0", b"\x01", b"[[[[", b"\"1\""];

fn mutant(seeds: &[Vec<u8>], number: u64) -> Vec<u8> {
    let mut random = Random(number);
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(7) {
            _ if bytes.is_empty() => bytes.push(random.next() as u8),
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => drop(bytes.splice(at..at, NASTY[random.below(NASTY.len())].iter().copied())),
            3 => drop(bytes.drain(at..(at + 1 + random.below(4)).min(bytes.len()))),
            4 => bytes.truncate(at),
            5 => {
                let from = random.below(bytes.len());
                let part = bytes[from..(from + random.below(40)).min(bytes.len())].to_vec();
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

/// Runs a target on a thread with a worker's stack, and holds what it allocates against its input.
fn try_out(target: &'static Target, inputs: impl Iterator<Item = (String, Vec<u8>)> + Send + 'static) {
    let run = move || {
        // What is made once is not made for an input.
        (target.seeds)().iter().for_each(|seed| (target.run)(seed));
        for (what, input) in inputs {
            let before = allocated::bytes();
            let ran = std::panic::catch_unwind(|| (target.run)(&input));
            assert!(ran.is_ok(), "target {} broke on {what}: {input:?}", target.name);
            let asked = allocated::bytes() - before;
            let most = ALLOCATED_BESIDE + ALLOCATED_PER_BYTE * input.len();
            assert!(asked <= most, "target {}, {what}: {asked} bytes allocated for {} of input", target.name, input.len());
        }
    };
    let thread = thread::Builder::new().name(target.name.into()).stack_size(2 << 20).spawn(run).unwrap();
    assert!(thread.join().is_ok(), "target {}: see above", target.name);
}

fn mutants(name: &str, count: u64) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let numbers = match std::env::var("FARCALL_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(one) => one..one + 1,
        None => 0..count,
    };
    let seeds = (target.seeds)();
    try_out(target, numbers.map(move |number| (format!("FARCALL_SEED={number}"), mutant(&seeds, number))));
}

macro_rules! mutants {
    ($($name:ident: $count:expr;)*) => {$(
        #[test]
        fn $name() {
            mutants(stringify!($name), $count);
        }
    )*
        const DRIVEN: &[&str] = &[$(stringify!($name)),*];
    };
}

mutants! {
    compact: MANY_MUTANTS;
    borrowed: MUTANTS;
    json: MUTANTS;
    xdr: MUTANTS;
    protobuf: MUTANTS;
    schema: MUTANTS;
    plan: 3 * MUTANTS;
    describe: MUTANTS / 10;
    session: 3 * MUTANTS;
    control: MUTANTS;
    address: MUTANTS;
}

#[test]
fn every_target_is_driven_here_and_by_cargo_fuzz() {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names, DRIVEN);
    let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/Cargo.toml")).unwrap();
    for name in names {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in fuzz/Cargo.toml");
    }
}

#[test]
fn every_truncation_is_met_with_an_answer() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        let cuts = move |seed: Vec<u8>| (0..=seed.len()).map(move |end| (format!("cut at {end}"), seed[..end].to_vec()));
        // A long one is cut at some places: the rest of them are cuts of its parts.
        let step = seeds.iter().map(Vec::len).sum::<usize>() / 4_000 + 1;
        try_out(target, seeds.into_iter().flat_map(cuts).step_by(step));
    }
}

/// Long inputs of one thing over and over: deep nesting, floods, huge counts.
#[test]
fn floods_of_one_thing() {
    for target in TARGETS {
        let prefixes: Vec<Vec<u8>> = (target.seeds)().into_iter().flat_map(|seed| [vec![], seed[..seed.len() / 2].to_vec()]).collect();
        let floods = prefixes.into_iter().flat_map(|prefix| {
            [&b"\0"[..], b"\x01", b"\x02", b"\x12", b"\xff", b"[", b"{\"a\":", b"\"", b"\x0a\x01"].into_iter().map(move |unit| {
                let mut input = prefix.clone();
                input.extend(unit.iter().cycle().take(1 << 16));
                (format!("a flood of {unit:?}"), input)
            })
        });
        try_out(target, floods);
    }
}

/// Inputs that once broke a target.
#[test]
fn what_was_found_stays_mended() {
    for target in TARGETS {
        let inputs = found(target).into_iter().map(|path| (path.display().to_string(), std::fs::read(&path).unwrap()));
        try_out(target, inputs.collect::<Vec<_>>().into_iter());
    }
}

fn found(target: &Target) -> Vec<PathBuf> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/hostile/found")).join(target.name);
    let files = folder.read_dir().into_iter().flatten();
    files.map(|file| file.unwrap().path()).collect()
}

/// `./run fuzz` begins with what a decoder understands and with what once broke it.
#[test]
#[ignore = "writes files for ./run fuzz"]
fn inputs_are_written_for_cargo_fuzz() {
    let corpus = std::env::var_os("FARCALL_CORPUS").expect("FARCALL_CORPUS names the folder");
    for target in TARGETS {
        let folder = Path::new(&corpus).join(target.name);
        std::fs::create_dir_all(&folder).unwrap();
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number}")), seed).unwrap();
        }
        for (number, path) in found(target).into_iter().enumerate() {
            std::fs::copy(path, folder.join(format!("found-{number}"))).unwrap();
        }
    }
}
