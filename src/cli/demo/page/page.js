// Puts the visitors on the page: one in each region side by side where there is room, else one.

import { Visitor } from "./visitor.js";

const SIDE_BY_SIDE = "(min-width: 1000px)";

const answer = await fetch("/settings.json");
const settings = await answer.json();
const { regions, server, replicated } = settings;
const place = document.getElementById("visitors");

document.getElementById("stage").textContent = replicated
  ? `Two servers that replicate each other, and a relay beside each. The relays do not know of each other.`
  : `Two relays on one server. With KeyDB there are two servers that replicate each other.`;
const [first, second] = regions.map(({ name }) => `relay ${name}`);
const parts = replicated ? [first, "—", server, "⇄", server, "—", second] : [first, "—", server, "—", second];
for (const part of parts) {
  const made = document.createElement(part.length > 1 ? "b" : "i");
  made.textContent = part;
  document.getElementById("plan").append(made);
}

const wanted = new URLSearchParams(location.search).get("region");
const chosen = regions.filter(({ name }) => name === wanted);
const shown = chosen.length ? chosen : matchMedia(SIDE_BY_SIDE).matches ? regions : regions.slice(0, 1);
for (const region of shown) new Visitor(settings, region, place);
