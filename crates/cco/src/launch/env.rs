//! `cco env`: the variables that send what this shell starts to the gateway, as the shell's own commands.

use std::process::ExitCode;

use gateway::config::Env;

use super::client::{self, Client};
use super::found::Found;
use super::pay::Pay;
use crate::cli::launch::{ForShell, Shell};
use crate::source::{self, Failure};
use crate::term;

/// Prints them, if the gateway answers.
pub(crate) fn run(options: &ForShell) -> ExitCode {
    source::ended(show(options))
}

fn show(options: &ForShell) -> Result<(), Failure> {
    let env = Env::process();
    let shell = options.shell.unwrap_or_else(|| of_user(&env));
    let changes = if options.undo {
        let all = client::changes("", Some(&gateway::secret::Secret::new("")), None, &Env::fixed([]));
        let unset = all.set.iter().map(|(name, _)| *name).collect();
        client::Changes { unset, ..Default::default() }
    } else {
        let found = Found::gateway(&env)?;
        let pay = Pay::decide(options.pay, Client::Other, &env, &found)?;
        let token = matches!(pay, Pay::Stored(_)).then(|| found.token(&env)).transpose()?;
        term::note(&pay);
        client::changes(&found.base, token.as_ref(), None, &env)
    };
    for name in changes.unset {
        term::line(unset(shell, name));
    }
    for (name, value) in changes.set {
        term::line(set(shell, name, &value));
    }
    if term::stdout_is_terminal() {
        term::note(format_args!("this is to be run by your shell: {}", how(shell)));
    }
    Ok(())
}

/// By what the login shell is; most understand what Bash does.
fn of_user(env: &Env) -> Shell {
    let shell = env.named("SHELL").unwrap_or_default();
    match std::path::Path::new(&shell).file_name().and_then(|name| name.to_str()) {
        Some("fish") => Shell::Fish,
        Some("zsh") => Shell::Zsh,
        Some("pwsh") => Shell::Powershell,
        None if cfg!(windows) => Shell::Powershell,
        _ => Shell::Bash,
    }
}

fn how(shell: Shell) -> &'static str {
    match shell {
        Shell::Bash | Shell::Zsh => r#"eval "$(cco env)""#,
        Shell::Fish => "cco env | source",
        Shell::Powershell => "cco env | Out-String | Invoke-Expression",
    }
}

fn set(shell: Shell, name: &str, value: &str) -> String {
    match shell {
        Shell::Bash | Shell::Zsh => format!("export {name}='{}'", value.replace('\'', r"'\''")),
        Shell::Fish => format!("set -gx {name} '{}'", value.replace('\\', r"\\").replace('\'', r"\'")),
        Shell::Powershell => format!("$env:{name} = '{}'", value.replace('\'', "''")),
    }
}

fn unset(shell: Shell, name: &str) -> String {
    match shell {
        Shell::Bash | Shell::Zsh => format!("unset {name}"),
        Shell::Fish => format!("set -e {name}"),
        Shell::Powershell => format!("Remove-Item Env:{name} -ErrorAction SilentlyContinue"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_leave_its_quotes() {
        let evil = r"a'b\c$(d)`e`";
        assert_eq!(set(Shell::Bash, "X", evil), r"export X='a'\''b\c$(d)`e`'");
        assert_eq!(set(Shell::Fish, "X", evil), r"set -gx X 'a\'b\\c$(d)`e`'");
        assert_eq!(set(Shell::Powershell, "X", evil), r"$env:X = 'a''b\c$(d)`e`'");
    }

    #[test]
    fn the_shell_is_the_login_shell() {
        for (path, shell) in [("/usr/bin/fish", Shell::Fish), ("/bin/zsh", Shell::Zsh), ("/bin/dash", Shell::Bash)] {
            assert_eq!(of_user(&Env::fixed([("SHELL", path)])), shell);
        }
    }
}
