"""The official Python SDK through the gateway: what its users do, and what they see when something goes wrong."""

import asyncio
import random
import sys
import threading
import time

import anthropic
from anthropic import Anthropic, AsyncAnthropic

from support import Checks, Journal, Recorder, all_arrived_unchanged, arguments, equal, raises, sha256, true, until

args = arguments(__doc__)
check = Checks(args.only)
journal = Journal(args.journal)
recorder = Recorder(args.base_url)

MODEL = "claude-sonnet-5-5"
OWN_KEY = "sk-ant-api03-the-own-key-of-the-client"
OAUTH = "sk-ant-oat01-a-token-of-the-client"
TOOLS = [
    {
        "name": name,
        "description": f"{name} of a city",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }
    for name in ("weather", "time")
]


def connect(kind=Anthropic, **more):
    # No retries unless a check wants them, so that one call is one request.
    given = {"base_url": recorder.url, "api_key": OWN_KEY, "max_retries": 0, "timeout": 60.0} | more
    return kind(**given)


client = connect()


def asking(script, **more):
    """The arguments of a call whose answer the simulator takes from `script`."""
    prompt = more.pop("prompt", "Please answer.")
    given = {"model": MODEL, "max_tokens": 1024}
    return given | {"messages": [{"role": "user", "content": f"{prompt} [[sim {script}]]"}]} | more


def ask(script, by=client, **more):
    return by.messages.create(**asking(script, **more))


def stream(script, by=client, **more):
    """The whole message, collected from a stream."""
    with by.messages.stream(**asking(script, **more)) as events:
        return events.get_final_message()


def text_of(message):
    return "".join(block.text for block in message.content if block.type == "text")


def refused(script, kind, status, error_type):
    """A call that ends with this error: one request upstream, whose id the user can see."""
    before = journal.mark()
    error = raises(kind, lambda: ask(script))
    entry = journal.one(before)
    equal(error.status_code, status, "status")
    equal(error.type, error_type, "error type")
    equal(error.request_id, f"req_sim_{entry.seq:08}", "the upstream's request id")
    return error


@check
def a_whole_message_arrives_with_its_request_id():
    before = journal.mark()
    message = ask('text="Grüße, 世界 🙂" input_tokens=11 output_tokens=7 cache_read=5')
    equal(text_of(message), "Grüße, 世界 🙂", "text")
    equal((message.stop_reason, message.model), ("end_turn", MODEL), "stop reason and model")
    usage = message.usage
    equal((usage.input_tokens, usage.output_tokens, usage.cache_read_input_tokens), (11, 7, 5), "usage")
    equal(message._request_id, f"req_sim_{journal.one(before).seq:08}", "request id")


@check
def a_stream_gives_the_same_message():
    message = stream('text="Grüße, 世界 🙂" size=2 input_tokens=11 output_tokens=7 cache_read=5')
    equal(text_of(message), "Grüße, 世界 🙂", "text")
    usage = message.usage
    equal((usage.input_tokens, usage.output_tokens, usage.cache_read_input_tokens), (11, 7, 5), "usage")
    equal(message.stop_reason, "end_turn", "stop reason")


@check
def a_stream_in_pieces_of_three_bytes_gives_the_same_text():
    equal(text_of(stream('text="äöü 🙂🙂 世界" size=3 chunk=3')), "äöü 🙂🙂 世界", "text")


@check
def tokens_are_seen_while_the_upstream_is_still_speaking():
    before = journal.mark()
    texts = []
    with client.messages.stream(**asking("events=20 every=50 fill=word")) as events:
        for text in events.text_stream:
            if not texts:
                equal(journal.one(before).end, None, "the upstream's answer at the first token")
            texts.append(text)
    equal(len(texts), 20, "deltas")


@check
def two_tools_are_called_in_parallel_and_their_results_go_back():
    script = (
        'text="Looking." tool=weather input={"city":"Köln"} tool=time input={"city":"Oslo","deep":[1,{"a":null}]}'
        ' then text="Both are fine."'
    )
    given = asking(script, tools=TOOLS)
    for turn in (lambda **more: client.messages.create(**more), lambda **more: collected(**more)):
        first = turn(**given)
        calls = [block for block in first.content if block.type == "tool_use"]
        equal(first.stop_reason, "tool_use", "stop reason")
        inputs = [(call.name, call.input) for call in calls]
        equal(inputs, [("weather", {"city": "Köln"}), ("time", {"city": "Oslo", "deep": [1, {"a": None}]})], "calls")
        results = [{"type": "tool_result", "tool_use_id": call.id, "content": "fine"} for call in calls]
        said = {"role": "assistant", "content": [block.to_dict() for block in first.content]}
        history = [*given["messages"], said, {"role": "user", "content": results}]
        equal(text_of(turn(**{**given, "messages": history})), "Both are fine.", "second answer")


