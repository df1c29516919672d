// What goes on at this moment, and so what hangs: spans that have not ended, tasks by name, the runtime.

import { html, useRef, Answered, Empty, Facts, Link, trace_path, useAnswer } from "./parts.js";
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

/** What part of its time each worker was busy between the last two answers; one answer is drawn more than once. */
function Runtime({ of }) {
  const last = useRef(null);
  if (last.current?.of !== of) {
    const [before, at] = [last.current, performance.now()];
    const busy = of.workers.map(({ busy_ms }, number) => {
      const since = busy_ms - before?.of.workers[number]?.busy_ms;
      // Of another process there is nothing to compare.
      return since >= 0 ? `, ${Math.min(100, Math.round((100 * since) / (at - before.at)))} % now` : "";
    });
    last.current = { of, at, busy };
  }
  const { busy } = last.current;
  return html`<${Facts} facts=${[["Tasks alive", of.alive_tasks], ["Tasks that wait for any worker", of.global_queue_depth],
    ...of.workers.map((worker, number) => [`Worker ${number}`, `${ms(worker.busy_ms)} busy in all${busy[number]}`])]} />`;
}

const Tasks = ({ tasks, left_off }) => (tasks.length === 0 ? html`<${Empty}>None.<//>` : html`<ul class="plain">${tasks.map((task) => html`
  <li key=${task.path + task.name}><b>${task.count}</b> ${task.name} <span class="quiet">of ${task.path}</span></li>`)}</ul>
  ${left_off > 0 && html`<p class="quiet">and ${count(left_off, "name")} more</p>`}`);
