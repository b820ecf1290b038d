// The widgets: what each shows of a picture, and what a click on it writes. Whatever a value holds is put in as text.

import { flash } from "./times.js";

const part = (root, name) => root.querySelector(`[data-part=${name}]`);

/** A value as a person reads it. */
const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));

function element(name, className, content) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.textContent = content ?? "";
  return made;
}

/** One light. */
export function light(root, visitor) {
  const bulb = part(root, "switch");
  bulb.addEventListener("click", (click) => {
    const on = bulb.getAttribute("aria-checked") !== "true";
    visitor.write("light", click, { do: "light", on }, () => (key, value) => value === (on ? "on" : "off"));
  });
  return {
    channel: "light",
    command: "set light on",
    render(picture) {
      const value = picture.value("light");
      bulb.setAttribute("aria-checked", String(value === "on"));
      part(root, "state").textContent = value === undefined ? "off" : text(value);
    },
  };
}

/** One number. */
export function counter(root, visitor) {
  const number = part(root, "number");
  for (const button of root.querySelectorAll("[data-by]")) {
    const by = Number(button.dataset.by);
    // Only the server knows what it becomes; others may have counted on before it comes.
    const passed = (answer) => (key, value) => (by > 0 ? Number(value) >= answer.number : Number(value) <= answer.number);
    button.addEventListener("click", (click) => visitor.write("counter", click, { do: "count", by }, passed));
  }
  return {
    channel: "counter",
    command: "incr counter",
    render(picture) {
      const value = text(picture.value("counter") ?? "0");
      if (number.textContent === value) return;
      number.textContent = value;
      flash(number);
    },
  };
}

/** Who is where. */
export function users(root, visitor) {
  const list = part(root, "present");
  const rows = new Map();
  for (const { name, city } of visitor.settings.regions) {
    const count = element("dd", "count", "0");
    const faces = element("dd", "faces");
    list.append(element("dt", "", city), count, faces);
    rows.set(name, { count, faces });
  }
  const step = part(root, "step");
  step.addEventListener("click", (click) => visitor.step(click));
  return {
    channel: "users",
    command: `set user:${visitor.settings.regions[1].name}:you Guest ex 20`,
    render(picture) {
      const present = picture.of("users").map(([key, value]) => ({ key, name: text(value), region: key.split(":")[1] }));
      for (const [region, { count, faces }] of rows) {
        const here = present.filter((user) => user.region === region);
        count.textContent = String(here.length);
        faces.replaceChildren(
          ...here.slice(0, 12).map(({ key, name }) => {
            const face = element("span", key === visitor.user.key ? "face own" : "face", [...name][0]?.toUpperCase());
            face.title = name;
            return face;
          }),
        );
      }
      part(root, "name").textContent = visitor.user.name;
      step.textContent = visitor.user.present ? "Step out" : "Step in";
    },
  };
}

/** Greetings, the newest first. */
export function hi(root, visitor) {
  const form = part(root, "form");
  let greetings = 0;
  form.addEventListener("submit", (submit) => {
    submit.preventDefault();
    const id = `${visitor.user.id}-${(greetings += 1)}`;
    const said = { do: "hi", id, name: visitor.user.name, text: form.elements.text.value };
    form.reset();
    visitor.write("hi", submit, said, () => (key, value) => value?.some?.((greeting) => greeting?.id === id));
  });
  const city = (name) => visitor.settings.regions.find((region) => region.name === name)?.city;
  return {
    channel: "hi",
    command: 'lpush hi hello',
    render(picture) {
      const list = picture.value("hi");
      const items = Array.isArray(list) ? list : [];
      part(root, "feed").replaceChildren(
        ...items.slice(0, 5).map((greeting) => {
          const item = element("li");
          // From a terminal it may be any text.
          const { name = "terminal", region, text: words = text(greeting) } = Object(greeting);
          item.append(element("b", "", text(name)), element("span", "from", city(region) ?? ""), element("p", "", text(words)));
          return item;
        }),
      );
    },
  };
}

/** The keys of one room, as a table. */
export function room(root, visitor) {
  const prefix = "room:lobby:";
  const body = part(root, "rows");
  const form = part(root, "form");
  const rows = new Map();
  form.addEventListener("submit", (submit) => {
    submit.preventDefault();
    const [name, written] = [form.elements.name.value, form.elements.value.value];
    form.reset();
    visitor.write("room", submit, { do: "set", name, value: written }, () => (key, value) => {
      return key === prefix + name && value === written;
    });
  });
  const makeRow = (key) => {
    const row = document.createElement("tr");
    const remove = element("button", "plain", "delete");
    remove.type = "button";
    const name = key.slice(prefix.length);
    remove.setAttribute("aria-label", `Delete ${name}`);
    remove.addEventListener("click", (click) => {
      visitor.write("room", click, { do: "delete", name }, () => (changed, value) => changed === key && value === null);
    });
    const last = document.createElement("td");
    last.append(remove);
    row.append(element("th", "", name), element("td"), last);
    row.cells[0].scope = "row";
    return row;
  };
  return {
    channel: "room:lobby",
    command: 'set room:lobby:toast "gone in five seconds" ex 5',
    render(picture) {
      // A key that is no text has no row: nothing could be typed to change it.
      const shown = new Map(picture.of("room:lobby").filter(([key]) => typeof key === "string"));
      for (const [key, row] of rows) {
        if (shown.has(key)) continue;
        row.remove();
        rows.delete(key);
      }
      let before = null;
      for (const [key, value] of shown) {
        const row = rows.get(key) ?? makeRow(key);
        if (row.cells[1].textContent !== text(value)) {
          row.cells[1].textContent = text(value);
          flash(row);
        }
        const place = before ? before.nextSibling : body.firstChild;
        if (row !== place) body.insertBefore(row, place);
        rows.set(key, row);
        before = row;
      }
    },
  };
}
