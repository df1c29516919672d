// The latest log records, and what is logged at all.

import { html, useState, Answered, Empty, Wrong, go, useAnswer, useRenewed } from "./parts.js";
import { ask, query } from "./api.js";
import { now, soon } from "./format.js";
import { LogLines } from "./span.js";
import { useFresh } from "./traces.js";

const LEVELS = ["trace", "debug", "info", "warn", "error"];
const SHOWN = 200;
const FILTER_MS = 2_000;

export function Logs({ search, seen }) {
  const level = new URLSearchParams(search).get("level") || "info";
  const [following, follow] = useState(true);
  const answer = useAnswer(query("/admin/logs", { level, limit: SHOWN }), useFresh(seen?.recorded?.logs, following));
  return html`<h2>Logs</h2>
    <${Filter} />
    <form class="search" onSubmit=${(event) => event.preventDefault()}>
      <label>Level and above <select onChange=${(event) => go(query("/console/logs", { level: event.target.value }))}>
        ${LEVELS.map((each) => html`<option key=${each} value=${each} selected=${each === level}>${each}</option>`)}</select></label>
      <label class="check"><input type="checkbox" checked=${following} onChange=${(event) => follow(event.target.checked)} /> Follow</label>
    </form>
    <${Answered} of=${answer}>${({ items }) => (items.length === 0
      ? html`<${Empty}>Nothing of this level is kept.<//>` : html`<${LogLines} logs=${items} />`)}<//>`;
}

/**
 * What is logged. A change of it ends by itself, and others may change it too; its fields have defaults and no values, so what is typed
 * stays, until it is taken.
 */
function Filter() {
  const [version, renew] = useState(0);
  const [wrong, set_wrong] = useState(null);
  const answer = useRenewed("/admin/log-filter", FILTER_MS, version);
  const change = async (form, options) => {
    set_wrong(null);
    await ask("/admin/log-filter", options).then(() => form.reset(), set_wrong);
    renew((n) => n + 1);
  };
  const submit = (event) => {
    event.preventDefault();
    const { filter, minutes } = Object.fromEntries(new FormData(event.target));
    change(event.target, { method: "PUT", body: { filter, for_ms: Math.round(Number(minutes) * 60_000) } });
  };
  return html`<section aria-label="Log filter" class="panel"><${Answered} of=${answer}>${(force) => html`
    <form class="search" onSubmit=${submit}>
      <label class="wide">Filter <input name="filter" defaultValue=${force.filter} required spellcheck="false" autocomplete="off" /></label>
      <label>Minutes <input name="minutes" type="number" defaultValue="10" min="0.1" max="1440" step="any" required /></label>
      <button class="primary">Log by it</button>
      ${force.reverts_in_ms !== null && html`<button type="button" onClick=${(event) => change(event.target.form, { method: "DELETE" })}>Back to ${force.configured}</button>`}
    </form>
    <p class="quiet">Logged by <span class="mono">${force.filter}</span>, ${force.reverts_in_ms === null ? "as configured"
      : `back to ${force.configured} ${soon(answer.heard_ms + force.reverts_in_ms - now())}`}.</p>`}<//>
    ${wrong && html`<${Wrong} error=${wrong} />`}</section>`;
}
