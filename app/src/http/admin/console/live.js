// The stream of /admin/live. It is read with fetch: an EventSource cannot send the token.

import { send } from "./api.js";
import { learn } from "./format.js";

const RETRY_MS = [500, 1000, 2000, 5000];

/** The service says something each second. Whoever says nothing for so long is not there. */
const SILENCE_MS = 5000;

/** Calls `seen` with each event, and `state` with "live" or with why it is not. Returns what ends it. */
export function watch(seen, state) {
  let end = () => {};
  // A browser has six connections for a host: a page that nobody sees, or that was left and is kept for the way back, needs none.
  const look = () => {
    end();
    state(document.hidden ? "nobody looks" : "connecting");
    end = document.hidden ? () => {} : follow(seen, state);
  };
  look();
  document.addEventListener("visibilitychange", look);
  return () => {
    end();
    document.removeEventListener("visibilitychange", look);
  };
}

function follow(seen, state) {
  const end = new AbortController();
  let failures = 0;
  let last = performance.now();
  const heard = (event) => { failures = 0; state("live"); learn(event.at_ms); seen(event); };
  (async () => {
    while (!end.signal.aborted) {
      let why = "the stream has ended";
      const silence = new AbortController();
      let timer;
      const wait_on = () => { clearTimeout(timer); timer = setTimeout(() => silence.abort(), SILENCE_MS); };
      const piece = () => { last = performance.now(); wait_on(); };
      wait_on();
      try {
        const answer = await send("/admin/live", { signal: AbortSignal.any([end.signal, silence.signal]) });
        await read(answer.body, piece, heard);
      } catch (error) {
        why = silence.signal.aborted ? `nothing heard for ${Math.round((performance.now() - last) / 1000)} s` : error.message;
        if (error.status === 401) return state("no token");
      } finally {
        clearTimeout(timer);
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

async function read(body, piece, heard) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    piece();
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    // Each has all there is to know: the last one is enough.
    const data = blocks.flatMap((block) => block.split("\n")).filter((line) => line.startsWith("data: ")).pop();
    if (data) heard({ ...JSON.parse(data.slice(6)), heard_at: performance.now() });
  }
}
