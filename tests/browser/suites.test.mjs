// The files of docs/testing.md: test suites in Ruby and Python, each with a keyrelay that it starts by itself. (That in Node is the
// one of an example, and runs with it.)

import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { example } from "./beside.mjs";
import { relayFile, startServer } from "./harness.mjs";

const FOLDER = fileURLToPath(new URL("../../examples/testing/", import.meta.url));

let server;

before(async () => {
  server = await startServer();
});
after(() => server?.stop());

/** Runs a suite; what it prints, if it does well. */
async function run(command, parameters, env = {}) {
  const { stdout } = await promisify(execFile)(command, parameters, {
    cwd: FOLDER,
    env: { ...process.env, KEYRELAY: relayFile(), REDIS_URL: server.url, ...env },
  });
  return stdout;
}

/** The first of the commands that does this without an error. */
function able(commands, parameters) {
  return commands.find((command) => {
    try {
      execFileSync(command, parameters, { stdio: "ignore" });
      return true;
    } catch {
      return false;
    }
  });
}

/** Skips loudly, unless it must not be missing. */
function skip(t, what) {
  assert.ok(!process.env.KEYRELAY_TEST_SUITES, `KEYRELAY_TEST_SUITES is set, and there is no ${what}`);
  console.error(`\n*** SKIPPED: no ${what}; scripts/need.sh suites installs it ***`);
  t.skip(`no ${what}`);
}

test("Ruby", async (t) => {
  if (!able(["ruby"], ["-e", 'require "minitest"; require "redis"'])) return skip(t, "Ruby with minitest and redis");
  assert.match(await run("ruby", ["live_test.rb"]), /1 runs, \d+ assertions, 0 failures, 0 errors/);
});

test("Python", async (t) => {
  const python = able(["python3", "/usr/bin/python3"], ["-c", "import pytest, redis"]);
  if (!python) return skip(t, "Python with pytest and redis");
  const env = { PYTHONDONTWRITEBYTECODE: "1" };
  assert.match(await run(python, ["-m", "pytest", "-p", "no:cacheprovider"], env), /1 passed/);
});

test("a config that is wrong fails the suite, and does not hold it up", async () => {
  const { startKeyrelay } = await import("../../examples/testing/keyrelay.mjs");
  process.env.KEYRELAY ??= relayFile();
  await assert.rejects(startKeyrelay("no-such-file.toml"), /keyrelay has ended/);
});

test("without keyrelay on PATH a suite is told so", async () => {
  const { startKeyrelay } = await import("../../examples/testing/keyrelay.mjs");
  const before = process.env.KEYRELAY;
  process.env.KEYRELAY = "no-such-keyrelay";
  try {
    await assert.rejects(startKeyrelay("no-such-file.toml"), /spawn no-such-keyrelay ENOENT/);
  } finally {
    process.env.KEYRELAY = before ?? relayFile();
  }
});

test("the documentation quotes the files that are tested", () => {
  const text = readFileSync(new URL("../../docs/testing.md", import.meta.url), "utf8");
  for (const name of ["keyrelay.mjs", "keyrelay.rb", "conftest.py"]) {
    assert.ok(text.includes(`\n${example(`testing/${name}`)}\`\`\`\n`), `docs/testing.md has another ${name}`);
  }
});
