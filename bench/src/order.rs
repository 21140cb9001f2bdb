//! The structured payload: an order with 8 line items and 35 owned strings, in the shape a shop would send.

#[farcall::data]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LineItem {
    pub(crate) sku: String,
    pub(crate) title: String,
    pub(crate) quantity: u32,
    pub(crate) unit_price_cents: u64,
    pub(crate) discount: f64,
    pub(crate) tags: Vec<String>,
}

#[farcall::data]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Order {
    pub(crate) id: u64,
    pub(crate) customer: String,
    pub(crate) email: String,
    pub(crate) currency: String,
    pub(crate) created_at_ms: u64,
    pub(crate) paid: bool,
    pub(crate) items: Vec<LineItem>,
}

impl Order {
    pub(crate) fn sample() -> Order {
        Order {
            id: 0x1234_5678_9abc,
            customer: "Ada Lovelace-Byron".into(),
            email: "ada.lovelace@example.org".into(),
            currency: "EUR".into(),
            created_at_ms: 1_760_000_000_000,
            paid: true,
            items: (0..8).map(LineItem::sample).collect(),
        }
    }

    /// Bytes of a compact encoding (varint integers and lengths, no field tags): what a peer without a codec carries
    /// in the order's place.
    pub(crate) fn compact_len(&self) -> usize {
        let paid = 1;
        let strings = text(&self.customer) + text(&self.email) + text(&self.currency);
        let items: usize = self.items.iter().map(LineItem::compact_len).sum();
        varint(self.id) + strings + varint(self.created_at_ms) + paid + varint(self.items.len() as u64) + items
    }
}

impl LineItem {
    fn sample(i: u32) -> LineItem {
        LineItem {
            sku: format!("SKU-{:08}", i * 7919),
            title: format!("Mechanical part no. {i}, stainless steel"),
            quantity: i + 1,
            unit_price_cents: 1999 + 100 * u64::from(i),
            discount: 0.05 * f64::from(i),
            tags: vec!["industrial".into(), format!("bin-{i}")],
        }
    }

    fn compact_len(&self) -> usize {
        let tags: usize = self.tags.iter().map(|tag| text(tag)).sum();
        let numbers = varint(self.quantity.into()) + varint(self.unit_price_cents) + size_of_val(&self.discount);
        text(&self.sku) + text(&self.title) + numbers + varint(self.tags.len() as u64) + tags
    }
}

fn text(s: &str) -> usize {
    varint(s.len() as u64) + s.len()
}

/// LEB128: seven bits to a byte.
fn varint(n: u64) -> usize {
    (64 - n.leading_zeros()).max(1).div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varint_length_follows_the_seven_bit_steps() {
        for (n, bytes) in [(0, 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (u64::MAX, 10)] {
            assert_eq!(varint(n), bytes, "{n}");
        }
    }

    #[test]
    fn the_samples_size_is_pinned_since_results_depend_on_it() {
        assert_eq!(Order::sample().compact_len(), 711);
    }
}
