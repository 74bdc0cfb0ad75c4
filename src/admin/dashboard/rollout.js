// A route's rollout: its steps, how long the one that runs still takes, what speaks against the version, and its verbs.

import { ask, fill, h, put, say } from "./dom.js";
import { change, routePath } from "./access.js";
import { count, duration, moment, percent } from "./words.js";

const VERBS = {
  start: ["Start", "Begins at the first step."],
  pause: ["Pause", "Stays at its weight; a bad verdict still takes it back."],
  resume: ["Resume", "Goes on at the weight of its step."],
  promote: ["Promote", "Ends the step now; the next one begins."],
  full: ["Promote fully", "Goes to the last step now."],
  abort: ["Abort", "Ends it: the version gets nothing any more."],
};

/** Which verbs make sense for a route; the router has the last word. Without a rollout in its config it takes none. */
function verbs({ rollout, rolloutConfigured }) {
  if (!rolloutConfigured) return [];
  switch (rollout?.phase) {
    case "running": return ["pause", "promote", "full", "abort"];
    case "paused": return ["resume", "promote", "full", "abort"];
    default: return ["start"];
  }
}

/** How strongly something speaks against the version, on the way to where it fails. */
function meter(name, value, threshold) {
  const part = Math.min(Math.max(value / threshold, 0), 1);
  const bar = h("span", { class: "bar" }, h("i"));
  bar.firstChild.style.inlineSize = `${part * 100}%`;
  if (part >= 1) bar.classList.add("bad");
  const e = (log) => (log < 6 ? count(10 ** log < 10 ? Math.round(10 ** log * 100) / 100 : 10 ** log) : `10^${log.toFixed(1)}`);
  return h("div", { class: "meter", role: "img", "aria-label": `${name}: e-value ${e(value)}, it fails beyond ${e(threshold)}` },
    h("span", {}, name), bar, h("span", { class: "num" }, `e = ${value > -2 ? e(value) : "<0.01"} of ${e(threshold)}`));
}

function steps(rollout) {
  const going = ["running", "paused"].includes(rollout.phase);
  return h("ol", { class: "steps" }, rollout.steps.map((step, place) => {
    const number = place + 1;
    const done = number < rollout.step || rollout.phase === "succeeded";
    const here = number === rollout.step && rollout.phase !== "succeeded";
    const bar = h("span", { class: "bar" }, h("i"));
    const part = done ? 1 : here && step.holdSeconds > 0 ? Math.min(rollout.heldSeconds / step.holdSeconds, 1) : here ? 1 : 0;
    bar.firstChild.style.inlineSize = `${part * 100}%`;
    const state = done ? "done" : here ? (going ? "here" : "ended") : "";
    return h("li", { class: state, "aria-current": here && going ? "step" : null },
      h("b", {}, percent(step.weight)), h("span", { class: "small muted" }, duration(step.holdSeconds), step.pause ? ", waits" : ""), bar);
  }));
}

/** What the step that runs still takes, in words. */
function left(rollout) {
  const step = rollout.steps[rollout.step - 1];
  if (!step || !["running", "paused"].includes(rollout.phase)) return "";
  const { stepRequests, minRequests } = rollout.evidence;
  const rest = step.holdSeconds - rollout.heldSeconds;
  const all = rollout.steps.slice(rollout.step).reduce((sum, later) => sum + later.holdSeconds, Math.max(rest, 0));
  const parts = [];
  parts.push(rest > 0 ? `at least ${duration(rest)} left in step ${rollout.step} of ${rollout.steps.length}` : `step ${rollout.step} of ${rollout.steps.length} has had its time`);
  if (stepRequests < minRequests) parts.push(`${count(stepRequests)} of ${count(minRequests)} requests that it needs`);
  if (rollout.step < rollout.steps.length) parts.push(`${duration(all)} to the end`);
  return parts.join("; ");
}

