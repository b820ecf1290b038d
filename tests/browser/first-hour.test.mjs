// The first hour of a new user, typed as docs/first-hour.md shows it.

import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { test } from "node:test";

import { freePort, program, relayFile, startServer } from "./harness.mjs";
import { Desk, steps } from "./typed.mjs";

const TEXT = readFileSync(new URL("../../docs/first-hour.md", import.meta.url), "utf8");

test("what the first hour shows is what comes back", async () => {
  const folder = mkdtempSync(join(tmpdir(), "keyrelay-hour-"));
  const bin = join(folder, "bin");
  mkdirSync(bin);
  symlinkSync(resolve(relayFile()), join(bin, "keyrelay"));
  const server = await startServer();
  // What stands at its usual port in the text is somewhere else here.
  const ports = { 6379: server.port, 7400: await freePort(), 7401: await freePort() };
  const client = program(["redis-cli", "valkey-cli", "keydb-cli"]);
  writeFileSync(join(bin, "redis-cli"), `#!/bin/sh\nexec ${client} -p ${server.port} "$@"\n`, { mode: 0o755 });
  const { REDIS_URL, PORT, ...environment } = process.env;
  environment.PATH = `${bin}:${environment.PATH}`;
  const work = join(folder, "work");
  mkdirSync(work);
  const replace = (text) =>
    Object.entries(ports).reduce((all, [usual, port]) => all.replaceAll(`127.0.0.1:${usual}`, `127.0.0.1:${port}`), text);
  // The config of the text listens at the usual ports. That stands at its end here, so that no line has another number.
  const finish = (name, text) =>
    name === "keyrelay.toml"
      ? `${text}\n[server]\nlisten = ["127.0.0.1:${ports[7400]}"]\n[admin]\nlisten = "127.0.0.1:${ports[7401]}"\n`
      : text;
  const desk = new Desk(work, environment, replace, finish);
  try {
    assert.ok(steps(TEXT).length > 5, "the document shows what to type");
    await desk.run(TEXT);
  } finally {
    await desk.stop();
    await server.stop();
    rmSync(folder, { recursive: true, force: true });
  }
});
