//! The processes of a drill.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The longest that anything in a drill is waited for.
const PATIENCE: Duration = Duration::from_secs(90);

/// The processes of a drill, and a folder for what they keep on disk, which is gone when this is dropped.
pub struct Cast {
    folder: PathBuf,
    started: usize,
}

/// An instance as a consumer lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its first address.
    pub address: String,
    /// To be used last.
    pub suspect: bool,
}

/// A member's books.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Of a consumer calls that were answered, of a provider calls that ran.
    pub ok: u64,
    /// Calls that failed and did not run.
    pub not_executed: u64,
    /// Calls that failed and may have run.
    pub maybe: u64,
    /// The longest time without an answer, in milliseconds.
    pub gap_ms: u64,
    /// The last error.
    pub error: String,
}

impl Report {
    /// Calls that failed.
    pub fn failed(&self) -> u64 {
        self.not_executed + self.maybe
    }
}

/// One process. Killed when dropped.
pub struct Member {
    /// Its role.
    pub role: &'static str,
    /// Where it listens, if it does.
    pub address: String,
    child: Child,
    stdin: Option<ChildStdin>,
    said: Arc<Said>,
}

#[derive(Default)]
struct Said {
    /// The last line of each kind, how many of that kind there were, and when it was said.
    lines: Mutex<BTreeMap<String, (String, u64, Instant)>>,
    /// The fewest instances in a list since that was last asked.
    fewest: Mutex<Option<usize>>,
    news: Condvar,
}

