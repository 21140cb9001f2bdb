//! Finds what the user named, or says what there is and what was probably meant.
//!
//! Names are matched whole: a prefix that is unique today is not tomorrow.

use farcall::meta::ServiceInfo;

use crate::failure::Failure;

/// The services of this name.
pub(crate) fn services<'a>(all: &'a [ServiceInfo], name: &str) -> Result<Vec<&'a ServiceInfo>, Failure> {
    let found: Vec<_> = all.iter().filter(|s| s.name == name).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let mut known: Vec<&str> = all.iter().map(|s| s.name.as_str()).collect();
    known.dedup();
    let hint = match all.iter().find(|s| s.foreign_name.as_deref() == Some(name)) {
        Some(s) => format!("; {name:?} is what other protocols call {}", s.name),
        None => did_you_mean(name, &known),
    };
    Err(Failure::Usage(format!("there is no service {name:?}{hint}\n  services: {}", known.join(", "))))
}

/// The one service of a call's target, in this group and version if they are given.
pub(crate) fn service<'a>(
    all: &'a [ServiceInfo],
    (name, method): (&str, &str),
    group: Option<&str>,
    version: Option<&str>,
) -> Result<&'a ServiceInfo, Failure> {
    let whole = format!("{name}.{method}");
    let named = services(all, name).map_err(|e| match all.iter().find(|s| s.name == whole) {
        Some(s) => Failure::Usage(format!("{whole} is a service: which method?\n  methods: {}", methods(s).join(", "))),
        None => e,
    })?;
    chosen(&named, name, group, version)
}

/// The one service of this name, in this group and version if they are given.
pub(crate) fn named<'a>(
    all: &'a [ServiceInfo],
    name: &str,
    group: Option<&str>,
    version: Option<&str>,
) -> Result<&'a ServiceInfo, Failure> {
    chosen(&services(all, name)?, name, group, version)
}

fn chosen<'a>(named: &[&'a ServiceInfo], name: &str, group: Option<&str>, version: Option<&str>) -> Result<&'a ServiceInfo, Failure> {
    let fits = |s: &&&ServiceInfo| group.is_none_or(|g| g == s.group) && version.is_none_or(|v| v == s.version);
    let fitting: Vec<&&ServiceInfo> = named.iter().filter(fits).collect();
    match fitting.as_slice() {
        [one] => Ok(one),
        [] => Err(Failure::Usage(format!("no {name} in that group and version\n  served: {}", kinds(named)))),
        _ => Err(Failure::Usage(format!(
            "{name} is served more than once: choose with --group and --service-version\n  served: {}",
            kinds(named)
        ))),
    }
}

fn kinds(services: &[&ServiceInfo]) -> String {
    let kind = |s: &&ServiceInfo| format!("group {:?} version {:?}", s.group, s.version);
    services.iter().map(kind).collect::<Vec<_>>().join(", ")
}

/// The row of the method of this name.
pub(crate) fn method(service: &ServiceInfo, name: &str) -> Result<usize, Failure> {
    let known = methods(service);
    known.iter().position(|m| *m == name).ok_or_else(|| {
        let hint = match service.methods.iter().find(|m| m.foreign_name.as_deref() == Some(name)) {
            Some(m) => format!("; {name:?} is what other protocols call {}", m.name),
            None => did_you_mean(name, &known),
        };
        Failure::Usage(format!("{} has no method {name:?}{hint}\n  methods: {}", service.name, known.join(", ")))
    })
}

fn methods(service: &ServiceInfo) -> Vec<&str> {
    service.methods.iter().map(|m| m.name.as_str()).collect()
}

fn did_you_mean(name: &str, known: &[&str]) -> String {
    nearest(name, known.iter().copied()).map_or_else(String::new, |n| format!(", did you mean {n:?}?"))
}

/// The known name that is fewest edits away, if it is near enough to be a slip of the finger.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = |known: &'a str| (distance(&name.to_lowercase(), &known.to_lowercase()), known);
    let (edits, known) = known.map(near).min_by_key(|(edits, _)| *edits)?;
    (edits <= name.chars().count().max(3) / 3).then_some(known)
}

/// Characters to insert, remove or replace (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, edits) in
            [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("pay", "pai", 1), ("refund", "refudn", 2), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }

    #[test]
    fn only_slips_of_the_finger_are_near() {
        let known = ["pay", "refund", "status"];
        let check = |name: &str, expected| assert_eq!(nearest(name, known.iter().copied()), expected, "{name}");
        check("pai", Some("pay"));
        check("Refnud", Some("refund"));
        check("PAY", Some("pay"));
        check("ship", None);
        check("sta", None);
        check("", None);
    }
}
