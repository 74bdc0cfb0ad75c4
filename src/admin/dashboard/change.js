// Changing weights: by slider and by number, with who is affected, and asked about before it is done.

import { ask, h, put, say } from "./dom.js";
import { change, routePath } from "./access.js";
import { count, oneIn, percent, rate, share } from "./words.js";
import * as rates from "./rates.js";

/** The places of the slider: fine where shares are small. Any other share is to be had by its number. */
const STOPS = [0, 0.0001, 0.001, 0.01, 0.05, 0.1, 0.2, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 25, 30, 40, 50, 60, 70, 75, 80, 90, 95, 98, 99, 99.9, 100];

function nearest(value) {
  let best = 0;
  STOPS.forEach((stop, place) => {
    if (Math.abs(stop - value) < Math.abs(STOPS[best] - value)) best = place;
  });
  // Nothing but 0 is shown as 0, and nothing but all as all.
  if (value > 0 && best === 0) return 1;
  if (value < 100 && best === STOPS.length - 1) return best - 1;
  return best;
}

/** Who is affected when a version gets this share, in words. */
export function affected(route, version, weight) {
  const parts = [oneIn(weight)];
  const perSecond = rates.ofRoute(route);
  if (perSecond != null) parts.push(`at the present rate about ${rate((perSecond * weight) / 100)}/s`);
  parts.push(`pods: ${version.endpoints.ready}`);
  const users = route.versions.reduce((sum, other) => sum + (other.users ?? 0), 0);
  if (version.users != null) parts.push(`users: about ${count((users * weight) / 100)} of ${count(users)}`);
  return parts.join("; ");
}

/** What to mind of these weights, in words. */
function warnings(route, wanted) {
  const found = [];
  for (const version of route.versions) {
    const weight = wanted.get(version.name);
    if (weight > 0 && version.endpoints.ready === 0) found.push(`${version.name} has no ready pod.`);
    if (version.stable && weight === 0) found.push(`${version.name}, the stable version, gets nothing.`);
  }
  if (route.rollout?.phase === "running") found.push("This pauses the rollout that runs.");
  const sharing = route.versions.filter((version) => wanted.get(version.name) > 0);
  if (sharing.length > 2 && ["running", "paused"].includes(route.rollout?.phase)) {
    found.push("A rollout compares two versions: a third share is refused while it is under way.");
  }
  return found;
}

