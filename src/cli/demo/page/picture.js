// What one connection has told of its channels: the value of each key.

export class Picture {
  /** key → { channel, value } */
  #keys = new Map();
  /** Counts what was told, so that of two connections the one that is ahead can be found. */
  #told = { epoch: "", sequence: 0 };
  whole = false;

  /** Takes a message or control event, after which the connection's cursor is this. */
  take(event, cursor) {
    if (event.type === "message") {
      if (event.value === null) this.#keys.delete(event.key);
      else this.#keys.set(event.key, event);
      this.#follow(cursor);
    } else if (event.type === "reset") {
      this.whole = false;
      for (const [key, { channel }] of this.#keys) {
        if (channel in event.channels) this.#keys.delete(key);
      }
    } else if (event.type === "ready") {
      this.whole = true;
      this.#follow(cursor);
    } else if (event.type === "connecting") {
      this.whole = false;
    }
  }

  #follow(cursor) {
    // Before the first `ready` there is none.
    if (!cursor) return;
    const [epoch, sequence] = cursor.split("-");
    this.#told = { epoch, sequence: Number(sequence) };
  }

  /** Whether nothing newer is known by the other one. */
  isAheadOf(other) {
    if (this.whole !== other.whole) return this.whole;
    const [ours, theirs] = [this.#told, other.#told];
    return ours.epoch !== theirs.epoch || ours.sequence >= theirs.sequence;
  }

  value(key) {
    return this.#keys.get(key)?.value;
  }

  /** The values of a channel, sorted by key. */
  of(channel) {
    const found = [...this.#keys].filter(([, entry]) => entry.channel === channel);
    return found.map(([key, { value }]) => [key, value]).sort(([a], [b]) => (a < b ? -1 : 1));
  }
}
