//! For tests: a client and a server in one test without sockets, servers that answer what the test says, and time
//! that the test turns.
//!
//! ```ignore
//! let mock = Mock::of::<PaymentClient>()
//!     .on::<Payment_status>(|args| Ok(Status::Paid { cents: args.id * 100 }))
//!     .once::<Payment_pay>(|_| Err(RpcError::new(Code::Unavailable, "the bank is closed").into()))
//!     .delay::<Payment_pay>(Duration::from_secs(5));
//! let (payment, _server) = pair::<PaymentClient>(Server::builder().serve(mock.clone())).await?;
//! // The test.
//! assert_eq!(mock.calls::<Payment_pay>()[0].order.id, 7);
//! ```
//!
//! **Virtual time.** With this feature connections, deadlines, heartbeats, reconnects and limits run on tokio's clock:
//! in a test under `#[tokio::test(start_paused = true)]` a deadline of an hour passes at once, and always in the same
//! order, because time goes on only when nothing else is to be done. It holds for links in memory ([`pair`], `mem:`
//! addresses): over sockets tokio does not know that something is on its way. What goes by the calendar (when tokens
//! expire) and blocking `wait()` keep real time.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farcall_core::{Code, Credentials, Reply, RpcError, ServiceDescriptor};

use crate::channel::{Channel, Connect};
use crate::early::Arguments;
use crate::method::{BoxFuture, Method, Stub};
use crate::server::{Server, ServerBuilder};
use crate::skeleton::{Incoming, Runner, Skeleton, runner};

/// Starts `server` on an address of its own in memory and connects a client to it. All that is on a real connection is
/// here, too: frames, method tables, limits, roles (further clients are connected to [`Server::address`]).
pub async fn pair<C: From<Channel> + 'static>(server: ServerBuilder) -> Result<(C, Server), RpcError> {
    pair_as(server, None).await
}

/// As [`pair`], with a server that asks who calls: the client shows these credentials.
///
/// ```ignore
/// let server = Server::builder().serve(BankServer::new(Vault)).authenticate(Tokens::new().token("t1", Identity::new("ann").role("teller")));
/// let (bank, _server) = pair_as::<BankClient>(server, Credentials::bearer("t1")).await?;
/// ```
pub async fn pair_as<C: From<Channel> + 'static>(
    server: ServerBuilder,
    credentials: impl Into<Option<Credentials>>,
) -> Result<(C, Server), RpcError> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let address = format!("mem:farcall-testing-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let server = server.listen(&address).await?;
    let mut connect = Connect::to(&address);
    if let Some(credentials) = credentials.into() {
        connect = connect.credentials(credentials);
    }
    Ok((connect.await?, server))
}

