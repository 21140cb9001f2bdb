//! A client of ZooKeeper: a session that is kept, or begun anew, over whichever server answers.
//!
//! One task owns the session. Requests wait for a connection as long as their caller does. What is on its way when a connection
//! breaks fails; the session lives on and its nodes with it. A session ends only when a server says that it has: a new one is begun
//! then, and whoever held nodes of the old one sees another [`State::session`].

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use farcall_core::{Code, RpcError};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::target::Target;
use crate::zookeeper::jute::{Event, Malformed, Op, Reader, Refusal, Writer, XID_EVENT, XID_PING};
use crate::zookeeper::wire::{Hosts, Opened, Session, malformed, open, read_packet};

/// Requests that wait for the task.
const QUEUE: usize = 1024;
/// Events that a watcher may have unread; one more, and it has to read all anew.
const EVENTS: usize = 4096;
/// Longest request: the server's default limit is 1 MiB for the whole packet.
const MAX_REQUEST: usize = (1 << 20) - 1024;
/// First and longest window of the pause between attempts to connect.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How the session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct State {
    /// Its number; 0 before the first.
    pub(crate) session: i64,
    /// Grows with every connection.
    pub(crate) connection: u64,
    /// Whether there is one now.
    pub(crate) connected: bool,
    /// When the last one was made.
    pub(crate) since: Option<Instant>,
}

/// What a request came to, and in which session.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) session: i64,
    pub(crate) zxid: i64,
    pub(crate) result: Result<Vec<u8>, Refusal>,
}

impl Answer {}

/// A refusal, for people.
pub(crate) fn refused(what: &str, refusal: Refusal) -> RpcError {
    let code = match refusal {
        Refusal::NoAuth => Code::PermissionDenied,
        Refusal::AuthFailed => Code::Unauthenticated,
        Refusal::NoNode => Code::NotFound,
        Refusal::QuotaExceeded => Code::ResourceExhausted,
        Refusal::BadArguments => Code::InvalidArgument,
        Refusal::Unimplemented => Code::Unimplemented,
        _ => Code::Unavailable,
    };
    RpcError::new(code, format!("ZooKeeper: {what}: {refusal}"))
}

enum Command {
    Call { op: Op, body: Vec<u8>, reply: oneshot::Sender<Answer> },
    Watch { path: String, id: u64, events: mpsc::Sender<Event> },
    Unwatch { path: String, id: u64 },
}

/// A handle on the session. When the last one is dropped, the session is closed, and its nodes go.
#[derive(Debug)]
pub(crate) struct Client {
    commands: mpsc::Sender<Command>,
    unwatch: mpsc::UnboundedSender<Command>,
    state: watch::Receiver<State>,
    patience: Duration,
    name: String,
    why: watch::Receiver<Option<String>>,
}

/// Events below a path, as long as it lives.
#[derive(Debug)]
pub(crate) struct Watching {
    path: String,
    id: u64,
    pub(crate) events: mpsc::Receiver<Event>,
    unwatch: mpsc::UnboundedSender<Command>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        // No task any more: nothing is watched.
        self.unwatch.send(Command::Unwatch { path: std::mem::take(&mut self.path), id: self.id }).ok();
    }
}

/// What a client is made with.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) target: Target,
    /// How long a session is to outlive its connection.
    pub(crate) session: Duration,
    /// How long one request may take, waiting for a connection included.
    pub(crate) patience: Duration,
}

impl Client {
    /// Begins at once to connect.
    pub(crate) fn start(settings: Settings) -> Client {
        let (commands, queue) = mpsc::channel(QUEUE);
        let (unwatch, unwatched) = mpsc::unbounded_channel();
        let (state, seen_state) = watch::channel(State::default());
        let (why, seen_why) = watch::channel(None);
        let auth = settings.target.user.as_ref().map(|(user, password)| format!("{user}:{password}").into_bytes());
        let driver = Driver {
            hosts: Hosts::new(&settings.target),
            wanted: settings.session,
            auth,
            session: Session::default(),
            queue,
            unwatched,
            state,
            why,
            watchers: HashMap::new(),
        };
        let (patience, name) = (settings.patience, settings.target.name.clone());
        farcall_rpc::runtime_handle().spawn(driver.run());
        Client { commands, unwatch, state: seen_state, patience, name, why: seen_why }
    }

