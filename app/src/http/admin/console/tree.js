// The supervision tree as it is now, and what an operator does to one child of it.

import { html, useEffect, useState, Confirm, Empty, Link, State, When, Wrong, incident_path } from "./parts.js";
import { ask } from "./api.js";
import { count, ms } from "./format.js";

/** How each status looks, and what it is called. */
const STATUS = {
  up: ["good", "up"],
  starting: ["busy", "starting"],
  stopping: ["busy", "stopping"],
  waiting: ["wait", "waiting"],
  down: ["off", "down"],
  finished: ["off", "finished"],
  stopped_by_hand: ["off", "stopped"],
  ignored: ["off", "declined to start"],
  leaked: ["bad", "leaked"],
};

export function Tree({ seen }) {
  const [asked, ask_first] = useState(null);
  const [wrong, set_wrong] = useState(null);
  const [doing, set_doing] = useState({});
  if (!seen) return html`<p class="quiet" aria-busy="true">Waiting for the first look …</p>`;
  if (!seen.tree) return html`<${Empty}>The tree does not stand yet.<//>`;
  const operate = async (verb, path) => {
    ask_first(null);
    set_wrong(null);
    set_doing((others) => ({ ...others, [path]: verb }));
    const route = verb === "panic" ? "/dev/panic" : `/admin/tree/${verb}`;
    await ask(`${route}/${path.split(".").map(encodeURIComponent).join("/")}`, { method: "POST" }).catch(set_wrong);
    set_doing(({ [path]: done, ...others }) => others);
  };
  const wish = (verb, path) => (doing[path] ? undefined : verb === "stop" ? ask_first(path) : operate(verb, path));
  const latest = new Map([...seen.incidents].reverse().map((incident) => [incident.actor, incident]));
  return html`
    <h2 class="visually-hidden">Supervision tree</h2>
    <${Reasons} seen=${seen} />
    ${wrong && html`<${Wrong} error=${wrong} />`}
    <ul class="tree">${seen.tree.children.map((node) => html`<${Node} key=${node.id} node=${node} seen=${seen} latest=${latest} doing=${doing} wish=${wish} />`)}</ul>
    ${asked && html`<${Confirm} title=${`Stop ${asked}?`} verb="Stop it" onNo=${() => ask_first(null)} onYes=${() => operate("stop", asked)}>
      It stays down until somebody starts it again, also if its group is restarted.<//>`}`;
}

const Reasons = ({ seen }) => {
  const reasons = [...new Set([...(seen.health.reasons || []), ...(seen.readiness.reasons || [])])];
  return reasons.length > 0 && html`<ul class="reasons" aria-label="What is wrong">${reasons.map((reason) => html`<li key=${reason}>${reason}</li>`)}</ul>`;
};

