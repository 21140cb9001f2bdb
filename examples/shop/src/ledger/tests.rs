//! Right books pass; every wrong number is named.

use super::{Area, Books, Pair, check};
use crate::api::*;

fn call(method: &str, ok: u64, app_error: u64) -> CallCount {
    CallCount { method: method.to_owned(), attempted: ok + app_error, ok, app_error, not_executed: 0, uncertain: 0 }
}

fn run(method: &str, ok: u64, app_error: u64) -> RunCount {
    RunCount { method: method.to_owned(), ok, app_error, failed: 0 }
}

/// Three orders: one shipped, one declined, one refunded; the last by a customer of v2, who had a wish, at a desk of v2.
fn right() -> Books {
    let line = |order, cents, status, gift: Option<&str>, desk| OrderLine {
        order,
        item: 0,
        pieces: 2,
        cents,
        gift: gift.map(str::to_owned),
        desk,
        status,
    };
    let bought = |order, style, seen, gift: Option<&str>| Purchase { order, style, gift: gift.map(str::to_owned), seen, told: Some(seen) };
    let of_journal = vec![run("Journal.open", 3, 0), run("Journal.charge", 2, 1), run("Journal.refund", 1, 0), run("Journal.ship", 1, 1)];
    Books {
        asked: 3,
        customers: vec![
            CustomerLedger {
                version: 1,
                purchases: vec![bought(1, Style::Waited, Status::Shipped, None), bought(2, Style::Awaited, Status::Declined, None)],
                book: CallBook { calls: vec![call("Orders.place", 1, 1), call("Orders.status", 2, 0)], runs: vec![] },
            },
            CustomerLedger {
                version: 2,
                purchases: vec![bought(3, Style::CalledBack, Status::Refunded, Some("with love"))],
                book: CallBook { calls: vec![call("Orders.place", 1, 0), call("Orders.status", 1, 0)], runs: vec![] },
            },
        ],
        desks: CallBook {
            calls: vec![
                call("Journal.open", 3, 0),
                call("Payment.pay", 2, 1),
                call("Payment.refund", 1, 0),
                call("Warehouse.ship", 1, 1),
                call("Warehouse.note", 3, 0),
            ],
            runs: vec![run("Orders.place", 2, 1), run("Orders.status", 3, 0)],
        },
        tills: CallBook {
            calls: vec![call("Journal.charge", 2, 1), call("Journal.refund", 1, 0)],
            runs: vec![run("Payment.pay", 2, 1), run("Payment.refund", 1, 0)],
        },
        halls: CallBook {
            calls: vec![call("Journal.ship", 1, 1)],
            runs: vec![run("Warehouse.ship", 1, 1), run("Warehouse.note", 3, 0), run("Warehouse.level", 1, 0)],
        },
        journal: JournalLedger {
            orders: vec![
                line(1, 500, Status::Shipped, None, 1),
                line(2, 700, Status::Declined, None, 2),
                line(3, 900, Status::Refunded, Some("with love"), 2),
            ],
            till: 500,
            charges: vec![Charge { order: 1, cents: 500, refunded: false }, Charge { order: 3, cents: 900, refunded: true }],
            declined: 1,
            shelves: vec![Shelf { initial: 3, left: 1 }],
            parcels: vec![Parcel { number: 1, order: 1, item: 0, pieces: 2 }],
            book: CallBook { calls: vec![], runs: of_journal },
        },
        killed_tills: 0,
        levels: vec![1],
        demo: CallBook { calls: vec![call("Warehouse.level", 1, 0)], runs: vec![] },
        cuts: 0,
        pairs: vec![Pair { customer: 1, desk: 1, orders: 1 }, Pair { customer: 2, desk: 2, orders: 1 }],
    }
}

#[test]
fn right_books_agree() {
    assert_eq!(check(&right()), []);
}

/// The edit makes one mismatch of this area that says this.
fn expect(edit: impl FnOnce(&mut Books), area: Area, text: &str) {
    let mut books = right();
    edit(&mut books);
    let found = check(&books);
    assert!(found.iter().any(|m| m.area == area && m.what.contains(text)), "{text:?} is not in {found:#?}");
    assert!(super::table(&books, &found).contains("the ledger is WRONG"));
}

#[test]
fn a_wrong_order_is_named() {
    expect(|b| b.asked = 4, Area::Orders, "shipped + declined + refunded: 4 and 3");
    expect(|b| b.customers.truncate(1), Area::Orders, "order 3 is Refunded in the journal and unknown to the customers");
    expect(
        |b| b.customers[0].purchases[0].seen = Status::Failed,
        Area::Orders,
        "order 1 in the journal, in the customer's reply: Shipped and Failed",
    );
    expect(|b| b.customers[0].purchases[0].told = None, Area::Orders, "order 1 in the journal, when asked for its status");
    expect(|b| b.journal.orders[1].status = Status::Failed, Area::Orders, "3 and 2");
}

