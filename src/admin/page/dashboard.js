// Shows how the relay stands: a client of its own streams, of which each message is one member of /status, one channel, or
// one gap. Whatever a name may hold is set as text, never as markup.
"use strict";

/** What is known, as the three channels tell it: the newest value of each key. */
const known = { status: new Map(), channels: new Map(), gaps: new Map() };

/** Points of a sparkline: a minute and a half. */
const POINTS = 90;

/** After a pause of more than this many milliseconds no rate is shown: what was missed would look like one burst. */
const PAUSE = 5_000;

/** A browser that gave up, as some do where nobody listens, is told to try again after this many milliseconds. */
const AGAIN = 2_000;

/** Gaps that the relay remembers. */
const KEPT = 100;

const $ = (id) => document.getElementById(id);

/** What was counted last, and by how much the relay's clock is ahead of this one's. */
let before = null;
let ahead = 0;
const sparks = new Map();

function connect() {
  const stream = new EventSource("events?channel=status&channel=channels&channel=gaps");
  /** Why the relay has ended the stream, until it is tried again. */
  let ended;
  stream.onmessage = (event) => {
    const { channel, key, value } = JSON.parse(event.data);
    if (value === null) known[channel]?.delete(key);
    else known[channel]?.set(key, value);
    if (channel === "status" && key === "traffic") sample(value);
    draw();
  };
  stream.addEventListener("keyrelay.reset", (event) => {
    for (const channel of Object.keys(JSON.parse(event.data).channels)) known[channel]?.clear();
  });
  stream.addEventListener("keyrelay.ready", () => {
    show("live", "live");
    draw();
  });
  stream.addEventListener("keyrelay.end", (event) => {
    const { reason } = JSON.parse(event.data);
    // Nothing else is short here.
    ended = reason === "overload" ? "eight pages watch already" : `ended: ${reason}`;
  });
  stream.onerror = () => {
    show("lost", `${ended ?? "connection lost"}, trying again`);
    ended = undefined;
    if (stream.readyState === EventSource.CLOSED) setTimeout(connect, AGAIN);
  };
}

function show(state, words) {
  document.body.dataset.stream = state;
  set($("stream"), words);
}

// Numbers and times

const whole = new Intl.NumberFormat("en");
const one = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

const count = (number) => (number >= 1e7 ? `${one.format(number / 1e6)} M` : whole.format(number));

function rate(number) {
  if (number >= 1e5) return `${whole.format(Math.round(number / 1e3))} k`;
  return number >= 10 ? whole.format(Math.round(number)) : one.format(number);
}

function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (number >= 1024 && unit < units.length - 1) {
    number /= 1024;
    unit += 1;
  }
  return `${number < 10 && unit > 0 ? one.format(number) : whole.format(Math.round(number))} ${units[unit]}`;
}

/** So many milliseconds, in words. */
function span(ms) {
  const s = ms / 1000;
  if (s < 1) return `${Math.round(ms)} ms`;
  if (s < 10) return `${one.format(s)} s`;
  if (s < 60) return `${Math.round(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** The relay's time. */
const now = () => Date.now() + ahead;

const ago = (since) => span(Math.max(0, Math.floor((now() - since) / 1000) * 1000));

function clock(at) {
  const date = new Date(at);
  const today = new Date().toDateString() === date.toDateString();
  const time = date.toLocaleTimeString("en-GB");
  return today ? time : `${date.toLocaleDateString("en-CA")} ${time}`;
}

// The page

/** Sets a text, if it is another one. */
function set(element, text) {
  text = String(text);
  if (element.textContent !== text) element.textContent = text;
}

/** An element with a class, and texts or elements in it. */
function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

/** A member of the status. */
const member = (name) => known.status.get(name);

/** A message says what was counted until then. */
function sample(traffic) {
  ahead = traffic.at - Date.now();
  const usage = member("process");
  const took = before && traffic.at - before.traffic.at;
  if (before && took > 200 && took < PAUSE) {
    const per = (name) => (Math.max(0, traffic[name] - before.traffic[name]) * 1000) / took;
    for (const [tile, name] of [["tile-events", "key_events"], ["tile-reads", "reads"], ["tile-messages", "messages_sent"]]) {
      set(document.querySelector(`[data-rate="${name}"]`), rate(per(name)));
      spark(tile, per(name));
    }
    if (usage && before.cpu !== undefined) {
      const percent = (Math.max(0, usage.cpu_seconds - before.cpu) * 100_000) / took;
      set($("cpu"), one.format(percent));
      spark("tile-process", percent);
    }
    const { sse, websocket } = member("connections") ?? { sse: 0, websocket: 0 };
    spark("tile-sessions", sse + websocket);
    spark("tile-slow", member("slow_clients")?.blocked ?? 0);
  }
  if (!before || took > 200 || took < 0) before = { traffic, cpu: usage?.cpu_seconds };
}

/** Adds a point to a sparkline, the newest at the right. */
function spark(tile, value) {
  const points = sparks.get(tile) ?? [];
  sparks.set(tile, points);
  points.push(value);
  if (points.length > POINTS) points.shift();
  const most = Math.max(...points, 1e-9);
  const x = (at) => 120 - ((points.length - 1 - at) * 120) / (POINTS - 1);
  const y = (value) => 30.5 - (29 * value) / most;
  const line = points.map((value, at) => `${x(at).toFixed(2)},${y(value).toFixed(2)}`).join("L");
  const [area, path] = document.querySelectorAll(`#${tile} .spark path`);
  path.setAttribute("d", `M${line}`);
  area.setAttribute("d", `M${x(0).toFixed(2)},32L${line}L120,32Z`);
}

