//! An order desk, whichever version of `Order` its clients speak: the one place that knows both.

use farcall::{Call, Method};

use crate::api::{Order, OrderError, OrdersClient, Outcome, Status, orders_v2};
use crate::generate::Want;

/// A client of order desks.
pub(super) trait Sells: Clone + Send + Sync + 'static {
    /// Places what is wanted.
    fn place(&self, want: Want) -> Call<impl Method<Out = Outcome, Err = OrderError>>;
    /// Asks how far an order is.
    fn status(&self, order: u64) -> Call<impl Method<Out = Status, Err = OrderError>>;
    /// What this version can say of a gift.
    fn gift(want: &Want) -> Option<String>;
}

impl Sells for OrdersClient {
    fn place(&self, want: Want) -> Call<impl Method<Out = Outcome, Err = OrderError>> {
        let Want { id, card, item, pieces, .. } = want;
        self.place(Order { id, card, item, pieces })
    }

    fn status(&self, order: u64) -> Call<impl Method<Out = Status, Err = OrderError>> {
        self.status(order)
    }

    fn gift(_: &Want) -> Option<String> {
        None
    }
}

impl Sells for orders_v2::OrdersClient {
    fn place(&self, want: Want) -> Call<impl Method<Out = Outcome, Err = OrderError>> {
        let Want { id, card, item, pieces, gift } = want;
        self.place(orders_v2::Order { id, payment_card: card, item: item.into(), pieces, gift })
    }

    fn status(&self, order: u64) -> Call<impl Method<Out = Status, Err = OrderError>> {
        self.status(order)
    }

    fn gift(want: &Want) -> Option<String> {
        want.gift.clone()
    }
}
