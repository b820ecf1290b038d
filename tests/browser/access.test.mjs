// Cookies in a real Chromium: what a page of a foreign origin gets with its visitor's, and what one of an allowed origin does.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { chromium } from "playwright-core";

import { SECRET, token } from "./credentials.mjs";
import { ARGUMENTS, chromiumFile, startPages, startRelay, startServer } from "./harness.mjs";

const MAPPINGS = `
[access]
cookie = "pass"
[[access.jwt]]
algorithm = "HS256"
secret = "${SECRET}"
[[mapping]]
key = "cart:{user}"
access = { sub = "{user}" }
`;

let server;
let friend;
let stranger;
let relay;
let browser;

before(async () => {
  server = await startServer();
  await server.run("SET", "cart:42", "what nobody else may know");
  friend = await startPages();
  stranger = await startPages();
  relay = await startRelay(server, { mappings: MAPPINGS, origins: [friend.origin] });
  browser = await chromium.launch({ executablePath: chromiumFile(), args: ARGUMENTS });
});
after(async () => {
  await browser?.close();
  await relay?.stop();
  await stranger?.stop();
  await friend?.stop();
  await server?.stop();
});

/** What the page of this origin gets, in a browser whose user is signed in. */
async function tried(origin) {
  const context = await browser.newContext();
  // Cookies know no port: this one goes to the relay from every page of this machine, so nothing but the relay's own
  // judgement of the origin stands in the way.
  await context.addCookies([
    { name: "pass", value: token({ sub: "42" }), domain: "127.0.0.1", path: "/", httpOnly: true, sameSite: "Lax" },
  ]);
  const page = await context.newPage();
  await page.goto(`${origin}/stranger.html?${new URLSearchParams({ url: relay.origin, channel: "cart:42" })}`);
  const got = await page.evaluate(() => window.tried);
  await context.close();
  return got;
}

test("a page of a foreign origin gets nothing with its visitor's cookies", async () => {
  const got = await tried(stranger.origin);
  assert.deepEqual(Object.keys(got), ["fetch", "plain", "opaque", "script", "stream", "socket"]);
  for (const [way, text] of Object.entries(got)) assert.equal(text, "", `${way}: ${text}`);
  assert.match(relay.log, /origin refused/);
});

test("a page of an allowed origin reads what its visitor may", async () => {
  const got = await tried(friend.origin);
  for (const way of ["fetch", "stream", "socket"]) assert.match(got[way], /what nobody else may know/, way);
  assert.doesNotMatch(got.opaque + got.script, /nobody/);
});

test("a page of the relay's own origin reads what its visitor may", async () => {
  const context = await browser.newContext();
  await context.addCookies([{ name: "pass", value: token({ sub: "42" }), domain: "127.0.0.1", path: "/", sameSite: "Strict" }]);
  const page = await context.newPage();
  // Whatever the relay answers is a page of its origin.
  await page.goto(`${relay.origin}/nothing`);
  const text = await page.evaluate(async () => (await fetch("/channels/cart:42")).text());
  assert.match(text, /what nobody else may know/);
  await context.close();
});
