// One visitor: a region, two connections to its relay, and the widgets that show what comes.

import { overSse, overWebSocket } from "./connections.js";
import { Picture } from "./picture.js";
import { Times } from "./times.js";
import { Badge, Log } from "./words.js";
import * as widgets from "./widgets.js";

const NAMES = [
  ["Amber", "Brisk", "Calm", "Deft", "Eager", "Fair", "Glad", "Keen", "Lucid", "Mild", "Noble", "Quick"],
  ["Otter", "Heron", "Lynx", "Finch", "Badger", "Wren", "Seal", "Hare", "Crane", "Newt", "Tern", "Vole"],
];

/** Milliseconds for which is shown what became of a click. */
const READABLE = 6_000;

/** Milliseconds after which it says again that it is there; its key lives three times as long. */
const STILL_THERE = 5_000;

const pick = (list) => list[Math.floor(Math.random() * list.length)];

const clone = (id) => document.getElementById(id).content.firstElementChild.cloneNode(true);

export class Visitor {
  #root = clone("visitor");
  #region;
  #connections = {};
  #pictures = { sse: new Picture(), ws: new Picture() };
  #badges = {};
  #log;
  #widgets = [];
  /** The region that is being told that it is there. */
  #saying;
  #closed = false;
  /** Takes away what was said last. */
  #unsay;
  settings;
  user = {
    // Time does not repeat, and of two in one moment the rest tells them apart.
    id: Date.now().toString(36) + Math.random().toString(36).slice(2, 8),
    name: NAMES.map(pick).join(" "),
    key: "",
    present: true,
  };