    /// How the session is, and when that changes.
    pub(crate) fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// When the last connection was made; now, if there was none.
    pub(crate) fn connected_since(&self) -> Instant {
        self.state.borrow().since.unwrap_or_else(Instant::now)
    }

    /// Makes a request and waits for its answer.
    pub(crate) async fn call(&self, op: Op, write: impl FnOnce(&mut Writer) -> &mut Writer) -> Result<Answer, RpcError> {
        self.finish(self.begin(op, write)?).await
    }

    /// The request, not yet under way: several may be begun before the first is finished.
    pub(crate) fn begin(&self, op: Op, write: impl FnOnce(&mut Writer) -> &mut Writer) -> Result<Begun, RpcError> {
        let mut body = Writer::default();
        write(&mut body);
        if body.len() > MAX_REQUEST {
            return Err(RpcError::not_sent(
                Code::ResourceExhausted,
                format!("ZooKeeper: a request of {} bytes, more than 1 MiB", body.len()),
            ));
        }
        let (reply, answer) = oneshot::channel();
        let command = Command::Call { op, body: body.body(), reply };
        match self.commands.try_send(command) {
            Ok(()) => Ok(Begun(answer)),
            Err(mpsc::error::TrySendError::Full(_)) => Err(self.unreachable(&format!("{QUEUE} requests wait already"))),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(self.unreachable("its runtime is gone")),
        }
    }

    /// Waits for the answer to what was begun.
    pub(crate) async fn finish(&self, begun: Begun) -> Result<Answer, RpcError> {
        match timeout(self.patience, begun.0).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(self.unreachable("the connection broke before it answered")),
            Err(_) => Err(self.unreachable(&format!("no answer within {:?}", self.patience))),
        }
    }

    /// Events at a path and below, from now on. The server has to be told by a request of its own.
    pub(crate) async fn watching(&self, path: &str) -> Result<Watching, RpcError> {
        let (events, seen) = mpsc::channel(EVENTS);
        let id = crate::random::number();
        let command = Command::Watch { path: path.to_owned(), id, events };
        match timeout(self.patience, self.commands.send(command)).await {
            Ok(Ok(())) => Ok(Watching { path: path.to_owned(), id, events: seen, unwatch: self.unwatch.clone() }),
            _ => Err(self.unreachable("the request could not be queued")),
        }
    }

    fn unreachable(&self, what: &str) -> RpcError {
        let why = self.why.borrow().clone();
        let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
        RpcError::new(Code::Unavailable, format!("{}: {what}{why}", self.name))
    }
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Begun(oneshot::Receiver<Answer>);

/// Who watches a path.
type Watchers = HashMap<String, Vec<(u64, mpsc::Sender<Event>)>>;

struct Driver {
    hosts: Hosts,
    wanted: Duration,
    auth: Option<Vec<u8>>,
    session: Session,
    queue: mpsc::Receiver<Command>,
    unwatched: mpsc::UnboundedReceiver<Command>,
    state: watch::Sender<State>,
    /// Why there is no connection, for people.
    why: watch::Sender<Option<String>>,
    watchers: Watchers,
}

/// Why a connection is no longer used.
enum End {
    /// Nobody holds the client.
    Closed,
    /// It broke.
    Broken(io::Error),
}

