//! Writes one metric after the other, whatever kind it is of.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::tally::{Durations, Tally};

/// The labels of one series.
type Labels<'a> = [(&'static str, &'a str); 1];

/// Where they are written to. Names are without prefix, unit and `_total`, which are added.
pub struct Out<'a>(pub DescriptorEncoder<'a>);

impl Out<'_> {
    /// A count from the start on.
    pub fn counter(&mut self, name: &str, help: &str, value: &AtomicU64) -> fmt::Result {
        self.count(name, help, value.load(Ordering::Relaxed))
    }

    /// As [`Out::counter`].
    pub fn count(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    /// A sum of seconds from the start on.
    pub fn seconds(&mut self, name: &str, help: &str, seconds: f64) -> fmt::Result {
        let unit = Some(&Unit::Seconds);
        let mut metric = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&seconds, None)
    }

    /// A moment, in seconds since 1970.
    pub fn moment(&mut self, name: &str, help: &str, seconds: f64) -> fmt::Result {
        let unit = Some(&Unit::Seconds);
        let mut metric = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        metric.encode_gauge(&seconds)
    }

    /// A count for each word: for those that are known from the start on, so that the first time is seen as one more and
    /// not as the beginning of a series.
    pub fn tally(
        &mut self,
        name: &str,
        help: &str,
        (label, known): (&'static str, &[&'static str]),
        tally: &Tally,
    ) -> fmt::Result {
        let mut counts: BTreeMap<&str, u64> = known.iter().map(|&word| (word, 0)).collect();
        counts.extend(tally.all());
        self.counters(name, help, label, counts)
    }

    /// A count for each value of the label.
    pub fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        counts: impl IntoIterator<Item = (&'a str, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (word, count) in counts {
            let labels: Labels<'_> = [(label, word)];
            metric
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }

    /// What is so now.
    pub fn gauge<T: TryInto<i64>>(&mut self, name: &str, help: &str, value: T) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        metric.encode_gauge(&value.try_into().unwrap_or(i64::MAX))
    }

    /// Bytes that are taken now.
    pub fn bytes(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let unit = Some(&Unit::Bytes);
        let mut metric = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        metric.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))
    }

    /// What is so now, for each value of the label.
    pub fn gauges<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'a str, usize)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (word, value) in values {
            let labels: Labels<'_> = [(label, word)];
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// How long something took, each time.
    pub fn durations(&mut self, name: &str, help: &str, durations: &Durations) -> fmt::Result {
        let sums = durations.sums();
        let beyond = sums.count - sums.within.iter().sum::<u64>();
        let limits = Durations::LIMITS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = limits.zip(sums.within.into_iter().chain([beyond])).collect();
        let unit = Some(&Unit::Seconds);
        let mut metric = self.0.encode_descriptor(name, help, unit, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(sums.seconds, sums.count, &buckets, None)
    }
}
