//! One line for each call.
//!
//! ```text
//! 2026-11-27T22:15:03.042Z server Bank.pay caller=id:shop peer=tcp://10.0.0.7:51234 outcome=ok ms=1.250 trace=4bf9…
//! ```
//!
//! Fields are separated by one blank and come in this order: time (UTC, milliseconds), side, `Service.method`, caller
//! ([`CallInfo::caller`], `-` if it is not known), peer, outcome (`ok`, `app-error`, `replayed`, or a code such as
//! `PermissionDenied`), milliseconds, trace id (`-` if none). Blanks and control characters in a field are escaped, so a line
//! is a line and has eight fields. A call that was dropped, because its deadline passed or its caller left, ends as
//! `DeadlineExceeded` or `Cancelled`. A stream has a second line, `outcome=stream-…`, when it ends.

use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use farcall_core::RpcError;

use super::{CallInfo, Interceptor, Next, dropped};
use crate::method::BoxFuture;
use crate::observer::{Ended, Side};
use std::sync::{Arc, PoisonError};

/// Writes a line for each call to any writer. A writer that fails loses lines, not calls. A call waits for its line
/// to be written: give it something that buffers.
///
/// ```
/// use farcall_rpc::intercept::AccessLog;
/// let log = AccessLog::to(std::io::LineWriter::new(std::io::stderr()));
/// ```
#[derive(Clone)]
pub struct AccessLog(Arc<Mutex<dyn Write + Send>>);

impl AccessLog {
    /// Writes to this.
    pub fn to(writer: impl Write + Send + 'static) -> AccessLog {
        AccessLog(Arc::new(Mutex::new(writer)))
    }

    fn write(&self, line: &Line, outcome: &str) {
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writer.write_all(line.show(outcome).as_bytes());
    }
}

/// What is known of a call before its end.
#[derive(Clone)]
struct Line {
    side: Side,
    method: String,
    caller: String,
    peer: String,
    trace: Option<[u8; 16]>,
    since: Instant,
}

impl Line {
    fn of(call: &CallInfo) -> Line {
        Line {
            side: call.side(),
            method: call.method_name(),
            caller: call.caller().to_owned(),
            peer: call.peer().map_or_else(String::new, |peer| peer.address.clone()),
            trace: call.trace().map(|trace| trace.trace_id),
            since: crate::time::now(),
        }
    }

    fn show(&self, outcome: &str) -> String {
        let took = crate::time::now().saturating_duration_since(self.since);
        let side = if self.side == Side::Server { "server" } else { "client" };
        let trace = self.trace.map_or("-".to_owned(), |id| id.iter().map(|b| format!("{b:02x}")).collect());
        let (time, ms) = (utc(SystemTime::now()), took.as_secs_f64() * 1000.0);
        let [method, caller, peer] = [&self.method, &self.caller, &self.peer].map(|text| field(text));
        format!("{time} {side} {method} caller={caller} peer={peer} outcome={outcome} ms={ms:.3} trace={trace}\n")
    }
}

/// Without what would end a field or a line.
fn field(text: &str) -> String {
    let plain = |c: char| !c.is_whitespace() && !c.is_control();
    match text {
        "" => "-".to_owned(),
        _ => text.chars().map(|c| if plain(c) { c.to_string() } else { c.escape_unicode().to_string() }).collect(),
    }
}

fn outcome(ended: &Result<Ended, RpcError>) -> String {
    match ended {
        Ok(Ended::Ok) => "ok".into(),
        Ok(Ended::AppError) => "app-error".into(),
        Ok(Ended::Replayed) => "replayed".into(),
        Ok(Ended::Failed(code, _)) => code.to_string(),
        Err(error) => error.code().to_string(),
    }
}

impl Interceptor for AccessLog {
    fn intercept(&self, mut call: CallInfo, next: Next) -> BoxFuture<'static, Result<Ended, RpcError>> {
        let (log, line) = (self.clone(), Line::of(&call));
        if call.method().is_some_and(|m| m.traits.result_stream) {
            let (log, line) = (log.clone(), line.clone());
            call.when_stream_ends(move |ended| log.write(&line, &format!("stream-{}", outcome(&Ok(ended)))));
        }
        let mut running = Running { log, line, expires: call.0.context.expires, ended: false };
        Box::pin(async move {
            let ended = next.run(call).await;
            running.end(&outcome(&ended));
            ended
        })
    }
}

/// A call that has no line yet, and gets one also if it is dropped before its end.
struct Running {
    log: AccessLog,
    line: Line,
    expires: Option<Instant>,
    ended: bool,
}

impl Running {
    fn end(&mut self, outcome: &str) {
        self.ended = true;
        self.log.write(&self.line, outcome);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.end(&dropped(self.expires).to_string());
        }
    }
}

/// RFC 3339, with milliseconds.
fn utc(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

/// The date of a number of days after 1970-01-01, in the Gregorian calendar: counted in years that begin in March, so
/// that a leap day is the last of its year.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn a_field_is_one_field() {
        assert_eq!(field("id:a b\nserver x"), "id:a\\u{20}b\\u{a}server\\u{20}x");
        assert_eq!(field(""), "-");
    }
}
