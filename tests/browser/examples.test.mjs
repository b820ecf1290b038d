// The apps of `examples/`, started as their READMEs say, in two tabs of a real Chromium, with keyrelay in front of the server.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { text } from "node:stream/consumers";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

import { ARGUMENTS, chromiumFile, eventually, freePort, relayFile, startServer } from "./harness.mjs";

const EXAMPLES = fileURLToPath(new URL("../../examples/", import.meta.url));

let server;
let browser;

before(async () => {
  server = await startServer();
  browser = await chromium.launch({ executablePath: chromiumFile(), args: ARGUMENTS });
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

/** Starts a command in the folder of an example, and waits until it says that it listens, or answers. */
async function start(t, folder, command, parameters, env, port) {
  const child = spawn(command, parameters, {
    cwd: EXAMPLES + folder,
    env: { ...process.env, KEYRELAY_ADMIN_PORT: "0", ...env },
    stdio: ["ignore", "pipe", "pipe"],
    // npm does not end what it has started: the group is ended as a whole.
    detached: true,
  });
  const program = {
    log: "",
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const closed = once(child, "close");
      process.kill(-child.pid, "SIGTERM");
      await closed;
    },
  };
  for (const pipe of [child.stdout, child.stderr]) pipe.on("data", (piece) => (program.log += piece));
  t.after(program.stop);
  await eventually(`${command} answers`, async () => {
    if (child.exitCode !== null) throw new Error(`${command} ended: ${program.log}`);
    return fetch(`http://127.0.0.1:${port}/`);
  });
  return program;
}

/** Two tabs that send, see, and delete messages; in between keyrelay is away, and at the end another program writes a key. */
async function tryOut(t, { origin, startRelay, elsewhere, prepare = () => {} }) {
  await server.run("FLUSHALL");
  const errors = [];
  const tabs = [];
  for (let i = 0; i < 2; i++) {
    const tab = await browser.newPage();
    tab.on("pageerror", (error) => errors.push(error));
    await prepare(tab);
    await tab.goto(origin);
    t.after(() => tab.close());
    tabs.push(tab);
  }
  const [one, other] = tabs;
  const send = async (tab, text) => {
    await tab.fill("[name=text]", text);
    await tab.click("form:has([name=text]) :is(button, [type=submit])");
  };
  const show = async (...expected) => {
    for (const tab of tabs) {
      await eventually(`both tabs show ${expected}`, async () => {
        const texts = await tab.$$eval("#messages li", (list) => list.map((item) => item.firstChild.textContent.trim()));
        return JSON.stringify(texts.sort()) === JSON.stringify([...expected].sort());
      });
    }
  };
  let relay = await startRelay();
  await send(one, "hello");
  await show("hello");
  await send(other, "<b>there</b>");
  await show("hello", "<b>there</b>");
  await one.click("#messages li:has-text('hello') button");
  await show("<b>there</b>");
  await relay.stop();
  await send(one, "meanwhile");
  await other.click("#messages li:has-text('there') button");
  await eventually("the app has written", async () => (await server.run("DBSIZE")) === ":2");
  relay = await startRelay();
  await show("meanwhile");
  await server.run("SET", elsewhere, "from elsewhere");
  await show("meanwhile", "from elsewhere");
  assert.deepEqual(errors, []);
}

test("Express", async (t) => {
  const cwd = `${EXAMPLES}node`;
  execFileSync("npm", ["ci", "--no-audit", "--no-fund"], { cwd, stdio: "ignore" });
  // Its own suite, which docs/testing.md shows. (Inside of a test Node's runner would report to this one.)
  const own = { ...process.env, KEYRELAY: relayFile(), REDIS_URL: server.url, NODE_TEST_CONTEXT: undefined };
  assert.match(execFileSync("npm", ["test"], { cwd, env: own, encoding: "utf8" }), /pass 1\n/);

  const [port, relayPort] = [await freePort(), await freePort()];
  const env = { PORT: String(port), KEYRELAY_PORT: String(relayPort), REDIS_URL: server.url };
  await start(t, "node", "npm", ["start"], env, port);
  // A second one at the same port says what is wrong.
  const second = spawn("npm", ["start"], { cwd, env: { ...process.env, ...env }, stdio: ["ignore", "ignore", "pipe"] });
  assert.match(await text(second.stderr), /EADDRINUSE/);
  const startRelay = () => start(t, "node", relayFile(), ["run", "keyrelay.toml"], env, relayPort);
  await tryOut(t, { origin: `http://127.0.0.1:${port}`, startRelay, elsewhere: "message:lobby:77" });
});

/** Why there is no Rails to test with; nothing if there is. */
function noRails() {
  try {
    execFileSync("ruby", ["-e", 'require "rails"; require "redis"; require "puma"'], { stdio: "pipe" });
  } catch (error) {
    return String(error.stderr || error.message);
  }
}

test("Rails", async (t) => {
  const why = noRails();
  if (why) {
    if (process.env.KEYRELAY_TEST_RAILS) assert.fail(`KEYRELAY_TEST_RAILS is set, and there is no Rails: ${why}`);
    console.error(`\n*** SKIPPED: no Rails to test with; scripts/need.sh rails installs it ***\n${why}`);
    return t.skip("no Rails");
  }
  const [port, relayPort] = [await freePort(), await freePort()];
  const env = { KEYRELAY_PORT: String(relayPort), REDIS_URL: server.url };
  await start(t, "rails", "puma", ["-b", `tcp://127.0.0.1:${port}`], env, port);
  const startRelay = () => start(t, "rails", relayFile(), ["run", "keyrelay.toml"], env, relayPort);
  // While keyrelay is away a stream is told to come back, and nothing else looks as if it had been answered.
  const ask = (path) => fetch(`http://127.0.0.1:${port}/keyrelay/${path}?channel=messages`);
  assert.equal(await (await ask("events")).text(), "retry: 1000\n\n");
  assert.equal((await ask("channels")).status, 502);
  // The page asks a CDN for Turbo, which tests cannot reach: the same file comes from the package.
  const turbo = readFileSync(new URL("node_modules/@hotwired/turbo/dist/turbo.es2017-esm.js", import.meta.url));
  const prepare = (tab) =>
    tab.route(/@hotwired\/turbo@/, (route) => route.fulfill({ body: turbo, contentType: "text/javascript" }));
  await tryOut(t, { origin: `http://127.0.0.1:${port}`, startRelay, elsewhere: "message:77", prepare });
});
