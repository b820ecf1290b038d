// A hand-written relay: PSUBSCRIBE, GET, and a loop over the responses of the channel. node.sh starts it.

import http from "node:http";
import net from "node:net";

const [host, serverPort] = process.env.KEYRELAY_BENCH_SERVER.split(":");
const port = Number(process.env.KEYRELAY_BENCH_PORT);
const connect = () => net.connect({ host, port: Number(serverPort), noDelay: true });
const subscribers = new Map();
const asked = [];

const reader = connect();
let replies = Buffer.alloc(0);
reader.on("data", (bytes) => {
  replies = Buffer.concat([replies, bytes]);
  for (;;) {
    const end = replies.indexOf("\r\n");
    if (end < 0) return;
    const length = Number(replies.subarray(1, end));
    const next = length < 0 ? end + 2 : end + 2 + length + 2;
    if (replies.length < next) return;
    const value = length < 0 ? null : replies.toString("utf8", end + 2, end + 2 + length);
    replies = replies.subarray(next);
    const { key, responses } = asked.shift();
    const event = `data: ${JSON.stringify({ channel: key, key, value })}\n\n`;
    for (const response of responses) response.write(event);
  }
});

// A value goes to those who are there when it is asked for, or to one who has just come.
const get = (key, responses) => {
  asked.push({ key, responses });
  reader.write(`*2\r\n$3\r\nGET\r\n$${Buffer.byteLength(key)}\r\n${key}\r\n`);
};

const feed = connect();
feed.write("PSUBSCRIBE __keyspace@0__:*\r\n");
let heard = "";
feed.on("data", (bytes) => {
  heard += bytes;
  for (let end; (end = heard.indexOf("$3\r\nset\r\n")) >= 0; heard = heard.slice(end + 9)) {
    const key = heard.slice(heard.lastIndexOf("@0__:", end) + 5, end - 2);
    const responses = subscribers.get(key);
    if (responses?.size) get(key, responses);
  }
});

const server = http.createServer((request, response) => {
  const channel = new URL(request.url, "http://peer").searchParams.get("channel");
  response.writeHead(200, { "content-type": "text/event-stream" });
  const responses = subscribers.get(channel) ?? new Set();
  subscribers.set(channel, responses.add(response));
  response.on("close", () => responses.delete(response));
  get(channel, [response]);
});
server.listen({ port, host: "127.0.0.1", backlog: 4096 }, () => {
  console.log(`url http://127.0.0.1:${port}/events?channel={channel}`);
});
