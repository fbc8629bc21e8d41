/* The status page: the state of the node and its cluster, drawn when it changes.
 *
 * This module knows the status document and its places on the page; it must not know how it travels (api.js does), nor
 * how certificates are listed (certificates.js does) and changed (details.js does). A part that did not change is not
 * drawn again.
 */

import * as api from "./api.js";
import * as certificates from "./certificates.js";
import * as details from "./details.js";
import * as plots from "./plots.js";
import * as timeline from "./timeline.js";
import { busy, element, find, keepTime, number, plural, say, setText, time } from "./words.js";

const NAME = "mitmproxy-acme";
const drawn = new Map(); // id of a part -> JSON of what it shows

function show(status) {
  find("lock").hidden = true;
  find("main").hidden = false;
  find("forget").hidden = !api.token.get();
  live("on", "Live");
  setText("node", `${status.node.host} · ${status.node.role} · ${status.node.version}`);
  draw("failing", [status.failing, status.failing_total, status.unrevoked], failing);
  draw("ordering", status.ordering, ordering);
  draw("cas", [status.cas, status.node.role], cas);
  draw("storage", [status.storage, status.cache], storage);
  draw("nodes", status.nodes, nodes);
  plots.expiry(status.expiry);
  const { tone, title, text, short } = verdict(status);
  find("verdict").dataset.tone = tone;
  setText("verdict-title", title);
  draw("verdict-text", text ?? status.certificates, text ? () => [text] : soonest);
  document.title = short ? `(${short}) ${NAME}` : NAME;
  certificates.follow(status);
}

/** Draw a part of the page unless it is unchanged. */
function draw(place, part, build) {
  const json = JSON.stringify(part);
  if (drawn.get(place) === json) return;
  drawn.set(place, json);
  find(place).replaceChildren(...build(part));
}

/** Return the worst that applies; `short` goes into the title of the window. */
function verdict({ storage, certificates: counts, failing_total: failures, unrevoked, cas: authorities }) {
  const several = (count) => plural(count, "certificate", "certificates");
  const away = authorities.filter((ca) => ca.state !== "ok");
  if (storage.state !== "ok") {
    const text = `${storage.error}. Certificates in memory are served; nothing is ordered until the storage is back.`;
    return { tone: "bad", title: "The storage is down", text, short: "storage down" };
  }
  if (counts.expired) {
    return { tone: "bad", title: `${several(counts.expired)} expired`, short: `${counts.expired} expired` };
  }
  if (unrevoked.length) {
    const title = `${plural(unrevoked.length, "stolen key is", "stolen keys are")} not revoked yet`;
    return { tone: "bad", title, short: "not revoked" };
  }
  if (failures) {
    return { tone: "bad", title: `${plural(failures, "name is", "names are")} failing`, short: `${failures} failing` };
  }
  if (away.length) {
    const title = `${away.map((ca) => ca.name).join(", ")} cannot be used now`;
    if (away.length === authorities.length) return { tone: "bad", title, short: "CA trouble" };
    return { tone: "warn", title, text: "Certificates come from another CA until it works again.", short: "CA trouble" };
  }
  if (counts.unreadable) {
    const title = `${several(counts.unreadable)} cannot be read`;
    return { tone: "bad", title, short: `${counts.unreadable} unreadable` };
  }
  if (counts.expiring) {
    const title = `${several(counts.expiring)} will expire soon`;
    return { tone: "warn", title, short: `${counts.expiring} expiring` };
  }
  if (!counts.complete) return { tone: "calm", title: "The storage is being read" };
  if (!counts.total) return { tone: "calm", title: "Ready for the first certificate" };
  return { tone: "good", title: "All certificates are in order" };
}

function soonest(counts) {
  const several = plural(counts.total, "certificate", "certificates");
  const parts = [`${several} ${counts.complete ? "stored" : "read so far"}.`];
  if (counts.soonest_expiry_at) parts.push(" The next expires ", time(counts.soonest_expiry_at));
  if (counts.soonest_renewal_at) {
    const past = Date.parse(counts.soonest_renewal_at) <= Date.now();
    parts.push(past ? "; a renewal was due " : "; the next renewal is due ", time(counts.soonest_renewal_at));
  }
  return parts.length > 1 ? [...parts, "."] : parts;
}

function failing([names, total, unrevoked]) {
  const all = total + unrevoked.length;
  setText("failing-count", all ? number(all) : "");
  if (!all) return [none("No name is waiting after a failure.")];
  const item = (failure, what) => element("li", {},
    element("strong", {}, failure.host),
    element("p", { class: "reason" }, failure.reason),
    element("p", { class: "under" }, `${what}; next attempt `, time(failure.retry_at)));
  const items = [
    ...unrevoked.map((failure) => item(failure, "The stolen key is not revoked yet")),
    ...names.map((failure) => item(failure, `${plural(failure.failures, "failure", "failures")} in a row`)),
  ];
  const more = total - names.length;
  return [element("ul", { class: "list" }, ...items), more > 0 ? none(`And ${number(more)} more.`) : ""];
}

