// The demo in a real Chromium: every part of its page is clicked, in two regions and from a terminal.

import assert from "node:assert/strict";
import { request } from "node:http";
import { after, before, test } from "node:test";

import { chromium } from "playwright-core";

import { openDemo, says, startDemo } from "./demo.mjs";
import { ARGUMENTS, chromiumFile, eventually } from "./harness.mjs";

let demo;
let browser;
/** A tab in each region. */
let ams;
let syd;

before(async () => {
  demo = await startDemo();
  browser = await chromium.launch({ executablePath: chromiumFile(), args: ARGUMENTS });
  [ams, syd] = await Promise.all(["ams", "syd"].map((region) => openDemo(browser, `${demo.url}?region=${region}`)));
});
after(async () => {
  await browser?.close();
  await demo?.stop();
});

const both = () => [ams, syd];

/** Waits until what the selector finds has this text, in both tabs. */
const show = (selector, text) =>
  Promise.all(
    both().map((page) =>
      eventually(`${selector} shows ${text}`, async () => (await page.locator(selector).first().innerText()).includes(text)),
    ),
  );

/** Waits until a widget has told how long it took, over both connections. */
async function tells(page, widget, span) {
  for (const connection of ["sse", "ws"]) {
    const cell = page.locator(`[data-widget=${widget}] [data-span="${span}"] [data-connection=${connection}]`).first();
    const told = await eventually(`${widget} tells ${span} over ${connection}`, async () => {
      return /^([\d.]+) (ms|s)$/.exec(await cell.innerText());
    });
    const milliseconds = Number(told[1]) * (told[2] === "s" ? 1000 : 1);
    assert.ok(milliseconds > 0 && milliseconds < 30_000, told[0]);
  }
}

/** Wipes the numbers of a tab, so that new ones can be told from old. */
const wipe = (page) =>
  page.evaluate(() => document.querySelectorAll(".times td[data-connection]").forEach((cell) => (cell.textContent = "–")));

/** Notes from now on what each badge of a tab says; gives what was noted. */
async function note(page) {
  await page.evaluate(() => {
    // Whoever notes since before goes on with a list of his own.
    const said = { sse: [], ws: [] };
    window.said = said;
    for (const badge of document.querySelectorAll(".badge")) {
      const { connection } = badge.dataset;
      const observer = new MutationObserver(() => said[connection].push(badge.dataset.word));
      observer.observe(badge, { attributeFilter: ["data-word"] });
    }
  });
  return () => page.evaluate(() => window.said);
}

const logged = (page) => page.locator(".log li").evaluateAll((lines) => lines.map((line) => line.dataset.words.trim()));

test("a click on the light shows in every tab, with the time it took over both connections", async () => {
  for (const state of ["on", "off"]) {
    await Promise.all(both().map(wipe));
    await ams.getByRole("switch", { name: "Light" }).click();
    await show(".bulb", state);
    for (const page of both()) {
      const bulb = page.getByRole("switch", { name: "Light" });
      assert.equal(await bulb.getAttribute("aria-checked"), String(state === "on"));
      await tells(page, "light", "event");
    }
    await tells(ams, "light", "click");
  }
  assert.equal(await syd.locator("[data-widget=light] [data-span=click]").innerText(), "click → screen\t–\t–");
});

test("the counter counts every click and every command once", async () => {
  const start = Number(await ams.getByLabel("Counter", { exact: true }).innerText());
  await ams.getByRole("button", { name: "One more" }).click();
  await show(".number", String(start + 1));
  await tells(ams, "counter", "click");
  await syd.getByRole("button", { name: "One more" }).click();
  await show(".number", String(start + 2));
  await syd.getByRole("button", { name: "One less" }).click();
  await show(".number", String(start + 1));
  await tells(syd, "counter", "click");
  await demo.type(demo.typed);
  await show(".number", String(start + 2));
  await demo.redis("syd", "set counter 7");
  await show(".number", "7");
});

test("what is said is shown as it was typed, whoever says it", async () => {
  const words = "<img src=x onerror=alert(1)> & 'hi'";
  await syd.getByLabel("What you say").fill(words);
  await syd.getByRole("button", { name: "Say" }).click();
  await show(".feed li", words);
  await tells(syd, "hi", "click");
  await tells(ams, "hi", "event");
  await demo.redis("ams", "lpush hi 'from a terminal'");
  await show(".feed li", "from a terminal");
  assert.equal(await ams.locator(".feed img").count(), 0);
});

/** Waits until each tab counts so many users in Amsterdam and in Sydney. */
const count = (...expected) =>
  Promise.all(
    both().map((page) =>
      eventually(`there are ${expected} users`, async () => {
        return String(await page.locator(".count").allInnerTexts()) === String(expected);
      }),
    ),
  );

