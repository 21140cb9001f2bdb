//! A list as a backend: in the URL, or in a file that is looked at again and again.
//!
//! `static:tcp://10.0.0.1:9000,tcp://10.0.0.2:9000[?zone=a&weight=50]`, `static:file:/etc/farcall/pay.list[?poll_ms=1000]`
//!
//! A file that is not there, is empty or has a wrong line is an error that names the line, and no list: whoever has a list keeps it.
//! It may be replaced (a rename over it) or written anew in its place; what is half-written is not taken, unless it stays so.

mod parse;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use farcall_core::{Address, Code, RpcError};
use tokio::time::sleep;

use crate::derived;
use crate::entry::{Entry, ServiceKey};
use crate::fixed::parse::{Line, MAX_FILE};
use crate::registry::{BoxFuture, Completeness, Consumer, Gone, Listing, Published, Registry, Rule, ServiceSummary, Update, Updates};
use crate::target::milliseconds;
use crate::url::RegistryUrl;

/// A file that changed is read twice, so long apart: what is still being written differs.
const SETTLE: Duration = Duration::from_millis(20);

/// A list. Read-only: to publish in it is refused.
///
/// ```
/// use farcall_registry::fixed::Static;
/// let registry = Static::open(&"static:tcp://10.0.0.1:9000,tcp://10.0.0.2:9000?zone=a".parse().unwrap()).unwrap();
/// let e = Static::open(&"static:10.0.0.1:9000".parse().unwrap()).unwrap_err();
/// assert!(e.message().contains("did you mean \"tcp://10.0.0.1:9000\"?"), "{e}");
/// ```
#[derive(Debug, Clone)]
pub struct Static(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    source: Source,
    /// How often the file was found changed.
    revision: AtomicU64,
}

#[derive(Debug)]
enum Source {
    List(Vec<Line>),
    File { path: PathBuf, poll: Duration },
}

/// What tells that a file is another one, without reading it.
type Mark = (Option<SystemTime>, u64, u64);

impl Static {
    /// Of this URL. A file need not be there yet.
    ///
    /// Parameters of a list are said of all its instances: `zone`, `tag`, `weight`, `application`. Of a file: `poll_ms`, how often it
    /// is looked at (default 1 000).
    pub fn open(url: &RegistryUrl) -> Result<Static, RpcError> {
        let source = match url.path.strip_prefix("file:") {
            Some("") => return Err(url.refuse("the file is missing; write \"static:file:/PATH\"")),
            Some(path) => {
                url.only_params(&["poll_ms", "namespace"])?;
                let path = path.strip_prefix("//").unwrap_or(path);
                Source::File { path: path.into(), poll: milliseconds(url, "poll_ms", 1000, 10, 3_600_000)? }
            }
            None => Source::List(list(url)?),
        };
        Ok(Static(Arc::new(Inner { name: url.to_string(), source, revision: AtomicU64::new(1) })))
    }
}

fn list(url: &RegistryUrl) -> Result<Vec<Line>, RpcError> {
    url.only_params(&["zone", "tag", "weight", "application", "namespace"])?;
    let mut text = String::new();
    for address in url.path.split(',') {
        let address: Address = address.trim().parse().map_err(|e: RpcError| url.refuse(e.message()))?;
        text.push_str(&address.to_string());
        for (name, value) in url.params.iter().filter(|(name, _)| *name != "namespace") {
            if value.chars().any(char::is_whitespace) {
                return Err(url.refuse(format!("parameter {name}: {value:?} has a space in it")));
            }
            text.push_str(&format!(" {name}={value}"));
        }
        text.push('\n');
    }
    parse::parse(&text).map_err(|why| url.refuse(why))
}

impl Inner {
    fn wrong(&self, why: impl std::fmt::Display) -> RpcError {
        // Somebody may put it right.
        RpcError::new(Code::Unavailable, format!("{}: {why}; the last good list stays", self.name))
    }

    /// What is listed now.
    async fn lines(&self) -> Result<Vec<Line>, RpcError> {
        match &self.source {
            Source::List(lines) => Ok(lines.clone()),
            Source::File { .. } => parse::parse(&self.text().await?).map_err(|why| self.wrong(why)),
        }
    }

    async fn text(&self) -> Result<String, RpcError> {
        let mut text = self.read().await?;
        // Bounded: one that is written without end is taken as it is.
        for _ in 0..50 {
            sleep(SETTLE).await;
            let again = self.read().await?;
            if again == text {
                break;
            }
            text = again;
        }
        String::from_utf8(text).map_err(|_| self.wrong("it is not UTF-8"))
    }

