// One route: its versions, charts, weights, rollout, pods and history.

import { fill, h, keyed, put, row, say, table } from "./dom.js";
import { read, routePath } from "./access.js";
import { count, millis, moment, percent, plural, rate, roughly } from "./words.js";
import * as rates from "./rates.js";
import { COLOURS, Charts } from "./charts.js";
import { Weights, askUndo } from "./change.js";
import { Rollout } from "./rollout.js";

/** How often the charts' samples are read, in milliseconds: as often as one is taken. */
const SAMPLES = 5000;

const VERSIONS = [
  ["name", "Version", null],
  ["num", "Asked", "The share asked for"],
  ["num wide", "In force", "The share that its pods get, after versions without a usable one gave theirs away"],
  ["num", "Measured", "Its part of the requests under the revision in force"],
  ["num wide", "Requests", "Under the revision in force"],
  ["num", "Per s", "Requests per second, over the last ten seconds"],
  ["num", "Errors", "Answered with 5xx, of the last 30 to 60 seconds"],
  ["num wide", "p50", "Of the last 30 to 60 seconds"],
  ["num wide", "p99", "Of the last 30 to 60 seconds"],
  ["num wide", "Users", "Different users under the revision in force, where there is a cohort"],
  ["num wide", "Active", "Requests being served"],
  ["num", "Pods", "Ready, of all"],
];

const STATES = ["ready", "draining", "ejected", "unhealthy", "refused", "unready"];

/** What a pod's state is, each counted once, as the API counts them. */
function stateOf(pod) {
  if (pod.phase === "unready") return "unready";
  if (pod.refused) return "refused";
  if (pod.ejected) return "ejected";
  if (pod.unhealthy) return "unhealthy";
  return pod.phase;
}

const total = (endpoints) => STATES.reduce((sum, state) => sum + (endpoints[state] ?? 0), 0);

export class Detail {
  /** `changed(route)`: a change was made; `may()`: why none can be, if so; `failed(refused)`: a read was not answered. */
  constructor({ changed, may, failed }) {
    Object.assign(this, { changed, may, failed });
    this.title = h("h2");
    this.about = h("p", { class: "muted small" });
    this.undo = h("button", { type: "button", on: { click: () => askUndo(this.route, null, changed) } }, "Undo…");
    this.problems = h("div");
    this.split = h("div", { class: "split", role: "img" });
    this.versions = table("Versions", VERSIONS);
    this.charts = new Charts();
    this.weights = new Weights({ changed, may });
    this.rollout = new Rollout({ changed, may });
    this.pods = table("Pods", [["name", "Pod"], ["name", "Version"], ["state", "State"], ["num", "Active", "Requests being served"], ["wide", "Address"]]);
    this.podsSum = h("span", { class: "muted small" });
    this.podsMore = h("p", { class: "muted small" });
    this.find = h("input", { type: "search", placeholder: "find", "aria-label": "Find pods", autocomplete: "off", on: { input: () => this.showPods() } });
    this.history = table("History", [["num", "Revision"], ["time", "When"], ["weights", "Weights"], ["name", "By"], ["reason", "Reason"], ["act", ""]]);
    this.node = h("div", { class: "detail" },
      h("div", { class: "title" }, h("div", {}, this.title, this.about), this.undo),
      this.problems,
      h("section", { class: "card", "aria-label": "Versions" }, this.split, this.versions.node),
      h("section", { class: "card", "aria-label": "Charts" }, this.charts.node),
      h("div", { class: "pair" }, this.weights.node, this.rollout.node),
      h("section", { class: "card", "aria-label": "History" }, h("h3", {}, "History"), this.history.node),
      h("section", { class: "card", "aria-label": "Pods" }, h("div", { class: "title" }, h("h3", {}, "Pods ", this.podsSum), this.find), this.pods.node, this.podsMore));
    this.entries = [];
    this.sampled = 0;
  }

  update(route) {
    const other = this.route?.name !== route.name;
    const moved = other || this.route.revision !== route.revision;
    this.route = route;
    if (other) {
      this.entries = [];
      this.sampled = 0;
      this.find.value = "";
    }
    say(this.title, route.name);
    const hosts = route.hosts.length > 0 ? route.hosts.join(", ") : "every host";
    const paths = route.paths.length > 0 ? route.paths.map((rule) => Object.entries(rule).map(([kind, path]) => `${kind} ${path}`)).join(", ") : "every path";
    say(this.about, `${route.service} · ${hosts} · ${paths} · revision ${route.revision}`);
    this.undo.disabled = Boolean(this.may()) || route.revision < 2;
    showProblems(this.problems, route.problems, route);
    this.showVersions();
    this.weights.update(route);
    this.rollout.update(route);
    this.showPods();
    this.showHistory();
    if (moved || this.unread) this.readHistory();
    if (Date.now() - this.sampled >= SAMPLES) this.readSeries();
  }

