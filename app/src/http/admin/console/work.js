// The work itself: who has the most, the jobs, schedules and channels of one tenant, and what the service stands on.

import { html, useEffect, useState, Answered, Empty, Exactly, Facts, Link, Reason, State, TraceLink, When, Wrong, go, useAnswer, useRenewed } from "./parts.js";
import { ask, query, send } from "./api.js";
import { count, ms, now, soon } from "./format.js";
import { useFresh } from "./traces.js";

const JOB = {
  scheduled: ["wait", "scheduled"], ready: ["wait", "ready"], running: ["busy", "running"], retrying: ["warn", "retrying"],
  done: ["good", "done"], dead: ["bad", "dead"], cancelled: ["off", "cancelled"],
};
const SHOWN = [["jobs", "Jobs"], ["schedules", "Schedules"], ["channels", "Channels"]];
const ROWS_MS = 2_000;
/** It is a question about all tenants. */
const BACKLOG_MS = 10_000;
const ITEMS = { jobs: Job, schedules: Schedule, channels: Channel };

export function Jobs({ search, seen }) {
  const asked = new URLSearchParams(search);
  const [tenant, show, state] = [asked.get("tenant") || "", asked.get("show") || "jobs", asked.get("state") || ""];
  const [refreshed, refresh] = useState(0);
  const to = (changed) => query("/console/jobs", { tenant, show: show === "jobs" ? "" : show, state, ...changed });
  const submit = (event) => {
    event.preventDefault();
    refresh(refreshed + 1);
    go(to(Object.fromEntries(new FormData(event.target))));
  };
  return html`<h2>Jobs</h2>
    <${Counts} seen=${seen} />
    <form class="search" onSubmit=${submit} key=${search}>
      <${Tenants} tenant=${tenant} />
      ${show === "jobs" && html`<label>State <select name="state"><option value="" selected=${!state}>any</option>
        ${Object.keys(JOB).map((each) => html`<option key=${each} value=${each} selected=${each === state}>${each}</option>`)}</select></label>`}
      <button class="primary">Show</button>
    </form>
    ${tenant ? html`<nav aria-label="What of the tenant" class="tabs">${SHOWN.map(([path, name]) => html`<${Link} key=${path}
        to=${to({ show: path === "jobs" ? "" : path })} aria-current=${path === show ? "page" : undefined}>${name}<//>`)}</nav>
      <${Rows} key=${`${tenant} ${show} ${state} ${refreshed}`} path=${query(`/admin/tenants/${encodeURIComponent(tenant)}/${show}`, { state: show === "jobs" && state })}
        item=${ITEMS[show] || Job} />`
    : html`<${Backlog} version=${refreshed} />`}`;
}

/** Who has the most to do: jobs are kept by tenant, and this says whose to look at. */
function Backlog({ version }) {
  const of = (tenant, rest) => query("/console/jobs", { tenant, ...rest });
  const answer = useRenewed("/admin/backlog", BACKLOG_MS, version);
  return html`<${Answered} of=${answer}>${({ tenants, channels }) => html`
    <p class="quiet as-of">As of <${When} ms=${answer.heard_ms} />.</p>
    <h3>Tenants with the most jobs that have not ended or are dead</h3>
    ${tenants.length === 0 ? html`<${Empty}>None has any.<//>` : html`<ul class="plain">${tenants.map((each) => html`<li key=${each.tenant} data-tenant=${each.tenant}>
      <${Link} to=${of(each.tenant)}>${each.tenant}<//>: ${each.queued} queued, ${each.running} running, ${each.dead > 0
        ? html`<${Link} to=${of(each.tenant, { state: "dead" })}>${each.dead} dead<//>` : "none dead"}</li>`)}</ul>`}
    <h3>Channels with the most deliveries that have not ended</h3>
    ${channels.length === 0 ? html`<${Empty}>Nothing waits to be delivered.<//>` : html`<ul class="plain">${channels.map((each) => html`<li key=${each.channel}>
      <b>${each.pending}</b> ${each.kind} of <${Link} to=${of(each.tenant, { show: "channels" })}>${each.tenant}<//>
      <span class="quiet"> <span class="mono">${each.channel}</span>, the first ${each.due_at_ms > now() ? `is due in ${ms(each.due_at_ms - now())}` : html`was due <${When} ms=${each.due_at_ms} />`}</span></li>`)}</ul>`}`}<//>`;
}

