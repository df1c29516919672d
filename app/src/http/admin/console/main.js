// The frame of the console: where one is, how the service is, and which view is shown.

import { html, render, useEffect, useErrorBoundary, useRef, useState, Exactly, Link, State, Wrong } from "./parts.js";
import { on_token, use_token } from "./api.js";
import { watch } from "./live.js";
import { Tree } from "./tree.js";
import { Incident, Incidents } from "./incidents.js";
import { Traces } from "./traces.js";
import { Trace } from "./trace.js";
import { Now } from "./now.js";
import { Sockets } from "./sockets.js";
import { Logs } from "./logs.js";
import { Health, Jobs } from "./work.js";

/** Each view: its path below /console, its name in the menu, and what shows it. */
const VIEWS = [
  ["", "Tree", Tree],
  ["incidents", "Incidents", Incidents],
  ["traces", "Traces", Traces],
  ["now", "Now", Now],
  ["jobs", "Jobs", Jobs],
  ["sockets", "Sockets", Sockets],
  ["health", "Health", Health],
  ["logs", "Logs", Logs],
];
const SINGLE = { incidents: Incident, traces: Trace };

/** Anybody can write anything into an address. */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function place() {
  const [view = "", id] = location.pathname.replace(/^\/console\/?/, "").split("/").map(decoded);
  return { view, id, search: location.search };
}

function Console() {
  const [at, move] = useState(place());
  const [seen, see] = useState(null);
  const [stream, say] = useState("connecting");
  const [locked, lock] = useState(null);
  const menu = useRef(null);
  useEffect(() => {
    const moved = () => move(place());
    addEventListener("popstate", moved);
    on_token((why) => lock((before) => why && (before || why)));
    return () => removeEventListener("popstate", moved);
  }, []);
  useEffect(() => (locked ? undefined : watch(see, say)), [locked]);
  const known = VIEWS.find(([path]) => path === at.view);
  const View = known && (at.id ? SINGLE[at.view] : known[2]);
  useEffect(() => { document.title = `${at.id ? `${at.id.slice(0, 8)} · ` : ""}${known ? known[1] : "Nowhere"} · Console`; }, [at]);
  useEffect(() => {
    const current = menu.current.querySelector("[aria-current]");
    if (current) menu.current.scrollLeft = current.offsetLeft - (menu.current.clientWidth - current.offsetWidth) / 2;
  }, [at.view]);
  return html`
    <a class="skip" href="#main">Skip to the content</a>
    <header>
      <h1><${Link} to="/console"><img src="/console/assets/icon.svg" alt="" width="22" height="22" />Console<//></h1>
      <${Verdict} seen=${seen} stream=${stream} />
      <nav aria-label="Views" ref=${menu}>${VIEWS.map(([path, name]) => html`<${Link} key=${path} to=${`/console${path && `/${path}`}`}
        aria-current=${path === at.view ? "page" : undefined}>${name}<//>`)}</nav>
    </header>
    <main id="main" tabindex="-1">
      ${locked ? html`<${Token} why=${locked} />`
        : View ? html`<${Whole} key=${at.view + at.id}><${View} id=${at.id} search=${at.search} seen=${seen} /><//>`
        : html`<p class="empty">There is no such view. <${Link} to="/console">To the tree<//></p>`}
    </main>`;
}

/** A view that fails costs itself, and says so. */
function Whole({ children }) {
  const [error, again] = useErrorBoundary();
  return error ? html`<${Wrong} error=${error} /><button type="button" onClick=${again}>Try again</button>` : children;
}

/** The verdict of the probes, and whether it is fresh. */
function Verdict({ seen, stream }) {
  const verdict = seen?.health.status === "wedged" ? seen.health : seen?.readiness;
  const known = { ready: "good", degraded: "warn", starting: "busy", draining: "busy" }[verdict?.status] || "bad";
  const tone = stream === "live" ? known : "off";
  return html`<p class="health" role="status">
    ${verdict && html`<${State} tone=${tone}>${verdict.status}<//>`}
    ${stream === "live" ? html`<span class="quiet">live</span>` : html`<${State} tone="wait">not live: ${stream}${seen && html`; as of <${Exactly} ms=${seen.at_ms} />`}<//>`}
  </p>`;
}

function Token({ why }) {
  const submit = (event) => {
    event.preventDefault();
    use_token(new FormData(event.target).get("token").trim());
  };
  return html`<form class="token" onSubmit=${submit}>
    <h2>The operator's token</h2>
    <p>This listener asks for the setting <code>admin.token</code>. It is kept in this tab only, until it is closed.</p>
    ${why === "refused" && html`<p class="wrong" role="alert">This token was refused.</p>`}
    <label>Token <input name="token" type="password" autocomplete="off" required autofocus /></label>
    <button class="primary">Open</button>
  </form>`;
}

render(html`<${Console} />`, document.getElementById("console"));
