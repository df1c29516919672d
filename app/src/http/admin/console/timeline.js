// Where an instant of a trace stands on the screen: long stretches in which nothing is at work are squeezed, and a window
// of the rest is shown.

/** A stretch of waiting, of this part of what longer ones have left, is squeezed ... */
const GAP = 0.12;
/** ... to this part of what is left in the end. */
const SQUEEZED = 0.03;

/**
 * `instants` are those at which something happens, in nanoseconds since the beginning, and `work` is what is never squeezed,
 * as [from, to]: the spans with nothing below them. Of two of those the longer one always looks longer.
 */
export function timeline(instants, work, squeeze) {
  const points = [...new Set([0, ...instants])].sort((a, b) => a - b);
  const total = Math.max(points[points.length - 1], 1);
  const is_waiting = ({ from, to }) => !work.some(([start, end]) => start < to && end > from);
  const stretches = points.slice(1).map((to, at) => ({ from: points[at], to, gap: false }));
  let busy = total;
  const longest = squeeze ? stretches.filter(is_waiting).sort((a, b) => b.to - b.from - (a.to - a.from)) : [];
  for (const each of longest) {
    each.gap = each.to - each.from > GAP * busy && each.to - each.from < busy;
    if (!each.gap) break;
    busy -= each.to - each.from;
  }
  let at = 0;
  for (const each of stretches) {
    each.at = at;
    each.length = each.gap ? SQUEEZED * busy : each.to - each.from;
    at += each.length;
  }
  const whole = at || 1;
  const pieces = stretches.length ? stretches : [{ from: 0, to: total, at: 0, length: 1 }];
  const piece = (test) => pieces.find(test) || pieces[pieces.length - 1];
  return {
    total,
    gaps: pieces.filter((each) => each.gap).map((each) => ({ at: each.at / whole, length: each.length / whole, ns: each.to - each.from })),
    /** From 0 to 1. */
    place(ns) {
      const on = piece((each) => ns <= each.to);
      const part = (Math.min(Math.max(ns, on.from), on.to) - on.from) / (on.to - on.from || 1);
      return (on.at + part * on.length) / whole;
    },
    /** The other way round. */
    instant(place) {
      const on = piece((each) => place * whole <= each.at + each.length);
      return on.from + ((place * whole - on.at) / (on.length || 1)) * (on.to - on.from);
    },
  };
}

/** A part of the whole, as [from, to] between 0 and 1. */
export const ALL = [0, 1];
const NARROWEST = 1e-5;

/** The window, by this factor narrower (below 1) or wider, around its middle or another point. */
export function zoomed([from, to], factor, around = (from + to) / 2) {
  const length = Math.min(1, Math.max(NARROWEST, (to - from) * factor));
  const start = around - ((around - from) / (to - from)) * length;
  return moved([start, start + length], 0);
}

/** The window, further on by this part of its length, and never beyond the ends. */
export function moved([from, to], by) {
  const length = to - from;
  const start = Math.min(Math.max(0, from + by * length), 1 - length);
  return [start, start + length];
}

export const between = (a, b) => (Math.abs(a - b) < NARROWEST ? null : [Math.max(0, Math.min(a, b)), Math.min(1, Math.max(a, b))]);
