"""The real Claude Code with two sub-agents in one session: each goes to the provider that the rules name for its kind.

Three providers with a journal each: A for the built-in agent, B for the user's own, which `--agents` defines, C for the
main loop. Their journals say who was asked for what; `cco sessions` shows the tree, and its costs add up.
"""

import json
import re
import subprocess
import sys
from functools import partial

from claude import Around, Session, says
from support import Checks, Journal, Recorder, arguments, equal, true

args = arguments(__doc__, claude="the program", cco="the command line")
check = Checks(args.only)
HOME = args.work / "cco"
OWN_KEY = "sk-ant-api03-the-own-key-of-the-user"
OURS = {"CCO_HOME": str(HOME), "HOME": str(args.work), "PATH": str(args.work / "no-programs")}
KEYS = {"a": "sk-lane-a-0123456789abcdef", "b": "sk-lane-b-0123456789abcdef"}


def asked(*command, **more):
    done = subprocess.run([args.cco, *command], env=OURS, capture_output=True, text=True, timeout=60, **more)
    equal(done.returncode, 0, f"exit code of `cco {' '.join(command)}` ({done.stderr})")
    return done.stdout


HOME.mkdir(parents=True)
journals, providers, running = {}, {}, []
for name in ("a", "b", "main"):
    journals[name] = Journal(args.work / f"{name}.jsonl")
    # One that does not say that it is simulated: what it is asked for has a price.
    simulate = [args.cco, "simulate", "--listen", "127.0.0.1:0", "--unmarked", "--journal", journals[name].path]
    running.append(subprocess.Popen(simulate, env=OURS, stdout=subprocess.PIPE, text=True))
    address = running[-1].stdout.readline().strip().removeprefix("simulator listening on ")
    lane = {"providerType": "anthropic-compatible", "apiKeyRef": f"credential:LANE_{name.upper()}"}
    providers[name] = {"baseUrl": address} | (lane if name in KEYS else {"providerType": "anthropic"})
# What compatible providers take is in no list of ours.
prices = HOME / "prices.json"
every = {"models": {}, "every_other": {"input": 3, "output": 15}}
prices.write_text(json.dumps({"schema": 1, "version": "lanes", "providers": {"anthropic-compatible": every}}))
config = {
    "server": {"listen": "127.0.0.1:0"},
    "costTracking": {"pricesFile": str(prices)},
    "providers": providers,
    "routing": {"defaultProvider": "main", "fallbackChain": ["main"], "agentRules": {"Explore": "a", "scout": "b"}},
}
(HOME / "config.json").write_text(json.dumps(config))
for name, key in KEYS.items():
    asked("credentials", "store", f"LANE_{name.upper()}", input=key)
asked("daemon", "start")
port = re.search(r"Port:?\s+(\d+)", asked("daemon", "status"))[1]
Session = partial(Session, Around(args.claude, args.work, journals["main"], Recorder(f"http://127.0.0.1:{port}")))


def agent(kind, says_what):
    return json.dumps({
        "description": "look around",
        "prompt": f'Look around. [[sim text="{says_what}" input_tokens=20000 output_tokens=1000]]',
        "subagent_type": kind,
        "run_in_background": False,
    })  # fmt: skip


def turns(name):
    """Who asked a provider, by the credential that came and whether it was an agent."""
    entries = [entry for entry in journals[name].entries() if entry.path == "/v1/messages"]
    return [(entry, bool(entry.header("x-claude-code-agent-id"))) for entry in entries]


@check
def each_agent_goes_to_the_provider_of_its_kind_and_the_main_loop_to_its_own():
    mine = {"scout": {"description": "Looks around.", "prompt": "agent-type=scout You look around."}}
    script = (
        f"tool=Agent|Task input={agent('Explore', 'The first is marigold.')} "
        f"tool=Agent|Task input={agent('scout', 'The second is heliotrope.')} "
        'input_tokens=9000 output_tokens=100 then text="The outer end." input_tokens=9500 output_tokens=200'
    )
    hints = {"ANTHROPIC_API_KEY": OWN_KEY, "CLAUDE_CODE_GATEWAY_HINT_HEADERS": "1"}
    session = Session(says(script), hints, "--agents", json.dumps(mine))
    session.ask().answered("The outer end.")
    results = " ".join(session.tool_results())
    true("marigold" in results and "heliotrope" in results, f"what the agents said: {results}")
    for name in ("a", "b"):
        ((entry, is_agent),) = turns(name)
        true(is_agent, f"it is an agent that asked {name}: {entry.headers}")
        true(entry.has_credential("x-api-key", KEYS[name]), f"credentials at {name}: {entry.credentials()}")
        true(OWN_KEY not in str(entry.headers), "the user's key went to nobody else")
    main = turns("main")
    equal([is_agent for _, is_agent in main], [False, False], "the turns of the main loop")
    true(all(entry.has_credential("x-api-key", OWN_KEY) for entry, _ in main), "whose key the main loop spends")


@check
def the_tree_of_the_session_shows_them_and_its_costs_add_up():
    (session,) = [json.loads(line) for line in asked("sessions", "--json").splitlines()]
    rows = [json.loads(line) for line in asked("logs", "--json", "--limit", "100").splitlines()]
    equal(session["requests"], len(rows), "requests of the session")

    def flat(of):
        return [one for child in of.get("agents") or [] for one in (child, *flat(child))]

    everyone = flat(session)
    kinds = sorted(one.get("kind") or "main" for one in everyone)
    equal(kinds, ["Explore", "main", "scout"], "who is in the tree")
    costs = {one.get("kind") or "main": one["cost_usd"] for one in everyone}
    true(all(cost > 0 for cost in costs.values()), f"everybody cost something: {costs}")
    true(abs(sum(costs.values()) - session["cost_usd"]) < 1e-9, f"{costs} add up to {session['cost_usd']}")
    true(abs(sum(row["cost_usd"] for row in rows) - session["cost_usd"]) < 1e-9, "and so do the requests")
    return f"{costs}"


@check
def why_they_went_there_is_told():
    rows = [json.loads(line) for line in asked("logs", "--json", "--limit", "100").splitlines()]
    (explore,) = [row for row in rows if row.get("agent_type") == "Explore"]
    told = asked("logs", "show", explore["id"], "--route")
    true("agent type `Explore` is in `agentRules`" in told and "\n  1. a, " in told, told)


try:
    code = check.run()
finally:
    asked("daemon", "stop", "--within", "1")
    for provider in running:
        provider.kill()
sys.exit(code)
