//! Types whose values take no bytes.
//!
//! A type's values either all take no bytes or all take at least one, which decides two things: what can be skipped
//! without a look, and which lists cost nothing to send and a lot to read.

use crate::schema::{Kind, Ty, TypeSchema};

/// Which definitions of a schema take no bytes. A definition that has no finite value, such as `struct A { a: A }`,
/// counts as one: nobody can send it.
pub(super) struct Empty(Vec<bool>);

impl Empty {
    pub(super) fn of(schema: &TypeSchema) -> Empty {
        let mut empty = vec![true; schema.defs.len()];
        let mut users: Vec<Vec<usize>> = vec![Vec::new(); schema.defs.len()];
        let mut filled = Vec::new();
        for (index, def) in schema.defs.iter().enumerate() {
            if takes_bytes(&def.kind, &mut |used| users[used as usize].push(index)) {
                empty[index] = false;
                filled.push(index);
            }
        }
        // What holds something that takes bytes takes bytes.
        while let Some(index) = filled.pop() {
            for user in std::mem::take(&mut users[index]) {
                if std::mem::replace(&mut empty[user], false) {
                    filled.push(user);
                }
            }
        }
        Empty(empty)
    }

    pub(super) fn is_empty(&self, ty: &Ty) -> bool {
        let mut all = true;
        !part_takes_bytes(ty, &mut |def| all &= self.0[def as usize]) && all
    }
}

/// Whether a definition takes bytes for sure; if that depends on others, says on which.
fn takes_bytes(kind: &Kind, depends: &mut impl FnMut(u32)) -> bool {
    match kind {
        Kind::Unit => false,
        Kind::Struct(fields) => fields.iter().any(|field| part_takes_bytes(&field.ty, depends)),
        Kind::Tuple(types) => types.iter().any(|ty| part_takes_bytes(ty, depends)),
        Kind::Enum(_) => true,
        Kind::Newtype(ty) => part_takes_bytes(ty, depends),
    }
}

fn part_takes_bytes(ty: &Ty, depends: &mut impl FnMut(u32)) -> bool {
    match ty {
        Ty::Unit | Ty::Array(_, 0) => false,
        Ty::Array(element, _) => part_takes_bytes(element, depends),
        Ty::Tuple(types) => types.iter().any(|ty| part_takes_bytes(ty, depends)),
        Ty::Text(layout, _) => part_takes_bytes(layout, depends),
        Ty::Ref(def) => {
            depends(*def);
            false
        }
        _ => true,
    }
}