test("users come and go with their tabs", async () => {
  await count(1, 1);
  const third = await openDemo(browser, `${demo.url}?region=ams`);
  await count(2, 1);
  const expired = async () => /expired_keys:\d+/.exec(await demo.redis("ams", "info stats"))[0];
  const before = await expired();
  await third.goto("about:blank");
  await count(1, 1);
  assert.equal(await expired(), before, "it said that it went: its key did not expire");

  await wipe(ams);
  await ams.getByRole("button", { name: "Step out" }).click();
  await count(0, 1);
  await tells(ams, "users", "click");
  await wipe(ams);
  await ams.getByRole("button", { name: "Step in" }).click();
  await count(1, 1);
  await tells(ams, "users", "click");
  await demo.redis("ams", "set user:syd:you Guest ex 60");
  await count(1, 2);
  await demo.redis("syd", "del user:syd:you");
  await count(1, 1);
  await third.context().close();
});

test("the user of a tab that crashed goes by itself", async () => {
  const lost = await openDemo(browser, `${demo.url}?region=syd`);
  await count(1, 2);
  const crashed = new Promise((done) => lost.once("crash", done));
  lost.goto("chrome://crash").catch(() => {});
  await crashed;
  await count(1, 1);
  await lost.context().close();
});

/** The room's table in each tab. */
const table = (expected) =>
  Promise.all(
    both().map((page) =>
      eventually(`the room has ${JSON.stringify(expected)}`, async () => {
        const rows = await page.locator(".room tbody[data-part=rows] tr").evaluateAll((rows) => {
          return rows.map((row) => [row.cells[0].textContent, row.cells[1].textContent]);
        });
        return JSON.stringify(rows) === JSON.stringify(expected);
      }),
    ),
  );

test("the room's keys are set and deleted by clicks, and by a terminal", async () => {
  const lamp = ["lamp", '{"colour":"amber","watts":"40"}'];
  const topic = ["topic", "change me from a terminal"];
  const visitors = ["visitors", '["ada","grace"]'];
  await table([lamp, topic, visitors]);
  await wipe(ams);
  await ams.getByLabel("Name of the key").fill("mood");
  await ams.getByLabel("Value of the key").fill("<b>sunny</b>");
  await ams.getByRole("button", { name: "Set" }).click();
  await table([lamp, ["mood", "<b>sunny</b>"], topic, visitors]);
  await tells(ams, "room", "click");
  await tells(syd, "room", "event");
  await wipe(syd);
  await syd.getByRole("button", { name: "Delete mood" }).click();
  await table([lamp, topic, visitors]);
  await tells(syd, "room", "click");
  await demo.redis("syd", "set room:lobby:toast gone ex 1");
  await table([lamp, ["toast", "gone"], topic, visitors]);
  await table([lamp, topic, visitors]);
  await demo.redis("ams", "hset room:lobby:lamp watts 60");
  await table([["lamp", '{"colour":"amber","watts":"60"}'], topic, visitors]);

  await ams.getByLabel("Name of the key").fill("a\u202fb");
  await ams.getByLabel("Value of the key").fill("x");
  await ams.getByRole("button", { name: "Set" }).click();
  await table([["a\u202fb", "x"], ["lamp", '{"colour":"amber","watts":"60"}'], topic, visitors]);
  await ams.getByRole("button", { name: "Delete a\u202fb" }).click();
  await table([["lamp", '{"colour":"amber","watts":"60"}'], topic, visitors]);
});

test("a server that freezes makes its region stale, then fresh, and no click is lost", async () => {
  const start = Number(await ams.locator(".number").innerText());
  const said = await note(ams);
  const freeze = ams.getByRole("button", { name: "Freeze the server" });
  await freeze.click();
  await eventually("it counts down", async () => /^\d\.\d s/.test(await ams.locator("[data-part=countdown]").innerText()));
  assert.ok(await freeze.isDisabled());
  await ams.getByRole("button", { name: "One more" }).click();
  for (const connection of ["sse", "ws"]) await says(ams, connection, "stale");
  assert.equal(await ams.locator(".number").innerText(), String(start));
  for (const connection of ["sse", "ws"]) await says(ams, connection, "fresh");
  await show(".number", String(start + 1));
  await eventually("it can be frozen again", () => freeze.isEnabled());
  assert.deepEqual(await said(), { sse: ["stale", "fresh"], ws: ["stale", "fresh"] });
  for (const name of ["SSE", "WS"]) {
    const words = (await logged(ams)).filter((words) => words.startsWith(name));
    assert.deepEqual(words.slice(0, 2), [`${name} fresh upstream-late`, `${name} stale upstream-late`]);
  }
  if (demo.isKeydb) {
    const words = await logged(syd);
    assert.ok(!words.some((words) => words.includes("stale")), `the other region has a server of its own: ${words}`);
  } else {
    for (const connection of ["sse", "ws"]) await says(syd, connection, "fresh");
  }
});

