//! Processes that find each other by name (`named`), and what they say.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::support::PATIENCE;

/// A process whose lines are read; killed when dropped.
pub(crate) struct Named {
    child: Child,
    lines: Receiver<String>,
}

impl Named {
    /// With these words before the program, such as those that put it into a network namespace; and this environment.
    pub(crate) fn start_in(before: &[&str], args: &[&str], environment: &[(&str, &str)]) -> Named {
        let words = [before, &[env!("CARGO_BIN_EXE_named")], args].concat();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).envs(environment.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (tell, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Named { child, lines }
    }

    pub(crate) fn start(args: &[&str], environment: &[(&str, &str)]) -> Named {
        Named::start_in(&[], args, environment)
    }

    /// What stands behind this word in the next line that begins with it.
    pub(crate) fn says(&self, word: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let line = self.lines.recv_timeout(until.saturating_duration_since(Instant::now()));
            let line = line.unwrap_or_else(|e| panic!("waited for {word:?}: {e}"));
            if let Some(rest) = line.strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
    }

    /// All that it says to its end.
    pub(crate) fn ends(mut self) -> Vec<String> {
        let mut said = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            said.push(line);
        }
        let until = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "it does not end: {said:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        said
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The URL of a node by what it says of itself.
pub(crate) fn url_of(node: &Named) -> String {
    node.says("listening").replacen("tcp://", "farcall://", 1)
}
