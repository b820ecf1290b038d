// How long things take until they are on the screen.

// `performance` counts finely and stops while a machine sleeps; `Date` goes on, in whole milliseconds.
let origin = performance.timeOrigin;

/** A time of `performance` in milliseconds since 1970, by the clock that the relay on this machine reads too. */
function since1970(at) {
  const apart = Date.now() - (origin + performance.now());
  if (Math.abs(apart) > 2) origin += apart;
  return origin + at;
}

/** Calls `then` with the time when the frame that shows what was just changed has been drawn. */
function drawn(then) {
  // Nothing is drawn of a page that nobody looks at.
  if (document.hidden) return;
  requestAnimationFrame(() => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => then(performance.now());
    port2.postMessage(null);
  });
}

/** The times of one widget: two spans, over each of two connections. */
export class Times {
  #cells;
  /** The last click, until both connections have shown what it wrote. */
  #click;

  constructor(table) {
    this.#cells = table;
  }

  /**
   * There was a click at this time. `isOurs` says of a key and its value whether that is what it wrote; it may be a promise
   * where only the server's answer tells.
   */
  clicked(at, isOurs) {
    const click = { at, isOurs: undefined, seen: { sse: [], ws: [] } };
    this.#click = click;
    Promise.resolve(isOurs).then(
      (isOurs) => {
        click.isOurs = isOurs;
        for (const connection of ["sse", "ws"]) this.#settle(click, connection);
      },
      () => {
        // It was not written, so nothing will come of it.
        if (this.#click === click) this.#click = undefined;
      },
    );
  }

  /** A message of the widget has come over this connection, and was put on the page. */
  shown(connection, { key, value, heard_at }) {
    const click = this.#click;
    drawn((at) => {
      if (heard_at !== undefined) this.#tell("event", connection, since1970(at) - heard_at);
      if (click === undefined) return;
      click.seen[connection].push({ key, value, at });
      this.#settle(click, connection);
    });
  }

  #settle(click, connection) {
    if (!click.isOurs) return;
    const ours = click.seen[connection].find(({ key, value }) => click.isOurs(key, value));
    if (ours && !click[connection]) {
      click[connection] = true;
      this.#tell("click", connection, ours.at - click.at);
    }
    click.seen[connection] = [];
    if (click.sse && click.ws && this.#click === click) this.#click = undefined;
  }

  #tell(span, connection, milliseconds) {
    const cell = this.#cells.querySelector(`[data-span=${span}] [data-connection=${connection}]`);
    cell.textContent = milliseconds < 1000 ? `${milliseconds.toFixed(1)} ms` : `${(milliseconds / 1000).toFixed(2)} s`;
    flash(cell);
  }
}

/** Lets an element light up for a moment. */
export function flash(element) {
  element.classList.remove("flash");
  // Asking for its width makes the browser notice that the class was gone.
  void element.offsetWidth;
  element.classList.add("flash");
}
