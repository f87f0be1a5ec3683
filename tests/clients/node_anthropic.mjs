// The official TypeScript SDK through the gateway: what its users do, and what they see when something goes wrong.

import { createHash, randomBytes } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";

import { args, check, equal, installed, raises, run, truth, until } from "./support.mjs";

const Anthropic = installed("@anthropic-ai/sdk");

const MODEL = "claude-sonnet-5-5";
const OWN_KEY = "sk-ant-api03-the-own-key-of-the-client";
const OAUTH = "sk-ant-oat01-a-token-of-the-client";

const sha256 = (data) => createHash("sha256").update(data).digest("hex");

// ---- the simulator's own record of what reached it

function entries(since = 0) {
  const found = new Map();
  const text = existsSync(args.journal) ? readFileSync(args.journal, "utf8") : "";
  // A last line without its end is still being written.
  for (const raw of text.split("\n").slice(0, -1)) {
    const line = JSON.parse(raw);
    if ("end" in line) {
      const entry = found.get(line.seq);
      if (entry) entry.end = line;
    } else {
      const headers = line.headers.map(([name, value]) => [name.toLowerCase(), value]);
      found.set(line.seq, { ...line, path: line.target.split("?")[0], headers, end: null });
    }
  }
  return [...found.values()].filter((entry) => entry.seq > since).sort((a, b) => a.seq - b.seq);
}

const mark = () => entries().at(-1)?.seq ?? 0;

function one(since, path = "/v1/messages") {
  const found = entries(since).filter((entry) => entry.path === path);
  equal(found.length, 1, `requests to \`${path}\` that reached the upstream`);
  return found[0];
}

function header(entry, name) {
  const values = entry.headers.filter(([given]) => given === name).map(([, value]) => value);
  truth(values.length < 2, `\`${name}\` arrived ${values.length} times`);
  return values[0] ?? null;
}

const credentials = (entry) =>
  entry.headers.map(([name]) => name).filter((name) => name === "authorization" || name === "x-api-key");

// Whether this credential, and no other, arrived; the journal holds only digests of credentials.
function hasCredential(entry, name, value) {
  const only = credentials(entry).every((given) => given === name);
  return only && [value, `sha256:${sha256(value)}`].includes(header(entry, name));
}

// ---- clients

const sent = [];

// Notes what the SDK hands to the platform, to be compared with what reached the upstream.
async function noting(url, init) {
  const { method, headers, body } = init;
  const { pathname, search } = new URL(url);
  sent.push({ method: method.toUpperCase(), target: pathname + search, headers: new Headers(headers), body });
  return fetch(url, init);
}

// No retries unless a check wants them, so that one call is one request.
const connect = (more = {}) =>
  new Anthropic({
    baseURL: args["base-url"],
    apiKey: OWN_KEY,
    maxRetries: 0,
    timeout: 60_000,
    fetch: noting,
    ...more,
  });
const client = connect();

// The arguments of a call whose answer the simulator takes from `script`.
const asking = (script, { prompt = "Please answer.", ...more } = {}) => ({
  model: MODEL,
  max_tokens: 1024,
  messages: [{ role: "user", content: `${prompt} [[sim ${script}]]` }],
  ...more,
});
const ask = (script, by = client, more) => by.messages.create(asking(script, more));
const stream = (script, by = client, more) => by.messages.stream(asking(script, more)).finalMessage();
const textOf = (message) =>
  message.content
    .filter((block) => block.type === "text")
    .map((block) => block.text)
    .join("");

// A call that ends with this error: one request upstream, whose id the user can see.
async function refused(script, kind, status, type) {
  const before = mark();
  const error = await raises(kind, () => ask(script));
  equal(error.status, status, "status");
  equal(error.type, type, "error type");
  equal(error.requestID, requestId(one(before)), "the upstream's request id");
  return error;
}

const requestId = (entry) => `req_sim_${String(entry.seq).padStart(8, "0")}`;

