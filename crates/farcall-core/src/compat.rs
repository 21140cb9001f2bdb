//! Whether two versions of a type or a service understand each other: in which direction, and why not.
//!
//! This is what both sides find out when they meet, found out before: by `farcall compat` in a build, or by a test.
//!
//! ```
//! use farcall_core::compat::Compatibility;
//! use farcall_core::TypeSchema;
//!
//! let (old, new) = (TypeSchema::of::<(u32, String)>(), TypeSchema::of::<(u64, String)>());
//! assert_eq!(Compatibility::of_types(&old, &new), Compatibility::Safe);
//! let Compatibility::SafeWith(issues) = Compatibility::of_types(&new, &old) else { panic!() };
//! assert_eq!(
//!     issues[0].to_string(),
//!     "`0`: the writer sends u64, the reader reads u32: what does not fit is refused when it comes"
//! );
//! ```

use std::fmt;

use crate::descriptor::{MethodDescriptor, ServiceDescriptor};
use crate::plan::{Finding, Plan};
use crate::reading::Reading;
use crate::schema::TypeSchema;

/// Whether what one side sends is understood by the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compatibility {
    /// All of it is.
    Safe,
    /// What is sent is understood, but for some values, or is not used in full: see each issue.
    SafeWith(Vec<Issue>),
    /// It is refused: before the first call, so nothing runs half.
    Breaks(Vec<Issue>),
}

/// One reason.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Issue {
    /// A type differs.
    Type {
        /// Which of a method's types; none for types alone.
        part: Option<Part>,
        /// Where, and what.
        finding: Finding,
    },
    /// The client may call a method that the server does not have any more.
    Removed,
    /// The client may call a method that the server does not have yet.
    Added,
    /// One side waits for a reply and the other does not send any, or the other way round.
    Oneway,
    /// One side has a stream where the other has none.
    Stream,
    /// A call or a stream may end with an application error of which its reader does not know.
    NewError {
        /// Of the call, or of a stream.
        part: Part,
    },
    /// The client believes that calls may be repeated and the server does not say so.
    Repeats,
}

/// One of the types of a method. The client writes arguments and the server reads them, with the rest it is the other
/// way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The parameters as one struct.
    Arguments,
    /// An item of the stream behind the arguments.
    ArgumentItem,
    /// The error that the stream behind the arguments may end with.
    ArgumentEnd,
    /// The result.
    Result,
    /// An item of the stream that is the result.
    ResultItem,
    /// The error that the stream may end with that is the result.
    ResultEnd,
    /// The application error.
    Error,
}

/// How two versions of a service go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCompatibility {
    /// Service name.
    pub name: String,
    /// Group, empty if none.
    pub group: String,
    /// Version, empty if none.
    pub version: String,
    /// All methods of both: first those of the new version in its order, then those that are gone.
    pub methods: Vec<MethodCompatibility>,
}

/// How two versions of a method go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodCompatibility {
    /// Method name.
    pub name: String,
    /// Old clients with new servers: what must hold when servers are upgraded first.
    pub old_client: Compatibility,
    /// New clients with old servers: what must hold when clients are upgraded first.
    pub new_client: Compatibility,
}

impl Compatibility {
    /// Whether `reader` reads what `writer` writes.
    pub fn of_types(writer: &TypeSchema, reader: &TypeSchema) -> Compatibility {
        let issue = |finding: &Finding| Issue::Type { part: None, finding: finding.clone() };
        Compatibility::of_issues(match Plan::compile(writer, reader) {
            Ok(plan) => plan.notes().iter().map(issue).collect(),
            Err(error) => error.findings().iter().map(issue).collect(),
        })
    }

