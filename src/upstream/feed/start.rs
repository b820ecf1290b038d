//! What a feed does on a new connection before it may trust what it hears.

use tokio::{sync::watch, time::sleep};

use super::{
    End, FatalError, LostReason, Notifications, Options, Plan,
    listen::Ear,
    look,
    watch::{Connection, FOR_OTHERS},
};
use crate::{
    keyspace::flags,
    upstream::{
        Address, Endpoint, Info, Subscriptions,
        info::ServerInfo,
        link::{Link, LinkError},
    },
};

/// The setting that this is all about.
pub(in crate::upstream) const SETTING: &str = "notify-keyspace-events";

/// Channels or patterns in one command: a bound for what is written before anything is read.
pub(super) const NAMES_PER_COMMAND: usize = 1000;

/// Connects, logs in, sees to the notifications, subscribes and awaits every confirmation.
///
/// The order matters: the flush signal is on before the subscriptions are, and both before anything is read. A server
/// that was said to be a `primary` must be one.
pub(super) async fn start<'a>(
    options: &'a Options,
    mut plans: watch::Receiver<Plan>,
    primary: bool,
) -> Result<(Ear<'a>, ServerInfo), End> {
    let endpoint = &options.endpoint;
    let plan = options.part_of(&plans.borrow_and_update());
    let wanted = &plan.subscriptions;
    // What is published comes without.
    let setting = wanted.hears_keys() && options.notifications != Notifications::Assume;
    let lost = |error| End::Lost(reason(&endpoint.address, error));
    let mut link = Link::connect(endpoint).await.map_err(lost)?;
    let id = log_in(&mut link, endpoint).await.map_err(lost)?;
    if primary && !is_primary(&mut link).await.map_err(lost)? {
        return Err(End::Lost(LostReason::Replica));
    }
    if setting {
        notifications(&mut link, options).await?;
    }
    let signalled = track(&mut link, wanted.tracked(), endpoint).await.map_err(lost)?;
    subscribe(&mut link, wanted).await.map_err(lost)?;
    let server = info(&mut link, b"server").await.map_err(lost)?.server();
    let server = server.ok_or_else(|| lost(LinkError::Unexpected("INFO server".into())))?;
    let connection = Connection {
        run_id: server.run_id.clone(),
        id,
        signalled,
        setting,
    };
    let ear = Ear::new(options, plan, plans, link, connection).await.map_err(lost)?;
    Ok((ear, server))
}

/// Whether the server is reading its data from a file or a primary; until it has, there is nothing to be read.
pub(super) async fn is_loading(link: &mut Link, address: &Address) -> Result<bool, End> {
    let info = info(link, b"persistence").await;
    Ok(info.map_err(|error| End::Lost(reason(address, error)))?.is_loading())
}

/// Whether the server takes writes of its own.
async fn is_primary(link: &mut Link) -> Result<bool, LinkError> {
    let info = info(link, b"replication").await?;
    Ok(matches!(info.get("role"), Some("master" | "active-replica")))
}

/// What to say of an error.
pub(in crate::upstream) fn reason(address: &Address, error: LinkError) -> LostReason {
    match error {
        LinkError::Unreachable(why) => LostReason::Unreachable {
            address: address.to_string(),
            why,
        },
        LinkError::Tls(why) => LostReason::Tls {
            address: address.to_string(),
            why,
        },
        LinkError::Closed => LostReason::Closed,
        LinkError::Dumb => LostReason::Dumb,
        LinkError::Io(error) => LostReason::Broken(error.to_string()),
        LinkError::Silent(time) => LostReason::Silent(time),
        LinkError::Wire(_) | LinkError::Unexpected(_) | LinkError::TooOld => LostReason::Protocol(error.to_string()),
        LinkError::Refused { ref message, .. } => match message.split(' ').next().unwrap_or_default() {
            "WRONGPASS" | "NOAUTH" => LostReason::Login(message.clone()),
            "NOPERM" => LostReason::Rights(error.to_string()),
            _ => LostReason::Refused(error.to_string()),
        },
    }
}

