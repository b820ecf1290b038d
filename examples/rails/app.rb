# A Rails app in one file that writes messages to Redis, and whose page shows them as they come. It publishes nothing.

require "action_controller/railtie"
require "redis"
require_relative "keyrelay_proxy"

REDIS = Redis.new(url: ENV.fetch("REDIS_URL", "redis://127.0.0.1:6379/0"))

class Chat < Rails::Application
  config.eager_load = false
  config.logger = Logger.new($stderr)
  config.secret_key_base = ENV.fetch("SECRET_KEY_BASE") { SecureRandom.hex(64) }
  config.middleware.insert_before 0, KeyrelayProxy, port: ENV.fetch("KEYRELAY_PORT", 7400).to_i

  routes.append do
    root "messages#index"
    resources :messages, only: %i[create destroy]
  end
end
Chat.initialize!

class MessagesController < ActionController::Base
  # Turbo sends the token of the page along, also for the forms that keyrelay's template made.
  protect_from_forgery with: :exception

  def index
    render inline: PAGE
  end

  # What was written is shown when it comes back, as in every other tab: there is nothing to answer.
  def create
    REDIS.set("message:#{REDIS.incr("messages")}", params.require(:text))
    head :no_content
  end

  def destroy
    REDIS.del("message:#{params[:id].to_i}")
    head :no_content
  end

  PAGE = <<~HTML
    <!doctype html>
    <title>Messages</title>
    <%= csrf_meta_tags %>
    <script type="module" src="https://cdn.jsdelivr.net/npm/@hotwired/turbo@8.0.23/dist/turbo.es2017-esm.js"></script>
    <script>addEventListener("turbo:submit-end", ({ target }) => target.reset?.())</script>
    <turbo-stream-source src="/keyrelay/events?channel=messages"></turbo-stream-source>

    <ul id="messages"></ul>
    <%= form_with url: messages_path do |form| %>
      <%= form.text_field :text, required: true, placeholder: "A message" %>
      <%= form.submit "Send" %>
    <% end %>
  HTML
end
