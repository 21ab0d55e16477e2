// A few requests a second, to check that a new deployment works.
import { single } from "./lib/bodies.js";
import { send } from "./lib/checks.js";
import { arrivals, duration, options as makeOptions, rate, thresholds } from "./lib/options.js";

export const options = makeOptions({ smoke: arrivals(rate(20), duration("10s")) }, thresholds(500, 1000));

export default function () {
  send(single());
}
