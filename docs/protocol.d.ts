/**
 * The types of everything that goes over the wire of keyrelay. `protocol.md` beside this file says what it means. Recorded
 * streams are checked against these types, and every member here was seen in one.
 *
 * Members and control events that are not named here may be added: pass over what you do not know.
 */

/* --- values --- */

/** Any JSON. */
export type Json = null | boolean | number | string | Json[] | { [member: string]: Json };

/** Bytes that are not UTF-8, wherever a string would stand. */
export interface Binary {
  /** Of the standard alphabet, padded. */
  base64: string;
}

/** Text as it was written, or bytes that are none. */
export type Text = string | Binary;

/** A hash. A field's name that is not UTF-8, or begins with `base64:`, is `base64:` and its base64. */
export interface Hash {
  [field: string]: Text;
}

/** A member of a sorted set. */
export interface Scored {
  member: Text;
  /** JSON has no infinity. */
  score: number | "inf" | "-inf";
}

/** An entry of a stream. */
export interface StreamEntry {
  /** `<milliseconds>-<sequence>` */
  id: string;
  /** Of a field that an entry has more than once, the last. */
  fields: Hash;
}

/** What a key holds: a string, a hash, a list or set (sorted), a sorted set (by score), a stream; `null`: it does not exist. */
export type Value = null | Text | Hash | Text[] | Scored[] | StreamEntry[];

/* --- payloads --- */

/** What the payloads of the format `json` have in common. */
export interface Change {
  /** The channel's name. */
  channel: string;
  /** The key; of a published message, the name of the Pub/Sub channel. */
  key: Text;
  /** What happened, in the server's words (`set`, `expired`); absent in a snapshot. Do not build on it. */
  event?: string;
  /** When the key expires, in milliseconds since 1970; only of mappings with `expires = true`. */
  expires_at?: number;
  /** When keyrelay heard of it, in milliseconds since 1970 with three decimals; only of mappings with `heard = true`. */
  heard_at?: number;
}

/** A key and its value. With `decode = "json"` it is a `ValueChange<Json>`. */
export interface ValueChange<V = Value> extends Change {
  value: V;
}

/** A key whose value is over `max_value`, or has too many elements to be read. */
export interface TooLarge extends Change {
  too_large: true;
}

/** A payload of the format `json`. */
export type Payload<V = Value> = ValueChange<V> | TooLarge;

/* --- cursors --- */

/** The id of a message, `<epoch>-<sequence>`: a cursor where the client itself keeps the list of channels. */
export type Id = string;

/** `<epoch>-<sequence>-<set>`: where to go on, with the list of channels that it was given for. */
export type Cursor = string;

/* --- control events --- */

/** Everything that was due has been sent, and live messages follow. */
export interface Ready {
  /** Each channel with the number of its values. */
  channels: { [channel: string]: number };
  cursor: Cursor;
  /** The last part of the cursor: an id of a later message, `-`, and this is a cursor too. */
  set: string;
}

/** Forget all that you know of this channel (state mode): its whole state follows, then `ready`. */
export interface Reset {
  channels: { [channel: string]: Record<string, never> };
  reason: string;
}

/** The channel may be behind its keys from here on. */
export interface Stale {
  channels: { [channel: string]: Since };
  reason: string;
}

/** The channel is true again. */
export interface Fresh {
  channels: { [channel: string]: Since };
  /** Why it had been stale. */
  reason: string;
}

/** When a channel became stale. */
export interface Since {
  /** In milliseconds since 1970. */
  since: number;
}

/** Happenings are missing here (events mode). */
export interface Gap {
  channels: { [channel: string]: Missed };
  reason: string;
}

/** How much is missing. */
export interface Missed {
  /** `null`: nobody knows. */
  missed: number | null;
}

/** What allows the client to read comes to its end soon; only for those who asked by `expiring=1`. */
export interface Expiring {
  /** In milliseconds since 1970. */
  expires_at: number;
}

/** The stream ends after this. */
export type End = EndForNow | EndForGood;

/** The client is to come back. */
export interface EndForNow {
  reason: string;
  reconnect: true;
  /** After so many milliseconds. */
  retry: number;
}

/** The client would hear the same again. */
export interface EndForGood {
  reason: string;
  reconnect: false;
  /** What it did wrong, or is to do first. */
  message?: string;
}