def collected(**given):
    with client.messages.stream(**given) as events:
        return events.get_final_message()


@check
def thinking_comes_with_its_signature_and_is_accepted_when_it_comes_back():
    given = asking('thinking="First this, then that." text=Done then text="And on."')
    for first in (client.messages.create(**given), collected(**given)):
        thought = first.content[0]
        equal((thought.type, thought.thinking), ("thinking", "First this, then that."), "first block")
        true(thought.signature, "the signature is empty")
        # The simulator refuses thinking whose signature does not fit.
        said = {"role": "assistant", "content": [block.to_dict() for block in first.content]}
        history = [*given["messages"], said, {"role": "user", "content": "go on"}]
        equal(text_of(client.messages.create(**{**given, "messages": history})), "And on.", "second answer")


@check
def a_rate_limit_is_waited_for_and_retried_by_the_sdk():
    # A shorter wait than this the gateway takes upon itself.
    before = journal.mark()
    message = ask("fault=429=3 times=1 text=later", connect(max_retries=2))
    equal(text_of(message), "later", "text")
    first, second = journal.entries(before)
    waited = second.time_ms - first.time_ms
    true(2900 < waited < 9000, f"the retry came after {waited} ms, and `retry-after` said 3 s")
    counts = [entry.header("x-stainless-retry-count") for entry in (first, second)]
    equal(counts, ["0", "1"], "`x-stainless-retry-count` upstream")
    return f"retried after {waited} ms"


@check
def a_streamed_request_is_retried_as_well():
    before = journal.mark()
    equal(text_of(stream("fault=529 times=1 text=later", connect(max_retries=2))), "later", "text")
    equal(len(journal.entries(before)), 2, "requests upstream")


@check
def retries_are_the_sdks_alone_and_end_as_often_as_it_says():
    before = journal.mark()
    error = raises(anthropic.OverloadedError, lambda: ask("fault=529", connect(max_retries=2)))
    entries = journal.entries(before)
    equal(len(entries), 3, "requests upstream for one call and two retries")
    equal(error.request_id, f"req_sim_{entries[-1].seq:08}", "request id of the last try")


@check
def a_rate_limit_that_stays_is_an_error_with_its_retry_after():
    error = refused("fault=429=7", anthropic.RateLimitError, 429, "rate_limit_error")
    equal(error.response.headers["retry-after"], "7", "`retry-after`")


@check
def every_refusal_is_the_exception_that_the_sdk_has_for_it():
    refused("fault=400", anthropic.BadRequestError, 400, "invalid_request_error")
    refused("fault=403", anthropic.PermissionDeniedError, 403, "permission_error")
    refused("fault=404", anthropic.NotFoundError, 404, "not_found_error")
    refused("fault=413", anthropic.RequestTooLargeError, 413, "request_too_large")
    refused("fault=500", anthropic.InternalServerError, 500, "api_error")
    refused("fault=529", anthropic.OverloadedError, 529, "overloaded_error")


@check
def a_wrong_key_is_refused_once():
    before = journal.mark()
    raises(anthropic.AuthenticationError, lambda: ask("fault=401", connect(max_retries=2)))
    journal.one(before)
    refused("fault=401", anthropic.AuthenticationError, 401, "authentication_error")


@check
def a_page_of_a_proxy_is_passed_on_as_it_is():
    error = raises(anthropic.InternalServerError, lambda: ask("fault=502-html"))
    equal(error.status_code, 502, "status")
    true("<" in error.response.text, f"the page is not there: {error.response.text!r}")


@check
def an_error_inside_of_a_stream_reaches_the_program():
    for fault in ("error-first", "error-mid=4"):
        before = journal.mark()
        error = streams_into_error(f"fault={fault} text=hello")
        equal(error.type, "overloaded_error", f"error type of `{fault}`")
        journal.one(before)


def streams_into_error(script):
    try:
        message = stream(script)
    except anthropic.APIStatusError as error:
        return error
    raise AssertionError(f"`{script}` looks like a good answer: {text_of(message)!r}")


@check
def a_truncated_stream_is_never_a_good_answer():
    # The SDK itself would take a clean end without `message_stop` for a complete answer.
    for fault in ("truncate=5", "cut=5ev", "cut=700", "reset=5ev"):
        before = journal.mark()
        streams_into_error(f'fault={fault} text="one two three four five" size=4')
        equal(ended(journal.one(before))["faults"], [fault], "what the upstream did")


def ended(entry):
    """How the answer to a request ended, which the upstream may note a moment after its client has seen it."""
    return until(lambda: next((known.end for known in journal.entries(entry.seq - 1) if known.end), None), "an end")


