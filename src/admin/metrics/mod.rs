//! The counts of all layers, as Prometheus reads them.

mod out;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::time::UNIX_EPOCH;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;

use super::{Sources, health, process};
use crate::fanout;
use crate::relay::stats::{GAPS, KINDS, UNROUTABLE};
use crate::upstream::feed::LostReason;
use out::Out;

/// Every metric of its own begins with this; those of the process have the names that they have everywhere.
const PREFIX: &str = "keyrelay";

/// The media type of the format that Prometheus has always read, and of the one that it prefers.
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Encodes them all.
#[derive(Debug)]
pub struct Metrics {
    own: Registry,
    process: Registry,
}

impl Metrics {
    pub fn new(sources: Sources) -> Metrics {
        let (mut own, mut process) = (Registry::with_prefix(PREFIX), Registry::default());
        process.register_collector(Box::new(Process(sources.clone())));
        own.register_collector(Box::new(sources));
        Metrics { own, process }
    }

    /// The media type and the text: OpenMetrics for those who accept it by name.
    pub fn text<'a>(&self, mut accept: impl Iterator<Item = &'a str>) -> (&'static str, String) {
        let mut open = String::new();
        text::encode_registry(&mut open, &self.own)
            .and_then(|()| text::encode_registry(&mut open, &self.process))
            .and_then(|()| text::encode_eof(&mut open))
            .expect("a string takes any text");
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
    let kinds = open
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let kinds: HashMap<&str, &str> = kinds.collect();
    let mut plain = String::with_capacity(open.len());
    for line in open.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("EOF" | "UNIT"), ..) => {}
            (Some("#"), Some(what), Some(name), Some(rest)) if kinds.get(name) == Some(&"counter") => {
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

impl Collector for Sources {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        self.whole(&mut out)?;
        self.upstream(&mut out)?;
        self.events(&mut out)?;
        self.mirror(&mut out)?;
        self.clients(&mut out)
    }
}