// The upstream saw its client go soon after `left`.
async function aborted(since, left) {
  const entry = await until(
    () => entries(since).find((entry) => entry.end?.end === "client_gone"),
    "the upstream sees that the client has gone",
  );
  const late = entry.time_ms + entry.end.aborted_after_ms - left;
  // The promise is 100 ms; a busy machine gets more, but not a promise's worth of forgetting.
  truth(late < 1000, `the upstream saw it only ${late} ms later`);
  return `seen upstream after ${Math.max(late, 0)} ms`;
}

async function streamsIntoError(script) {
  let message;
  try {
    message = await stream(script);
  } catch (error) {
    truth(error instanceof Anthropic.AnthropicError, `${error.constructor.name}: ${error.message}`);
    return error;
  }
  throw new Error(`\`${script}\` looks like a good answer: ${textOf(message)}`);
}

// ---- what is checked

check("a whole message arrives with its request id", async () => {
  const before = mark();
  const message = await ask('text="Grüße, 世界 🙂" input_tokens=11 output_tokens=7 cache_read=5');
  equal(textOf(message), "Grüße, 世界 🙂", "text");
  equal([message.stop_reason, message.model], ["end_turn", MODEL], "stop reason and model");
  const { input_tokens, output_tokens, cache_read_input_tokens } = message.usage;
  equal([input_tokens, output_tokens, cache_read_input_tokens], [11, 7, 5], "usage");
  equal(message._request_id, requestId(one(before)), "request id");
});

check("a stream gives the same message", async () => {
  const message = await stream('text="Grüße, 世界 🙂" size=2 input_tokens=11 output_tokens=7 cache_read=5');
  equal(textOf(message), "Grüße, 世界 🙂", "text");
  const { input_tokens, output_tokens, cache_read_input_tokens } = message.usage;
  equal([input_tokens, output_tokens, cache_read_input_tokens], [11, 7, 5], "usage");
  equal(message.stop_reason, "end_turn", "stop reason");
});

check("a stream in pieces of three bytes gives the same text", async () => {
  equal(textOf(await stream('text="äöü 🙂🙂 世界" size=3 chunk=3')), "äöü 🙂🙂 世界", "text");
});

check("tokens are seen while the upstream is still speaking", async () => {
  const before = mark();
  let texts = 0;
  for await (const event of client.messages.stream(asking("events=20 every=50 fill=word"))) {
    if (event.type !== "content_block_delta") continue;
    if (texts === 0) equal(one(before).end, null, "the upstream's answer at the first token");
    texts += 1;
  }
  equal(texts, 20, "deltas");
});

check("two tools are called in parallel and their results go back", async () => {
  const script =
    'text="Looking." tool=weather input={"city":"Köln"} tool=time input={"city":"Oslo","deep":[1,{"a":null}]}' +
    ' then text="Both are fine."';
  const tools = ["weather", "time"].map((name) => ({ name, input_schema: { type: "object" } }));
  const given = asking(script, { tools });
  for (const turn of [(g) => client.messages.create(g), (g) => client.messages.stream(g).finalMessage()]) {
    const first = await turn(given);
    const calls = first.content.filter((block) => block.type === "tool_use");
    equal(first.stop_reason, "tool_use", "stop reason");
    const inputs = calls.map(({ name, input }) => [name, input]);
    const want = [
      ["weather", { city: "Köln" }],
      ["time", { city: "Oslo", deep: [1, { a: null }] }],
    ];
    equal(inputs, want, "calls");
    const results = calls.map(({ id }) => ({ type: "tool_result", tool_use_id: id, content: "fine" }));
    const said = { role: "assistant", content: first.content };
    const messages = [...given.messages, said, { role: "user", content: results }];
    equal(textOf(await turn({ ...given, messages })), "Both are fine.", "second answer");
  }
});

check("thinking comes with its signature and is accepted when it comes back", async () => {
  const given = asking('thinking="First this, then that." text=Done then text="And on."');
  for (const first of [await client.messages.create(given), await client.messages.stream(given).finalMessage()]) {
    const [thought] = first.content;
    equal([thought.type, thought.thinking], ["thinking", "First this, then that."], "first block");
    truth(thought.signature, "the signature is empty");
    // The simulator refuses thinking whose signature does not fit.
    const said = { role: "assistant", content: first.content };
    const messages = [...given.messages, said, { role: "user", content: "go on" }];
    equal(textOf(await client.messages.create({ ...given, messages })), "And on.", "second answer");
  }
});

