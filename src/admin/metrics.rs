//! The counts of all layers, as Prometheus reads them.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::Sources;
use crate::tally::{Durations, Tally};

/// Every metric begins with this.
const PREFIX: &str = "keyrelay";

/// The media type of the format that Prometheus has always read, and of the one that it prefers.
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Encodes them all.
#[derive(Debug)]
pub struct Metrics(Registry);

impl Metrics {
    pub fn new(sources: Sources) -> Metrics {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(sources));
        Metrics(registry)
    }

    /// The media type and the text: OpenMetrics for those who accept it by name.
    pub fn text<'a>(&self, mut accept: impl Iterator<Item = &'a str>) -> (&'static str, String) {
        let mut open = String::new();
        text::encode(&mut open, &self.0).expect("a string takes any text");
        if accept.any(|value| value.contains("application/openmetrics-text")) {
            (OPEN, open)
        } else {
            (PLAIN, plain(&open))
        }
    }
}

/// The older format of what is OpenMetrics: there a counter's name has its `_total` everywhere, and units and the end are
/// not told.
fn plain(open: &str) -> String {
    let kind_of = |name: &str| {
        let mut kinds = open
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        kinds.find(|(each, _)| *each == name).map(|(_, kind)| kind)
    };
    let mut plain = String::with_capacity(open.len());
    for line in open.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("EOF" | "UNIT"), ..) => {}
            (Some("#"), Some(what), Some(name), Some(rest)) if kind_of(name) == Some("counter") => {
                plain.push_str(&format!("# {what} {name}_total {rest}\n"));
            }
            _ => {
                plain.push_str(line);
                plain.push('\n');
            }
        }
    }
    plain
}

/// The labels of one series.
type Labels<'a> = [(&'static str, &'a str); 1];

impl Collector for Sources {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        self.upstream(&mut out)?;
        self.mirror(&mut out)?;
        self.clients(&mut out)
    }
}

impl Sources {
    fn upstream(&self, out: &mut Out<'_>) -> fmt::Result {
        let stats = &*self.relay;
        let nodes = stats.nodes();
        let up = nodes
            .iter()
            .map(|node| (node.address.as_str(), node.heard.trouble.is_none().into()));
        out.gauges("upstream_up", "Whether the node's key events are heard", "node", up)?;
        let readable = nodes
            .iter()
            .map(|node| (node.address.as_str(), node.readable.trouble.is_none().into()));
        out.gauges(
            "upstream_readable",
            "Whether the node's keys can be read",
            "node",
            readable,
        )?;
        let current = nodes
            .iter()
            .map(|node| (node.address.as_str(), node.current.trouble.is_none().into()));
        out.gauges(
            "upstream_current",
            "Whether the node is no replica behind its primary",
            "node",
            current,
        )?;
        let peers = nodes.iter().map(|node| {
            let down = node.role.as_ref().map_or(0, |role| role.peers_down().len());
            (node.address.as_str(), down)
        });
        out.gauges(
            "upstream_peers_down",
            "Links of an active replica to its peers that are down",
            "node",
            peers,
        )?;
        out.tally(
            "upstream_losses",
            "Reasons for which a node was not heard",
            "reason",
            &stats.lost,
        )?;
        out.counter("upstream_reconnects", "Times a node was heard again", &stats.reconnects)?;
        out.counter("upstream_late", "Times a node did not answer in time", &stats.late)?;
        out.counter("key_events", "Key events heard", &stats.events)?;
        out.counter(
            "key_events_mapped",
            "Key events of channels with a subscriber",
            &stats.mapped,
        )?;
        out.counter(
            "published_messages",
            "Messages heard on Pub/Sub channels",
            &stats.published,
        )?;
        out.tally(
            "unroutable_messages",
            "Published messages without the field that names their channel",
            "reason",
            &stats.unroutable,
        )
    }

