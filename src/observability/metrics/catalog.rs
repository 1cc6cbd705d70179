//! Tables of metrics: each metric is one line, from which it is registered and listed.

use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric},
    registry::{Metric, Registry},
};
use std::{fmt, sync::Arc};

/// Labels and value of one series.
pub(super) type Series = (Vec<(&'static str, String)>, f64);

/// A metric that is computed when metrics are collected: what it shows of `T`.
pub(super) struct Computed<T> {
    pub name: &'static str,
    pub help: &'static str,
    pub kind: MetricType,
    pub series: fn(&T) -> Vec<Series>,
}

/// A gauge without labels that is absent as long as it is unknown.
pub(super) fn single(value: Option<impl Into<f64>>) -> Vec<Series> {
    value.map(|value| (Vec::new(), value.into())).into_iter().collect()
}

/// Metrics, and their names.
#[derive(Debug)]
pub(super) struct Catalog {
    registry: Registry,
    names: Vec<String>,
}

impl Catalog {
    /// The names of these metrics begin with this.
    pub fn new(prefix: &str) -> Self {
        Self { registry: Registry::with_prefix(prefix), names: Vec::new() }
    }

    pub fn add<M: Metric + TypedMetric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.registry.register(name, help, metric.clone());
        self.list(name, M::TYPE);
        metric
    }

    /// Adds metrics that are computed from this state.
    pub fn compute<T: Send + 'static>(&mut self, state: Arc<Mutex<T>>, table: &'static [Computed<T>]) {
        self.compute_all(state, table, |state, series| series(state));
    }

    /// Adds metrics that are computed from each part of this state: `all` collects the series of all parts.
    pub fn compute_all<S: Send + 'static, T>(
        &mut self,
        state: Arc<Mutex<S>>,
        table: &'static [Computed<T>],
        all: All<S, T>,
    ) {
        table.iter().for_each(|metric| self.list(metric.name, metric.kind));
        self.registry.register_collector(Box::new(Table { state, table, all }));
    }

    fn list(&mut self, name: &str, kind: MetricType) {
        let suffix = if matches!(kind, MetricType::Counter) { "_total" } else { "" };
        self.names.push(format!("{name}{suffix}"));
    }

    /// The names, without the prefix.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}

/// The series that a metric of the parts has for the whole.
type All<S, T> = fn(&S, fn(&T) -> Vec<Series>) -> Vec<Series>;

struct Table<S, T: 'static> {
    state: Arc<Mutex<S>>,
    table: &'static [Computed<T>],
    all: All<S, T>,
}

impl<S, T> fmt::Debug for Table<S, T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Table")
    }
}

impl<S: Send + 'static, T: 'static> Collector for Table<S, T> {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for metric in self.table {
            let all = (self.all)(&self.state.lock(), metric.series);
            if all.is_empty() {
                continue;
            }
            let mut family = encoder.encode_descriptor(metric.name, metric.help, None, metric.kind)?;
            for (labels, value) in all {
                match labels.as_slice() {
                    // With an empty set of labels there would be empty braces.
                    [] => write(&mut family, metric.kind, value)?,
                    _ => write(&mut family.encode_family(&labels)?, metric.kind, value)?,
                }
            }
        }
        Ok(())
    }
}

fn write(series: &mut MetricEncoder<'_>, kind: MetricType, value: f64) -> fmt::Result {
    match kind {
        MetricType::Counter => series.encode_counter::<NoLabelSet, f64, f64>(&value, None),
        // Whole numbers are written as such.
        #[allow(clippy::cast_possible_truncation, reason = "it is whole, and small enough")]
        _ if value.fract() == 0.0 && value.abs() < 9e15 => series.encode_gauge(&(value as i64)),
        _ => series.encode_gauge(&value),
    }
}