impl Driver {
    async fn run(mut self) {
        let mut failures = 0u32;
        while !self.queue.is_closed() {
            let place = self.hosts.next().to_owned();
            let patience = (self.wanted / 3).clamp(Duration::from_millis(500), Duration::from_secs(5));
            let began = Instant::now();
            match open(&place, &self.session, self.wanted, self.auth.as_deref(), patience).await {
                Ok(Opened::Expired) => {
                    self.session = Session { seen: 0, ..Session::default() };
                    self.state.send_modify(|state| state.session = 0);
                    // At once, unless it is always so.
                    failures += 1;
                    if failures < 3 {
                        continue;
                    }
                }
                Ok(Opened::Connected(stream, session)) => {
                    match self.serve(stream, session).await {
                        End::Closed => return,
                        End::Broken(e) => self.why.send_replace(Some(format!("{place}: {e}"))),
                    };
                    // One that was good for a while is replaced at once.
                    failures = if began.elapsed() > self.wanted / 3 { 0 } else { failures + 1 };
                }
                Err(e) => {
                    self.why.send_replace(Some(format!("{place}: {e}")));
                    failures += 1;
                    // A server that lacks changes we saw hangs up on us. One may lag; if all do, their data was taken away, and they
                    // would do so for ever.
                    if e.kind() == io::ErrorKind::UnexpectedEof && failures as usize >= self.hosts.count() {
                        self.session.seen = 0;
                    }
                }
            }
            // All hosts are tried before a pause.
            let rounds = failures / self.hosts.count().max(1) as u32;
            if rounds > 0 {
                // Not so long that a session ends that its server would still have.
                sleep(crate::random::pause(rounds - 1, PAUSES.0, PAUSES.1.min(self.wanted / 3))).await;
            }
        }
    }

    /// Uses a connection until it breaks or nobody holds the client.
    async fn serve(&mut self, stream: TcpStream, session: Session) -> End {
        self.session = session;
        let id = self.session.id;
        self.why.send_replace(None);
        self.state.send_modify(|state| {
            *state = State { session: id, connection: state.connection + 1, connected: true, since: Some(Instant::now()) }
        });
        let end = self.exchange(stream).await;
        self.state.send_modify(|state| state.connected = false);
        // Events between this connection and the next are missed: all read anew then.
        end
    }

    async fn exchange(&mut self, stream: TcpStream) -> End {
        let (mut from, mut to) = stream.into_split();
        // Packets are read by a task of its own: half a packet must not be lost to a timer.
        let (arrived, mut packets) = mpsc::channel(8);
        let reading = tokio::spawn(async move {
            loop {
                let packet = read_packet(&mut from).await;
                let ended = packet.is_err();
                if arrived.send(packet).await.is_err() || ended {
                    return;
                }
            }
        });
        let reading = AbortOnDrop(reading);
        let mut connection =
            Connection { pending: VecDeque::new(), xid: 0, heard: Instant::now(), told: Instant::now(), timeout: self.session.timeout };
        let end = loop {
            let turn = tokio::select! {
                packet = packets.recv() => self.on_packet(&mut connection, packet),
                command = self.queue.recv() => match command {
                    None => {
                        let request = Writer::request(connection.next_xid(), Op::CloseSession);
                        // The session ends by itself if this does not arrive.
                        timeout(Duration::from_secs(1), to.write_all(&request.packet())).await.ok();
                        timeout(Duration::from_secs(1), packets.recv()).await.ok();
                        break End::Closed;
                    }
                    Some(command) => self.on_command(&mut connection, command),
                },
                Some(command) = self.unwatched.recv() => self.on_command(&mut connection, command),
                () = sleep_until(connection.due()) => connection.on_time(),
            };
            let wrote = match turn {
                Ok(bytes) if bytes.is_empty() => continue,
                Ok(bytes) => {
                    connection.told = Instant::now();
                    timeout(connection.timeout, to.write_all(&bytes)).await
                }
                Err(e) => break End::Broken(e),
            };
            match wrote {
                Ok(Ok(())) => {}
                Ok(Err(e)) => break End::Broken(e),
                Err(_) => break End::Broken(io::Error::new(io::ErrorKind::TimedOut, "it does not read")),
            }
        };
        drop(reading);
        end
    }

    /// What is to be written.
    fn on_command(&mut self, connection: &mut Connection, command: Command) -> io::Result<Vec<u8>> {
        match command {
            // Its caller has given up: it must not happen behind their back.
            Command::Call { reply, .. } if reply.is_closed() => Ok(Vec::new()),
            Command::Call { op, body, reply } => {
                let xid = connection.next_xid();
                connection.pending.push_back((xid, Some(reply)));
                let mut request = Writer::request(xid, op);
                request.raw(&body);
                Ok(request.packet())
            }
            Command::Watch { path, id, events } => {
                self.watchers.entry(path).or_default().push((id, events));
                Ok(Vec::new())
            }
            Command::Unwatch { path, id } => Ok(self.unwatch(connection, path, id)),
        }
    }