    /// Whether a call of `client`'s method is understood by `server`'s, and its reply the other way.
    pub fn of_methods(client: &MethodDescriptor, server: &MethodDescriptor) -> Compatibility {
        let streams = |m: &MethodDescriptor| (m.traits.args_stream, m.traits.result_stream);
        let mut issues = Vec::new();
        if streams(client) != streams(server) {
            issues.push(Issue::Stream);
        }
        if client.traits.oneway != server.traits.oneway {
            issues.push(Issue::Oneway);
        }
        if issues.is_empty() {
            let (args, results) = streams(client);
            issues.extend(part_issues(Part::Arguments, args, Some(&client.args), Some(&server.args)));
            // Nobody reads what a one-way method gives back.
            if !client.traits.oneway {
                issues.extend(part_issues(Part::Result, results, Some(&server.result), Some(&client.result)));
                issues.extend(part_issues(Part::Error, false, server.error.as_ref(), client.error.as_ref()));
            }
        }
        if client.traits.idempotent && !server.traits.idempotent {
            issues.push(Issue::Repeats);
        }
        Compatibility::of_issues(issues)
    }

    fn of_issues(issues: Vec<Issue>) -> Compatibility {
        let (breaks, notes): (Vec<Issue>, Vec<Issue>) = issues.into_iter().partition(Issue::breaks);
        match (breaks.is_empty(), notes.is_empty()) {
            (false, _) => Compatibility::Breaks(breaks),
            (true, false) => Compatibility::SafeWith(notes),
            (true, true) => Compatibility::Safe,
        }
    }

    /// Whether calls are refused.
    pub fn breaks(&self) -> bool {
        matches!(self, Compatibility::Breaks(_))
    }

    /// All reasons; none if it is safe.
    pub fn issues(&self) -> &[Issue] {
        match self {
            Compatibility::Safe => &[],
            Compatibility::SafeWith(issues) | Compatibility::Breaks(issues) => issues,
        }
    }
}

impl Issue {
    fn breaks(&self) -> bool {
        match self {
            Issue::Type { finding, .. } => finding.why.refuses_all(),
            Issue::Removed | Issue::Oneway | Issue::Stream | Issue::NewError { .. } => true,
            Issue::Added | Issue::Repeats => false,
        }
    }
}

fn part_issues(part: Part, stream: bool, writer: Option<&TypeSchema>, reader: Option<&TypeSchema>) -> Vec<Issue> {
    match Reading::compile(part, stream, writer, reader) {
        Ok((_, notes)) => notes,
        Err(refusals) => refusals,
    }
}

/// Compares all services of two providers, or of two versions of one. A service is found by name, group and version,
/// as a call finds it.
pub fn services(old: &[ServiceDescriptor], new: &[ServiceDescriptor]) -> Vec<ServiceCompatibility> {
    let key = |service: &ServiceDescriptor| (service.name.clone(), service.group.clone(), service.version.clone());
    let find = |all: &'_ [ServiceDescriptor], wanted: &ServiceDescriptor| all.iter().position(|s| key(s) == key(wanted));
    let present = new.iter().map(|new| {
        let old = find(old, new).map(|at| &old[at].methods[..]);
        ServiceCompatibility::of(new, old.unwrap_or_default(), &new.methods)
    });
    let gone = old.iter().filter(|old| find(new, old).is_none());
    present.chain(gone.map(|gone| ServiceCompatibility::of(gone, &gone.methods, &[]))).collect()
}

impl ServiceCompatibility {
    /// Compares two versions of a service.
    pub fn of_services(old: &ServiceDescriptor, new: &ServiceDescriptor) -> ServiceCompatibility {
        ServiceCompatibility::of(new, &old.methods, &new.methods)
    }

    fn of(named: &ServiceDescriptor, old: &[MethodDescriptor], new: &[MethodDescriptor]) -> ServiceCompatibility {
        let find = |all: &'_ [MethodDescriptor], name: &str| all.iter().position(|method| method.name == name);
        let present = new.iter().map(|new| match find(old, &new.name) {
            Some(at) => MethodCompatibility::of(&old[at], new),
            None => MethodCompatibility::added(&new.name),
        });
        let gone = old.iter().filter(|old| find(new, &old.name).is_none());
        let methods = present.chain(gone.map(|gone| MethodCompatibility::removed(&gone.name))).collect();
        let ServiceDescriptor { name, group, version, .. } = named.clone();
        ServiceCompatibility { name, group, version, methods }
    }

