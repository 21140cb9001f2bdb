//! Right books pass; every wrong number is named.

use super::{Area, Books, check};
use crate::api::*;

/// Three orders: one shipped, one declined, one refunded.
fn right() -> Books {
    let line = |order, cents, status| OrderLine { order, item: 0, pieces: 2, cents, status };
    let bought = |order, style, seen| Purchase { order, style, seen, told: Some(seen) };
    let call = |method: &str, ok, app_error| CallCount {
        method: method.to_owned(),
        attempted: ok + app_error,
        ok,
        app_error,
        not_executed: 0,
        uncertain: 0,
    };
    let run = |method: &str, ok, app_error| RunCount { method: method.to_owned(), ok, app_error, failed: 0 };
    Books {
        asked: 3,
        customer: CustomerLedger {
            purchases: vec![
                bought(1, Style::Waited, Status::Shipped),
                bought(2, Style::Awaited, Status::Declined),
                bought(3, Style::CalledBack, Status::Refunded),
            ],
            calls: vec![call("Orders.place", 2, 1), call("Orders.status", 3, 0)],
        },
        desk: OrderLedger {
            orders: vec![line(1, 500, Status::Shipped), line(2, 700, Status::Declined), line(3, 900, Status::Refunded)],
            payment_calls: vec![call("Payment.note", 3, 0), call("Payment.pay", 2, 1), call("Payment.refund", 1, 0)],
            warehouse_calls: vec![call("Warehouse.ship", 1, 1)],
            runs: vec![run("Orders.place", 2, 1), run("Orders.status", 3, 0)],
        },
        payment: PaymentLedger {
            till: 500,
            charges: vec![Charge { order: 1, cents: 500, refunded: false }, Charge { order: 3, cents: 900, refunded: true }],
            declined: 1,
            notes: 3,
            runs: vec![run("Payment.note", 3, 0), run("Payment.pay", 2, 1), run("Payment.refund", 1, 0)],
        },
        warehouse: WarehouseLedger {
            shelves: vec![Shelf { initial: 3, left: 1 }],
            parcels: vec![Parcel { number: 1, order: 1, item: 0, pieces: 2 }],
            runs: vec![run("Warehouse.level", 1, 0), run("Warehouse.ship", 1, 1), run("Warehouse.ledger", 4, 0)],
        },
        levels: vec![1],
        demo_calls: vec![call("Warehouse.level", 1, 0)],
        cuts: 0,
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
    expect(|b| b.customer.purchases.truncate(2), Area::Orders, "order 3 is Refunded at the desk and unknown to the customer");
    expect(
        |b| b.customer.purchases[0].seen = Status::Failed,
        Area::Orders,
        "order 1 at the desk, in the customer's reply: Shipped and Failed",
    );
    expect(|b| b.customer.purchases[0].told = None, Area::Orders, "order 1 at the desk, when asked for its status");
    expect(|b| b.desk.orders[1].status = Status::Failed, Area::Orders, "3 and 2");
}

#[test]
fn wrong_money_is_named() {
    expect(|b| b.payment.till += 1, Area::Money, "cents in the till: 500 and 501");
    expect(|b| b.payment.charges[0].cents = 501, Area::Money, "order 1 (Shipped)");
    expect(|b| b.payment.charges[1].refunded = false, Area::Money, "order 3 (Refunded)");
    expect(|b| b.payment.charges.push(Charge { order: 9, cents: 5, refunded: true }), Area::Money, "5 cents are charged for order 9");
    expect(|b| b.payment.charges.push(b.payment.charges[0].clone()), Area::Money, "order 1 was charged twice");
    expect(|b| b.payment.runs[1].app_error += 1, Area::Money, "orders at the desk, payments that ran: 3 and 4");
    expect(|b| b.payment.declined = 0, Area::Money, "cards declined at payment: 1 and 0");
}

#[test]
fn wrong_stock_is_named() {
    expect(|b| b.warehouse.shelves[0].left = 0, Area::Stock, "lamp: pieces at the start, shipped + left: 3 and 2");
    expect(|b| b.levels[0] = 2, Area::Stock, "lamp: pieces left, level told: 1 and 2");
    expect(|b| b.warehouse.parcels[0].pieces = 1, Area::Stock, "order 1 (Shipped)");
    expect(|b| b.warehouse.parcels.push(b.warehouse.parcels[0].clone()), Area::Stock, "order 1 was shipped twice");
    expect(|b| b.warehouse.parcels[0].order = 9, Area::Stock, "order 9, which the desk does not know");
}

#[test]
fn a_wrong_count_of_calls_is_named() {
    let pay = |b: &mut Books| b.desk.payment_calls[1].clone();
    assert_eq!(pay(&mut right()).method, "Payment.pay");
    expect(|b| b.desk.payment_calls[1].attempted += 1, Area::Calls, "Payment.pay: attempted, answered + failed: 4 and 3");
    expect(|b| b.payment.runs[1].ok += 1, Area::Calls, "Payment.pay: attempted - not executed = 3 (0 uncertain), but 4 ran");
    expect(|b| (b.payment.runs[1].ok, b.payment.runs[1].app_error) = (1, 2), Area::Calls, "Payment.pay: errors had, errors given: 1 and 2");
    expect(|b| b.payment.notes = 2, Area::Calls, "notes that payment wrote down: 3 and 2");
    expect(|b| b.demo_calls.clear(), Area::Calls, "Warehouse.level ran 1 times and nobody called it");
    expect(|b| b.demo_calls.push(b.desk.warehouse_calls[0].clone()), Area::Calls, "Warehouse.ship has 2 callers");
}

#[test]
fn an_uncertain_call_may_have_run_or_not() {
    for ran in [0, 1] {
        let mut books = right();
        let call = &mut books.desk.payment_calls[2];
        (call.ok, call.uncertain) = (0, 1);
        books.payment.runs[2].ok = ran;
        assert_eq!(check(&books), [], "{ran}");
    }
}
