// Types what a document shows, in terminals of its own, and compares what comes back with what the document shows.

import { execFileSync, spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

const PATIENCE = 60_000;

/**
 * What a document wants done, in its order. A comment before a fenced block says what the block is:
 *
 *     <!-- file: keyrelay.toml -->      the block is written to this file
 *     <!-- terminal: relay -->          the block is typed into this terminal
 *     <!-- page: http://… -->           the page of this URL comes to show each line of the block
 *
 * Any other block is for the reader alone. In a terminal `$ ` begins what is typed (`> ` goes on with it), `^C` ends
 * what runs, and the rest is what it prints, in order; `…` stands for any text in a line, and alone on a line for any lines.
 */
export function steps(text) {
  const block = /<!-- (file|terminal|page): (\S+) -->\n```\w*\n([\s\S]*?)\n```/g;
  return [...text.matchAll(block)].map(([, kind, name, body]) => ({ kind, name, body }));
}

/**
 * Does the steps of a document in `folder`. `replace` makes of its text what holds on this machine, and `finish` of the text
 * of a file what is written. `look` gives the text of a page. What one terminal exports holds in all of them.
 */
export class Desk {
  constructor(folder, environment, { replace, finish, look }) {
    Object.assign(this, { folder, environment, replace, finish, look, terminals: new Map() });
  }

  async run(text) {
    for (const { kind, name, body } of steps(text)) {
      if (kind === "file") writeFileSync(join(this.folder, name), this.finish(name, `${this.replace(body)}\n`));
      else if (kind === "page") await this.see(this.replace(name), body.split("\n"));
      else await this.type(name, this.replace(body));
    }
  }

  async see(url, lines) {
    const deadline = Date.now() + PATIENCE;
    for (;;) {
      const shown = (await this.look(url)).split("\n").map((line) => line.trim());
      const missing = lines.find((line) => !shown.includes(line));
      if (missing === undefined) return;
      if (Date.now() > deadline) throw new Error(`the page ${url} does not show: ${missing}\nbut:\n${shown.join("\n")}`);
      await pause(5);
    }
  }

  async type(name, body) {
    if (!this.terminals.has(name)) this.terminals.set(name, new Terminal(name, this.folder, this.environment));
    const terminal = this.terminals.get(name);
    const lines = body.split("\n");
    for (let at = 0; at < lines.length; at += 1) {
      if (lines[at].startsWith("$ ")) {
        let command = lines[at].slice(2);
        while (lines[at + 1]?.startsWith("> ")) command += `\n${lines[(at += 1)].slice(2)}`;
        await terminal.start(command);
      } else if (lines[at] === "^C") await terminal.interrupt();
      else await terminal.expect(lines[at]);
    }
  }

  /** Ends whatever still runs. */
  async stop() {
    for (const terminal of this.terminals.values()) await terminal.interrupt();
  }
}

/** Runs one command after the other. */
class Terminal {
  constructor(name, folder, environment) {
    Object.assign(this, { name, folder, environment, child: null, printed: "", read: 0, skips: true, command: "" });
  }

  async start(command) {
    await this.ended();
    // What a shell remembers for the commands to come.
    const [, folder] = /^cd (\S+)$/.exec(command) ?? [];
    const [, variable] = /^export (\w+)=/.exec(command) ?? [];
    if (folder) this.folder = join(this.folder, folder);
    if (variable) this.environment[variable] = this.shell(`${command}; printf %s "$${variable}"`);
    if (folder || variable) return;
    Object.assign(this, { command, printed: "", read: 0, skips: false });
    const options = { cwd: this.folder, env: this.environment, detached: true, stdio: ["ignore", "pipe", "pipe"] };
    const child = spawn("bash", ["-c", command], options);
    for (const pipe of [child.stdout, child.stderr]) pipe.on("data", (piece) => (this.printed += piece));
    child.once("close", () => (child.over = true));
    this.child = child;
  }

  shell(command) {
    return execFileSync("bash", ["-c", command], { cwd: this.folder, env: this.environment, encoding: "utf8" });
  }

  /** Waits for the end of what runs, and that it printed no more than the document shows. */
  async ended() {
    if (!this.child) return;
    await this.wait("its end", () => this.child.over);
    const rest = this.printed.slice(this.read).trim();
    if (rest && !this.skips) throw this.error(`it also printed:\n${rest}`);
    this.child = null;
  }

  async interrupt() {
    if (!this.child) return;
    if (!this.child.over) process.kill(-this.child.pid, "SIGINT");
    await this.wait("its end after ^C", () => this.child.over);
    this.child = null;
  }

  async expect(line) {
    if (line.trim() === "…") {
      this.skips = true;
      return;
    }
    const text = line.split("…").map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    const pattern = new RegExp(`^${text.join("[^\\n]*")}[ \\t]*$`);
    await this.wait(`the line: ${line}`, () => {
      for (;;) {
        const end = this.printed.indexOf("\n", this.read);
        if (end < 0 && !this.child.over) return false;
        if (end < 0 && this.read === this.printed.length) throw this.error(`it ended before the line: ${line}`);
        const next = this.printed.slice(this.read, end < 0 ? undefined : end);
        this.read = end < 0 ? this.printed.length : end + 1;
        if (pattern.test(next)) break;
        if (!this.skips) throw this.error(`the document shows:\n${line}\nand this came:\n${next}`);
      }
      this.skips = false;
      return true;
    });
  }

  async wait(what, condition) {
    const deadline = Date.now() + PATIENCE;
    while (!condition()) {
      if (Date.now() > deadline) throw this.error(`waited in vain for ${what}`);
      await pause(5);
    }
  }

  error(what) {
    return new Error(`in terminal ${this.name}, $ ${this.command}\n${what}\n\nall that it printed:\n${this.printed}`);
  }
}