    /// The verdict on old clients with new servers, and that on new clients with old servers, over all methods.
    pub fn breaks(&self) -> (bool, bool) {
        let any = |one: fn(&MethodCompatibility) -> &Compatibility| self.methods.iter().any(|method| one(method).breaks());
        (any(|method| &method.old_client), any(|method| &method.new_client))
    }
}

impl MethodCompatibility {
    fn of(old: &MethodDescriptor, new: &MethodDescriptor) -> MethodCompatibility {
        let (old_client, new_client) = (Compatibility::of_methods(old, new), Compatibility::of_methods(new, old));
        MethodCompatibility { name: new.name.clone(), old_client, new_client }
    }

    fn added(name: &str) -> MethodCompatibility {
        let new_client = Compatibility::of_issues(vec![Issue::Added]);
        MethodCompatibility { name: name.to_owned(), old_client: Compatibility::Safe, new_client }
    }

    fn removed(name: &str) -> MethodCompatibility {
        let old_client = Compatibility::of_issues(vec![Issue::Removed]);
        MethodCompatibility { name: name.to_owned(), old_client, new_client: Compatibility::Safe }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Arguments => "arguments",
            Part::ArgumentItem => "item of the arguments' stream",
            Part::ArgumentEnd => "error of the arguments' stream",
            Part::Result => "result",
            Part::ResultItem => "item of the result's stream",
            Part::ResultEnd => "error of the result's stream",
            Part::Error => "error",
        })
    }
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Issue::Type { part: Some(part), finding } if finding.path.is_empty() => return write!(f, "{part}: {finding}"),
            Issue::Type { part: Some(part), finding } => return write!(f, "{part} {finding}"),
            Issue::Type { part: None, finding } => return write!(f, "{finding}"),
            Issue::Removed => "the method is gone: a call is refused as Unimplemented, not executed; keep it until no client calls it",
            Issue::Added => "the method is new: a call is refused as Unimplemented, not executed; upgrade the servers first",
            Issue::Oneway => "the client and the server do not agree that it is one-way: give the changed method a new name",
            Issue::Stream => "one side has a stream where the other has none: give the changed method a new name",
            Issue::NewError { part: Part::Error } => {
                "the server may answer with an application error, the client knows of none: give the changed method a new name"
            }
            Issue::NewError { part } => {
                let why = "it may end with an application error, its reader knows of none: give the changed method a new name";
                return write!(f, "{part}: {why}");
            }
            Issue::Repeats => "the client may repeat a call, as it is idempotent there; it is not said to be on the server",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::MethodTraits;
    use crate::schema::Schema;
    use crate::{AppError, Never};

    #[crate::data(crate = farcall_core)]
    struct OldArgs {
        order: u64,
        cents: u32,
    }

    #[crate::data(crate = farcall_core)]
    struct NewArgs {
        order: u64,
        cents: u64,
        note: Option<String>,
        #[farcall(must_understand)]
        dry_run: Option<bool>,
    }

    #[crate::error(crate = farcall_core)]
    enum PayError {
        Declined,
    }

    #[crate::error(crate = farcall_core)]
    enum NewError {
        Declined,
        Late(u8),
    }

    fn method<A: Schema, R: Schema, E: crate::descriptor::ErrorSchema>(name: &str, traits: MethodTraits) -> MethodDescriptor {
        MethodDescriptor::build::<A, R, E>(name, None, "", &[], "", traits)
    }

    fn plain<A: Schema, R: Schema, E: crate::descriptor::ErrorSchema>() -> MethodDescriptor {
        method::<A, R, E>("pay", MethodTraits::default())
    }

    #[track_caller]
    fn check(client: &MethodDescriptor, server: &MethodDescriptor, breaks: bool, expected: &[&str]) {
        let found = Compatibility::of_methods(client, server);
        let issues: Vec<String> = found.issues().iter().map(ToString::to_string).collect();
        assert_eq!((found.breaks(), issues.iter().map(String::as_str).collect::<Vec<_>>().as_slice()), (breaks, expected));
    }

    fn is_error<E: AppError>() {}

    #[test]
    fn arguments_and_results_go_opposite_ways() {
        let (old, new) = (plain::<OldArgs, u32, Never>(), plain::<NewArgs, u64, Never>());
        let narrowed = "result: the writer sends u64, the reader reads u32: what does not fit is refused when it comes";
        check(&old, &old, false, &[]);
        check(&old, &new, false, &[narrowed]);
        check(
            &new,
            &old,
            true,
            &[
                "arguments `dry_run`: the writer sends Option<bool> that must be understood, the reader does not know it: upgrade the reader first",
            ],
        );
        let other = plain::<OldArgs, String, Never>();
        let changed = "result: the writer sends String, the reader reads u32: give what changed a new name";
        check(&old, &other, true, &[changed]);
    }

    #[test]
    fn application_errors_come_and_go() {
        is_error::<PayError>();
        is_error::<NewError>();
        let (none, old, new) = (plain::<u8, u8, Never>(), plain::<u8, u8, PayError>(), plain::<u8, u8, NewError>());
        check(&old, &none, false, &[]);
        let why = "the server may answer with an application error, the client knows of none: give the changed method a new name";
        check(&none, &old, true, &[why]);
        check(&new, &old, false, &[]);
        let unknown = "error `::Late`: the writer may send a variant with u8, the reader does not know it: \
                       refused when it comes, as there is no #[serde(other)]";
        check(&old, &new, false, &[unknown]);
        let _ = (PayError::Declined, NewError::Declined, NewError::Late(1));
    }

    #[test]
    fn traits_are_compared() {
        let with = |traits| method::<u8, u8, Never>("pay", traits);
        let (plain, oneway) = (with(MethodTraits::default()), with(MethodTraits { oneway: true, ..MethodTraits::default() }));
        let idempotent = with(MethodTraits { idempotent: true, cancel: true, ..MethodTraits::default() });
        let why = "the client and the server do not agree that it is one-way: give the changed method a new name";
        let streams = with(MethodTraits { result_stream: true, ..MethodTraits::default() });
        let other = "one side has a stream where the other has none: give the changed method a new name";
        check(&plain, &streams, true, &[other]);
        check(&streams, &plain, true, &[other]);
        check(&plain, &oneway, true, &[why]);
        check(&oneway, &plain, true, &[why]);
        check(&plain, &idempotent, false, &[]);
        check(&idempotent, &plain, false, &["the client may repeat a call, as it is idempotent there; it is not said to be on the server"]);
        // Nobody reads the result of a one-way method.
        let other = method::<u8, String, Never>("pay", MethodTraits { oneway: true, ..MethodTraits::default() });
        check(&oneway, &other, false, &[]);
    }

    #[test]
    fn methods_and_services_come_and_go() {
        let service = |name: &str, version: &str, methods: &[&str]| ServiceDescriptor {
            name: name.into(),
            foreign_name: None,
            docs: String::new(),
            version: version.into(),
            group: String::new(),
            methods: methods.iter().map(|name| method::<u8, u8, Never>(name, MethodTraits::default())).collect(),
        };
        let old = [service("Pay", "1", &["pay", "void"]), service("Stock", "", &["count"])];
        let new = [service("Pay", "1", &["refund", "pay"]), service("Pay", "2", &["pay"])];
        let all = services(&old, &new);
        let shown = |one: &Compatibility| match one.issues() {
            [] => "safe",
            [Issue::Added] => "added",
            [Issue::Removed] => "removed",
            _ => "?",
        };
        let lines: Vec<String> = all
            .iter()
            .flat_map(|s| s.methods.iter().map(move |m| (s, m)))
            .map(|(s, m)| format!("{} {} {}: {}, {}", s.name, s.version, m.name, shown(&m.old_client), shown(&m.new_client)))
            .collect();
        assert_eq!(
            lines,
            [
                "Pay 1 refund: safe, added",
                "Pay 1 pay: safe, safe",
                "Pay 1 void: removed, safe",
                "Pay 2 pay: safe, added",
                "Stock  count: removed, safe",
            ]
        );
        assert_eq!(all.iter().map(ServiceCompatibility::breaks).collect::<Vec<_>>(), [(true, false), (false, false), (true, false)]);
        assert_eq!(ServiceCompatibility::of_services(&old[0], &new[0]), all[0]);
    }
}
