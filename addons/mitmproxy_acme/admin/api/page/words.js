/* Elements, numbers and times as the page writes them.
 *
 * This module knows how something is shown; it must not know what. Everything from the API becomes text or the value of
 * a harmless attribute, never markup: this page does not use innerHTML, and the Content-Security-Policy would not run
 * it.
 */

export const find = (id) => document.getElementById(id);

/** Make an element; children are elements or text, null and "" are skipped. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children.filter((child) => child !== null && child !== ""));
  return made;
}

export const number = (value) => value.toLocaleString("en");

export const plural = (count, one, several) => `${number(count)} ${count === 1 ? one : several}`;

const UNITS = [["year", 31_557_600], ["month", 2_629_800], ["day", 86_400], ["hour", 3_600], ["minute", 60]];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "always" });
const exact = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium", timeZone: "UTC" });

/** Write a time (RFC 3339) relative to now: "in 62 days", "3 hours ago". */
export function fromNow(at, now = Date.now()) {
  const seconds = (Date.parse(at) - now) / 1000;
  // At least twice the unit, so that rounding loses at most half a unit: "in 89 days", not "in 3 months".
  const [unit, length] = UNITS.find(([name, size]) => Math.abs(seconds) >= size * (name === "month" ? 6 : 2)) ?? [];
  if (unit) return relative.format(Math.trunc(seconds / length), unit);
  return relative.format(Math.round(seconds), "second");
}

/** Make a <time> that `keepTime` updates; "–" without a time. */
export function time(at) {
  if (!at) return "–";
  return element("time", { datetime: at, title: `${exact.format(new Date(at))} UTC` }, fromNow(at));
}

export const exactly = (at) => `${exact.format(new Date(at))} UTC`;

/** Update all times; change only those whose text differs. */
export function keepTime() {
  for (const shown of document.querySelectorAll("time")) {
    const text = fromNow(shown.dateTime);
    if (shown.textContent !== text) shown.textContent = text;
  }
}

/** Return the host of a URL; anything else as it is. */
export function hostOf(url) {
  try {
    return new URL(url).host;
  } catch {
    return url;
  }
}

/** What the states of a certificate mean; "" means any state. */
export const TITLES = {
  "": "All stored certificates",
  valid: "Valid, and not due for renewal",
  due: "Due for renewal",
  expiring: "Due, with less than a third of its life left",
  idle: "Not renewed, because no client has asked for it; the next client has it renewed, or obtained again",
  expired: "Expired: clients refuse it",
  unreadable: "A broken record, or one that no key decrypts",
};

export const badge = (state) =>
  element("span", { class: "badge", "data-state": state, title: TITLES[state] ?? "" }, state);

export const setText = (id, text) => {
  const node = find(id);
  if (node.textContent !== text) node.textContent = text;
};

/** Show a message in the corner of the page, until it is dismissed. */
export function say(text, { trouble = false } = {}) {
  find("said").hidden = false;
  find("said").dataset.tone = trouble ? "bad" : "good";
  setText("said-text", text);
  find("announced").textContent = text;
}

/** Disable the buttons of a form or dialog while `work` runs. */
export async function busy(buttons, work) {
  const focused = document.activeElement;
  const free = buttons.filter((button) => !button.disabled);
  free.forEach((button) => { button.disabled = true; });
  try {
    return await work();
  } finally {
    free.forEach((button) => { button.disabled = false; });
    if (buttons.includes(focused) && document.activeElement === document.body) focused.focus();
  }
}
