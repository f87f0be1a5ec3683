//! The page on the configuration, written from the tables in the program: `docs/configuration.md`.

use std::fmt::Write as _;

use super::env::VARIABLES;
use super::form::{Effect, Key, Shape};
use super::keys::Config;
use super::overrides::variable;

const HEAD: &str = "\
# Configuration

None is needed: without one, the client's own key is passed on to https://api.anthropic.com. This page is made from the tables in the program
(`cargo test -p gateway write_the_reference -- --ignored`).

## Where it is

The first of these that names a file counts:

1. `--config FILE`
2. `CCO_CONFIG`
3. `config.json` in `CCO_HOME` (default: `~/.cco`), if it is there

It is JSON, in which comments and trailing commas are allowed. The content may also stand under `llmGateway` in a file that is shared with other programs. All mistakes are told at once, with line, column
and remedy; nothing starts with a faulty configuration (exit code 78).

| command | what it does |
|---|---|
| `cco config init` | writes a first `config.json` with comments, and `config.schema.json` beside it, by which editors complete and check |
| `cco config path` | prints which file is read |
| `cco config show [KEY]` | prints what holds, and where it comes from: a line of the file, a variable or the default; secrets are masked; `--json` for programs |
| `cco config get KEY` | prints one value, alone |
| `cco config set KEY VALUE` | changes the file and keeps its comments; refused for faults that it would bring in; those that were there before are told. `--default` in place of the value removes the key, also one that is not known |
| `cco config validate` | reads a file and says what is wrong with it, without starting anything |
| `cco config schema` | prints the JSON Schema |
| `cco config reload` | has the running gateway load it again, and says what changed |

A key is named by its path: `server.listen`, `providers.anthropic.timeoutSecs`, `routing.rules[0].name`; a name with a dot in it is put in quotation marks. A value needs none, and commas make a list:
`cco config set server.hosts a,b`.

";

const RELOAD: &str = "\
## Changes while it serves

A gateway that runs looks at its file twice a second and loads it again when it has changed; `SIGHUP`, `cco config reload` and `POST /gateway/reload` have the same effect at once, and also read again what the
file names (prices, certificates, keys). It is checked as at the start. If anything is wrong, nothing changes: the log says what, and `GET /gateway/health` under `config`. Otherwise the log names every
change, secrets masked, and requests that come from then on are served by the new configuration; those that run end with the one they began with.

These keys wait for the next start, and are named when they change, in the log, by `cco config reload` and by `cco status`: `server.listen`, `server.allowRemote`, `log.maxMb`, `log.files`, and of `audit` all but `logRequestBodies`, `logResponseBodies`, `onFailure` and
`journalWaitMs`. Variables are those that the process was started with.

";

const OVERRIDES: &str = "\
## Variables in place of keys

Each key has a variable that comes before what the file says: for containers and for trying things. It is read at the start, an empty one counts as not set, and a list is written with commas or as JSON.
`NAME` stands for the name of a provider in capitals, with `_` for what is neither letter nor digit. A variable of these sections that means nothing gets a warning.

";

impl Config {
    /// The page of the documentation.
    pub fn manual() -> String {
        let mut text = String::from(HEAD);
        text.push_str("## Variables\n\n| variable | what it does |\n|---|---|\n");
        for variable in VARIABLES {
            let names: Vec<_> = variable.names.iter().map(|name| format!("`{name}`")).collect();
            let _ = writeln!(text, "| {} | {} |", names.join(", "), variable.meaning);
        }
        text.push('\n');
        text.push_str(RELOAD);
        text.push_str(OVERRIDES);
        text.push_str("| variable | key | default | meaning |\n|---|---|---|---|\n");
        rows(&Self::keys(), "", &mut text);
        text.push_str("\nEvery key as a configuration that can be copied: [config-full.jsonc](config-full.jsonc).\n");
        text
    }
}

fn rows(keys: &[Key], above: &str, text: &mut String) {
    for key in keys {
        let path = if above.is_empty() { key.name.to_string() } else { format!("{above}.{}", key.name) };
        match &key.shape {
            Shape::Section(keys) => rows(keys, &path, text),
            Shape::Map(value) if path == "providers" => {
                if let Shape::Section(keys) = &**value {
                    rows(keys, "providers.NAME", text);
                }
            }
            _ => {
                let default = key.default.as_ref().map(|default| format!("`{default}`")).unwrap_or_default();
                let idle = if key.effect == Effect::Later { " (No effect in this version.)" } else { "" };
                let _ = writeln!(text, "| `{}` | `{path}` | {default} | {}{idle} |", variable(&path), key.doc);
            }
        }
    }
}
