//! `cco env`: the variables that send what this shell starts to the gateway, as the shell's own commands.

use std::path::Path;
use std::process::ExitCode;

use gateway::config::Env;
use gateway::system;

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
    let shell = match options.shell {
        Some(shell) => shell,
        None => of_caller(system::callers(), &env)?,
    };
    if options.undo {
        // Everything that may have been changed, also by an earlier call that somebody else paid for.
        let proxied = Env::fixed([("HTTP_PROXY", "any")]);
        let all = client::changes("", Some(&gateway::secret::Secret::new("")), None, &proxied);
        for name in all.names() {
            term::line(bring_back(shell, name));
        }
    } else {
        let found = Found::gateway(&env, Client::Other)?;
        let pay = Pay::decide(options.pay, Client::Other, &env, &found)?;
        let token = matches!(pay, Pay::Stored(_)).then(|| found.token(&env)).transpose()?;
        term::note(&pay);
        let changes = client::changes(&found.base, token.as_ref(), None, &env);
        for name in changes.names() {
            term::line(keep(shell, name));
        }
        for name in changes.unset {
            term::line(unset(shell, name));
        }
        for (name, value) in changes.set {
            term::line(set(shell, name, &value));
        }
    }
    if term::stdout_is_terminal() {
        term::note(format_args!("this is to be run by your shell: {}", how(shell)));
    }
    Ok(())
}

/// The shell that called us, or that called who did; where none is among them, the login shell.
fn of_caller(callers: impl Iterator<Item = String>, env: &Env) -> Result<Shell, Failure> {
    let login = env.named("SHELL").unwrap_or_default();
    let login = Path::new(&login).file_name().map(|name| name.to_string_lossy().into_owned());
    let known = callers.chain(login).find_map(|name| by_name(&name));
    known.unwrap_or(Ok(if cfg!(windows) { Shell::Powershell } else { Shell::Bash }))
}

/// `None`: it is no shell.
fn by_name(name: &str) -> Option<Result<Shell, Failure>> {
    Some(Ok(match name {
        "fish" => Shell::Fish,
        "zsh" => Shell::Zsh,
        "pwsh" | "powershell" => Shell::Powershell,
        "sh" | "bash" | "dash" | "ash" | "busybox" | "ksh" | "mksh" | "oksh" | "yash" => Shell::Bash,
        "csh" | "tcsh" | "nu" | "elvish" | "xonsh" => {
            let what = format!("there are no words for `{name}`");
            let help = "cco run -- claude        (or name a shell whose words it reads: `--shell bash`)";
            return Some(Err(Failure::usage(what).help(help)));
        }
        _ => return None,
    }))
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

/// Keeps what a variable was before the first change, in one of the shell's own: what it starts does not see that.
fn keep(shell: Shell, name: &str) -> String {
    match shell {
        // With a sign before the value, so that an empty one is not taken for none.
        Shell::Bash | Shell::Zsh => {
            format!(r#"if [ -z "${{CCO_WAS_{name}+x}}" ]; then CCO_WAS_{name}="${{{name}+=${name}}}"; fi"#)
        }
        // A variable that is not set is a list of nothing.
        Shell::Fish => format!("if not set -q CCO_WAS_{name}; set -g CCO_WAS_{name} ${name}; end"),
        Shell::Powershell => {
            format!("if (-not (Test-Path Variable:global:CCO_WAS_{name})) {{ $global:CCO_WAS_{name} = $env:{name} }}")
        }
    }
}

/// Gives a variable back what was kept, and leaves it alone where nothing was.
fn bring_back(shell: Shell, name: &str) -> String {
    match shell {
        Shell::Bash | Shell::Zsh => format!(
            r#"if [ -n "${{CCO_WAS_{name}+x}}" ]; then if [ -n "$CCO_WAS_{name}" ]; then export {name}="${{CCO_WAS_{name}#=}}"; else unset {name}; fi; unset CCO_WAS_{name}; fi"#
        ),
        Shell::Fish => format!(
            "if set -q CCO_WAS_{name}; if count $CCO_WAS_{name} > /dev/null; set -gx {name} $CCO_WAS_{name}; else; set -e {name}; end; set -e CCO_WAS_{name}; end"
        ),
        // What is set to nothing there is not set.
        Shell::Powershell => format!(
            "if (Test-Path Variable:global:CCO_WAS_{name}) {{ $env:{name} = $global:CCO_WAS_{name}; Remove-Variable -Scope Global CCO_WAS_{name} }}"
        ),
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

    #[track_caller]
    fn check(callers: &[&str], login: &'static str, want: Option<Shell>) {
        let env = Env::fixed([("SHELL", login)]);
        let found = of_caller(callers.iter().map(|name| (*name).to_owned()), &env);
        assert_eq!(found.ok(), want, "{callers:?} {login}");
    }

    #[test]
    fn the_shell_is_the_one_that_calls_whatever_the_login_shell_is() {
        check(&["fish", "bash", "systemd"], "/bin/bash", Some(Shell::Fish));
        check(&["env", "zsh"], "/usr/bin/fish", Some(Shell::Zsh));
        check(&["sh", "fish"], "/usr/bin/fish", Some(Shell::Bash));
        check(&["nu"], "/bin/bash", None);
    }

    #[test]
    fn without_a_shell_among_those_who_call_it_is_the_login_shell() {
        check(&["python3", "systemd"], "/usr/bin/fish", Some(Shell::Fish));
        check(&[], "/bin/dash", Some(Shell::Bash));
        check(&[], "", Some(Shell::Bash));
    }
}
