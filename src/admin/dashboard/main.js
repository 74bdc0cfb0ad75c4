// The page: reads the routes again and again, hears what happens, and shows what is selected.

import { h, keyed, put, row, say, table } from "./dom.js";
import { keepToken, read, token } from "./access.js";
import { listen } from "./events.js";
import { clock, count, moment, percent, rate, roughly } from "./words.js";
import * as rates from "./rates.js";
import { Detail, showProblems } from "./detail.js";
import { Replicas } from "./replicas.js";

/** How often the routes are read, in milliseconds; more rarely where reading them takes long. */
const LOOK = 1000;
/** How long after an event they are read again: others may follow it. */
const AFTER = 150;
/** How many events are listed. */
const EVENTS = 50;

const state = {
  list: null,
  at: null,
  /** Why the last read was not answered; null where it was. */
  failed: null,
  access: null,
  /** The route that is looked at, by its name; null for the first. */
  wanted: null,
  live: false,
  events: [],
};

const byId = (id) => document.getElementById(id);
const detail = new Detail({ changed, may, failed: (refused) => lost(refused) });
const overview = h("div", { class: "detail" });
const routerProblems = h("div");
const replicas = new Replicas();
const eventsTable = table("Events", [["time", "When"], ["name", "Event"], ["name", "Route"], ["reason", "What"]]);
const eventsCard = h("section", { class: "card", "aria-label": "Events" },
  h("h3", {}, "Events since this page was opened"), eventsTable.node, h("p", { class: "none muted small" }, "None yet."));

/** Why nothing can be changed now; null where it can. */
function may() {
  if (state.failed) return "Nothing can be changed: there is no connection to the router.";
  if (!state.access) return "Not known yet whether changes are let through.";
  if (state.access.write) return null;
  return state.access.needs === "token"
    ? "Read-only: changes need the token (button at the top)."
    : "Read-only: this router has no token file, so it takes changes on a loopback listener only.";
}

// ------------------------------------------------------------------------------------------------- reading

let timer = 0;
let reading = false;
let again = false;

async function look() {
  clearTimeout(timer);
  if (reading) {
    again = true;
    return;
  }
  if (document.hidden) return;
  reading = true;
  again = false;
  const began = performance.now();
  try {
    if (!state.access || state.failed) state.access = await read("/api/v1/access");
    const list = await read("/api/v1/routes");
    rates.see(list.routes, performance.now());
    replicas.compare(list);
    Object.assign(state, { list, at: new Date(), failed: null });
  } catch (refused) {
    lost(refused);
  }
  reading = false;
  show();
  // A router with thousands of routes is not to spend its time on this page.
  timer = setTimeout(look, again ? AFTER : Math.max(LOOK, 8 * (performance.now() - began)));
}

function soon() {
  clearTimeout(timer);
  timer = setTimeout(look, AFTER);
}

function lost(refused) {
  if (refused.status === 404) return soon();
  state.failed = refused;
  if (refused.status === 401) state.access = null;
  show();
}

function changed(route) {
  if (route && state.list) {
    const place = state.list.routes.findIndex((one) => one.name === route.name);
    if (place >= 0) state.list.routes[place] = route;
    show();
  }
  soon();
}

function heard(kind, data) {
  state.events.unshift({ kind, data, key: `${performance.now()} ${state.events.length}` });
  state.events.length = Math.min(state.events.length, EVENTS);
  showEvents();
  soon();
}

// ------------------------------------------------------------------------------------------------- showing

function selected() {
  const routes = state.list?.routes ?? [];
  // `#route` only moves the focus.
  if (location.hash.startsWith("#/")) state.wanted = name(location.hash.slice(2));
  return routes.find((route) => route.name === state.wanted) ?? (state.wanted == null ? routes[0] : null);
}

