//! What happens, in its order. Every step is taken while customers buy, unless it says otherwise.

use super::Sabotage;
use super::shop::Shop;

/// Of all orders so many hundredths are placed in each step, by customer 1, who speaks v1 of `Order`, and by customer 2, who speaks v2.
/// Customer 1 places in the first what is left.
const KILL: u64 = 20;
const OUTAGE: [u64; 2] = [15, 12];
const STOP: u64 = 15;
const END: [u64; 2] = [10, 4];
const FIRST: u64 = 10;

/// Tells it; an error says what did not go as it should.
pub(super) async fn tell(shop: &mut Shop<'_>) -> Result<(), String> {
    shop.step("1. the shop opens; everybody finds everybody by name");
    open(shop).await?;
    let [second, left] = [shop.share(FIRST), shop.rest(&[KILL, OUTAGE[0], OUTAGE[1], STOP, END[0], END[1], FIRST])];
    shop.tell("both customers buy at the only order desk there is: it speaks v1, and reads v2");
    let first = shop.buying("customer-1", left)?;
    let other = shop.buying("customer-2", second)?;
    shop.met(1, 1, left);
    shop.met(2, 1, second);
    shop.bought(first).await?;
    shop.bought(other).await?;

    shop.step("2. a till is killed (kill -9) while orders run; then it is started again");
    let round = shop.share(KILL);
    let buying = shop.buying("customer-1", round)?;
    shop.met(1, 1, round);
    shop.under_way(&buying).await?;
    shop.kill_till("payment-1").await?;
    shop.till("payment-1").await?;
    shop.bought(buying).await?;

    shop.step("3. v2 of Order is rolled out beside v1: a second desk, under the same name");
    shop.desk("order-2", "2").await?;
    shop.is_kept("customer-2", "order-2").await?;
    shop.tell("customer 2 knows it, and so does its cache file");

    shop.step("4. the registry is killed while orders run; customer 2 is ended, and started again without it");
    let [round, second] = [shop.share(OUTAGE[0]), shop.share(OUTAGE[1])];
    let buying = shop.buying("customer-1", round)?;
    shop.met(1, 1, round);
    shop.under_way(&buying).await?;
    shop.children.kill("registry").await?;
    shop.end_customer("customer-2").await?;
    if shop.options.sabotage == Some(Sabotage::Cache) {
        shop.lose_cache("customer-2")?;
    }
    shop.customer("customer-2", "2").await?;
    shop.tell("it found the desks in its cache file; now both buy, customer 2 at the desk that speaks v2 as it does");
    let other = shop.buying("customer-2", second)?;
    shop.met(2, 2, second);
    shop.bought(other).await?;
    shop.bought(buying).await?;
    shop.registry_again().await?;

    shop.step("5. a till is asked to end (SIGTERM) while orders run: it withdraws, ends what it has begun, and exits with 0");
    let buying = shop.buying("customer-1", shop.share(STOP))?;
    shop.under_way(&buying).await?;
    shop.stop_till("payment-2").await?;
    shop.till("payment-2").await?;
    shop.bought(buying).await?;

    shop.step("6. the desk that speaks v1 is asked to end while orders run: customer 1 goes on at the one that speaks v2");
    let second = shop.share(END[1]);
    let other = shop.buying("customer-2", second)?;
    let leaving = shop.buying("customer-1", shop.share(END[0]) / 2)?;
    shop.under_way(&leaving).await?;
    shop.stop_desk("order-1").await?;
    shop.bought(leaving).await?;
    let round = shop.share(END[0]) - shop.share(END[0]) / 2;
    let buying = shop.buying("customer-1", round)?;
    shop.met(1, 2, round);
    shop.bought(other).await?;
    shop.bought(buying).await?;
    shop.step("7. closing time: everybody's books are compared");
    Ok(())
}

async fn open(shop: &mut Shop<'_>) -> Result<(), String> {
    shop.registry().await?;
    shop.journal().await?;
    shop.till("payment-1").await?;
    shop.till("payment-2").await?;
    shop.warehouse("warehouse-1").await?;
    shop.warehouse("warehouse-2").await?;
    shop.desk("order-1", "1").await?;
    shop.customer("customer-1", "1").await?;
    shop.customer("customer-2", "2").await
}
