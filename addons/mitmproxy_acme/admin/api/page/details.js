/* The details of one certificate, its renewal and its revocation.
 *
 * This module knows the two dialogs; it must not know the table.
 */

import * as api from "./api.js";
import { badge, busy, element, exactly, find, plural, say, setText, time } from "./words.js";

let opened = null; // the certificate in the dialog

/** Show a certificate as the API describes it. */
export function open(certificate) {
  fill(certificate);
  result("");
  find("details").showModal();
}

/** Update the open dialog from a new reading of the table, even if the certificate is on another page of it. */
export async function follow(shown) {
  if (!find("details").open || find("confirm").open) return;
  const { host } = opened;
  try {
    const now = shown.find((certificate) => certificate.host === host) ?? await api.show(host);
    if (!isOpen(host)) return;
    if (opened.gone) result("");
    if (JSON.stringify(now) !== JSON.stringify(opened)) fill(now);
  } catch (error) {
    if (error.status !== 404 || !isOpen(host)) return;
    opened = { ...opened, gone: true };
    result(error.message, true);
  }
}

/** Close all dialogs: their content must not stay visible. */
export function close() {
  find("confirm").close();
  find("details").close();
}

const isOpen = (host) => find("details").open && opened.host === host;

function fill(certificate) {
  opened = certificate;
  setText("details-title", certificate.host);
  const failure = certificate.last_failure;
  const fields = [
    ["State", badge(certificate.state)],
    ["Trouble", certificate.trouble],
    ["Last failure", failure && `${failure.reason} (${plural(failure.failures, "time", "times")} in a row)`],
    ["Next attempt", failure && moment(failure.retry_at)],
    ["Names", certificate.names.join(", ")],
    ["Kind", certificate.managed ? "managed: in acme_certificates"
      : "not in acme_certificates: ordered on demand or by a person, or imported"],
    ["Issuer", certificate.issuer_cn],
    ["CA", certificate.ca],
    ["Key", certificate.key_type],
    ["Valid from", moment(certificate.valid_from_at)],
    ["Expires", moment(certificate.expires_at)],
    ["Renewal due", moment(certificate.renew_at)],
    ["No client since", moment(certificate.idle_since_at)],
    ["Serial number", code(certificate.serial_number)],
    ["SHA-256", code(certificate.fingerprint_sha256)],
    ["SHA-1", code(certificate.digest)],
  ];
  find("details-fields").replaceChildren(
    ...fields.filter(([, value]) => value)
      .flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]),
  );
}

const code = (text) => text && element("code", {}, text);

const moment = (at) => at && element("span", {}, time(at), ` (${exactly(at)})`);

function result(text, trouble = false) {
  setText("details-result", text);
  find("details-result").dataset.tone = trouble ? "bad" : "good";
}

async function renew() {
  const { host } = opened;
  result("Renewing. The CA takes some seconds…");
  try {
    const renewed = await busy([find("renew"), find("revoke")], () => api.renew(host));
    if (!isOpen(host)) return say(`${host} is renewed.`); // other details may be open now
    fill(renewed);
    result("Renewed. This is the new certificate.");
  } catch (error) {
    if (isOpen(host)) result(error.message, true);
    else say(`${host} was not renewed: ${error.message}`, { trouble: true });
  }
}

function confirm() {
  setText("confirm-title", `Revoke ${opened.host}?`);
  setText("confirm-result", "");
  find("reason").value = "unspecified";
  nameConfirmation();
  find("confirm").showModal();
}

function nameConfirmation() {
  const ends = { none: "Delete", keyCompromise: "Replace and revoke" };
  setText("confirm-go", ends[find("reason").value] ?? "Revoke and delete");
}

async function revoke(event) {
  event.preventDefault();
  const { host } = opened, reason = find("reason").value;
  setText("confirm-result", "");
  let done;
  try {
    done = await busy([find("confirm-go"), find("reason")], () => api.revoke(host, reason));
  } catch (error) {
    if (isOpen(host) && find("confirm").open) setText("confirm-result", error.message);
    else say(`${host}: ${error.message}`, { trouble: true }); // Cancel only ends the waiting
    return;
  }
  if (isOpen(host)) close();
  if (done) say(`The ${done.message}.`);
  else say(reason === "none" ? `${host} is deleted, but not revoked.` : `${host} is revoked and deleted.`);
}

/** Add the event listeners. */
export function start() {
  find("details-close").addEventListener("click", () => find("details").close());
  find("renew").addEventListener("click", renew);
  find("revoke").addEventListener("click", confirm);
  find("cancel").addEventListener("click", () => find("confirm").close());
  find("reason").addEventListener("change", nameConfirmation);
  find("confirm-form").addEventListener("submit", revoke);
}
