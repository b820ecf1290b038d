// What is recorded, by where it is heard; of payloads also those of mappings with `decode = "json"`.
import type {
  Channels,
  ChannelsQuery,
  ClientMessage,
  ControlEvents,
  EventsQuery,
  Json,
  Payload,
  Refusal,
  ServerMessage,
  WebSocketQuery,
} from "../../docs/protocol";

export interface Recorded {
  payload: Payload;
  decoded: Payload<Json>;
  control: Partial<ControlEvents>;
  client: ClientMessage;
  server: ServerMessage;
  channels: Channels;
  refusal: Refusal;
  events: EventsQuery;
  socket: WebSocketQuery;
  state: ChannelsQuery;
}
