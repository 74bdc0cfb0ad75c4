// The last quarter of an hour of a route: requests, the canaries' share, errors, times.

import { h, say } from "./dom.js";
import { rate, roughly, millis } from "./words.js";

/** How far back, in seconds. */
const BACK = 900;
/** How far back at least, in seconds. */
const LEAST = 120;
/** How high a plot is, in pixels: as in the style sheet. */
const HEIGHT = 132;

/** How many colours there are for versions: `--v0` and so on. */
export const COLOURS = 6;

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** What each chart shows: title, lines of a version, how a value is written. */
const CHARTS = [
  {
    title: "Requests per second",
    format: rate,
    lines: (series) => series.versions.map((version, place) => ({
      name: version.name, place, values: version.requests.map((n, i) => (n == null ? null : n / series.seconds[i])),
    })),
  },
  {
    title: "Measured share, but for stable",
    format: roughly,
    lines: (series) => series.versions.map((version, place) => ({
      name: version.name, place, values: version.requests.map((n, i) => {
        const all = series.versions.reduce((sum, other) => sum + (other.requests[i] ?? 0), 0);
        return n == null || all === 0 ? null : (100 * n) / all;
      }),
    })).slice(1),
  },
  {
    title: "Error rate",
    format: roughly,
    lines: (series) => series.versions.map((version, place) => ({
      name: version.name, place, values: version.ended.map((n, i) => (n ? (100 * Math.min(version.errors[i], n)) / n : null)),
    })),
  },
  {
    title: "p50 (thin) and p99",
    format: millis,
    lines: (series) => series.versions.flatMap((version, place) => [
      { name: version.name, place, values: version.p99Ms },
      { name: "", thin: true, place, values: version.p50Ms },
    ]),
  },
];

const pad = (number) => String(number).padStart(2, "0");
const minute = (seconds) => {
  const date = new Date(seconds * 1000);
  return `${pad(date.getHours())}:${pad(date.getMinutes())}`;
};
const second = (seconds) => `${minute(seconds)}:${pad(new Date(seconds * 1000).getSeconds())}`;

class Chart {
  constructor(kind) {
    this.kind = kind;
    this.legend = h("span", { class: "legend" });
    this.plot = h("div", { class: "plot" });
    this.node = h("figure", { class: "chart" }, h("figcaption", {}, h("span", {}, kind.title), this.legend), this.plot);
    this.lines = [];
  }

  show(series) {
    this.lines = this.kind.lines(series);
    this.data = [series.ends, ...this.lines.map((line) => line.values)];
    const shape = JSON.stringify(this.lines.map(({ name, place }) => [name, place]));
    if (!this.u || this.shape !== shape) {
      this.shape = shape;
      this.draw();
    } else {
      this.u.setData(this.data);
    }
    this.describe();
  }

  draw() {
    this.u?.destroy();
    const axis = { stroke: css("--muted"), font: `11px ${css("--font")}`, grid: { stroke: css("--line"), width: 1 }, ticks: { show: false } };
    this.u = new window.uPlot({
      width: Math.max(this.plot.clientWidth, 80),
      height: HEIGHT,
      padding: [8, 18, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: "route" }, drag: { x: false, y: false }, points: { size: 5 } },
      scales: {
        x: { time: true, range: () => this.window },
        y: { range: (_, low, high) => [0, high > 0 ? high * 1.08 : 1] },
      },
      axes: [
        { ...axis, size: 22, space: 70, values: (_, splits, __, ___, step) => splits.map(step < 60 ? second : minute) },
        { ...axis, size: 56, space: 32, values: (_, splits) => splits.map((value) => this.kind.format(value)) },
      ],
      series: [{}, ...this.lines.map((line) => ({
        label: line.name,
        stroke: css(`--v${line.place % COLOURS}`),
        width: line.thin ? 1 : 1.75,
        alpha: line.thin ? 0.75 : 1,
        // One sample alone would be no line.
        points: { show: (u, place, first, last) => last - first < 2, size: 4 },
      }))],
      hooks: { setCursor: [() => this.describe()] },
    }, this.data, this.plot);
  }

  get until() {
    const ends = this.data[0];
    return ends.length > 0 ? ends[ends.length - 1] : Date.now() / 1000;
  }

  /** A quarter of an hour, or less where the router has not run for so long. */
  get window() {
    const first = this.data[0][0] ?? this.until;
    return [Math.max(this.until - BACK, Math.min(first, this.until - LEAST)), this.until];
  }

  /** The values under the cursor, or the newest. */
  describe() {
    const at = this.u?.cursor.idx;
    const idx = at ?? this.data[0].length - 1;
    const named = this.lines.filter((line) => line.name);
    while (this.legend.childElementCount > named.length) this.legend.lastChild.remove();
    named.forEach((line, place) => {
      const entry = this.legend.children[place] ?? this.legend.appendChild(h("span", {}, h("i"), h("span", {}), " ", h("b")));
      entry.className = `v${line.place % COLOURS}`;
      say(entry.children[1], line.name);
      say(entry.children[2], this.kind.format(line.values[idx]));
    });
    const time = at == null ? "" : `at ${second(this.data[0][at])}`;
    this.legend.title = time;
  }

  resize() {
    const width = this.plot.clientWidth;
    if (this.u && width > 0 && width !== this.u.width) this.u.setSize({ width, height: HEIGHT });
  }
}

/** All charts of a route. */
export class Charts {
  constructor() {
    this.charts = CHARTS.map((kind) => new Chart(kind));
    this.node = h("div", { class: "charts" }, this.charts.map((chart) => chart.node));
    new ResizeObserver(() => this.charts.forEach((chart) => chart.resize())).observe(this.node);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
      this.charts.forEach((chart) => chart.u && chart.draw()));
  }

  show(series) {
    if (!window.uPlot) return;
    this.charts.forEach((chart) => chart.show(series));
  }
}
