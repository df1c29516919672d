// What a job costs in graphile-worker: `main.mjs fill URL JOBS` keeps so many jobs, `main.mjs run URL JOBS` runs them all and
// prints how long that took in milliseconds, and the CPU of this process meanwhile in microseconds: what Node takes to start
// is no part of a job.
//
// The settings are those of its page on performance (https://worker.graphile.org/docs/performance): 24 jobs at a time over
// 25 connections, jobs fetched 500 at a time into a local queue, ends written in batches. Its log is off.

import { Logger, makeWorkerUtils, run as runWorker } from "graphile-worker";
import pg from "pg";

const BATCH = 100;
const preset = (connectionString) => ({
  worker: {
    connectionString,
    concurrentJobs: 24,
    maxPoolSize: 25,
    localQueue: { size: 500 },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
    logger: new Logger(() => () => {}),
  },
});

async function fill(url, jobs) {
  const utils = await makeWorkerUtils({ preset: preset(url) });
  await utils.migrate();
  for (let kept = 0; kept < jobs; kept += BATCH) {
    await utils.addJobs(Array.from({ length: BATCH }, () => ({ identifier: "note", payload: { n: 1 } })));
  }
  await utils.release();
  await once(url, "VACUUM (ANALYZE) graphile_worker._private_jobs", "CHECKPOINT");
}

async function run(url, jobs) {
  const look = new pg.Client(url);
  await look.connect();
  let runs = 0;
  const note = async (payload) => {
    runs += payload.n;
  };
  const [began, before] = [process.hrtime.bigint(), process.cpuUsage()];
  const runner = await runWorker({ preset: preset(url), taskList: { note } });
  for (;;) {
    if (runs >= jobs) {
      // A job that has ended is deleted.
      const { rows } = await look.query("SELECT count(*)::int AS left FROM graphile_worker._private_jobs");
      if (rows[0].left === 0) break;
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  const [took, { user, system }] = [process.hrtime.bigint() - began, process.cpuUsage(before)];
  await runner.stop();
  await look.end();
  console.log(`${Number(took) / 1e6} ${user + system}`);
}

async function once(url, ...statements) {
  const client = new pg.Client(url);
  await client.connect();
  for (const statement of statements) await client.query(statement);
  await client.end();
}

const [verb, url, jobs] = process.argv.slice(2);
if (verb === "fill") await fill(url, Number(jobs));
else if (verb === "run") await run(url, Number(jobs));
else throw new Error("main.mjs fill|run URL JOBS");
