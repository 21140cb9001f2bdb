//! Which field or variant of the writer is which of the reader's.

use std::collections::HashMap;

use crate::schema::{Field, Variant};

/// A thing with a name and earlier ones.
pub(super) trait Named {
    fn name(&self) -> &str;
    fn aliases(&self) -> &[String];
}

impl Named for Field {
    fn name(&self) -> &str {
        &self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }
}

impl Named for Variant {
    fn name(&self) -> &str {
        &self.name
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }
}

/// For each of the writer's, its place among the reader's: by name, by an alias of the reader, by one of the writer.
pub(super) fn counterparts<T: Named>(writer: &[T], reader: &[T]) -> Vec<Option<usize>> {
    if writer.len() <= reader.len() && writer.iter().zip(reader).all(|(w, r)| w.name() == r.name()) {
        return (0..writer.len()).map(Some).collect();
    }
    let names: HashMap<&str, usize> = reader.iter().enumerate().map(|(at, r)| (r.name(), at)).collect();
    let mut aliases = HashMap::new();
    for (at, r) in reader.iter().enumerate() {
        for alias in r.aliases() {
            aliases.entry(alias.as_str()).or_insert(at);
        }
    }
    let find = |w: &T| {
        let known = names.get(w.name()).or_else(|| aliases.get(w.name()));
        known.or_else(|| w.aliases().iter().find_map(|alias| names.get(alias.as_str()))).copied()
    };
    writer.iter().map(find).collect()
}

/// The same for fields, of which no two may be one: the one of that very name is, else the first.
pub(super) fn field_counterparts(writer: &[Field], reader: &[Field]) -> Vec<Option<usize>> {
    let mut found = counterparts(writer, reader);
    let mut owner: Vec<Option<usize>> = vec![None; reader.len()];
    for (at, to) in found.iter().enumerate() {
        let Some(to) = *to else { continue };
        if owner[to].is_none() || writer[at].name == reader[to].name {
            owner[to] = Some(at);
        }
    }
    for (at, to) in found.iter_mut().enumerate() {
        *to = to.filter(|to| owner[*to] == Some(at));
    }
    found
}
