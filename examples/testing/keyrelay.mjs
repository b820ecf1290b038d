// Starts keyrelay for a test suite in Node, on free ports, and waits until it is ready.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";

/** Gives the URL, and `stop()`. `env` is for the variables of the config. */
export async function startKeyrelay(config, env = {}) {
  const child = spawn(process.env.KEYRELAY ?? "keyrelay", ["run", config], {
    env: { ...process.env, KEYRELAY_PORT: "0", KEYRELAY_ADMIN_PORT: "0", KEYRELAY_LOG: "warn", ...env },
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(child, "spawn"); // throws where there is no such program
  const stop = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGTERM");
    await once(child, "exit");
  };
  let admin, url;
  for await (const line of createInterface({ input: child.stdout })) {
    admin ??= /^admin (\S+)/.exec(line)?.[1];
    url = /^listening (\S+)/.exec(line)?.[1];
    if (url) break;
  }
  if (!url) throw new Error("keyrelay has ended; its last lines say why");
  child.stdout.resume();
  for (let tries = 0; !(await fetch(`${admin}/readyz`)).ok; tries++) {
    if (tries === 200) {
      await stop();
      throw new Error("keyrelay is not ready after 10 s");
    }
    await pause(50);
  }
  return { url, stop };
}
