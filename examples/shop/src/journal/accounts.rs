//! What has happened, as a value: a question is answered with the event that it makes, if it makes one.

use std::collections::BTreeMap;

use crate::api::{CallBook, Charge, JournalLedger, OrderError, OrderLine, Parcel, PayError, Receipt, Shelf, ShipError, Status};
use crate::wares::{WARES, Ware};

/// Cards whose numbers end so are declined.
pub(crate) const DECLINED_ENDING: &str = "0002";
/// No card is good for more.
const CARD_LIMIT: u64 = 10_000_000;

/// Something that happened.
#[farcall::data]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    Opened(OrderLine),
    Marked { order: u64, status: Status },
    Charged { order: u64, cents: u64 },
    Declined { order: u64, reason: String },
    Refunded { order: u64 },
    Shipped(Parcel),
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    orders: BTreeMap<u64, OrderLine>,
    till: u64,
    charges: BTreeMap<u64, Vec<Charge>>,
    declined: BTreeMap<u64, String>,
    shelves: Vec<Shelf>,
    parcels: BTreeMap<u64, Parcel>,
    forgetful: bool,
}

impl Accounts {
    pub(super) fn new(pieces: u32, forgetful: bool) -> Accounts {
        let shelf = |ware: &Ware| {
            let initial = (u64::from(pieces) * u64::from(ware.share) / 100).try_into().unwrap_or(u32::MAX);
            Shelf { initial, left: initial }
        };
        Accounts { shelves: WARES.iter().map(shelf).collect(), forgetful, ..Accounts::default() }
    }

    /// Lets it happen.
    pub(super) fn apply(&mut self, event: Event) {
        match event {
            Event::Opened(line) => drop(self.orders.insert(line.order, line)),
            Event::Marked { order, status } => {
                if let Some(line) = self.orders.get_mut(&order) {
                    line.status = status;
                }
            }
            Event::Charged { order, cents } => {
                self.till += cents;
                self.charges.entry(order).or_default().push(Charge { order, cents, refunded: false });
            }
            Event::Declined { order, reason } => drop(self.declined.insert(order, reason)),
            Event::Refunded { order } => {
                if let Some(charge) = self.charges.get_mut(&order).and_then(|charges| charges.first_mut()) {
                    charge.refunded = true;
                    self.till = self.till.saturating_sub(charge.cents);
                }
            }
            Event::Shipped(parcel) => {
                if let Some(shelf) = self.shelves.get_mut(usize::from(parcel.item)) {
                    shelf.left = shelf.left.saturating_sub(parcel.pieces);
                }
                self.parcels.insert(parcel.order, parcel);
            }
        }
    }

    pub(super) fn open(&self, order: OrderLine) -> Result<Option<Event>, OrderError> {
        match self.orders.get(&order.order) {
            None => Ok(Some(Event::Opened(order))),
            // Another desk may have taken it, and it may be further by now.
            Some(taken) if (taken.item, taken.pieces) == (order.item, order.pieces) => Ok(None),
            Some(_) => Err(OrderError::Taken { order: order.order }),
        }
    }

    pub(super) fn mark(&self, order: u64, status: Status) -> Option<Event> {
        (self.status(order).ok()? != status).then_some(Event::Marked { order, status })
    }

    pub(super) fn status(&self, order: u64) -> Result<Status, OrderError> {
        self.orders.get(&order).map(|line| line.status).ok_or(OrderError::Unknown { order })
    }

    /// What a charge makes happen: nothing, if it was asked for before.
    pub(super) fn charge(&self, order: u64, card: &str, cents: u64) -> Option<Event> {
        let known = self.charges.contains_key(&order) && !self.forgetful;
        if known || self.declined.contains_key(&order) {
            return None;
        }
        Some(match decline(card, cents) {
            Some(reason) => Event::Declined { order, reason: reason.to_owned() },
            None => Event::Charged { order, cents },
        })
    }

    pub(super) fn refund(&self, order: u64) -> Option<Event> {
        let charge = self.charges.get(&order)?.first()?;
        (!charge.refunded).then_some(Event::Refunded { order })
    }

    /// What became of an order's money.
    pub(super) fn receipt(&self, order: u64) -> Result<Receipt, PayError> {
        if let Some(reason) = self.declined.get(&order) {
            return Err(PayError::Declined { reason: reason.clone() });
        }
        let charge = self.charges.get(&order).and_then(|charges| charges.first()).ok_or(PayError::NeverPaid { order })?;
        Ok(Receipt { order, cents: charge.cents })
    }

    pub(super) fn balance(&self) -> u64 {
        self.till
    }