#[test]
fn wrong_money_is_named() {
    expect(|b| b.journal.till += 1, Area::Money, "cents in the till: 500 and 501");
    expect(|b| b.journal.charges[0].cents = 501, Area::Money, "order 1 (Shipped)");
    expect(|b| b.journal.charges[1].refunded = false, Area::Money, "order 3 (Refunded)");
    expect(|b| b.journal.charges.push(Charge { order: 9, cents: 5, refunded: true }), Area::Money, "5 cents are charged for order 9");
    expect(|b| b.journal.charges.push(b.journal.charges[0].clone()), Area::Money, "order 1 was charged twice");
    expect(|b| b.journal.declined = 0, Area::Money, "cards declined: 1 and 0");
    expect(|b| b.journal.book.runs[1].ok = 1, Area::Money, "3 cards were charged or declined, and only 2 times was that asked for");
}

#[test]
fn wrong_stock_is_named() {
    expect(|b| b.journal.shelves[0].left = 0, Area::Stock, "lamp: pieces at the start, shipped + left: 3 and 2");
    expect(|b| b.levels[0] = 2, Area::Stock, "lamp: pieces left, level told: 1 and 2");
    expect(|b| b.journal.parcels[0].pieces = 1, Area::Stock, "order 1 (Shipped)");
    expect(|b| b.journal.parcels.push(b.journal.parcels[0].clone()), Area::Stock, "order 1 was shipped twice");
    expect(|b| b.journal.parcels[0].order = 9, Area::Stock, "order 9, which nobody placed");
}

#[test]
fn versions_that_did_not_meet_and_wishes_that_were_lost_are_named() {
    expect(|b| b.pairs[0].orders = 2, Area::Versions, "customers of v1 placed 1 orders with desks of v1, and there should be 2");
    expect(|b| b.journal.orders[0].desk = 2, Area::Versions, "customers of v1 placed 0 orders with desks of v1, and there should be 1");
    expect(|b| b.journal.orders[2].gift = None, Area::Versions, "order 3, v2 to v2: what to write on the card");
    expect(|b| b.journal.orders[0].gift = Some("?".into()), Area::Versions, "order 1, v1 to v1: what to write on the card");
}

#[test]
fn a_wrong_count_of_calls_is_named() {
    expect(|b| b.desks.calls[1].attempted += 1, Area::Calls, "Payment.pay: attempted, answered + failed: 4 and 3");
    expect(|b| b.tills.runs[0].ok += 1, Area::Calls, "Payment.pay: attempted - not executed = 3 (0 uncertain), but 4 ran");
    expect(|b| b.tills.runs[0].ok -= 1, Area::Calls, "Payment.pay: attempted - not executed = 3 (0 uncertain), but 2 ran");
    expect(|b| (b.tills.runs[0].ok, b.tills.runs[0].app_error) = (1, 2), Area::Calls, "Payment.pay: errors had, errors given: 1 and 2");
    expect(|b| b.halls.runs[1].ok = 2, Area::Calls, "notes that warehouses heard: 3 and 2");
    expect(|b| b.demo.calls.clear(), Area::Calls, "Warehouse.level ran 1 times and nobody called it");
    expect(|b| b.demo.calls.push(call("Warehouse.ship", 1, 1)), Area::Calls, "Warehouse.ship has 2 callers");
}

#[test]
fn an_uncertain_call_may_have_run_or_not() {
    for ran in [0, 1] {
        let mut books = right();
        let call = &mut books.desks.calls[2];
        (call.ok, call.uncertain) = (0, 1);
        books.tills.runs[1].ok = ran;
        assert_eq!(check(&books), [], "{ran}");
    }
}

/// What died with a till is missing on one side of each of its links, and on no other.
#[test]
fn what_a_killed_till_counted_is_not_missed() {
    let mut books = right();
    books.killed_tills = 1;
    books.tills.runs[0].ok -= 1;
    books.tills.calls[0].attempted -= 1;
    books.tills.calls[0].ok -= 1;
    assert_eq!(check(&books), []);
    for edit in [|b: &mut Books| b.tills.runs[0].ok += 3, |b: &mut Books| b.journal.book.runs[1].ok -= 2] {
        let mut books = books.clone();
        edit(&mut books);
        assert!(!check(&books).is_empty());
    }
}
