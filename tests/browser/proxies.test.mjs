// keyrelay behind the proxies of `examples/`, below a prefix of the app's origin: nothing is held back, and a restart is survived.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { get } from "node:http";
import { after, before, test } from "node:test";

import { chromium } from "playwright-core";

import { example, startCaddy, startNginx, startVite } from "./beside.mjs";
import { ARGUMENTS, chromiumFile, eventually, startPages, startRelay, startServer } from "./harness.mjs";

const MAPPINGS = `
[[mapping]]
key = "room:{room}:{id}"
channel = "room:{room}"
access = "public"
[limits]
connections_per_address = 2
`;
// As the proxies' READMEs have it; the heartbeat is shorter, so that a test need not wait.
const SERVING = `
path = "/keyrelay"
proxies = ["127.0.0.1"]
client_address = "x-forwarded-for"
heartbeat = "1s"
`;

let server;
let app;
let relay;
let browser;

before(async () => {
  server = await startServer();
  app = await startPages();
  relay = await startRelay(server, { mappings: MAPPINGS, serving: SERVING });
  browser = await chromium.launch({ executablePath: chromiumFile(), args: ARGUMENTS });
});
after(async () => {
  await browser?.close();
  await relay?.stop();
  await app?.stop();
  await server?.stop();
});

/** Opens a stream as a client at this address, which takes compressed answers; gives what came so far. */
async function open(origin, { channel = "room:a", address = "127.0.0.1", forged } = {}) {
  const heard = { text: "", ended: false };
  const headers = { Accept: "text/event-stream", "Accept-Encoding": "gzip, deflate, br" };
  if (forged) headers["X-Forwarded-For"] = forged;
  const request = get(`${origin}/keyrelay/events?channel=${channel}`, { headers, localAddress: address, agent: false });
  const response = await new Promise((done, failed) => request.on("response", done).on("error", failed));
  response.on("error", () => {});
  response.on("data", (piece) => (heard.text += piece));
  response.on("close", () => (heard.ended = true));
  return Object.assign(heard, { status: response.statusCode, headers: response.headers, close: () => request.destroy() });
}

/** A page of the app that follows the room by a plain EventSource. */
async function openPage(origin) {
  const page = await browser.newPage({ ignoreHTTPSErrors: true });
  page.errors = [];
  page.on("pageerror", (error) => page.errors.push(error));
  await page.goto(`${origin}/eventsource.html?${new URLSearchParams({ url: "/keyrelay/events?channel=room:a" })}`);
  return page;
}

const shows = (page, expected) =>
  eventually(`the page shows ${JSON.stringify(expected)}`, async () => {
    const items = await page.$$eval("#items li", (list) => list.map((item) => [item.id, item.textContent]));
    return JSON.stringify(Object.fromEntries(items)) === JSON.stringify(expected);
  });

const PROXIES = {
  nginx: (more) => startNginx({ relay, app, ...more }),
  Caddy: () => startCaddy({ relay, app }),
  Vite: () => startVite({ relay, root: "pages" }),
};

