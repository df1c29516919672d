// What all views are made of. Texts become text nodes: nothing that is shown is ever read as HTML.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { ask } from "./api.js";
import { ago, clock, now } from "./format.js";

export * from "./vendor/preact.js";

/** Goes to another view of this page. */
export function go(path, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", path);
  dispatchEvent(new PopStateEvent("popstate"));
  if (replace) return;
  scrollTo(0, 0);
  document.getElementById("main").focus({ preventScroll: true });
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
  html`<${Link} to=${trace_path(trace, span)} class="mono">${children || `${trace.slice(0, 16)}…`}<//>`;

/** Nobody waits longer for an answer. */
const ANSWER_MS = 60_000;

/**
 * What a question was answered and when, asked again whenever `path` or `version` changes. The old answer stays meanwhile. Another
 * version waits for the answer that is under way: on a slow link none would come if each gave up the one before it.
 */
export function useAnswer(path, version = 0) {
  const [state, set] = useState({ path: null });
  const wanted = useRef(version);
  const renew = useRef(null);
  wanted.current = version;
  useEffect(() => {
    const end = new AbortController();
    let [asked, is_asking] = [undefined, false];
    renew.current = async () => {
      if (is_asking) return;
      is_asking = true;
      while (asked !== wanted.current && !end.signal.aborted) {
        asked = wanted.current;
        await ask(path, { signal: AbortSignal.any([end.signal, AbortSignal.timeout(ANSWER_MS)]) }).then(
          (data) => end.signal.aborted || set({ path, data, heard_ms: now() }),
          (error) => end.signal.aborted || set((old) => ({ ...(old.path === path ? old : { path }), error })),
        );
      }
      is_asking = false;
    };
    return () => end.abort();
  }, [path]);
  useEffect(() => { renew.current(); }, [path, version]);
  return state.path === path ? state : { path };
}

/** The same, asked again so long after each answer, and so never before there is one; not while `every_ms` is null. */
export function useRenewed(path, every_ms, version) {
  const [times, count] = useState(0);
  const answer = useAnswer(path, `${version} ${times}`);
  useEffect(() => {
    if (every_ms === null || (answer.data === undefined && !answer.error)) return undefined;
    const timer = setTimeout(() => count((n) => n + 1), every_ms);
    return () => clearTimeout(timer);
  }, [answer.data, answer.error, every_ms]);
  return answer;
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

/** Names and values; those without a value are left out. A long name breaks behind a dot. */
export const Facts = ({ facts }) => html`<dl class="facts">${facts
  .filter(([, value]) => value !== null && value !== undefined && value !== "")
  .map(([name, value]) => html`<div key=${name} class=${typeof value === "string" && value.includes("\n") ? "long" : ""}><dt>${name.split(/(?<=[._])/).map((part, at) => [at > 0 && html`<wbr />`, part])}</dt><dd>${value}</dd></div>`)}</dl>`;

const Time = ({ ms, title, children }) => (Number.isFinite(ms)
  ? html`<time datetime=${new Date(ms).toISOString()} title=${title}>${children}</time>` : "at no time known");

export const When = ({ ms }) => html`<${Time} ms=${ms} title=${clock(ms)}>${ago(ms)}<//>`;

export const Exactly = ({ ms }) => html`<${Time} ms=${ms}>${clock(ms)}<//>`;

const INCIDENT = /(?<=\bincident )([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b/;

/** Why something is as it is, in the service's words. An incident that is named there is a link to it. */
export const Reason = ({ children }) => html`<span class="notes reason"><span>${children.split(INCIDENT)
  .map((part, at) => (at % 2 === 0 ? part : html`<${Link} key=${at} to=${incident_path(part)}>${part}<//>`))}</span></span>`;

/** A page that came over plain HTTP from another host is given no clipboard; the old way may still be open. */
async function put_into_clipboard(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = document.createElement("textarea");
  const before = document.activeElement;
  field.className = "visually-hidden";
  field.value = text;
  document.body.append(field);
  field.select();
  const is_done = document.execCommand("copy");
  field.remove();
  before.focus();
  if (!is_done) throw new Error("the browser lets no page on plain HTTP copy; select the text by hand");
}

/** A button that copies what `text` gives. */
export function Copy({ text, children }) {
  const [said, say] = useState(null);
  const copy = async () => {
    try {
      await put_into_clipboard(await text());
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
  // Only a dialog that is closed gives the focus back to where it was.
  const close = () => dialog.current.close();
  const yes = () => { close(); onYes(); };
  return html`<dialog ref=${dialog} onClose=${onNo} aria-label=${title}>
    <h2>${title}</h2>
    <p>${children}</p>
    <p class="actions"><button type="button" onClick=${close}>Cancel</button>
      <button type="button" class="danger" onClick=${yes}>${verb}</button></p>
  </dialog>`;
}
