// What the tests stand on: a real server, the real relay, a static server for pages, and the only wait.

import { spawn } from "node:child_process";
import { accessSync, constants, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, get } from "node:http";
import { connect, createServer as createTcpServer } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const PATIENCE = 30_000;

/** Asks until `condition` gives something true, and returns it; fails, naming what was waited for, in the end. */
export async function eventually(what, condition) {
  const deadline = Date.now() + PATIENCE;
  let last;
  for (;;) {
    try {
      const found = await condition();
      if (found) return found;
    } catch (error) {
      last = error;
    }
    if (Date.now() > deadline) throw new Error(`waited in vain: ${what}`, { cause: last });
    await pause(5);
  }
}

/** The first of the names that is a program on PATH; a name with a slash is taken as it is. */
export function program(names) {
  for (const name of names) {
    const dirs = name.includes("/") ? [""] : (process.env.PATH ?? "").split(delimiter);
    for (const dir of dirs) {
      try {
        const file = dir ? join(dir, name) : name;
        accessSync(file, constants.X_OK);
        return file;
      } catch {
        // Not here.
      }
    }
  }
  throw new Error(`none of ${names.join(", ")} is on PATH`);
}

/** How Chromium is started: by itself, quiet, and without asking anybody outside. */
export const ARGUMENTS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** The Chromium to test with. */
export function chromiumFile() {
  const wanted = process.env.KEYRELAY_TEST_CHROMIUM;
  return program(wanted ? [wanted] : ["chromium", "chromium-browser", "google-chrome"]);
}

/** A port that nobody listens at. */
export async function freePort() {
  const probe = createTcpServer();
  await new Promise((done) => probe.listen(0, "127.0.0.1", done));
  const { port } = probe.address();
  await new Promise((done) => probe.close(done));
  return port;
}

/** Ends a process and waits until it is gone. */
export async function end(child, signal = "SIGKILL") {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((done) => child.once("exit", done));
  child.kill(signal);
  await gone;
}

/** A KeyDB, Valkey or Redis on a free port. */
export async function startServer() {
  const wanted = process.env.KEYRELAY_TEST_SERVER;
  const file = program(wanted ? [wanted] : ["keydb-server", "valkey-server", "redis-server"]);
  const dir = mkdtempSync(join(tmpdir(), "keyrelay-server-"));
  const port = await freePort();
  writeFileSync(join(dir, "server.conf"), `port ${port}\nbind 127.0.0.1\ndir ${dir}\nsave ""\nappendonly no\n`);
  let child;
  const server = {
    port,
    url: `redis://127.0.0.1:${port}/0`,
    /** Starts it (again), empty. */
    async start() {
      child = spawn(file, [join(dir, "server.conf")], { stdio: "ignore" });
      await eventually("the server answers", async () => (await server.run("PING")) === "+PONG");
    },
    kill: () => end(child),
    /** Runs one command; its arguments are strings or buffers. */
    run: (...parts) => command(port, parts),
    /** Stops answering, until `resume`; its connections stay. */
    pause: () => child.kill("SIGSTOP"),
    resume: () => child.kill("SIGCONT"),
    async stop() {
      await end(child);
      rmSync(dir, { recursive: true, force: true });
    },
  };
  await server.start();
  return server;
}

/** Sends one command over a connection of its own and gives the first line of the answer. */
function command(port, parts) {
  return new Promise((done, failed) => {
    const socket = connect(port, "127.0.0.1");
    socket.on("error", failed);
    let answer = "";
    socket.on("data", (piece) => {
      answer += piece.toString("latin1");
      const at = answer.indexOf("\r\n");
      if (at < 0) return;
      socket.destroy();
      const line = answer.slice(0, at);
      if (line.startsWith("-")) failed(new Error(`${parts[0]}: ${line}`));
      else done(line);
    });
    socket.write(`*${parts.length}\r\n`);
    for (const part of parts) {
      const bytes = Buffer.from(part);
      socket.write(Buffer.concat([Buffer.from(`$${bytes.length}\r\n`), bytes, Buffer.from("\r\n")]));
    }
  });
}

/** The executable, as `cargo build` left it. */
export function relayFile() {
  return process.env.KEYRELAY ?? join(process.env.CARGO_TARGET_DIR ?? join(HERE, "../../target"), "debug/keyrelay");
}

/** The relay in front of a server. `origins` are the pages that may connect; `serving` is TOML for `[server]`, `mappings` for
 * what stands behind it. */
export async function startRelay(server, { origins = [], serving = "", mappings }) {
  const dir = mkdtempSync(join(tmpdir(), "keyrelay-relay-"));
  const { REDIS_URL, PORT, ...env } = process.env;
  let child;
  const relay = {
    port: 0,
    adminPort: 0,
    log: "",
    get origin() {
      return `http://127.0.0.1:${this.port}`;
    },
    /** Where operators ask. */
    get admin() {
      return `http://127.0.0.1:${this.adminPort}`;
    },
    /** Starts it (again), at the ports it had. */
    async start() {
      writeFileSync(
        join(dir, "keyrelay.toml"),
        `[server]\nlisten = ["127.0.0.1:${this.port}"]\norigins = ${JSON.stringify(origins)}\n${serving}\n` +
          `[admin]\nlisten = "127.0.0.1:${this.adminPort}"\n[upstream]\nurl = "${server.url}"\n${mappings}\n`,
      );
      this.log = "";
      child = spawn(relayFile(), ["run", join(dir, "keyrelay.toml")], { env, stdio: ["ignore", "pipe", "pipe"] });
      const started = child;
      for (const pipe of [child.stdout, child.stderr]) pipe.on("data", (piece) => (this.log += piece));
      const port = (line) => Number(new RegExp(`${line} http://[^\\s/]*:(\\d+)`).exec(this.log)?.[1]);
      this.port = await eventually("the relay listens", () => {
        if (started.exitCode !== null) throw new Error(`the relay ended: ${this.log}`);
        return port("listening");
      });
      this.adminPort = port("admin");
    },
    kill: () => end(child),
    /** Ends it in order: its clients are told. */
    drain: () => end(child, "SIGTERM"),
    async stop() {
      await end(child);
      rmSync(dir, { recursive: true, force: true });
    },
  };
  await relay.start();
  return relay;
}

/** Follows a channel, and reads whatever comes, until it is closed. */
export function follow(relay, channel) {
  const asking = get(`${relay.origin}/events?${new URLSearchParams({ channel })}`, (answer) => answer.resume());
  // It ends when it is closed, and with the relay.
  asking.on("error", () => {});
  return { close: () => asking.destroy() };
}

/** Serves the pages and scripts of a folder on an origin of its own. */
export async function startPages(folder = join(HERE, "pages")) {
  const pages = createServer((request, response) => {
    const name = new URL(request.url, "http://pages").pathname.slice(1);
    const type = /^[a-z-]+\.(html|js)$/.exec(name)?.[1];
    if (!type) return response.writeHead(404).end();
    response.writeHead(200, { "Content-Type": `text/${type === "js" ? "javascript" : type}; charset=utf-8` });
    response.end(readFileSync(join(folder, name)));
  });
  await new Promise((done) => pages.listen(0, "127.0.0.1", done));
  return {
    origin: `http://127.0.0.1:${pages.address().port}`,
    async stop() {
      pages.closeAllConnections();
      await new Promise((done) => pages.close(done));
    },
  };
}