@check
def leaving_a_stream_ends_the_upstreams_work():
    before = journal.mark()
    with client.messages.stream(**asking("events=100000 every=20 fill=word")) as events:
        for _, _ in zip(range(3), events.text_stream):
            pass
        left = time.time()
    return aborted(before, left)


@check
def a_time_out_before_the_first_byte_ends_the_upstreams_work():
    before = journal.mark()
    hasty = connect(timeout=1.0)
    raises(anthropic.APITimeoutError, lambda: stream("fault=no-bytes", hasty))
    return aborted(before, time.time())


def aborted(before, left):
    """The upstream saw its client go soon after `left`."""
    entry = journal.gone(before)
    late = entry.time_ms + entry.end["aborted_after_ms"] - left * 1000
    # The promise is 100 ms; a busy machine gets more, but not a promise's worth of forgetting.
    true(late < 1000, f"the upstream saw it only {late:.0f} ms later")
    return f"seen upstream after {max(late, 0):.0f} ms"


@check
def many_streams_at_once_are_not_mixed_up():
    found = {}

    def one(number):
        script = f'text="number {number} of many" size=1 every=2'
        found[number] = text_of(stream(script, prompt=f"This is number {number}."))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    equal(found, {number: f"number {number} of many" for number in range(24)}, "texts")


@check
def the_asynchronous_client_streams_and_cancels():
    async def go():
        async with connect(AsyncAnthropic) as other:
            async with other.messages.stream(**asking('text="hello there" size=3')) as events:
                equal(text_of(await events.get_final_message()), "hello there", "text")
            before = journal.mark()
            started = asyncio.Event()

            async def forever():
                async with other.messages.stream(**asking("events=100000 every=20")) as events:
                    async for _ in events.text_stream:
                        started.set()

            task = asyncio.create_task(forever())
            await asyncio.wait_for(started.wait(), 30)
            task.cancel()
            left = time.time()
            await asyncio.gather(task, return_exceptions=True)
            return before, left

    return aborted(*asyncio.run(go()))


@check
def tokens_are_counted():
    given = asking("text=x")
    del given["max_tokens"]
    short = client.messages.count_tokens(**given).input_tokens
    given["messages"][0]["content"] += " more" * 100
    true(0 < short < client.messages.count_tokens(**given).input_tokens, "a longer prompt has not more tokens")


@check
def models_are_listed_page_by_page_and_found_by_name():
    before = journal.mark()
    models = list(client.models.list(limit=2))
    true(len(models) > 2, f"only {len(models)} models")
    pages = journal.entries(before)
    true(len(pages) >= 2, f"{len(pages)} pages")
    true(all("limit=2" in page.target for page in pages), "the query is not there")
    equal(client.models.retrieve(models[0].id).id, models[0].id, "model")
    raises(anthropic.NotFoundError, lambda: client.models.retrieve("no-such-model"))


@check
def a_prompt_of_five_megabytes_arrives_as_it_was_sent():
    before, sent_before = journal.mark(), recorder.mark()
    letters = random.Random(5).choices("abcdefg hijk lmno \n\"\\äß世🙂", k=4_000_000)
    message = ask("text=read", prompt="".join(letters))
    equal(text_of(message), "read", "text")
    entry, sent = journal.one(before), recorder.since(sent_before)[0]
    true(entry.body_len > 5_000_000, f"only {entry.body_len} bytes")
    equal((entry.body_len, entry.body_sha256), (sent.body_len, sent.body.hexdigest()), "length and digest")
    return f"{entry.body_len} bytes"


@check
def a_long_answer_arrives_whole():
    equal(len(text_of(stream("events=2000 size=1000"))), 2_000_000, "characters of a stream")
    equal(len(text_of(ask("events=2000 size=1000"))), 2_000_000, "characters of a whole message")


@check
def a_batch_is_made_read_and_removed():
    batches = client.messages.batches
    params = asking("text=batched")
    batch = batches.create(requests=[{"custom_id": f"r{n}", "params": params} for n in range(3)])
    until(lambda: batches.retrieve(batch.id).processing_status == "ended", "the batch ends")
    equal([known.id for known in batches.list(limit=5) if known.id == batch.id], [batch.id], "the batch in the list")
    # The SDK calls this address as it is: it has to lead through the gateway.
    url = batches.retrieve(batch.id).results_url
    ours = (args.base_url.rstrip("/"), recorder.url)
    true(url.startswith(ours), f"`results_url` leads past the gateway: {url}")
    results = {result.custom_id: text_of(result.result.message) for result in batches.results(batch.id)}
    equal(results, {f"r{n}": "batched" for n in range(3)}, "results")
    equal(batches.delete(batch.id).id, batch.id, "what was removed")
    raises(anthropic.NotFoundError, lambda: batches.retrieve(batch.id))