/** The form for one route's weights. */
export class Weights {
  /** `changed(route)` is told the route after a change, `may()` says why nothing can be changed now, if so. */
  constructor({ changed, may }) {
    this.changed = changed;
    this.may = may;
    this.rows = h("div", { class: "weights" });
    this.note = h("p", { class: "small muted" });
    this.sum = h("p", { class: "small" });
    this.said = h("p", { class: "said small", role: "status" });
    this.apply = h("button", { type: "submit", class: "primary" }, "Change…");
    this.reset = h("button", { type: "button", on: { click: () => this.take(this.route) } }, "Reset");
    this.form = h("form", { class: "card", "aria-label": "Weights" }, h("h3", {}, "Weights"), this.rows, this.sum, this.note,
      h("div", { class: "buttons" }, this.reset, this.apply), this.said);
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.confirm();
    });
    this.node = this.form;
    this.inputs = [];
  }

  /** Begins anew with a route as it is. */
  take(route) {
    this.route = route;
    this.base = route.revision;
    this.dirty = false;
    const canaries = route.versions.slice(1);
    // Where they are the same, the controls stay, and the focus with them.
    if (canaries.length !== this.inputs.length || canaries.some((version, place) => version.name !== this.inputs[place].name)) {
      this.inputs = canaries.map((version) => this.input(version));
      this.rows.replaceChildren(...this.inputs.map((input) => input.node));
    }
    canaries.forEach((version, place) => {
      this.inputs[place].number.value = String(version.weight);
      this.inputs[place].slider.value = String(nearest(version.weight));
    });
    this.update(route);
  }

  input(version) {
    const id = `weight-${version.name}`;
    const number = h("input", { id, class: "number", inputmode: "decimal", autocomplete: "off", "aria-describedby": `${id}-who` });
    const slider = h("input", { type: "range", min: "0", max: String(STOPS.length - 1), step: "1", "aria-label": `Share of ${version.name}` });
    const who = h("p", { id: `${id}-who`, class: "small who" });
    const input = { name: version.name, number, slider, who };
    slider.addEventListener("input", () => {
      number.value = String(STOPS[slider.value]);
      this.edited();
    });
    number.addEventListener("input", () => {
      const { value } = share(number.value);
      if (value != null) slider.value = String(nearest(value));
      this.edited();
    });
    input.node = h("div", { class: "weight" }, h("label", { for: id, class: "name" }, version.name), slider,
      h("span", { class: "unit" }, number, " %"), who);
    return input;
  }

  edited() {
    this.dirty = this.inputs.some((input) => share(input.number.value).value !== this.weightOf(input.name));
    say(this.said, "");
    this.update(this.route);
  }

  weightOf(name) {
    return this.route.versions.find((version) => version.name === name)?.weight;
  }

  /** The weights that the form asks for, by name; or nothing where they are no weights. */
  wanted() {
    const wanted = new Map();
    let rest = 1e6;
    for (const input of this.inputs) {
      const { value } = share(input.number.value);
      if (value == null) return null;
      wanted.set(input.name, value);
      rest -= Math.round(value * 1e4);
    }
    if (rest < 0) return null;
    wanted.set(this.route.versions[0].name, rest / 1e4);
    return wanted;
  }

  /** Shows the route as it is by now; what somebody is about to ask for stays. */
  update(route) {
    const names = (of) => JSON.stringify(of?.versions.map((version) => version.name));
    if (this.route?.name !== route.name || names(this.route) !== names(route) || (!this.dirty && this.base !== route.revision)) {
      this.route = null;
      this.take(route);
      return;
    }
    this.route = route;
    const hindrance = this.may();
    for (const input of this.inputs) {
      const version = route.versions.find((one) => one.name === input.name);
      const { value, error } = share(input.number.value);
      put(input.number, "aria-invalid", error ? "true" : false);
      say(input.who, error ?? affected(route, version, value));
      put(input.who, "class", error ? "small who error" : "small who");
      put(input.slider, "aria-valuetext", value == null ? "none" : percent(value));
      for (const control of [input.number, input.slider]) control.disabled = Boolean(hindrance);
    }
    const wanted = this.wanted();
    const stable = route.versions[0];
    const tooMuch = !wanted && this.inputs.every((input) => share(input.number.value).value != null);
    say(this.sum, tooMuch ? "Together more than 100 %." : wanted ? `${stable.name}, the stable version, gets the rest: ${percent(wanted.get(stable.name))}` : "");
    put(this.sum, "class", tooMuch ? "small error" : "small");
    const stale = this.dirty && this.base !== route.revision;
    say(this.note, hindrance ?? (stale
      ? `Revision ${route.revision} is in force by now; this was begun at revision ${this.base}. Reset shows what is in force.`
      : ""));
    this.apply.disabled = Boolean(hindrance) || !wanted || !this.dirty;
    this.reset.disabled = !this.dirty;
  }

  confirm() {
    const wanted = this.wanted();
    if (!wanted || this.apply.disabled) return;
    const [route, base] = [this.route, this.base];
    const weights = Object.fromEntries(this.inputs.map((input) => [input.name, wanted.get(input.name)]));
    const lines = route.versions.filter((version) => wanted.get(version.name) !== version.weight).map((version) =>
      h("p", {}, h("b", {}, version.name), ` ${percent(version.weight)} → `, h("b", {}, percent(wanted.get(version.name))),
        version.stable ? "" : h("span", { class: "block small muted" }, affected(route, version, wanted.get(version.name)))));
    const minded = warnings(route, wanted).map((text) => h("p", { class: "warn small" }, text));
    ask({
      title: `Change the weights of ${route.name}?`,
      lines: [...lines, ...minded],
      verb: "Change",
      run: async (reason) => {
        const now = await change("PUT", routePath(route.name, "/weights"), base, { weights, ...(reason && { reason }) });
        this.changed(now);
        this.dirty = false;
        this.take(now);
        say(this.said, `Changed: revision ${now.revision} is in force.`);
      },
      renew: () => {
        this.dirty = false;
        this.changed(null);
      },
    });
  }
}

/** Asks whether to go back to a revision; to the one before, where there is none given. */
export function askUndo(route, entry, changed) {
  const to = entry ? ` to revision ${entry.revision}` : "";
  const lines = entry
    ? [h("p", {}, Object.entries(entry.after).map(([name, weight]) => `${name} ${percent(weight)}`).join(", "))]
    : [h("p", {}, "Back to the last weights that were others than those in force.")];
  if (route.rollout?.phase === "running") lines.push(h("p", { class: "warn small" }, "This pauses the rollout that runs."));
  ask({
    title: `Undo ${route.name}${to}?`,
    lines,
    verb: "Undo",
    run: async (reason) => {
      const body = { ...(entry && { toRevision: entry.revision }), ...(reason && { reason }) };
      changed(await change("POST", routePath(route.name, "/undo"), route.revision, body));
    },
    renew: () => changed(null),
  });
}