    fn unwatch(&mut self, connection: &mut Connection, path: String, id: u64) -> Vec<u8> {
        let Some(watchers) = self.watchers.get_mut(&path) else { return Vec::new() };
        watchers.retain(|(other, _)| *other != id);
        if !watchers.is_empty() {
            return Vec::new();
        }
        self.watchers.remove(&path);
        const ANY: i32 = 3;
        let xid = connection.next_xid();
        connection.pending.push_back((xid, None));
        let mut request = Writer::request(xid, Op::RemoveWatches);
        request.text(&path).int(ANY);
        request.packet()
    }

    fn on_packet(&mut self, connection: &mut Connection, packet: Option<io::Result<Vec<u8>>>) -> io::Result<Vec<u8>> {
        let packet = packet.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))?;
        connection.heard = Instant::now();
        self.take_packet(connection, &packet).map_err(|Malformed| malformed())??;
        Ok(Vec::new())
    }

    fn take_packet(&mut self, connection: &mut Connection, packet: &[u8]) -> Result<io::Result<()>, Malformed> {
        let mut reader = Reader(packet);
        let (xid, zxid, code) = (reader.int()?, reader.long()?, reader.int()?);
        match xid {
            XID_EVENT => {
                self.tell(Event::read(&mut reader)?);
                return Ok(Ok(()));
            }
            XID_PING => return Ok(Ok(())),
            _ => {}
        }
        // In the order of the requests, or it is not ZooKeeper.
        let (_, reply) = connection.pending.pop_front().filter(|(expected, _)| *expected == xid).ok_or(Malformed)?;
        self.session.seen = self.session.seen.max(zxid);
        let refusal = Refusal::from_code(code);
        if refusal == Some(Refusal::SessionExpired) {
            return Ok(Err(io::Error::other("the session is over")));
        }
        if let Some(reply) = reply {
            let result = refusal.map_or_else(|| Ok(reader.0.to_vec()), Err);
            // Its caller may be gone.
            reply.send(Answer { session: self.session.id, zxid, result }).ok();
        }
        Ok(Ok(()))
    }

    /// To those who watch the path or one above it.
    fn tell(&mut self, event: Event) {
        let mut path = event.path.as_str();
        loop {
            if let Some(watchers) = self.watchers.get_mut(path) {
                // Who does not keep up is left out: its end of the channel tells it to read all anew.
                watchers.retain(|(_, events)| events.try_send(event.clone()).is_ok());
            }
            match path.rsplit_once('/') {
                Some((above, _)) => path = above,
                None => return,
            }
        }
    }
}

/// What is under way on a connection.
struct Connection {
    /// Numbers of requests, oldest first, and who waits.
    pending: VecDeque<(i32, Option<oneshot::Sender<Answer>>)>,
    xid: i32,
    heard: Instant,
    told: Instant,
    /// The session's.
    timeout: Duration,
}

impl Connection {
    fn next_xid(&mut self) -> i32 {
        self.xid = if self.xid == i32::MAX { 1 } else { self.xid + 1 };
        self.xid
    }

    /// When to say something, or to give up.
    fn due(&self) -> Instant {
        (self.told + self.timeout / 3).min(self.heard + self.timeout * 2 / 3)
    }

    fn on_time(&mut self) -> io::Result<Vec<u8>> {
        let now = Instant::now();
        if now >= self.heard + self.timeout * 2 / 3 {
            // Late enough, and early enough to find another server before the session ends.
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it is silent"));
        }
        if now < self.told + self.timeout / 3 {
            return Ok(Vec::new());
        }
        Ok(Writer::request(XID_PING, Op::Ping).packet())
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A handle that many hold.
pub(crate) type Shared = Arc<Client>;
