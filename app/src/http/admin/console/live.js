// The stream of /admin/live. It is read with fetch: an EventSource cannot send the token.

import { send } from "./api.js";

const RETRY_MS = [500, 1000, 2000, 5000];

/** Calls `seen` with each event, and `state` with "live" or with why it is not. Returns what ends it. */
export function watch(seen, state) {
  let end = follow(seen, state);
  // A page that was left may be kept for the way back, and would keep its connection, of which a browser has six.
  const left = () => end();
  const back = (event) => { if (event.persisted) end = follow(seen, state); };
  addEventListener("pagehide", left);
  addEventListener("pageshow", back);
  return () => {
    end();
    removeEventListener("pagehide", left);
    removeEventListener("pageshow", back);
  };
}

function follow(seen, state) {
  const end = new AbortController();
  let failures = 0;
  const heard = (event) => { failures = 0; state("live"); seen(event); };
  (async () => {
    while (!end.signal.aborted) {
      let why = "the stream has ended";
      try {
        await read((await send("/admin/live", { signal: end.signal })).body, heard);
      } catch (error) {
        if (error.status === 401) return state("no token");
        why = error.message;
      }
      if (end.signal.aborted) return;
      state(why);
      const wait = RETRY_MS[Math.min(failures, RETRY_MS.length - 1)];
      failures += 1;
      await new Promise((resume) => setTimeout(resume, wait));
    }
  })();
  return () => end.abort();
}

async function read(body, heard) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    // Each has all there is to know: the last one is enough.
    const data = blocks.flatMap((block) => block.split("\n")).filter((line) => line.startsWith("data: ")).pop();
    if (data) heard({ ...JSON.parse(data.slice(6)), heard_at: performance.now() });
  }
}
