// Values that a stream's format could break, each with what a raw stream makes of it.

const LONG = 1 << 20;

export const VALUES = {
  lf: "a\nb",
  cr: "a\rb",
  crlf: "a\r\nb",
  mixed: "a\r\rb\n\r\nc\n\nd",
  ends: "\na\n",
  empty: "",
  mark: "\u{feff}a\u{feff}",
  nul: "a\0b",
  spaces: "  a ",
  colon: ":a\n: b",
  fields: "x\n\nid: 7\nevent: other\nretry: 1\n\ndata: y",
  long: "x".repeat(LONG),
  lines: "line\r\n".repeat(1000),
  text: "\u{e9} \u{1f600} \u{2028}\u{2029}",
};

/** Server-Sent Events know one line end: which of the three was written, only JSON can tell. */
export const asLines = (text) => text.replace(/\r\n|\r/g, "\n");

/** Every value in a channel of JSON, and raw in a channel of its own, each message with its name. */
export const MAPPINGS = `
[defaults]
max_value = "2MiB"

[[mapping]]
key = "json:{name}"
channel = "json"
access = "public"

[[mapping]]
key = "raw:{name}"
format = "raw"
access = "public"

[[mapping]]
key = "room:{room}:{id}"
channel = "room:{room}"
access = "public"

[[mapping]]
key = "message:{room}:{id}"
channel = "room:{room}"
access = "public"
`;

/** Writes every value as JSON channel and raw channel want it. */
export async function writeValues(server) {
  for (const [name, value] of Object.entries(VALUES)) {
    await server.run("SET", `json:${name}`, value);
    await server.run("SET", `raw:${name}`, value);
  }
}
