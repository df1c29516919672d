// What all views are made of. Texts become text nodes: nothing that is shown is ever read as HTML.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { ask } from "./api.js";
import { ago, clock } from "./format.js";

export * from "./vendor/preact.js";

/** Goes to another view of this page. */
export function go(path, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", path);
  dispatchEvent(new PopStateEvent("popstate"));
}

/** A link to another view: a real one, that opens in a new tab if one wants it. */
export function Link({ to, children, ...rest }) {
  const follow = (event) => {
    if (event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    go(to);
  };
  return html`<a href=${to} onClick=${follow} ...${rest}>${children}</a>`;
}

export const trace_path = (trace, span) => `/console/traces/${encodeURIComponent(trace)}${span ? `?span=${encodeURIComponent(span)}` : ""}`;
export const incident_path = (id) => `/console/incidents/${encodeURIComponent(id)}`;

export const TraceLink = ({ trace, span, children }) =>
  html`<${Link} to=${trace_path(trace, span)} class="mono">${children || trace.slice(0, 16)}<//>`;

/** What a question was answered, asked again whenever `path` or `version` changes. The old answer stays meanwhile. */
export function useAnswer(path, version = 0) {
  const [state, set] = useState({ path: null });
  useEffect(() => {
    const end = new AbortController();
    ask(path, { signal: end.signal }).then(
      (data) => set({ path, data }),
      (error) => end.signal.aborted || set((old) => ({ path, data: old.path === path ? old.data : undefined, error })),
    );
    return () => end.abort();
  }, [path, version]);
  return state.path === path ? state : { path };
}

/** The answer once it is there, what is wrong if it is not. */
export function Answered({ of, children }) {
  if (of.data !== undefined) return html`${of.error && html`<${Wrong} error=${of.error} />`}${children(of.data)}`;
  return of.error ? html`<${Wrong} error=${of.error} />` : html`<p class="quiet" aria-busy="true">Loading …</p>`;
}

export const Wrong = ({ error }) => html`<p class="wrong" role="alert"><b>✕ Not shown:</b> ${error.message}</p>`;

export const Empty = ({ children }) => html`<p class="empty">${children}</p>`;

const TONES = { good: "●", busy: "◐", wait: "◷", off: "■", bad: "✕", warn: "▲" };

/** A state: its colour and its sign say the same as its word. */
export const State = ({ tone, children }) =>
  html`<span class="state ${tone}"><span aria-hidden="true">${TONES[tone]}</span> ${children}</span>`;

/** Names and values; those without a value are left out. */
export const Facts = ({ facts }) => html`<dl class="facts">${facts
  .filter(([, value]) => value !== null && value !== undefined && value !== "")
  .map(([name, value]) => html`<div key=${name} class=${typeof value === "string" && value.includes("\n") ? "long" : ""}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;

const Time = ({ ms, title, children }) => (Number.isFinite(ms)
  ? html`<time datetime=${new Date(ms).toISOString()} title=${title}>${children}</time>` : "at no time known");

export const When = ({ ms }) => html`<${Time} ms=${ms} title=${clock(ms)}>${ago(ms)}<//>`;

export const Exactly = ({ ms }) => html`<${Time} ms=${ms}>${clock(ms)}<//>`;

/** A button that copies what `text` gives. */
export function Copy({ text, children }) {
  const [said, say] = useState(null);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(await text());
      say("Copied");
    } catch (error) {
      say(`Not copied: ${error.message}`);
    }
    setTimeout(() => say(null), 2000);
  };
  return html`<button type="button" onClick=${copy}>${children}</button><span class="quiet" role="status">${said}</span>`;
}

/** Asks before something is done that is not undone by itself. */
export function Confirm({ title, children, verb, onYes, onNo }) {
  const dialog = useRef(null);
  useEffect(() => dialog.current.showModal(), []);
  return html`<dialog ref=${dialog} onClose=${onNo} aria-label=${title}>
    <h2>${title}</h2>
    <p>${children}</p>
    <p class="actions"><button type="button" onClick=${onNo}>Cancel</button>
      <button type="button" class="danger" onClick=${onYes}>${verb}</button></p>
  </dialog>`;
}
