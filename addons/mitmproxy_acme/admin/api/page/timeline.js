/* The timeline: the last hundred events of all nodes, the newest first.
 *
 * This module knows events; it must not know how they travel. They come from the storage, which others may write to:
 * everything in them becomes text.
 */

import { element, find, hostOf, number, plural, time } from "./words.js";

const TITLES = {
  obtained: "A first certificate came from the CA",
  renewed: "A new certificate replaces an older one",
  failed: "An order failed",
  expiring: "A renewal failed, and less than a third of the certificate's life is left",
  removed: "A certificate was deleted on all nodes",
};
let shown = null; // the ids on the page; null before the first drawing

/** Draw the document of /acme/history. */
export function show({ data: events }) {
  const known = shown;
  shown = new Set(events.map((event) => event.id));
  if (!events.length) {
    const text = "Nothing has happened yet. Each certificate that is obtained, renewed, removed or refused appears here.";
    return find("timeline").replaceChildren(element("p", { class: "none" }, text));
  }
  const list = find("timeline").querySelector("ol") ??
    element("ol", { class: "events", tabindex: "0", "aria-labelledby": "timeline-title" });
  list.replaceChildren(...events.map((event) => item(event, known && !known.has(event.id))));
  if (!list.isConnected) find("timeline").replaceChildren(list);
}

function item(event, fresh) {
  const { event: kind, host, more, left_out: left, retry_at: retry, reason } = event;
  return element("li", { "data-event": kind, ...(fresh ? { class: "fresh" } : {}) },
    element("p", {}, element("strong", {}, more ? `${host} and ${number(more)} more` : host), " ",
      element("span", { class: "badge", "data-event": kind, title: TITLES[kind] ?? "" }, kind)),
    reason && element("p", { class: "reason", title: reason }, reason),
    element("p", { class: "under" }, time(event.at), ...circumstances(event)),
    retry && Date.parse(retry) > Date.now() ? element("p", { class: "under" }, "next attempt ", time(retry)) : null,
    left ? element("p", { class: "under" }, `${plural(left, "earlier event is", "earlier events are")} not listed`) : null);
}

function circumstances({ seconds, ca, machine, node }) {
  const where = element("span", { title: `node ${node}` }, machine || node);
  return [
    ...(seconds === null || seconds < 0.05 ? [] : [` · ${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`]),
    ...(ca ? [" · ", element("span", { title: ca }, hostOf(ca))] : []), " · ", where,
  ];
}
