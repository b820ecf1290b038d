// examples/browser/keyrelay.js in a real Chromium: whatever happens to the stream, its Maps come to hold what the server holds.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

import { SECRET, token } from "./credentials.mjs";
import { ARGUMENTS, chromiumFile, eventually, startPages, startRelay, startServer } from "./harness.mjs";

const EXAMPLE = fileURLToPath(new URL("../../examples/browser/", import.meta.url));
const MAPPINGS = `
[defaults]
linger = "1s"
[[access.jwt]]
algorithm = "HS256"
secret = "${SECRET}"
[[mapping]]
key = "message:{room}:{id}"
channel = "room:{room}"
access = "public"
[[mapping]]
key = "cart:{user}"
access = { sub = "{user}" }
[[mapping]]
key = "note:{id}"
format = "raw"
access = "public"
[[mapping]]
key = "job:{id}"
channel = "jobs"
mode = "events"
access = "public"
`;

let server;
let pages;
let relay;
let browser;
let page;

before(async () => {
  server = await startServer();
  pages = await startPages(EXAMPLE);
  relay = await startRelay(server, { mappings: MAPPINGS, origins: [pages.origin] });
  browser = await chromium.launch({ executablePath: chromiumFile(), args: ARGUMENTS });
});
after(async () => {
  await browser?.close();
  await relay?.stop();
  await pages?.stop();
  await server?.stop();
});
beforeEach(async () => {
  await server.run("FLUSHALL");
  page = await browser.newPage();
  page.errors = [];
  page.on("pageerror", (error) => page.errors.push(error));
  // A page of the origin that opens no stream by itself.
  await page.goto(`${pages.origin}/keyrelay.js`);
});
afterEach(async () => {
  const { errors } = page;
  await page.close();
  assert.deepEqual(errors, []);
});

/** Makes a KeyRelay in the page, as `window.relay`, which notes what it fires. */
const follow = (options = {}) =>
  page.evaluate(
    async ([url, options]) => {
      const { KeyRelay } = await import("./keyrelay.js");
      if (options.tokens) {
        window.tokens = options.tokens;
        // The last one for ever.
        options.token = async () => (window.tokens.length > 1 ? window.tokens.shift() : window.tokens[0]);
      }
      window.relay = new KeyRelay(url, options);
      window.maps = {};
      window.fired = [];
      for (const type of ["change", "gap", "text"]) {
        window.relay.addEventListener(type, ({ detail }) => window.fired.push([type, detail]));
      }
      window.relay.addEventListener("status", () => {
        const last = window.fired.findLast(([type]) => type === "status");
        if (last?.[1] !== window.relay.status) window.fired.push(["status", window.relay.status]);
      });
    },
    [`${relay.origin}/events`, options],
  );
const subscribe = (...names) =>
  page.evaluate((names) => names.forEach((name) => (maps[name] = window.relay.subscribe(name))), names);
const unsubscribe = (...names) => page.evaluate((names) => names.forEach((name) => window.relay.unsubscribe(name)), names);
const fired = (type) =>
  page.evaluate((type) => window.fired.filter(([of]) => of === type).map(([, detail]) => detail), type);
const is = (status) =>
  eventually(`the relay is ${status}`, async () => (await page.evaluate(() => window.relay.status)) === status);
const holds = (name, expected) =>
  eventually(`${name} holds ${JSON.stringify(expected)}`, async () => {
    const found = await page.evaluate((name) => [...maps[name]].sort(), name);
    return JSON.stringify(found) === JSON.stringify(Object.entries(expected).sort());
  });
/** The Maps had these keys at all times: nothing was taken out and put in again. */
const neverLost = async (...keys) => {
  const lost = (await fired("change")).filter(({ key, value }) => keys.includes(key) && value === null);
  assert.deepEqual(lost, []);
};
const streams = async () =>
  Number(/^keyrelay_connections\{transport="sse"\} (\d+)/m.exec(await (await fetch(`${relay.admin}/metrics`)).text())[1]);

test("it is as short as it says", () => {
  const lines = readFileSync(`${EXAMPLE}/keyrelay.js`, "utf8").trimEnd().split("\n");
  assert.ok(lines.length <= 80, `${lines.length} lines`);
  for (const line of lines) assert.ok(line.length <= 120, line);
});

test("the page of the example shows the room", async () => {
  await server.run("SET", "message:lobby:1", "hello");
  await page.goto(`${pages.origin}/index.html?relay=${relay.origin}`);
  const shown = (text) => eventually(text, async () => (await page.textContent("#messages")) === text);
  await shown("hello");
  await server.run("SET", "message:lobby:2", "<i>there");
  await shown("hello<i>there");
  await server.run("DEL", "message:lobby:1");
  await shown("<i>there");
});