    fn mirror(&self, out: &mut Out<'_>) -> fmt::Result {
        let stats = &*self.relay;
        out.tally(
            "gaps",
            "Times from when on events may have been missed",
            "reason",
            &stats.gaps,
        )?;
        out.tally("resyncs", "Resyncs completed", "reason", &stats.resyncs)?;
        out.durations(
            "resync_duration",
            "From a gap to the end of its resync",
            &stats.resync_time,
        )?;
        out.counter(
            "resync_differences",
            "Values that a resync found to differ",
            &stats.differences,
        )?;
        out.counter("repairs", "Values that only verify found to differ", &stats.repairs)?;
        out.counter("reads", "Keys read", &stats.reads)?;
        out.tally(
            "read_errors",
            "Reads and scans that gave no value",
            "kind",
            &stats.read_errors,
        )?;
        out.seconds(
            "scan_pause",
            "Waited between the pages of passes over all keys, so as to keep to scan_share",
            stats.scan_pauses.load(Ordering::Relaxed),
        )?;
        out.counter("missed_happenings", "Happenings that could not be kept", &stats.missed)?;
        out.counter(
            "unsendable_messages",
            "Changes without a form to send",
            &stats.unsendable,
        )?;
        out.gauge("keys", "Keys mirrored", &stats.keys)?;
        out.gauge("dirty_keys", "Keys that wait to be read", &stats.dirty)?;
        out.gauge("deadlines", "Keys whose expiry is awaited", &stats.deadlines)?;
        out.gauge("stale_channels", "Channels that may be behind", &stats.stale)
    }

    fn clients(&self, out: &mut Out<'_>) -> fmt::Result {
        let stats = &*self.fanout;
        out.gauges("channels", "Channels with a log", "", [("", self.hub.channels())])?;
        out.bytes(
            "log",
            "Values and happenings of all channels, and what was made of them to be sent",
            self.hub.log_bytes(),
        )?;
        let sse = stats.sse.load(Ordering::Relaxed);
        let websocket = stats.websocket.load(Ordering::Relaxed);
        let connections = [("sse", sse), ("websocket", websocket)];
        out.gauges("connections", "Clients connected", "transport", connections)?;
        out.counters(
            "limited",
            "Times that a limit of [limits] was reached",
            "limit",
            stats.limited.all().chain(self.hub.limited.all()),
        )?;
        out.counter(
            "refused_bodies",
            "States that found no room beside all others that are being sent",
            &stats.limited.refused_bodies,
        )?;
        out.counter(
            "refused_questions",
            "Clients for whom there was no room to ask the app, or to wait for it or for keys",
            &stats.limited.refused_questions,
        )?;
        out.counter("messages_sent", "Messages handed to sockets", &stats.messages)?;
        out.counter("slow_clients", "Clients ended because they took nothing", &stats.slow)?;
        let pinned = stats.pinned.load(Ordering::Relaxed);
        out.bytes("pinned", "Frames that half-written clients hold on to", pinned)
    }
}

/// Writes one metric after the other.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn counter(&mut self, name: &str, help: &str, value: &AtomicU64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value.load(Ordering::Relaxed), None)
    }

    fn seconds(&mut self, name: &str, help: &str, microseconds: u64) -> fmt::Result {
        let unit = Some(&Unit::Seconds);
        let mut metric = self.0.encode_descriptor(name, help, unit, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&(microseconds as f64 / 1e6), None)
    }

    /// A series for each word.
    fn tally(&mut self, name: &str, help: &str, label: &'static str, tally: &Tally) -> fmt::Result {
        self.counters(name, help, label, tally.all())
    }

    /// A series for each word and its count.
    fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        counts: impl IntoIterator<Item = (&'static str, u64)>,
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

    fn gauge(&mut self, name: &str, help: &str, value: &AtomicUsize) -> fmt::Result {
        self.gauges(name, help, "", [("", value.load(Ordering::Relaxed))])
    }

    fn bytes(&mut self, name: &str, help: &str, value: usize) -> fmt::Result {
        let unit = Some(&Unit::Bytes);
        let mut metric = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        metric.encode_gauge(&value)
    }

    /// A series for each value of the label; without a label there is one.
    fn gauges<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'a str, usize)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (word, value) in values {
            let labels: Labels<'_> = [(label, word)];
            match label {
                "" => metric.encode_gauge(&value)?,
                _ => metric.encode_family(&labels)?.encode_gauge(&value)?,
            }
        }
        Ok(())
    }

    fn durations(&mut self, name: &str, help: &str, durations: &Durations) -> fmt::Result {
        let sums = durations.sums();
        let beyond = sums.count - sums.within.iter().sum::<u64>();
        let limits = Durations::LIMITS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = limits.zip(sums.within.into_iter().chain([beyond])).collect();
        let unit = Some(&Unit::Seconds);
        let mut metric = self.0.encode_descriptor(name, help, unit, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(sums.seconds, sums.count, &buckets, None)
    }
}
