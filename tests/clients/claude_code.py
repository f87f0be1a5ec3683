"""The real Claude Code through the gateway: tool loops, a sub-agent, every way to authenticate, and bad upstreams."""

import json
import signal
import sys
import time
from functools import partial

from claude import Around, Session, says
from support import Checks, Journal, Recorder, all_arrived_unchanged, arguments, equal, true, until

args = arguments(__doc__, claude="the program")
check = Checks(args.only)
journal = Journal(args.journal)
recorder = Recorder(args.base_url)

OWN_KEY = "sk-ant-api03-the-own-key-of-the-user"
OAUTH = "sk-ant-oat01-a-token-of-the-user"
BY_KEY = {"ANTHROPIC_API_KEY": OWN_KEY}
Session = partial(Session, Around(args.claude, args.work, journal, recorder))


@check
def it_reads_a_file_in_a_loop_of_two_tools():
    session = Session("", BY_KEY, "--allowedTools", "Read,Bash")
    note = session.folder / "note.txt"
    read, shell = json.dumps({"file_path": str(note)}), json.dumps({"command": "echo 6 times 7 is $((6 * 7))"})
    session.prompt = says(f'tool=Read input={read} then text="And now." tool=Bash input={shell} then text="The end."')
    session.ask(file=("note.txt", "the word is heliotrope\n")).answered("The end.")
    first, second = session.tool_results()
    true("heliotrope" in first, f"the first tool's result: {first}")
    true("6 times 7 is 42" in second, f"the second tool's result: {second}")
    equal(len(session.arrived()), 3, "turns upstream")
    last = session.sent()[-1].json()
    results = [block for message in last["messages"] if isinstance(message["content"], list)
               for block in message["content"] if block["type"] == "tool_result"]  # fmt: skip
    equal(len(results), 2, "tool results in the last turn")
    equal({request.json()["stream"] for request in session.sent()}, {True}, "whether the turns are streamed")


@check
def it_sends_a_sub_agent_whose_answer_comes_back():
    agent = json.dumps({
        "description": "look around",
        "prompt": 'Look around. [[sim text="The inner answer is marigold."]]',
        "subagent_type": "general-purpose",
        "run_in_background": False,
    })  # fmt: skip
    session = Session(says(f'tool=Agent|Task input={agent} then text="The outer end."'), BY_KEY)
    session.ask().answered("The outer end.")
    (result,) = session.tool_results()
    true("marigold" in result, f"the sub-agent's result: {result}")
    arrived = session.arrived()
    agents = [entry.header("x-claude-code-agent-id") for entry in arrived]
    equal([bool(agent) for agent in agents], [False, True, False], "which turns are a sub-agent's")
    equal(len({entry.header("x-claude-code-session-id") for entry in arrived}), 1, "sessions")


def one_turn(auth, script="text=hello", answer="hello"):
    session = Session(says(script), auth).ask().answered(answer)
    arrived = session.arrived()
    equal(len(arrived), 1, "turns upstream")
    return arrived[0], session.sent()[0]


@check
def a_key_of_the_users_own_arrives_as_x_api_key():
    entry, _ = one_turn(BY_KEY)
    true(entry.has_credential("x-api-key", OWN_KEY), f"credentials: {entry.credentials()}")


@check
def a_token_of_the_users_own_arrives_as_bearer():
    entry, _ = one_turn({"ANTHROPIC_AUTH_TOKEN": OWN_KEY})
    true(entry.has_credential("authorization", f"Bearer {OWN_KEY}"), f"credentials: {entry.credentials()}")


@check
def a_subscription_token_arrives_as_bearer_with_the_whole_anthropic_beta():
    entry, sent = one_turn({"CLAUDE_CODE_OAUTH_TOKEN": OAUTH})
    true(entry.has_credential("authorization", f"Bearer {OAUTH}"), f"credentials: {entry.credentials()}")
    equal(entry.header("anthropic-beta"), sent.header("anthropic-beta"), "`anthropic-beta`")
    true("oauth-2025-04-20" in entry.header("anthropic-beta").split(","), entry.header("anthropic-beta"))
    return f"{entry.header('anthropic-beta').count(',') + 1} beta values"


@check
def the_gateways_token_spends_the_stored_key():
    for name in ("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY"):
        entry, _ = one_turn({name: args.gateway_token})
        forms = (("x-api-key", args.stored_key), ("authorization", f"Bearer {args.stored_key}"))
        true(any(entry.has_credential(*form) for form in forms), f"not the stored key: {entry.credentials()}")


@check
def thinking_and_text_are_shown_as_they_were_said():
    session = Session(says('thinking="A thought of mine." text="Grüße, 世界 🙂" chunk=7'), BY_KEY)
    session.ask().answered("Grüße, 世界 🙂")
    blocks = [block for event in session.events if event["type"] == "assistant" for block in event["message"]["content"]]
    equal([block["type"] for block in blocks], ["thinking", "text"], "blocks")
    equal(blocks[0]["thinking"], "A thought of mine.", "thinking")


