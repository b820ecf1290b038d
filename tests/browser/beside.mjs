// The proxies of `examples/`, each started with its file as it stands there but for the ports.

import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { createServer } from "vite";

import { end, eventually, freePort, program } from "./harness.mjs";

const HERE = fileURLToPath(new URL(".", import.meta.url));

/** The file of an example, as text. */
export const example = (name) => readFileSync(new URL(`../../examples/${name}`, import.meta.url), "utf8");

/** A file with other ports: each text must be there, so that a file that has changed is not tested as if it had not. */
function replaced(text, ports) {
  for (const [from, to] of Object.entries(ports)) {
    if (!text.includes(from)) throw new Error(`the file has no ${from}`);
    text = text.replaceAll(from, to);
  }
  return text;
}

/** Starts a program, and waits until something answers at the port. */
async function started(file, parameters, port, env = process.env) {
  const child = spawn(file, parameters, { env, stdio: ["ignore", "pipe", "pipe"] });
  let log = "";
  for (const pipe of [child.stdout, child.stderr]) pipe.on("data", (piece) => (log += piece));
  child.logged = () => log;
  await eventually(`${file} answers`, async () => {
    if (child.exitCode !== null) throw new Error(`${file} ended: ${log}`);
    return fetch(`http://127.0.0.1:${port}/`);
  });
  return child;
}

/** nginx, which logs what it logs where the example does not forbid it; `more` stands in its `server`. With `tls` there is a
 * second, encrypted port. */
export async function startNginx({ relay, app, more = "", tls = false }) {
  const dir = mkdtempSync(join(tmpdir(), "keyrelay-nginx-"));
  const [port, secured] = [await freePort(), await freePort()];
  let listen = `listen 127.0.0.1:${port};\n${more}`;
  if (tls) {
    const [key, certificate] = [join(dir, "key.pem"), join(dir, "certificate.pem")];
    const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"];
    const files = ["-keyout", key, "-out", certificate];
    const kind = ["-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
    execFileSync("openssl", ["req", ...kind, ...files, ...subject], { stdio: "ignore" });
    listen += `listen 127.0.0.1:${secured} ssl http2;\nssl_certificate ${certificate};\nssl_certificate_key ${key};\n`;
  }
  writeFileSync(
    join(dir, "keyrelay.conf"),
    replaced(example("nginx/keyrelay.conf"), {
      "listen 8080;": listen,
      "127.0.0.1:7400": `127.0.0.1:${relay.port}`,
      "127.0.0.1:3000": new URL(app.origin).host,
      "/var/log/nginx/error.log": `${dir}/error.log`,
    }),
  );
  // All that could hold a stream back is on, as it may be in the file that this one is put into.
  const bodies = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((kind) => `${kind}_temp_path ${dir}/${kind};\n`);
  writeFileSync(
    join(dir, "nginx.conf"),
    `daemon off;\npid ${dir}/pid;\nerror_log ${dir}/error.log;\n${process.getuid() === 0 ? "user root;\n" : ""}events {}\n` +
      `http {\naccess_log ${dir}/access.log;\ngzip on;\ngzip_types *;\ngzip_proxied any;\ngzip_min_length 0;\n` +
      `${bodies.join("")}include ${dir}/keyrelay.conf;\n}\n`,
  );
  // Debian puts it where users have no PATH to.
  const file = program(["nginx", "/usr/sbin/nginx"]);
  const child = await started(file, ["-e", "stderr", "-p", dir, "-c", join(dir, "nginx.conf")], port);
  return {
    origin: `http://127.0.0.1:${port}`,
    secured: `https://127.0.0.1:${secured}`,
    logged: () => ["access.log", "error.log"].map((name) => readFileSync(join(dir, name), "utf8")).join(""),
    async stop() {
      await end(child, "SIGTERM");
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** Caddy. */
export async function startCaddy({ relay, app }) {
  const dir = mkdtempSync(join(tmpdir(), "keyrelay-caddy-"));
  const port = await freePort();
  writeFileSync(
    join(dir, "Caddyfile"),
    `{\n\tadmin off\n}\n${replaced(example("caddy/Caddyfile"), {
      ":8080 {": `http://127.0.0.1:${port} {`,
      "127.0.0.1:7400": `127.0.0.1:${relay.port}`,
      "127.0.0.1:3000": new URL(app.origin).host,
    })}`,
  );
  const env = { ...process.env, HOME: dir, XDG_DATA_HOME: dir, XDG_CONFIG_HOME: dir };
  const parameters = ["run", "--adapter", "caddyfile", "--config", join(dir, "Caddyfile")];
  const child = await started(program(["caddy"]), parameters, port, env);
  return {
    origin: `http://127.0.0.1:${port}`,
    logged: child.logged,
    async stop() {
      await end(child, "SIGTERM");
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** Vite's dev server for the pages in `root`, a folder here; `example/` are the files of `examples/browser`. */
export async function startVite({ relay, root }) {
  // Where the config finds the package `vite`.
  const dir = mkdtempSync(join(HERE, "node_modules", ".vite-"));
  const file = join(dir, "vite.config.mjs");
  writeFileSync(file, replaced(example("vite/vite.config.js"), { "127.0.0.1:7400": `127.0.0.1:${relay.port}` }));
  const vite = await createServer({
    configFile: file,
    root: join(HERE, root),
    cacheDir: join(dir, "cache"),
    logLevel: "silent",
    esbuild: { jsx: "automatic" },
    resolve: { alias: { example: join(HERE, "../../examples/browser") }, dedupe: ["react"] },
    server: { host: "127.0.0.1", port: await freePort(), strictPort: true, fs: { strict: false } },
  });
  await vite.listen();
  return {
    origin: `http://127.0.0.1:${vite.config.server.port}`,
    async stop() {
      await vite.close();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
