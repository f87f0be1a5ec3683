// OpenAI's TypeScript SDK at providers of every protocol: what its users do, and what they see when something goes wrong.
//
// The project of a request chooses its provider; all of them are the simulator, which is asked in the protocol of each.

import { args, check, equal, installed, raises, run, truth } from "./support.mjs";

const OpenAI = installed("openai");

const MODEL = "claude-sonnet-5-5";
// The first is asked in the client's own protocol, and the bytes pass as they are.
const FOR_CHAT = ["openai-chat", "claude", "openai-responses", "ollama"];
const FOR_RESPONSES = ["openai", "claude", "openai-chat", "deepseek", "ollama"];
const SCHEMA = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const TEXT = "Let me see: Grüße 🚀";
const SAYS = `thinking="I look it up." text="${TEXT}" tool=weather input={"city":"Tokyo"} tool=weather input={"city":"Oslo"}`;
const SCRIPT = `[[sim ${SAYS} input_tokens=77 output_tokens=33 cache_read=5 then text="Rain."]]`;
const FAILING = '[[sim text="one two three four five six" fault=error-mid=6]]';

// No retries, so that one call is one request.
const at = (provider) =>
  new OpenAI({
    baseURL: `${args["base-url"]}/v1`,
    apiKey: args["gateway-token"],
    maxRetries: 0,
    timeout: 60_000,
    defaultHeaders: { "x-cco-project": provider },
  });

const chat = (script = SCRIPT) => ({
  model: MODEL,
  tools: [{ type: "function", function: { name: "weather", parameters: SCHEMA } }],
  messages: [{ role: "user", content: script }],
});

const responses = (script = SCRIPT) => ({
  model: MODEL,
  tools: [{ type: "function", name: "weather", parameters: SCHEMA, strict: false }],
  input: [{ role: "user", content: script }],
});

function isGoodChat(whole, where) {
  const [{ message, finish_reason }] = whole.choices;
  equal(message.content, TEXT, `${where}: text`);
  equal(message.tool_calls.map((call) => JSON.parse(call.function.arguments).city), ["Tokyo", "Oslo"], `${where}: calls`);
  equal(new Set(message.tool_calls.map((call) => call.id)).size, 2, `${where}: ids of calls`);
  equal(finish_reason, "tool_calls", `${where}: end`);
  const { prompt_tokens, completion_tokens, total_tokens, prompt_tokens_details } = whole.usage;
  equal([completion_tokens, total_tokens], [33, prompt_tokens + 33], `${where}: usage`);
  // Ollama has no prompt cache, and tells one count.
  equal(prompt_tokens, 82, `${where}: input`);
  if (!where.startsWith("ollama")) equal(prompt_tokens_details.cached_tokens, 5, `${where}: cached`);
}

for (const provider of FOR_CHAT) {
  check(`chat: ${provider} gives text, calls and usage, whole`, async () => {
    isGoodChat(await at(provider).chat.completions.create(chat()), provider);
  });

  check(`chat: ${provider} gives the same as a stream`, async () => {
    const stream = at(provider).chat.completions.stream({ ...chat(), stream_options: { include_usage: true } });
    const whole = await stream.finalChatCompletion();
    isGoodChat(whole, provider);
  });

  check(`chat: ${provider} gives no usage in a stream that was not asked for it`, async () => {
    let chunks = 0;
    for await (const chunk of await at(provider).chat.completions.create({ ...chat(), stream: true })) {
      chunks += 1;
      truth(!chunk.usage && chunk.choices.length > 0, `a chunk of its own: ${JSON.stringify(chunk)}`);
    }
    truth(chunks > 3, `${chunks} chunks`);
  });

  check(`chat: ${provider} goes on with the results of tools`, async () => {
    const body = chat();
    const { message } = (await at(provider).chat.completions.create(body)).choices[0];
    const results = message.tool_calls.map((call) => ({ role: "tool", tool_call_id: call.id, content: "rain" }));
    body.messages.push(message, ...results);
    const last = await at(provider).chat.completions.stream(body).finalContent();
    equal(last, "Rain.", "answer");
  });

  check(`chat: errors of ${provider} have the SDK's classes`, async () => {
    const ask = (script) => at(provider).chat.completions.create(chat(script));
    await classes(provider, ask);
    const streamed = async () => {
      for await (const _ of await at(provider).chat.completions.create({ ...chat(FAILING), stream: true })) continue;
    };
    await fails(streamed);
  });
}

