// Numbers and times, as people read them.

const round = (value) => (value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)).replace(/\.0+$/, "");

/** A duration in nanoseconds. */
export function duration(ns) {
  if (ns < 1e3) return `${Math.round(ns)} ns`;
  if (ns < 1e6) return `${round(ns / 1e3)} µs`;
  if (ns < 1e9) return `${round(ns / 1e6)} ms`;
  if (ns < 120e9) return `${round(ns / 1e9)} s`;
  return long(ns / 1e9);
}

export const ms = (value) => duration(value * 1e6);

/** When something comes that is so far away. */
export const soon = (left_ms) => (left_ms > 0 ? `in ${ms(left_ms)}` : "now");

function long(seconds) {
  const units = [[86400, "d"], [3600, "h"], [60, "min"]];
  const [size, unit] = units.find(([size]) => seconds >= size);
  return `${round(seconds / size)} ${unit}`;
}

const two = (number, places = 2) => String(number).padStart(places, "0");

let ahead = 0;

/** Learns the time from the service: ages are by its clock, whatever this computer's says. */
export const learn = (at_ms) => { ahead = at_ms - Date.now(); };

export const now = () => Date.now() + ahead;

/** The time of day here; with the date if it is another day. */
export function clock(at_ms) {
  const at = new Date(at_ms);
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${two(at.getMilliseconds(), 3)}`;
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return at.toDateString() === new Date(now()).toDateString() ? time : `${day} ${time}`;
}

export const ago = (at_ms) => {
  const since = Math.max(0, now() - at_ms);
  const [size, unit] = [[86_400_000, "d"], [3_600_000, "h"], [60_000, "min"], [1000, "s"]].find(([size]) => since >= size) || [];
  return unit ? `${Math.floor(since / size)} ${unit} ago` : "just now";
};

export const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

/** Any value of an attribute as text. */
export const plain = (value) => (typeof value === "string" ? value : JSON.stringify(value));