function ordering(orders) {
  setText("ordering-count", orders.length ? number(orders.length) : "");
  if (!orders.length) return [none("This node is not ordering anything.")];
  const items = orders.map((order) => element("li", {}, element("strong", {}, order.host),
    element("p", { class: "under" }, "begun ", time(order.since_at))));
  return [element("ul", { class: "list" }, ...items)];
}

function cas([authorities, role]) {
  return authorities.map((ca) => element("div", { class: "item" },
    element("p", {}, element("strong", {}, ca.name), " ",
      ca.state === "ok" ? mark(true, "ok") : mark(false, "backing off")),
    ca.directory === ca.name ? null : element("p", { class: "under" }, ca.directory),
    ca.error && element("p", { class: "reason" }, ca.error),
    ca.retry_at && element("p", { class: "under" }, "next attempt ", time(ca.retry_at)),
    element("p", { class: "under" }, account(ca, role)),
    ca.budgets?.length ? element("ul", { class: "budgets" }, ...ca.budgets.map(budget)) : null));
}

function account(ca, role) {
  if (role === "data") return "This is a data node: the control nodes have the account.";
  return ca.account ? `Account ${ca.account}` : "No account yet: the first order creates one.";
}

function budget({ limit, scope, left, capacity, full_at: full }) {
  const title = `${String(limit).replaceAll("_", " ")}${scope ? `, ${scope}` : ""}`;
  const words = `${number(left)} of ${number(capacity)} left`;
  const low = Math.ceil(capacity / 5);
  const bounds = { min: 0, max: capacity, low, high: low, optimum: capacity, value: left };
  return element("li", {},
    element("p", {}, `${title}: `, element("strong", {}, words)),
    element("meter", { ...bounds, "aria-label": title }, words),
    full && left < capacity ? element("p", { class: "under" }, "full again ", time(full)) : null);
}

function storage([{ kind, state, error }, cache]) {
  return [
    element("p", {}, element("strong", {}, kind), " ", mark(state === "ok", state)),
    error ? element("p", { class: "reason" }, error) : "",
    element("p", { class: "under" },
      `In memory: the certificates of ${plural(cache.size, "name", "names")}, of ${number(cache.limit)} at most`),
  ];
}

function nodes(all) {
  setText("nodes-count", all.length > 1 ? number(all.length) : "");
  return [element("ul", { class: "list" }, ...all.map((node) => element("li", { title: node.id },
    element("p", {}, element("strong", {}, node.host), node.self ? " (this one)" : ""),
    element("p", { class: "under" }, `${node.role}, version ${node.version}, up since `, time(node.since_at)))))];
}

const none = (text) => element("p", { class: "none" }, text);

const mark = (good, text) => element("span", { class: "badge", "data-state": good ? "valid" : "expired" }, text);

function live(state, text) {
  find("live").dataset.state = state;
  setText("live", text);
}

/** Show that the connection is lost; if the token is missing or wrong, wait for one and return true. */
async function lost(problem, seconds) {
  if (problem.status === 401) {
    await unlock(Boolean(api.token.get()));
    return true;
  }
  const why = problem.status ? ` (${problem.message})` : "";
  live("lost", `Connection lost${why}, retrying in ${seconds} s`);
  document.title = `(connection lost) ${NAME}`;
  return false;
}

function unlock(wrong) {
  api.token.forget();
  details.close(); // an open dialog would keep the focus
  live("off", "Locked");
  find("main").hidden = true;
  find("lock").hidden = false;
  find("forget").hidden = true;
  setText("token-wrong", wrong ? "This is not the token." : "");
  find("token").value = "";
  find("token").focus();
  return new Promise((resolve) => {
    find("unlock").addEventListener("submit", () => {
      api.token.set(find("token").value.trim());
      find("token").value = "";
      resolve();
    }, { once: true });
  });
}

async function order(event) {
  event.preventDefault();
  const host = find("host").value.trim(), test = event.submitter?.value === "test";
  say(test ? `Testing the challenge for ${host}…` : `Obtaining a certificate for ${host}…`);
  try {
    const said = await busy([...event.target.querySelectorAll("button")], () => api.obtain(host, test));
    say(said);
    if (!test) find("host").value = "";
  } catch (error) {
    say(error.message, { trouble: true });
  }
}

async function renewDue(event) {
  try {
    say(await busy([event.target], api.renewDue));
  } catch (error) {
    say(error.message, { trouble: true });
  }
}

certificates.start();
details.start();
find("unlock").addEventListener("submit", (event) => event.preventDefault());
find("obtain").addEventListener("submit", order);
find("renew-due").addEventListener("click", renewDue);
find("said-close").addEventListener("click", () => { find("said").hidden = true; });
find("forget").addEventListener("click", () => {
  api.token.forget();
  location.reload(); // so that nothing stays on the screen
});
setInterval(keepTime, 1_000);
api.watch({ status: show, history: timeline.show, traffic: plots.traffic }, lost);
