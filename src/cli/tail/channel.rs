//! `keyrelay tail CHANNEL`: what a client of the channel would be sent, by a relay within this process.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tokio::select;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::delivery;
use super::output::{Closed, Output};
use super::sse::Parser;
use crate::config::Config;
use crate::hub::{Hub, SubscribeError, Subscription};
use crate::process::logging;
use crate::relay;
use crate::session::{Session, Start};
use crate::transport::{self, Wire, sse};
use crate::upstream::feed::Plan;
use crate::upstream::probe::quoted;
use crate::upstream::topology::{self, Doubt};
use crate::upstream::{feed, reader};

/// What is lost is told; that all goes well is told by the deliveries.
const LOG: &str = "warn,keyrelay::upstream::feed::start=info";

/// Tells of every delivery of the channel until nobody reads any more. Whether a client may read it is not asked.
/// `named` is the file of the config, if one was named.
pub(super) async fn tail(
    config: Config,
    named: Option<&Path>,
    channel: &str,
    json: bool,
    output: &Output<String>,
) -> anyhow::Result<()> {
    logging::start(&logging::Options {
        level: LOG.to_owned(),
        format: logging::Format::Human,
    })?;
    let upstream = config.upstream;
    let needs = relay::needs(
        &config.mappings,
        upstream.source,
        &upstream.topology,
        upstream.endpoint.db,
        upstream.notifications,
    );
    let doubt = Doubt::default();
    let (catalog, intake, relay) = relay::new(relay::Options {
        rules: config.mappings,
        timeout: reader::TIMEOUT,
        verify: upstream.verify,
        doubt: doubt.clone(),
        max_dirty: relay::MAX_DIRTY.min(config.mirror.keys),
        limits: config.mirror,
        // Nobody watches over it.
        turns: Arc::default(),
    })
    .map_err(|errors| anyhow::anyhow!("mappings that a checked config does not have: {errors:?}"))?;
    let epoch = getrandom::u64().context("no random numbers to be had")?;
    let (hub, appender) = Hub::new(config.hub, epoch, catalog);
    let subscription = hub.subscribe(channel, false).map_err(|error| match error {
        SubscribeError::Unknown => {
            anyhow::anyhow!("{error}: `{}` says why not", explanation(channel, named))
        }
        SubscribeError::Full(_) => anyhow::anyhow!("no room for the channel: {error}"),
    })?;
    let options = feed::Options {
        endpoint: upstream.endpoint,
        notifications: needs.notifications,
        topics: true,
        strict: true,
    };
    let stop = CancellationToken::new();
    let (_plans, plan) = watch::channel(Plan {
        number: 0,
        subscriptions: needs.subscriptions,
    });
    let feed = topology::run(upstream.topology, options, plan, intake, doubt, stop.clone());
    select! {
        ended = feed => Ok(ended?),
        () = relay.run(appender, stop) => anyhow::bail!("the relay broke down"),
        ended = deliver(&hub, subscription, json, output) => ended,
        () = output.closed() => Ok(()),
    }
}

/// Hands on what a session of this one channel is sent. Whoever reads slowly is slow here too: the session skips values that
/// are not the last.
async fn deliver(
    hub: &Arc<Hub>,
    subscription: Subscription,
    json: bool,
    output: &Output<String>,
) -> anyhow::Result<()> {
    let inbox = hub.open_inbox();
    let log = subscription.log().clone();
    log.view().set_shard(inbox.shard, true);
    let mut watermark = inbox.take().watermark;
    let mut session = Session::new(hub.epoch);
    session.subscribe(subscription, Start::New, watermark, None);
    let mut parser = Parser::default();
    loop {
        while let Some(step) = session.next(watermark) {
            // The very bytes of the wire, so that nothing can be told here that a client is not.
            let frame = sse::without_chunk(&transport::step(&step, Wire::Sse, hub.epoch));
            let mut events = Vec::new();
            parser.read(&frame, &mut |event| events.push(event))?;
            for event in events {
                let line = delivery::line(&log.channel.name, &event, json);
                if let Err(Closed) = output.send(line.len(), line).await {
                    return Ok(());
                }
            }
        }
        if let Some(ending) = session.ended() {
            anyhow::bail!(
                "the channel was ended: {}; docs/limits.md says what that means",
                ending.reason()
            );
        }
        inbox.bell().rung().await;
        watermark = inbox.take().watermark;
    }
}

/// The command that explains the channel, by the same config, for a shell.
fn explanation(channel: &str, named: Option<&Path>) -> String {
    let config = named.map(|file| format!(" --config {}", quoted(&file.to_string_lossy())));
    format!(
        "keyrelay explain --channel {}{}",
        quoted(channel),
        config.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_can_be_typed_as_it_is_told() {
        for (channel, named, command) in [
            ("cart:1", None, "keyrelay explain --channel cart:1"),
            ("", None, "keyrelay explain --channel ''"),
            (
                "it's",
                Some("k.toml"),
                "keyrelay explain --channel 'it'\\''s' --config k.toml",
            ),
            (
                "a",
                Some("my files/k.toml"),
                "keyrelay explain --channel a --config 'my files/k.toml'",
            ),
        ] {
            assert_eq!(explanation(channel, named.map(Path::new)), command);
        }
    }
}