    /// The parcel of an order, and what it makes happen: nothing, if it was shipped before.
    pub(super) fn ship(&self, order: u64, item: u16, pieces: u32) -> Result<(Parcel, Option<Event>), ShipError> {
        if let Some(parcel) = self.parcels.get(&order) {
            return Ok((parcel.clone(), None));
        }
        let shelf = self.shelves.get(usize::from(item)).ok_or(ShipError::NoSuchItem { item })?;
        if shelf.left < pieces {
            return Err(ShipError::OutOfStock { item, left: shelf.left });
        }
        let parcel = Parcel { number: self.parcels.len() as u64 + 1, order, item, pieces };
        Ok((parcel.clone(), Some(Event::Shipped(parcel))))
    }

    pub(super) fn shelves(&self) -> &[Shelf] {
        &self.shelves
    }

    pub(super) fn ledger(&self, book: CallBook) -> JournalLedger {
        JournalLedger {
            orders: self.orders.values().cloned().collect(),
            till: self.till,
            charges: self.charges.values().flatten().cloned().collect(),
            declined: self.declined.len() as u64,
            shelves: self.shelves.clone(),
            parcels: self.parcels.values().cloned().collect(),
            book,
        }
    }
}

/// What the bank says.
fn decline(card: &str, cents: u64) -> Option<&'static str> {
    match cents {
        0 => Some("nothing to pay"),
        1..=CARD_LIMIT if card.ends_with(DECLINED_ENDING) => Some("insufficient funds"),
        1..=CARD_LIMIT => None,
        _ => Some("over the card's limit"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happens(accounts: &mut Accounts, event: Option<Event>) -> bool {
        let some = event.is_some();
        event.into_iter().for_each(|event| accounts.apply(event));
        some
    }

    #[test]
    fn money_comes_once_and_goes_once() {
        let mut accounts = Accounts::default();
        for first in [true, false] {
            let event = accounts.charge(1, "4242", 500);
            assert_eq!(happens(&mut accounts, event), first);
            assert_eq!((accounts.receipt(1), accounts.balance()), (Ok(Receipt { order: 1, cents: 500 }), 500));
        }
        for first in [true, false] {
            let event = accounts.refund(1);
            assert_eq!((happens(&mut accounts, event), accounts.balance()), (first, 0));
        }
        assert_eq!((accounts.refund(2), accounts.receipt(2)), (None, Err(PayError::NeverPaid { order: 2 })));
        // What was declined stays so, with whichever card it is asked for again.
        for (card, first) in [("0002", true), ("4242", false)] {
            let event = accounts.charge(3, card, 500);
            assert_eq!(happens(&mut accounts, event), first);
            assert_eq!(accounts.receipt(3), Err(PayError::Declined { reason: "insufficient funds".to_owned() }));
        }
    }

    #[test]
    fn who_forgets_charges_twice() {
        let mut accounts = Accounts::new(0, true);
        for _ in 0..2 {
            let event = accounts.charge(1, "4242", 500);
            assert!(happens(&mut accounts, event));
        }
        assert_eq!((accounts.balance(), accounts.ledger(CallBook::default()).charges.len()), (1000, 2));
    }

    #[test]
    fn an_order_number_is_one_order() {
        let mut accounts = Accounts::default();
        let line = |item, desk| OrderLine { order: 7, item, pieces: 2, cents: 0, gift: None, desk, status: Status::Placed };
        let event = accounts.open(line(5, 1)).unwrap();
        assert!(happens(&mut accounts, event));
        assert_eq!(accounts.open(line(5, 2)), Ok(None), "the same, at another desk");
        assert_eq!(accounts.open(line(6, 1)), Err(OrderError::Taken { order: 7 }));
        let event = accounts.mark(7, Status::Paid);
        assert!(happens(&mut accounts, event));
        assert_eq!((accounts.status(7), accounts.mark(7, Status::Paid)), (Ok(Status::Paid), None));
        assert_eq!((accounts.status(8), accounts.mark(8, Status::Paid)), (Err(OrderError::Unknown { order: 8 }), None));
    }

    #[test]
    fn a_shelf_runs_empty_and_says_so() {
        let mut accounts = Accounts::new(4, false);
        let (parcel, event) = accounts.ship(7, 1, 2).unwrap();
        assert_eq!(parcel, Parcel { number: 1, order: 7, item: 1, pieces: 2 });
        assert!(happens(&mut accounts, event));
        assert_eq!(accounts.ship(7, 1, 2), Ok((parcel, None)), "the same parcel");
        assert_eq!(accounts.ship(8, 1, 2), Err(ShipError::OutOfStock { item: 1, left: 1 }));
        assert_eq!(accounts.ship(9, 99, 1), Err(ShipError::NoSuchItem { item: 99 }));
        assert_eq!(accounts.ship(10, 1, 1).map(|(parcel, _)| parcel.number), Ok(2));
    }

    #[test]
    fn cards_are_declined_with_a_reason() {
        for (card, cents, expected) in [
            ("4242", 0, Some("nothing to pay")),
            ("4000-0002", 1, Some("insufficient funds")),
            ("4242", CARD_LIMIT, None),
            ("4242", u64::MAX, Some("over the card's limit")),
        ] {
            assert_eq!(decline(card, cents), expected, "{card} {cents}");
        }
    }
}