check("a rate limit is waited for and retried by the sdk", async () => {
  const before = mark();
  equal(textOf(await ask("fault=429=3 times=1 text=later", connect({ maxRetries: 2 }))), "later", "text");
  const [first, second, ...more] = entries(before);
  equal(more.length, 0, "further requests");
  const waited = second.time_ms - first.time_ms;
  truth(waited > 2900 && waited < 9000, `the retry came after ${waited} ms, and \`retry-after\` said 3 s`);
  const counts = [first, second].map((entry) => header(entry, "x-stainless-retry-count"));
  equal(counts, ["0", "1"], "`x-stainless-retry-count` upstream");
  return `retried after ${waited} ms`;
});

check("a streamed request is retried as well", async () => {
  const before = mark();
  equal(textOf(await stream("fault=529 times=1 text=later", connect({ maxRetries: 2 }))), "later", "text");
  equal(entries(before).length, 2, "requests upstream");
});

check("retries are the sdks alone and end as often as it says", async () => {
  const before = mark();
  const error = await raises(Anthropic.OverloadedError, () => ask("fault=529", connect({ maxRetries: 2 })));
  const found = entries(before);
  equal(found.length, 3, "requests upstream for one call and two retries");
  equal(error.requestID, requestId(found.at(-1)), "request id of the last try");
});

check("a rate limit that stays is an error with its retry after", async () => {
  const error = await refused("fault=429=7", Anthropic.RateLimitError, 429, "rate_limit_error");
  equal(error.headers.get("retry-after"), "7", "`retry-after`");
});

check("every refusal is the exception that the sdk has for it", async () => {
  await refused("fault=400", Anthropic.BadRequestError, 400, "invalid_request_error");
  await refused("fault=403", Anthropic.PermissionDeniedError, 403, "permission_error");
  await refused("fault=404", Anthropic.NotFoundError, 404, "not_found_error");
  await refused("fault=413", Anthropic.ContentTooLargeError, 413, "request_too_large");
  await refused("fault=500", Anthropic.InternalServerError, 500, "api_error");
  await refused("fault=529", Anthropic.OverloadedError, 529, "overloaded_error");
});

check("a wrong key is refused once", async () => {
  const before = mark();
  await raises(Anthropic.AuthenticationError, () => ask("fault=401", connect({ maxRetries: 2 })));
  one(before);
  await refused("fault=401", Anthropic.AuthenticationError, 401, "authentication_error");
});

check("an error inside of a stream reaches the program", async () => {
  for (const fault of ["error-first", "error-mid=4"]) {
    const before = mark();
    const error = await streamsIntoError(`fault=${fault} text=hello`);
    equal(error.type, "overloaded_error", `error type of \`${fault}\``);
    one(before);
  }
});

check("a truncated stream is never a good answer", async () => {
  for (const fault of ["truncate=5", "cut=5ev", "cut=700", "reset=5ev"]) {
    const before = mark();
    const error = await streamsIntoError(`fault=${fault} text="one two three four five" size=4`);
    truth(error.type, `\`${fault}\`: the program gets no \`error\` event, but \`${error.message}\``);
    const end = await until(() => one(before).end, "the upstream notes its end");
    equal(end.faults, [fault], "what the upstream did");
  }
});

check("leaving a stream ends the upstreams work", async () => {
  const before = mark();
  let texts = 0;
  for await (const event of client.messages.stream(asking("events=100000 every=20 fill=word"))) {
    if (event.type === "content_block_delta") texts += 1;
    if (texts === 3) break;
  }
  return aborted(before, Date.now());
});

check("an abort before the first byte ends the upstreams work", async () => {
  const before = mark();
  const stop = new AbortController();
  const call = client.messages.create(asking("fault=no-bytes"), { signal: stop.signal });
  const ended = raises(Anthropic.APIUserAbortError, () => call);
  await until(() => entries(before).length === 1, "the request reaches the upstream");
  stop.abort();
  const left = Date.now();
  await ended;
  return aborted(before, left);
});

