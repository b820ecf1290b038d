//! `keyrelay completions` and `keyrelay man`: the words of `--help`, for shells and for the manual.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::Arguments;

pub(super) const EXAMPLES: &str = "\
Examples:
  keyrelay completions bash > /usr/share/bash-completion/completions/keyrelay
  keyrelay completions zsh > /usr/share/zsh/site-functions/_keyrelay
  keyrelay completions fish > /usr/share/fish/vendor_completions.d/keyrelay.fish";

/// Prints the script that completes the commands in this shell.
pub(super) fn completions(shell: Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "keyrelay", &mut script);
    super::print(&String::from_utf8(script)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes `keyrelay.1`, and a page for each command (`keyrelay-run.1`), into a folder.
pub(super) fn man(folder: &Path) -> anyhow::Result<ExitCode> {
    let mut whole = Arguments::command().disable_help_subcommand(true);
    whole.build();
    let commands = whole.get_subcommands().filter(|command| !command.is_hide_set());
    for command in commands.chain([&whole]) {
        // The name of `run` in its own page, as one looks for it: keyrelay-run.
        let name = command.get_display_name().unwrap_or("keyrelay").to_owned();
        let file = folder.join(format!("{name}.1"));
        let written = fs::write(&file, page(command)?);
        written.with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn page(command: &Command) -> anyhow::Result<Vec<u8>> {
    let page = Man::new(command.clone())
        .source(concat!("keyrelay ", env!("CARGO_PKG_VERSION")))
        .manual("keyrelay");
    let mut out = Vec::new();
    page.render_title(&mut out)?;
    page.render_name_section(&mut out)?;
    page.render_synopsis_section(&mut out)?;
    page.render_description_section(&mut out)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        page.render_options_section(&mut out)?;
    }
    if command.get_subcommands().any(|command| !command.is_hide_set()) {
        page.render_subcommands_section(&mut out)?;
    }
    let more = command.get_after_long_help().map(ToString::to_string);
    sections(&more.unwrap_or_default()).to_writer(&mut out)?;
    Ok(out)
}

/// What stands behind the options: a section for each line that ends with a colon, the lines below it as they are.
fn sections(text: &str) -> Roff {
    let mut roff = Roff::new();
    let mut open = false;
    for line in text.lines() {
        match line.strip_suffix(':').filter(|title| !title.starts_with(' ')) {
            Some(title) => {
                if std::mem::replace(&mut open, true) {
                    roff.control("fi", []);
                }
                roff.control("SH", [title.to_uppercase().as_str()]);
                roff.control("nf", []);
            }
            None => {
                roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
            }
        }
    }
    if open {
        roff.control("fi", []);
    }
    roff
}
