// Streams read by the npm package eventsource-parser: what was written comes out, and nothing else.

import assert from "node:assert/strict";
import { get } from "node:http";
import { after, before, test } from "node:test";

import { createParser } from "eventsource-parser";

import { eventually, startRelay, startServer } from "./harness.mjs";
import { asLines, MAPPINGS, VALUES, writeValues } from "./values.mjs";

let server;
let relay;

before(async () => {
  server = await startServer();
  relay = await startRelay(server, { mappings: MAPPINGS });
});
after(async () => {
  await relay?.stop();
  await server?.stop();
});

/** Opens a stream and collects what the parser makes of it. */
async function open(target) {
  const heard = { messages: [], controls: [], errors: [], retry: undefined };
  const parser = createParser({
    onEvent: (event) => (event.event?.startsWith("keyrelay.") ? heard.controls : heard.messages).push(event),
    onError: (error) => heard.errors.push(error),
    onRetry: (milliseconds) => (heard.retry = milliseconds),
  });
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  heard.request = get(relay.origin + target);
  const response = await new Promise((done, failed) => heard.request.on("response", done).on("error", failed));
  assert.equal(response.statusCode, 200);
  response.on("error", () => {});
  response.on("data", (piece) => parser.feed(decoder.decode(piece, { stream: true })));
  heard.close = () => heard.request.destroy();
  heard.ready = () => eventually("ready", () => heard.controls.some((event) => event.event === "keyrelay.ready"));
  return heard;
}

test("values come out of JSON as they were written", async () => {
  await writeValues(server);
  const heard = await open("/events?channel=json");
  await heard.ready();
  const state = Object.fromEntries(heard.messages.map((event) => JSON.parse(event.data)).map((p) => [p.key, p.value]));
  for (const [name, value] of Object.entries(VALUES)) assert.equal(state[`json:${name}`], value, name);
  assert.equal(heard.messages.length, Object.keys(VALUES).length);
  assert.deepEqual(heard.errors, []);
  assert.ok(heard.retry > 0);
  heard.close();
});

for (const [name, value] of Object.entries(VALUES)) {
  test(`a raw stream: ${name}`, async () => {
    await server.run("SET", `raw:${name}`, value);
    const heard = await open(`/events?channel=raw:${name}`);
    await heard.ready();
    assert.deepEqual(heard.messages.map((event) => event.data), [asLines(value)]);
    // Live, with an id, it is the same.
    await server.run("SET", `raw:${name}`, `${value}!`);
    await eventually("the change", () => heard.messages.length === 2);
    assert.equal(heard.messages[1].data, asLines(`${value}!`));
    assert.match(heard.messages[1].id, /^[A-Za-z0-9._~-]{1,128}$/);
    assert.equal(heard.messages[1].event, undefined);
    assert.deepEqual(heard.errors, []);
    heard.close();
  });
}
