//! Many connections need many file descriptors, and a process may open only so many.
use anyhow::{Context, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a process has open besides its connections, generously.
const OTHERS: u64 = 64;

/// Raises the limit of this process and its children to come, as far as it may, for so many connections.
pub(crate) fn allow(connections: usize) -> Result<()> {
    let needed = connections as u64 + OTHERS;
    let limit = getrlimit(Resource::Nofile);
    // `None` is no limit.
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if let Some(most) = limit.maximum.filter(|most| *most < needed) {
        bail!(
            "{connections} connections need {needed} open files, and this process may have {most}: \
             give fewer --connections, or raise the hard limit (as root: `ulimit -n {needed}`) and start again"
        );
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), ..limit }).with_context(|| format!("cannot allow {needed} open files"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_are_refused_with_what_to_do() {
        allow(1).unwrap();
        if getrlimit(Resource::Nofile).maximum.is_some() {
            let problem = allow(usize::MAX / 2).unwrap_err().to_string();
            assert!(problem.contains("give fewer --connections"), "{problem}");
        }
    }
}
