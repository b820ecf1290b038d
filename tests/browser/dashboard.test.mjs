// The dashboard of the admin listener in a real Chromium: what it shows is true, and stays so by itself.

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";

import { chromium } from "playwright-core";

import { ARGUMENTS, chromiumFile, eventually, follow, startRelay, startServer } from "./harness.mjs";

const MAPPINGS = `[[mapping]]
key = "cart:{user}"
access = "public"
[[mapping]]
key = "message:{room}:{id}"
channel = "room:{room}"
access = "public"
`;

let server;
let relay;
let browser;

before(async () => {
  browser = await chromium.launch({ executablePath: chromiumFile(), args: ARGUMENTS });
});
after(() => browser?.close());

beforeEach(async () => {
  server = await startServer();
  relay = await startRelay(server, { mappings: MAPPINGS });
});
afterEach(async () => {
  await relay.stop();
  await server.stop();
});

/** Opens the dashboard; whatever it complains of, and whomever else it asks, is noted. */
async function open(options = {}) {
  const page = await browser.newPage(options);
  page.complaints = [];
  page.on("pageerror", (error) => page.complaints.push(error.message));
  page.on("console", (message) => page.complaints.push(`${message.type()}: ${message.text()}`));
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(relay.admin) && !url.startsWith("data:")) page.complaints.push(`asked ${url}`);
  });
  await page.goto(relay.admin);
  return page;
}

const text = (page, selector) => page.textContent(selector);

const shows = (page, selector, expected) =>
  eventually(`${selector} says ${expected}`, async () => {
    const shown = (await text(page, selector)).trim();
    return expected instanceof RegExp ? expected.test(shown) : shown === expected;
  });

/** The texts of a table's rows. */
const rows = (page, table) =>
  page.$$eval(`#${table} tr`, (all) => all.map((row) => [...row.children].map((cell) => cell.textContent.trim())));

test("it shows what is there, and what changes", async () => {
  const page = await open();
  await shows(page, "#state", "ready");
  await shows(page, "#stream", "live");
  await shows(page, ".node .address", new URL(server.url).host);
  assert.deepEqual(
    await page.$$eval(".condition .pill", (all) => all.map((pill) => [pill.textContent, pill.className])),
    [["heard", "pill good"], ["readable", "pill good"], ["current", "pill good"]],
  );
  assert.equal(await page.isVisible("#channels-none"), true);
  const clients = [follow(relay, "cart:1"), follow(relay, "cart:1"), follow(relay, "room:lobby")];
  await shows(page, "#sse", "3");
  await server.run("SET", "cart:1", "one");
  await server.run("SET", "message:lobby:1", "<b id=planted>hello</b>");
  await server.run("SET", "message:empty:1", "nobody listens");
  await shows(page, '[data-count="key_events"]', "3");
  await shows(page, '[data-count="key_events_mapped"]', "2");
  await shows(page, '[data-count="key_events_unmapped"]', "1");
  // What is sent beside the three, as `ready`, is counted as well.
  await eventually("they were sent", async () => Number(await text(page, '[data-count="messages_sent"]')) >= 3);
  await eventually("both channels, the larger first", async () => {
    const shown = await rows(page, "channels");
    return JSON.stringify(shown) === JSON.stringify([
      ["cart:1", "state", "1", "2", "–", "fresh"],
      ["room:lobby", "state", "1", "1", "–", "fresh"],
    ]);
  });
  clients[0].close();
  await eventually("one subscriber less", async () => (await rows(page, "channels"))[0][3] === "1");
  await shows(page, "#ended", "gone1");
  // A rate is shown while something happens, and its line moves.
  const line = () => page.getAttribute("#tile-events .spark .line", "d");
  const before = await line();
  await eventually("the line has moved", async () => (await line()) !== before);
  let number = 0;
  await eventually("a rate", async () => {
    await server.run("SET", "cart:1", String((number += 1)));
    return (await text(page, '[data-rate="key_events"]')) !== "0";
  });
  assert.deepEqual(page.complaints, []);
  for (const client of clients) client.close();
  await page.close();
});

