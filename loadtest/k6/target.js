// A million calls a minute. k6 itself takes most of two cores at 5,000 a second: on a machine that
// cannot offer the rate, it drops iterations and crosses their threshold.
import { single } from "./lib/bodies.js";
import { send } from "./lib/checks.js";
import { arrivals, duration, options as makeOptions, rate, thresholds } from "./lib/options.js";

export const options = makeOptions({ target: arrivals(rate(16667), duration("60s")) }, thresholds(25, 50));

export default function () {
  send(single());
}