@check
def a_batch_can_be_cancelled():
    batches = client.messages.batches
    batch = batches.create(requests=[{"custom_id": "only", "params": asking("text=x")}])
    equal(batches.cancel(batch.id).id, batch.id, "what was cancelled")


@check
def a_file_is_uploaded_downloaded_and_removed():
    data = random.Random(7).randbytes(3_000_000)
    files = client.beta.files
    before, sent_before = journal.mark(), recorder.mark()
    stored = files.upload(file=("some data.bin", data, "application/octet-stream"))
    entry, sent = journal.one(before, "/v1/files"), recorder.since(sent_before)[0]
    equal((entry.body_len, entry.body_sha256), (sent.body_len, sent.body.hexdigest()), "length and digest of the upload")
    found = files.retrieve_metadata(stored.id)
    equal((found.filename, found.size_bytes), ("some data.bin", len(data)), "name and size")
    equal([known.id for known in files.list() if known.id == stored.id], [stored.id], "the file in the list")
    equal(sha256(files.download(stored.id).read()), sha256(data), "digest of the download")
    files.delete(stored.id)
    raises(anthropic.NotFoundError, lambda: files.retrieve_metadata(stored.id))


@check
def beta_and_unknown_fields_and_headers_pass():
    before = journal.mark()
    client.beta.messages.create(
        **asking("text=x"),
        betas=["some-beta-2026-01-01", "other-beta-2026-02-02"],
        extra_headers={"x-of-mine": "a, b;c=\"d\""},
        extra_body={"not_yet_known": {"a": [1.0, 1e5, None]}},
        extra_query={"also": "new value"},
    )
    (entry,) = journal.entries(before)
    equal(entry.header("anthropic-beta"), "some-beta-2026-01-01,other-beta-2026-02-02", "`anthropic-beta`")
    equal(entry.header("x-of-mine"), "a, b;c=\"d\"", "a header of the user's")
    true(entry.target.endswith("also=new+value") or entry.target.endswith("also=new%20value"), entry.target)
    # That the unknown field arrived is part of the last check, which compares every body.


@check
def the_clients_own_key_is_the_one_that_arrives():
    before = journal.mark()
    ask("text=x")
    entry = journal.one(before)
    true(entry.has_credential("authorization", f"Bearer {OWN_KEY}"), f"credentials: {entry.credentials()}")


@check
def a_key_in_the_older_header_arrives_in_it():
    before = journal.mark()
    older = connect(default_headers={"X-Api-Key": OWN_KEY, "Authorization": anthropic.Omit()})
    ask("text=x", older)
    entry = journal.one(before)
    true(entry.has_credential("x-api-key", OWN_KEY), f"credentials: {entry.credentials()}")


@check
def an_oauth_token_arrives_as_bearer_with_its_beta_untouched():
    before = journal.mark()
    by_token = connect(api_key=None, auth_token=OAUTH)
    ask("text=x", by_token, extra_headers={"anthropic-beta": "oauth-2025-04-20,some-beta-2026-01-01"})
    entry = journal.one(before)
    true(entry.has_credential("authorization", f"Bearer {OAUTH}"), f"credentials: {entry.credentials()}")
    equal(entry.header("anthropic-beta"), "oauth-2025-04-20,some-beta-2026-01-01", "`anthropic-beta`")


@check
def the_gateways_token_spends_the_stored_key():
    for given in ({"api_key": args.gateway_token}, {"api_key": None, "auth_token": args.gateway_token}):
        before = journal.mark()
        ask("text=x", connect(**given))
        stored_key_arrived(journal.one(before))


def stored_key_arrived(entry):
    forms = (("x-api-key", args.stored_key), ("authorization", f"Bearer {args.stored_key}"))
    true(any(entry.has_credential(*form) for form in forms), f"not the stored key: {entry.credentials()}")


@check
def credentials_and_cookies_of_the_upstream_stay_there():
    answer = client.messages.with_raw_response.create(**asking("fault=set-cookie text=x"))
    equal(answer.status_code, 200, "status")
    equal([name for name in answer.headers if "cookie" in name.lower()], [], "cookies")
    equal([name for name in answer.headers if name.lower().startswith("access-control-")], [], "CORS headers")
    true(answer.headers.get("x-cco-request-id"), "no `x-cco-request-id`")
    true(answer.headers.get("request-id", "").startswith("req_sim_"), "the upstream's `request-id` is gone")


@check
def every_request_arrived_once_and_unchanged():
    count = all_arrived_unchanged(recorder.since(0), [entry for entry in journal.entries() if not past_recorder(entry)])
    return f"{count} requests compared"


def past_recorder(entry):
    """The results of a batch are fetched from the address that the gateway wrote, which the recorder does not see."""
    return entry.path.endswith("/results")


sys.exit(check.run())