test("many channels share one stream, and each has its Map", async () => {
  await server.run("MSET", "message:a:1", "one", "message:b:1", "two");
  await eventually("no stream is left of other pages", async () => (await streams()) === 0);
  await follow();
  await subscribe("room:a", "room:b", "room:c");
  await is("ready");
  await holds("room:a", { "message:a:1": "one" });
  await holds("room:b", { "message:b:1": "two" });
  assert.equal(await streams(), 1);
  await server.run("SET", "message:c:1", "three");
  await server.run("SET", "message:a:1", "changed");
  await server.run("DEL", "message:b:1");
  await server.run("SET", Buffer.from("message:c:\xff", "latin1"), "no text");
  await holds("room:a", { "message:a:1": "changed" });
  await holds("room:b", {});
  await holds("room:c", { "message:c:1": "three", [JSON.stringify({ base64: "bWVzc2FnZTpjOv8=" })]: "no text" });
  await page.evaluate(() => window.relay.close());
  await eventually("the stream is closed", async () => (await streams()) === 0);
});

test("the list changes: what stays does not flicker, what went is gone", async () => {
  await server.run("MSET", "message:a:1", "one", "message:a:2", "two", "message:b:1", "three");
  await follow();
  await subscribe("room:a");
  await is("ready");
  await subscribe("room:b");
  await server.run("DEL", "message:a:2");
  await holds("room:b", { "message:b:1": "three" });
  await holds("room:a", { "message:a:1": "one" });
  await unsubscribe("room:b");
  await server.run("SET", "message:a:3", "four");
  await holds("room:a", { "message:a:1": "one", "message:a:3": "four" });
  await neverLost("message:a:1", "message:b:1");
  await unsubscribe("room:a");
  await is("idle");
});

test("a channel that is left and joined again is whole, though its stream is as before", async () => {
  await server.run("MSET", "message:a:1", "one", "message:b:1", "two");
  await follow();
  await subscribe("room:a", "room:b");
  await is("ready");
  // Before the stream without it has begun, and after.
  for (const between of [() => {}, () => is("ready")]) {
    await unsubscribe("room:b");
    await between();
    await subscribe("room:b");
    await holds("room:b", { "message:b:1": "two" });
    await is("ready");
  }
  await holds("room:a", { "message:a:1": "one" });
  await neverLost("message:a:1");
});

for (const how of ["drain", "kill"]) {
  test(`the relay is gone (${how}) and comes back: what differs is changed, and nothing else`, async () => {
    await server.run("MSET", "message:a:1", "one", "message:a:2", "two", "message:a:3", "three");
    await follow();
    await subscribe("room:a");
    await is("ready");
    await relay[how]();
    await is("connecting");
    await server.run("DEL", "message:a:1");
    await server.run("SET", "message:a:2", "meanwhile");
    await relay.start();
    await holds("room:a", { "message:a:2": "meanwhile", "message:a:3": "three" });
    await is("ready");
    await neverLost("message:a:2", "message:a:3");
    await server.run("SET", "message:a:3", "live");
    await holds("room:a", { "message:a:2": "meanwhile", "message:a:3": "live" });
  });
}

test("a proxy answers 502 for a while, which ends an EventSource for good: it asks again", async () => {
  await server.run("SET", "message:a:1", "one");
  await follow();
  await subscribe("room:a");
  await is("ready");
  await relay.kill();
  let asked = 0;
  const proxy = createServer((_, response) => {
    asked++;
    response.writeHead(502, { "Content-Type": "text/html", "Access-Control-Allow-Origin": "*" }).end("<h1>Bad Gateway");
  });
  await new Promise((done) => proxy.listen(relay.port, "127.0.0.1", done));
  await eventually("it asks again", () => asked > 2);
  proxy.closeAllConnections();
  await new Promise((done) => proxy.close(done));
  await server.run("SET", "message:a:1", "meanwhile");
  await relay.start();
  await holds("room:a", { "message:a:1": "meanwhile" });
  await is("ready");
});

for (const [what, status, type, reason] of [
  ["a 404 of whatever else is there", 404, "text/html", "status 404"],
  ["a page of the app at any URL, as dev servers have it", 200, "text/html", "no stream is at this URL"],
]) {
  test(`${what} is told apart, and asked again`, async () => {
    await relay.kill();
    const other = createServer((_, response) => {
      response.writeHead(status, { "Content-Type": type, "Access-Control-Allow-Origin": "*" }).end("<!doctype html>");
    });
    await new Promise((done) => other.listen(relay.port, "127.0.0.1", done));
    await follow();
    await subscribe("room:a");
    await eventually(`the reason is: ${reason}`, async () => (await page.evaluate(() => window.relay.reason)) === reason);
    other.closeAllConnections();
    await new Promise((done) => other.close(done));
    await relay.start();
    await is("ready");
  });
}

test("a URL that is none is told, and nothing is thrown where nobody catches it", async () => {
  await page.evaluate(async () => {
    const { KeyRelay } = await import("./keyrelay.js");
    window.relay = new KeyRelay("http://:7400/events");
    window.relay.subscribe("room:a");
  });
  await eventually("the reason is told", () => page.evaluate(() => window.relay.reason.includes("Invalid URL")));
  await page.evaluate(() => window.relay.close());
});

