// Whether replicas serve the same: what the one that is asked has heard of the others, and what each answered this page itself.

import { h, keyed, put, row, say, table } from "./dom.js";
import { clock } from "./words.js";

/** How long two replicas may differ after a change, in milliseconds. */
const SETTLED = 10000;
/** How long what another replica answered is compared with, in milliseconds. */
const COMPARED = 60000;
/** How many routes are named of a replica that differs. */
const NAMED = 3;
/** How many differences are told at once. */
const TOLD = 5;

export class Replicas {
  constructor() {
    this.table = table("Replicas", [["name", "Replica"], ["state", "State"], ["name", "Role"]]);
    this.node = h("section", { class: "card", "aria-label": "Replicas", hidden: true }, h("h3", {}, "Replicas"), this.table.node);
    /** By replica: when it answered this page last, and the revisions that it served. */
    this.answered = new Map();
    /** Since when a replica differs from the one that is asked, by its name, the route, and the older of the two revisions: as long as
     * the one that is behind goes on, it follows. */
    this.since = new Map();
    /** Those that have differed for longer than a change takes. */
    this.differing = new Set();
    /** In what they disagree, in words; null where they do not. */
    this.disagreement = null;
  }

  /** Takes in a list of routes that was just read. */
  compare(list) {
    const now = Date.now();
    const me = list.replicas.find((replica) => replica.asked)?.name ?? "";
    const here = new Map(list.routes.map((route) => [route.name, route.revision]));
    const found = [...this.older(me, here, now), ...this.others(list.replicas, me, here, now)];
    this.answered.set(me, { at: now, revisions: here });
    if (this.answered.size > 100) this.answered.clear();
    this.disagreement = found.length > 0 ? found.slice(0, TOLD).join("; ") : null;
  }

  /** Replicas share their state: one that serves an older revision than another did before is behind. */
  older(me, here, now) {
    const found = [];
    for (const [name, other] of this.answered) {
      if (name === me || now - other.at > COMPARED) continue;
      for (const [route, revision] of here) {
        const theirs = other.revisions.get(route);
        if (theirs > revision) found.push(`${me} serves revision ${revision} of ${route}, and ${name} served ${theirs} at ${clock(other.at)}`);
      }
    }
    return found;
  }

  /** What the one that is asked has heard of the others. */
  others(replicas, me, here, now) {
    const found = [];
    const silent = [];
    const since = new Map();
    this.differing.clear();
    for (const replica of replicas.filter((one) => !one.asked)) {
      const routes = [...replica.differs ?? [], ...(replica.differsMore ? [null] : [])];
      const keys = routes.map((route) => JSON.stringify([replica.name, route, Math.min(replica.serves?.[route] ?? 0, here.get(route) ?? 0)]));
      keys.forEach((key) => since.set(key, this.since.get(key) ?? now));
      const known = routes.filter((_, place) => !replica.live || now - since.get(keys[place]) >= SETTLED);
      const what = known.length > 0 ? differences(replica, known, me, here) : null;
      if (what && replica.live) {
        const first = Math.min(...keys.map((key) => since.get(key)));
        this.differing.add(replica.name);
        found.push(`${replica.name} serves ${what}, since ${clock(first)}`);
      } else if (what) {
        found.push(`no sign of life from ${replica.name}, which served ${what} when it was last heard of`);
      } else if (!replica.live) {
        silent.push(replica.name);
      }
    }
    this.since = since;
    if (silent.length > 0) found.push(`no sign of life from ${silent.slice(0, TOLD).join(", ")}: what it serves is not known`);
    return found;
  }

  show(replicas) {
    this.node.hidden = replicas.length === 0;
    keyed(this.table.body, replicas, (replica) => replica.name, () => {
      const node = row(this.table.classes, 0);
      node.cells_[1].append(h("span"));
      return node;
    }, (node, replica) => {
      const differs = this.differing.has(replica.name);
      say(node.cells_[0], replica.name);
      say(node.cells_[1].firstChild, !replica.live ? "silent" : differs ? "differs" : "live");
      put(node.cells_[1].firstChild, "class", `tag ${replica.live && !differs ? "ready" : "bad"}`);
      say(node.cells_[2], [replica.asked && "answers this page", replica.leads && "takes rollouts forward"].filter(Boolean).join(", ") || "–");
    });
  }
}

/** What a replica serves of these routes, and what the one that is asked does, in words; null is a route that is not known. */
function differences(replica, routes, me, here) {
  const named = routes.filter((route) => route !== null);
  const words = named.slice(0, NAMED).map((route) => {
    const [theirs, ours] = [replica.serves?.[route], here.get(route)];
    const mine = ours == null ? `${me}: no such route` : `${me}: ${theirs == null ? "revision " : ""}${ours}`;
    return `${theirs == null ? `no route ${route}` : `revision ${theirs} of ${route}`} (${mine})`;
  });
  if (routes.length > words.length) words.push(words.length > 0 ? "other revisions of more routes" : `other revisions of some routes than ${me}`);
  return words.length > 1 ? `${words.slice(0, -1).join(", ")} and ${words.at(-1)}` : words[0];
}
