//! Other people's programs that our bytes are checked against.

use std::borrow::BorrowMut;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Whether these programs and files are here. If not, says what is skipped; with `FARCALL_FOREIGN=required`, as in
/// CI, nothing may be skipped.
pub(crate) fn have(what: &str, programs: &[&str], files: &[&str]) -> bool {
    let folders: Vec<_> = std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect();
    let program = |name: &&&str| !folders.iter().any(|folder| folder.join(name).is_file());
    let file = |path: &&&str| !Path::new(path).exists();
    let missing: Vec<&str> = programs.iter().filter(program).chain(files.iter().filter(file)).copied().collect();
    if missing.is_empty() {
        return true;
    }
    let notice = format!("skipped: {what}: {} not here", missing.join(", "));
    assert!(std::env::var_os("FARCALL_FOREIGN").is_none_or(|wish| wish != "required"), "{notice}");
    // Not through `eprintln`: the notice must be seen although the test passes.
    let _ = writeln!(std::io::stderr(), "{notice}");
    false
}

/// Runs a program that must succeed: what it wrote to stdout and to stderr. `input` must fit into a pipe.
pub(crate) fn pipe(mut command: impl BorrowMut<Command>, input: &[u8]) -> (Vec<u8>, String) {
    let command = command.borrow_mut();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{command:?}: {err}");
    (output.stdout, err)
}
