// The first hour of a new user, typed as docs/first-hour.md shows it.

import assert from "node:assert/strict";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

import { ARGUMENTS, chromiumFile, freePort, program, relayFile } from "./harness.mjs";
import { Desk, steps } from "./typed.mjs";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const TEXT = readFileSync(join(ROOT, "docs/first-hour.md"), "utf8");

test("what the first hour shows is what comes back", async () => {
  const folder = mkdtempSync(join(tmpdir(), "keyrelay-hour-"));
  // What the hour needs of the repository, as `make demo` leaves it.
  const work = join(folder, "keyrelay");
  mkdirSync(join(work, "target/debug"), { recursive: true });
  symlinkSync(resolve(relayFile()), join(work, "target/debug/keyrelay"));
  cpSync(join(ROOT, "examples"), join(work, "examples"), {
    recursive: true,
    filter: (file) => basename(file) !== "node_modules",
  });
  // The server that is tested, by the names that the text has.
  const bin = join(folder, "bin");
  mkdirSync(bin);
  const wanted = process.env.KEYRELAY_TEST_SERVER;
  const server = program(wanted ? [wanted] : ["keydb-server", "valkey-server", "redis-server"]);
  const client = program([join(dirname(server), basename(server).replace("-server", "-cli")), "redis-cli", "valkey-cli", "keydb-cli"]);
  for (const [name, file] of [["redis-server", server], ["redis-cli", client]]) {
    writeFileSync(join(bin, name), `#!/bin/sh\nexec ${file} "$@"\n`, { mode: 0o755 });
  }
  // What stands at these ports in the text is somewhere else here.
  const ports = {};
  for (const usual of [3000, 6390, 7400, 7401]) ports[usual] = await freePort();
  const { REDIS_URL, ...environment } = process.env;
  environment.PATH = `${bin}:${environment.PATH}`;
  Object.assign(environment, { PORT: `${ports[3000]}`, KEYRELAY_PORT: `${ports[7400]}`, KEYRELAY_ADMIN_PORT: `${ports[7401]}` });
  const replace = (text) => text.replace(/\b(3000|6390|7400|7401)\b/g, (usual) => ports[usual]);
  // The config of the text listens at the usual ports. That stands at its end here, so that no line has another number.
  const finish = (name, text) =>
    name === "keyrelay.toml"
      ? `${text}\n[server]\nlisten = ["127.0.0.1:${ports[7400]}"]\n[admin]\nlisten = "127.0.0.1:${ports[7401]}"\n`
      : text;
  const browser = await chromium.launch({ executablePath: chromiumFile(), args: ARGUMENTS });
  const pages = new Map();
  const look = async (url) => {
    if (!pages.has(url)) pages.set(url, await browser.newPage());
    if (pages.get(url).url() === "about:blank") await pages.get(url).goto(url);
    return pages.get(url).innerText("body");
  };
  const desk = new Desk(work, environment, { replace, finish, look });
  try {
    assert.ok(steps(TEXT).length > 5, "the document shows what to type");
    await desk.run(TEXT);
  } finally {
    await browser.close();
    await desk.stop();
    rmSync(folder, { recursive: true, force: true });
  }
});

test("what the test does not type is tried by another", () => {
  const ci = readFileSync(join(ROOT, ".ci/run"), "utf8");
  const blocks = [...TEXT.matchAll(/(?:<!-- (\S[^>]*): (\S[^>]*) -->\n)?```(sh|console)\n/g)];
  assert.ok(blocks.length > 15, "the document shows commands");
  for (const [block, kind, name, language] of blocks) {
    if (language === "console") assert.equal(kind, "terminal", block);
    else {
      assert.equal(kind, "tried by", block);
      assert.ok(name.startsWith("make ") ? ci.split("\n").includes(name) : existsSync(join(ROOT, name)), `CI does not run ${name}`);
    }
  }
});
