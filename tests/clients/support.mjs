// What the TypeScript client tests share: the command line, named checks, and the waiting for conditions.

import { deepStrictEqual } from "node:assert";
import { createRequire } from "node:module";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { parseArgs } from "node:util";

const option = { type: "string" };
export const { values: args } = parseArgs({
  options: {
    "base-url": option, // the gateway
    upstream: option, // the simulated provider behind it
    journal: option, // what the simulator received, a JSON line each
    "stored-key": option, // the key that the gateway holds for the provider
    "gateway-token": option, // the token that lets a caller spend the stored key
    work: option, // a folder for whatever the client writes
    modules: option, // where npm installed the SDK
    only: { ...option, default: "" }, // run only the checks whose name holds this
  },
});

// A package where npm installed it.
export const installed = (name) => createRequire(join(args.modules, "from-here.js"))(name);

const PATIENCE = 20_000;

const known = [];
export const check = (name, run) => known.push({ name, run });

export function equal(got, want, what) {
  try {
    deepStrictEqual(got, want);
  } catch {
    const short = (value) => JSON.stringify(value)?.slice(0, 300);
    throw new Error(`${what}: ${short(got)} instead of ${short(want)}`);
  }
}

export function truth(holds, what) {
  if (!holds) throw new Error(what);
}

// The error of exactly this class that `act` ends with.
export async function raises(kind, act) {
  let result;
  try {
    result = await act();
  } catch (error) {
    if (error.constructor === kind) return error;
    throw new Error(`${error.constructor.name} instead of ${kind.name}: ${error.message}`, { cause: error });
  }
  throw new Error(`no ${kind.name}, but a result: ${JSON.stringify(result)?.slice(0, 300)}`);
}

// Waits for a condition and returns what made it true.
export async function until(holds, what) {
  const end = performance.now() + PATIENCE;
  for (;;) {
    const found = await holds();
    if (found) return found;
    if (performance.now() > end) throw new Error(`not within ${PATIENCE / 1000} s: ${what}`);
    await new Promise((done) => setTimeout(done, 5));
  }
}

// Runs all checks in the order in which they were written down, and prints the result as the last line.
export async function run() {
  const results = [];
  for (const [at, { name, run }] of known.entries()) {
    if (!name.includes(args.only)) continue;
    const started = performance.now();
    let ok = true;
    let detail;
    try {
      detail = (await run()) ?? "";
    } catch (error) {
      ok = false;
      detail = `${error.constructor.name}: ${error.message}`;
      if (error.constructor !== Error) console.log(error.stack);
    }
    const took = ((performance.now() - started) / 1000).toFixed(2);
    console.log(`${ok ? "ok    " : "FAILED"} ${String(at + 1).padStart(2)} ${name} (${took} s)${detail ? ": " : ""}${detail}`);
    results.push({ name, ok, detail });
  }
  console.log(JSON.stringify({ checks: results }));
  process.exitCode = results.length > 0 && results.every(({ ok }) => ok) ? 0 : 1;
}
