// Who listens: connections of this process that are open, those that are behind first, and those that it has closed.

import { html, Answered, Empty, Facts, State, When, go, useAnswer } from "./parts.js";
import { query } from "./api.js";
import { count, ms } from "./format.js";
import { useFresh } from "./traces.js";

const SHOWN = 50;

/** Why a connection was closed, in words. */
const REASONS = {
  slow: "it did not take what was sent to it in time",
  unresponsive: "it did not answer a ping",
  revoked: "its key opens nothing any more",
  draining: "this process stops",
};

export function Sockets({ search, seen }) {
  const tenant = new URLSearchParams(search).get("tenant") || "";
  const version = useFresh(seen?.at_ms, true);
  const connections = useAnswer(query("/admin/sockets", { tenant, limit: SHOWN }), version);
  const submit = (event) => {
    event.preventDefault();
    go(query("/console/sockets", Object.fromEntries(new FormData(event.target))));
  };
  return html`<h2>Sockets</h2>
    <${Answered} of=${useAnswer("/admin/work", version)}>${({ sockets }) => html`<${Totals} of=${sockets} />`}<//>
    <form class="search" onSubmit=${submit} key=${search}>
      <label>Tenant <input name="tenant" defaultValue=${tenant} placeholder="any" autocomplete="off" /></label>
      <button class="primary">Show</button>
    </form>
    <${Answered} of=${connections}>${({ furthest_behind, closed }) => html`
      <h3>Open, the furthest behind first</h3>
      ${furthest_behind.length === 0 ? html`<${Empty}>Nobody ${tenant && `of ${tenant} `}is connected to this process.<//>`
        : html`<ul class="cards">${furthest_behind.map((each, at) => html`<li key=${at} class="card"><${Open} of=${each} /></li>`)}</ul>`}
      <h3>Closed by this process, newest first</h3>
      ${closed.length === 0 ? html`<${Empty}>None, as far as it remembers. What a client has closed itself is not kept.<//>`
        : html`<ul class="cards">${closed.map((each, at) => html`<li key=${at} class="card"><${Closed} of=${each} /></li>`)}</ul>`}`}<//>`;
}

const Totals = ({ of }) => html`
  <${Facts} facts=${[["Open", of.open], ["Subscriptions", of.subscriptions], ["Tenants", of.tenants], ["New ones", of.draining ? "are refused" : "are taken"]]} />
  ${of.top.length > 0 && html`<p class="notes counts">${of.top.map((each) => html`<span class="note" key=${each.tenant}><b>${each.sockets}</b> ${each.tenant}</span>`)}</p>`}`;

function Open({ of }) {
  const behind = of.behind_ms !== null;
  return html`<${State} tone=${behind ? "warn" : "good"}>${behind ? "behind" : "in time"}<//>
    <b>${of.tenant} <span class="quiet mono">${of.topics.join(" ")}${of.topics_left_off > 0 && ` and ${of.topics_left_off} more`}</span></b>
    <span class="notes"><span class="note">open for ${ms(of.open_ms)}</span>
      ${behind && html`<span class="note warn">by ${ms(of.behind_ms)}: ${count(of.waiting_frames, "frame")}, ${count(of.waiting_bytes, "byte")}</span>`}
      <span class="note">heard ${ms(of.silent_ms)} ago</span></span>`;
}

const Closed = ({ of }) => html`<${State} tone="bad">${of.reason}<//>
  <b>${of.tenant}</b>
  <span class="notes"><span class="note">${REASONS[of.reason]}</span><span class="note"><${When} ms=${Date.parse(of.at)} /></span>
    <span class="note">was open for ${ms(of.open_ms)}</span>
    ${of.dropped > 0 && html`<span class="note warn">${count(of.dropped, "frame")} lost</span>`}</span>`;
