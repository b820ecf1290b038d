/** One stream for many channels, each a Map of key → value that comes to hold what the server holds: see README.md.
    Fires "change" ({ channel, key, value }), "status", "gap" ({ channels, reason }), and with `text` just "text". */
export class KeyRelay extends EventTarget {
  status = "idle"; // connecting, ready, stale; or it does not go on by itself: refused, ended, closed
  reason = ""; // why it is not ready
  stale = new Map(); // channel → why it may be behind
  #channels = new Map(); // name → { values, old }: `old` are keys that the state which is being sent has not named
  #source; #timer; #turn = 0; #failures = 0; #cursor = ""; #set = "";
  /** `token()` gives a token, or a promise of one, at each opening; `text` and `withCredentials` are true or false. */
  constructor(url, options = {}) { Object.assign(super(), { url }, options); }
  subscribe(name) { // gives the channel's Map, which is kept up to date until `unsubscribe`
    if (!this.#channels.has(name)) this.#relist(this.#channels.set(name, { values: new Map(), old: new Set() }));
    return this.#channels.get(name).values;
  }
  unsubscribe(name) { if (this.#channels.delete(name)) this.#relist(); }
  close(status = "closed", reason) {
    this.#turn++; // what is awaited now comes too late
    clearTimeout(this.#timer); this.#source?.close();
    this.#say(status, reason);
  }
  #fire(type, detail) { this.dispatchEvent(new CustomEvent(type, { detail })); }
  #say(status, reason = "") { Object.assign(this, { status, reason }).#fire("status"); }
  #openIn(milliseconds) { this.#timer = setTimeout(() => this.#open(), milliseconds); }
  #again(reason) {
    this.close("connecting", reason);
    this.#openIn(Math.min(30_000, 1000 * 2 ** this.#failures++) * (0.5 + Math.random() / 2));
  }
  #relist() { this.#set = ""; this.close("connecting"); this.#openIn(0); } // of another list a cursor is unknown
  async #open() {
    if (this.#channels.size === 0) return this.close("idle");
    const turn = ++this.#turn;
    try {
      const url = new URL(this.url, location.href), token = await this.token?.();
      for (const name of this.#channels.keys()) url.searchParams.append("channel", name);
      if (token) for (const [name, value] of Object.entries({ token, expiring: 1 })) url.searchParams.set(name, value);
      const refusal = this.#failures && (await this.#refusal(url)); // an EventSource does not tell why it failed
      if (turn === this.#turn) refusal ? this.close("refused", refusal) : this.#listen(url);
    } catch (error) { if (turn === this.#turn) this.#again(error.message); }
  }
  async #refusal(url) {
    const answer = await fetch(url, { credentials: this.withCredentials ? "include" : "same-origin" });
    const { ok, status } = answer, type = answer.headers.get("content-type")?.split(";")[0];
    if (ok && type !== "text/event-stream") throw new Error("no stream is at this URL"); // a page of the app, say
    if (status === 429 || status >= 500 || !(ok || type === "application/json")) throw new Error(`status ${status}`);
    return ok ? answer.body.cancel() : JSON.stringify(await answer.json());
  }
  #listen(url) {
    this.close("connecting"); // with another token it goes on where the one before has come to
    if (this.#cursor) url.searchParams.set("cursor", `${this.#cursor}-${this.#set}`);
    const source = (this.#source = new EventSource(url, this)); // which looks for `withCredentials`
    const on = (name, handle) => source.addEventListener(name, ({ data, lastEventId }) => {
      this.#cursor = lastEventId || this.#cursor;
      handle(this.text && name === "message" ? data : JSON.parse(data));
    });
    const begin = (channel) => { channel.old = new Set(channel.values.keys()); };
    const tell = () => this.#say(this.stale.size ? "stale" : "ready", [...this.stale.values()][0]);
    source.onopen = () => { this.stale.clear(); if (!this.#cursor) this.#channels.forEach(begin); };
    source.onerror = () => (source.readyState === EventSource.CLOSED ? this.#again("failed") : this.#say("connecting"));
    on("message", (data) => (this.text ? this.#fire("text", data) : this.#change(data)));
    on("keyrelay.reset", ({ channels }) => Object.keys(channels).forEach((name) => begin(this.#channels.get(name))));
    on("keyrelay.stale", ({ channels, reason }) => { for (const at in channels) this.stale.set(at, reason); tell(); });
    on("keyrelay.fresh", ({ channels }) => { for (const at in channels) this.stale.delete(at); tell(); });
    on("keyrelay.ready", ({ channels, set }) => {
      for (const channel in channels)
        for (const key of this.#channels.get(channel).old) this.#change({ channel, key, value: null });
      [this.#set, this.#failures] = [set, 0]; tell();
    });
    on("keyrelay.gap", (gap) => this.#fire("gap", gap));
    on("keyrelay.expiring", () => this.#openIn(1000 + 4000 * Math.random())); // there is half a minute: not all at once
    on("keyrelay.end", ({ reason, reconnect }) => {
      if (!reconnect) this.token && reason === "expired" ? this.#again(reason) : this.close("ended", reason);
    });
  }
  #change({ channel, key, value }) {
    const { values, old } = this.#channels.get(channel), name = typeof key === "string" ? key : JSON.stringify(key);
    old.delete(name);
    value === null ? values.delete(name) : values.set(name, value);
    this.#fire("change", { channel, key: name, value });
  }
}
