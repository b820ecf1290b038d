//! `keyrelay demo`: two regions with a relay each, and a page on which one sees every change of their keys.

mod action;
mod desktop;
mod folder;
mod page;
mod relay;
mod server;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{ExitCode, ExitStatus};
use std::rc::Rc;

use anyhow::Context;
use futures_util::future::{join_all, select_all};
use tokio::net::TcpListener;
use tokio::select;
use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::process::signals::{Hangups, Signals};
use folder::Folder;
use page::{Region, Site};
use relay::Relay;
use server::{Program, Server};

/// The regions: a name, part of keys, and what people call it.
const REGIONS: [(&str, &str); 2] = [("ams", "Amsterdam"), ("syd", "Sydney")];

/// Where the first relay listens if the port is free, as it would without a word in its config.
const PORT: u16 = 7400;

/// What both relays are told.
const CONFIG: &str = include_str!("relay.toml");

/// What there is when the page opens.
const SEED: &[&[&str]] = &[
    &["SET", "light", "off"],
    &["SET", "counter", "41"],
    &[
        "RPUSH",
        "hi",
        r#"{"id":"seed-2","name":"Grace","region":"syd","text":"hi from the other side"}"#,
        r#"{"id":"seed-1","name":"Ada","region":"ams","text":"hello, world"}"#,
    ],
    &["SET", "room:lobby:topic", "change me from a terminal"],
    &["HSET", "room:lobby:lamp", "colour", "amber", "watts", "40"],
    &["RPUSH", "room:lobby:visitors", "ada", "grace"],
];

/// Runs until Ctrl-C; nothing is left behind.
pub(super) fn demo() -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, show())
}

async fn show() -> anyhow::Result<ExitCode> {
    let mut signals = Signals::catch().context("cannot catch signals")?;
    let hangups = Hangups::catch().context("cannot catch signals")?;
    let (hung_up, mut terminal) = watch::channel(());
    tokio::task::spawn_local(hangups.follow(hung_up));
    let mut told_to_end = async || {
        select! {
            _ = signals.next() => {}
            // The terminal was closed.
            _ = terminal.changed() => {}
        }
    };
    let mut stage = select! {
        () = told_to_end() => return Ok(ExitCode::SUCCESS),
        stage = Stage::set() => stage?,
    };
    let site = stage.site()?;
    // Without anyone to read it the demo still runs.
    let _ = super::print(&stage.welcome());
    desktop::open(&stage.url());
    let failed = select! {
        () = told_to_end() => None,
        never = page::serve(&stage.page, site) => match never {},
        failed = gone(&mut stage.relays, &stage.servers) => Some(failed),
    };
    select! {
        // At once, if asked a second time.
        () = told_to_end() => {}
        () = drained(&mut stage.relays) => {}
    }
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// All that runs, in the order in which it ends.
struct Stage {
    /// One for each region.
    relays: Vec<Relay>,
    /// One for each region too, or the one for both.
    servers: Vec<Rc<Server>>,
    program: Program,
    page: TcpListener,
    address: SocketAddr,
    _folder: Folder,
}

impl Stage {
    async fn set() -> anyhow::Result<Stage> {
        let program = Program::find()?;
        let folder = Folder::make()?;
        let mut servers = vec![Rc::new(Server::start(&program, folder.path()).await?)];
        if program.names.replicates {
            let other = Server::start(&program, folder.path()).await?;
            servers[0].join(&other).await?;
            servers.push(Rc::new(other));
        }
        servers[0].send(SEED).await.context("cannot fill the server")?;
        let page = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let page = page.context("no free port on 127.0.0.1 for the page")?;
        let address = page.local_addr()?;
        let config = folder.path().join("keyrelay.toml");
        std::fs::write(&config, CONFIG).context("cannot write the config of the relays")?;
        let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).is_ok();
        let mut relays = Vec::new();
        for (at, (name, _)) in REGIONS.into_iter().enumerate() {
            let places = [
                ("DEMO_PORT", if free && at == 0 { PORT } else { 0 }.to_string()),
                ("DEMO_PAGE", format!("http://{address}")),
                ("DEMO_SERVER", format!("redis://{}", of(&servers, at).address)),
            ];
            let relay = Relay::start(&config, places).await;
            relays.push(relay.with_context(|| format!("region {name}"))?);
        }
        Ok(Stage {
            relays,
            servers,
            program,
            page,
            address,
            _folder: folder,
        })
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    fn site(&self) -> anyhow::Result<Site> {
        let regions = self.relays.iter().zip(REGIONS).enumerate();
        let regions = regions.map(|(at, (relay, (name, city)))| Region {
            name,
            city,
            server: of(&self.servers, at).clone(),
            relay: relay.address.clone(),
            admin: relay.admin.clone(),
        });
        Site::new(self.address, self.program.names, regions.collect())
    }

    fn welcome(&self) -> String {
        let server = self.program.names.server;
        let servers = match self.program.names.replicates {
            true => format!("two {server} servers that replicate each other"),
            false => format!("one {server} server for both"),
        };
        let mut text = format!(
            "two regions, a relay in each, {servers}\n\n\
             \x20 open   {}\n\
             \x20 type   {} incr counter\n\
             \x20 watch  curl -N '{}/events?channel=counter'\n\n",
            self.url(),
            self.servers[0].client(),
            self.relays[0].address
        );
        for (at, (relay, (name, _))) in self.relays.iter().zip(REGIONS).enumerate() {
            text.push_str(&format!(
                "  {name}    server {}  relay {}  admin {}\n",
                of(&self.servers, at).address,
                relay.address,
                relay.admin
            ));
        }
        text + "\nCtrl-C ends it and cleans up.\n\n"
    }
}

/// The server of the region at this place.
fn of(servers: &[Rc<Server>], at: usize) -> &Rc<Server> {
    &servers[at.min(servers.len() - 1)]
}

/// Waits until one of the relays or servers has ended, and says so.
async fn gone(relays: &mut [Relay], servers: &[Rc<Server>]) -> anyhow::Error {
    let each = servers.len() > 1;
    let relays = relays.iter_mut().zip(REGIONS).map(|(relay, (region, _))| {
        Box::pin(async move { told(&format!("the relay of {region}"), relay.ended().await) })
    });
    let servers = servers.iter().zip(REGIONS).map(|(server, (region, _))| {
        let what = match each {
            true => format!("the server of {region}"),
            false => "the server".to_owned(),
        };
        Box::pin(async move { told(&what, server.ended().await) })
    });
    select! {
        (relay, ..) = select_all(relays) => relay,
        (server, ..) = select_all(servers) => server,
    }
}

fn told(what: &str, ended: io::Result<ExitStatus>) -> anyhow::Error {
    match ended {
        Ok(status) => anyhow::anyhow!("{what} ended: {status}; start the demo again"),
        Err(error) => anyhow::Error::new(error).context(what.to_owned()),
    }
}

/// Lets all relays drain at the same time.
async fn drained(relays: &mut [Relay]) {
    // One that cannot be told is killed in the end.
    join_all(relays.iter_mut().map(Relay::end)).await;
}