impl Sources {
    fn whole(&self, out: &mut Out<'_>) -> fmt::Result {
        let version = [(env!("CARGO_PKG_VERSION"), 1)];
        out.gauges("build_info", "Which keyrelay this is; always 1", "version", version)?;
        let ready = health::is_ready(&health::parts(self));
        out.gauge(
            "ready",
            "Whether clients are served what is true, as /readyz says",
            u8::from(ready),
        )?;
        let draining = self.drain.is_cancelled();
        out.gauge("draining", "Whether the process goes down in order", u8::from(draining))?;
        let applied = self.reloads.applied.load(Ordering::Relaxed);
        let refused = self.reloads.refused.load(Ordering::Relaxed);
        out.counters(
            "config_reloads",
            "Reloads of the config",
            "result",
            [("applied", applied), ("refused", refused)],
        )?;
        out.moment(
            "config_last_reload_success_timestamp",
            "When the config that holds was read",
            self.reloads.last.load(Ordering::Relaxed) as f64 / 1e3,
        )
    }

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
            ("reason", &LostReason::WORDS),
            &stats.lost,
        )?;
        out.counter("upstream_reconnects", "Times a node was heard again", &stats.reconnects)?;
        out.counter("upstream_late", "Times a node did not answer in time", &stats.late)
    }

    fn events(&self, out: &mut Out<'_>) -> fmt::Result {
        let stats = &*self.relay;
        let (heard, mapped) = stats.key_events();
        out.count("key_events", "Key events heard", heard)?;
        out.count("key_events_mapped", "Key events of channels with a subscriber", mapped)?;
        out.count(
            "key_events_unmapped",
            "Key events of no channel with a subscriber",
            heard - mapped,
        )?;
        let mappings = stats.mappings();
        let mappings = mappings.iter().map(|(pattern, count)| (pattern.as_str(), *count));
        out.counters(
            "mapping_events",
            "Key events and published messages that a mapping gave to a channel with a subscriber",
            "mapping",
            mappings,
        )?;
        out.counter(
            "published_messages",
            "Messages heard on Pub/Sub channels",
            &stats.published,
        )?;
        out.tally(
            "unroutable_messages",
            "Published messages without the field that names their channel",
            ("reason", &UNROUTABLE),
            &stats.unroutable,
        )
    }

    fn mirror(&self, out: &mut Out<'_>) -> fmt::Result {
        let stats = &*self.relay;
        out.tally(
            "gaps",
            "Times from when on events may have been missed",
            ("reason", &GAPS),
            &stats.gaps,
        )?;
        out.tally("resyncs", "Resyncs completed", ("reason", &GAPS), &stats.resyncs)?;
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
            ("kind", &KINDS),
            &stats.read_errors,
        )?;
        out.seconds(
            "scan_pause",
            "Waited between the pages of passes over all keys, so as to keep to scan_share",
            stats.scan_pauses.load(Ordering::Relaxed) as f64 / 1e6,
        )?;
        out.counter("missed_happenings", "Happenings that could not be kept", &stats.missed)?;
        out.counter(
            "unsendable_messages",
            "Changes without a form to send",
            &stats.unsendable,
        )?;
        out.gauge("keys", "Keys mirrored", stats.keys.load(Ordering::Relaxed))?;
        out.gauge(
            "dirty_keys",
            "Keys that wait to be read",
            stats.dirty.load(Ordering::Relaxed),
        )?;
        out.gauge(
            "deadlines",
            "Keys whose expiry is awaited",
            stats.deadlines.load(Ordering::Relaxed),
        )?;
        out.gauge(
            "stale_channels",
            "Channels that may be behind",
            stats.stale.load(Ordering::Relaxed),
        )
    }

    fn clients(&self, out: &mut Out<'_>) -> fmt::Result {
        let stats = &*self.fanout;
        out.gauge("channels", "Channels with a log", self.hub.channels())?;
        out.gauge(
            "subscriptions",
            "Channels of all connections together",
            self.hub.subscriptions(),
        )?;
        out.bytes(
            "log",
            "Values and happenings of all channels, and what was made of them to be sent",
            self.hub.log_bytes() as u64,
        )?;
        let sse = stats.sse.load(Ordering::Relaxed);
        let websocket = stats.websocket.load(Ordering::Relaxed);
        let connections = [("sse", sse), ("websocket", websocket)];
        out.gauges("connections", "Clients connected", "transport", connections)?;
        let blocked = stats.blocked.load(Ordering::Relaxed);
        out.gauge("blocked_connections", "Clients whose sockets take nothing now", blocked)?;
        let sse = stats.sse_opened.load(Ordering::Relaxed);
        let websocket = stats.websocket_opened.load(Ordering::Relaxed);
        let opened = [("sse", sse), ("websocket", websocket)];
        out.counters("sessions_opened", "Clients that came", "transport", opened)?;
        out.tally(
            "sessions_ended",
            "Clients that went",
            ("reason", &fanout::ENDINGS),
            &stats.ended,
        )?;
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
        out.durations(
            "delivery_latency",
            "From hearing of a change to having handed it to all sockets of a core that take it",
            &stats.latency,
        )?;
        out.counter("slow_clients", "Clients ended because they took nothing", &stats.slow)?;
        let pinned = stats.pinned.load(Ordering::Relaxed);
        out.bytes("pinned", "Frames that half-written clients hold on to", pinned as u64)
    }
}

/// What every process has.
#[derive(Debug)]
struct Process(Sources);

impl Collector for Process {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        let started = self.0.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        out.moment(
            "process_start_time",
            "When the process began to serve",
            started.as_secs_f64(),
        )?;
        let Some(usage) = process::usage() else { return Ok(()) };
        out.seconds(
            "process_cpu",
            "Time spent on all cores, in the process and in the kernel for it",
            usage.cpu_seconds,
        )?;
        out.bytes("process_resident_memory", "Memory in use", usage.resident_bytes)?;
        out.bytes("process_virtual_memory", "Address space taken", usage.virtual_bytes)?;
        out.gauge("process_open_fds", "Descriptors in use", usage.open_files)?;
        match usage.max_files {
            Some(most) => out.gauge("process_max_fds", "Descriptors that may be in use", most),
            None => Ok(()),
        }
    }
}
