// docs/protocol.d.ts: everything that a relay sends, and all that it is sent, fits the types, and nothing in them is never sent.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { get } from "node:http";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { createParser } from "eventsource-parser";
import { chromium } from "playwright-core";

import { SECRET, SIGNER, signed, token } from "./credentials.mjs";
import { ARGUMENTS, chromiumFile, eventually, startPages, startRelay, startServer } from "./harness.mjs";
import { readTypes } from "./types.mjs";

const MAPPINGS = `
[defaults]
linger = "1s"
[[access.jwt]]
algorithm = "HS256"
secret = "${SECRET}"
[[access.signed]]
key = "${SIGNER}"
[[mapping]]
key = "value:{name}"
channel = "values"
expires = true
heard = true
max_value = "1KiB"
access = "public"
[[mapping]]
key = "decoded:{name}"
channel = "decoded"
decode = "json"
expires = true
heard = true
access = "public"
[[mapping]]
key = "text:{name}"
format = "raw"
event_name = "text"
access = "public"
[[mapping]]
key = "job:{name}"
channel = "jobs"
mode = "events"
access = "public"
[[mapping]]
subscribe = "news"
access = "public"
[[mapping]]
key = "cart:{user}"
access = { sub = "{user}" }
[[mapping]]
key = "listed:{name}"
access = "listed"
`;

const types = readTypes();
const BINARY = Buffer.from([0xff, 0xfe]);

let server;
let pages;
let relay;
let browser;
let page;

before(async () => {
  server = await startServer();
  pages = await startPages();
  relay = await startRelay(server, { mappings: MAPPINGS, origins: [pages.origin] });
  browser = await chromium.launch({ executablePath: chromiumFile(), args: ARGUMENTS });
  page = await browser.newPage();
  await page.goto(`${pages.origin}/blank.html`);
});
after(async () => {
  await browser?.close();
  await relay?.stop();
  await pages?.stop();
  await server?.stop();
});

function check(name, value) {
  const wrong = types.wrong(name, value);
  assert.equal(wrong, undefined, `${name}: ${wrong}`);
  return value;
}

/** The URL's query of an object that fits a type. */
function query(type, parameters) {
  check(type, parameters);
  const pairs = Object.entries(parameters).flatMap(([name, values]) => [values].flat().map((value) => [name, value]));
  return new URLSearchParams(pairs);
}

/** Opens a stream; all that comes is checked. `payloads` is the type of its messages, nothing where they are text. */
async function stream(parameters, { payloads = "payload", at = relay } = {}) {
  const heard = { messages: [], controls: [], wrong: [] };
  const parser = createParser({
    onEvent({ event, data }) {
      let wrong;
      if (event?.startsWith("keyrelay.")) {
        const control = JSON.parse(data);
        heard.controls.push([event.slice("keyrelay.".length), control]);
        wrong = types.wrong("control", { [event]: control });
      } else {
        heard.messages.push(payloads ? JSON.parse(data) : data);
        wrong = payloads && types.wrong(payloads, JSON.parse(data));
      }
      if (wrong) heard.wrong.push(wrong);
    },
  });
  heard.request = get(`${at.origin}/events?${query("events", parameters)}`);
  const response = await new Promise((done, failed) => heard.request.on("response", done).on("error", failed));
  assert.equal(response.statusCode, 200);
  const decoder = new TextDecoder();
  response.on("error", () => {});
  response.on("data", (piece) => parser.feed(decoder.decode(piece, { stream: true })));
  heard.until = (word, fits = () => true) =>
    eventually(word, () => {
      assert.deepEqual(heard.wrong, []);
      return heard.controls.some(([of, control]) => of === word && fits(control));
    });
  heard.untilMessages = (count) => eventually(`${count} messages`, () => heard.messages.length >= count);
  heard.close = () => {
    heard.request.destroy();
    assert.deepEqual(heard.wrong, []);
  };
  return heard;
}

