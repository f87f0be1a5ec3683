//! What is written from the command line's own description: completions, manual pages, and what is wrong with what was
//! typed.

use std::path::Path;
use std::process::ExitCode;

use clap::error::ErrorKind;

use crate::{cli, term};

/// Prints the completions of a shell.
pub(crate) fn completions(shell: clap_complete::Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), "cco", &mut script);
    term::bytes(&script);
    ExitCode::SUCCESS
}

/// Writes a manual page for each command.
pub(crate) fn pages(folder: &Path) -> ExitCode {
    let written = std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(cli::command(), folder));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            term::error(
                format!("the pages cannot be written to `{}`", folder.display()),
                Some(&why),
                Some("name a folder of your own"),
            );
            ExitCode::FAILURE
        }
    }
}

/// Says what is wrong with what was typed: what, and what to type instead.
pub(crate) fn wrong(error: &clap::Error) {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // Whoever types half a command wants to see the other half.
        return term::report(error.render().to_string().trim_end());
    }
    let text = error.render().to_string();
    let (mut what, mut tips, mut usage) = (Vec::new(), Vec::new(), None);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(tip) = line.strip_prefix("tip: ") {
            tips.push(tip);
        } else if let Some(form) = line.strip_prefix("Usage: ") {
            usage = Some(form);
        } else if !line.starts_with("For more information") {
            what.push(line.strip_prefix("error: ").unwrap_or(line));
        }
    }
    let help = match (tips.is_empty(), usage) {
        (false, _) => tips.join("; "),
        (true, Some(usage)) => format!("type it as: {usage}"),
        (true, None) => "`cco --help` lists the commands".into(),
    };
    term::error(what.join("\n  "), None, Some(&help));
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
        cli::command().debug_assert();
    }

    #[test]
    fn every_command_stands_in_one_group() {
        let command = cli::command();
        let mut shown: Vec<_> = command.get_subcommands().filter(|c| !c.is_hide_set()).map(|c| c.get_name()).collect();
        let mut grouped: Vec<_> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        shown.sort_unstable();
        grouped.sort_unstable();
        assert_eq!(shown, grouped);
    }

    #[test]
    fn the_help_fits_on_one_screen_and_every_command_has_an_example() {
        let help = cli::command().render_help().to_string();
        assert!(help.lines().count() <= 55, "{} lines:\n{help}", help.lines().count());
        let longest = help.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        assert!(longest <= 110, "{longest}");
        let mut without = Vec::new();
        each(&cli::command(), "cco", &mut |path, command| {
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
