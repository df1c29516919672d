// What went wrong: a list, and one incident down to the line of code.

import { html, Answered, Copy, Empty, Exactly, Facts, Link, State, When, incident_path, trace_path, useAnswer } from "./parts.js";
import { plain } from "./format.js";

/** How a policy ends for the actor, in words. */
const POLICY = {
  restart: "the actor is started again",
  keep_running: "this piece of work is lost, the actor goes on",
  crash_process: "the process ends",
  none: "nothing",
};

const outcome = (incident) => incident.outcome || POLICY[incident.policy] || incident.policy;

/** Asked again whenever there is another incident, or something else became of one. */
export function Incidents({ seen }) {
  const answer = useAnswer("/admin/incidents", seen?.incidents.map(({ id, outcome }) => `${id} ${outcome}`).join());
  return html`<h2>Incidents</h2>
    <${Answered} of=${answer}>${({ items }) => items.length === 0
      ? html`<${Empty}>Nothing has gone wrong in this process, as far as it remembers.<//>`
      : html`<ul class="cards">${items.map((incident) => html`<li key=${incident.id}>
        <${Link} class="card" to=${incident_path(incident.id)}>
          <${State} tone="bad">${incident.kind}<//>
          <b class="clip">${incident.message}</b>
          <span class="quiet mono clip">${incident.location || "no place known"}</span>
          <span class="notes"><span class="note"><b>${incident.actor}</b></span>
            ${incident.tenant && html`<span class="note">tenant ${incident.tenant}</span>`}
            <span class="note">${outcome(incident)}</span>
            <span class="note"><${When} ms=${Date.parse(incident.at)} /></span></span>
        <//></li>`)}</ul>`}<//>`;
}

export function Incident({ id, seen }) {
  const brief = seen?.incidents.find((incident) => incident.id === id);
  const answer = useAnswer(`/admin/incidents/${encodeURIComponent(id)}`, brief && `${brief.outcome} ${brief.has_backtrace}`);
  return html`<p class="path"><${Link} to="/console/incidents">Incidents<//> / <span class="mono">${id}</span></p>
    <${Answered} of=${answer}>${(incident) => html`<${Whole} incident=${incident} />`}<//>`;
}

function Whole({ incident }) {
  return html`<article class="incident">
    <h2><${State} tone="bad">${incident.kind}<//> <span class="message">${incident.message}</span></h2>
    ${incident.location && html`<p class="where"><span class="mono" data-location>${incident.location}</span>
      <${Copy} text=${() => incident.location}>Copy<//></p>`}
    <p class="actions">
      ${incident.trace_id && html`<${Link} class="button primary" to=${trace_path(incident.trace_id, incident.span_id)}>What led to it: the trace<//>`}
      <${Copy} text=${() => JSON.stringify(incident, null, 2)}>Copy all as JSON<//>
    </p>
    <${Facts} facts=${[
      ["When", html`<${Exactly} ms=${Date.parse(incident.at)} /> <span class="quiet">(<${When} ms=${Date.parse(incident.at)} />)</span>`],
      ["Who", `${incident.actor}${incident.incarnation ? `, life ${incident.incarnation}` : ""}`],
      ["While", incident.phase],
      ["Message", incident.message_type],
      ["Tenant", incident.tenant],
      ["Policy", `${incident.policy}: ${POLICY[incident.policy] || ""}`],
      ["What became of it", incident.outcome],
      ["Thread", incident.thread],
      ...incident.detail.map(([name, value]) => [name, plain(value)]),
    ]} />
    <h3>Backtrace</h3>
    ${incident.backtrace ? html`<${Backtrace} text=${incident.backtrace} location=${incident.location} />`
      : html`<${Empty}>${incident.kind.startsWith("panic") ? "Its names are looked up: that takes some seconds at most." : "None: it was no panic."}<//>`}
  </article>`;
}

/** A frame is two lines: what, and where. */
function frames(text) {
  const found = [];
  for (const line of text.split("\n")) {
    const [, place] = /^\s+at (.*)$/.exec(line) || [];
    const [, name] = /^\s*\d+: (.*)$/.exec(line) || [];
    if (name) found.push({ name });
    else if (place && found.length > 0) found[found.length - 1].place = place;
  }
  return found;
}

/** Libraries lie below the folder of Cargo, or came with the compiler; what has a place elsewhere is of this project. */
const LIBRARY = /(^\/rustc\/|[/\\]registry[/\\]src[/\\]|[/\\]git[/\\]checkouts[/\\])/;
const is_ours = ({ place }) => Boolean(place) && !LIBRARY.test(place);

/** Of the place of a library all but the folder that it shares with others: `tokio-1.48.0/src/task.rs:1:2`. */
const below_others = (place) => place.replace(new RegExp(`^.*?${LIBRARY.source}[^/\\\\]+[/\\\\]`), "");

/** Where the project lay when it was compiled: the place of the panic itself is known from there. */
function root(places, location) {
  const whole = places.find((place) => place.endsWith(`/${location}`));
  return whole ? whole.slice(0, -location.length) : "";
}

function Backtrace({ text, location }) {
  const all = frames(text);
  const above = root(all.filter(is_ours).map((frame) => frame.place), location);
  const shown = (place) => (place.startsWith(above) ? place.slice(above.length) : place);
  return html`<ol class="backtrace">${all.map((frame, at) => {
    const ours = is_ours(frame);
    return html`<li key=${at} class=${ours ? "ours" : "theirs"}>
      <span class="mono function">${ours && html`<span class="visually-hidden">ours: </span>`}${frame.name}</span>
      ${frame.place && html`<span class="mono quiet" title=${frame.place}>${ours ? shown(frame.place) : below_others(frame.place)}</span>`}
    </li>`;
  })}</ol>
  <p class="actions"><${Copy} text=${() => text}>Copy the backtrace<//></p>`;
}
