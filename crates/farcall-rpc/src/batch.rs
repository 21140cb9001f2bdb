//! Several calls in one write.

use crate::call::Call;
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

/// Makes several calls at once. Those on one connection leave in one write; each has its own reply.
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
        let mut corks: Vec<Cork> = Vec::new();
        for connection in self.iter().filter_map(Call::connection) {
            // Nearly always all calls are on one.
            if !corks.iter().any(|cork| cork.holds(&connection)) {
                corks.push(connection.cork());
            }
        }
        let sent: Vec<_> = self.into_iter().map(Call::send).collect();
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

macro_rules! tuples {
    ($($($m:ident $v:ident),+;)+) => { $(
        impl<$($m: Method),+> Batch for ($(Call<$m>,)+) {
            type Replies = ($(Reply<$m::Out, $m::Err>,)+);

            fn run(self) -> impl Future<Output = Self::Replies> + Send {
                let ($($v,)+) = self;
                let corks = [$($v.connection().map(|c| c.cork())),+];
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
