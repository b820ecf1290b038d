//! What a server says of itself.

use super::{Finding, Verdict};
use crate::upstream::Info;

/// What servers give a subscriber by default before they cut it off: below it a burst of some hundred thousand events
/// is lost.
const HARD_LIMIT: u64 = 32 * 1024 * 1024;
const SOFT_LIMIT: u64 = 8 * 1024 * 1024;

/// What it is, what part it plays, and whether it has its data; `cluster` if its whole cluster is followed.
pub(super) fn account(info: &Info, cluster: bool) -> Vec<Finding> {
    let mut findings = vec![product(info, cluster), role(info)];
    if info.is_loading() {
        let says = "the server is loading its data and answers nothing yet";
        findings.push(Finding::new("data", Verdict::Warning, says).remedy("wait, and check again"));
    }
    findings
}

fn product(info: &Info, cluster: bool) -> Finding {
    let name = [("valkey_version", "Valkey"), ("mvcc_depth", "KeyDB")]
        .into_iter()
        .find(|(line, _)| info.get(line).is_some())
        .map_or("Redis", |(_, name)| name);
    let version = info.server().unwrap_or_default().version;
    let says = format!("{name} {version}");
    match info.get("redis_mode") {
        Some("sentinel") => Finding::new(
            "server",
            Verdict::Problem,
            format!("{says}, and a Sentinel: it has no keys"),
        )
        .remedy("write redis-sentinel:// and the name of the primary in the upstream url"),
        Some("cluster") if !cluster => Finding::new(
            "server",
            Verdict::Warning,
            format!("{says}, a node of a cluster: only its own keys are heard"),
        )
        .remedy("write redis-cluster:// in the upstream url, for all nodes"),
        Some("cluster") => Finding::new("server", Verdict::Ok, format!("{says}, a node of a cluster")),
        _ => Finding::new("server", Verdict::Ok, says),
    }
}

/// The part it plays in replication, and how its links are.
fn role(info: &Info) -> Finding {
    let finding = |verdict, says: String| Finding::new("role", verdict, says);
    let links: Vec<(String, &str)> = info
        .lines()
        .filter_map(|(name, host)| {
            let of = name.strip_suffix("_host").filter(|of| of.starts_with("master"))?;
            let port = info.get(&format!("{of}_port")).unwrap_or("?");
            let link = info.get(&format!("{of}_link_status")).unwrap_or("unknown");
            Some((format!("{host}:{port}"), link))
        })
        .collect();
    let shown: Vec<String> = links.iter().map(|(to, link)| format!("{to} is {link}")).collect();
    let shown = shown.join(", ");
    let whole = links.iter().all(|(_, link)| *link == "up");
    match info.get("role") {
        Some("master") => {
            let replicas = info.get("connected_slaves").unwrap_or("0");
            let plural = if replicas == "1" { "" } else { "s" };
            finding(Verdict::Ok, format!("primary, with {replicas} replica{plural}"))
        }
        Some("slave") if whole => finding(Verdict::Ok, format!("replica; the link to {shown}")),
        Some("slave") => finding(
            Verdict::Problem,
            format!("replica; the link to {shown}, so it falls behind"),
        )
        .remedy("see to the link; until it is up, clients are told that what they see may be old"),
        Some("active-replica") if links.is_empty() => finding(Verdict::Ok, "active node, without a peer".into()),
        Some("active-replica") if whole => finding(Verdict::Ok, format!("active node; the link to {shown}")),
        Some("active-replica") => finding(
            Verdict::Warning,
            format!("active node; the link to {shown}: writes made there do not come here meanwhile"),
        )
        .remedy("see to the link; this node's own keys are relayed all the same"),
        _ => finding(Verdict::Unknown, "it does not say what part it plays".into()),
    }
}

