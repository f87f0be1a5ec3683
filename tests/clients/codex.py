"""The real Codex through the gateway, which it asks for Responses: a loop of tools at providers of three protocols.

It runs without a terminal, with an empty environment and a home of its own. Whatever it might want from elsewhere goes to
a proxy that is not there.
"""

import json
import subprocess
import sys
import uuid

from support import Checks, Journal, arguments, equal, true

args = arguments(__doc__, codex="the program")
check = Checks(args.only)
journal = Journal(args.journal)

CONFIGURATION = """
model = "gpt-5.5"
model_provider = "gateway"
approval_policy = "never"
sandbox_mode = "danger-full-access"

[model_providers.gateway]
name = "the gateway"
base_url = "{base}/v1"
wire_api = "responses"
env_key = "GATEWAY_KEY"
http_headers = {{ "x-cco-project" = "{project}" }}
request_max_retries = 0
stream_max_retries = 0
"""


class Session:
    """One run of the program, in a folder of its own."""

    def __init__(self, project, script, note=None):
        self.before = journal.mark()
        home = args.work / uuid.uuid4().hex[:8]
        self.folder = home / "project"
        self.folder.mkdir(parents=True)
        (home / "codex").mkdir()
        (home / "codex" / "config.toml").write_text(CONFIGURATION.format(base=args.base_url, project=project))
        if note:
            (self.folder / "note.txt").write_text(note)
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(home),
            "CODEX_HOME": str(home / "codex"),
            "GATEWAY_KEY": args.gateway_token,
            # Nobody listens there: nothing can leave the machine.
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "HTTP_PROXY": "http://127.0.0.1:9",
            "NO_PROXY": "127.0.0.1,localhost",
        }
        command = [args.codex, "exec", "--skip-git-repo-check", "--json", f"Please do what is asked. [[sim {script}]]"]
        done = subprocess.run(
            command, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=120
        )
        self.told = f"exit code {done.returncode}, {done.stdout[-800:]!r}, {done.stderr[-800:]!r}"
        self.code = done.returncode
        self.events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"{")]

    def items(self, kind):
        """The finished items of one kind."""
        items = [event["item"] for event in self.events if event["type"] == "item.completed"]
        return [item for item in items if item["type"] == kind]

    def answered(self, text):
        equal(self.code, 0, f"exit code ({self.told})")
        messages = [item["text"] for item in self.items("agent_message")]
        true(messages and messages[-1] == text, f"the last message: {messages} ({self.told})")
        return self

    def usage(self):
        return [event["usage"] for event in self.events if event["type"] == "turn.completed"][-1]

    def paths(self):
        """Where the upstream was asked for an answer; how large Ollama's model is, the gateway asks once."""
        asked = [entry.path for entry in journal.entries(self.before) if entry.method == "POST"]
        return [path for path in asked if path != "/api/show"]


def loop(project, path):
    shell = json.dumps({"cmd": "cat note.txt; echo 6 times 7 is $((6 * 7))"})
    script = f'thinking="I look." text="First this." tool=exec_command input={shell} then text="The end." input_tokens=70 output_tokens=30'
    session = Session(project, script, "the word is heliotrope\n").answered("The end.")
    (ran,) = session.items("command_execution")
    true("heliotrope" in ran["aggregated_output"] and "7 is 42" in ran["aggregated_output"], f"{project}: {ran}")
    equal(session.paths(), [path, path], f"{project}: where the turns went")
    return session


@check
def its_loop_ends_at_a_provider_of_its_own_protocol():
    loop("openai", "/v1/responses")


@check
def its_loop_ends_at_anthropic():
    loop("claude", "/v1/messages")


@check
def its_loop_ends_at_a_provider_of_chat_completions():
    loop("openai-chat", "/v1/chat/completions")


@check
def its_loop_ends_at_ollama():
    loop("ollama", "/api/chat")


@check
def a_patch_in_its_own_grammar_changes_the_file():
    patch = "*** Begin Patch\n*** Update File: note.txt\n@@\n-old\n+new\n*** End Patch\n"
    call = json.dumps({"input": patch})
    for project in ("openai", "claude", "openai-chat"):
        session = Session(project, f'tool=apply_patch input={call} then text="Patched."', "old\n").answered("Patched.")
        equal((session.folder / "note.txt").read_text(), "new\n", f"{project}: the file ({session.told})")


@check
def token_counts_reach_its_result():
    for project in ("openai", "claude", "openai-chat"):
        session = Session(project, "text=counted input_tokens=1234 output_tokens=56 cache_read=789").answered("counted")
        usage = session.usage()
        counts = [usage[name] for name in ("input_tokens", "cached_input_tokens", "output_tokens")]
        equal(counts, [2023, 789, 56], f"{project}: usage")


@check
def a_refusal_is_shown_in_the_upstreams_words():
    for project in ("openai", "claude", "openai-chat"):
        session = Session(project, "fault=400")
        true(session.code != 0, f"{project}: exit code ({session.told})")
        true("ordered by the simulator" in json.dumps(session.events), f"{project}: {session.told}")


sys.exit(check.run())
