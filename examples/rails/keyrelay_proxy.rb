# Leads what is asked below /keyrelay/ to keyrelay, so that in development its streams are of the app's own origin. In production
# nginx, Caddy or the like does that: see docs/proxies.md.

require "socket"

# The connection is taken out of Puma, as Action Cable does it: a stream holds none of Puma's threads.
class KeyrelayProxy
  # Any status but 200 ends a browser's EventSource for good, so while keyrelay is away a stream is told to come back.
  AWAY = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n" \
         "retry: 1000\n\n"
  # Whoever asks for anything else is to see that it failed.
  BAD_GATEWAY = "HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

  def initialize(app, host: "127.0.0.1", port: 7400, path: "/keyrelay/")
    @app, @host, @port, @path = app, host, port, path
  end

  def call(env)
    return @app.call(env) unless env["PATH_INFO"].start_with?(@path)

    env["rack.hijack"].call
    away = env["PATH_INFO"] == "#{@path}events" ? AWAY : BAD_GATEWAY
    Thread.new { pass(env["rack.hijack_io"], head(env), away) }
    [-1, {}, []]
  end

  private

  def head(env)
    headers = env.filter_map { |name, value| [name[5..].tr("_", "-"), value] if name.start_with?("HTTP_") }.to_h
    headers.delete("VERSION")
    headers["CONNECTION"] = "close" unless headers["UPGRADE"]
    lines = headers.map { |name, value| "#{name}: #{value}\r\n" }
    "#{env["REQUEST_METHOD"]} #{env["REQUEST_URI"]} HTTP/1.1\r\n#{lines.join}\r\n"
  end

  def pass(client, head, away)
    keyrelay = TCPSocket.new(@host, @port)
    keyrelay.write(head)
    Thread.new { copy(client, keyrelay) }
    copy(keyrelay, client)
  rescue SocketError, SystemCallError
    client.write(away)
  ensure
    client.close
  end

  # Until one side is gone; then the other goes too.
  def copy(from, to)
    loop { to.write(from.readpartial(16_384)) }
  rescue IOError, SystemCallError
    to.close
  end
end
