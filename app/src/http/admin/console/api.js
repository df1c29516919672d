// Questions to the admin listener, with the operator's token if there is one. It is kept for this tab only.

const KEPT = "admin.token";
let ask_for_token = () => {};

/** Calls `listener` with why a token is wanted, or with null once there is one. */
export const on_token = (listener) => { ask_for_token = listener; };

export function use_token(token) {
  sessionStorage.setItem(KEPT, token);
  ask_for_token(null);
}

/** An answer that is a refusal, in the service's own words. */
export class Refused extends Error {
  constructor(status, detail) {
    super(detail || `the answer was ${status}`);
    this.status = status;
  }
}

async function refusal(answer) {
  const problem = await answer.json().catch(() => ({}));
  const faults = (problem.errors || []).map((fault) => `${fault.field}: ${fault.reason}`);
  return new Refused(answer.status, [problem.detail || problem.title, ...faults].filter(Boolean).join("; "));
}

/** The answer itself, if it is a good one. */
export async function send(path, { method = "GET", body, signal } = {}) {
  const token = sessionStorage.getItem(KEPT);
  const headers = { ...(token && { authorization: `Bearer ${token}` }), ...(body && { "content-type": "application/json" }) };
  const answer = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body), cache: "no-store" });
  // A refusal that comes late is of a token that is no longer used.
  if (answer.status === 401 && token === sessionStorage.getItem(KEPT)) {
    sessionStorage.removeItem(KEPT);
    ask_for_token(token ? "refused" : "missing");
  }
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

export const ask = async (path, options) => (await send(path, options)).json();

/** A path with its parameters; those that are empty are left out. */
export function query(path, parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null && value !== "" && value !== false);
  const text = new URLSearchParams(given).toString();
  return text ? `${path}?${text}` : path;
}
