//! Instructions per run, counted by callgrind on a copy of this process.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::cases::Case;

/// Runs that are counted together: a hash map that grows, or an allocator that tidies up, is spread over them.
const RUNS: u64 = 20;

/// The function below, as callgrind calls it.
const COUNTED: &str = concat!(module_path!(), "::counted_by_callgrind");

/// What callgrind counts: it is told to do so while this function runs, and writes a file when it returns.
#[inline(never)]
fn counted_by_callgrind(run: &mut dyn FnMut()) {
    (0..RUNS).for_each(|_| run());
    std::hint::black_box(());
}

/// In the copy: every case, in order.
pub(crate) fn run_each(cases: Vec<Case>) {
    for mut case in cases {
        // Buffers grow and pages are touched before it counts.
        (0..3).for_each(|_| (case.run)());
        counted_by_callgrind(&mut *case.run);
    }
}

/// The instructions of one run of each case, in order.
pub(crate) fn instructions() -> Result<Vec<u64>, String> {
    let folder = std::env::temp_dir().join(format!("farcall-codec-bench-{}", std::process::id()));
    std::fs::create_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let counted = count_in(&folder);
    let _ = std::fs::remove_dir_all(&folder);
    counted
}

fn count_in(folder: &Path) -> Result<Vec<u64>, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let status = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--dump-after={COUNTED}"))
        .arg(format!("--callgrind-out-file={}/out", folder.display()))
        .arg(program)
        .arg(crate::COUNT)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map_err(|e| format!("valgrind cannot be started ({e}): install it"))?;
    if !status.success() {
        return Err(format!("valgrind ended with {status}"));
    }
    // One file for each case, numbered from 1; the one without a number is what came after all of them.
    let counts: Option<Vec<u64>> = (1..).map(|n| folder.join(format!("out.{n}"))).take_while(|path| path.exists()).map(total).collect();
    counts.filter(|counts| !counts.is_empty()).ok_or_else(|| "callgrind's files cannot be read".to_owned())
}

fn total(path: std::path::PathBuf) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? / RUNS)
}
