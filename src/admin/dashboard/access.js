// Requests to the admin API, with the token where there is one.
//
// The token is kept for this tab alone (sessionStorage), and sent to this router alone, in `Authorization`.

const KEY = "serinus.token";
/** How long a read may take. */
const READ = 10000;
/** How long a change may take: the router gives up after ten seconds. */
const CHANGE = 12000;

/** Why a request was not done. `status` is 0 where there was no answer. */
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export function token() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return memory;
  }
}

let memory = "";

export function keepToken(value) {
  memory = value;
  try {
    if (value) sessionStorage.setItem(KEY, value);
    else sessionStorage.removeItem(KEY);
  } catch {
    // Storage is off: it is in memory.
  }
}

function headers(more) {
  const all = { Accept: "application/json", ...more };
  if (token()) all.Authorization = `Bearer ${token()}`;
  return all;
}

async function send(path, options, patience) {
  let answer;
  try {
    answer = await fetch(path, { cache: "no-store", redirect: "error", signal: AbortSignal.timeout(patience), ...options });
  } catch {
    throw new Refusal(0, "no answer from the router");
  }
  if (answer.ok) return answer;
  let detail = `the router answers ${answer.status}`;
  try {
    const problem = await answer.json();
    detail = [problem.detail, ...(problem.errors ?? [])].filter(Boolean).join("\n");
  } catch {
    // Not a problem document: the status says it.
  }
  throw new Refusal(answer.status, detail);
}

async function body(answer) {
  try {
    return await answer.json();
  } catch {
    throw new Refusal(0, "the router's answer broke off");
  }
}

export const routePath = (name, rest) => `/api/v1/routes/${encodeURIComponent(name)}${rest}`;

export const read = async (path) => body(await send(path, { headers: headers() }, READ));

/** Makes a change, only if `revision` is still in force. */
export async function change(method, path, revision, value) {
  const options = {
    method,
    headers: headers({ "Content-Type": "application/json", "If-Match": `"${revision}"` }),
    body: JSON.stringify(value),
  };
  try {
    return await body(await send(path, options, CHANGE));
  } catch (refused) {
    if (refused.status === 0) {
      throw new Refusal(0, `${refused.message}: whether the change was made is not known; the history will say`);
    }
    if (refused.status === 412) {
      throw new Refusal(412, `Nothing was changed, for somebody else changed the route in between: ${refused.message}`);
    }
    throw refused;
  }
}

/** The stream of events, as an answer to read from. */
export const stream = (signal) => fetch("/api/v1/events", {
  headers: headers({ Accept: "text/event-stream" }), cache: "no-store", redirect: "error", signal,
});
