//! The results: one JSON row per peer, cell and round; for people a table of medians.
use crate::load::Measurement;
use crate::scenario::calls::{Cell, Plan};
use serde::Serialize;
use std::fmt::Write;

#[derive(Clone, Serialize)]
pub(crate) struct Row {
    peer: &'static str,
    payload: String,
    inflight: usize,
    connections: usize,
    transport: String,
    placement: &'static str,
    round: usize,
    #[serde(flatten)]
    measured: Measurement,
}

impl Row {
    pub(crate) fn new(plan: &Plan, peer: &'static str, cell: Cell, round: usize, measured: Measurement) -> Row {
        let Cell { payload, inflight, connections } = cell;
        let (transport, placement) = (plan.transport.to_string(), plan.placement.name());
        Row { peer, payload: payload.to_string(), inflight, connections, transport, placement, round, measured }
    }

    /// Rows of the same cell and peer differ by their round only.
    fn is_beside(&self, other: &Row) -> bool {
        self.is_in_cell_of(other) && self.peer == other.peer
    }

    fn is_in_cell_of(&self, other: &Row) -> bool {
        (&self.payload, self.inflight, self.connections) == (&other.payload, other.inflight, other.connections)
    }
}

pub(crate) struct Results {
    title: String,
    rows: Vec<Row>,
}

impl Results {
    pub(crate) fn new(plan: &Plan) -> Results {
        let title = format!("{}, over {}, medians of {} x {:?}", plan.placement.describe(), plan.transport, plan.rounds, plan.length);
        Results { title, rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// A line per cell and peer, in the order of their first measurement.
    pub(crate) fn table(&self) -> String {
        let mut table = format!("{}\n\n{HEAD}\n", self.title);
        let mut firsts: Vec<&Row> = Vec::new();
        for row in &self.rows {
            if !firsts.iter().any(|first| first.is_beside(row)) {
                firsts.push(row);
            }
        }
        for row in &firsts {
            let anchor = firsts.iter().find(|first| first.is_in_cell_of(row)).expect("at least itself");
            table.push_str(&self.line(row, anchor));
        }
        table
    }

    fn line(&self, row: &Row, anchor: &Row) -> String {
        let of = |row: &Row, value: fn(&Measurement) -> f64| -> f64 {
            median(self.rows.iter().filter(|other| other.is_beside(row)).map(|other| value(&other.measured)).collect())
        };
        let calls = |row| of(row, |m| m.calls_per_s);
        let cpu = |row| of(row, |m| m.cpu_us_per_call);
        let mut line = String::new();
        writeln!(
            line,
            "{:9} {:>9} {:>8} {:>5} {:>10.0} {:>6.2} {:>9.1} {:>9.1} {:>9.1} {:>9} {:>6.2} {:>8} {:>8} {:>7.1}",
            row.peer,
            row.payload,
            row.inflight,
            row.connections,
            calls(row),
            calls(row) / calls(anchor),
            of(row, |m| m.p50_us),
            of(row, |m| m.p99_us),
            of(row, |m| m.p999_us),
            three_digits(cpu(row)),
            cpu(row) / cpu(anchor),
            three_digits(of(row, |m| m.client_cpu_us_per_call)),
            three_digits(of(row, |m| m.server_cpu_us_per_call)),
            of(row, |m| m.rss_kib as f64) / 1024.0,
        )
        .expect("a String takes everything");
        line
    }
}

const HEAD: &str = "\
peer        payload inflight conns    calls/s  ratio    p50 us    p99 us  p99.9 us    CPU us  ratio   client   server RSS MiB";

/// CPU per call runs from 0.1 to 500 us.
pub(crate) fn three_digits(value: f64) -> String {
    match value {
        ..10.0 => format!("{value:.3}"),
        ..100.0 => format!("{value:.2}"),
        _ => format!("{value:.1}"),
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values[..] {
        [] => f64::NAN,
        _ => (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two() {
        for (values, want) in [(vec![3.0], 3.0), (vec![9.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0, 2.0, 100.0], 3.0)] {
            assert_eq!(median(values), want);
        }
        assert!(median(vec![]).is_nan());
    }

    fn row(peer: &'static str, inflight: usize, round: usize, calls_per_s: f64, cpu: f64) -> Row {
        let measured = Measurement {
            calls_per_s,
            p50_us: 1.0,
            p99_us: 2.0,
            p999_us: 3.0,
            cpu_us_per_call: cpu,
            client_cpu_us_per_call: cpu / 2.0,
            server_cpu_us_per_call: cpu / 2.0,
            rss_kib: 2048,
        };
        Row { peer, payload: "tiny".into(), inflight, connections: 1, transport: "tcp".into(), placement: "apart", round, measured }
    }

    #[test]
    fn ratios_are_to_the_first_peer_of_the_same_cell() {
        let rows = vec![
            row("raw", 1, 0, 100.0, 10.0),
            row("slow", 1, 0, 50.0, 30.0),
            row("raw", 16, 0, 400.0, 2.0),
            row("slow", 16, 0, 100.0, 8.0),
            row("raw", 1, 1, 200.0, 12.0),
        ];
        let table = Results { title: "t".into(), rows }.table();
        let fields: Vec<Vec<&str>> = table.lines().skip(3).map(|line| line.split_whitespace().collect()).collect();
        let picked: Vec<_> = fields.iter().map(|f| (f[0], f[2], f[4], f[5], f[9], f[10])).collect();
        assert_eq!(
            picked,
            [
                ("raw", "1", "150", "1.00", "11.00", "1.00"),
                ("slow", "1", "50", "0.33", "30.00", "2.73"),
                ("raw", "16", "400", "1.00", "2.000", "1.00"),
                ("slow", "16", "100", "0.25", "8.000", "4.00"),
            ]
        );
    }

    #[test]
    fn a_row_is_flat_json() {
        let json: serde_json::Value = serde_json::to_value(row("raw", 16, 2, 1.0, 1.0)).unwrap();
        for key in [
            "peer",
            "payload",
            "inflight",
            "connections",
            "transport",
            "placement",
            "round",
            "calls_per_s",
            "p999_us",
            "cpu_us_per_call",
            "rss_kib",
        ] {
            assert!(json.get(key).is_some(), "{key}");
        }
    }
}