/** Opens a WebSocket in the page; all that goes over it is checked. */
async function socket(parameters) {
  const url = `${relay.origin.replace("http", "ws")}/ws?${query("socket", parameters)}`;
  const handle = await page.evaluateHandle(async (url) => {
    const socket = new WebSocket(url, "keyrelay.v1.json");
    const heard = { socket, messages: [], closed: undefined };
    socket.onmessage = ({ data }) => heard.messages.push(data);
    socket.onclose = ({ code }) => (heard.closed = code);
    await new Promise((done) => (socket.onopen = done));
    return heard;
  }, url);
  const messages = async () => {
    const texts = await handle.evaluate(({ messages }) => messages);
    return texts.map((text) => check("server", JSON.parse(text)));
  };
  return {
    messages,
    send: (message) =>
      handle.evaluate(({ socket }, text) => socket.send(text), JSON.stringify(check("client", message))),
    sendAnything: (text) => handle.evaluate(({ socket }, text) => socket.send(text), text),
    texts: () => handle.evaluate(({ messages }) => messages),
    until: (what, fits) => eventually(what, async () => (await messages()).some(fits)),
    closed: () => eventually("the end", () => handle.evaluate(({ closed }) => closed)),
    close: () => handle.evaluate(({ socket }) => socket.close()),
  };
}

const isOf = (type, fits = () => true) => (message) => message.type === type && fits(message);

/** Asks for a URL, and checks the body. */
async function ask(target, options, type) {
  const answer = await fetch(relay.origin + target, options);
  return check(type, await answer.json());
}

async function writeValues(prefix) {
  await server.run("SET", `${prefix}:string`, "text");
  await server.run("SET", `${prefix}:binary`, BINARY);
  await server.run("SET", Buffer.concat([Buffer.from(`${prefix}:`), BINARY]), "its key is no text");
  await server.run("HSET", `${prefix}:hash`, "field", "text", "binary", BINARY, BINARY, "its name is no text");
  await server.run("RPUSH", `${prefix}:list`, "a", BINARY);
  await server.run("SADD", `${prefix}:set`, "a", BINARY);
  await server.run("ZADD", `${prefix}:sorted`, "1.5", "a", "-inf", "b", "inf", BINARY);
  await server.run("XADD", `${prefix}:stream`, "1-0", "field", "text", "binary", BINARY);
  return 8;
}

test("the types are right in themselves", () => {
  const at = (path) => fileURLToPath(new URL(path, import.meta.url));
  const parameters = ["--noEmit", "--strict", "--skipLibCheck", "false"];
  execFileSync(at("node_modules/.bin/tsc"), [...parameters, at("../../docs/protocol.d.ts"), at("recorded.ts")]);
});

test("a message that has more than the types say, or less, does not fit them", () => {
  const message = { channel: "a", key: "a", value: "text" };
  assert.equal(types.wrong("payload", message), undefined);
  for (const bad of [{ ...message, more: 1 }, { channel: "a", key: "a" }, { ...message, value: 1 }, { ...message, key: null }]) {
    assert.notEqual(types.wrong("payload", bad), undefined, JSON.stringify(bad));
  }
  assert.notEqual(types.wrong("server", { type: "pong", reff: 1 }), undefined);
  assert.notEqual(types.wrong("control", { "keyrelay.ready": { channels: {}, cursor: "a" } }), undefined);
});

test("values, as a state and as changes", async () => {
  const values = await writeValues("value");
  await server.run("PEXPIREAT", "value:string", String(Date.now() + 600_000));
  await server.run("SET", "value:large", "x".repeat(2000), "EX", "600");
  const heard = await stream({ channel: "values", cursor: "" });
  await heard.until("ready", ({ channels }) => channels.values === values + 1);
  await server.run("FLUSHALL");
  await eventually("all are gone", () => heard.messages.filter(({ value }) => value === null).length > values);
  const before = heard.messages.length;
  await writeValues("value");
  await server.run("SET", "value:large", "x".repeat(2000));
  await heard.untilMessages(before + values + 1);
  assert.ok(heard.messages.some(({ event }) => event === "hset"));
  heard.close();
});

test("decoded values", async () => {
  await server.run("SET", "decoded:1", '{"a":[1,true,null,{"b":"text"}],"c":"d"}');
  await server.run("SET", "decoded:2", "[1]");
  await server.run("SET", "decoded:3", "17");
  await server.run("SET", "decoded:4", "true");
  await server.run("SET", "decoded:5", "no JSON");
  await server.run("SET", "decoded:6", "x".repeat(2 << 20));
  const heard = await stream({ channel: ["decoded"] }, { payloads: "decoded" });
  await heard.until("ready", ({ channels }) => channels.decoded === 6);
  await server.run("SET", "decoded:1", "[]", "EX", "600");
  await heard.untilMessages(7);
  heard.close();
});