  /** Appears on the page, in this region. */
  constructor(settings, region, place) {
    this.settings = settings;
    for (const badge of this.#root.querySelectorAll(".badge")) {
      this.#badges[badge.dataset.connection] = new Badge(badge);
    }
    this.#log = new Log(this.#part("log"));
    for (const [name, make] of Object.entries(widgets)) {
      const root = this.#root.querySelector(`[data-widget=${name}]`);
      const widget = make(root, this);
      const foot = document.createElement("footer");
      const times = clone("times");
      const terminal = clone("terminal");
      foot.append(times, terminal);
      root.append(foot);
      this.#widgets.push({ name, times: new Times(times), terminal, ...widget });
    }
    const regions = this.#part("regions");
    for (const each of settings.regions) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = each.city;
      button.dataset.region = each.name;
      button.title = `Go to ${each.city} with the cursors from here: its relay does not know them, and says reset`;
      button.addEventListener("click", () => each !== this.#region && this.#go(each));
      regions.append(button);
    }
    this.#part("freeze").addEventListener("click", () => this.#freeze());
    addEventListener("pagehide", () => {
      this.#leave();
      // It becomes hidden next, and has nothing to say of that.
      this.#closed = true;
    });
    addEventListener("pageshow", () => {
      this.#closed = false;
      this.#stay();
    });
    document.addEventListener("visibilitychange", () => this.#stay());
    setInterval(() => this.#stay(), STILL_THERE);
    place.append(this.#root);
    this.#go(region);
  }

  #part(name) {
    return this.#root.querySelector(`[data-part=${name}]`);
  }

  /** Connects to a region's relay; from another one it brings its cursors along. */
  #go(region) {
    if (this.#region) this.#leave();
    this.#region = region;
    this.#root.setAttribute("aria-label", `A visitor in ${region.city}`);
    for (const button of this.#part("regions").children) {
      button.setAttribute("aria-pressed", String(button.dataset.region === region.name));
    }
    const places = this.#part("places");
    places.replaceChildren();
    const link = (words, url) => {
      const made = document.createElement("a");
      Object.assign(made, { textContent: words, href: url, target: "_blank", rel: "noopener" });
      return made;
    };
    const query = new URLSearchParams(this.#widgets.map(({ channel }) => ["channel", channel]));
    places.append(
      `relay ${new URL(region.relay).host} · `,
      link("stream", `${region.relay}/events?${query}`),
      " · ",
      link("state", `${region.relay}/channels?${query}`),
      " · ",
      link("admin", region.admin),
    );
    for (const { terminal, command } of this.#widgets) {
      const line = `${region.client} ${command}`;
      const [code, copy] = terminal.children;
      code.textContent = line;
      copy.onclick = async () => {
        await navigator.clipboard.writeText(line);
        this.#say("copied");
      };
    }
    const channels = this.#widgets.map(({ channel }) => channel);
    for (const [name, follow] of [["sse", overSse], ["ws", overWebSocket]]) {
      const last = this.#connections[name];
      last?.close();
      const hear = (event, cursor) => this.#hear(name, event, cursor);
      this.#connections[name] = follow(region.relay, channels, last?.cursor(), hear);
    }
    this.user.key = `user:${region.name}:${this.user.id}`;
    this.#stay();
  }

  #hear(connection, event, cursor) {
    const picture = this.#pictures[connection];
    picture.take(event, cursor);
    // Both draw; the one that is behind would only undo what the other has drawn.
    const other = this.#pictures[connection === "sse" ? "ws" : "sse"];
    const draws = picture.isAheadOf(other);
    if (event.type === "message") {
      const widget = this.#widgets.find(({ channel }) => channel === event.channel);
      if (draws) widget.render(picture);
      widget.times.shown(connection, event);
      return;
    }
    if (event.type === "ready" && draws) {
      for (const widget of this.#widgets) widget.render(picture);
    }
    this.#badges[connection].hear(event);
    this.#log.hear(connection, event);
  }

  async #ask(what, body, keepalive = false) {
    const answer = await fetch(`/${this.#region.name}/${what}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      keepalive,
    });
    const told = await answer.json();
    if (!answer.ok) throw new Error(told.error);
    return told;
  }

  /** Writes what a click asks for. `isOurs` makes of the answer what tells a message of this write from others. */
  async write(name, { timeStamp }, action, isOurs) {
    const { times } = this.#widgets.find((widget) => widget.name === name);
    const answer = this.#ask("write", action);
    // What does not depend on the answer need not wait for it.
    times.clicked(timeStamp, isOurs.length === 0 ? isOurs() : answer.then(isOurs));
    try {
      await answer;
      this.#say("");
    } catch (error) {
      this.#say(error.message);
    }
  }

  /** Steps out of the users, or in again. */
  step(click) {
    const { key } = this.user;
    this.user.present = !this.user.present;
    const { present } = this.user;
    const action = present ? this.#enter() : { do: "leave", id: this.user.id };
    this.write("users", click, action, () => (changed, value) => changed === key && (value !== null) === present);
    this.#part("step").textContent = present ? "Step out" : "Step in";
  }

  #enter() {
    return { do: "enter", id: this.user.id, name: this.user.name, hidden: document.hidden };
  }

  /** Says that it is there, once at a time in each region. */
  async #stay() {
    const region = this.#region;
    if (!this.user.present || this.#closed || this.#saying === region) return;
    this.#saying = region;
    // If it cannot be said now, it is said soon.
    await this.#ask("write", this.#enter()).catch(() => {});
    if (this.#saying === region) this.#saying = undefined;
  }

  #leave() {
    if (!this.user.present) return;
    this.#ask("write", { do: "leave", id: this.user.id }, true).catch(() => {});
  }

  async #freeze() {
    const button = this.#part("freeze");
    const left = this.#part("countdown");
    button.disabled = true;
    try {
      await this.#ask("freeze", {});
      const until = performance.now() + this.settings.freeze_ms;
      await new Promise((over) => {
        const tick = setInterval(() => {
          const seconds = (until - performance.now()) / 1000;
          left.textContent = `${Math.max(seconds, 0).toFixed(1)} s · it stands, clicks wait`;
          if (seconds > 0) return;
          clearInterval(tick);
          over();
        }, 100);
      });
      left.textContent = "";
    } catch (error) {
      this.#say(error.message);
    }
    button.disabled = false;
  }

  #say(words) {
    const said = this.#part("said");
    said.textContent = words;
    clearTimeout(this.#unsay);
    this.#unsay = setTimeout(() => (said.textContent = ""), READABLE);
  }
}
