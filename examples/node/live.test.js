// The app's own test: what is sent to it reaches a browser, by a real keyrelay.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { startKeyrelay } from "../testing/keyrelay.mjs";

let keyrelay;
let app;
let url;

before(async () => {
  keyrelay = await startKeyrelay(fileURLToPath(new URL("keyrelay.toml", import.meta.url)));
  app = spawn(process.execPath, ["server.js"], { env: { ...process.env, PORT: "0" }, stdio: ["ignore", "pipe", "inherit"] });
  [url] = String(await once(app.stdout, "data").then(([line]) => line)).match(/http:\S+/);
});
after(async () => {
  app?.kill();
  await keyrelay?.stop();
});

test("what one sends, all see", async () => {
  const { body } = await fetch(`${keyrelay.url}/events?channel=room:lobby`, { signal: AbortSignal.timeout(10_000) });
  let heard = "";
  for await (const piece of body.pipeThrough(new TextDecoderStream())) {
    const wasReady = heard.includes("keyrelay.ready");
    heard += piece;
    if (!wasReady && heard.includes("keyrelay.ready")) {
      await fetch(`${url}/messages`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ text: "hello, tests" }),
      });
    }
    if (heard.includes('"value":"hello, tests"')) break;
  }
  assert.match(heard, /"key":"message:lobby:\d+","value":"hello, tests"/);
});
