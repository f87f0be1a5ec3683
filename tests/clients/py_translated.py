"""Both official Python SDKs at providers that speak another protocol: what their users do, and what they see when
something goes wrong.

The project of a request chooses its provider; all of them are the simulator, which is asked in the protocol of each.
"""

import json
import sys

import anthropic
import openai

from support import Checks, arguments, equal, raises, true

args = arguments(__doc__)
check = Checks(args.only)

MODEL = "claude-sonnet-5-5"
FOR_ANTHROPIC = ("openai", "openai-chat", "deepseek", "ollama")
FOR_CHAT = ("claude", "ollama")
FOR_RESPONSES = ("claude", "deepseek", "ollama")
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
SAYS = 'thinking="I look it up." text="Let me see: Grüße 🚀" tool=weather input={"city":"Tokyo"} tool=weather input={"city":"Oslo"}'
SCRIPT = f"[[sim {SAYS} input_tokens=77 output_tokens=33 then text=\"Rain.\"]]"


def claude(provider, **more):
    given = {"base_url": args.base_url, "api_key": args.gateway_token, "max_retries": 0, "timeout": 60.0}
    return anthropic.Anthropic(**given, default_headers={"x-cco-project": provider}, **more)


def gpt(provider):
    given = {"base_url": f"{args.base_url}/v1", "api_key": args.gateway_token, "max_retries": 0, "timeout": 60.0}
    return openai.OpenAI(**given, default_headers={"x-cco-project": provider})


def asked(script=SCRIPT):
    tools = [{"name": "weather", "description": "of a city", "input_schema": SCHEMA}]
    return {"model": MODEL, "max_tokens": 1000, "tools": tools, "messages": [{"role": "user", "content": script}]}


def chat(script=SCRIPT):
    tools = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]
    return {"model": MODEL, "tools": tools, "messages": [{"role": "user", "content": script}]}


def responses(script=SCRIPT):
    tools = [{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}]
    return {"model": MODEL, "tools": tools, "input": [{"role": "user", "content": script}]}


def streamed(client, body):
    with client.messages.stream(**body) as events:
        return events.get_final_message()


def is_good(message, at):
    texts = [block.text for block in message.content if block.type == "text"]
    calls = [block.input for block in message.content if block.type == "tool_use"]
    equal(texts, ["Let me see: Grüße 🚀"], f"{at}: text")
    equal(calls, [{"city": "Tokyo"}, {"city": "Oslo"}], f"{at}: calls")
    equal((message.stop_reason, message.model), ("tool_use", MODEL), f"{at}: end")
    equal((message.usage.input_tokens, message.usage.output_tokens), (77, 33), f"{at}: usage")


@check
def an_anthropic_client_gets_tool_calls_and_usage_from_every_provider():
    for provider in FOR_ANTHROPIC:
        client = claude(provider)
        is_good(client.messages.create(**asked()), provider)
        is_good(streamed(client, asked()), f"{provider}, streamed")


@check
def an_anthropic_clients_tool_loop_ends_at_every_provider():
    for provider in FOR_ANTHROPIC:
        client, body = claude(provider), asked()
        first = streamed(client, body)
        body["messages"].append({"role": "assistant", "content": first.content})
        calls = [block for block in first.content if block.type == "tool_use"]
        results = [{"type": "tool_result", "tool_use_id": call.id, "content": "rain"} for call in calls]
        body["messages"].append({"role": "user", "content": results})
        last = streamed(client, body)
        equal([block.text for block in last.content if block.type == "text"], ["Rain."], provider)


@check
def an_anthropic_client_raises_what_went_wrong():
    for provider in FOR_ANTHROPIC:
        client = claude(provider)
        for fault, kind in [
            ("400", anthropic.BadRequestError),
            ("404", anthropic.NotFoundError),
            ("429", anthropic.RateLimitError),
            ("500", anthropic.InternalServerError),
            # Our key was refused, not the client's.
            ("401", anthropic.InternalServerError),
        ]:
            error = raises(kind, lambda: client.messages.create(**asked(f"[[sim text=x fault={fault}]]")))
            true(error.body["error"]["message"], f"{provider} {fault}: no message")
        failing = asked('[[sim text="one two three four five six" fault=error-mid=6]]')
        try:
            streamed(client, failing)
        except anthropic.APIError:
            continue
        raise AssertionError(f"{provider}: a stream that failed ended as if it had not")


