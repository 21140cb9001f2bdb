//! Which cores client and server run on.
use crate::options::{Options, Parsed, cpus};

pub(crate) const PIN: &str = "--pin";
pub(crate) const APART: &str = "--pin-apart";
pub(crate) const UNPINNED: &str = "--unpinned";

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Placement {
    /// Both on one core: repeats best, nothing overlaps.
    Together(usize),
    /// A core for each: what waiting costs shows here.
    Apart { client: usize, server: usize },
    /// The scheduler's choice.
    Unpinned,
}

impl Placement {
    pub(crate) fn parse(options: &Options) -> Parsed<Placement> {
        let given: Vec<&str> = [PIN, APART, UNPINNED].into_iter().filter(|name| options.has(name)).collect();
        match given[..] {
            [PIN] => allowed(options.required(PIN)?).map(Placement::Together),
            [APART] => Placement::apart(&cpus()?),
            [UNPINNED] => Ok(Placement::Unpinned),
            [one, other, ..] => Err(format!("{one} and {other} exclude each other")),
            _ => Ok(Placement::Together(*cpus()?.last().ok_or("this process may run on no core")?)),
        }
    }

    fn apart(cpus: &[usize]) -> Parsed<Placement> {
        match cpus {
            [client, .., server] => Ok(Placement::Apart { client: *client, server: *server }),
            _ => Err(format!("{APART} needs two cores, this process may run on {cpus:?} only")),
        }
    }

    /// In results: `together`, `apart` or `unpinned`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Placement::Together(_) => "together",
            Placement::Apart { .. } => "apart",
            Placement::Unpinned => "unpinned",
        }
    }

    pub(crate) fn describe(self) -> String {
        match self {
            Placement::Together(cpu) => format!("both processes on CPU {cpu}"),
            Placement::Apart { client, server } => format!("client on CPU {client}, server on CPU {server}"),
            Placement::Unpinned => "unpinned".into(),
        }
    }

    /// What the client process is told.
    pub(crate) fn client_args(self) -> Vec<String> {
        pin_args(match self {
            Placement::Together(cpu) | Placement::Apart { client: cpu, .. } => Some(cpu),
            Placement::Unpinned => None,
        })
    }

    /// What the server process is told.
    pub(crate) fn server_args(self) -> Vec<String> {
        pin_args(match self {
            Placement::Together(cpu) | Placement::Apart { server: cpu, .. } => Some(cpu),
            Placement::Unpinned => None,
        })
    }
}

fn pin_args(cpu: Option<usize>) -> Vec<String> {
    cpu.map_or(Vec::new(), |cpu| vec![PIN.into(), cpu.to_string()])
}

/// The core of one process.
pub(crate) fn pin(options: &Options) -> Parsed<Option<usize>> {
    options.maybe(PIN)?.map(allowed).transpose()
}

fn allowed(cpu: usize) -> Parsed<usize> {
    let allowed = cpus()?;
    match allowed.contains(&cpu) {
        true => Ok(cpu),
        false => Err(format!("{PIN} {cpu}: this process may run on {allowed:?} only")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Words;

    fn parse(line: &str) -> Parsed<Placement> {
        let words = Words::new(line.split_whitespace().map(String::from).collect());
        Placement::parse(&words.options(&[PIN, APART, UNPINNED]).unwrap())
    }

    #[test]
    fn one_of_three() {
        let cpus = cpus().unwrap();
        assert_eq!(parse(""), Ok(Placement::Together(cpus[cpus.len() - 1])));
        assert_eq!(parse(&format!("--pin {}", cpus[0])), Ok(Placement::Together(cpus[0])));
        assert_eq!(parse("--unpinned"), Ok(Placement::Unpinned));
        assert_eq!(parse("--pin-apart --unpinned"), Err("--pin-apart and --unpinned exclude each other".into()));
        assert_eq!(parse("--pin 0 --pin-apart"), Err("--pin and --pin-apart exclude each other".into()));
    }

    #[test]
    fn apart_takes_the_first_and_the_last_core() {
        let apart = Placement::apart(&[1, 2, 5]).unwrap();
        assert_eq!((apart.client_args(), apart.server_args()), (vec!["--pin".into(), "1".into()], vec!["--pin".into(), "5".into()]));
        assert_eq!(Placement::apart(&[3]), Err("--pin-apart needs two cores, this process may run on [3] only".into()));
    }
}