test("a visitor who goes to the other region is reset there, and sees what is true", async () => {
  const number = await ams.locator(".number").innerText();
  const said = await note(ams);
  await ams.getByRole("button", { name: "Sydney" }).click();
  const words = ["connecting", "reset", "ready"];
  await eventually("both connections are reset, then ready", async () => {
    return JSON.stringify(await said()) === JSON.stringify({ sse: words, ws: words });
  });
  assert.ok((await logged(ams)).includes("SSE reset unknown-cursor"));
  assert.ok((await logged(ams)).includes("WS reset unknown-cursor"));
  await show(".number", number);
  await count(0, 2);
  await ams.getByRole("button", { name: "Amsterdam" }).click();
  for (const connection of ["sse", "ws"]) await says(ams, connection, "ready");
  await count(1, 1);
});

test("there is no scrolling sideways on a phone, and the dark is dark", async () => {
  await demo.redis("ams", `set room:lobby:${"n".repeat(60)} ${"v".repeat(300)}`);
  await demo.redis("ams", `lpush hi ${"w".repeat(300)}`);
  const shades = [];
  for (const colorScheme of ["light", "dark"]) {
    const viewport = { width: 360, height: 740 };
    const page = await openDemo(browser, demo.url, { viewport, colorScheme, isMobile: true, hasTouch: true });
    await eventually("the long row is there", () => page.locator(".room tbody tr").nth(3).isVisible());
    assert.equal(await page.locator(".visitor").count(), 1);
    const width = await page.evaluate(() => [document.documentElement.scrollWidth, visualViewport.scale]);
    assert.deepEqual(width, [360, 1]);
    shades.push(await page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor.match(/\d+/g).map(Number)));
    assert.deepEqual(page.wrong, []);
    await page.context().close();
  }
  const [light, dark] = shades.map((channels) => Math.max(...channels));
  assert.ok(light > 200 && dark < 60, JSON.stringify(shades));
  await demo.redis("ams", `del room:lobby:${"n".repeat(60)}`);
});

test("both regions stand side by side on a desktop, and nothing moves for those who want that", async () => {
  const page = await openDemo(browser, demo.url, { viewport: { width: 1280, height: 900 }, reducedMotion: "reduce" });
  const places = await page.locator(".visitor").evaluateAll((all) => all.map((one) => one.getBoundingClientRect().top));
  assert.ok(places.length === 2 && places[0] === places[1], String(places));
  await page.getByRole("switch", { name: "Light" }).first().click();
  await tells(page, "light", "click");
  const flashes = await page.evaluate(() => {
    const cells = [...document.querySelectorAll(".flash")];
    return cells.map((cell) => getComputedStyle(cell).animationName);
  });
  assert.ok(flashes.length > 0 && flashes.every((name) => name === "none"), String(flashes));
  await page.getByRole("switch", { name: "Light" }).first().focus();
  await page.keyboard.press("Tab");
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  assert.equal(outline, "solid");
  assert.deepEqual(page.wrong, []);
  await page.context().close();
});

test("the command beside a widget is copied", async () => {
  await ams.context().grantPermissions(["clipboard-read", "clipboard-write"], { origin: new URL(demo.url).origin });
  await ams.locator("[data-widget=counter]").getByRole("button", { name: "Copy the command" }).click();
  await eventually("it is told", async () => (await ams.locator(".said").innerText()) === "copied");
  const line = await ams.evaluate(() => navigator.clipboard.readText());
  assert.equal(line, demo.typed);
});

/** What the endpoint answers. */
const post = (path, headers, body) =>
  new Promise((done, failed) => {
    const asked = request(new URL(path, demo.url), { method: "POST", headers }, (answer) => {
      let text = "";
      answer.on("data", (piece) => (text += piece));
      answer.on("end", () => done([answer.statusCode, text]));
    });
    asked.on("error", failed);
    asked.end(body);
  });

test("a click that fails says so where one looks, for a while", async () => {
  await demo.redis("ams", "del counter");
  await demo.redis("ams", "lpush counter x");
  for (const viewport of [{ width: 360, height: 740 }, { width: 1280, height: 700 }]) {
    const page = await openDemo(browser, demo.url, { viewport });
    await page.getByRole("button", { name: "One more" }).first().click();
    const said = page.locator(".said").first();
    await eventually("it is told", async () => (await said.innerText()).includes("WRONGTYPE"));
    const { y, height } = await said.boundingBox();
    const top = await page.evaluate(() => scrollY);
    assert.ok(top < 300 && y > 0 && y + height <= viewport.height, JSON.stringify({ top, y, height }));
    await eventually("it has gone", async () => (await said.innerText()) === "");
    assert.match(page.wrong.join(), /^[^,]*409 \(Conflict\)$/);
    await page.context().close();
  }
  await demo.redis("ams", "set counter 7");
});