/* --- Server-Sent Events: GET /events --- */

/** The query of `/events`; a browser's `EventSource` sends the header `Last-Event-ID` by itself. */
export interface EventsQuery {
  /** As often as there are channels; none: those that the token lists. `channel[]` is the same. */
  channel?: string | string[];
  "channel[]"?: string | string[];
  cursor?: Cursor;
  /** Another name, if `token_parameter` says so. */
  token?: string;
  /** A signed name of a channel. */
  signed?: string | string[];
  turbo_signed_stream_name?: string;
  /** To be told before the credential expires. */
  expiring?: "1";
}

/** The control events of a stream by their names, each with the JSON in its `data`. */
export interface ControlEvents {
  "keyrelay.ready": Ready;
  "keyrelay.reset": Reset;
  "keyrelay.stale": Stale;
  "keyrelay.fresh": Fresh;
  "keyrelay.gap": Gap;
  "keyrelay.expiring": Expiring;
  "keyrelay.end": End;
}

/* --- WebSocket: GET /ws --- */

/** The query of `/ws`. */
export interface WebSocketQuery extends EventsQuery {
  /** The frames are bare payloads. */
  raw?: "1";
}

/** What a client sends. */
export type ClientMessage = Subscribe | Unsubscribe | Renew | Ping;

/** Adds channels to the list. */
export interface Subscribe {
  type: "subscribe";
  channels: string[];
  cursor?: Cursor;
  /** A whole number, which comes back in `ready` and `error`. */
  ref?: number;
}

/** Takes channels out of the list; the answer is a `ready` for those that are left. */
export interface Unsubscribe {
  type: "unsubscribe";
  channels: string[];
  ref?: number;
}

/** Shows another token in place of all that was shown before. */
export interface Renew {
  type: "renew";
  token: string;
  ref?: string | number;
}

/** Asks for a `pong`. */
export interface Ping {
  type: "ping";
  ref?: string | number;
}

/** What a client gets; a payload that is not JSON is a string. */
export type ServerMessage<P = Payload | string> = Message<P> | Control | ErrorMessage | Pong | Renewed;

/** A message of a channel. */
export interface Message<P = Payload | string> {
  type: "message";
  channel: string;
  /** Of live messages only. */
  id?: Id;
  /** The `event_name` of the mapping. */
  name?: string;
  data: P;
}

/** The control events. */
export type Control =
  | ({ type: "ready"; ref?: number } & Ready)
  | ({ type: "reset"; id: Id } & Reset)
  | ({ type: "stale"; id?: Id } & Stale)
  | ({ type: "fresh"; id?: Id } & Fresh)
  | ({ type: "gap"; id?: Id } & Gap)
  | ({ type: "expiring" } & Expiring)
  | ({ type: "end" } & EndForNow)
  | ({ type: "end" } & EndForGood);

/** A channel, or (without `channel`) the whole message, was refused; the connection goes on. */
export interface ErrorMessage {
  type: "error";
  channel?: string;
  reason: string;
  /** A sentence for people. */
  message: string;
  ref?: string | number;
}

/** The answer to `ping`. */
export interface Pong {
  type: "pong";
  ref?: string | number;
}

/** The answer to `renew`. */
export interface Renewed {
  type: "renewed";
  /** In milliseconds since 1970; `null`: nothing that the client reads has an end. */
  expires_at: number | null;
  ref?: string | number;
}

/* --- State over plain HTTP: GET /channels --- */

/** The query of `/channels`. */
export interface ChannelsQuery {
  channel?: string | string[];
  "channel[]"?: string | string[];
  token?: string;
  signed?: string | string[];
  turbo_signed_stream_name?: string;
}

/** The answer of `/channels`. */
export interface Channels<P = Payload | string> {
  /** The values that are there, or the happenings that are still kept. */
  channels: { [channel: string]: P[] };
  /** Where `/events` and `/ws` go on with the same list. */
  cursor: Cursor;
  /** The channels that may be behind. */
  stale?: { [channel: string]: StaleSince };
}

/** Why and since when a channel may be behind. */
export interface StaleSince extends Since {
  reason: string;
}

/* --- Refusals --- */

/** The body of every status but 200. */
export interface Refusal {
  /** What is wrong, and what to do instead. */
  error: string;
  /** The channels that are refused, each with why. */
  channels?: { [channel: string]: string };
}
