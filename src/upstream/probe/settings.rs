//! The server's settings: the notifications that it sends, and how far a subscriber may fall behind.

use redis_protocol::resp3::types::OwnedFrame;

use super::{Answer, Finding, Missing, Notifications, Probe, Verdict, rights, server, start};
use crate::{
    keyspace::flags,
    upstream::{feed::look, link::LinkError},
};

/// A setting that no server has: to try to change it changes nothing.
const NO_SETTING: &[u8] = b"keyrelay-no-such-setting";

impl Probe<'_> {
    /// The server's setting of notifications; what it takes to see and to set it may be missing too.
    pub(super) async fn flags(&mut self, missing: &mut Missing) -> Result<Finding, LinkError> {
        const SETTING: &str = start::SETTING;
        let finding = |verdict, says: String| Finding::new("notifications", verdict, says);
        let assumed = self.needs.notifications == Notifications::Assume;
        let value = match self.ask(&[b"CONFIG", b"GET", SETTING.as_bytes()]).await? {
            Answer::Reply(OwnedFrame::Map { data, .. }) => data.into_values().next().and_then(look::text),
            Answer::Reply(_) => None,
            Answer::Refused(_) if assumed => None,
            Answer::Refused(why) => {
                if why.starts_with("NOPERM") {
                    missing.commands.push("config|get");
                }
                let says = format!("the server does not tell its {SETTING} ({why})");
                let remedy = format!(
                    "let the user run CONFIG GET; or set {SETTING} to KEA where the service is managed, and \
                     notifications = \"assume\" under [upstream]"
                );
                return Ok(finding(Verdict::Problem, says).remedy(remedy));
            }
        };
        let Some(value) = value else {
            let says = format!("{SETTING} cannot be seen; only an event proves that it is right");
            return Ok(finding(Verdict::Unknown, says));
        };
        let Some(united) = flags::missing(&value) else {
            return Ok(finding(
                Verdict::Ok,
                format!("{SETTING} is \"{value}\", which is enough"),
            ));
        };
        let says = format!("{SETTING} is \"{value}\", and must be \"{united}\"");
        let ensured = self.needs.notifications == Notifications::Ensure
            && rights::attempt(self, missing, "config|set", &[b"CONFIG", b"SET", NO_SETTING, b"1"]).await?;
        let finding = match ensured {
            true => finding(
                Verdict::Warning,
                format!("{says}; keyrelay sets it when it runs, but a restart of the server forgets it"),
            ),
            false => finding(Verdict::Problem, says),
        };
        let command_line = self.endpoint.command_line();
        Ok(finding.remedy(format!(
            "{command_line} CONFIG SET {SETTING} '{united}', and write it into the server's configuration"
        )))
    }

    pub(super) async fn buffer(&mut self) -> Result<(), LinkError> {
        let answer = self.ask(&[b"CONFIG", b"GET", b"client-output-buffer-limit"]).await?;
        let value = match answer {
            Answer::Reply(OwnedFrame::Map { data, .. }) => data.into_values().next().and_then(look::text),
            _ => None,
        };
        let finding = server::buffer(value.as_deref(), &self.endpoint.command_line());
        self.findings.push(finding);
        Ok(())
    }
}