  showVersions() {
    const route = this.route;
    const perSecond = rates.ofVersions(route);
    const items = route.versions.map((version, place) => ({ version, place }));
    keyed(this.versions.body, items, ({ version }) => version.name, () => {
      const node = row(this.versions.classes, 0);
      node.cells_[0].append(h("i", { class: "dot" }), h("span", {}), h("span", { class: "muted small" }));
      return node;
    }, (node, { version, place }) => {
      put(node, "class", `v${place % COLOURS}`);
      const [dot, name, kind] = node.cells_[0].children;
      put(dot, "class", "dot");
      say(name, version.name);
      say(kind, version.stable ? " stable" : "");
      const pods = version.endpoints;
      const texts = [
        percent(version.weight), percent(version.effectiveWeight), roughly(version.measuredShare), count(version.requests),
        rate(perSecond?.[place]), roughly(version.errorRate), millis(version.p50Ms), millis(version.p99Ms),
        version.users == null ? "–" : `${count(version.users)} (${roughly(version.measuredUserShare)})`,
        count(version.activeRequests), `${count(pods.ready)}/${count(total(pods))}`,
      ];
      texts.forEach((text, cell) => say(node.cells_[cell + 1], text));
      node.cells_[2].classList.toggle("warn", version.effectiveWeight !== version.weight);
      node.cells_[6].classList.toggle("bad", version.errorRate >= 1);
      node.cells_[11].classList.toggle("warn", pods.ready < total(pods));
    });
    fill(this.split, route.versions.map((version) => [version.name, version.weight]), () => route.versions.map((version, place) => {
      const part = h("i", { class: `v${place % COLOURS}` });
      part.style.flexGrow = String(version.weight);
      // One request in a million is to be seen, too.
      if (version.weight > 0) part.style.minInlineSize = "3px";
      return part;
    }));
    put(this.split, "aria-label", route.versions.map((version) => `${version.name} ${percent(version.weight)}`).join(", "));
  }

  showPods() {
    const wanted = this.find.value.trim().toLowerCase();
    const all = this.route.versions.flatMap((version, place) => version.endpoints.addresses.map((pod) => ({
      ...pod, version: version.name, place, state: stateOf(pod),
    }))).concat(this.route.unassigned.map((pod) => ({ ...pod, version: "none", place: -1, state: pod.labelsPending ? "labels pending" : "unassigned" })));
    const found = all.filter((pod) => [pod.pod ?? "", pod.address, pod.version, pod.state].some((text) => text.toLowerCase().includes(wanted)));
    keyed(this.pods.body, found, (pod) => `${pod.version} ${pod.address}`, () => {
      const node = row(this.pods.classes, 0);
      node.cells_[1].append(h("i", { class: "dot" }), h("span", {}));
      node.cells_[2].append(h("span", {}));
      return node;
    }, (node, pod) => {
      put(node, "class", pod.place < 0 ? null : `v${pod.place % COLOURS}`);
      say(node.cells_[0], pod.pod ?? pod.address);
      say(node.cells_[1].lastChild, pod.version);
      say(node.cells_[2].firstChild, pod.state);
      put(node.cells_[2].firstChild, "class", `tag ${pod.state}`);
      say(node.cells_[3], count(pod.inFlight));
      say(node.cells_[4], pod.address);
    });
    const sums = STATES.map((state) => [state, this.route.versions.reduce((sum, version) => sum + (version.endpoints[state] ?? 0), 0)]);
    say(this.podsSum, sums.filter(([state, number]) => number > 0 || state === "ready").map(([state, number]) => `${count(number)} ${state}`).join(", ")
      + (this.route.unassignedCount > 0 ? `, ${count(this.route.unassignedCount)} of no version` : ""));
    const there = this.route.versions.reduce((sum, version) => sum + total(version.endpoints), 0) + this.route.unassignedCount;
    say(this.podsMore, there > all.length ? `The first 100 of each version are listed: ${count(all.length)} of ${count(there)}.` : "");
  }

  showHistory() {
    const entries = [...this.entries].reverse();
    keyed(this.history.body, entries, (entry) => `${entry.revision} ${entry.time}`, (entry) => {
      const node = row(this.history.classes, 0);
      node.cells_[5].append(h("button", { type: "button", class: "quiet", on: { click: () => askUndo(this.route, entry, this.changed) }, "aria-label": `Undo to revision ${entry.revision}` }, "Undo to…"));
      return node;
    }, (node, entry) => {
      const texts = [entry.revision, moment(entry.time), Object.entries(entry.after).map(([name, weight]) => `${name} ${percent(weight)}`).join(" · "),
        entry.who ? `${entry.who} (${entry.source})` : entry.source, entry.reason ?? "–"];
      texts.forEach((text, place) => say(node.cells_[place], text));
      const button = node.cells_[5].firstChild;
      const current = entry.revision === this.route.revision;
      put(node, "class", current ? "current" : null);
      button.disabled = Boolean(this.may()) || current;
      put(button, "hidden", current);
    });
  }

  async readHistory() {
    const name = this.route.name;
    this.unread = true;
    try {
      const history = await read(routePath(name, "/history"));
      if (this.route.name !== name) return;
      this.entries = history.revisions;
      this.unread = false;
      this.showHistory();
    } catch (refused) {
      this.failed(refused);
    }
  }

  async readSeries() {
    const name = this.route.name;
    this.sampled = Date.now();
    try {
      const series = await read(routePath(name, "/series"));
      if (this.route.name === name) this.charts.show(series);
    } catch (refused) {
      this.sampled = 0;
      this.failed(refused);
    }
  }
}

/** Problems, each with what to do. */
export function showProblems(node, problems, of) {
  fill(node, [of?.name, problems], () => problems.length === 0 ? null : h("section", { class: "card problems", "aria-label": "Problems" },
    h("h3", {}, plural(problems.length, "problem", "problems")),
    h("ul", {}, problems.map((problem) => h("li", {}, problem.message, h("span", { class: "block small muted" }, problem.remedy))))));
}
