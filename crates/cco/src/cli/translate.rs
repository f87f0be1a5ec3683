//! `cco translate`, as it can be typed.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use gateway::catalog::{self, ProviderKind};
use gateway::translation::{self, Protocol};

/// `cco translate`
#[derive(Debug, Args)]
#[command(
    after_help = "A request goes from a client's protocol to an upstream's, an answer the other way round; a stream is told from a whole answer
by itself. The result goes to standard output, what cannot be carried to standard error.

Examples:
  cco translate --from anthropic --to openai-chat request.json
  cco translate --from anthropic --to openai-responses --provider azure --model gpt-6.1 request.json
  curl -N … | cco translate --from ollama --to anthropic
  cco translate --from anthropic --to ollama --json request.json | jq .losses

Exit codes: 0 translated, 1 refused or not readable, 2 wrong usage."
)]
pub(crate) struct Translate {
    /// The protocol of what is read
    #[arg(long, value_name = "PROTOCOL", value_parser = protocol())]
    pub(crate) from: Protocol,
    /// The protocol of what is written
    #[arg(long, value_name = "PROTOCOL", value_parser = protocol())]
    pub(crate) to: Protocol,
    /// The kind of provider that a request is for, as `providerType` names it [default: nothing is known of it]
    #[arg(long, value_name = "KIND", value_parser = kind())]
    pub(crate) provider: Option<&'static ProviderKind>,
    /// The model as the upstream names it [default: as in the request]
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// Refuse whatever cannot be carried, as `translation.onLoss` does with \"refuse\"
    #[arg(long)]
    pub(crate) strict: bool,
    /// One JSON object with the result, what is lost and what is known
    #[arg(long)]
    pub(crate) json: bool,
    /// What to translate [default: standard input]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

fn protocol() -> impl TypedValueParser<Value = Protocol> {
    let names = Protocol::ALL.map(Protocol::as_str);
    PossibleValuesParser::new(names)
        .map(|name| translation::named(&name).expect("only the names of protocols are taken"))
}

fn kind() -> impl TypedValueParser<Value = &'static ProviderKind> {
    PossibleValuesParser::new(catalog::CATALOG.iter().map(|kind| kind.name))
        .map(|name| catalog::find(&name).expect("only the names of the catalog are taken"))
}