function isGoodResponse(response, where) {
  equal(response.output_text, TEXT, `${where}: text`);
  const calls = response.output.filter((item) => item.type === "function_call");
  equal(calls.map((call) => JSON.parse(call.arguments).city), ["Tokyo", "Oslo"], `${where}: calls`);
  equal(new Set(calls.map((call) => call.call_id)).size, 2, `${where}: ids of calls`);
  equal(response.status, "completed", `${where}: end`);
  const { input_tokens, output_tokens, total_tokens, input_tokens_details } = response.usage;
  equal([input_tokens, output_tokens, total_tokens], [82, 33, 115], `${where}: usage`);
  if (!where.startsWith("ollama")) equal(input_tokens_details.cached_tokens, 5, `${where}: cached`);
}

for (const provider of FOR_RESPONSES) {
  check(`responses: ${provider} gives text, calls and usage, whole`, async () => {
    isGoodResponse(await at(provider).responses.create(responses()), provider);
  });

  check(`responses: ${provider} gives the same as a stream`, async () => {
    const stream = at(provider).responses.stream(responses());
    const numbers = [];
    let text = "";
    for await (const event of stream) {
      numbers.push(event.sequence_number);
      if (event.type === "response.output_text.delta") text += event.delta;
    }
    equal(numbers, [...numbers.keys()], "numbers of the events");
    equal(text, TEXT, "text of the deltas");
    isGoodResponse(await stream.finalResponse(), provider);
  });

  check(`responses: ${provider} goes on with the results of tools`, async () => {
    const body = { ...responses(), include: ["reasoning.encrypted_content"], store: false };
    const first = await at(provider).responses.create(body);
    body.input.push(...first.output);
    for (const { type, call_id } of first.output) {
      if (type === "function_call") body.input.push({ type: "function_call_output", call_id, output: "rain" });
    }
    equal((await at(provider).responses.create(body)).output_text, "Rain.", "answer");
  });

  check(`responses: errors of ${provider} have the SDK's classes`, async () => {
    await classes(provider, (script) => at(provider).responses.create(responses(script)));
    await fails(async () => {
      const stream = await at(provider).responses.create({ ...responses(FAILING), stream: true });
      for await (const event of stream) {
        if (event.type === "response.completed") return;
        if (event.type === "response.failed") throw new OpenAI.APIError(undefined, event.response.error, undefined, undefined);
      }
    });
  });
}

async function classes(provider, ask) {
  for (const [fault, kind] of [
    ["400", OpenAI.BadRequestError],
    ["404", OpenAI.NotFoundError],
    ["429", OpenAI.RateLimitError],
    ["500", OpenAI.InternalServerError],
    ["529", OpenAI.InternalServerError],
    // Our key was refused, not the client's.
    ["401", OpenAI.InternalServerError],
  ]) {
    const error = await raises(kind, () => ask(`[[sim text=x fault=${fault}]]`));
    truth(error.message.length > 5 && error.error?.message, `${provider} ${fault}: no message`);
  }
}

// Fails unless a stream that broke is an error of the SDK's.
async function fails(act) {
  try {
    await act();
  } catch (error) {
    truth(error instanceof OpenAI.APIError, `${error.constructor.name}: ${error.message}`);
    return;
  }
  throw new Error("a stream that failed ended as if it had not");
}

await run();
