// All that is known of one span, and log records wherever they are shown.

import { html, Facts, Link, State, TraceLink, incident_path, trace_path } from "./parts.js";
import { clock, duration, plain } from "./format.js";

const LEVELS = { ERROR: "bad", WARN: "warn", INFO: "good", DEBUG: "off", TRACE: "off" };

/** What leads somewhere is a link. */
function valued([name, value]) {
  if (name === "incident.id") return [name, html`<${Link} to=${incident_path(value)}>${value}<//>`];
  if (name.endsWith("trace_id")) return [name, html`<${TraceLink} trace=${value}>${value}<//>`];
  return [name, plain(value)];
}

const is_stack = ([name]) => name === "exception.stacktrace";

const Folded = ({ of: [name, value] }) => html`<details><summary class="quiet mono">${name}</summary><pre>${plain(value)}</pre></details>`;

/** A stack is unfolded by whoever wants it: its incident shows it better. */
function Attributes({ of }) {
  const all = Object.entries(of);
  return html`<${Facts} facts=${all.filter((each) => !is_stack(each)).map(valued)} />
    ${all.filter(is_stack).map((each) => html`<${Folded} key=${each[0]} of=${each} />`)}`;
}

const is_long = ([, value]) => plain(value).length > 120 || plain(value).includes("\n");

export function Span({ span, began }) {
  return html`<div class="detail">
    ${span.status.code === "error" && html`<p><${State} tone="bad">failed<//> ${span.status.message}</p>`}
    <${Facts} facts=${[
      ["Took", span.open ? `${duration(span.duration_ns)} so far` : duration(span.duration_ns)],
      ["After", duration(span.offset_ns)],
      ["Kind", span.kind],
      ["Span", html`<span class="mono">${span.span_id}</span>`],
      ["Not exported", span.sampled === false && "the sampler has dropped this trace"],
    ].filter(([, value]) => value)} />
    <${Attributes} of=${span.attributes} />
    ${span.events.length > 0 && html`<h4>Events</h4>${span.events.map((event, at) => html`<details key=${at} open=${span.events.length < 4}>
      <summary><b>${event.name}</b> <span class="quiet">after ${duration(event.offset_ns)}</span></summary><${Attributes} of=${event.attributes} /></details>`)}`}
    ${span.logs.length > 0 && html`<h4>Logs</h4><${LogLines} logs=${span.logs} began=${began} />`}
    ${span.links.length > 0 && html`<h4>Links</h4><ul class="plain">${span.links.map((link) => html`<li key=${link.span_id}>
      follows from <${TraceLink} trace=${link.trace_id} span=${link.span_id}>${link.trace_id}<//></li>`)}</ul>`}
  </div>`;
}

/** Log records; those that belong to a trace lead there where it is not the one that is shown. */
export function LogLines({ logs, began }) {
  return html`<ul class="logs">${logs.map((log, at) => html`<li key=${at} data-level=${log.level}>
    <span class="quiet mono">${began ? `+${duration(Math.max(0, log.time_unix_nano - began))}` : clock(log.time_unix_nano / 1e6)}</span>
    <${State} tone=${LEVELS[log.level] || "off"}>${log.level}<//>
    <div class="text">${log.message} ${!began && log.trace_id && html`<${Link} to=${trace_path(log.trace_id, log.span_id)}>trace<//>`}
      <${Fields} log=${log} /></div>
  </li>`)}</ul>`;
}

function Fields({ log }) {
  const all = Object.entries(log.attributes);
  const short = all.filter((each) => !is_long(each)).map(([name, value]) => `${name}=${plain(value)}`).join(" ");
  return html`<span class="quiet mono">${log.target} ${short}</span>
    ${all.filter(is_long).map((each) => html`<${Folded} key=${each[0]} of=${each} />`)}`;
}
