// The two ways from a relay to the page. Both tell `hear` the same: messages, control events, and that they are connecting.

const CONTROL = ["ready", "reset", "stale", "fresh", "gap", "end"];

/** How far one connection has come: what a relay is told to go on from there. */
class Cursor {
  #set = "";
  text;

  constructor(text) {
    this.text = text;
  }

  follow(event, id) {
    if (event.type === "ready") {
      this.text = event.cursor;
      this.#set = event.set;
    } else if (event.type === "reset") {
      this.text = undefined;
    } else if (event.type === "message" && id && this.#set) {
      this.text = `${id}-${this.#set}`;
    }
  }
}

/** Server-Sent Events: the browser connects again by itself. */
export function overSse(relay, channels, from, hear) {
  const cursor = new Cursor(from);
  const query = new URLSearchParams(channels.map((channel) => ["channel", channel]));
  if (from) query.set("cursor", from);
  const tell = (event, id) => {
    cursor.follow(event, id);
    hear(event, cursor.text);
  };
  tell({ type: "connecting" });
  const source = new EventSource(`${relay}/events?${query}`);
  source.onmessage = ({ data, lastEventId }) => tell({ type: "message", ...JSON.parse(data) }, lastEventId);
  for (const type of CONTROL) {
    source.addEventListener(`keyrelay.${type}`, ({ data }) => tell({ type, ...JSON.parse(data) }));
  }
  source.onerror = () => tell({ type: source.readyState === EventSource.CLOSED ? "refused" : "connecting" });
  return {
    close: () => source.close(),
    cursor: () => cursor.text,
  };
}

/** WebSocket: connecting again is ours to do. */
export function overWebSocket(relay, channels, from, hear) {
  const cursor = new Cursor(from);
  const tell = (event, id) => {
    cursor.follow(event, id);
    hear(event, cursor.text);
  };
  let socket;
  let again;
  const connect = () => {
    tell({ type: "connecting" });
    socket = new WebSocket(`${relay.replace("http", "ws")}/ws`, "keyrelay.v1.json");
    socket.onopen = () => socket.send(JSON.stringify({ type: "subscribe", channels, cursor: cursor.text }));
    socket.onmessage = ({ data }) => {
      const event = JSON.parse(data);
      if (event.type === "message") tell({ type: "message", ...event.data }, event.id);
      else tell(event);
    };
    // Not all at once, after whatever has ended them all at once.
    socket.onclose = () => (again = setTimeout(connect, 1000 + 1000 * Math.random()));
  };
  connect();
  return {
    close() {
      socket.onclose = socket.onmessage = null;
      clearTimeout(again);
      socket.close();
    },
    cursor: () => cursor.text,
  };
}
