// Gateways that collect usages: RATE is in batches of BATCH usages.
import { batch } from "./lib/bodies.js";
import { send } from "./lib/checks.js";
import { arrivals, duration, options as makeOptions, rate, thresholds } from "./lib/options.js";

const SIZE = Number(__ENV.BATCH || 100);

export const options = makeOptions({ batch: arrivals(rate(50), duration("30s")) }, thresholds(250, 500));

export default function () {
  send(batch(SIZE));
}
