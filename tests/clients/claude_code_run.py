"""The real Claude Code as `cco run` starts it: with a login, with a key, with neither and with both.

Who pays is said before it starts, and it is who pays; what the session cost is said at its end, and it is what the ledger
says. No header tells the provider what is worked on.
"""

import json
import re
import subprocess
import sys
import time
from functools import partial

from claude import Around, Session, says
from support import Checks, Journal, Recorder, arguments, equal, true

args = arguments(__doc__, claude="the program", cco="the command line")
check = Checks(args.only)
HOME = args.work / "cco"
OWN_KEY = "sk-ant-api03-the-own-key-of-the-user"
LOGIN = "sk-ant-oat01-the-login-of-the-user"
BRANCH = "a-branch-that-nobody-else-knows"
# What Claude Code itself tells its model of the repository; nothing else may name the branch.
ITS_OWN_WORDS = f"Current branch: {BRANCH}"
OURS = {"CCO_HOME": str(HOME), "HOME": str(args.work), "PATH": str(args.work / "no-programs")}


def asked(*command, **more):
    done = subprocess.run([args.cco, *command], env=OURS, capture_output=True, text=True, timeout=60, **more)
    equal(done.returncode, 0, f"exit code of `cco {' '.join(command)}` ({done.stderr})")
    return done.stdout


# A provider that does not say that it is simulated: what it is asked for has a price.
HOME.mkdir(parents=True)
journal = Journal(args.work / "upstream.jsonl")
simulate = [args.cco, "simulate", "--listen", "127.0.0.1:0", "--unmarked", "--journal-bodies", "--journal", journal.path]
provider = subprocess.Popen(simulate, env=OURS, stdout=subprocess.PIPE, text=True)
address = provider.stdout.readline().strip().removeprefix("simulator listening on ")
config = {"server": {"listen": "127.0.0.1:0"}, "providers": {"anthropic": {"baseUrl": address}}}
(HOME / "config.json").write_text(json.dumps(config))
asked("credentials", "store", "ANTHROPIC_API_KEY", input=args.stored_key)
asked("daemon", "start")
Session = partial(Session, Around(args.claude, args.work, journal, Recorder(args.base_url), (args.cco, "run", "--")))


def begun(script, login, key, *more):
    """A session with what its user has, in a repository."""
    auth = {name: OURS[name] for name in ("CCO_HOME", "PATH")} | ({"ANTHROPIC_API_KEY": OWN_KEY} if key else {})
    home = args.work / f"home-{len(list(args.work.iterdir()))}"
    if login:
        kept = {
            "accessToken": LOGIN,
            "refreshToken": LOGIN.replace("oat", "ort"),
            "expiresAt": int((time.time() + 86400 * 365) * 1000),
            "scopes": ["user:inference", "user:profile"],
            "subscriptionType": "max",
        }
        (home / ".claude").mkdir(parents=True)
        (home / ".claude/.credentials.json").write_text(json.dumps({"claudeAiOauth": kept}))
    git = home / "project/.git"
    git.mkdir(parents=True)
    (git / "HEAD").write_text(f"ref: refs/heads/{BRANCH}\n")
    return Session(says(script), auth, *more, home=home)


def notes(session):
    return [line.removeprefix("note: ") for line in session.errors.read_text().splitlines() if line.startswith("note: ")]


def dollars(text):
    """The amount in a line, and by how much it may be rounded."""
    amount = re.search(r"\$(\d+(?:\.(\d+))?)", text)
    true(amount, f"an amount in `{text}`")
    return float(amount[1]), 0.5 * 10 ** -len(amount[2] or "")


def pays(login, key, said, name, value):
    session = begun("text=hello input_tokens=20000 output_tokens=3000", login, key).ask().answered("hello")
    (line,) = [line for line in notes(session) if line.startswith("paying with: ")]
    true(line.startswith(f"paying with: {said}"), line)
    (entry,) = session.arrived()
    true(entry.has_credential(name, value), f"{line}, and what arrived: {entry.credentials()}")
    return session, entry


