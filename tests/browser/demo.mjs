// `keyrelay demo` as somebody runs it in a terminal, and the page that it shows.

import { execFile, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";

import { end, eventually, program, relayFile } from "./harness.mjs";

const SERVERS = ["keydb-server", "valkey-server", "redis-server"];

/** The demo with the server that is tested, whatever else is on PATH; with a folder for temporary files of its own. */
export async function startDemo() {
  const wanted = process.env.KEYRELAY_TEST_SERVER;
  const server = realpathOf(wanted ? [wanted] : SERVERS);
  const dir = mkdtempSync(join(tmpdir(), "keyrelay-demo-test-"));
  const [bin, temporary] = [join(dir, "bin"), join(dir, "tmp")];
  for (const made of [bin, temporary]) mkdirSync(made);
  const name = SERVERS.find((name) => server.link.endsWith(name));
  const client = name.replace("-server", "-cli");
  symlinkSync(server.file, join(bin, name));
  // The client is where the server is.
  symlinkSync(join(dirname(server.link), client), join(bin, client));
  const { REDIS_URL, PORT, ...env } = process.env;
  const child = spawn(relayFile(), ["demo"], {
    // A group of its own, as in a terminal: what Ctrl-C reaches.
    detached: true,
    env: { ...env, PATH: bin, TMPDIR: temporary },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const exited = new Promise((done) => child.once("exit", (code, signal) => done(code ?? signal)));
  let printed = "";
  for (const pipe of [child.stdout, child.stderr]) pipe.on("data", (piece) => (printed += piece));
  await eventually("the demo says that it runs", () => {
    if (child.exitCode !== null) throw new Error(`the demo ended: ${printed}`);
    return printed.includes("Ctrl-C ends it");
  });
  const [, url] = /open +(http:\S+)/.exec(printed);
  const [, typed] = /type +(.+)/.exec(printed);
  const regions = [...printed.matchAll(/^ +(\w+) +server (\S+) +relay (\S+) +admin (\S+)$/gm)];
  return {
    url,
    isKeydb: name === "keydb-server",
    /** The command that the demo tells one to type. */
    typed,
    regions: Object.fromEntries(regions.map(([, name, server, relay, admin]) => [name, { server, relay, admin }])),
    /** Types a command into a terminal. */
    async type(line) {
      const { stdout } = await promisify(execFile)("/bin/sh", ["-c", line], { env: { PATH: bin } });
      return stdout.trim();
    },
    /** As `type`, a command of the server of a region. */
    redis(region, line) {
      const port = this.regions[region].server.split(":")[1];
      return this.type(`${client} -p ${port} ${line}`);
    },
    exited,
    /** All that it has printed. */
    printed: () => printed,
    /** Presses Ctrl-C, and gives the exit code. */
    interrupt() {
      process.kill(-child.pid, "SIGINT");
      return exited;
    },
    /** Whatever it has left: files, and processes that were told of its folder. */
    left() {
      const processes = readdirSync("/proc").filter((pid) => {
        try {
          return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, "latin1").includes(temporary);
        } catch {
          return false;
        }
      });
      return [...readdirSync(temporary), ...processes];
    },
    async stop() {
      if (child.exitCode === null) {
        process.kill(-child.pid, "SIGINT");
        await exited;
      }
      await end(child);
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** A program as it stands on PATH, and the file that this leads to. */
function realpathOf(names) {
  const link = program(names);
  return { link, file: realpathSync(link) };
}

/** Opens the page; whatever goes wrong in it is in `wrong`. */
export async function openDemo(browser, url, options) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.wrong = [];
  page.on("pageerror", (error) => page.wrong.push(String(error)));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) page.wrong.push(message.text());
  });
  const isOutside = (address) => new URL(address).hostname !== "127.0.0.1";
  page.on("request", (request) => isOutside(request.url()) && page.wrong.push(request.url()));
  page.on("websocket", (socket) => isOutside(socket.url()) && page.wrong.push(socket.url()));
  await page.goto(url);
  await says(page, "sse", "ready");
  await says(page, "ws", "ready");
  return page;
}

/** Waits until a badge of the (first) visitor says a word. */
export const says = (page, connection, word) =>
  eventually(`${connection} says ${word}`, async () => {
    const badge = page.locator(`.badge[data-connection=${connection}]`).first();
    return (await badge.getAttribute("data-word")) === word;
  });