/// `client-output-buffer-limit`, from which the part of subscribers counts here.
pub(super) fn buffer(value: Option<&str>, command_line: &str) -> Finding {
    const SUBJECT: &str = "output buffer";
    let limits = value.and_then(|value| {
        let mut words = value.split_whitespace().skip_while(|word| *word != "pubsub").skip(1);
        let mut number = || words.next()?.parse::<u64>().ok();
        Some((number()?, number()?, number()?))
    });
    let Some((hard, soft, seconds)) = limits else {
        return Finding::new(
            SUBJECT,
            Verdict::Unknown,
            "the server does not tell its client-output-buffer-limit",
        );
    };
    let unlimited = |limit: u64| limit == 0;
    let says = match (unlimited(hard), unlimited(soft)) {
        (true, true) => "a subscriber may fall behind without a limit".to_owned(),
        _ => format!(
            "a subscriber may fall behind by {}, and by {} for {seconds} s",
            size(hard),
            size(soft)
        ),
    };
    if (unlimited(hard) || hard >= HARD_LIMIT) && (unlimited(soft) || soft >= SOFT_LIMIT) {
        return Finding::new(SUBJECT, Verdict::Ok, says);
    }
    Finding::new(
        SUBJECT,
        Verdict::Warning,
        format!("{says}: after a burst of writes the server cuts keyrelay off, and all that is watched is read again"),
    )
    .remedy(format!(
        "{command_line} CONFIG SET client-output-buffer-limit 'pubsub 32mb 8mb 60'"
    ))
}

/// A limit as a person writes it.
fn size(bytes: u64) -> String {
    const MIB: u64 = 1024 * 1024;
    match bytes {
        0 => "any amount".into(),
        _ if bytes.is_multiple_of(MIB) => format!("{} MiB", bytes / MIB),
        _ => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Vec<(Verdict, String)> {
        let findings = account(&Info::from_bytes(text.as_bytes()), false);
        findings
            .into_iter()
            .map(|finding| (finding.verdict, finding.says))
            .collect()
    }

    #[test]
    fn products_and_roles_are_told_apart() {
        let redis =
            said("redis_version:7.0.15\r\nredis_mode:standalone\r\nrun_id:a\r\nrole:master\r\nconnected_slaves:2\r\n");
        assert_eq!(
            redis,
            [
                (Verdict::Ok, "Redis 7.0.15".into()),
                (Verdict::Ok, "primary, with 2 replicas".into())
            ]
        );
        let valkey = said(
            "redis_version:7.2.4\r\nvalkey_version:8.1.0\r\nrun_id:a\r\nrole:slave\r\nmaster_host:db\r\nmaster_port:1\r\nmaster_link_status:down\r\n",
        );
        assert_eq!(valkey[0].1, "Valkey 8.1.0");
        assert_eq!(
            valkey[1],
            (
                Verdict::Problem,
                "replica; the link to db:1 is down, so it falls behind".into()
            )
        );
        let keydb = said(
            "redis_version:6.3.4\r\nrun_id:a\r\nmvcc_depth:0\r\nrole:active-replica\r\nmaster_host:a\r\nmaster_port:1\r\n\
             master_link_status:up\r\nmaster_1_host:b\r\nmaster_1_port:2\r\nmaster_1_link_status:down\r\nloading:1\r\n",
        );
        assert_eq!(keydb[0].1, "KeyDB 6.3.4");
        assert_eq!(keydb[1].0, Verdict::Warning);
        assert!(
            keydb[1]
                .1
                .starts_with("active node; the link to a:1 is up, b:2 is down"),
            "{keydb:?}"
        );
        assert_eq!(keydb[2].0, Verdict::Warning);
        assert_eq!(said("redis_mode:sentinel\r\n")[0].0, Verdict::Problem);
    }

    #[test]
    fn a_low_limit_is_warned_of() {
        let of = |pubsub: &str| buffer(Some(&format!("normal 0 0 0 slave 1 1 1 pubsub {pubsub}")), "cli");
        assert_eq!(of("33554432 8388608 60").verdict, Verdict::Ok);
        assert_eq!(of("0 0 0").verdict, Verdict::Ok);
        assert_eq!(of("1048576 8388608 60").verdict, Verdict::Warning);
        assert_eq!(of("33554432 1024 60").verdict, Verdict::Warning);
        assert_eq!(of("many").verdict, Verdict::Unknown);
        assert_eq!(buffer(None, "cli").verdict, Verdict::Unknown);
    }
}