test("text, happenings and published messages", async () => {
  await server.run("SET", "text:1", "as it is");
  const text = await stream({ "channel[]": "text:1" }, { payloads: null });
  await text.until("ready");
  assert.deepEqual(text.messages, ["as it is"]);
  text.close();
  const heard = await stream({ "channel[]": ["jobs", "news"] });
  await heard.until("ready");
  await server.run("SET", "job:1", "one");
  await server.run("PUBLISH", "news", "it rains");
  await heard.untilMessages(2);
  await server.run("CLIENT", "KILL", "TYPE", "pubsub");
  await heard.until("gap", ({ channels }) => channels.jobs?.missed === null);
  heard.close();
});

test("happenings that are too many are counted", async () => {
  const small = await startRelay(server, { mappings: `${MAPPINGS}[limits]\nkeys = 100\n` });
  await server.run("FLUSHALL");
  const heard = await stream({ channel: ["values", "jobs"] }, { at: small });
  await heard.until("ready");
  // No more than seven eighths are for what is new.
  for (let i = 0; i < 90; i++) await server.run("SET", `value:${i}`, "one");
  await heard.untilMessages(90);
  await server.run("SET", "job:1", "one");
  await heard.until("gap", ({ channels }) => channels.jobs.missed === 1);
  heard.close();
  await small.stop();
});

test("a cursor that is not known, and one that is", async () => {
  const heard = await stream({ channel: "values", cursor: "0123456789abcdef-1-0123456789abcdef" });
  await heard.until("reset");
  await heard.until("ready");
  const { cursor } = heard.controls.find(([word]) => word === "ready")[1];
  heard.close();
  const again = await stream({ channel: "values", cursor });
  await again.until("ready");
  assert.deepEqual(again.messages, []);
  again.close();
});

test("credentials", async () => {
  const short = await stream({ channel: "cart:42", token: token({ sub: "42" }, 3), expiring: "1" });
  await short.until("expiring");
  await short.until("end", ({ reconnect, message }) => !reconnect && message !== undefined);
  short.close();
  const list = token({ channels: ["listed:1"] });
  for (const parameters of [
    { signed: signed("listed:1") },
    { signed: [signed("listed:1"), signed("listed:2")] },
    { turbo_signed_stream_name: signed("listed:1") },
    { token: list },
  ]) {
    const heard = await stream(parameters);
    await heard.until("ready", ({ channels }) => "listed:1" in channels);
    heard.close();
    await ask(`/channels?${query("state", parameters)}`, {}, "channels");
    const open = await socket(parameters);
    // A list of the token is for `/events` alone.
    if (!parameters.token) await open.until("ready", isOf("ready", ({ channels }) => "listed:1" in channels));
    await open.close();
  }
});

