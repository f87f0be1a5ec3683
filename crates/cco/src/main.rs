//! The binary: reads the command line, runs one command, returns its exit code.

mod audit;
mod background;
mod cli;
mod configure;
mod costs;
mod credentials;
mod demo;
mod doctor;
mod folders;
mod launch;
mod limits;
mod load;
mod logging;
mod logs;
mod manual;
mod memory;
mod prices;
mod providers;
mod route;
mod serve;
mod service;
mod sessions;
mod simulate;
mod simulated;
mod source;
mod status;
mod successor;
mod term;
mod text;
mod token;
mod translate;
mod uninstall;
mod watch;
mod when;

use std::process::ExitCode;

use clap::FromArgMatches as _;
use gateway::config::Env;

use cli::{Cli, Command};

#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `YYYY.MM.DD+<hash>`, with `-dirty` where the tree was changed.
const VERSION: &str = env!("CCO_VERSION");

/// Another gateway of this home is there, or is starting (`EX_TEMPFAIL` of sysexits.h).
const EXIT_BUSY: u8 = 75;

/// No gateway is running.
const EXIT_NOT_RUNNING: u8 = 3;

/// The configuration must be corrected (`EX_CONFIG` of sysexits.h).
const EXIT_CONFIG: u8 = 78;

fn main() -> ExitCode {
    term::ended(run())
}

fn run() -> ExitCode {
    if let Err(why) = gateway::system::close_to_others() {
        term::warning(format_args!("the memory of this process is not closed to others: {why}"), None);
    }
    let cli = match parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    if let Some(home) = &cli.home {
        // Commands that we start work in another folder, perhaps.
        Env::set_home(&std::path::absolute(home).unwrap_or_else(|_| home.clone()));
    }
    term::set(cli.quiet, cli.color);
    if let Some(url) = &cli.url {
        if !cli.command.as_ref().is_none_or(Command::looks) {
            let help = "leave out `--url`, or run it there: `ssh HOST cco …`; `--url` is for status, logs, costs, sessions, \
                        limits, watch, providers, prices, audit and doctor";
            term::error("this command works on this machine only", None, Some(help));
            return ExitCode::from(2);
        }
        // The doctor has a client of its own.
        if !matches!(cli.command, Some(Command::Doctor(_)))
            && let Err(failure) = source::ask_at(url)
        {
            return source::ended(Err(failure));
        }
    }
    let Some(command) = cli.command else { return status::glance() };
    match command {
        Command::Serve(options) => serve::run(&options),
        Command::Run(options) => launch::run(&options),
        Command::Env(options) => launch::env(&options),
        Command::Setup(options) => launch::setup(&options),
        Command::Daemon(options) => background::run(&options),
        Command::Status(options) => status::run(&options),
        Command::Credentials(options) => credentials::run(&options),
        Command::Logs(options) => logs::run(&options),
        Command::Costs(options) => costs::run(&options),
        Command::Sessions(options) => sessions::run(&options),
        Command::Limits(options) => limits::run(&options),
        Command::Watch(options) => watch::run(&options),
        Command::Prices(options) => prices::run(&options),
        Command::Audit(options) => audit::run(&options),
        Command::Token => token::run(),
        Command::Config(options) => configure::run(&options),
        Command::Route(options) => route::run(&options),
        Command::Providers(options) => providers::run(&options),
        Command::Translate(options) => translate::run(&options),
        Command::Doctor(options) => doctor::run(&options, cli.url.as_ref()),
        Command::Simulate(options) => simulate::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Completions(options) => manual::completions(options.shell),
        Command::Uninstall(options) => uninstall::run(&options),
        Command::Version => {
            term::line(VERSION);
            ExitCode::SUCCESS
        }
        Command::Man(options) => manual::pages(&options.folder),
    }
}

/// What was typed, or what is wrong with it in the form of all our errors.
fn parse() -> Result<Cli, ExitCode> {
    let words: Vec<_> = std::env::args_os().collect();
    // Before anything else is known: the words themselves may be wrong.
    let is = |when: &str| {
        words.windows(2).any(|pair| pair[0] == "--color" && pair[1] == when)
            || words.iter().any(|word| word.to_str() == Some(&format!("--color={when}")))
    };
    let color = match () {
        () if is("never") => clap::ColorChoice::Never,
        () if is("always") => clap::ColorChoice::Always,
        () => clap::ColorChoice::Auto,
    };
    let parsed = cli::command(term::width()).color(color).try_get_matches_from(&words);
    if let Ok(matches) = &parsed {
        let inner = std::iter::successors(matches.subcommand(), |(_, inner)| inner.subcommand());
        term::runs(inner.fold("cco".to_owned(), |path, (name, _)| format!("{path} {name}")));
    }
    parsed.and_then(|matches| Cli::from_arg_matches(&matches)).map_err(|error| {
        if !error.use_stderr() {
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        manual::wrong(&error, &manual::named(words.iter().map(|word| word.as_os_str())));
        ExitCode::from(2)
    })
}
