//! The fuzz targets on stable Rust: a seeded mutator drives each, on a stack of 2 MiB, and what it allocates is counted.
//!
//! `FARCALL_SEED=n` tries one mutant again. `./run fuzz TARGET` goes on with cargo-fuzz; what that finds goes into
//! `found/TARGET/` and is tried here for ever.

mod allocated;
mod mutants;
mod refused;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::thread;

use farcall_sim::Rng;
use farcall_tests::fuzz::{TARGETS, Target};

/// Mutants of each target.
const MUTANTS: u64 = 100_000;
/// A worker's stack.
const STACK: usize = 2 << 20;
/// Bytes that a decoder may ask of the allocator for each byte of its input, all it ever asks for together. A list
/// of structs sets aside a struct for each byte of the message, and grows twice as large at most; a target reads, writes
/// and reads again; a schema's compiler keeps a few hundred bytes for each node. The most that was seen is 720.
const ALLOCATED_PER_BYTE: usize = 1_000;
/// And whatever the input is: the schemas and tables of our own that it is held against. The most that was seen is 60 KiB.
const ALLOCATED_BESIDE: usize = 128 << 10;

/// Inputs, and what they are.
type Inputs = Box<dyn Iterator<Item = (String, Vec<u8>)> + Send>;

/// Runs a target on a thread with a worker's stack, and holds what it allocates against its input. How many inputs it
/// understood, and how many not.
fn try_out(target: &'static Target, inputs: Inputs) -> [u64; 2] {
    let run = move || {
        // What is made once is not made for an input.
        assert!((target.seeds)().iter().all(|seed| (target.run)(seed)), "target {} does not understand what it should", target.name);
        let (mut understood, mut refused) = (0, 0);
        for (what, input) in inputs {
            let before = allocated::bytes();
            let Ok(ran) = std::panic::catch_unwind(|| (target.run)(&input)) else {
                panic!("target {} broke on {what}: {:?}", target.name, &input[..input.len().min(4000)]);
            };
            let asked = allocated::bytes() - before;
            let most = ALLOCATED_BESIDE + ALLOCATED_PER_BYTE * input.len();
            assert!(asked <= most, "target {}, {what}: {asked} bytes allocated for {} of input", target.name, input.len());
            *if ran { &mut understood } else { &mut refused } += 1;
        }
        [understood, refused]
    };
    let thread = thread::Builder::new().name(target.name.into()).stack_size(STACK).spawn(run).unwrap();
    thread.join().unwrap_or_else(|_| panic!("target {}: see above", target.name))
}

fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).unwrap()
}

/// Seeds below this one, or the one in FARCALL_SEED.
fn seeds(count: u64) -> Range<u64> {
    match std::env::var("FARCALL_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(one) => one..one + 1,
        None => 0..count,
    }
}

/// An input from a seed and what the target understands.
type Mutant = fn(&mut Rng, &[Vec<u8>]) -> Vec<u8>;

fn mutants(name: &str, count: u64, mutant: Mutant) {
    let (target, right) = (target(name), (target(name).seeds)());
    let make = move |seed| (format!("FARCALL_SEED={seed}"), mutant(&mut Rng(seed), &right));
    let [understood, refused] = try_out(target, Box::new(seeds(count).map(make)));
    if understood + refused > 1 {
        assert!(understood.min(refused) > count / 200, "{understood} understood, {refused} refused: the mutants test nothing");
    }
}

macro_rules! mutants {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                mutants(stringify!($name), MUTANTS, mutants::of_bytes);
            }
        )*
        const DRIVEN: &[&str] = &[$(stringify!($name)),*];
    };
}

mutants! { compact borrowed json xdr protobuf schema plan describe session control address }

#[test]
fn session_by_frames() {
    mutants("session", MUTANTS, mutants::of_frames);
}

#[test]
fn noise() {
    for target in TARGETS {
        let right = (target.seeds)();
        let make = move |seed| (format!("FARCALL_SEED={seed}"), mutants::noise(&mut Rng(seed), &right));
        try_out(target, Box::new(seeds(MUTANTS / 50).map(make)));
    }
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
        try_out(target, Box::new(seeds.into_iter().flat_map(cuts)));
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
        try_out(target, Box::new(floods));
    }
}

/// Inputs that once broke a target.
#[test]
fn what_was_found_stays_mended() {
    for target in TARGETS {
        let inputs = found(target).into_iter().map(|path| (path.display().to_string(), std::fs::read(&path).unwrap()));
        try_out(target, Box::new(inputs.collect::<Vec<_>>().into_iter()));
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
