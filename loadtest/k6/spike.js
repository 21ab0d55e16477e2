// A quiet phase, then five times the rate within two seconds, and back.
import { single } from "./lib/bodies.js";
import { send } from "./lib/checks.js";
import { duration, options as makeOptions, ramp, rate, thresholds } from "./lib/options.js";

const low = rate(400);
const stages = [
  [low, duration("20s")],
  [5 * low, "2s"],
  [5 * low, duration("20s")],
  [low, "2s"],
  [low, duration("20s")],
];

export const options = makeOptions({ spike: ramp(low, stages) }, thresholds(250, 1000));

export default function () {
  send(single());
}
