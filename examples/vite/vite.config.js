// Vite's dev server with keyrelay on its own origin, below /keyrelay/.
import { defineConfig } from "vite";

export default defineConfig({
  server: {
    proxy: {
      "/keyrelay/": { target: "http://127.0.0.1:7400", ws: true, configure: passStreams },
    },
  },
});

function passStreams(proxy) {
  // Any status but 200 ends a browser's EventSource for good, so a stream that cannot begin is told to come back.
  proxy.on("error", (_error, request, response) => {
    const isStream = request.url.split("?")[0] === "/keyrelay/events";
    if (!isStream || response.headersSent) return; // Vite answers
    response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
    response.end("retry: 1000\n\n");
  });
  // When one side is gone, so is the other.
  proxy.on("proxyReq", (upstream, _request, response) => {
    response.on("close", () => upstream.destroy());
  });
  proxy.on("proxyRes", (upstream, _request, response) => {
    upstream.on("close", () => upstream.complete || response.destroy());
  });
}
