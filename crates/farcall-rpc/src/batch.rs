//! Several calls in one write.

use std::sync::Arc;

use crate::call::Call;
use crate::channel::Channel;
use crate::connection::Cork;
use crate::method::Method;
use farcall_core::Reply;

/// Calls that can be made together: tuples of up to eight, and `Vec`s of one method.
pub trait Batch {
    /// The replies, in the order of the calls.
    type Replies;
    /// Makes them.
    fn run(self) -> impl Future<Output = Self::Replies> + Send;
}

/// Makes several calls at once. Those of one channel leave in one write; each has its own reply.
/// For many calls on one connection this saves a system call per call; see also [`Call::send`].
/// Calls beyond the provider's limit `in_flight` (65 536 by default) are refused, not queued.
///
/// ```ignore
/// let (a, b) = farcall::batch((stock.level(1), stock.level(2))).await;
/// ```
pub async fn batch<B: Batch>(calls: B) -> B::Replies {
    calls.run().await
}

impl<M: Method> Batch for Vec<Call<M>> {
    type Replies = Vec<Reply<M::Out, M::Err>>;

    fn run(self) -> impl Future<Output = Self::Replies> + Send {
        let (mut calls, mut corks) = (self, Corks::default());
        calls.iter_mut().for_each(|call| corks.hold(call));
        let sent: Vec<_> = calls.into_iter().map(Call::send).collect();
        drop(corks);
        async move {
            let mut replies = Vec::with_capacity(sent.len());
            for call in sent {
                replies.push(call.await);
            }
            replies
        }
    }
}

/// What holds back the writes of a batch: a cork per channel, in the connection that all its calls
/// take.
#[derive(Default)]
struct Corks {
    /// Nearly always the only one: it costs no allocation.
    first: Option<(Channel, Cork)>,
    others: Vec<(Channel, Cork)>,
}

impl Corks {
    fn hold<M: Method>(&mut self, call: &mut Call<M>) {
        let channel = call.channel();
        if self.of(channel).is_none()
            && let Some(connection) = channel.connection()
        {
            let cork = (channel.clone(), connection.cork());
            match &self.first {
                None => self.first = Some(cork),
                Some(_) => self.others.push(cork),
            }
        }
        if channel.has_several()
            && let Some(cork) = self.of(channel)
        {
            call.take(Arc::clone(cork.connection()));
        }
    }

    fn of(&self, channel: &Channel) -> Option<&Cork> {
        self.first.iter().chain(&self.others).find(|(other, _)| other.is(channel)).map(|(_, cork)| cork)
    }
}

macro_rules! tuples {
    ($($($m:ident $v:ident),+;)+) => { $(
        impl<$($m: Method),+> Batch for ($(Call<$m>,)+) {
            type Replies = ($(Reply<$m::Out, $m::Err>,)+);

            fn run(self) -> impl Future<Output = Self::Replies> + Send {
                let mut corks = Corks::default();
                let ($(mut $v,)+) = self;
                $(corks.hold(&mut $v);)+
                $(let $v = $v.send();)+
                drop(corks);
                async move { ($($v.await,)+) }
            }
        }
    )+ };
}

tuples! {
    A a;
    A a, B b;
    A a, B b, C c;
    A a, B b, C c, D d;
    A a, B b, C c, D d, E e;
    A a, B b, C c, D d, E e, F f;
    A a, B b, C c, D d, E e, F f, G g;
    A a, B b, C c, D d, E e, F f, G g, H h;
}
