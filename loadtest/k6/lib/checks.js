// Sends a body, and counts the outcomes of its usages for loadtest/reconcile.py.
import http from "k6/http";
import { Counter } from "k6/metrics";
import { BASE_URL, HOST } from "./options.js";

const sent = new Counter("usages_sent");
const created = new Counter("usages_created");
const refused = new Counter("usages_refused");
const unexpected = new Counter("answers_unexpected");

// A 4xx, or a 503 that says so. With any other answer the usages may be stored.
function nothingStored(answer) {
  if (answer.status === 503) {
    return /"stored": ?"no"/.test(answer.body || "");
  }
  return answer.status >= 400 && answer.status < 500;
}

export function send(body, more) {
  const headers = { "Content-Type": "application/json", ...(HOST ? { Host: HOST } : {}), ...more };
  sent.add(body.usages);
  const answer = http.post(`${BASE_URL}${body.path}`, body.text, {
    headers,
    timeout: "15s",
    tags: { due: body.valid ? "201" : "4xx" },
    responseCallback: http.expectedStatuses(body.valid ? 201 : { min: 400, max: 499 }),
  });
  const isCreated = answer.status === 201;
  if (isCreated) {
    created.add(body.usages);
  } else if (nothingStored(answer)) {
    refused.add(body.usages);
  }
  if (isCreated !== body.valid) {
    unexpected.add(1);
  }
  return answer;
}

// A read; anything but these statuses is unexpected.
export function read(path, statuses) {
  const answer = http.get(`${BASE_URL}${path}`, {
    headers: HOST ? { Host: HOST } : {},
    timeout: "15s",
    tags: { due: "200", name: "read" },
    responseCallback: http.expectedStatuses(...statuses),
  });
  if (!statuses.includes(answer.status)) {
    unexpected.add(1);
  }
  return answer;
}
