// A React hook on keyrelay.js: the Map of a channel, and how the stream stands. README.md says how.
import { useMemo, useSyncExternalStore } from "react";
import { KeyRelay } from "./keyrelay.js";

const relays = new Map(); // URL → the one stream of all components
const stores = new WeakMap(); // relay → channel → its store
const PAUSE = 16; // ms: a component is drawn no more often than a screen shows it

/** `source`: a URL, or a KeyRelay where there are options (a token). Gives { values, status, reason } of the channel. */
export function useChannel(source, channel) {
  const store = useMemo(() => storeOf(source, channel), [source, channel]);
  return useSyncExternalStore(store.subscribe, store.snapshot, store.snapshot);
}

function storeOf(source, channel) {
  if (typeof source === "string" && !relays.has(source)) relays.set(source, new KeyRelay(source));
  const relay = typeof source === "string" ? relays.get(source) : source;
  if (!stores.has(relay)) stores.set(relay, new Map());
  const ofRelay = stores.get(relay);
  if (!ofRelay.has(channel)) ofRelay.set(channel, createStore(relay, channel));
  return ofRelay.get(channel);
}

/** What all components that show the channel have in common: it is subscribed to while there is one. */
function createStore(relay, channel) {
  const listeners = new Set();
  let snapshot = { values: new Map(), status: "connecting", reason: "" };
  let values, timer;
  // React tells by identity whether something changed, so a snapshot has a Map of its own.
  const update = () => {
    timer = undefined;
    const behind = relay.stale.get(channel);
    const status = behind ? "stale" : relay.status === "stale" ? "ready" : relay.status;
    snapshot = { values: new Map(values), status, reason: behind ?? (status === "ready" ? "" : relay.reason) };
    for (const listener of listeners) listener();
  };
  const changed = ({ detail }) => {
    if (!detail || detail.channel === channel) timer ??= setTimeout(update, PAUSE);
  };
  return {
    snapshot: () => snapshot,
    subscribe(listener) {
      if (listeners.size === 0) {
        values = relay.subscribe(channel);
        for (const type of ["change", "status"]) relay.addEventListener(type, changed);
      }
      listeners.add(listener);
      return () => {
        listeners.delete(listener);
        if (listeners.size > 0) return;
        relay.unsubscribe(channel);
        for (const type of ["change", "status"]) relay.removeEventListener(type, changed);
        clearTimeout(timer);
        timer = undefined;
      };
    },
  };
}