/** How many are kept, of all tenants, as the scheduler has last counted them. */
function Counts({ seen }) {
  const version = useFresh(seen?.at_ms, true);
  const [counted, set] = useState(null);
  useEffect(() => {
    const read = async () => {
      const text = await (await send("/metrics")).text();
      const kept = [...text.matchAll(/^job_kept\{[^}]*state="(\w+)"[^}]*\} (\S+)$/gm)];
      return { kept: kept.map(([, state, value]) => [state, Number(value)]), at: 1000 * text.match(/^job_counted_timestamp_seconds\S* (\S+)$/m)?.[1] };
    };
    read().then(set, () => set(null));
  }, [version]);
  return counted?.at > 0 && html`<p class="notes counts">${counted.kept.map(([state, value]) => html`<span key=${state} class="note"><b>${value.toLocaleString("en")}</b> ${state}</span>`)}
    <span class="note">counted <${When} ms=${counted.at} /></span></p>`;
}

/** The names of the first tenants are offered; any other can be typed. */
function Tenants({ tenant }) {
  const { data } = useAnswer("/admin/tenants?limit=200");
  return html`<label>Tenant <input name="tenant" defaultValue=${tenant} list="tenants" autocomplete="off" />
    <datalist id="tenants">${data?.items.map(({ id }) => html`<option key=${id} value=${id}></option>`)}</datalist></label>`;
}

/** Page by page. What is shown of more than the first one stands still: new rows would push others over its edge, and out of sight. */
function Rows({ path, item: Item }) {
  const [held, hold] = useState(null);
  const [wrong, set_wrong] = useState(null);
  const answer = useRenewed(path, held ? null : ROWS_MS);
  return html`<${Answered} of=${answer}>${(first) => {
    const { pages, as_of } = held || { pages: [first], as_of: answer.heard_ms };
    const items = pages.flatMap((page) => page.items);
    const cursor = pages[pages.length - 1].next_cursor;
    const more = async () => {
      set_wrong(null);
      await ask(`${path}${path.includes("?") ? "&" : "?"}cursor=${encodeURIComponent(cursor)}`).then((page) => hold({ pages: [...pages, page], as_of }), set_wrong);
    };
    return html`${held && html`<p class="quiet as-of">As of <${When} ms=${as_of} />; "Show" asks anew.</p>`}
      ${items.length === 0 ? html`<${Empty}>There is none.<//>` : html`<ul class="cards">${items.map((each) => html`<li key=${each.id} class="card" data-id=${each.id}><${Item} item=${each} /></li>`)}</ul>`}
      ${wrong && html`<${Wrong} error=${wrong} />`}
      ${cursor && html`<p class="actions"><button type="button" onClick=${more}>Show more</button></p>`}`;
  }}<//>`;
}

const At = ({ what, at }) => at && html`<span class="note">${what} <${When} ms=${Date.parse(at)} /></span>`;

function Job({ item: job }) {
  const [tone, word] = JOB[job.state] || ["warn", job.state];
  return html`<${State} tone=${tone}>${word}<//> <b>${job.kind} <span class="quiet mono">${job.id}</span></b>
    <span class="notes"><span class="note">queue ${job.queue}</span><span class="note">attempt ${job.attempt} of ${job.max_attempts}</span>
      <${At} what="made" at=${job.created_at} /><${At} what="ended" at=${job.finished_at} />
      ${job.origin_trace_id && html`<span class="note">trace <${TraceLink} trace=${job.origin_trace_id} /></span>`}</span>
    ${job.last_error && html`<${Reason}>${job.last_error}<//>`}`;
}

function Schedule({ item: schedule }) {
  const state = schedule.last_error ? ["bad", "broken"] : schedule.paused_at ? ["off", "paused"] : schedule.next_fire_at ? ["good", "fires"] : ["off", "over"];
  const next = schedule.next_fire_at && Date.parse(schedule.next_fire_at) - now();
  return html`<${State} tone=${state[0]}>${state[1]}<//> <b>${schedule.kind} <span class="mono">${schedule.cron ? `${schedule.cron} ${schedule.time_zone}` : `every ${ms(schedule.every_ms)}`}</span> <span class="quiet mono">${schedule.id}</span></b>
    <span class="notes">${next && html`<span class="note">next ${soon(next)}</span>`}
      <${At} what="last" at=${schedule.last_fire_at} /><span class="note">${count(schedule.fires, "fire")}</span>
      ${schedule.missed > 0 && html`<span class="note warn">${schedule.missed} missed</span>`}
      ${schedule.overlapped > 0 && html`<span class="note">${schedule.overlapped} overlapped</span>`}</span>
    ${schedule.last_error && html`<${Reason}>${schedule.last_error}<//>`}`;
}

