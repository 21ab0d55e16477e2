// All kinds of clients at once: devices, gateways with batches, devices with an Idempotency-Key, and
// readers. RATE is that of the devices.
import { batch, single } from "./lib/bodies.js";
import { read, send } from "./lib/checks.js";
import { arrivals, duration, options as makeOptions, rate, thresholds } from "./lib/options.js";

const devices = rate(200);
const length = duration("30s");
const share = (part) => Math.max(1, Math.round(devices * part));

export const options = makeOptions(
  {
    devices: arrivals(devices, length, "device"),
    gateways: arrivals(share(0.02), length, "gateway"),
    keyed: arrivals(share(0.1), length, "keyed"),
    readers: arrivals(share(0.05), length, "reader"),
  },
  thresholds(250, 500),
);

export function device() {
  send(single());
}

export function gateway() {
  send(batch(50));
}

export function keyed() {
  const key = `k6-${__VU}-${__ITER}-${Date.now()}-${Math.floor(Math.random() * 1e9)}`;
  send(single(), { "Idempotency-Key": key });
}

// On an empty stack id 1 may not be issued yet.
export function reader() {
  read("/api/usages/count", [200]);
  read("/api/usages/1", [200, 404, 410]);
}
