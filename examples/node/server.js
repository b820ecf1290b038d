// An Express app that writes messages to Redis, and whose page shows them as they come. It publishes nothing.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import express from "express";
import { createClient } from "redis";

const PORT = process.env.PORT ?? 3000;
const KEYRELAY_PORT = process.env.KEYRELAY_PORT ?? 7400;
const PAGE = readFileSync(new URL("index.html", import.meta.url), "utf8");

const redis = createClient({ url: process.env.REDIS_URL ?? "redis://127.0.0.1:6379/0" });
redis.on("error", (error) => console.error(error.message));
await redis.connect();

const app = express();
app.use(express.json());

// Without a proxy the page is told where keyrelay is, which knows this app by `origins`.
app.get("/", (request, response) => {
  const relay = `${request.protocol}://${request.hostname}:${KEYRELAY_PORT}`;
  response.type("html").send(PAGE.replace("{{ relay }}", relay));
});
app.get("/keyrelay.js", (_request, response) => {
  response.sendFile(fileURLToPath(new URL("../browser/keyrelay.js", import.meta.url)));
});
app.post("/messages", async (request, response) => {
  const id = await redis.incr("messages");
  await redis.set(`message:lobby:${id}`, String(request.body.text));
  response.sendStatus(204);
});
app.delete("/messages/:id", async (request, response) => {
  await redis.del(`message:lobby:${request.params.id}`);
  response.sendStatus(204);
});

const listener = app.listen(PORT, "127.0.0.1", (error) => {
  if (error) throw error; // the port is taken, for example
  console.log(`http://127.0.0.1:${listener.address().port}`);
});