@check
def token_counts_reach_its_result():
    session = Session(says("text=counted input_tokens=1234 output_tokens=56 cache_read=789"), BY_KEY).ask()
    usage = session.answered("counted").result["usage"]
    counts = [usage[name] for name in ("input_tokens", "output_tokens", "cache_read_input_tokens")]
    equal(counts, [1234, 56, 789], "usage")


@check
def an_overloaded_upstream_is_tried_again_by_it_alone():
    session = Session(says("fault=529 times=1 text=later"), BY_KEY).ask().answered("later")
    equal(len(session.arrived()), 2, "turns upstream")


@check
def a_truncated_stream_becomes_an_error_that_it_recovers_from():
    script = 'fault=truncate=5 times=1 text="the whole answer" size=4'
    session = Session(says(script), BY_KEY).ask().answered("the whole answer")
    equal([request.json()["stream"] for request in session.sent()][0], True, "whether the first turn is streamed")
    equal(len(session.arrived()), 2, "turns upstream")
    return f"second turn with `stream`: {session.sent()[1].json().get('stream')}"


@check
def a_refusal_is_shown_in_the_upstreams_words():
    session = Session(says("fault=403"), BY_KEY).ask()
    equal((session.result["is_error"], session.process.returncode), (True, 1), "whether it failed, and exit code")
    true("ordered by the simulator" in session.result["result"], session.result["result"])
    equal(len(session.arrived()), 1, "turns upstream")


@check
def stopping_it_ends_the_upstreams_work():
    session = Session(says("events=100000 every=20 fill=word"), BY_KEY)
    session.process.stdin.write(session.prompt.encode())
    session.process.stdin.close()
    until(session.arrived, "its turn reaches the upstream")
    session.process.send_signal(signal.SIGTERM)
    left = time.time()
    entry = journal.gone(session.before)
    session.process.wait(30)
    late = entry.time_ms + entry.end["aborted_after_ms"] - left * 1000
    # It takes its time to go: that is its own.
    true(late < 5000, f"the upstream saw it only {late:.0f} ms after the signal")
    return f"seen upstream {max(late, 0):.0f} ms after the signal"


@check
def every_turn_arrived_once_and_byte_for_byte():
    return f"{all_arrived_unchanged(recorder.since(0), journal.entries())} requests compared"


@check
def its_loop_goes_on_when_the_first_provider_does_not():
    # The project chooses who comes first; behind each stands the one that is well.
    upstream = {"busy": 4, "hanging": 4, "cutting": 4, "failing": 4, "down": 2}
    for project, requests in upstream.items():
        session = Session("", BY_KEY | {"ANTHROPIC_CUSTOM_HEADERS": f"x-cco-project: {project}"}, "--allowedTools", "Read")
        read = json.dumps({"file_path": str(session.folder / "note.txt")})
        session.prompt = says(f'tool=Read input={read} then text="The end."')
        session.ask(file=("note.txt", "the word is heliotrope\n")).answered("The end.")
        true("heliotrope" in session.tool_results()[0], f"{project}: {session.tool_results()}")
        equal(len(session.sent()), 2, f"turns of the client, {project}")
        arrived = session.arrived()
        equal(len(arrived), requests, f"requests upstream, {project}")
        own = [entry for entry in arrived if entry.has_credential("x-api-key", OWN_KEY)]
        equal((len(own), len([entry for entry in own if entry.header("x-sim-fault")])), (2, 0), "where the user's key went")
    return ", ".join(f"{project}: {requests}" for project, requests in upstream.items())


@check
def its_agents_go_where_the_rules_send_them():
    mine = {"scout": {"description": "Looks around.", "prompt": "agent-type=scout You look around."}}
    for kind, more, auth in (
        ("Explore", [], {"CLAUDE_CODE_GATEWAY_HINT_HEADERS": "1"}),
        ("scout", ["--agents", json.dumps(mine)], {}),
    ):
        agent = json.dumps({
            "description": "look around",
            "prompt": 'Look around. [[sim text="The inner answer is marigold."]]',
            "subagent_type": kind,
            "run_in_background": False,
        })  # fmt: skip
        session = Session(says(f'tool=Agent|Task input={agent} then text="The outer end."'), BY_KEY | auth, *more)
        session.ask().answered("The outer end.")
        lanes = [(bool(entry.header("x-claude-code-agent-id")), entry.header("x-lane")) for entry in session.arrived()]
        equal(lanes, [(False, None), (True, kind), (False, None)], f"lanes of the turns ({kind})")


sys.exit(check.run())
