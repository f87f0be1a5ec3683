//! `cco providers`: how the providers of the gateway that runs are, and why some are left alone.

use std::process::ExitCode;

use gateway::admin::ask::encoded;
use gateway::config::Env;
use serde_json::Value;

use crate::cli::{Providers, ProvidersCommand};
use crate::source::{self, Failure, Source};
use crate::term;
use crate::text::{self, Side, Table};

/// Shows them, or resets one.
pub(crate) fn run(options: &Providers) -> ExitCode {
    source::ended(providers(options))
}

fn providers(options: &Providers) -> Result<(), Failure> {
    let nobody = |_| Failure::new("no gateway is running here").help("start one with `cco serve`");
    let mut gateway = Source::gateway(&Env::process()).map_err(nobody)?;
    match &options.command {
        Some(ProvidersCommand::Reset { name }) => {
            gateway
                .change(&format!("/gateway/providers/reset?{}", encoded("name", name)))
                .map_err(Failure::unlisted)?;
            term::line(format_args!("`{}` is tried anew", text::line(name)));
        }
        None => {
            let told = gateway.answer("/gateway/providers")?;
            if options.json {
                term::line(&told);
            } else {
                show(&told);
            }
        }
    }
    Ok(())
}

fn show(told: &Value) {
    let list = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
    let word = |value: &Value| text::line(value.as_str().unwrap_or("-")).into_owned();
    let mut table = Table::new(&[
        ("PROVIDER", Side::Left),
        ("TYPE", Side::Left),
        ("STATE", Side::Left),
        ("KEYS", Side::Right),
        ("RUNNING", Side::Right),
        ("WAITING", Side::Right),
        ("AT", Side::Left),
    ]);
    let providers = list(&told["providers"]);
    for provider in &providers {
        let count = |name: &str| provider[name].as_u64().unwrap_or(0).to_string();
        table.row(vec![
            word(&provider["name"]),
            word(&provider["type"]),
            word(&provider["state"]),
            count("keys"),
            count("running"),
            count("waiting"),
            word(&provider["base_url"]),
        ]);
    }
    let disabled: Vec<String> = list(&told["disabled"]).iter().map(word).collect();
    for name in disabled {
        table.row(vec![name, "-".into(), "disabled".into(), "-".into(), "-".into(), "-".into(), "-".into()]);
    }
    let widths = table.widths(&[]);
    term::line(table.heading(&widths));
    table.lines(&widths, None).for_each(term::line);
    for provider in &providers {
        let name = word(&provider["name"]);
        for circuit in list(&provider["circuits"]).iter().filter(|circuit| circuit["state"] != "closed") {
            let state = match circuit["again_in_secs"].as_f64() {
                Some(seconds) => format!("is left alone for {:.0} s", seconds.ceil()),
                None => "is being tried".into(),
            };
            let (model, key) = (word(&circuit["model"]), word(&circuit["key"]));
            term::line(format_args!("{name}: {model} with {key} {state}: {}", word(&circuit["why"])));
        }
        for key in list(&provider["refused_keys"]) {
            let minutes = key["again_in_secs"].as_u64().unwrap_or(0).div_ceil(60);
            term::line(format_args!("{name}: {} is not accepted; tried again in {minutes} min", word(&key["key"])));
        }
    }
}
