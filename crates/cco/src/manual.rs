//! What is written from the command line's own description: completions, manual pages, and what is wrong with what was
//! typed.

use std::path::Path;
use std::process::ExitCode;

use clap::error::ErrorKind;

use crate::{cli, term};

/// Prints the completions of a shell.
pub(crate) fn completions(shell: clap_complete::Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::command(None), "cco", &mut script);
    term::bytes(&script);
    ExitCode::SUCCESS
}

/// Writes a manual page for each command.
pub(crate) fn pages(folder: &Path) -> ExitCode {
    let written = std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(cli::command(None), folder));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            term::error(
                format!("the pages cannot be written to `{}`", folder.display()),
                Some(&why),
                Some("name a folder of your own: `cco man ~/.local/share/man/man1`"),
            );
            ExitCode::FAILURE
        }
    }
}

/// The command that these words name, as far as they do: `cco logs show`.
pub(crate) fn named<'a>(words: impl IntoIterator<Item = &'a std::ffi::OsStr>) -> String {
    let (mut command, mut path) = (cli::command(None), "cco".to_owned());
    for word in words.into_iter().skip(1) {
        let Some(inner) = word.to_str().and_then(|word| command.find_subcommand(word)).cloned() else { continue };
        path = format!("{path} {}", inner.get_name());
        command = inner;
    }
    path
}

/// Says what is wrong with what was typed: what, and what to type instead. `command`: what was meant, as far as known.
pub(crate) fn wrong(error: &clap::Error, command: &str) {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // Whoever types half a command wants to see the other half.
        return term::report(error.render().to_string().trim_end());
    }
    let text = error.render().to_string();
    let (mut what, mut tips, mut usage, mut possible) = (Vec::new(), Vec::new(), None, None);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(tip) = line.strip_prefix("tip: ") {
            tips.push(tip);
        } else if let Some(form) = line.strip_prefix("Usage: ") {
            usage = Some(form);
        } else if let Some(values) = line.strip_prefix("[possible values: ").and_then(|line| line.strip_suffix(']')) {
            possible = Some(values);
        } else if !line.starts_with("For more information") {
            what.push(line.strip_prefix("error: ").unwrap_or(line));
        }
    }
    let known = if command == "cco" { "lists the commands" } else { "shows what it takes" };
    let known = format!("`{command} --help` {known}");
    let usage = usage.filter(|_| tips.is_empty()).map(|usage| format!("type it as `{usage}`"));
    let possible = possible.map(|values| format!("write one of {values}"));
    let tips = tips.into_iter().map(str::to_owned);
    let help: Vec<String> = tips.chain(usage).chain(possible).chain([known]).collect();
    term::error(what.join("\n  "), None, Some(&help.join("; ")));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::GROUPS;

    fn each(command: &clap::Command, path: &str, check: &mut impl FnMut(&str, &clap::Command)) {
        for inner in command.get_subcommands() {
            let path = format!("{path} {}", inner.get_name());
            check(&path, inner);
            each(inner, &path, check);
        }
    }

    #[test]
    fn the_description_of_the_command_line_holds_together() {
        cli::command(None).debug_assert();
    }

    #[test]
    fn every_command_stands_in_one_group() {
        let command = cli::command(None);
        let mut shown: Vec<_> = command.get_subcommands().filter(|c| !c.is_hide_set()).map(|c| c.get_name()).collect();
        let mut grouped: Vec<_> =
            GROUPS.iter().flat_map(|(_, commands)| commands.iter().map(|(name, _)| *name)).collect();
        shown.sort_unstable();
        grouped.sort_unstable();
        assert_eq!(shown, grouped);
    }

    #[test]
    fn the_help_fits_on_one_screen_and_every_command_has_an_example() {
        let help = cli::command(None).render_help().to_string();
        assert!(help.lines().count() <= 23, "{} lines:\n{help}", help.lines().count());
        let longest = help.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        assert!(longest <= 80, "{longest}:\n{help}");
        for option in cli::command(None).get_arguments().filter_map(clap::Arg::get_long) {
            assert!(help.contains(&format!("--{option}")), "{option} in {help}");
        }
        let mut without = Vec::new();
        each(&cli::command(None), "cco", &mut |path, command| {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(!about.is_empty() && !about.ends_with('.'), "{path}: {about}");
            let takes_something = command.get_arguments().any(|argument| !argument.is_global_set());
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let leads_on = command.has_subcommands();
            if !after.contains("Example") && (takes_something || leads_on) {
                without.push(path.to_owned());
            }
        });
        assert!(without.is_empty(), "without an example: {without:?}");
    }
}
