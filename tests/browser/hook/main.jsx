// Components that show channels by the hook of the example: two of one room, one of another, which can be taken out.
import { memo, StrictMode, useState } from "react";
import { createRoot } from "react-dom/client";
import { useChannel } from "example/use-keyrelay.js";

const url = new URLSearchParams(location.search).get("url");
window.rendered = { a: 0, b: 0 };

/** Drawn anew only if its values are other ones, as components are that a compiler made fast. */
const List = memo(({ name, values }) => {
  window.rendered[name]++;
  return <ul>{[...values].sort().map(([key, value]) => <li key={key}>{value}</li>)}</ul>;
});

function Room({ name, id }) {
  const { values, status, reason } = useChannel(url, `room:${name}`);
  return (
    <section id={id} data-status={status} data-reason={reason}>
      <List name={name} values={values} />
    </section>
  );
}

function App() {
  const [shown, setShown] = useState(["first", "second", "other"]);
  window.show = setShown;
  return shown.map((id) => <Room key={id} id={id} name={id === "other" ? "b" : "a"} />);
}

createRoot(document.querySelector("#root")).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
