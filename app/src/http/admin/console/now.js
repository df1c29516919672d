// What goes on at this moment, and so what hangs: spans that have not ended, tasks by name, the runtime.

import { html, useEffect, useRef, Answered, Empty, Facts, Link, trace_path, useAnswer } from "./parts.js";
import { count, ms, plain } from "./format.js";
import { useFresh } from "./traces.js";

const SPANS = 100;

export function Now({ seen }) {
  const answer = useAnswer(`/debug/tasks?limit=${SPANS}`, useFresh(seen?.at_ms, true));
  return html`<h2>Now</h2><${Answered} of=${answer}>${(now) => html`
    <h3>${count(now.open_spans_total, "span")} open, oldest first</h3>
    <${OpenSpans} spans=${now.open_spans} total=${now.open_spans_total} />
    <h3>Runtime</h3>
    <${Runtime} of=${now.runtime} />
    <h3>Tasks by name</h3>
    <${Tasks} tasks=${now.tasks} left_off=${now.tasks_left_off} />`}<//>`;
}

function OpenSpans({ spans, total }) {
  if (spans.length === 0) return html`<${Empty}>None: no request, no job and no delivery is under way.<//>`;
  return html`<ul class="plain open-spans">${spans.map((span) => html`<li key=${span.span_id}>
      <b>${ms(span.age_ms)}</b> <${Link} to=${trace_path(span.trace_id, span.span_id)}>${span.name}<//>
      <span class="quiet mono"> ${Object.entries(span.attributes).map(([name, value]) => `${name}=${plain(value)}`).join(" ")}</span></li>`)}</ul>
    ${total > spans.length && html`<p class="quiet">and ${total - spans.length} more</p>`}`;
}

/** What part of its time each worker was busy since the look before. */
function Runtime({ of }) {
  const before = useRef(null);
  const at = performance.now();
  const busy = of.workers.map((worker, number) => {
    const last = before.current?.of.workers[number];
    return last && Math.min(100, Math.round((100 * (worker.busy_ms - last.busy_ms)) / (at - before.current.at)));
  });
  // The same answer is drawn more than once.
  useEffect(() => { if (before.current?.of !== of) before.current = { of, at }; }, [of]);
  return html`<${Facts} facts=${[["Tasks alive", of.alive_tasks], ["Tasks that wait for any worker", of.global_queue_depth],
    ...of.workers.map((worker, number) => [`Worker ${number}`, `${ms(worker.busy_ms)} busy in all${busy[number] === undefined ? "" : `, ${busy[number]} % now`}`])]} />`;
}

const Tasks = ({ tasks, left_off }) => (tasks.length === 0 ? html`<${Empty}>None.<//>` : html`<ul class="plain">${tasks.map((task) => html`
  <li key=${task.path + task.name}><b>${task.count}</b> ${task.name} <span class="quiet">of ${task.path}</span></li>`)}</ul>
  ${left_off > 0 && html`<p class="quiet">and ${count(left_off, "name")} more</p>`}`);
