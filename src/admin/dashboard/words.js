// Numbers and times in words.

const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 4 });
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const three = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

/** A percentage as fine as a share can be asked for. */
export const percent = (value) => (value == null ? "–" : `${plain.format(value)} %`);

/** A percentage that was measured: three digits are enough to see it by. */
export const roughly = (value) => (value == null ? "–" : `${value >= 99 ? plain.format(Math.round(value * 1000) / 1000) : three.format(value)} %`);

export const count = (value) => (value == null ? "–" : whole.format(value));

export const rate = (value) => (value == null ? "–" : value === 0 ? "0" : value < 0.01 ? "<0.01" : three.format(value));

export function millis(value) {
  if (value == null) return "–";
  if (value >= 1000) return `${three.format(value / 1000)} s`;
  return `${three.format(value)} ms`;
}

/** `4 m 05 s`, `1 h 20 m`. */
export function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} m ${String(s % 60).padStart(2, "0")} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${String(Math.floor((s % 3600) / 60)).padStart(2, "0")} m`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** The time of day, of a time as a text or a `Date`. */
export function clock(time) {
  const date = new Date(time);
  return Number.isNaN(date.getTime()) ? String(time) : date.toLocaleTimeString("en-GB");
}

/** The day and the time of day, the day left out where it is today. */
export function moment(time) {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return String(time);
  const today = date.toDateString() === new Date().toDateString();
  return today ? clock(date) : `${date.toLocaleDateString("en-CA")} ${clock(date)}`;
}

/** What part of the requests a share is: `about 1 request in 1,000`. */
export function oneIn(share) {
  if (share <= 0) return "no request";
  if (share >= 100) return "every request";
  if (share > 50) {
    const others = 100 / (100 - share);
    return `all but about 1 request in ${others < 10 ? three.format(others) : whole.format(others)}`;
  }
  const each = 100 / share;
  return `about 1 request in ${each < 10 ? three.format(each) : whole.format(each)}`;
}

/** A share as it was written, or why it is none: percent, 0 to 100, at most four decimals. */
export function share(text) {
  const written = text.trim().replace(",", ".").replace(/\s*%$/, "");
  if (!/^(\d+(\.\d*)?|\.\d+)$/.test(written)) return { error: "write a percentage from 0 to 100, like 0.1" };
  const value = Number(written);
  if (value > 100) return { error: "no more than 100 %" };
  if (Math.abs(value * 1e4 - Math.round(value * 1e4)) > 1e-6) return { error: "no finer than 0.0001 %" };
  return { value: Math.round(value * 1e4) / 1e4 };
}

export const plural = (number, one, many) => `${count(number)} ${number === 1 ? one : many}`;
