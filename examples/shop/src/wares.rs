//! What the shop sells, and how money is written.

/// Something to buy.
pub(crate) struct Ware {
    /// What it is called.
    pub(crate) name: &'static str,
    /// The price of one piece.
    pub(crate) cents: u64,
    /// Pieces at the start, as a percentage of an even stock: some run out early, some never.
    pub(crate) share: u32,
}

/// All wares; an item's number is its place here.
pub(crate) const WARES: [Ware; 8] = [
    Ware { name: "lamp", cents: 4_990, share: 60 },
    Ware { name: "kettle", cents: 3_450, share: 85 },
    Ware { name: "chair", cents: 12_900, share: 130 },
    Ware { name: "rug", cents: 8_725, share: 95 },
    Ware { name: "clock", cents: 2_199, share: 75 },
    Ware { name: "mug", cents: 899, share: 150 },
    Ware { name: "shelf", cents: 6_540, share: 100 },
    Ware { name: "pillow", cents: 1_775, share: 110 },
];

/// The ware with this number.
pub(crate) fn ware(item: u16) -> Option<&'static Ware> {
    WARES.get(usize::from(item))
}

/// All item numbers.
pub(crate) fn items() -> std::ops::Range<u16> {
    0..WARES.len() as u16
}

/// `1234.05`
pub(crate) fn money(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cents_have_two_digits() {
        assert_eq!([money(0), money(7), money(123_405)], ["0.00", "0.07", "1234.05"]);
    }
}
