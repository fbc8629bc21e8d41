/* The table of certificates, its search and its pages.
 *
 * This module knows certificates; it must not know the node or its cluster, or how one certificate is changed
 * (details.js does). Only one page of the table is in memory, and a row that did not change is not redrawn.
 */

import * as api from "./api.js";
import * as details from "./details.js";
import { badge, element, find, hostOf, number, plural, setText, time, TITLES } from "./words.js";

const SIZE = 50;
const SEARCH_AFTER = 250; // milliseconds without a key
const RELOAD_EVERY = 1_000;
const STATES = [
  ["", "All"], ["valid", "Valid"], ["due", "Due"], ["expiring", "Expiring"], ["expired", "Expired"],
  ["idle", "Idle"], ["unreadable", "Unreadable"],
];

const view = { search: "", state: "", sort: "host", offsets: [""], next: null };
const drawn = new Map(); // host -> {json, row}
let summary = null; // from the last status document
let lastSummary = "";
let asked = null; // the AbortController of the current request

/** Read the table again if the status document shows a change. */
export function follow({ node, certificates, storage }) {
  const now = JSON.stringify([node.id, certificates]); // each start counts its revisions from the beginning
  const changed = now !== lastSummary;
  lastSummary = now;
  summary = certificates;
  for (const [state] of STATES) setText(`count-${state}`, number(state ? certificates[state] : certificates.total));
  if (!certificates.complete) return empty(reading(storage));
  if (changed) reload();
}

function reading(storage) {
  if (storage.state !== "ok") return "The storage cannot be read now. The certificates appear when it is back.";
  return `The storage is still being read: ${plural(summary.total, "certificate", "certificates")} so far.`;
}

const reload = throttled(load, RELOAD_EVERY);

/** Return a function that runs `work` soon: once for several calls, and at most once in `every` milliseconds. */
function throttled(work, every) {
  let last = -Infinity, timer = 0;
  return () => {
    if (timer) return;
    timer = setTimeout(() => {
      timer = 0;
      last = performance.now();
      work();
    }, Math.max(0, last + every - performance.now()));
  };
}

async function load() {
  if (!summary?.complete) return;
  asked?.abort();
  asked = new AbortController();
  const { signal } = asked;
  const query = { size: SIZE, sort: view.sort };
  if (view.search) query.search = view.search;
  if (view.state) query.state = view.state;
  if (view.offsets.at(-1)) query.offset = view.offsets.at(-1);
  find("table").setAttribute("aria-busy", "true");
  try {
    const page = await api.list(query, signal);
    if (signal.aborted) return;
    draw(page);
    details.follow(page.data);
  } catch (error) {
    if (!signal.aborted && error.status !== 401) setText("range", error.message);
  }
  if (!signal.aborted) find("table").removeAttribute("aria-busy");
}

function draw(page) {
  if (!page.data.length && view.offsets.length > 1) return show({ offsets: view.offsets.slice(0, -1) });
  view.next = page.offset;
  const rows = page.data.map(rowOf);
  drawn.clear();
  page.data.forEach((shown, index) => drawn.set(shown.host, { json: JSON.stringify(shown), row: rows[index] }));
  place(rows);
  turnable(view.offsets.length > 1, Boolean(view.next));
  setText("range", range(page.data.length));
  find("table").hidden = !rows.length;
  find("empty").hidden = rows.length > 0;
  if (!rows.length) setText("empty", nothing());
}

/** Enable the buttons of the pages; a button that is disabled passes its focus to the other. */
function turnable(back, on) {
  const focused = document.activeElement, [previous, next] = [find("previous"), find("next")];
  previous.disabled = !back;
  next.disabled = !on;
  if (focused === previous && !back) next.focus();
  if (focused === next && !on) previous.focus();
}