function Channel({ item: channel }) {
  const open = channel.receiver?.open;
  const state = channel.disabled ? ["off", "disabled"] : open ? ["bad", "breaker open"] : channel.failing_since ? ["warn", "failing"] : ["good", channel.receiver ? "in use" : "at rest"];
  return html`<${State} tone=${state[0]}>${state[1]}<//> <b>${channel.kind} <span class="mono">${channel.url || channel.chat_id}</span> <span class="quiet mono">${channel.id}</span></b>
    <span class="notes">${channel.receiver && html`<span class="note">${channel.receiver.in_flight} under way</span>`}
      <${At} what="made" at=${channel.created_at} /><${At} what="failing since" at=${channel.failing_since} /></span>
    ${channel.disabled && html`<${Reason}>${channel.disabled}<//>`}`;
}

const took = (sample) => (sample.took_ms < 1 ? "under 1 ms" : ms(sample.took_ms));

const HEALTH = { healthy: "good", unhealthy: "bad", unknown: "wait" };

export function Health({ seen }) {
  const answer = useAnswer("/admin/work", useFresh(seen?.at_ms, true));
  return html`<h2>Health</h2><${Answered} of=${answer}>${({ health, channels }) => html`
    <ul class="cards">${health.map((each) => html`<li key=${each.name} class="card"><${Dependency} of=${each} /></li>`)}</ul>
    <h3>Channels in use by this process</h3>
    <${Facts} facts=${[["In use", channels.in_use], ["Breaker open", channels.open]]} />
    ${channels.open > 0 && html`<h3>Breaker open the longest</h3><ul class="plain">${channels.longest_open.map((each) => html`<li key=${each.channel} data-channel=${each.channel}>
      <b>${ms(each.open_ms)}</b> a channel of <${Link} to=${query("/console/jobs", { tenant: each.tenant, show: "channels" })}>${each.tenant}<//> <span class="quiet mono">${each.channel}</span></li>`)}</ul>
      ${channels.open > channels.longest_open.length && html`<p class="quiet">and ${channels.open - channels.longest_open.length} more</p>`}`}`}<//>`;
}

/** A verdict with the checks that led to it: the longer a check took, the higher it stands; one that failed says so. */
function Dependency({ of }) {
  const last = of.history[of.history.length - 1];
  const longest = Math.max(1, ...of.history.map((sample) => sample.took_ms));
  const failed = of.history.filter((sample) => sample.fault).length;
  return html`<${State} tone=${HEALTH[of.state]}>${of.state}<//> <b>${of.name}</b>
    <span class="notes"><span class="note">${of.required ? "required" : "not required"}</span>
      ${of.since_ms && html`<span class="note">since <${When} ms=${of.since_ms} /></span>`}
      ${last && html`<span class="note">last check ${took(last)}</span>`}
      ${failed > 0 && html`<span class="note warn">${failed} of the last ${of.history.length} failed</span>`}</span>
    <svg class="checks" viewBox="0 0 192 24" preserveAspectRatio="xMinYMid" role="img" aria-label=${`The last ${of.history.length} checks, ${failed} failed`}>${of.history.map((sample, at) => {
      const height = sample.fault ? 24 : 3 + (17 * sample.took_ms) / longest;
      return html`<rect key=${at} class=${sample.fault ? "fault" : ""} x=${at * 6} y=${24 - height} width="4" height=${height}><title>${sample.fault || took(sample)}</title></rect>`;
    })}</svg>
    ${last?.fault && html`<${Reason}>${last.fault}<//>`}
    ${last && html`<details><summary>${count(of.history.length, "check")}, newest first</summary><ul class="plain">${of.history.toReversed().map((sample) => html`<li key=${sample.at_ms}>
      <span class="quiet mono"><${Exactly} ms=${sample.at_ms} /></span> ${took(sample)}${sample.fault && html`, <b>failed</b>: ${sample.fault}`}</li>`)}</ul></details>`}`;
}
