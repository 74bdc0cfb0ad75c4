// Requests per second, from how the counts went on between one look and another.

/** Over how long, in milliseconds. */
const OVER = 10000;

/** By route and version: counts of late. */
const seen = new Map();

/** Takes in a list of routes that was read at `now` (milliseconds). */
export function see(routes, now) {
  const names = new Set();
  for (const route of routes) {
    names.add(route.name);
    const counts = route.versions.map((version) => version.requests);
    const had = seen.get(route.name) ?? [];
    // Under another revision the counts begin anew.
    const looks = had.filter((look) => look.revision === route.revision && look.counts.length === counts.length
      && look.counts.every((count, place) => count <= counts[place]));
    looks.push({ at: now, revision: route.revision, counts });
    while (looks.length > 2 && now - looks[1].at > OVER) looks.shift();
    looks.rate = looks.length < 2 ? null : rates(looks);
    // Until there are two of this revision, how much it is in all is as before; how it is dealt out is not.
    looks.total = looks.rate ? looks.rate.reduce((sum, one) => sum + one, 0) : had.total ?? null;
    seen.set(route.name, looks);
  }
  for (const name of seen.keys()) if (!names.has(name)) seen.delete(name);
}

function rates(looks) {
  const [first, last] = [looks[0], looks[looks.length - 1]];
  const seconds = Math.max((last.at - first.at) / 1000, 0.001);
  return last.counts.map((count, place) => (count - first.counts[place]) / seconds);
}

/** Requests per second of each version; null before the second look. */
export const ofVersions = (route) => seen.get(route.name)?.rate ?? null;

/** Requests per second of a route; null before the second look. */
export const ofRoute = (route) => seen.get(route.name)?.total ?? null;