def cost_is_that_of_the_ledger(session):
    (line,) = [line for line in notes(session) if line.startswith("session ")]
    of = line.split()[1].rstrip(":")
    rows = [json.loads(row) for row in asked("logs", "--json", "--limit", "100").splitlines()]
    rows = [row for row in rows if (row.get("session") or "").startswith(of)]
    true(rows, f"records of session {of}")
    cost, (told, off) = sum(row["cost_usd"] for row in rows), dollars(line)
    true(cost > 0.01 and abs(cost - told) <= off * 1.001, f"the ledger has ${cost}, said is `{line}`")
    requests = "1 request" if len(rows) == 1 else f"{len(rows)} requests"
    true(f"({requests}, " in line, f"the ledger has {requests}, said is `{line}`")
    return line


@check
def with_a_login_alone_the_login_pays():
    session, entry = pays(True, False, "your claude.ai login", "authorization", f"Bearer {LOGIN}")
    true("oauth-2025-04-20" in entry.header("anthropic-beta").split(","), entry.header("anthropic-beta"))
    line = cost_is_that_of_the_ledger(session)
    true("by subscription" in line, line)
    return line


@check
def with_a_key_alone_the_key_pays():
    session, _ = pays(False, True, f"your key ANTHROPIC_API_KEY (…{OWN_KEY[-4:]})", "x-api-key", OWN_KEY)
    return cost_is_that_of_the_ledger(session)


@check
def with_neither_the_stored_key_pays():
    said = f"stored key ANTHROPIC_API_KEY (…{args.stored_key[-4:]})"
    session, _ = pays(False, False, said, "x-api-key", args.stored_key)
    return cost_is_that_of_the_ledger(session)


@check
def with_both_the_one_that_is_said_pays():
    session, _ = pays(True, True, f"your key ANTHROPIC_API_KEY (…{OWN_KEY[-4:]})", "x-api-key", OWN_KEY)
    return cost_is_that_of_the_ledger(session)


@check
def the_cost_is_told_by_agent():
    agent = json.dumps({
        "description": "look around",
        "prompt": 'Look around. [[sim text="The inner answer is marigold." input_tokens=30000 output_tokens=1000]]',
        "subagent_type": "general-purpose",
        "run_in_background": False,
    })  # fmt: skip
    session = begun(f'tool=Agent|Task input={agent} then text="The outer end." input_tokens=9000', False, True)
    session.ask().answered("The outer end.")
    line = cost_is_that_of_the_ledger(session)
    agents = [line for line in notes(session) if line.startswith("  ")]
    equal(len(agents), 2, f"agents told of: {notes(session)}")
    whole, parts = dollars(line), [dollars(agent) for agent in agents]
    slack = whole[1] + sum(off for _, off in parts)
    true(abs(whole[0] - sum(part for part, _ in parts)) <= slack, f"{line} is not the sum of {agents}")
    return f"{line} {agents}"


@check
def the_project_is_recorded_and_neither_it_nor_the_branch_is_told_upstream():
    raw = journal.path.read_text()
    true(len(journal.entries()) > 4, "too few requests to say anything")
    for entry in journal.entries():
        ours = [name for name, _ in entry.headers if name.startswith("x-cco")]
        equal(ours, [], "headers of ours that the upstream saw")
        true(all(BRANCH not in str(value) for _, value in entry.headers), f"the branch is in a header of {entry.target}")
    true(BRANCH not in raw.replace(ITS_OWN_WORDS, ""), "the branch is in the upstream's journal")
    equal(json.loads(asked("logs", "show", "last", "--json"))["project"], "project", "the recorded project")


@check
def quiet_says_nothing():
    around = Session.args[0]
    loud, around.prefix = around.prefix, (args.cco, "-q", "run", "--quiet", "--")
    try:
        session = begun("text=hello", False, True).ask().answered("hello")
    finally:
        around.prefix = loud
    equal(notes(session), [], "notes")


try:
    code = check.run()
finally:
    asked("daemon", "stop", "--within", "1")
    provider.kill()
sys.exit(code)
