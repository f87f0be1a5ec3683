"""The real Claude Code with each kind of provider behind the gateway: its loop of tools, and a session that changes
between providers.

The project of a session chooses its provider; all of them are the simulator, which is asked in the protocol of each, and
which refuses what its provider would refuse.
"""

import json
import sys
from functools import partial

from claude import Around, Session, says
from support import Checks, Journal, Recorder, arguments, equal, true

args = arguments(__doc__, claude="the program")
check = Checks(args.only)
journal = Journal(args.journal)
Session = partial(Session, Around(args.claude, args.work, journal, Recorder(args.base_url)))

# Where each project's provider is asked.
PROVIDERS = {
    "claude": "/v1/messages",
    "anthropic-compatible": "/v1/messages",
    "foundry": "/anthropic/v1/messages",
    "deepseek-own": "/anthropic/v1/messages",
    "deepseek": "/v1/chat/completions",
    "openai": "/v1/responses",
    "openai-chat": "/v1/chat/completions",
    "azure": "/openai/v1/responses",
    "azure-chat": "/openai/v1/chat/completions",
    "azure-dated": "/openai/deployments/gpt-5/chat/completions",
    "ollama": "/api/chat",
    "ollama-anthropic": "/v1/messages",
    "openrouter": "/api/v1/messages",
    "openrouter-chat": "/api/v1/chat/completions",
    "vllm": "/v1/chat/completions",
    "llamacpp": "/v1/chat/completions",
    "openai-compatible": "/v1/chat/completions",
}


def at(project):
    return {"ANTHROPIC_AUTH_TOKEN": args.gateway_token, "ANTHROPIC_CUSTOM_HEADERS": f"x-cco-project: {project}"}


def turns_since(before):
    """What the upstream was asked for; how large Ollama's model is, the gateway asks once."""
    return [entry for entry in journal.entries(before) if entry.method == "POST" and entry.path != "/api/show"]


def its_loop_ends(project, path):
    session = Session("", at(project), "--allowedTools", "Read,Bash")
    read = json.dumps({"file_path": str(session.folder / "note.txt")})
    shell = json.dumps({"command": "echo 6 times 7 is $((6 * 7))"})
    session.prompt = says(
        f'thinking="I look." text="First this." tool=Read input={read} tool=Bash input={shell} '
        f'then tool=Bash input={shell} then text="The end: Grüße 🙂." input_tokens=1234 output_tokens=56'
    )
    session.ask(file=("note.txt", "the word is heliotrope\n")).answered("The end: Grüße 🙂.")
    first, second, third = session.tool_results()
    true("heliotrope" in first, f"the first tool's result: {first}")
    true("7 is 42" in second and "7 is 42" in third, f"the shell's results: {second}, {third}")
    turns = turns_since(session.before)
    equal([entry.path for entry in turns], [path] * 3, "where the turns went")
    equal([entry.end["status"] for entry in turns], [200] * 3, "what the upstream answered")
    equal([entry.oddities for entry in turns], [[]] * 3, "what is odd about the requests")
    usage = session.result["usage"]
    # Three turns: an estimate would show in the sum.
    true(usage["output_tokens"] >= 56 and usage["input_tokens"] >= 1234, f"usage: {usage}")


for project, path in PROVIDERS.items():
    def loop(project=project, path=path):
        its_loop_ends(project, path)

    loop.__name__ = f"its_loop_of_tools_ends_at_{project}"
    check(loop)


def a_session_that_changes(*projects):
    """Each project answers one prompt of the same session, with thinking and a call."""
    home, session = None, None
    thoughts = []
    for number, project in enumerate(projects):
        more = ["--resume", session] if session else []
        shell = json.dumps({"command": f"echo turn {number}"})
        thought = f"A thought of {project}, number {number}."
        thoughts.append(thought)
        prompt = says(f'thinking="{thought}" tool=Bash input={shell} then thinking="More of it." text="Answer {number}."')
        run = Session(prompt, at(project), "--allowedTools", "Bash", *more, home=home)
        run.ask().answered(f"Answer {number}.")
        home, session = run.home, run.result["session_id"]
        shown = [block["thinking"] for block in run.blocks() if block["type"] == "thinking"]
        equal(shown, [thought, "More of it."], f"thinking that is shown at {project}")
        turns = turns_since(run.before)
        equal([entry.end["status"] for entry in turns], [200, 200], f"what {project} answered")
        equal({entry.path for entry in turns}, {PROVIDERS[project]}, f"where the turns of {project} went")
        # The client keeps all of it; what does not belong to a provider must not reach it.
        kept = [block["thinking"] for message in run.sent()[-1].json()["messages"] if message["role"] == "assistant"
                for block in message["content"] if block["type"] == "thinking"]  # fmt: skip
        true(set(thoughts) <= set(kept), f"thinking in the history that {project} is asked with: {kept}")


@check
def a_session_goes_from_anthropic_to_azure_and_back():
    a_session_that_changes("claude", "azure", "claude", "azure")


@check
def a_session_goes_from_anthropic_to_azures_chat_and_back():
    a_session_that_changes("claude", "azure-chat", "claude")


@check
def a_session_goes_round_all_four_of_the_chain():
    a_session_that_changes("claude", "azure", "deepseek", "ollama", "claude")


sys.exit(check.run())
