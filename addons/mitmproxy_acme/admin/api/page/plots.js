/* The plots: handshakes by minute, holds by length, certificates by the days to their end.
 *
 * This module knows numbers and shapes; it must not know how the numbers travel. Each plot is SVG without text, which
 * stretches to its place; words and numbers are HTML: a key that says the same as the picture, and a table.
 */

import { element, find, number, plural, setText } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const MINUTES = 60, HEIGHT = 100, GAP = 0.15;
const RESULTS = [
  ["cached", "from memory"], ["obtained", "obtained"], ["fallback", "fallback"], ["refused", "refused"],
  ["not_ours", "not ours"],
];
// The classes of the API, fewer and wider.
const WAITS = [0.1, 0.25, 0.5, 1, 2.5, 5, 15, Infinity];
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });

/** Draw the document of /acme/traffic. */
export function traffic({ begin_at: begins, handshakes, holds }) {
  drawHandshakes(begins, handshakes);
  const bins = WAITS.map((wait, index) => ({
    name: wait === Infinity ? "more" : String(wait),
    count: sum(holds.filter((hold) => within(hold.up_to_seconds ?? Infinity, WAITS[index - 1] ?? 0, wait))
      .map((hold) => hold.count)),
  }));
  const held = sum(bins.map((bin) => bin.count));
  const longest = bins.findLast((bin) => bin.count)?.name;
  const most = longest === "more" ? `more than ${WAITS.at(-2)} s` : `${longest} s at most`;
  setText("holds-key", held ? `${plural(held, "handshake", "handshakes")} waited for a certificate, ${most}.`
    : "No handshake had to wait for a certificate.");
  drawBins("holds", bins, "Waited up to (s)", "Handshakes");
}

/** Draw the numbers of certificates by the days to their end, from the status document. */
export function expiry(parts) {
  const bins = parts.map(({ within_days: days, count }) => ({
    name: days === null ? "more" : days === 0 ? "past" : String(days),
    tone: days === 0 ? "bad" : days === 1 ? "late" : "",
    count,
  }));
  const total = sum(bins.map((bin) => bin.count));
  const [past, day, ...later] = bins;
  const week = day.count + sum(later.filter((bin) => Number(bin.name) <= 7).map((bin) => bin.count));
  const words = [past.count && `${number(past.count)} expired`, `${number(week)} of ${number(total)} end within a week`];
  setText("expiry-key", total ? `${words.filter(Boolean).join("; ")}.` : "No certificate is stored yet.");
  drawBins("expiry", bins, "Days left, up to", "Certificates");
}

const sum = (counts) => counts.reduce((total, count) => total + count, 0);
const within = (value, above, most) => value > above && value <= most;

function drawHandshakes(begins, handshakes) {
  const from = MINUTES - begins.length;
  const totals = begins.map((_, minute) => sum(RESULTS.map(([result]) => handshakes[result][minute])));
  const most = Math.max(1, ...totals);
  const base = begins.map(() => 0);
  const paths = RESULTS.map(([result]) => [result, handshakes[result].map((count, minute) => {
    const bottom = base[minute];
    base[minute] += count;
    return bar(from + minute, bottom / most, count / most);
  }).join("")]);
  const says = (minute) => RESULTS.filter(([result]) => handshakes[result][minute])
    .map(([result, label]) => `${number(handshakes[result][minute])} ${label}`).join(", ") || "none";
  const titles = begins.map((at, minute) => `${clock.format(new Date(at))}: ${says(minute)}`);
  drawSvg(find("handshakes"), MINUTES, paths, titles, from);
  setText("handshakes-most", sum(totals) ? `peak ${number(most)} a minute` : "");
  const key = RESULTS.map(([result, label]) => [result, label, sum(handshakes[result])]).filter(([, , count]) => count);
  replace("handshakes-key", key, () => (key.length ? key.map(([result, label, count]) =>
    element("li", { class: result }, element("span", {}, `${number(count)} ${label}`)))
    : [element("li", { class: "not_ours" }, element("span", {}, "No handshake yet"))]));
  const rows = begins.map((at, minute) => [clock.format(new Date(at)),
    ...RESULTS.map(([result]) => number(handshakes[result][minute]))]).filter((_, minute) => totals[minute]);
  drawTable("handshakes", ["Minute", ...RESULTS.map(([, label]) => label)], rows.reverse());
}

function drawBins(id, bins, ...heads) {
  const most = Math.max(1, ...bins.map((bin) => bin.count));
  // Small beside thousands, one must be seen all the same.
  const paths = bins.map((bin, index) => [bin.tone, bar(index, 0, bin.count && Math.max(bin.count / most, 0.03))]);
  drawSvg(find(id), bins.length, paths, bins.map((bin) => `${bin.name}: ${number(bin.count)}`), 0);
  replace(`${id}-bins`, bins, () => bins.map((bin) => element("span", {}, bin.name)));
  drawTable(id, heads, bins.map((bin) => [bin.name, number(bin.count)]));
}

/** Return the path of a bar in a column, from one share of the height and so high. */
function bar(column, bottom, height) {
  if (!height) return "";
  const y = HEIGHT * (1 - bottom - height);
  return `M${column + GAP / 2} ${y.toFixed(2)}h${1 - GAP}v${(HEIGHT * height).toFixed(2)}h${GAP - 1}z`;
}

/** Draw paths of a class each; the columns from `first` on have titles. Elements stay, so that a title stays too. */
function drawSvg(svg, columns, paths, titles, first) {
  svg.setAttribute("viewBox", `0 0 ${columns} ${HEIGHT}`);
  const shapes = keep(svg, "path.bar", paths.length, () => shape("path", {}));
  paths.forEach(([kind, d], index) => {
    set(shapes[index], "class", `bar ${kind}`.trim());
    set(shapes[index], "d", d);
  });
  const hits = keep(svg, "rect.hit", titles.length, () => {
    const hit = shape("rect", { class: "hit", y: 0, width: 1, height: HEIGHT });
    hit.append(shape("title", {}));
    return hit;
  });
  titles.forEach((title, index) => {
    set(hits[index], "x", first + index);
    if (hits[index].firstChild.textContent !== title) hits[index].firstChild.textContent = title;
  });
}

/** Return so many elements of a kind, made or removed as needed. */
function keep(parent, selector, count, make) {
  const found = [...parent.querySelectorAll(selector)];
  found.splice(count).forEach((extra) => extra.remove());
  while (found.length < count) {
    found.push(make());
    parent.append(found.at(-1));
  }
  return found;
}

function shape(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (tag === "path") made.setAttribute("class", "bar");
  return made;
}

function set(node, name, value) {
  if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/** Draw a table as soon as, and only while, a person has opened it. */
function drawTable(id, heads, rows) {
  const place = find(`${id}-table`), details = place.closest("details");
  const draw = () => details.open && replace(place.id, rows, () => [table(heads, rows)]);
  details.ontoggle = draw;
  draw();
}

function table(heads, rows) {
  if (!rows.length) return element("p", { class: "under" }, "Nothing in the last hour.");
  const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)));
  const body = rows.map(([first, ...cells]) => element("tr", {},
    element("th", { scope: "row" }, first), ...cells.map((text) => element("td", {}, text))));
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
}

const drawn = new Map(); // id of a part -> JSON of what it shows

function replace(id, part, build) {
  const json = JSON.stringify(part);
  if (drawn.get(id) === json) return;
  drawn.set(id, json);
  find(id).replaceChildren(...build());
}