impl Said {
    fn hear(&self, line: &str) {
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        if kind == "list" {
            let (mut fewest, n) = (self.fewest.lock().unwrap_or_else(PoisonError::into_inner), listed(rest).len());
            *fewest = Some(fewest.map_or(n, |fewest| fewest.min(n)));
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let count = lines.get(kind).map_or(0, |(_, count, _)| *count);
        lines.insert(kind.to_owned(), (rest.to_owned(), count + 1, Instant::now()));
        self.news.notify_all();
    }

    /// Waits until a line of this kind fits: when it was said.
    fn wait(&self, kind: &str, time: Duration, mut fits: impl FnMut(&str, u64) -> bool) -> Option<(String, Instant)> {
        let until = Instant::now() + time;
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some((line, count, at)) = lines.get(kind)
                && fits(line, *count)
            {
                return Some((line.clone(), *at));
            }
            let left = until.checked_duration_since(Instant::now())?;
            lines = self.news.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Cast {
    /// Nobody yet.
    pub fn new() -> Result<Cast, String> {
        let folder = std::env::temp_dir().join(format!("farcall-drill-{}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        Ok(Cast { folder, started: 0 })
    }

    /// A folder for what processes keep on disk; gone when the drill is over.
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// Starts a node of our registry; `listen` is `tcp://127.0.0.1:0`, or where an earlier one was.
    pub fn registry(&mut self, listen: &str, more: &[&str]) -> Result<Member, String> {
        self.start("registry", &[&["--listen", listen], more].concat())
    }

    /// Starts a provider that registers at `url`.
    pub fn provider(&mut self, url: &str, more: &[&str]) -> Result<Member, String> {
        self.start("provider", &[&["--registry", url], more].concat())
    }

    /// Starts a consumer that looks at `url` and calls. `name` says which cache file it has: one that is started again with the same
    /// name finds its list.
    pub fn consumer(&mut self, url: &str, name: &str, more: &[&str]) -> Result<Member, String> {
        let cache = self.folder.join(name).display().to_string();
        self.start("consumer", &[&["--registry", url, "--cache", &cache], more].concat())
    }

    /// Starts this program in a role and waits until it is ready.
    pub fn start(&mut self, role: &'static str, args: &[&str]) -> Result<Member, String> {
        self.start_through(&[], role, args)
    }

    /// As [`start`](Cast::start), behind a command that runs it: `["ip", "netns", "exec", "a"]`.
    pub fn start_through(&mut self, through: &[&str], role: &'static str, args: &[&str]) -> Result<Member, String> {
        let exe = std::env::current_exe().map_err(|e| e.to_string())?;
        let mut command = match through {
            [] => Command::new(&exe),
            [program, rest @ ..] => {
                let mut command = Command::new(program);
                command.args(rest).arg(&exe);
                command
            }
        };
        self.started += 1;
        let mut child = command
            .arg(format!("--role={role}"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{role} cannot be started: {e}"))?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let (said, stdin) = (Arc::new(Said::default()), child.stdin.take());
        let hearing = Arc::clone(&said);
        std::thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| hearing.hear(&line)));
        let mut member = Member { role, address: String::new(), child, stdin, said };
        let ready = member.said.wait("ready", PATIENCE, |_, _| true);
        member.address = ready.ok_or_else(|| format!("{role} {args:?} did not get ready"))?.0;
        println!("  {role} {} is up: {}", member.child.id(), member.address);
        Ok(member)
    }
}

impl Drop for Cast {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Member {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal: `-TERM`.
    fn signal(&self, signal: &str) -> Result<(), String> {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        match sent {
            Ok(status) if status.success() => Ok(()),
            other => Err(format!("kill {signal}: {other:?}")),
        }
    }

    /// Asks it to end and waits until it has: whether it ended well.
    pub fn end(&mut self) -> Result<bool, String> {
        self.signal("-TERM")?;
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().map_err(|e| e.to_string())? {
                return Ok(status.success());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(format!("{} did not end", self.role))
    }

    fn tell(&mut self, line: &str) -> Result<(), String> {
        let Some(stdin) = &mut self.stdin else { return Err("it has no stdin".into()) };
        stdin.write_all(line.as_bytes()).and_then(|()| stdin.flush()).map_err(|e| format!("{}: {e}", self.role))
    }

    /// Its books now.
    pub fn report(&mut self) -> Result<Report, String> {
        let before = self.heard("report");
        self.tell("report\n")?;
        let line = self.line("report", before + 1, PATIENCE)?;
        let mut words = line.splitn(5, ' ');
        let mut number = || words.next().and_then(|n| n.parse().ok()).unwrap_or_default();
        let (ok, not_executed, maybe, gap_ms) = (number(), number(), number(), number());
        Ok(Report { ok, not_executed, maybe, gap_ms, error: words.next().unwrap_or_default().to_owned() })
    }

    /// Of a consumer: waits until its list is so; how long after `since` it was said.
    pub fn lists(&self, what: &str, since: Instant, time: Duration, mut fits: impl FnMut(&[Listed]) -> bool) -> Result<Duration, String> {
        let said = self.said.wait("list", time, |line, _| fits(&listed(line)));
        let (_, at) = said.ok_or_else(|| format!("{} did not list within {time:?}: {what}", self.role))?;
        let took = at.saturating_duration_since(since);
        println!("  after {:>6} ms: {what}", took.as_millis());
        Ok(took)
    }

    /// How many lines of a kind it has said: `checked`, `unready`.
    pub fn heard(&self, kind: &str) -> u64 {
        self.said.lines.lock().unwrap_or_else(PoisonError::into_inner).get(kind).map_or(0, |(_, count, _)| *count)
    }

    /// The last line of a kind, waiting for `count` of them.
    pub fn line(&self, kind: &str, count: u64, time: Duration) -> Result<String, String> {
        let said = self.said.wait(kind, time, |_, said| said >= count);
        said.map(|(line, _)| line).ok_or_else(|| format!("{} said {kind:?} fewer than {count} times within {time:?}", self.role))
    }

    /// Of a consumer: the fewest instances that it listed since this was last asked; none if its list did not change.
    pub fn fewest(&self) -> Option<usize> {
        self.said.fewest.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Of a consumer: its list now.
    pub fn list(&self) -> Vec<Listed> {
        self.said.wait("list", Duration::ZERO, |_, _| true).map(|(line, _)| listed(&line)).unwrap_or_default()
    }
}

/// `tcp://127.0.0.1:7001 tcp://127.0.0.1:7002*`: a star marks a suspect.
fn listed(line: &str) -> Vec<Listed> {
    let of = |word: &str| Listed { address: word.trim_end_matches('*').to_owned(), suspect: word.ends_with('*') };
    line.split_whitespace().map(of).collect()
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}
