//! Method tables, each kept once: all instances of a service have the same, and it is most of an entry.

use std::collections::HashSet;

use bytes::Bytes;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Tables {
    known: HashSet<Bytes>,
    /// Those that nobody uses are looked for when there are so many.
    sweep_at: usize,
}

impl Tables {
    /// These bytes, shared with all who have the same.
    pub(super) fn shared(&mut self, table: Bytes) -> Bytes {
        if let Some(known) = self.known.get(&table) {
            return known.clone();
        }
        if self.known.len() >= self.sweep_at {
            // A table with one owner is only here.
            self.known.retain(|t| !t.is_unique());
            self.sweep_at = (self.known.len() * 2).max(64);
        }
        self.known.insert(table.clone());
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_tables_are_one_and_unused_ones_go() {
        let mut tables = Tables::default();
        let first = tables.shared(Bytes::from(vec![1; 100]));
        let same = tables.shared(Bytes::from(vec![1; 100]));
        assert_eq!(first.as_ptr(), same.as_ptr());
        for n in 0..10_000u32 {
            tables.shared(Bytes::from(n.to_le_bytes().to_vec()));
        }
        assert!(tables.known.len() < 200, "{}", tables.known.len());
        assert_eq!(tables.shared(Bytes::from(vec![1; 100])).as_ptr(), first.as_ptr(), "one in use stays");
    }
}
