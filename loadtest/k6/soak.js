// An hour at a moderate rate, to find leaks and whatever fills up or drifts.
import { single } from "./lib/bodies.js";
import { send } from "./lib/checks.js";
import { arrivals, duration, options as makeOptions, rate, thresholds } from "./lib/options.js";

export const options = makeOptions({ soak: arrivals(rate(1000), duration("1h")) }, thresholds(100, 250));

export default function () {
  send(single());
}
