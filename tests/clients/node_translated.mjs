// The official TypeScript SDK at providers that speak another protocol: what its users do, and what they see when something
// goes wrong.
//
// The project of a request chooses its provider; all of them are the simulator, which is asked in the protocol of each.

import { args, check, equal, installed, raises, run, truth } from "./support.mjs";

const Anthropic = installed("@anthropic-ai/sdk");

const MODEL = "claude-sonnet-5-5";
const PROVIDERS = ["openai", "openai-chat", "azure", "deepseek", "ollama", "vllm"];
const SCHEMA = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const TEXT = "Let me see: Grüße 🚀";
const SAYS = `thinking="I look it up." text="${TEXT}" tool=weather input={"city":"Tokyo"} tool=weather input={"city":"Oslo"}`;
const SCRIPT = `[[sim ${SAYS} input_tokens=77 output_tokens=33 then text="Rain."]]`;
const FAILING = '[[sim text="one two three four five six" fault=error-mid=6]]';

// No retries, so that one call is one request.
const at = (provider) =>
  new Anthropic({
    baseURL: args["base-url"],
    apiKey: args["gateway-token"],
    maxRetries: 0,
    timeout: 60_000,
    defaultHeaders: { "x-cco-project": provider },
  });

const asked = (script = SCRIPT) => ({
  model: MODEL,
  max_tokens: 1000,
  tools: [{ name: "weather", description: "of a city", input_schema: SCHEMA }],
  messages: [{ role: "user", content: script }],
});

function isGood(message, where) {
  const of = (type) => message.content.filter((block) => block.type === type);
  equal(of("text").map((block) => block.text), [TEXT], `${where}: text`);
  equal(of("tool_use").map((block) => block.input.city), ["Tokyo", "Oslo"], `${where}: calls`);
  equal(new Set(of("tool_use").map((block) => block.id)).size, 2, `${where}: ids of calls`);
  equal([message.stop_reason, message.model], ["tool_use", MODEL], `${where}: end`);
  equal([message.usage.input_tokens, message.usage.output_tokens], [77, 33], `${where}: usage`);
}

for (const provider of PROVIDERS) {
  check(`${provider} gives text, calls and usage, whole`, async () => {
    isGood(await at(provider).messages.create(asked()), provider);
  });

  check(`${provider} gives the same as a stream, in a legal order`, async () => {
    const stream = at(provider).messages.stream(asked());
    let open = null;
    let blocks = 0;
    let text = "";
    let first = null;
    for await (const event of stream) {
      first ??= event;
      if (event.type === "content_block_start") {
        truth(open === null && event.index === blocks, `block ${event.index} begins within ${open}, after ${blocks}`);
        open = event.index;
      } else if (event.type === "content_block_delta") {
        equal(event.index, open, "block of a delta");
        if (event.delta.type === "text_delta") text += event.delta.text;
      } else if (event.type === "content_block_stop") {
        equal(event.index, open, "block that ends");
        open = null;
        blocks += 1;
      }
    }
    equal(text, TEXT, "text of the deltas");
    truth(first.type === "message_start", `the first event is ${first.type}`);
    const final = await stream.finalMessage();
    isGood(final, provider);
    equal(blocks, final.content.length, "blocks");
  });

  check(`${provider} goes on with the results of tools`, async () => {
    const body = asked();
    const { content } = await at(provider).messages.stream(body).finalMessage();
    const results = content
      .filter((block) => block.type === "tool_use")
      .map(({ id }) => ({ type: "tool_result", tool_use_id: id, content: "rain" }));
    body.messages.push({ role: "assistant", content }, { role: "user", content: results });
    equal(await at(provider).messages.stream(body).finalText(), "Rain.", "answer");
  });

  check(`errors of ${provider} have the SDK's classes`, async () => {
    for (const [fault, kind] of [
      ["400", Anthropic.BadRequestError],
      ["404", Anthropic.NotFoundError],
      ["429", Anthropic.RateLimitError],
      ["500", Anthropic.InternalServerError],
      // Our key was refused, not the client's.
      ["401", Anthropic.InternalServerError],
    ]) {
      const error = await raises(kind, () => at(provider).messages.create(asked(`[[sim text=x fault=${fault}]]`)));
      truth(error.error?.error?.message, `${fault}: no message`);
    }
    try {
      await at(provider).messages.stream(asked(FAILING)).finalMessage();
    } catch (error) {
      truth(error instanceof Anthropic.APIError, `${error.constructor.name}: ${error.message}`);
      return;
    }
    throw new Error("a stream that failed ended as if it had not");
  });
}

await run();
