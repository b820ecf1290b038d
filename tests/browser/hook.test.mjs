// examples/browser/use-keyrelay.js: React in a real Chromium, in strict mode, built by Vite, which also leads to the relay.

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";

import { chromium } from "playwright-core";

import { startVite } from "./beside.mjs";
import { ARGUMENTS, chromiumFile, eventually, startRelay, startServer } from "./harness.mjs";

const MAPPINGS = `
[[mapping]]
key = "room:{room}:{id}"
channel = "room:{room}"
access = "public"
`;

let server;
let relay;
let vite;
let browser;
let page;
let errors;

before(async () => {
  server = await startServer();
  relay = await startRelay(server, { mappings: MAPPINGS, serving: 'path = "/keyrelay"' });
  vite = await startVite({ relay, root: "hook" });
  browser = await chromium.launch({ executablePath: chromiumFile(), args: ARGUMENTS });
});
after(async () => {
  await browser?.close();
  await vite?.stop();
  await relay?.stop();
  await server?.stop();
});
beforeEach(async () => {
  await server.run("FLUSHALL");
  await server.run("MSET", "room:a:1", "one", "room:a:2", "two", "room:b:1", "other");
  page = await browser.newPage();
  errors = [];
  page.on("pageerror", (error) => errors.push(error));
  // React says there what components do wrong; the browser, what it could not load.
  page.on("console", (message) => {
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) errors.push(message.text());
  });
  await page.goto(`${vite.origin}/?url=/keyrelay/events`);
});
afterEach(async () => {
  await page.close();
  assert.deepEqual(errors, []);
});

const shows = (id, expected) =>
  eventually(`${id} shows ${expected}`, async () => {
    const texts = await page.$$eval(`#${id} li`, (list) => list.map((item) => item.textContent));
    return JSON.stringify(texts) === JSON.stringify(expected);
  });
const is = (id, status) =>
  eventually(`${id} is ${status}`, async () => (await page.getAttribute(`#${id}`, "data-status")) === status);
const counted = async (pattern) => Number(pattern.exec(await (await fetch(`${relay.admin}/metrics`)).text())[1]);
const streams = () => counted(/^keyrelay_connections\{transport="sse"\} (\d+)/m);

test("all components share one stream, and show what is", async () => {
  await is("first", "ready");
  await shows("first", ["one", "two"]);
  await shows("second", ["one", "two"]);
  await shows("other", ["other"]);
  assert.equal(await streams(), 1);
  const before = await page.evaluate(() => ({ ...window.rendered }));
  await server.run("SET", "room:a:1", "changed");
  await server.run("DEL", "room:a:2");
  await shows("first", ["changed"]);
  await shows("second", ["changed"]);
  const after = await page.evaluate(() => ({ ...window.rendered }));
  assert.equal(after.b, before.b, "what did not change is not drawn anew");
});

test("components come and go: a channel is followed while one shows it", async () => {
  await is("other", "ready");
  await page.evaluate(() => window.show(["first", "other"]));
  await server.run("SET", "room:a:1", "changed");
  await shows("first", ["changed", "two"]);
  await page.evaluate(() => window.show(["other"]));
  await server.run("SET", "room:a:1", "unseen");
  await is("other", "ready");
  await shows("other", ["other"]);
  await page.evaluate(() => window.show(["second", "other"]));
  await shows("second", ["unseen", "two"]);
  await page.evaluate(() => window.show([]));
  await eventually("no stream is left", async () => (await streams()) === 0);
});

test("components show how the stream stands", async () => {
  await is("first", "ready");
  server.pause();
  try {
    await is("first", "stale");
    assert.equal(await page.getAttribute("#first", "data-reason"), "upstream-late");
    await shows("first", ["one", "two"]);
  } finally {
    server.resume();
  }
  await is("first", "ready");
  await relay.kill();
  await is("first", "connecting");
  await shows("first", ["one", "two"]);
  await server.run("DEL", "room:a:1");
  await relay.start();
  await shows("first", ["two"]);
  await is("first", "ready");
});