    async fn read(&self) -> Result<Vec<u8>, RpcError> {
        let Source::File { path, .. } = &self.source else { return Ok(Vec::new()) };
        let path = path.clone();
        // Files block.
        let read = farcall_rpc::runtime_handle().spawn_blocking(move || {
            let length = std::fs::metadata(&path)?.len();
            match length > MAX_FILE {
                true => Err(std::io::Error::other(format!("it has {length} bytes, more than {MAX_FILE}"))),
                false => std::fs::read(&path),
            }
        });
        match read.await {
            Ok(read) => read.map_err(|e| self.wrong(e)),
            Err(_) => Err(self.wrong("the runtime is gone")),
        }
    }

    /// Looks at the file without reading it.
    async fn mark(&self) -> Mark {
        let Source::File { path, .. } = &self.source else { return Mark::default() };
        let path = path.clone();
        let mark = farcall_rpc::runtime_handle().spawn_blocking(move || {
            let meta = std::fs::metadata(&path).ok()?;
            #[cfg(unix)]
            let inode = std::os::unix::fs::MetadataExt::ino(&meta);
            #[cfg(not(unix))]
            let inode = 0;
            Some((meta.modified().ok(), meta.len(), inode))
        });
        mark.await.ok().flatten().unwrap_or_default()
    }

    fn listing(&self, entries: Vec<Arc<Entry>>) -> Listing {
        Listing {
            entries,
            suspect: Vec::new(),
            rules: Vec::new(),
            completeness: Completeness::Complete,
            revision: self.revision.load(Ordering::Relaxed),
            epoch: 1,
        }
    }

    fn read_only<T>(&self, what: &str) -> BoxFuture<'_, Result<T, RpcError>>
    where
        T: Send + 'static,
    {
        let e = RpcError::not_executed(Code::Unimplemented, format!("{}: a static list is only read: {what}", self.name));
        Box::pin(std::future::ready(Err(e)))
    }
}

struct StaticUpdates {
    inner: Arc<Inner>,
    service: ServiceKey,
    last: Vec<Arc<Entry>>,
    mark: Mark,
    ready: VecDeque<Update>,
}

impl StaticUpdates {
    async fn wait(&mut self) -> Result<Update, RpcError> {
        loop {
            if let Some(update) = self.ready.pop_front() {
                return Ok(update);
            }
            let poll = match &self.inner.source {
                Source::List(_) => return std::future::pending().await,
                Source::File { poll, .. } => *poll,
            };
            sleep(poll).await;
            let mark = self.inner.mark().await;
            if mark == self.mark {
                continue;
            }
            let lines = self.inner.lines().await?;
            self.mark = mark;
            self.inner.revision.fetch_add(1, Ordering::Relaxed);
            let entries = parse::of_service(&lines, &self.service);
            // Whoever takes a line out means it.
            self.ready.extend(derived::changes(&self.last, &entries, Gone::Withdrawn));
            self.last = entries;
        }
    }
}

impl Updates for StaticUpdates {
    fn next(&mut self) -> BoxFuture<'_, Result<Update, RpcError>> {
        Box::pin(self.wait())
    }
}

impl Registry for Static {
    fn describe(&self) -> String {
        self.0.name.clone()
    }

    fn publish(&self, entry: Arc<Entry>) -> BoxFuture<'_, Result<Box<dyn Published>, RpcError>> {
        self.0.read_only(&format!("{} is not registered; write it into the list", entry.service))
    }

    fn list(&self, service: &ServiceKey) -> BoxFuture<'_, Result<Listing, RpcError>> {
        let service = service.clone();
        Box::pin(async move { Ok(self.0.listing(parse::of_service(&self.0.lines().await?, &service))) })
    }

    fn subscribe(&self, service: &ServiceKey, _: Option<Consumer>) -> BoxFuture<'_, Result<Box<dyn Updates>, RpcError>> {
        let service = service.clone();
        Box::pin(async move {
            // Looked at before it is read: a change in between is found.
            let mark = self.0.mark().await;
            let last = parse::of_service(&self.0.lines().await?, &service);
            let ready = VecDeque::from([Update::All(self.0.listing(last.clone()))]);
            Ok(Box::new(StaticUpdates { inner: self.0.clone(), service, last, mark, ready }) as Box<dyn Updates>)
        })
    }

    fn services(&self) -> BoxFuture<'_, Result<Vec<ServiceSummary>, RpcError>> {
        Box::pin(async move {
            let lines = self.0.lines().await?;
            let keys: std::collections::BTreeSet<ServiceKey> = lines.iter().filter_map(|line| line.service.clone()).collect();
            let summary = |service: ServiceKey| {
                let entries = parse::of_service(&lines, &service).len() as u64;
                ServiceSummary { service, entries, consumers: 0 }
            };
            Ok(keys.into_iter().map(summary).collect())
        })
    }

    fn consumers(&self, _: &ServiceKey) -> BoxFuture<'_, Result<Vec<Consumer>, RpcError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn write_rule(&self, rule: Rule) -> BoxFuture<'_, Result<(), RpcError>> {
        self.0.read_only(&format!("the rule {:?} of {} has no place in it", rule.kind, rule.service))
    }
}

#[cfg(test)]
mod tests;