@check
def a_chat_client_gets_tool_calls_and_usage_from_every_provider():
    for provider in FOR_CHAT:
        client = gpt(provider)
        whole = client.chat.completions.create(**chat())
        message = whole.choices[0].message
        equal(message.content, "Let me see: Grüße 🚀", provider)
        equal([json.loads(call.function.arguments)["city"] for call in message.tool_calls], ["Tokyo", "Oslo"], provider)
        equal((whole.choices[0].finish_reason, whole.model), ("tool_calls", MODEL), provider)
        equal((whole.usage.prompt_tokens, whole.usage.completion_tokens), (77, 33), provider)
        text, calls, usage = "", {}, None
        for chunk in client.chat.completions.create(**chat(), stream=True, stream_options={"include_usage": True}):
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                for call in choice.delta.tool_calls or []:
                    calls.setdefault(call.index, "")
                    calls[call.index] += call.function.arguments or ""
        equal(text, "Let me see: Grüße 🚀", f"{provider}, streamed")
        equal([json.loads(calls[at])["city"] for at in sorted(calls)], ["Tokyo", "Oslo"], f"{provider}, streamed")
        equal((usage.prompt_tokens, usage.completion_tokens), (77, 33), f"{provider}, streamed")


@check
def a_chat_clients_tool_loop_ends_at_every_provider():
    for provider in FOR_CHAT:
        client, body = gpt(provider), chat()
        message = client.chat.completions.create(**body).choices[0].message
        body["messages"].append(message.model_dump(exclude_none=True))
        for call in message.tool_calls:
            body["messages"].append({"role": "tool", "tool_call_id": call.id, "content": "rain"})
        last = client.chat.completions.create(**body).choices[0].message
        equal(last.content, "Rain.", provider)


@check
def a_chat_client_raises_what_went_wrong():
    for provider in FOR_CHAT:
        client = gpt(provider)
        for fault, kind in [
            ("400", openai.BadRequestError),
            ("404", openai.NotFoundError),
            ("429", openai.RateLimitError),
            ("500", openai.InternalServerError),
            ("401", openai.InternalServerError),
        ]:
            raises(kind, lambda: client.chat.completions.create(**chat(f"[[sim text=x fault={fault}]]")))
        failing = chat('[[sim text="one two three four five six" fault=error-mid=6]]')
        try:
            list(client.chat.completions.create(**failing, stream=True))
        except openai.APIError:
            continue
        raise AssertionError(f"{provider}: a stream that failed ended as if it had not")


@check
def a_responses_client_gets_tool_calls_and_usage_from_every_provider():
    for provider in FOR_RESPONSES:
        client = gpt(provider)
        whole = client.responses.create(**responses())
        with client.responses.stream(**responses()) as events:
            numbers = [event.sequence_number for event in events]
            final = events.get_final_response()
        equal(numbers, list(range(len(numbers))), f"{provider}: numbers")
        for response in (whole, final):
            equal(response.output_text, "Let me see: Grüße 🚀", provider)
            calls = [json.loads(item.arguments)["city"] for item in response.output if item.type == "function_call"]
            equal(calls, ["Tokyo", "Oslo"], provider)
            equal((response.status, response.model), ("completed", MODEL), provider)
            equal((response.usage.input_tokens, response.usage.output_tokens), (77, 33), provider)


@check
def a_responses_clients_tool_loop_ends_at_every_provider():
    for provider in FOR_RESPONSES:
        client, body = gpt(provider), responses()
        first = client.responses.create(**body, include=["reasoning.encrypted_content"], store=False)
        body["input"] += [item.model_dump(exclude_none=True, exclude={"status"}) for item in first.output]
        for item in first.output:
            if item.type == "function_call":
                body["input"].append({"type": "function_call_output", "call_id": item.call_id, "output": "rain"})
        equal(client.responses.create(**body, store=False).output_text, "Rain.", provider)


sys.exit(check.run())
