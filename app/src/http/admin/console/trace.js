// One trace as a waterfall: its spans below those that they belong to, each where it stands in time.

import { html, useEffect, useMemo, useRef, useState, Answered, Copy, Empty, Exactly, Link, State, TraceLink, go, trace_path, useAnswer } from "./parts.js";
import { send } from "./api.js";
import { count, duration, now } from "./format.js";
import { ALL, between, moved, timeline, zoomed } from "./timeline.js";
import { LogLines, Span } from "./span.js";
import { List, Spans, useFresh } from "./traces.js";

/** Parents before their children, by time; each with how deep it is. What is open stands among those that have ended. */
function ordered(trace) {
  const began = trace.start_unix_nano;
  const open = trace.open_spans.map((span) => ({
    ...span, open: true, offset_ns: Math.max(0, span.start_unix_nano - began), duration_ns: span.age_ms * 1e6,
    status: { code: "unset" }, events: [], links: [], logs: [],
  }));
  const all = [...trace.items, ...open].sort((a, b) => a.offset_ns - b.offset_ns);
  const known = new Set(all.map((span) => span.span_id));
  const below = new Map();
  for (const span of all) {
    const parent = known.has(span.parent_span_id) ? span.parent_span_id : null;
    below.set(parent, [...(below.get(parent) || []), span]);
  }
  const rows = [];
  const walk = (parent, depth, above) => (below.get(parent) || []).forEach((span) => {
    rows.push({ ...span, depth, above });
    walk(span.span_id, depth + 1, [...above, span.span_id]);
  });
  walk(null, 0, []);
  return rows;
}

const is_failed = (span) => span.status.code === "error";

function instants(rows, began) {
  return rows.flatMap((span) => [
    span.offset_ns, span.offset_ns + span.duration_ns,
    ...span.events.map((event) => event.offset_ns), ...span.logs.map((log) => Math.max(0, log.time_unix_nano - began)),
  ]);
}

function work(rows) {
  const parents = new Set(rows.map((span) => span.parent_span_id));
  return rows.filter((span) => !parents.has(span.span_id)).map((span) => [span.offset_ns, span.offset_ns + span.duration_ns]);
}

/** What tells spans of one name apart. */
const TELLING = ["path", "actor", "job.kind", "channel.kind", "url.path", "topic"];
const telling = ({ attributes }) => TELLING.map((name) => attributes[name]).find((value) => value !== undefined);

/** What has ended long ago, or is gone, is not asked for again and again: spans and logs may come late, but not that late. */
const LATE_MS = 30_000;
const is_growing = (trace) => trace.open > 0 || now() - (trace.start_unix_nano + trace.duration_ns) / 1e6 < LATE_MS;

export function Trace({ id, search, seen }) {
  const [growing, grow] = useState(true);
  const answer = useAnswer(`/admin/traces/${encodeURIComponent(id)}`, useFresh(seen?.at_ms, growing));
  useEffect(() => {
    if (answer.error?.status === 404) grow(false);
    else if (answer.data) grow(is_growing(answer.data));
  }, [answer.data, answer.error]);
  return html`<p class="path"><${Link} to="/console/traces">Traces<//> / <span class="mono">${id}</span></p>
    <${Answered} of=${answer}>${(trace) => html`<${Whole} trace=${trace} wanted=${new URLSearchParams(search).get("span")} />`}<//>`;
}