/// Logs in, speaks RESP3 from then on, and chooses the database. Says which number the connection has on the server.
pub(in crate::upstream) async fn log_in(link: &mut Link, endpoint: &Endpoint) -> Result<u64, LinkError> {
    let mut hello: Vec<&[u8]> = vec![b"HELLO", b"3"];
    if let Some(password) = &endpoint.password {
        let user = endpoint.username.as_deref().unwrap_or("default");
        hello.extend([b"AUTH", user.as_bytes(), password.as_bytes()]);
    }
    hello.extend([b"SETNAME".as_slice(), endpoint.client_name.as_bytes()]);
    let answer = link.command(&hello).await.map_err(|error| match error {
        LinkError::Refused { message, .. } if message.starts_with("NOPROTO") || message.contains("unknown command") => {
            LinkError::TooOld
        }
        error => error,
    })?;
    if endpoint.db != 0 {
        link.command(&[b"SELECT", endpoint.db.to_string().as_bytes()]).await?;
    }
    Ok(look::connection_id(answer))
}

/// Sees to it that the server sends key events, as far as `options` lets us.
async fn notifications(link: &mut Link, options: &Options) -> Result<(), End> {
    let endpoint = &options.endpoint;
    let address = &endpoint.address;
    let Some((mut current, mut united)) = lacking(link, endpoint).await? else {
        return Ok(());
    };
    if options.notifications == Notifications::Require {
        return Err(missing(endpoint, &current, &united));
    }
    if others_hear(link, endpoint).await? {
        // It was right when they came, so they have lost events, and must see it before it is set right. A check, or a
        // connection of ours that the server has not missed yet, counts, too: that costs a moment.
        tracing::info!(%address, now = current, "key events are off while another keyrelay listens: they are switched on in a moment");
        sleep(FOR_OTHERS).await;
        match lacking(link, endpoint).await? {
            Some(still) => (current, united) = still,
            None => return Ok(()),
        }
    }
    match link
        .command(&[b"CONFIG", b"SET", SETTING.as_bytes(), united.as_bytes()])
        .await
    {
        Ok(_) => {}
        Err(LinkError::Refused { message, .. }) if !is_passing(&message) => {
            return Err(unchangeable(endpoint, &current, &message, &united));
        }
        Err(error) => return Err(End::Lost(reason(address, error))),
    }
    let now = read_setting(link, endpoint).await?;
    if flags::missing(&now).is_some() {
        let why = format!("its {SETTING} is still \"{now}\" after it was set to \"{united}\"");
        return Err(fatal(endpoint, &why, &united));
    }
    tracing::info!(%address, before = current, now, "key events switched on");
    Ok(())
}

/// The setting, and what it should be, if it lacks letters.
async fn lacking(link: &mut Link, endpoint: &Endpoint) -> Result<Option<(String, String)>, End> {
    let current = read_setting(link, endpoint).await?;
    Ok(flags::missing(&current).map(|united| (current, united)))
}

/// Whether another keyrelay hears this server.
async fn others_hear(link: &mut Link, endpoint: &Endpoint) -> Result<bool, End> {
    let list = match link.command(&[b"CLIENT", b"LIST", b"TYPE", b"pubsub"]).await {
        Ok(reply) => look::text(reply).unwrap_or_default(),
        // Who may not know takes it for alone.
        Err(LinkError::Refused { .. }) => return Ok(false),
        Err(error) => return Err(End::Lost(reason(&endpoint.address, error))),
    };
    let name = format!("name={}", endpoint.client_name);
    Ok(list.lines().any(|client| client.split(' ').any(|field| field == name)))
}

async fn read_setting(link: &mut Link, endpoint: &Endpoint) -> Result<String, End> {
    // Not knowing what others set, nothing less than all usual letters may be advised.
    const ALL: &str = "KEA";
    match link.command(&[b"CONFIG", b"GET", SETTING.as_bytes()]).await {
        Ok(reply) => {
            look::setting(reply).ok_or_else(|| fatal(endpoint, &format!("it does not tell its {SETTING}"), ALL))
        }
        Err(LinkError::Refused { message, .. }) if !is_passing(&message) => Err(fatal(
            endpoint,
            &format!("it does not tell its {SETTING} ({message})"),
            ALL,
        )),
        Err(error) => Err(End::Lost(reason(&endpoint.address, error))),
    }
}

