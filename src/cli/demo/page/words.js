// What the connections hear of themselves: the last word of each on a badge, all of them in a log.

import { flash } from "./times.js";

/** How long a word stays on a badge, so that one that is soon followed by another can be read. */
const READABLE = 600;

/** Words that say little without their reason; beside others it would look as if it still held. */
const WITH_REASON = ["stale", "gap", "reset"];

/** How many lines the log keeps. */
const KEPT = 30;

/** What is said of several channels within this time is said at once. */
const TOGETHER = 250;

/** The last word that one connection heard. */
export class Badge {
  #root;
  #stale = new Set();
  #waiting = [];
  #last;
  #busy = false;

  constructor(root) {
    this.#root = root;
  }

  /** Shows the event, unless it is the last one of another channel, or all is not fresh yet. */
  hear({ type, reason, channels = {} }) {
    for (const channel of Object.keys(channels)) {
      if (type === "stale") this.#stale.add(channel);
      else if (type !== "gap") this.#stale.delete(channel);
    }
    const isSaid = this.#last?.type === type && this.#last.reason === reason;
    if (isSaid || (type === "fresh" && this.#stale.size > 0)) return;
    this.#last = { type, reason };
    this.#waiting.push(this.#last);
    if (!this.#busy) this.#next();
  }

  #next() {
    const next = this.#waiting.shift();
    this.#busy = next !== undefined;
    if (!next) return;
    // Whoever would lag behind is not shown all.
    this.#waiting.splice(0, this.#waiting.length - 3);
    this.#root.dataset.word = next.type;
    const reason = WITH_REASON.includes(next.type) && next.reason;
    this.#root.querySelector("b").textContent = reason ? `${next.type} ${reason}` : next.type;
    flash(this.#root);
    setTimeout(() => this.#next(), READABLE);
  }
}

/** All control events of a visitor, the newest first. */
export class Log {
  #list;

  constructor(list) {
    this.#list = list;
  }

  /** Writes an event down. What is said of each channel by itself is one line. */
  hear(connection, { type, reason = "", channels = {} }) {
    const now = new Date();
    const words = `${connection === "sse" ? "SSE" : "WS"} ${type} ${reason}`;
    // The other connection hears the same at the same time.
    const last = [...this.#list.children].slice(0, 2).find((line) => line.dataset.words === words);
    const names = Object.keys(channels).join(" ");
    if (last && now - Number(last.dataset.at) < TOGETHER) {
      last.lastChild.textContent += ` ${names}`;
      return;
    }
    const line = document.createElement("li");
    Object.assign(line.dataset, { word: type, words, at: Number(now) });
    const time = `${now.toTimeString().slice(0, 8)}.${String(now.getMilliseconds()).padStart(3, "0")}`;
    for (const text of [time, ...words.split(" "), names]) {
      const cell = document.createElement("span");
      cell.textContent = text;
      line.append(cell);
    }
    this.#list.prepend(line);
    while (this.#list.children.length > KEPT) this.#list.lastChild.remove();
  }
}
