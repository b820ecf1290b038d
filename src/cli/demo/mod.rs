//! `keyrelay demo`: a throwaway server, the relay in front of it, and a page that shows one room's keys.

mod page;
mod server;

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;
use std::thread;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use crate::process::logging;
use crate::process::systemd::Manager;
use crate::{app, config};
use server::Server;

/// Where the relay listens if the port is free, as it would without a word in its config.
const PORT: u16 = 7400;

/// What the room holds when the page opens.
const SEED: &[&[&str]] = &[
    &["SET", "room:lobby:topic", "change me from a terminal"],
    &["HSET", "room:lobby:lamp", "on", "no", "colour", "amber"],
    &["RPUSH", "room:lobby:visitors", "ada", "grace"],
];

/// Runs until Ctrl-C; nothing is left behind.
pub(super) fn demo() -> anyhow::Result<ExitCode> {
    let server = Server::start()?;
    server.send(SEED).context("cannot fill the room")?;
    let page = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on 127.0.0.1 for the page")?;
    let origin = format!("http://{}", page.local_addr()?);
    let relay = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .and_then(|free| free.local_addr())
        .context("no free port on 127.0.0.1 for the relay")?;
    let file = server.folder().join("keyrelay.toml");
    let text = format!(
        "[server]\nlisten = [\"{relay}\"]\norigins = [\"{origin}\"]\n\n[admin]\nlisten = \"127.0.0.1:0\"\n\n[upstream]\nurl = \"redis://{}\"\n\n[log]\nlevel = \"warn\"\n\n\
         [[mapping]]\nkey = \"room:{{room}}:{{name}}\"\nchannel = \"room:{{room}}\"\naccess = \"public\"\n",
        server.address
    );
    fs::write(&file, text).context("cannot write the demo's config")?;
    let config = config::load(&file, &|_| None)
        .map_err(|problems| anyhow::anyhow!("the demo's config: {}", problems.render(&file, false)))?;
    logging::start(&config.log)?;

    let events = format!("http://{relay}/events?channel=room:lobby");
    let welcome = format!(
        "{} at {}, keyrelay in front of it at http://{relay}\n\n\
         \x20 open   {origin}/\n\
         \x20 type   {} set room:lobby:topic hello\n\
         \x20 watch  curl -N '{events}'\n\n\
         Ctrl-C ends it and cleans up.\n\n",
        server.name,
        server.address,
        server.client()
    );
    let stop = CancellationToken::new();
    let filled = page::fill(&events, &server.client());
    let serving = {
        let stop = stop.clone();
        thread::Builder::new()
            .name("page".into())
            .spawn(move || page::serve(page, filled, stop))?
    };
    let done = app::run(config, Manager::none(), None, || {
        // Without anyone to read it the demo still runs.
        let _ = super::print(&welcome);
    });
    stop.cancel();
    let served = serving
        .join()
        .unwrap_or_else(|_| anyhow::bail!("the page's thread failed"));
    let code = super::run::ended(done?);
    served.map(|()| code)
}