function evidence(rollout) {
  const { canary, stable, log10Errors, log10Slowness, log10Threshold } = rollout.evidence;
  const of = (counts) => [count(counts.requests), count(counts.errors), count(counts.slow)];
  const line = (name, counts) => h("tr", {}, h("th", { scope: "row" }, name), of(counts).map((text) => h("td", { class: "num" }, text)));
  return [
    h("table", { class: "small plain" },
      h("thead", {}, h("tr", {}, ["First attempts", "all", "failed", "slow"].map((text, place) => h("th", { scope: "col", class: place ? "num" : null }, text)))),
      h("tbody", {}, line(rollout.version, canary), line("stable", stable))),
    meter("failures", log10Errors, log10Threshold),
    log10Slowness == null ? null : meter("slowness", log10Slowness, log10Threshold),
  ];
}

export class Rollout {
  constructor({ changed, may }) {
    this.changed = changed;
    this.may = may;
    this.head = h("p");
    this.lacks = h("p", { class: "small muted" });
    this.left = h("p", { class: "small" });
    this.steps = h("div");
    this.evidence = h("div", { class: "evidence" });
    this.said = h("p", { class: "said small", role: "status" });
    this.buttons = Object.keys(VERBS).map((verb) =>
      h("button", { type: "button", title: VERBS[verb][1], class: verb === "abort" ? "danger" : null, on: { click: () => this.confirm(verb) } }, VERBS[verb][0]));
    this.node = h("section", { class: "card", "aria-label": "Rollout" }, h("h3", {}, "Rollout"), this.head, this.lacks, this.steps, this.left,
      this.evidence, h("div", { class: "buttons" }, this.buttons), this.said);
  }

  update(route) {
    this.route = route;
    const rollout = route.rollout;
    // What was done is told until something else happens.
    const here = JSON.stringify([route.name, rollout?.phase, rollout?.step]);
    if (this.here !== here) say(this.said, "");
    this.here = here;
    fill(this.head, [rollout?.phase, rollout?.reason, rollout?.version, rollout?.changed, route.rolloutConfigured], () => rollout
      ? [h("b", {}, rollout.version), " ", h("span", { class: `tag ${rollout.phase}` }, rollout.phase.replace("-", " ")), " ",
        h("span", { class: "small" }, rollout.reason), h("span", { class: "block small muted" }, `since ${moment(rollout.changed)}, begun ${moment(rollout.started)}`)]
      : route.rolloutConfigured ? [h("span", { class: "muted" }, "None so far. It can be started here.")] : null);
    say(this.lacks, route.rolloutConfigured ? "" : rollout
      ? "The config gives this route no rollout any more, so that nothing can be asked of this one."
      : "The config gives this route no rollout. With `rollout: {steps: […]}` in it, one can be started here.");
    fill(this.steps, [rollout?.steps, rollout?.step, rollout?.heldSeconds, rollout?.phase], () => (rollout ? steps(rollout) : null));
    say(this.left, rollout ? left(rollout) : "");
    fill(this.evidence, [rollout?.evidence, rollout?.version], () => (rollout ? evidence(rollout) : null));
    const possible = verbs(route);
    const hindrance = this.may();
    Object.keys(VERBS).forEach((verb, place) => {
      const button = this.buttons[place];
      // A button that has the focus stays until it has lost it.
      put(button, "hidden", !possible.includes(verb) && document.activeElement !== button);
      button.disabled = Boolean(hindrance) || !possible.includes(verb);
    });
  }

  confirm(verb) {
    const route = this.route;
    const [title, meaning] = VERBS[verb];
    const action = verb === "full" ? { action: "promote", full: true } : { action: verb };
    const about = route.rollout && verb !== "start"
      ? `${route.rollout.version} is at step ${route.rollout.step} of ${route.rollout.steps.length}.` : null;
    ask({
      title: `${title}: the rollout of ${route.name}?`,
      lines: [h("p", {}, meaning), about && h("p", { class: "small muted" }, about)].filter(Boolean),
      verb: title,
      danger: verb === "abort",
      run: async (reason) => {
        const now = await change("POST", routePath(route.name, "/rollout"), route.revision, { ...action, ...(reason && { reason }) });
        this.changed(now);
        say(this.said, `Done: ${now.rollout?.reason ?? ""}`);
      },
      renew: () => this.changed(null),
    });
  }
}