function Node({ node, seen, latest, doing, wish, above = "up" }) {
  const [tone, word] = STATUS[node.status] || ["warn", node.status];
  const incident = latest.get(node.path);
  const troubled = node.degraded || node.stuck;
  const is_up = node.status === "up";
  return html`<li>
    <div class="node ${tone}" data-path=${node.path} data-status=${node.status} data-incarnation=${node.incarnation}>
      <${State} tone=${troubled ? "warn" : tone}>${word}${node.degraded && ", degraded"}${node.stuck && ", stuck"}<//>
      <span class="name"><b>${node.id}</b> <span class="quiet">${node.kind}</span></span>
      <span class="notes">
        ${node.status === "waiting" && html`<b class="note"><${Countdown} due=${node.due_in_ms} heard_at=${seen.heard_at} /></b>`}
        ${node.status === "stopped_by_hand" && html`<span class="note">by hand, until somebody starts it</span>`}
        ${node.stuck && html`<span class="note warn">${stuck(node.stuck)}</span>`}
        ${is_up && html`<${Beat} beats=${node.beats} />`}
        ${is_up && node.mailbox && html`<span class=${`note ${node.mailbox.waiting > 0 ? "warn" : ""}`} title=${`Messages that wait at its address, of ${node.mailbox.capacity}; its own timers are not counted`}>
          <span aria-hidden="true">✉</span> ${node.mailbox.waiting} waiting</span>`}
        <span class="note" title="Which incarnation runs">life ${node.incarnation}</span>
        ${node.restarts > 0 && html`<span class="note warn">${count(node.restarts, "restart")}</span>`}
        ${incident && html`<${Link} class="note" to=${incident_path(incident.id)}>${incident.kind}: ${incident.message}<//>
          <span class="note"><${When} ms=${Date.parse(incident.at)} /></span>`}
      </span>
      <${Actions} node=${node} doing=${doing[node.path]} wish=${wish} above=${above} drills=${seen.drills} />
    </div>
    ${node.children.length > 0 && html`<ul>${node.children.map((child) =>
      html`<${Node} key=${child.id} node=${child} seen=${seen} latest=${latest} doing=${doing} wish=${wish} above=${node.status} />`)}</ul>`}
    ${node.left_off > 0 && html`<p class="quiet left-off">and ${count(node.left_off, "child", "children")} more, ${node.left_off_troubled > 0 ? `${node.left_off_troubled} of them not well` : "all well"}</p>`}
  </li>`;
}

function Actions({ node, doing, wish, above, drills }) {
  // The child that answers this page would have to end before it could answer.
  if (node.path === "admin") return html`<span class="actions note">serves this page</span>`;
  // Nor does a child start whose supervisor does not run.
  if (above !== "up") return null;
  const runs = ["up", "starting", "stopping", "waiting", "leaked"].includes(node.status);
  const verbs = runs ? ["restart", "stop", ...(drills ? ["panic"] : [])] : ["start"];
  // One that is disabled would lose the focus, and so would one that is another: what was "stop" becomes "start".
  return html`<span class="actions">${verbs.map((verb) => html`<button type="button" key=${verb === "start" ? "stop" : verb}
    class=${verb === "panic" ? "drill" : ""} aria-disabled=${Boolean(doing)} aria-label=${`${verb} ${node.path}`} onClick=${() => wish(verb, node.path)}>${verb}${verb === doing && " …"}</button>`)}</span>`;
}

const BEATS = { beating: "", protected: "long work", starting: "no beat yet", waiting: "gone", stale: "late", wedged: "wedged" };
const WORST = ["beating", "protected", "starting", "waiting", "stale", "wedged"];

/** The loop that is worst off speaks for its child. */
function Beat({ beats }) {
  if (beats.length === 0) return null;
  const worst = beats.reduce((a, b) => (WORST.indexOf(b.state) > WORST.indexOf(a.state) ? b : a));
  const late = ["stale", "wedged"].includes(worst.state);
  const busy = worst.busy && `, ${worst.busy.message_type || "a message"} in hand for ${ms(worst.busy.for_ms)}`;
  const title = beats.map((beat) => `${beat.name}: ${beat.state}, every ${ms(beat.interval_ms)}`).join("\n");
  return html`<span class="note ${late ? "warn" : ""}" title=${title}><span class="pulse" aria-hidden="true">♥</span> ${BEATS[worst.state]} ${
    worst.seconds_ago.toFixed(1)} s ago${busy}</span>`;
}

const stuck = (place) => (place.in === "loop" ? `no beat of ${place.name} for ${ms(place.for_ms)}` : `in ${place.message_type || place.in} for ${ms(place.for_ms || 0)}`);

/** How long until the next start, counted on between two looks. */
function Countdown({ due, heard_at }) {
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => tick((n) => n + 1), 100);
    return () => clearInterval(timer);
  }, []);
  const left = Math.max(0, due - (performance.now() - heard_at));
  return html`starts again in ${(left / 1000).toFixed(1)} s`;
}