check("a time out before the first byte ends the upstreams work", async () => {
  const before = mark();
  const hasty = connect({ timeout: 1000 });
  await raises(Anthropic.APIConnectionTimeoutError, () => ask("fault=no-bytes", hasty, { stream: true }));
  return aborted(before, Date.now());
});

check("many streams at once are not mixed up", async () => {
  const numbers = [...Array(24).keys()];
  const one = (n) => stream(`text="number ${n} of many" size=1 every=2`, client, { prompt: `This is number ${n}.` });
  const texts = (await Promise.all(numbers.map(one))).map(textOf);
  const want = numbers.map((n) => `number ${n} of many`);
  equal(texts, want, "texts");
});

check("tokens are counted", async () => {
  const { max_tokens, ...given } = asking("text=x");
  const short = (await client.messages.countTokens(given)).input_tokens;
  given.messages[0].content += " more".repeat(100);
  const long = (await client.messages.countTokens(given)).input_tokens;
  truth(0 < short && short < long, "a longer prompt has not more tokens");
});

check("models are listed page by page and found by name", async () => {
  const before = mark();
  const models = [];
  for await (const model of client.models.list({ limit: 2 })) models.push(model);
  truth(models.length > 2, `only ${models.length} models`);
  const pages = entries(before);
  truth(pages.length >= 2, `${pages.length} pages`);
  truth(pages.every(({ target }) => target.includes("limit=2")), "the query is not there");
  equal((await client.models.retrieve(models[0].id)).id, models[0].id, "model");
  await raises(Anthropic.NotFoundError, () => client.models.retrieve("no-such-model"));
});

check("a prompt of five megabytes arrives as it was sent", async () => {
  const before = mark();
  equal(textOf(await ask("text=read", client, { prompt: 'abcdefg\n"\\äß世🙂'.repeat(240_000) })), "read", "text");
  const entry = one(before);
  const { body } = sent.at(-1);
  truth(entry.body_len > 5_000_000, `only ${entry.body_len} bytes`);
  equal([entry.body_len, entry.body_sha256], [Buffer.byteLength(body), sha256(body)], "length and digest");
  return `${entry.body_len} bytes`;
});

check("a long answer arrives whole", async () => {
  equal(textOf(await stream("events=2000 size=1000")).length, 2_000_000, "characters of a stream");
  equal(textOf(await ask("events=2000 size=1000")).length, 2_000_000, "characters of a whole message");
});

check("a batch is made read and removed", async () => {
  const { batches } = client.messages;
  const ids = ["r0", "r1", "r2"];
  const requests = ids.map((custom_id) => ({ custom_id, params: asking("text=batched") }));
  const batch = await batches.create({ requests });
  await until(async () => (await batches.retrieve(batch.id)).processing_status === "ended", "the batch ends");
  // The SDK calls this address as it is: it has to lead through the gateway.
  const { results_url } = await batches.retrieve(batch.id);
  truth(results_url.startsWith(`${args["base-url"]}/`), `\`results_url\` leads past the gateway: ${results_url}`);
  const results = [];
  for await (const { custom_id, result } of await batches.results(batch.id)) {
    results.push([custom_id, textOf(result.message)]);
  }
  const want = ids.map((id) => [id, "batched"]);
  equal(results.sort(), want, "results");
  equal((await batches.delete(batch.id)).id, batch.id, "what was removed");
  await raises(Anthropic.NotFoundError, () => batches.retrieve(batch.id));
});

check("a batch can be cancelled", async () => {
  const { batches } = client.messages;
  const batch = await batches.create({ requests: [{ custom_id: "only", params: asking("text=x") }] });
  equal((await batches.cancel(batch.id)).id, batch.id, "what was cancelled");
});

check("a file is uploaded downloaded and removed", async () => {
  const { files } = client.beta;
  const data = randomBytes(3_000_000);
  const file = await Anthropic.toFile(data, "some data.bin", { type: "application/octet-stream" });
  const { id } = await files.upload({ file });
  const found = await files.retrieveMetadata(id);
  equal([found.filename, found.size_bytes], ["some data.bin", data.length], "name and size");
  const listed = [];
  for await (const known of files.list()) listed.push(known.id);
  truth(listed.includes(id), "the file is not in the list");
  const back = Buffer.from(await (await files.download(id)).arrayBuffer());
  equal(sha256(back), sha256(data), "digest of the download");
  await files.delete(id);
  await raises(Anthropic.NotFoundError, () => files.retrieveMetadata(id));
});