/// Takes a call: its arguments as bytes, and what answers it.
type Answer = Box<dyn FnMut(Incoming) -> (Vec<u8>, BoxFuture<'static, ()>) + Send>;

/// A server of one service that answers what the test says and writes down what it is asked. Clones are the same
/// mock: keep one to look into it. It asks for no roles: who may call what is the real provider's to say, and tested with it.
#[derive(Clone)]
pub struct Mock {
    service: &'static ServiceDescriptor,
    /// Without roles.
    served: Arc<ServiceDescriptor>,
    methods: Arc<Mutex<HashMap<u16, Told>>>,
}

/// What a mock was told and has seen of a method.
#[derive(Default)]
struct Told {
    once: VecDeque<Answer>,
    always: Option<Answer>,
    delay: Duration,
    /// Arguments, as bytes.
    calls: Vec<Vec<u8>>,
}

impl Mock {
    /// A mock of the service of this client. A method that it is told nothing about fails as `Unimplemented`.
    pub fn of<C: Stub>() -> Mock {
        let service = C::descriptor();
        let mut served = service.clone();
        served.methods.iter_mut().for_each(|method| method.roles.clear());
        Mock { service, served: Arc::new(served), methods: Arc::default() }
    }

    /// Answers every call of `M` with what `answer` makes of its arguments. A stream of arguments is not read. The caller sees an
    /// [`RpcError`] as it is, with its [`Certainty`](farcall_core::Certainty): other than a handler, a mock may say that the call was not executed.
    pub fn on<M: Method>(self, answer: impl FnMut(M::Args) -> Reply<M::Out, M::Err> + Send + 'static) -> Mock {
        self.tell::<M>(|told| told.always = Some(answering::<M>(answer)))
    }

    /// Answers the next call of `M` so, before what [`on`](Mock::on) says. Several are used up in their order.
    pub fn once<M: Method>(self, answer: impl FnMut(M::Args) -> Reply<M::Out, M::Err> + Send + 'static) -> Mock {
        self.tell::<M>(|told| told.once.push_back(answering::<M>(answer)))
    }

    /// Takes this long for every answer of `M`.
    pub fn delay<M: Method>(self, time: Duration) -> Mock {
        self.tell::<M>(|told| told.delay = time)
    }

    /// The arguments of the calls of `M` so far, in the order in which they came; of a method with a borrowed parameter,
    /// `read()` shows them.
    pub fn calls<M: Method>(&self) -> Vec<M::Args> {
        let methods = self.methods();
        let calls = methods.get(&M::INDEX).map_or(&[][..], |told| &told.calls);
        calls.iter().filter_map(|args| <M::Args as Arguments<M>>::kept(args)).collect()
    }

    /// An error that names the methods that were to be called [once](Mock::once) more and were not.
    pub fn finished(&self) -> Result<(), RpcError> {
        let methods = self.methods();
        let waiting = methods.iter().filter(|(_, told)| !told.once.is_empty());
        let mut left: Vec<_> =
            waiting.map(|(row, told)| format!("{} ({} more)", self.service.full_name(*row as usize), told.once.len())).collect();
        left.sort_unstable();
        match left.is_empty() {
            true => Ok(()),
            false => Err(RpcError::new(Code::FailedPrecondition, format!("not called as often as was said: {}", left.join(", ")))),
        }
    }

    fn methods(&self) -> MutexGuard<'_, HashMap<u16, Told>> {
        self.methods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell<M: Method>(self, tell: impl FnOnce(&mut Told)) -> Mock {
        let (own, other) = (&self.service.name, &M::service().name);
        assert!(std::ptr::eq(M::service(), self.service), "this mock is of {own}: it cannot be told of a method of {other}");
        tell(self.methods().entry(M::INDEX).or_default());
        self
    }

    /// What answers a call, and after which time; the call itself if nobody said.
    fn take(&self, call: Incoming) -> Result<(BoxFuture<'static, ()>, Duration), Incoming> {
        let mut methods = self.methods();
        let Some(told) = methods.get_mut(&call.method()) else { return Err(call) };
        let mut once = told.once.pop_front();
        let Some(answer) = once.as_mut().or(told.always.as_mut()) else { return Err(call) };
        let (args, answering) = answer(call);
        told.calls.push(args);
        Ok((answering, told.delay))
    }
}

/// What answers calls of `M` by this function, which runs when all else is done.
fn answering<M: Method>(answer: impl FnMut(M::Args) -> Reply<M::Out, M::Err> + Send + 'static) -> Answer {
    let answer = Arc::new(Mutex::new(answer));
    Box::new(move |call: Incoming| match <M::Args as Arguments<M>>::received(&call) {
        Ok(args) => {
            let (seen, answer) = (args.keep(), Arc::clone(&answer));
            let reply = async move {
                let reply = (answer.lock().unwrap_or_else(PoisonError::into_inner))(args);
                call.answer::<M>(reply, |error| error);
            };
            (seen, Box::pin(reply))
        }
        Err(error) => (Vec::new(), Box::pin(async move { call.fail(&error) })),
    })
}

impl Skeleton for Mock {
    fn descriptor(&self) -> &ServiceDescriptor {
        &self.served
    }

    fn runner(&self) -> Box<dyn Runner> {
        runner(Arc::new(self.clone()), |mock: Arc<Mock>, call| async move {
            match mock.take(call) {
                Ok((answering, delay)) => {
                    if !delay.is_zero() {
                        tokio::time::sleep(delay).await;
                    }
                    answering.await;
                }
                Err(call) => {
                    let method = mock.service.full_name(call.method() as usize);
                    call.fail(&RpcError::not_executed(Code::Unimplemented, format!("the mock was not told what {method} answers")));
                }
            }
        })
    }
}

impl std::fmt::Debug for Mock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mock({})", self.service.name)
    }
}