/** Replace the rows and keep the focus; do nothing if they are the same rows. */
function place(rows) {
  const body = find("rows");
  if (rows.length === body.rows.length && rows.every((row, index) => row === body.rows[index])) return;
  const focused = body.contains(document.activeElement) ? document.activeElement : null;
  const index = focused?.closest("tr").sectionRowIndex;
  body.replaceChildren(...rows);
  if (!focused) return;
  // From a row that is gone, move to the row in its place.
  const row = drawn.get(focused.textContent)?.row ?? rows[Math.min(index, rows.length - 1)];
  (row?.querySelector("button") ?? find("certificates")).focus();
}

function empty(text) {
  find("table").hidden = true;
  find("empty").hidden = false;
  setText("empty", text);
  setText("range", "");
}

function nothing() {
  if (view.search || view.state) return "No certificate matches. Clear the search, or choose All above.";
  return "No certificate is stored yet. The first client that asks for a name in acme_domains gets one, and those in " +
    "acme_certificates are obtained at the start. Or obtain one here.";
}

function range(count) {
  if (!count) return "";
  const first = (view.offsets.length - 1) * SIZE + 1;
  const shown = `${number(first)}–${number(first + count - 1)}`;
  if (view.search) return view.next ? `${shown}, and more` : shown;
  return `${shown} of ${number(view.state ? summary[view.state] : summary.total)}`;
}

function rowOf(certificate) {
  const before = drawn.get(certificate.host);
  if (before?.json === JSON.stringify(certificate)) return before.row;
  const others = certificate.names.filter((name) => name !== certificate.host.split("+")[0]);
  const name = element("button", { type: "button", class: "name", "aria-haspopup": "dialog" }, certificate.host);
  const row = element("tr", { role: "row" },
    cell("", name,
      others.length ? element("span", { class: "under", title: others.join(", ") }, some(others)) : null,
      failureOf(certificate)),
    cell("State", badge(certificate.state),
      certificate.trouble && element("span", { class: "under" }, certificate.trouble),
      certificate.idle_since_at && element("span", { class: "under" }, "no client since ", time(certificate.idle_since_at))),
    cell("Issuer", certificate.issuer_cn ?? "–",
      certificate.ca && element("span", { class: "under ca", title: certificate.ca }, hostOf(certificate.ca))),
    cell("Expires", time(certificate.expires_at)),
    cell("Renewal due", time(certificate.renew_at)));
  row.addEventListener("click", () => details.open(certificate));
  return row;
}

const cell = (label, ...children) => element("td", { role: "cell", "data-label": label }, ...children);

const some = (names) => (names.length > 2 ? `${names[0]} and ${names.length - 1} more` : names.join(", "));

function failureOf({ last_failure: failure }) {
  if (!failure) return null;
  const { reason, retry_at: at } = failure; // the details show the whole reason
  return element("span", { class: "under trouble" },
    element("span", { class: "brief", title: reason }, `Failed: ${reason}`), "next attempt ", time(at));
}

function show(changes) {
  Object.assign(view, changes);
  for (const button of find("states").children) button.setAttribute("aria-pressed", button.value === view.state);
  load();
}

/** Make the filters, and add the event listeners. */
export function start() {
  find("states").replaceChildren(...STATES.map(([state, label]) => {
    const count = element("span", { class: "number", id: `count-${state}` }, "0");
    const made = element("button", { type: "button", value: state, title: TITLES[state], "aria-pressed": !state },
      count, " ", element("span", { class: "label" }, label));
    made.addEventListener("click", () => show({ state, offsets: [""] }));
    return made;
  }));
  find("sort").addEventListener("change", () => show({ sort: find("sort").value, offsets: [""] }));
  let typing = 0;
  const search = () => show({ search: find("search").value.trim(), offsets: [""] });
  find("search").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(search, SEARCH_AFTER);
  });
  find("tools").addEventListener("submit", (event) => { event.preventDefault(); clearTimeout(typing); search(); });
  find("previous").addEventListener("click", () => show({ offsets: view.offsets.slice(0, -1) }));
  find("next").addEventListener("click", () => view.next && show({ offsets: [...view.offsets, view.next] }));
}