function Whole({ trace, wanted }) {
  const otlp = async () => (await send(`/admin/traces/${trace.trace_id}/otlp`)).text();
  return html`<article>
    <h2>${trace.error && html`<${State} tone="bad">${count(trace.errors, "failure")}<//>`} <span class="message">${trace.name}</span></h2>
    <p class="notes">
      <span class="note"><b>${duration(trace.duration_ns)}${trace.open > 0 && " so far"}</b></span>
      <span class=${`note ${trace.open > 0 ? "warn" : ""}`}><${Spans} of=${trace} /></span>
      ${trace.tenant && html`<span class="note">tenant ${trace.tenant}</span>`}
      <span class="note"><${Exactly} ms=${trace.start_unix_nano / 1e6} /></span>
      ${trace.origin_trace_id && html`<span class="note">began in <${TraceLink} trace=${trace.origin_trace_id} /></span>`}
    </p>
    <p class="actions"><${Copy} text=${otlp}>Copy as OTLP JSON<//>
      <${Copy} text=${() => location.origin + trace_path(trace.trace_id)}>Copy the link<//></p>
    <${Waterfall} trace=${trace} wanted=${wanted} />
    <${More} number=${trace.left_off.spans} of="span" />
    ${trace.logs.length > 0 && html`<h3>Logs of no span shown</h3><${LogLines} logs=${[...trace.logs].reverse()} />`}
    <${More} number=${trace.left_off.logs} of="earlier log record" />
    ${trace.followers.length > 0 && html`<h3>What followed from it</h3><${List} items=${trace.followers} />`}
    <${More} number=${trace.left_off.followers} of="earlier trace" />
  </article>`;
}

const More = ({ number, of }) => number > 0 && html`<p class="quiet">and ${count(number, of)} not shown</p>`;

function Waterfall({ trace, wanted }) {
  const [squeeze, set_squeeze] = useState(true);
  const [failed_only, set_failed_only] = useState(false);
  const [window, set_window] = useState(ALL);
  const rows = useMemo(() => ordered(trace), [trace]);
  const line = useMemo(() => timeline(instants(rows, trace.start_unix_nano), work(rows), squeeze), [rows, squeeze]);
  // Until somebody picks one it is the one that failed, also if that is known only later.
  const [picked, choose] = useState(wanted || undefined);
  const chosen = picked === undefined ? rows.find(is_failed)?.span_id : picked;
  useEffect(() => { if (wanted) choose(wanted); }, [wanted]);
  if (rows.length === 0) return html`<${Empty}>No span of it is kept, only what was logged.<//>`;
  const spared = new Set(rows.filter(is_failed).flatMap((span) => [span.span_id, ...span.above]));
  const shown = failed_only ? rows.filter((span) => spared.has(span.span_id)) : rows;
  const pick = (span) => {
    const next = chosen === span ? null : span;
    choose(next);
    go(trace_path(trace.trace_id, next), { replace: true });
  };
  const keys = (event) => {
    const next = { "+": () => zoomed(window, 0.5), "=": () => zoomed(window, 0.5), "-": () => zoomed(window, 2), 0: () => ALL,
      ArrowLeft: () => moved(window, -0.25), ArrowRight: () => moved(window, 0.25) }[event.key];
    if (!next || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    set_window(next());
  };
  return html`
    <div class="tools" role="toolbar" aria-label="Zoom">
      <button type="button" aria-label="Zoom in" onClick=${() => set_window(zoomed(window, 0.5))}>+</button>
      <button type="button" aria-label="Zoom out" onClick=${() => set_window(zoomed(window, 2))}>−</button>
      <button type="button" aria-label="Earlier" onClick=${() => set_window(moved(window, -0.25))}>←</button>
      <button type="button" aria-label="Later" onClick=${() => set_window(moved(window, 0.25))}>→</button>
      <button type="button" onClick=${() => set_window(ALL)}>Whole</button>
      <label class="check"><input type="checkbox" checked=${squeeze} onChange=${(event) => set_squeeze(event.target.checked)} /> Squeeze gaps</label>
      <label class="check"><input type="checkbox" checked=${failed_only} disabled=${!trace.error} onChange=${(event) => set_failed_only(event.target.checked)} /> Failed only</label>
    </div>
    <div class="waterfall" onKeyDown=${keys}>
      <${Ruler} line=${line} window=${window} set_window=${set_window} />
      <ol>${shown.map((span) => html`<${Row} key=${span.span_id} span=${span} line=${line} window=${window} began=${trace.start_unix_nano}
        chosen=${chosen === span.span_id} wanted=${wanted === span.span_id} pick=${pick} />`)}</ol>
    </div>`;
}

/** Times along the top. What is dragged over is shown alone. */
function Ruler({ line, window, set_window }) {
  const [drag, set_drag] = useState(null);
  const [from, to] = window;
  const at = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    return from + Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) * (to - from);
  };
  const down = (event) => { event.currentTarget.setPointerCapture(event.pointerId); set_drag([at(event), at(event)]); };
  const move = (event) => drag && set_drag([drag[0], at(event)]);
  const up = () => { if (drag) set_window(between(...drag) || window); set_drag(null); };
  const percent = (place) => `${(100 * (place - from)) / (to - from)}%`;
  const band = (a, b) => ({ left: percent(Math.max(a, from)), width: `${(100 * (Math.min(b, to) - Math.max(a, from))) / (to - from)}%` });
  const gaps = line.gaps.filter((gap) => gap.at < to && gap.at + gap.length > from);
  return html`<div class="ruler" title="Drag to zoom" onPointerDown=${down} onPointerMove=${move} onPointerUp=${up} onPointerCancel=${() => set_drag(null)}>
    ${gaps.map((gap) => html`<span class="gap" key=${gap.at} style=${band(gap.at, gap.at + gap.length)} title=${`${duration(gap.ns)} of waiting`}></span>`)}
    ${[0, 0.25, 0.5, 0.75].map((part) => html`<span class=${`tick ${part % 0.5 ? "fine" : ""}`} key=${part} style=${{ left: `${100 * part}%` }}><span>${duration(line.instant(from + part * (to - from)))}</span></span>`)}
    ${drag && html`<span class="drag" style=${band(Math.min(...drag), Math.max(...drag))}></span>`}
  </div>`;
}

