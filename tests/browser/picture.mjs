// Takes the pictures of the demo for the documents: what it shows after somebody has clicked all of it.
//     node picture.mjs FOLDER    writes demo.png and demo-dark.png there

import { writeFileSync } from "node:fs";
import { join } from "node:path";

import { chromium } from "playwright-core";

import { openDemo, says, startDemo } from "./demo.mjs";
import { ARGUMENTS, chromiumFile, eventually } from "./harness.mjs";

const SIZE = { width: 1280, height: 1280 };

const [folder] = process.argv.slice(2);
for (const [name, colorScheme] of [["demo", "light"], ["demo-dark", "dark"]]) {
  const demo = await startDemo();
  const browser = await chromium.launch({ executablePath: chromiumFile(), args: ARGUMENTS });
  try {
    // Somebody else is there, in each region.
    for (const region of ["ams", "syd"]) await openDemo(browser, `${demo.url}?region=${region}`);
    const page = await openDemo(browser, demo.url, { viewport: SIZE, colorScheme });
    await act(page);
    const bottom = await page.locator("main").evaluate((main) => main.getBoundingClientRect().bottom);
    // Finer only now: to draw each frame in four times the points would take longer than what is measured.
    const clip = { x: 0, y: 0, width: SIZE.width, height: Math.ceil(bottom), scale: 2 };
    const devtools = await page.context().newCDPSession(page);
    const { data } = await devtools.send("Page.captureScreenshot", { format: "png", clip });
    writeFileSync(join(folder, `${name}.png`), data, "base64");
  } finally {
    await browser.close();
    await demo.stop();
  }
}

/** Clicks all of it, in both regions, and waits until the numbers are there and nothing moves. */
async function act(page) {
  const [ams, syd] = ["Amsterdam", "Sydney"].map((city) => page.getByRole("region", { name: `A visitor in ${city}` }));
  await ams.getByRole("button", { name: "Freeze the server" }).click();
  for (const connection of ["sse", "ws"]) await says(page, connection, "stale");
  for (const connection of ["sse", "ws"]) await says(page, connection, "fresh");
  const say = async (visitor, text) => {
    await visitor.getByLabel("What you say").fill(text);
    await visitor.getByRole("button", { name: "Say" }).click();
  };
  const set = async (visitor, name, value) => {
    await visitor.getByLabel("Name of the key").fill(name);
    await visitor.getByLabel("Value of the key").fill(value);
    await visitor.getByRole("button", { name: "Set" }).click();
  };
  const deeds = [
    ["light", ams, () => ams.getByRole("switch", { name: "Light" }).click()],
    ["counter", syd, () => syd.getByRole("button", { name: "One more" }).click()],
    ["hi", ams, () => say(ams, "good evening")],
    ["hi", syd, () => say(syd, "good morning")],
    ["room", ams, () => set(ams, "mood", "sunny")],
    ...[ams, syd].flatMap((visitor) => ["Step out", "Step in"].map((name) => {
      return ["users", visitor, () => visitor.getByRole("button", { name }).click()];
    })),
    ["counter", ams, () => ams.getByRole("button", { name: "One more" }).click()],
    ["light", syd, () => syd.getByRole("switch", { name: "Light" }).click()],
    ["light", syd, () => syd.getByRole("switch", { name: "Light" }).click()],
    ["room", syd, () => set(syd, "topic", "changed in Sydney")],
  ];
  for (const [widget, visitor, deed] of deeds) {
    const cells = visitor.locator(`[data-widget=${widget}] [data-span=click] td[data-connection]`);
    await cells.evaluateAll((cells) => cells.forEach((cell) => (cell.textContent = "–")));
    await deed();
    await eventually(`${widget} tells its times`, async () => {
      return (await cells.allInnerTexts()).every((text) => text.endsWith("s"));
    });
  }
  await page.evaluate(() => document.activeElement.blur());
  await page.mouse.move(640, 60);
  await eventually("nothing moves", () => page.evaluate(() => document.getAnimations().length === 0));
}
