// Plain pages in a real Chromium, on another origin than the relay.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";

import { chromium } from "playwright-core";

import { ARGUMENTS, chromiumFile, eventually, startPages, startRelay, startServer } from "./harness.mjs";
import { asLines, MAPPINGS, VALUES, writeValues } from "./values.mjs";

let server;
let pages;
let relay;
let browser;

before(async () => {
  server = await startServer();
  pages = await startPages();
  relay = await startRelay(server, { mappings: MAPPINGS, origins: [pages.origin] });
  browser = await chromium.launch({ executablePath: chromiumFile(), args: ARGUMENTS });
});
after(async () => {
  await browser?.close();
  await relay?.stop();
  await pages?.stop();
  await server?.stop();
});

/** Opens a page in a context of its own; what it throws fails the test. */
async function open(name, parameters) {
  const page = await browser.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(error));
  await page.goto(`${pages.origin}/${name}?${new URLSearchParams(parameters)}`);
  page.errors = errors;
  return page;
}

const shows = (page, what, expected) =>
  eventually(what, async () => {
    const items = await page.$$eval("#items li", (list) => list.map((item) => [item.id, item.textContent]));
    return JSON.stringify(items) === JSON.stringify(expected);
  });

const status = (page, expected) =>
  eventually(`the page says ${expected}`, async () => (await page.textContent("#status")) === expected);

const events = (channel) => [["url", `${relay.origin}/events?channel=${channel}`]];

test("values come out of an EventSource as they were written", async () => {
  await writeValues(server);
  const page = await open("eventsource.html", events("json"));
  await status(page, "ready");
  for (const [name, value] of Object.entries(VALUES)) {
    const seen = await page.evaluate((key) => items.get(key), `json:${name}`);
    assert.ok(seen === value, name);
  }
  assert.deepEqual(page.errors, []);
  await page.close();
});

test("raw values come out of an EventSource, line ends made one", async () => {
  for (const [name, value] of Object.entries(VALUES)) {
    await server.run("SET", `raw:${name}`, value);
    const page = await open("eventsource.html", [...events(`raw:${name}`), ["raw", "1"]]);
    await status(page, "ready");
    await server.run("SET", `raw:${name}`, `${value}!`);
    await eventually("the change", () => page.evaluate(() => raw.length === 2));
    const seen = await page.evaluate(() => raw);
    assert.ok(seen[0] === asLines(value) && seen[1] === asLines(`${value}!`), name);
    assert.deepEqual(page.errors, []);
    await page.close();
  }
});

const PAGES = {
  EventSource: () => open("eventsource.html", events("room:a")),
  WebSocket: () =>
    open("websocket.html", [
      ["url", `${relay.origin.replace("http", "ws")}/ws`],
      ["channel", "room:a"],
    ]),
};

for (const [name, openPage] of Object.entries(PAGES)) {
  test(`${name}: a key changes and the page shows it`, async () => {
    await server.run("FLUSHALL");
    await server.run("MSET", "room:a:1", "one", "room:a:2", "two", "room:b:1", "elsewhere");
    const page = await openPage();
    await shows(page, "the snapshot", [["room:a:1", "one"], ["room:a:2", "two"]]);
    await server.run("SET", "room:a:2", "changed");
    await server.run("SET", "room:a:3", "<b>new</b>");
    await shows(page, "the changes", [["room:a:1", "one"], ["room:a:2", "changed"], ["room:a:3", "<b>new</b>"]]);
    await server.run("DEL", "room:a:1");
    await shows(page, "the deletion", [["room:a:2", "changed"], ["room:a:3", "<b>new</b>"]]);
    assert.deepEqual(page.errors, []);
    await page.close();
  });

  test(`${name}: the relay is killed and started again, and the page is right without a reload`, async () => {
    await server.run("FLUSHALL");
    await server.run("MSET", "room:a:1", "one", "room:a:2", "two", "room:a:3", "three");
    const page = await openPage();
    await shows(page, "the snapshot", [["room:a:1", "one"], ["room:a:2", "two"], ["room:a:3", "three"]]);
    await page.evaluate(() => (window.loadedOnce = true));
    await relay.kill();
    await status(page, "away");
    await server.run("DEL", "room:a:1");
    await server.run("SET", "room:a:2", "meanwhile");
    await relay.start();
    await shows(page, "what is true now", [["room:a:2", "meanwhile"], ["room:a:3", "three"]]);
    await status(page, "ready");
    await server.run("SET", "room:a:3", "live");
    await shows(page, "a change", [["room:a:2", "meanwhile"], ["room:a:3", "live"]]);
    assert.equal(await page.evaluate(() => window.loadedOnce), true, "it was not reloaded");
    assert.deepEqual(page.errors, []);
    await page.close();
  });
}

test("the snippets of the README work as they are printed", async () => {
  const readme = readFileSync(new URL("../../README.md", import.meta.url), "utf8");
  const [eventSource, webSocket] = [...readme.matchAll(/^```js\n(.*?)^```$/gms)].map((block) =>
    block[1].replaceAll("127.0.0.1:7400", `127.0.0.1:${relay.port}`),
  );
  const state = eventSource.slice(0, eventSource.indexOf("const source"));
  for (const snippet of [eventSource, state + webSocket]) {
    await server.run("FLUSHALL");
    await server.run("MSET", "message:lobby:1", "hello", "message:lobby:2", "bye");
    const page = await open("blank.html", []);
    await page.addScriptTag({ content: snippet });
    const holds = (expected) =>
      eventually(`the page holds ${expected}`, () =>
        page.evaluate((expected) => JSON.stringify([...messages].sort()) === expected, JSON.stringify(expected)),
      );
    await holds([["message:lobby:1", "hello"], ["message:lobby:2", "bye"]]);
    await server.run("DEL", "message:lobby:2");
    await server.run("SET", "message:lobby:1", "hello, everybody");
    await holds([["message:lobby:1", "hello, everybody"]]);
    assert.deepEqual(page.errors, []);
    await page.close();
  }
});

test("a page of an origin that is not listed is refused", async () => {
  const other = await startPages();
  const page = await browser.newPage();
  await page.goto(`${other.origin}/eventsource.html?${new URLSearchParams(events("room:a"))}`);
  await eventually("the browser gives up", () => page.evaluate(() => source.readyState === EventSource.CLOSED));
  await page.close();
  await other.stop();
});
