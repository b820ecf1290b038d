# A test in Ruby: what the app writes reaches a browser.

require "minitest/autorun"
require "redis"
require_relative "keyrelay"

KEYRELAY = Keyrelay.new(File.expand_path("keyrelay.toml", __dir__))
Minitest.after_run { KEYRELAY.stop }

class LiveTest < Minitest::Test
  def setup
    @redis = Redis.new(url: ENV.fetch("REDIS_URL", "redis://127.0.0.1:6379/0"))
    @redis.flushdb
  end

  def test_what_is_written_is_shown
    heard = hear("room:lobby", '"value":"hello"') { @redis.set("message:lobby:1", "hello") }
    assert_includes heard, '"key":"message:lobby:1"'
  end

  private

  # Opens the stream of a channel, yields when it is ready, and reads on until this text has come.
  def hear(channel, text)
    uri = URI("#{KEYRELAY.url}/events?channel=#{channel}")
    heard = +""
    Net::HTTP.start(uri.host, uri.port, read_timeout: 10) do |http|
      http.request_get(uri) do |response|
        was_ready = false
        response.read_body do |piece|
          heard << piece
          yield if !was_ready && (was_ready = heard.include?("keyrelay.ready"))
          return heard if heard.include?(text)
        end
      end
    end
    flunk "the stream ended: #{heard}"
  end
end
