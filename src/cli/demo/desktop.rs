//! Opens the page where there is a desktop.

use std::env;
use std::io::{self, IsTerminal};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Opens it in the browser of whoever sits in front of the screen, if somebody does. A failure is none of the demo's: the
/// address stands in the terminal.
pub fn open(url: &str) {
    if !io::stdout().is_terminal() || env::var_os("CI").is_some() {
        return;
    }
    let program = if cfg!(target_os = "macos") {
        "open"
    } else if env::var_os("DISPLAY").is_some() || env::var_os("WAYLAND_DISPLAY").is_some() {
        "xdg-open"
    } else {
        return;
    };
    // A group of its own: Ctrl-C is not for the browser. The child is left to itself: it lives as long as the browser may.
    let _ = Command::new(program)
        .arg(url)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
}