for (const [name, start] of Object.entries(PROXIES)) {
  test(name, async (t) => {
    const proxy = await start();
    t.after(() => proxy.stop());

    await t.test("the first byte comes at once, before there is anything to say", async () => {
      server.pause();
      try {
        const heard = await open(proxy.origin, { channel: "room:first" });
        await eventually("a first byte", () => heard.text !== "");
        assert.match(heard.text, /^: keyrelay\nretry: \d+\n\n$/);
        assert.equal(heard.status, 200);
        assert.equal(heard.headers["content-type"], "text/event-stream");
        assert.equal(heard.headers["content-encoding"], undefined);
        heard.close();
      } finally {
        server.resume();
      }
    });

    await t.test("each message comes by itself", async () => {
      const heard = await open(proxy.origin, { channel: "room:each" });
      await eventually("ready", () => heard.text.includes("keyrelay.ready"));
      for (let i = 0; i < 50; i++) {
        await server.run("SET", "room:each:1", `value ${i}`);
        await eventually(`message ${i}`, () => heard.text.includes(`"value ${i}"`));
      }
      heard.close();
    });

    await t.test("a WebSocket passes, both ways", async () => {
      await server.run("SET", "room:a:1", "one");
      const page = await browser.newPage();
      await page.goto(`${proxy.origin}/blank.html`);
      await page.evaluate(() => {
        window.heard = [];
        window.socket = new WebSocket(`ws://${location.host}/keyrelay/ws`, "keyrelay.v1.json");
        socket.onmessage = ({ data }) => heard.push(JSON.parse(data));
        socket.onopen = () => {
          socket.send(JSON.stringify({ type: "subscribe", channels: ["room:a"] }));
          socket.send(JSON.stringify({ type: "ping", ref: "there?" }));
        };
      });
      const hears = (what, wanted) =>
        eventually(what, () => page.evaluate((part) => heard.some((one) => JSON.stringify(one).includes(part)), wanted));
      await hears("the answer to a ping", '"ref":"there?"');
      await hears("the state", '"value":"one"');
      await server.run("SET", "room:a:1", "two");
      await hears("a change", '"value":"two"');
      await page.close();
    });

    await t.test("restarts of the relay are survived by an EventSource, also while nothing answers", async () => {
      await server.run("FLUSHALL");
      await server.run("MSET", "room:a:1", "one", "room:a:2", "two");
      const page = await openPage(proxy.origin);
      await shows(page, { "room:a:1": "one", "room:a:2": "two" });
      await page.evaluate(() => {
        window.attempts = 0;
        source.addEventListener("error", () => window.attempts++);
      });
      for (const [round, how] of ["drain", "kill", "drain"].entries()) {
        const before = await page.evaluate(() => window.attempts);
        await relay[how]();
        // The first is the end of the stream, the others are answered by the proxy alone.
        await eventually("it has tried in vain", () => page.evaluate((past) => window.attempts > past + 1, before));
        await server.run("SET", "room:a:1", `meanwhile ${round}`);
        await server.run("SET", "room:a:2", `meanwhile ${round}`);
        await server.run("DEL", "room:a:2");
        await server.run("SET", `room:a:2${round}`, "new");
        await relay.start();
        const expected = { "room:a:1": `meanwhile ${round}` };
        for (let past = 0; past <= round; past++) expected[`room:a:2${past}`] = "new";
        await shows(page, expected);
      }
      await server.run("SET", "room:a:1", "live");
      await shows(page, { "room:a:1": "live", "room:a:20": "new", "room:a:21": "new", "room:a:22": "new" });
      assert.deepEqual(page.errors, []);
      await page.close();
    });

    await t.test("a client that leaves is let go, even before it was answered", async () => {
      for (const patience of ["none", "until the head", "none", "until the head"]) {
        const request = get(`${proxy.origin}/keyrelay/events?channel=room:a`, { agent: false });
        request.on("error", () => {});
        if (patience === "none") await new Promise((done) => request.once("finish", () => setImmediate(done)));
        else await new Promise((done) => request.once("response", done));
        request.destroy();
      }
      await eventually("no stream is left", async () => {
        const metrics = await (await fetch(`${relay.admin}/metrics`)).text();
        return /^keyrelay_connections\{transport="sse"\} 0$/m.test(metrics);
      });
    });

    await t.test("a refusal stays a refusal", async () => {
      const heard = await open(proxy.origin, { channel: "secret" });
      await eventually("the answer's end", () => heard.ended);
      assert.equal(heard.status, 404);
      assert.match(heard.text, /"secret":"no mapping/);
    });

    if (name === "Vite") return;

    await t.test("no token is logged, also while the relay is away", async () => {
      await relay.drain();
      try {
        for (const path of ["events", "channels", "ws"]) {
          const answer = await fetch(`${proxy.origin}/keyrelay/${path}?channel=room:a&token=no-token-in-logs`);
          assert.equal(answer.status, path === "events" ? 200 : 502);
          await answer.text();
        }
      } finally {
        await relay.start();
      }
      // What comes after it is logged after it.
      await (await fetch(`${proxy.origin}/blank.html?${name}-logs-this`)).text();
      if (name === "nginx") await eventually("the log has the app's", () => proxy.logged().includes(`${name}-logs-this`));
      assert.doesNotMatch(proxy.logged(), /no-token-in-logs/);
    });

    await t.test("the limits of addresses are those of the clients, whatever they write themselves", async () => {
      // The proxy's own address stands in the list, so this client has another one.
      const ask = (address, forged) => open(proxy.origin, { channel: `room:${address}`, address, forged });
      const mine = [await ask("127.0.0.2"), await ask("127.0.0.2", "203.0.113.7")];
      for (const heard of mine) await eventually("ready", () => heard.text.includes("keyrelay.ready"));
      const third = await ask("127.0.0.2", "203.0.113.8");
      await eventually("it is told", () => third.text.includes('"reason":"too-many"'));
      const other = await ask("127.0.0.3");
      await eventually("ready", () => other.text.includes("keyrelay.ready"));
      for (const heard of [...mine, third, other]) heard.close();
    });
  });
}

test("nginx: heartbeats keep an idle stream longer than the time after which it cuts one", async (t) => {
  // 1 s ± 20 % against 2 s, as 15 s ± 20 % against 60 s.
  const proxy = await startNginx({ relay, app, more: "proxy_read_timeout 2s;" });
  t.after(() => proxy.stop());
  const heard = await open(proxy.origin);
  const heartbeats = () => heard.text.split("\n:\n").length - 1;
  await eventually("more than two times 2 s pass", () => heartbeats() > 5);
  assert.ok(!heard.ended);
  heard.close();
});

test("nginx: a stream that is idle for longer is cut", async (t) => {
  const proxy = await startNginx({ relay, app, more: "proxy_read_timeout 100ms;" });
  t.after(() => proxy.stop());
  const heard = await open(proxy.origin);
  await eventually("the end", () => heard.ended);
});

test("nginx: over HTTP/2 there are more streams than the six of HTTP/1.1", async (t) => {
  const proxy = await startNginx({ relay, app, tls: true });
  t.after(() => proxy.stop());
  await server.run("FLUSHALL");
  await server.run("SET", "room:a:1", "one");
  const page = await openPage(proxy.secured);
  await page.evaluate(async () => {
    window.ready = 0;
    for (let i = 0; i < 9; i++) {
      new EventSource(`/keyrelay/events?channel=room:${i}`).addEventListener("keyrelay.ready", () => window.ready++);
    }
  });
  await eventually("all are ready", () => page.evaluate(() => window.ready === 9));
  await server.run("SET", "room:a:1", "two");
  await shows(page, { "room:a:1": "two" });
  const protocols = () => performance.getEntriesByType("navigation").map((entry) => entry.nextHopProtocol);
  assert.deepEqual(await page.evaluate(protocols), ["h2"]);
  await page.close();
});

test("the documentation quotes the files that are tested", () => {
  const text = readFileSync(new URL("../../docs/proxies.md", import.meta.url), "utf8");
  for (const name of ["nginx/keyrelay.conf", "caddy/Caddyfile", "vite/vite.config.js"]) {
    assert.ok(text.includes(`\n${example(name)}\`\`\`\n`), `docs/proxies.md has another ${name}`);
  }
});