test("a page of one visitor stands in one line with its head", async () => {
  const page = await openDemo(browser, demo.url, { viewport: { width: 900, height: 700 } });
  const lefts = await page.evaluate(() =>
    [".top", ".visitor", ".foot"].map((part) => document.querySelector(part).getBoundingClientRect().left),
  );
  assert.equal(new Set(lefts).size, 1, String(lefts));
  await page.context().close();
});

test("greetings are shown whole, and names on one line", async () => {
  for (let n = 0; n < 4; n += 1) {
    const greeting = { id: `t-${n}`, name: "Amber Otter", region: "ams", text: "so many words ".repeat(5) + n };
    await demo.redis("ams", `lpush hi '${JSON.stringify(greeting)}'`);
  }
  const page = await openDemo(browser, demo.url, { viewport: { width: 360, height: 740 } });
  const shown = await page.locator(".feed").evaluate((feed) => {
    const { left, right, bottom } = feed.getBoundingClientRect();
    const seen = [...feed.children].filter((item) => item.getBoundingClientRect().left < right);
    return seen.map((item) => {
      const [name, place] = [item, item.querySelector("b")].map((part) => part.getBoundingClientRect());
      return { whole: name.bottom <= bottom && name.left >= left, lines: Math.round(place.height / 20) };
    });
  });
  assert.ok(shown.length > 0, "the newest is seen");
  for (const item of shown) assert.deepEqual(item, { whole: true, lines: 1 });
  await page.context().close();
});

test("no other page can click, and nothing else can be written", async () => {
  const origin = new URL(demo.url).origin;
  const own = { Origin: origin, "Content-Type": "application/json" };
  const click = JSON.stringify({ do: "count", by: 1 });
  const [status, answer] = await post("/ams/write", own, click);
  assert.equal(status, 200, answer);
  const { number } = JSON.parse(answer);
  const status_of = async (...asked) => (await post(...asked))[0];
  assert.equal(await status_of("/ams/write", { ...own, Origin: "http://evil.example" }, click), 403);
  assert.equal(await status_of("/ams/write", { "Content-Type": "application/json" }, click), 403);
  assert.equal(await status_of("/ams/freeze", { ...own, Origin: "http://evil.example" }, "{}"), 403);
  assert.equal(await status_of("/ams/write", { ...own, "Content-Type": "text/plain" }, click), 415);
  assert.equal(await status_of("/ams/write", own, JSON.stringify({ do: "flushall" })), 400);
  assert.equal(await status_of("/ams/write", own, " ".repeat(4096)), 400);
  assert.equal(await status_of("/nowhere/write", own, click), 404);
  assert.equal(await demo.redis("ams", "get counter"), String(number));
  // It exists in the demo alone.
  const relay = await fetch(`${demo.regions.ams.relay}/ams/write`, { method: "POST", headers: own, body: click });
  assert.equal(relay.status, 404);
  const page = await fetch(demo.url);
  assert.match(page.headers.get("content-security-policy"), /^default-src 'self'; /);
});

test("nothing went wrong in any of this, and nothing was asked for outside", () => {
  for (const page of both()) assert.deepEqual(page.wrong, []);
});

test("a server that ends, ends the demo, which says so", async () => {
  const other = await startDemo();
  try {
    await other.redis("ams", "shutdown nosave").catch(() => {});
    assert.equal(await other.exited, 1);
    assert.match(other.printed(), /the server( of ams)? ended: exit status: 0; start the demo again\n/);
    assert.deepEqual(other.left(), []);
  } finally {
    await other.stop();
  }
});

test("Ctrl-C leaves no process and no folder, even while a server stands", async () => {
  const other = await startDemo();
  try {
    assert.notDeepEqual(other.left(), []);
    const headers = { Origin: new URL(other.url).origin, "Content-Type": "application/json" };
    const frozen = await fetch(new URL("/syd/freeze", other.url), { method: "POST", headers, body: "{}" });
    assert.equal(frozen.status, 200);
    assert.equal(await other.interrupt(), 0);
    assert.deepEqual(other.left(), []);
  } finally {
    await other.stop();
  }
  await ams.close();
  await syd.close();
  assert.equal(await demo.interrupt(), 0);
  assert.deepEqual(demo.left(), []);
});
