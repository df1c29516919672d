// The latest log records, and what is logged at all.

import { html, useState, Answered, Empty, Wrong, go, useAnswer } from "./parts.js";
import { ask, query } from "./api.js";
import { ms } from "./format.js";
import { LogLines } from "./span.js";
import { useFresh } from "./traces.js";

const LEVELS = ["trace", "debug", "info", "warn", "error"];
const SHOWN = 200;

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

/** What is logged. A change of it ends by itself. */
function Filter() {
  const [version, renew] = useState(0);
  const [wrong, set_wrong] = useState(null);
  const answer = useAnswer("/admin/log-filter", version);
  const change = async (options) => {
    set_wrong(null);
    await ask("/admin/log-filter", options).catch(set_wrong);
    renew(version + 1);
  };
  const submit = (event) => {
    event.preventDefault();
    const { filter, minutes } = Object.fromEntries(new FormData(event.target));
    change({ method: "PUT", body: { filter, for_ms: Math.round(Number(minutes) * 60_000) } });
  };
  return html`<section aria-label="Log filter" class="panel"><${Answered} of=${answer}>${(now) => html`
    <form class="search" onSubmit=${submit} key=${now.filter}>
      <label class="wide">Filter <input name="filter" defaultValue=${now.filter} required spellcheck="false" autocomplete="off" /></label>
      <label>Minutes <input name="minutes" type="number" defaultValue="10" min="0.1" max="1440" step="any" required /></label>
      <button class="primary">Log by it</button>
      ${now.reverts_in_ms !== null && html`<button type="button" onClick=${() => change({ method: "DELETE" })}>Back to ${now.configured}</button>`}
    </form>
    <p class="quiet">${now.reverts_in_ms === null ? "As configured." : `Back to ${now.configured} in ${ms(now.reverts_in_ms)}.`}</p>`}<//>
    ${wrong && html`<${Wrong} error=${wrong} />`}</section>`;
}