/// Whether a server that refuses with these words will answer later, though nobody mends anything.
fn is_passing(message: &str) -> bool {
    let code = message.split(' ').next().unwrap_or_default();
    matches!(
        code,
        "BUSY" | "LOADING" | "MASTERDOWN" | "OOM" | "TRYAGAIN" | "CLUSTERDOWN"
    )
}

/// The server does not send all that `value` asks for.
pub(super) fn missing(endpoint: &Endpoint, current: &str, value: &str) -> End {
    fatal(endpoint, &format!("its {SETTING} is \"{current}\""), value)
}

/// The server does not let itself be told to.
pub(super) fn unchangeable(endpoint: &Endpoint, current: &str, message: &str, value: &str) -> End {
    let why = format!("its {SETTING} is \"{current}\", and it refuses to change that ({message})");
    fatal(endpoint, &why, value)
}

/// Everything an operator needs to help.
fn fatal(endpoint: &Endpoint, why: &str, value: &str) -> End {
    let address = &endpoint.address;
    // The value is quoted, for `$l` would be a variable to the shell.
    let command = format!("{} CONFIG SET {SETTING} '{value}'", endpoint.command_line());
    End::Fatal(FatalError::Notifications(format!(
        "the server at {address} does not send all key events: {why}. Run\n\n    {command}\n\nas a user who may, and \
         put it into the server's configuration, for a restart forgets it. Where CONFIG is not available, set \
         {SETTING} to {value} where the service is managed, and `notifications = \"assume\"` under [upstream]."
    )))
}

/// Asks to be told of changed keys with these prefixes, and with them for the one signal that servers send when all keys
/// go without an event each: an emptied or newly loaded database is told to everyone who tracks anything. Where no keys
/// are to be tracked, a prefix that no key has is enough for that and costs nothing; whoever may not ask for it learns of
/// a flush by the server's counters, up to a second later.
async fn track(link: &mut Link, prefixes: &[Vec<u8>], endpoint: &Endpoint) -> Result<bool, LinkError> {
    let random = [super::backoff::random(), super::backoff::random()];
    let nobody = [format!("keyrelay:no-such-key:{:016x}{:016x}", random[0], random[1]).into_bytes()];
    let only_flushes = prefixes.is_empty();
    let prefixes = if only_flushes { &nobody } else { prefixes };
    match link.command(&tracking(prefixes)).await {
        Ok(_) => Ok(true),
        Err(error @ LinkError::Refused { .. }) if only_flushes => {
            let mend = endpoint.grant("+client|tracking");
            tracing::warn!(address = %endpoint.address, %error, mend, "flushes are noticed late: the server does not signal them");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// The command that tracks keys with these prefixes.
pub(in crate::upstream) fn tracking(prefixes: &[Vec<u8>]) -> Vec<&[u8]> {
    let mut words: Vec<&[u8]> = vec![b"CLIENT", b"TRACKING", b"ON", b"BCAST"];
    words.extend(prefixes.iter().flat_map(|prefix| [b"PREFIX", prefix.as_slice()]));
    words
}

async fn subscribe(link: &mut Link, wanted: &Subscriptions) -> Result<(), LinkError> {
    let kinds = [
        ("SUBSCRIBE", "subscribe", wanted.channels()),
        ("PSUBSCRIBE", "psubscribe", wanted.patterns()),
    ];
    for (command, confirmation, names) in kinds {
        for names in names.chunks(NAMES_PER_COMMAND) {
            let mut words = vec![command.as_bytes()];
            words.extend(names.iter().map(Vec::as_slice));
            link.send(&words).await?;
            for _ in names {
                link.confirmed(command, confirmation.as_bytes()).await?;
            }
        }
    }
    Ok(())
}

async fn info(link: &mut Link, section: &[u8]) -> Result<Info, LinkError> {
    let reply = link.command(&[b"INFO", section]).await?;
    look::info(reply).ok_or_else(|| LinkError::Unexpected("INFO".into()))
}
