//! Where it listens: at the addresses of the config, or at sockets that systemd hands over for them.
//!
//! What is handed over under the name `http` takes the place of `listen` under [server], and under the name `admin` of that
//! under [admin]. A `listen` other than the default must name the same addresses: of two that contradict each other, one
//! would be ignored.

use anyhow::{Context, bail};

use crate::config::Config;
use crate::process::systemd::Handed;
use crate::server::{self, Address, Listener};

/// The names of sockets, as `FileDescriptorName=` gives them.
const HTTP: &str = "http";
const ADMIN: &str = "admin";

/// Everything that is listened at.
#[derive(Debug)]
pub(super) struct Listeners {
    /// For clients.
    pub public: Vec<Listener>,
    /// For operators.
    pub admin: Listener,
}

/// Takes what is handed over, and binds the rest.
///
/// # Errors
/// If what is handed over does not fit the config, or an address cannot be listened at; it says what to do.
pub(super) fn open(config: &Config, handed: Vec<Handed>) -> anyhow::Result<Listeners> {
    let (mut public, mut admins) = (Vec::new(), Vec::new());
    for Handed { name, socket } in handed {
        let shown = name.as_deref().unwrap_or("which has no name");
        let listener = Listener::inherit(socket)
            .with_context(|| format!("a socket that systemd hands over ({shown}) cannot be listened at"))?;
        match name.as_deref() {
            Some(HTTP) | None => public.push(listener),
            Some(ADMIN) => admins.push(listener),
            Some(name) => bail!(
                "systemd hands over {} under the name `{name}`, and keyrelay knows only `{HTTP}` (for clients) and `{ADMIN}` (for \
                 operators): write FileDescriptorName={HTTP} into the .socket unit",
                listener.address()
            ),
        }
    }
    if admins.len() > 1 {
        bail!(
            "systemd hands over {} under the name `{ADMIN}`, and there is one listener for operators: leave one ListenStream= in the \
             .socket unit of this name",
            list(admins.iter().map(Listener::address))
        );
    }
    let admin = match admins.pop() {
        Some(admin) => {
            fit(
                config,
                "admin.listen",
                std::slice::from_ref(&config.admin.listen),
                &[admin.address()],
                ADMIN,
            )?;
            admin
        }
        None => Listener::bind(&config.admin.listen).context("the admin listener (`listen` of [admin])")?,
    };
    if public.is_empty() {
        public = server::bind(&config.server.listen)?;
    } else {
        let given: Vec<&Address> = public.iter().map(Listener::address).collect();
        fit(config, "server.listen", &config.server.listen, &given, HTTP)?;
    }
    Ok(Listeners { public, admin })
}

/// Whether the sockets are those that the config has under `option`, if that is not the default.
fn fit(config: &Config, option: &str, wanted: &[Address], given: &[&Address], name: &str) -> anyhow::Result<()> {
    let Some(origin) = config.origin.iter().find(|origin| origin.option == option) else {
        return Ok(());
    };
    if wanted.len() == given.len() && wanted.iter().all(|address| given.contains(&address)) {
        return Ok(());
    }
    bail!(
        "{origin} is not what systemd hands over under the name `{name}`, which is {}: leave `listen` out, write the same \
         into ListenStream= of the .socket unit, or disable that unit, so that keyrelay opens its own",
        list(given.iter().copied())
    )
}

fn list<'a>(addresses: impl Iterator<Item = &'a Address>) -> String {
    let addresses: Vec<String> = addresses.map(Address::to_string).collect();
    addresses.join(", ")
}
