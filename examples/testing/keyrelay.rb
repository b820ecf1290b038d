# Starts keyrelay for a test suite in Ruby, on free ports, and waits until it is ready.

require "net/http"

class Keyrelay
  attr_reader :url

  # `env` is for the variables of the config.
  def initialize(config, env = {})
    env = { "KEYRELAY_PORT" => "0", "KEYRELAY_ADMIN_PORT" => "0", "KEYRELAY_LOG" => "warn" }.merge(env)
    output, input = IO.pipe
    @pid = spawn(env, ENV.fetch("KEYRELAY", "keyrelay"), "run", config, out: input)
    input.close
    output.each_line do |line|
      @admin ||= line[/\Aadmin (\S+)/, 1]
      break if (@url = line[/\Alistening (\S+)/, 1])
    end
    raise "keyrelay has ended; its last lines say why" unless @url

    @output = output # which stays open, for what keyrelay may say yet
    200.times { ready? ? return : sleep(0.05) }
    stop
    raise "keyrelay is not ready after 10 s"
  end

  def stop
    Process.kill("TERM", @pid)
    Process.wait(@pid)
  end

  private

  def ready?
    Net::HTTP.get_response(URI("#{@admin}/readyz")).is_a?(Net::HTTPOK)
  end
end