test("the server does not answer: it says stale, and then that all is well", async () => {
  await server.run("SET", "message:a:1", "one");
  await follow();
  await subscribe("room:a");
  await is("ready");
  server.pause();
  try {
    await is("stale");
    assert.equal(await page.evaluate(() => window.relay.stale.get("room:a")), "upstream-late");
  } finally {
    server.resume();
  }
  await is("ready");
  assert.equal(await page.evaluate(() => window.relay.stale.size), 0);
  await neverLost("message:a:1");
});

test("a stream that is lost before its state was whole leaves nothing behind", async () => {
  await server.run("MSET", "message:a:1", "one", "message:a:2", "two");
  await follow();
  await subscribe("room:a");
  await is("ready");
  server.pause();
  try {
    await is("stale");
    // Of a stale channel one gets what was last known, and no `ready`, before which there is no cursor.
    await follow();
    await subscribe("room:a");
    await holds("room:a", { "message:a:1": "one", "message:a:2": "two" });
    await relay.kill();
  } finally {
    server.resume();
  }
  await server.run("DEL", "message:a:1");
  await relay.start();
  await holds("room:a", { "message:a:2": "two" });
  await neverLost("message:a:2");
});

test("a new token goes on where the old one ended", async () => {
  await server.run("SET", "cart:42", "one");
  // It is said half a minute before the end that a token will be needed; of this one at once.
  await follow({ tokens: [token({ sub: "42" }, 20), token({ sub: "42" })] });
  await subscribe("cart:42");
  await is("ready");
  await holds("cart:42", { "cart:42": "one" });
  await eventually("the other token is asked for", () => page.evaluate(() => window.tokens.length === 1));
  await eventually("it is ready anew", async () => {
    const statuses = await fired("status");
    return statuses.filter((status) => status === "ready").length >= 2;
  });
  await server.run("SET", "cart:42", "two");
  await holds("cart:42", { "cart:42": "two" });
  // Nothing was sent again: the cursor was known.
  assert.deepEqual((await fired("change")).map(({ value }) => value), ["one", "two"]);
  assert.ok(!(await fired("status")).includes("refused"));
});

test("a token that is over is asked for anew, and one that does not count ends it with the reason", async () => {
  await server.run("SET", "cart:42", "one");
  await follow({ tokens: [token({ sub: "42" }, -60), token({ sub: "42" })] });
  await subscribe("cart:42");
  await holds("cart:42", { "cart:42": "one" });
  await page.evaluate(() => window.relay.close());

  await follow({ tokens: [token({ sub: "7" })] });
  await subscribe("cart:42");
  await is("refused");
  assert.match(await page.evaluate(() => window.relay.reason), /"channels":\{"cart:42":"/);
  // What is wrong is taken out of the list, and it goes on.
  await unsubscribe("cart:42");
  await subscribe("room:a");
  await is("ready");
});

test("a stream without a new token ends with the reason", async () => {
  await page.evaluate(async ([url, token]) => {
    const { KeyRelay } = await import("./keyrelay.js");
    window.relay = new KeyRelay(`${url}?token=${token}`);
    window.relay.subscribe("cart:42");
  }, [`${relay.origin}/events`, token({ sub: "42" }, 2)]);
  await is("ended");
  assert.equal(await page.evaluate(() => window.relay.reason), "expired");
});

test("text is handed over as it is", async () => {
  await server.run("SET", "note:1", '{"channel":"room:a"}');
  await follow({ text: true });
  await subscribe("note:1");
  await is("ready");
  assert.deepEqual(await fired("text"), ['{"channel":"room:a"}']);
});

test("of happenings nothing is missed in silence when the list changes", async () => {
  await follow();
  await subscribe("jobs");
  await is("ready");
  await server.run("SET", "job:1", "done");
  await holds("jobs", { "job:1": "done" });
  await subscribe("room:a");
  await eventually("a gap", async () => (await fired("gap")).length === 1);
  assert.deepEqual(await fired("gap"), [{ channels: { jobs: { missed: null } }, reason: "unknown-cursor" }]);
});

test("whatever comes together, the Maps hold what the server holds in the end", async () => {
  // The same at every run.
  let state = 42;
  const random = (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const rooms = ["a", "b", "c"];
  const truth = Object.fromEntries(rooms.map((room) => [room, {}]));
  const followed = new Set();
  await follow();
  for (let step = 0; step < 400; step++) {
    const room = rooms[random(rooms.length)];
    const key = `message:${room}:${random(5)}`;
    const choice = random(40);
    if (choice === 0) {
      await relay[random(2) ? "drain" : "kill"]();
      await relay.start();
    } else if (choice < 6) {
      if (followed.delete(room)) await unsubscribe(`room:${room}`);
      else await subscribe(...[room].filter((name) => followed.add(name)).map((name) => `room:${name}`));
    } else if (choice < 16) {
      await server.run("DEL", key);
      delete truth[room][key];
    } else {
      await server.run("SET", key, String(step));
      truth[room][key] = String(step);
    }
  }
  for (const room of rooms) if (!followed.has(room)) await subscribe(`room:${room}`);
  for (const room of rooms) await holds(`room:${room}`, truth[room]);
});
