//! The commands of this program: a scenario brings one for people and one for each kind of process that it starts.
use crate::options::{Parsed, Words};
use crate::{child, peers, scenario};
use anyhow::Result;

pub(crate) struct Command {
    pub(crate) name: &'static str,
    /// Its part of `--help`: the line and its options.
    pub(crate) usage: &'static str,
    /// Checks all that follows its name, and returns what is to be done.
    pub(crate) prepare: fn(Words) -> Parsed<Job>,
}

/// Whatever could be wrong with the command line is known before it runs.
pub(crate) type Job = Box<dyn FnOnce() -> Result<()>>;

/// The first is the default.
fn all() -> impl Iterator<Item = &'static Command> {
    scenario::ALL.iter().flat_map(|commands| commands.iter()).chain([&LIST, &child::SERVER])
}

const LIST: Command = Command {
    name: "list",
    usage: "list                      the peers of this build",
    prepare: |words| {
        words.options(&[])?;
        Ok(Box::new(|| {
            peers::ALL.iter().for_each(|peer| println!("{:10} {}", peer.name, peer.about));
            Ok(())
        }))
    },
};

pub(crate) fn usage() -> String {
    let each: Vec<_> = all().map(|command| format!("farcall-bench {}", command.usage)).collect();
    format!("usage:\n\n{}", each.join("\n\n"))
}

pub(crate) fn parse(words: Vec<String>) -> Parsed<Job> {
    let mut words = Words::new(words);
    if words.asks_for_help() {
        return Ok(Box::new(|| {
            println!("{}", usage());
            Ok(())
        }));
    }
    let command = match words.name() {
        Some(name) => all().find(|command| command.name == name).ok_or_else(|| format!("no command {name:?}"))?,
        None => all().next().expect("there is a scenario"),
    };
    (command.prepare)(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::cpus;

    fn problem(line: &str) -> Option<String> {
        parse(line.split_whitespace().map(String::from).collect()).err()
    }

    #[test]
    fn good_lines_are_taken() {
        for line in
            ["", "run", "--rounds 1", "--help", "list", "server raw --addr 127.0.0.1:0", "server raw --streams", "client raw --addr h:1"]
        {
            assert_eq!(problem(line), None, "{line:?}");
        }
    }

    #[test]
    fn bad_lines_are_named() {
        for (line, expected) in [
            ("walk", "no command \"walk\""),
            ("run --speed 3", "no option \"--speed\""),
            ("run raw", "no option \"raw\""),
            ("list --secs 1", "no option \"--secs\""),
            ("--secs", "--secs needs a value"),
            ("--secs --rounds 3", "--secs needs a value"),
            ("--secs 1 --secs 2", "--secs is given twice"),
            ("--secs 0", "--secs must be above 0"),
            ("--secs NaN", "--secs NaN is not within 0 to 3600"),
            ("--warmup -1", "--warmup -1 is not within 0 to 3600"),
            ("--rounds x", "--rounds \"x\": invalid digit found in string"),
            ("--rounds 1,2", "--rounds takes one number"),
            ("--inflight 1,0", "--inflight 0 is not within 1 to 65536"),
            ("--inflight 4096 --connections 1,64", "262144 calls in flight over all connections are more than 65536"),
            ("--transport pigeon", "--transport \"pigeon\": none of tcp, unix, tls, quic"),
            ("server raw --addr here", "--addr \"here\": neither host:port nor unix:/path"),
            ("--pin 0 --unpinned", "--pin and --unpinned exclude each other"),
            ("--payload big", "--payload \"big\": payload \"big\" is none of tiny, order, slow-wait, slow-work, a byte count (64, 64k)"),
            ("server", "the peer's name is missing"),
            ("client raw", "--addr is missing"),
            ("server raw-spin --streams", "raw-spin has no streams here"),
            ("slow-reader --item 64,64k", "--item takes one size"),
            ("fair --beside large", "no option \"--beside\""),
        ] {
            assert_eq!(problem(line).as_deref(), Some(expected), "{line:?}");
        }
        assert!(problem("--peers nobody").unwrap().starts_with("no peer \"nobody\" in this build"));
        assert!(problem("--pin 9999").unwrap().starts_with(&format!("--pin 9999: this process may run on {:?}", cpus().unwrap())));
    }
}