function name(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function show() {
  showLink();
  showBanners();
  if (!state.list) return;
  showList();
  const route = selected();
  const place = byId("route");
  if (overview.parentNode !== place) place.replaceChildren(overview);
  showProblems(routerProblems, state.list.problems, null);
  const gone = !route && state.list.routes.length > 0;
  const nothing = h("p", { class: "muted" }, gone ? "There is no such route (any more): choose another." : "The config has no routes.");
  const shown = route ? [routerProblems, detail.node, replicas.node, eventsCard] : [routerProblems, nothing, replicas.node, eventsCard];
  if (overview.shows !== Boolean(route)) {
    overview.shows = Boolean(route);
    overview.replaceChildren(...shown);
  }
  if (route) detail.update(route);
  replicas.show(state.list.replicas);
}

function showLink() {
  const link = byId("link");
  const how = state.failed ? "lost" : !state.at ? "connecting" : state.live ? "live" : "polling";
  const asked = state.list?.replicas.find((replica) => replica.asked);
  say(link, { lost: "no connection", connecting: "connecting", live: "live", polling: "up to date" }[how]);
  put(link, "class", how);
  put(link, "title", state.at ? `Read at ${clock(state.at)}` : null);
  say(byId("replica"), asked ? asked.name : location.host);
  document.body.classList.toggle("stale", Boolean(state.failed));
  const button = byId("token");
  put(button, "hidden", state.access?.needs !== "token" && state.failed?.status !== 401);
  say(button, token() && state.access?.write ? "Forget the token" : "Give the token…");
}

function showBanners() {
  const banners = [];
  const { failed, access } = state;
  const since = state.at ? ` What is shown is as it was at ${clock(state.at)}, and may be wrong by now.` : "";
  if (failed?.status === 0) banners.push(["bad", `No connection to the router.${since} Trying again.`]);
  else if (failed?.status === 401) banners.push(["bad", `The router asks for a token. ${failed.message}`]);
  else if (failed) banners.push(["bad", `The router does not tell: ${failed.message}${since}`]);
  if (!failed && replicas.disagreement) banners.push(["warn", `Replicas disagree: ${replicas.disagreement}.`]);
  if (!failed && access && !access.write) banners.push(["note", may()]);
  keyed(byId("banners"), banners, ([kind, text]) => `${kind} ${text}`, ([kind, text]) => h("p", { class: `banner ${kind}` }, text), () => {});
}

/** How many routes are listed at once: the search finds the others. */
const LISTED = 300;

function showList() {
  const wanted = byId("find").value.trim().toLowerCase();
  const routes = state.list.routes.filter((route) => route.name.toLowerCase().includes(wanted) || route.service.toLowerCase().includes(wanted));
  const here = selected()?.name;
  keyed(byId("list"), routes.slice(0, LISTED), (route) => route.name, (route) => {
    const parts = [h("span", { class: "route" }), h("span", { class: "mark" }), h("span", { class: "small muted" }), h("span", { class: "small num" })];
    const link = h("a", { href: `#/${encodeURIComponent(route.name)}` }, parts);
    const item = h("li", {}, link);
    item.parts = [link, ...parts];
    return item;
  }, (item, route) => {
    const [link, title, mark, shares, figures] = item.parts;
    put(link, "aria-current", route.name === here ? "page" : false);
    say(title, route.name);
    const [word, kind] = standing(route);
    say(mark, word);
    put(mark, "class", `mark tag ${kind}`);
    put(mark, "hidden", word === "");
    say(shares, route.versions.slice(1).map((version) => `${version.name} ${percent(version.weight)}`).join(" · ") || "one version");
    const worst = Math.max(...route.versions.map((version) => version.errorRate ?? 0));
    say(figures, `${rate(rates.ofRoute(route))}/s${worst > 0 ? ` · ${roughly(worst)} err` : ""}`);
  });
  say(byId("more"), routes.length > LISTED ? `The first ${LISTED} of ${count(routes.length)}: find narrows them down.` : "");
  put(byId("more"), "hidden", routes.length <= LISTED);
}

/** What is most to be known of a route, in a word. */
function standing(route) {
  if (route.problems.length > 0) return ["problem", "bad"];
  const phase = route.rollout?.phase;
  if (phase === "rolled-back") return ["rolled back", "rolled-back"];
  if (phase === "running" || phase === "paused") return [`step ${route.rollout.step}/${route.rollout.steps.length}`, phase];
  return ["", ""];
}

/** What happened, in words. */
function told(kind, data) {
  const reason = data.reason ? `: ${data.reason}` : "";
  switch (kind) {
    case "weight": return `revision ${data.revision}, ${Object.entries(data.weights ?? {}).map(([version, weight]) => `${version} ${percent(weight)}`).join(" · ")}${reason}`;
    case "rollout": return `${data.version} ${data.phase}, step ${data.step} of ${data.steps}${reason}`;
    case "endpoint": return `${data.address} (${data.version}) ${data.state}${reason}`;
    case "config": return data.accepted ? `in force, ${data.routes} routes` : `refused: ${data.errors}`;
    case "problem": return `${data.there ? "" : "gone: "}${data.message}`;
    case "hook": return `${data.on} at ${data.hook}: ${data.error}`;
    case "lagged": return `${data.missed} events were missed`;
    default: return "";
  }
}

function showEvents() {
  keyed(eventsTable.body, state.events, (event) => event.key, ({ kind, data }) => {
    const node = row(eventsTable.classes, 1);
    [data.time ? moment(data.time) : clock(new Date()), kind, data.route ?? "–", told(kind, data)].forEach((text, place) => say(node.cells_[place], text));
    return node;
  }, () => {});
}

// ------------------------------------------------------------------------------------------------- the token

function giveToken() {
  if (token() && state.access?.write) {
    keepToken("");
    state.access = null;
    look();
    return;
  }
  const input = h("input", { id: "token-text", type: "password", autocomplete: "off", required: true });
  const error = h("p", { class: "error", role: "alert" });
  const form = h("form", {}, h("h2", {}, "The router's token"),
    h("p", { class: "small muted" }, "The text in its token file. It is kept for this tab until the tab is closed, and sent to this router alone."),
    h("label", { class: "stack" }, "Token", input), error,
    h("div", { class: "buttons" }, h("button", { type: "button", on: { click: () => dialog.close() } }, "Cancel"), h("button", { type: "submit", class: "primary" }, "Use it")));
  const dialog = h("dialog", { class: "ask", "aria-label": "The router's token" }, form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const before = token();
    keepToken(input.value.trim());
    try {
      state.access = await read("/api/v1/access");
      state.failed = null;
      dialog.close();
      look();
    } catch (refused) {
      keepToken(before);
      say(error, refused.message);
    }
  });
  dialog.addEventListener("close", () => {
    dialog.remove();
    byId("token").focus();
  });
  document.body.append(dialog);
  dialog.showModal();
}

byId("token").addEventListener("click", giveToken);
byId("find").addEventListener("input", () => state.list && showList());
window.addEventListener("hashchange", () => show());
document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
listen(heard, (is) => {
  state.live = is;
  // What came between the stream and the routes is in the routes.
  if (is) soon();
  showLink();
});
look();
