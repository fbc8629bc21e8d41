/* The admin API as the page uses it.
 *
 * This module knows paths, the token, problem documents (RFC 9457) and event streams; it must not know what is shown.
 * Paths are relative, so that the page works behind another proxy's path prefix.
 */

const KEPT_AS = "acme-admin-token";
const SILENT_AFTER = 45_000; // three times the interval of the server's keep-alives
const WAIT_FIRST = 1_000, WAIT_MOST = 30_000;

/** A request that was refused or failed; `status` is 0 without a reply. */
export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEPT_AS) ?? "",
  set: (text) => sessionStorage.setItem(KEPT_AS, text),
  forget: () => sessionStorage.removeItem(KEPT_AS),
};

/** Return a successful reply; throws `Problem`, or the reason with which `signal` was aborted. */
async function request(path, { method = "GET", body, signal } = {}) {
  const headers = token.get() ? { Authorization: `Bearer ${token.get()}` } : {};
  // JSON even without a body: no form of another site can send it.
  if (method !== "GET") headers["Content-Type"] = "application/json";
  const sent = method === "GET" ? undefined : JSON.stringify(body ?? {});
  let reply;
  try {
    reply = await fetch(path, { method, headers, body: sent, signal, cache: "no-store" });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem(0, "The proxy does not answer.");
  }
  if (!reply.ok) throw new Problem(reply.status, await detail(reply));
  return reply;
}

async function detail(reply) {
  try {
    return String((await reply.json()).detail);
  } catch {
    return `${reply.status} ${reply.statusText}`;
  }
}

async function ask(path, options) {
  const reply = await request(path, options);
  return reply.status === 204 ? null : reply.json();
}

const certificate = (host) => `acme/certificates/${encodeURIComponent(host)}`;

export const list = (query, signal) => ask(`acme/certificates?${new URLSearchParams(query)}`, { signal });
export const show = async (host) => (await ask(certificate(host))).data;
export const renew = async (host) => (await ask(`${certificate(host)}/renew`, { method: "POST" })).data;
/** Return the reply if it has a message, else null. */
export const revoke = (host, reason) => ask(`${certificate(host)}?reason=${reason}`, { method: "DELETE" });
export const renewDue = async () => (await ask("acme", { method: "PATCH" })).message;
export const obtain = async (host, test) =>
  (await ask("acme", { method: "POST", body: test ? { host, test_http_challenge_flow: true } : { host } })).message;

/** Call `readers[name](document)` with each document of the stream, for ever; before each wait, await
 * `onLost(problem, seconds)`.
 *
 * EventSource cannot send the token, so this reads the stream itself. `onLost` may wait for a person; if it returns true
 * the next attempt follows at once.
 */
export async function watch(readers, onLost) {
  let wait = WAIT_FIRST;
  for (;;) {
    let problem = new Problem(0, "The proxy ended the connection.");
    try {
      await follow(({ name, document }) => {
        wait = WAIT_FIRST;
        readers[name]?.(document);
      });
    } catch (error) {
      problem = error instanceof Problem ? error : new Problem(0, "The connection broke.");
    }
    if (await onLost(problem, wait / 1000)) continue;
    await pause(wait);
    wait = Math.min(wait * 2, WAIT_MOST);
  }
}

async function follow(onDocument) {
  const silence = new AbortController();
  let alarm = setTimeout(() => silence.abort(), SILENT_AFTER);
  try {
    const reply = await request("acme/events", { signal: silence.signal });
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      clearTimeout(alarm);
      alarm = setTimeout(() => silence.abort(), SILENT_AFTER);
      const events = (text + part.value).split(/\r?\n\r?\n/);
      text = events.pop();
      events.map(documentOf).filter(Boolean).forEach(onDocument);
    }
  } finally {
    clearTimeout(alarm);
  }
}

/** Read one event (WHATWG HTML, section 9.2.6); null for a comment. */
function documentOf(event) {
  const fields = event.split(/\r?\n/).map((line) => /^([^:]+): ?(.*)$/s.exec(line)).filter(Boolean);
  const data = fields.filter(([, name]) => name === "data").map(([, , value]) => value).join("\n");
  const name = fields.find(([, field]) => field === "event")?.[2];
  return name ? { name, document: JSON.parse(data) } : null;
}

/** Wait; stop early when the network or the person comes back. */
function pause(milliseconds) {
  return new Promise((resolve) => {
    const woken = new AbortController();
    const wake = () => { woken.abort(); clearTimeout(alarm); resolve(); };
    const alarm = setTimeout(wake, milliseconds);
    addEventListener("online", wake, { signal: woken.signal });
    document.addEventListener("visibilitychange", () => { if (!document.hidden) wake(); }, { signal: woken.signal });
  });
}
