// The latest traces, with a search; the search stands in the link.

import { html, useEffect, useRef, useState, Answered, Empty, Link, State, When, Wrong, go, trace_path, useAnswer } from "./parts.js";
import { ask, query } from "./api.js";
import { count, duration } from "./format.js";

const FIELDS = ["name", "tenant", "min_ms", "errors"];

/** Lists are asked for again as spans begin and end, and no more often than this. */
const FRESH_MS = 2000;

/** Counts up while `value` changes and `on` is true, but not too often. */
export function useFresh(value, on) {
  const [version, set] = useState(0);
  const last = useRef(performance.now());
  useEffect(() => {
    if (!on || value === undefined) return undefined;
    const wait = Math.max(0, last.current + FRESH_MS - performance.now());
    const timer = setTimeout(() => { last.current = performance.now(); set((n) => n + 1); }, wait);
    return () => clearTimeout(timer);
  }, [value, on]);
  return version;
}

/** Its fields have defaults and no values: they are drawn again each second, and would be overwritten while somebody types. */
export function Traces({ search, seen }) {
  const asked = Object.fromEntries(FIELDS.map((name) => [name, new URLSearchParams(search).get(name) || ""]));
  const [following, set_following] = useState(true);
  const [searches, search_again] = useState(0);
  const [more, set_more] = useState([]);
  const path = query("/admin/traces", asked);
  const recorded = seen?.recorded;
  const answer = useAnswer(path, `${useFresh(recorded?.spans, following)} ${searches}`);
  useEffect(() => set_more([]), [path]);
  // Either the latest, or what came before: a page behind the first one would no longer follow it.
  const follow = (on) => { set_following(on); if (on) set_more([]); };
  const add = (next) => { set_following(false); set_more([...more, next]); };
  const submit = (event) => {
    event.preventDefault();
    set_more([]);
    search_again(searches + 1);
    go(query("/console/traces", Object.fromEntries(new FormData(event.target))));
  };
  return html`<h2>Traces</h2>
    <form class="search" role="search" onSubmit=${submit} key=${search}>
      <label>Name of the root <input name="name" defaultValue=${asked.name} placeholder="any" /></label>
      <label>Tenant <input name="tenant" defaultValue=${asked.tenant} placeholder="any" /></label>
      <label>At least, ms <input name="min_ms" defaultValue=${asked.min_ms} inputmode="numeric" pattern="[0-9]*" size="6" /></label>
      <label class="check"><input type="checkbox" name="errors" value="true" defaultChecked=${asked.errors === "true"} /> Failed only</label>
      <button class="primary">Search</button>
      <label class="check"><input type="checkbox" checked=${following} onChange=${(event) => follow(event.target.checked)} /> Follow</label>
    </form>
    ${recorded && html`<p class="counts"><${Link} to="/console/now">${count(recorded.open, "span")} open now<//></p>`}
    <${Answered} of=${answer}>${(page) => html`<${List} items=${[...page.items, ...more.flatMap((next) => next.items)]} />
      <${More} path=${path} cursor=${(more[more.length - 1] || page).next_cursor} add=${add} />`}<//>`;
}

function More({ path, cursor, add }) {
  const [error, set_error] = useState(null);
  if (!cursor) return null;
  const next = () => {
    set_error(null);
    ask(`${path}${path.includes("?") ? "&" : "?"}cursor=${encodeURIComponent(cursor)}`).then(add, set_error);
  };
  return html`${error && html`<${Wrong} error=${error} />`}<p class="actions"><button type="button" onClick=${next}>Show more</button></p>`;
}

/** Those that have ended and those that have not. */
export const Spans = ({ of }) => [of.spans > 0 && count(of.spans, "span"), of.open > 0 && `${of.open} open`].filter(Boolean).join(", ");

export function List({ items }) {
  if (items.length === 0) return html`<${Empty}>No such trace is kept.<//>`;
  const longest = Math.max(...items.map((trace) => trace.duration_ns), 1);
  return html`<ul class="cards rows">${items.map((trace) => html`<li key=${trace.trace_id}>
    <${Link} class="card trace-line" to=${trace_path(trace.trace_id)}>
      ${trace.error ? html`<${State} tone="bad">${count(trace.errors, "failure")}<//>`
        : trace.open ? html`<${State} tone="busy">open<//>` : html`<${State} tone="good">ended<//>`}
      <b class="clip">${trace.name}</b>
      <span class="length"><span class=${`bar ${trace.error ? "failed" : ""}`} style=${{ width: `${Math.max(1, (100 * trace.duration_ns) / longest)}%` }}></span><span>${duration(trace.duration_ns)}</span></span>
      <span class="notes"><span class="note"><${Spans} of=${trace} /></span>
        ${trace.tenant && html`<span class="note">tenant ${trace.tenant}</span>`}
        ${trace.components.map((component) => html`<span class="note" key=${component}>${component}</span>`)}
        <span class="note"><${When} ms=${trace.start_unix_nano / 1e6} /></span></span>
    <//></li>`)}</ul>`;
}