function Row({ span, line, window: [from, to], began, chosen, wanted, pick }) {
  const row = useRef(null);
  useEffect(() => { if (wanted) row.current.scrollIntoView({ block: "center" }); }, []);
  const place = (ns) => (100 * (line.place(ns) - from)) / (to - from);
  const start = place(span.offset_ns);
  const end = Math.max(place(span.offset_ns + span.duration_ns), start);
  const [left, right] = [Math.min(100, Math.max(0, start)), Math.min(100, Math.max(0, end))];
  const away = end < 0 || start > 100;
  const marks = [...span.events.map((event) => ["event", event.name, event.offset_ns]),
    ...span.logs.map((log) => [log.level.toLowerCase(), log.message, Math.max(0, log.time_unix_nano - began)])]
    .map(([kind, title, ns]) => ({ kind, title, at: place(ns) })).filter(({ at }) => at >= 0 && at <= 100);
  const failed = is_failed(span);
  // Beside the bar if there is room; what is not in the window lies that way.
  const inside = right >= 75 && left <= 25;
  const took = `${end < 0 ? "← " : ""}${duration(span.duration_ns)}${start > 100 ? " →" : ""}`;
  return html`<li ref=${row} class=${`span ${span.kind} ${failed ? "failed" : ""} ${span.open ? "open" : ""} ${chosen ? "chosen" : ""}`} data-span=${span.span_id}>
    <button type="button" class="line" aria-expanded=${chosen} onClick=${() => pick(span.span_id)}>
      <span class="label" style=${{ paddingLeft: `${Math.min(span.depth, 12) * 0.8}rem` }}>
        ${failed && html`<b class="sign">✕ <span class="word">failed</span></b>`}${span.open && html`<b class="sign">◐ <span class="word">open</span></b>`}
        <span class="clip"><span class="name">${span.name}</span> <span class="telling">${telling(span)}</span></span>
        ${span.logs.length > 0 && html`<span class="quiet logged"> ${count(span.logs.length, "log")}</span>`}
      </span>
      <span class="track">
        ${!away && html`<span class="bar" style=${{ left: `${left}%`, width: `${right - left}%` }}></span>`}
        ${marks.map((mark, at) => html`<span class=${`mark ${mark.kind}`} key=${at} title=${mark.title} style=${{ left: `${mark.at}%` }}></span>`)}
        <span class=${`took ${inside ? "inside" : ""}`} style=${right < 75 ? { left: `${right}%` } : { right: `${100 - (inside ? right : left)}%` }}>${took}</span>
      </span>
    </button>
    ${chosen && html`<${Span} span=${span} began=${began} />`}
  </li>`;
}