test("names are text, whatever they hold", async () => {
  const page = await open();
  const name = 'room:<img src=x onerror="document.title=1">';
  const client = follow(relay, name);
  await eventually("its row", async () => (await rows(page, "channels"))[0]?.[0] === name);
  assert.equal(await page.$("main img"), null);
  assert.deepEqual(page.complaints, []);
  client.close();
  await page.close();
});

test("a server that stands still is shown, and so is the gap when it is given up", async () => {
  await server.run("SET", "cart:1", "one");
  const page = await open();
  const client = follow(relay, "cart:1");
  await shows(page, "#state", "ready");
  assert.equal(await page.isVisible("#gaps-none"), true);
  server.pause();
  await shows(page, "#state", "not ready");
  await shows(page, "#problems", /upstream-late/);
  await shows(page, ".condition .why b", "upstream-late");
  await eventually("the channel is stale", async () => /^stale/.test((await rows(page, "channels"))[0]?.[5]));
  server.resume();
  await shows(page, "#state", "ready");
  assert.equal(await page.isVisible("#problems"), false);
  assert.equal(await page.isVisible("#gaps-none"), true, "nothing was lost");
  await server.kill();
  await eventually("the gap goes on", async () => {
    const [gap] = await rows(page, "gaps");
    return gap && gap[2].startsWith("upstream-lost") && gap[3].startsWith("goes on");
  });
  assert.match(await page.title(), /not ready/);
  await server.start();
  await eventually("the gap has ended, and one value had changed", async () => {
    const [gap] = await rows(page, "gaps");
    return /^[\d.]+ (s|ms)$/.test(gap[3]) && gap[4] === "1";
  });
  await shows(page, "#state", "ready");
  assert.deepEqual(page.complaints, []);
  client.close();
  await page.close();
});

test("a relay that goes is missed, and found again", async () => {
  const page = await open();
  await shows(page, "#stream", "live");
  const { admin } = relay;
  await relay.kill();
  await shows(page, "#stream", /lost|trying/);
  assert.equal(await page.getAttribute("body", "data-stream"), "lost");
  await relay.start();
  assert.equal(relay.admin, admin, "it is where it was");
  await shows(page, "#stream", "live");
  await page.close();
});

test("the ninth page is told why it sees nothing", async () => {
  const away = new AbortController();
  const watch = () => fetch(`${relay.admin}/events?channel=status&channel=channels&channel=gaps`, { signal: away.signal });
  await Promise.all(Array.from({ length: 8 }, watch));
  const page = await open();
  await shows(page, "#stream", "eight pages watch already, trying again");
  away.abort();
  await shows(page, "#stream", "live");
  await page.close();
});

test("it fits a phone, and the dark", async () => {
  const clients = ["cart:1", `room:${"a-very-long-name".repeat(20)}`].map((channel) => follow(relay, channel));
  await eventually("the server is heard", async () => (await fetch(`${relay.admin}/readyz`)).ok);
  await server.run("FLUSHALL");
  for (const colorScheme of ["light", "dark"]) {
    const page = await open({ viewport: { width: 360, height: 740 }, colorScheme, isMobile: true });
    await eventually("all is shown", async () => {
      const [channels, gaps] = [await rows(page, "channels"), await rows(page, "gaps")];
      return channels.length === 2 && gaps.length === 1;
    });
    const [wide, seen] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
    assert.ok(wide <= seen, `${wide} pixels on ${seen}`);
    const light = await page.evaluate(() => {
      const [red, green, blue] = getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number);
      return red + green + blue > 380;
    });
    assert.equal(light, colorScheme === "light");
    assert.deepEqual(page.complaints, []);
    await page.close();
  }
  for (const client of clients) client.close();
});