let waiting = false;

/** Draws soon what is known, once however much has come. */
function draw() {
  if (waiting) return;
  waiting = true;
  // A page in the background is given no frames.
  const later = document.hidden ? (run) => setTimeout(run, 200) : requestAnimationFrame;
  later(() => {
    waiting = false;
    drawHead();
    drawUpstream();
    drawTiles();
    drawChannels();
    drawGaps();
    drawLists();
  });
}

function drawHead() {
  const [ready, draining, problems] = [member("ready"), member("draining"), member("problems") ?? []];
  if (ready === undefined) return;
  const state = $("state");
  const [word, kind] = draining ? ["draining", "warn"] : ready ? ["ready", "good"] : ["not ready", "bad"];
  set(state, word);
  state.className = `pill ${kind}`;
  document.title = ready ? "keyrelay" : `(!) keyrelay: ${word}`;
  set($("version"), member("version"));
  set($("uptime"), `up ${ago(member("started"))}`);
  const list = $("problems");
  list.hidden = problems.length === 0;
  if (list.dataset.shown !== JSON.stringify(problems)) {
    list.dataset.shown = JSON.stringify(problems);
    list.replaceChildren(...problems.map((problem) => make("li", "", problem.replace(/^\[-\] /, ""))));
  }
}

function drawUpstream() {
  const nodes = member("upstream") ?? [];
  const box = $("upstream");
  const shown = JSON.stringify(nodes);
  if (box.dataset.shown !== shown) {
    box.dataset.shown = shown;
    box.replaceChildren(...nodes.map(node));
  }
  for (const since of box.querySelectorAll("[data-since]")) set(since, `for ${ago(Number(since.dataset.since))}`);
}

function node({ address, role, version, peers_down, heard, readable, current }) {
  const what = [role, version && `version ${version}`].filter(Boolean).join(", ");
  const head = make("div", "head", make("span", "address", address || "not known yet"), make("span", "quiet", what));
  const states = make(
    "div",
    "states",
    condition(heard, "heard", "not heard"),
    condition(readable, "readable", "unreadable"),
    condition(current, "current", "behind"),
  );
  const card = make("article", "node", head, states);
  if (peers_down.length > 0) card.append(make("p", "quiet", `links to peers that are down: ${peers_down.join(", ")}`));
  return card;
}

function condition({ ok, reason, detail, since }, well, ill) {
  const time = make("span", "");
  time.dataset.since = since;
  const why = make("span", "why");
  if (ok) why.append(time);
  else why.append(make("b", "", reason), " ", time, make("br"), detail ?? "");
  return make("div", "condition", make("span", `pill ${ok ? "good" : "bad"}`, ok ? well : ill), why);
}

function drawTiles() {
  const traffic = member("traffic");
  if (traffic) {
    for (const element of document.querySelectorAll("[data-count]")) set(element, count(traffic[element.dataset.count]));
  }
  const connections = member("connections");
  if (connections) {
    set($("sessions"), count(connections.sse + connections.websocket));
    set($("sse"), count(connections.sse));
    set($("websocket"), count(connections.websocket));
  }
  const slow = member("slow_clients");
  if (slow) {
    set($("blocked"), count(slow.blocked));
    set($("slow-ended"), count(slow.ended));
    set($("pinned"), bytes(slow.pinned_bytes));
    $("tile-slow").classList.toggle("alarm", slow.blocked > 0);
  }
  const mirror = member("mirror");
  if (mirror) set($("dirty"), count(mirror.dirty_keys));
  const usage = member("process");
  if (usage) {
    set($("memory"), bytes(usage.resident_bytes));
    set($("files"), count(usage.open_files));
  }
}

/** Keeps the rows of a table to these items: each has a key, is made once, and is filled anew. */
function rows(body, items, cells, fill) {
  const old = new Map([...body.children].map((row) => [row.dataset.key, row]));
  let place = body.firstElementChild;
  for (const [key, item] of items) {
    let row = old.get(key);
    old.delete(key);
    if (!row) {
      row = make("tr", "", ...cells.map(([className, label]) => {
        const cell = make("td", className);
        if (label) cell.dataset.label = label;
        return cell;
      }));
      row.dataset.key = key;
    }
    if (row === place) place = place.nextElementSibling;
    else body.insertBefore(row, place);
    fill(row.children, item);
  }
  for (const row of old.values()) row.remove();
}