check("beta and unknown fields and headers pass", async () => {
  const before = mark();
  await client.beta.messages.create(
    { ...asking("text=x"), betas: ["some-beta-2026-01-01", "other-beta-2026-02-02"], not_yet_known: { a: [1, null] } },
    { headers: { "x-of-mine": 'a, b;c="d"' }, query: { also: "new" } },
  );
  const [entry] = entries(before);
  equal(header(entry, "anthropic-beta"), "some-beta-2026-01-01,other-beta-2026-02-02", "`anthropic-beta`");
  equal(header(entry, "x-of-mine"), 'a, b;c="d"', "a header of the user's");
  truth(entry.target.includes("also=new"), entry.target);
  // That the unknown field arrived is part of the last check, which compares every body.
});

check("the clients own key is the one that arrives", async () => {
  const before = mark();
  await ask("text=x");
  const entry = one(before);
  truth(hasCredential(entry, "authorization", `Bearer ${OWN_KEY}`), `credentials: ${credentials(entry)}`);
});

check("an oauth token arrives as bearer with its beta untouched", async () => {
  const before = mark();
  const byToken = connect({ apiKey: null, authToken: OAUTH });
  const headers = { "anthropic-beta": "oauth-2025-04-20,some-beta-2026-01-01" };
  await byToken.messages.create(asking("text=x"), { headers });
  const entry = one(before);
  truth(hasCredential(entry, "authorization", `Bearer ${OAUTH}`), `credentials: ${credentials(entry)}`);
  equal(header(entry, "anthropic-beta"), headers["anthropic-beta"], "`anthropic-beta`");
});

check("the gateways token spends the stored key", async () => {
  const token = args["gateway-token"];
  for (const given of [{ apiKey: token }, { apiKey: null, authToken: token }]) {
    const before = mark();
    await ask("text=x", connect(given));
    const entry = one(before);
    const key = args["stored-key"];
    const came = hasCredential(entry, "x-api-key", key) || hasCredential(entry, "authorization", `Bearer ${key}`);
    truth(came, `not the stored key: ${credentials(entry)}`);
  }
});

check("credentials and cookies of the upstream stay there", async () => {
  const { headers } = await client.messages.create(asking("fault=set-cookie text=x")).asResponse();
  const names = [...headers.keys()];
  equal(names.filter((name) => name.includes("cookie")), [], "cookies");
  equal(names.filter((name) => name.startsWith("access-control-")), [], "CORS headers");
  truth(headers.get("x-cco-request-id"), "no `x-cco-request-id`");
  truth(headers.get("request-id")?.startsWith("req_sim_"), "the upstream's `request-id` is gone");
});

// What the platform itself puts on or decides is not the SDK's, and credentials are checked above.
const NOT_COMPARED = ["host", "connection", "content-length", "accept-encoding", "authorization", "x-api-key"];

check("every request arrived once and unchanged", () => {
  const left = entries();
  for (const { method, target, headers, body } of sent) {
    // An upload's boundary is made by the platform, behind the SDK; the file itself was compared.
    const fixed = body === undefined || body === null || typeof body === "string";
    const digest = sha256(fixed ? (body ?? "") : "");
    const same = (entry) =>
      entry.method === method && entry.target === target && (!fixed || entry.body_sha256 === digest);
    const at = left.findIndex(same);
    truth(at >= 0, `\`${method} ${target}\` did not arrive as it was sent`);
    const [entry] = left.splice(at, 1);
    for (const [name, value] of headers) {
      if (NOT_COMPARED.includes(name) || (!fixed && name === "content-type")) continue;
      equal(header(entry, name), value, `\`${name}\` of \`${target}\``);
    }
    equal(entry.oddities, [], "what is odd about the request that arrived");
  }
  equal(
    left.map(({ method, target }) => `${method} ${target}`),
    [],
    "requests that the client never sent",
  );
  return `${sent.length} requests compared`;
});

await run();
