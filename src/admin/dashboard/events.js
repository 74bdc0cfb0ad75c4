// What happens, as it happens: server-sent events, read with fetch, for only so can they carry the token.

import { stream } from "./access.js";

/** How long until a stream that ended is opened again. */
const PAUSE = 3000;
/** A line longer than this is none of the router's. */
const LONGEST = 1 << 20;

/** Calls `heard(kind, data)` for each event, and `open(is)` when the stream begins and ends; for ever. */
export async function listen(heard, open) {
  for (;;) {
    try {
      await visible();
      const leave = new AbortController();
      const hidden = () => { if (document.hidden) leave.abort(); };
      document.addEventListener("visibilitychange", hidden);
      try {
        const answer = await stream(leave.signal);
        if (answer.ok && answer.body) {
          open(true);
          await follow(answer.body.getReader(), heard);
        }
      } finally {
        document.removeEventListener("visibilitychange", hidden);
      }
    } catch {
      // It broke off, or cannot be had: the routes are asked from time to time all the same.
    }
    open(false);
    await new Promise((done) => setTimeout(done, PAUSE));
  }
}

/** A page that nobody sees takes none of the few places for streams. */
function visible() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((done) => {
    const look = () => {
      if (document.hidden) return;
      document.removeEventListener("visibilitychange", look);
      done();
    };
    document.addEventListener("visibilitychange", look);
  });
}

async function follow(reader, heard) {
  const decoder = new TextDecoder();
  let rest = "";
  let kind = "message";
  let data = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += decoder.decode(value, { stream: true });
    if (rest.length > LONGEST) throw new Error("not a stream of events");
    const lines = rest.split("\n");
    rest = lines.pop();
    for (const line of lines.map((l) => l.replace(/\r$/, ""))) {
      if (line === "") {
        if (data.length > 0) heard(kind, parsed(data.join("\n")));
        [kind, data] = ["message", []];
      } else if (line.startsWith("event:")) kind = line.slice(6).trim();
      else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
    }
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}