function drawChannels() {
  const sum = member("channels");
  const all = [...known.channels].sort(
    ([a, one], [b, other]) => other.lag - one.lag || other.subscribers - one.subscribers || (a < b ? -1 : 1),
  );
  if (sum) {
    const words = [
      `${count(sum.subscribed)} with subscribers`,
      `${count(sum.active - sum.subscribed)} lingering`,
      `${count(sum.subscriptions)} subscriptions`,
      sum.stale > 0 && `${count(sum.stale)} stale`,
      sum.behind > 0 && `${count(sum.behind)} with a slow subscriber`,
      sum.subscribed > all.length && `the first ${all.length} are shown`,
    ];
    set($("channels-sum"), words.filter(Boolean).join(" · "));
  }
  const most = Math.max(1, ...all.map(([, row]) => row.subscribers));
  const cells = [["name wide"], ["quiet"], ["number", "entries"], ["number", "subscribers"], ["number", "lag"], [""]];
  rows($("channels"), all, cells, ([name, mode, entries, subscribers, lag, state], row) => {
    set(name, row.name);
    set(mode, row.mode);
    set(entries, count(row.entries));
    if (!subscribers.firstChild) {
      subscribers.append(make("span", "bar", make("i", "")), make("span", ""));
    }
    subscribers.querySelector("i").style.width = `${(100 * row.subscribers) / most}%`;
    set(subscribers.lastChild, count(row.subscribers));
    set(lag, row.lag > 0 ? `${span(row.lag)} (${count(row.behind)})` : "–");
    lag.classList.toggle("late", row.lag > 0);
    if (!state.firstChild) state.append(make("span", "pill"), make("span", "detail"));
    const [pill, detail] = state.children;
    set(pill, row.stale ? "stale" : "fresh");
    pill.className = `pill ${row.stale ? "bad" : "good"}`;
    set(detail, row.stale ? `${row.stale.reason} for ${ago(row.stale.since)}` : "");
    detail.hidden = !row.stale;
  });
  $("channels-none").hidden = all.length > 0;
  $("channels").parentElement.hidden = all.length === 0;
}

function drawGaps() {
  const all = [...known.gaps].sort(([, one], [, other]) => other.number - one.number);
  const open = all.filter(([, gap]) => gap.took === null).length;
  const words = [
    all.length > 0 && (all.length < KEPT ? `${all.length} since the start` : `the last ${KEPT}`),
    open > 0 && `${open} going on`,
  ];
  set($("gaps-sum"), words.filter(Boolean).join(" · "));
  const cells = [[""], ["name"], ["wide"], ["number", "took"], ["number", "differed"]];
  rows($("gaps"), all, cells, ([since, address, reason, took, differences], gap) => {
    set(since, clock(gap.since));
    since.title = new Date(gap.since).toISOString();
    set(address, gap.address ?? "–");
    if (!reason.firstChild) reason.append(make("span", ""), make("span", "detail"));
    set(reason.firstChild, gap.reason);
    set(reason.lastChild, gap.detail ?? "");
    reason.lastChild.hidden = !gap.detail;
    if (!took.firstChild) took.append(make("span", ""));
    const going = gap.took === null;
    took.firstChild.className = going ? "pill bad" : "";
    set(took.firstChild, going ? `goes on, ${ago(gap.since)}` : span(gap.took));
    set(differences, going ? "–" : count(gap.differences));
  });
  $("gaps-none").hidden = all.length > 0;
  $("gaps").parentElement.hidden = all.length === 0;
}

function drawLists() {
  const sessions = member("sessions");
  if (sessions) list($("ended"), Object.entries(sessions.ended).map(([word, times]) => [word, count(times)]), "none yet");
  const limits = member("limits");
  if (limits) list($("limits"), Object.entries(limits).map(([word, times]) => [word, count(times)]), "none yet");
  const mirror = member("mirror");
  if (mirror) {
    list($("mirror"), [
      ["keys", count(mirror.keys)],
      ["values held", bytes(mirror.log_bytes)],
      ["resyncs", count(mirror.resyncs)],
      ["repairs", count(mirror.repairs)],
    ]);
  }
  const config = member("config");
  if (config) {
    list($("config"), [
      ["read", config.last === null ? "–" : `${ago(config.last)} ago`],
      ["reloads applied", count(config.reloads_applied)],
      ["reloads refused", count(config.reloads_refused)],
    ]);
  }
}

/** Words with a number each. */
function list(element, entries, none) {
  const shown = JSON.stringify(entries);
  if (element.dataset.shown === shown) return;
  element.dataset.shown = shown;
  const pairs = entries.map(([word, text]) => make("div", "", make("dt", "", word), make("dd", "", text)));
  element.replaceChildren(...(pairs.length > 0 ? pairs : [make("div", "", make("dt", "", none))]));
}

// Times grow although nothing comes.
setInterval(() => document.body.dataset.stream === "live" && draw(), 1_000);
connect();