test("a WebSocket, both ways", async () => {
  await server.run("MSET", "text:1", "as it is", "value:string", "one");
  const open = await socket({ token: token({ sub: "42" }, 20), expiring: "1" });
  await open.send({ type: "ping" });
  await open.send({ type: "ping", ref: "there?" });
  await open.send({ type: "ping", ref: 7 });
  await open.until("pong", isOf("pong", ({ ref }) => ref === 7));
  await open.send({ type: "subscribe", channels: ["values", "text:1"], ref: 1 });
  await open.until("ready", isOf("ready", ({ ref }) => ref === 1));
  await open.send({ type: "subscribe", channels: ["jobs", "news"] });
  await open.send({ type: "unsubscribe", channels: ["news"], ref: 2 });
  await open.until("ready", isOf("ready", ({ ref }) => ref === 2));
  await open.send({ type: "unsubscribe", channels: ["news"] });
  await server.run("SET", "text:1", "live");
  await open.until("text", isOf("message", ({ name, id, data }) => name === "text" && id !== undefined && data === "live"));
  await server.run("SET", "value:string", "two");
  await open.until("a change", isOf("message", ({ data }) => data.value === "two"));
  await open.send({ type: "subscribe", channels: ["unheard-of"], ref: 3 });
  await open.until("a refusal", isOf("error", ({ channel, ref }) => channel === "unheard-of" && ref === 3));
  await open.sendAnything('{"type":"shout","ref":"loud"}');
  await open.until("an error", isOf("error", ({ channel, ref }) => channel === undefined && ref === "loud"));
  await open.sendAnything("no JSON");
  await open.until("an error", isOf("error", ({ ref }) => ref === undefined));
  await server.run("CLIENT", "KILL", "TYPE", "pubsub");
  await open.until("a gap in its place", isOf("gap", ({ id }) => id !== undefined));
  await open.send({ type: "renew", token: token({ sub: "42" }) });
  await open.until("no end", isOf("renewed", ({ expires_at }) => expires_at === null));
  await open.send({ type: "subscribe", channels: ["cart:42"], ref: 4 });
  await open.until("ready", isOf("ready", ({ ref }) => ref === 4));
  await open.send({ type: "renew", token: token({ sub: "42" }, 20), ref: "again" });
  await open.until("an end", isOf("renewed", ({ expires_at, ref }) => expires_at !== null && ref === "again"));
  await open.until("a word of it", isOf("expiring"));
  await open.send({ type: "renew", token: token({ sub: "42" }), ref: 5 });
  await open.until("an end", isOf("renewed", ({ ref }) => ref === 5));
  await open.close();

  const unknown = "0123456789abcdef-1-0123456789abcdef";
  const resumed = await socket({ channel: ["jobs"], "channel[]": ["values", "news"] });
  await resumed.send({ type: "subscribe", channels: ["text:1"], cursor: unknown });
  await resumed.until("reset", isOf("reset"));
  await resumed.send({ type: "subscribe", channels: ["decoded"] });
  await resumed.close();
  const behind = await socket({ channel: "jobs", "channel[]": "news", cursor: unknown });
  await behind.until("a gap before all", isOf("gap", ({ id }) => id === undefined));
  await behind.close();

  const raw = await socket({ channel: "text:1", raw: "1" });
  await eventually("the text alone", async () => (await raw.texts())[0] === "live");
  await raw.close();

  const short = await socket({ channel: "cart:42", token: token({ sub: "42" }, 2) });
  await short.until("the end", isOf("end", ({ reconnect, message }) => !reconnect && message !== undefined));
  assert.equal(await short.closed(), 4401);
});

test("the server does not answer, and does again", async () => {
  const heard = await stream({ channel: ["values", "jobs"] });
  const open = await socket({ channel: "values" });
  await heard.until("ready");
  await open.until("ready", isOf("ready"));
  server.pause();
  try {
    await heard.until("stale");
    await open.until("stale in its place", isOf("stale", ({ id }) => id !== undefined));
    const late = await socket({ channel: "values" });
    await late.until("stale before all", isOf("stale", ({ id }) => id === undefined));
    const state = await ask(`/channels?${query("state", { channel: ["values"] })}`, {}, "channels");
    assert.equal(state.stale.values.reason, "upstream-late");
    server.resume();
    await late.until("fresh", isOf("fresh"));
    await late.close();
  } finally {
    server.resume();
  }
  await heard.until("fresh");
  await open.until("fresh in its place", isOf("fresh", ({ id }) => id !== undefined));
  await open.close();
  heard.close();
});

test("state over plain HTTP", async () => {
  await server.run("MSET", "text:1", "as it is", "value:string", "one");
  for (const parameters of [{ channel: "text:1" }, { "channel[]": ["text:1", "values"] }, { "channel[]": "values" }]) {
    const state = await ask(`/channels?${query("state", parameters)}`, {}, "channels");
    assert.match(state.cursor, /^[0-9a-f]{16}-\d+-[0-9a-f]{16}$/);
  }
  await ask("/channels/values", {}, "channels");
});

test("refusals", async () => {
  const refused = await ask("/events?channel=unheard-of&channel=cart:42", {}, "refusal");
  assert.deepEqual(Object.keys(refused.channels), ["cart:42", "unheard-of"]);
  for (const target of ["/events?channel=", "/nowhere", "/ws", "/channels?channel=%zz"]) await ask(target, {}, "refusal");
  await ask("/events", { method: "POST" }, "refusal");
  await ask("/events?channel=cart:42", { headers: { Authorization: "Bearer nonsense" } }, "refusal");
});

test("the relay goes down in order", async () => {
  const heard = await stream({ channel: "values" });
  const open = await socket({ channel: "values" });
  await heard.until("ready");
  await open.until("ready", isOf("ready"));
  await relay.drain();
  await heard.until("end", ({ reconnect, retry }) => reconnect && retry > 0);
  await open.until("the end", isOf("end", ({ reconnect }) => reconnect));
  assert.equal(await open.closed(), 1012);
});

test("no type is made up: all of it was seen", () => assert.deepEqual(types.unseen(), []));
