// A rising rate, until the service breaks: ends early if 1 % of the answers are unexpected, or if the
// slowest 1 % take a second. RATE is the maximum, DURATION the time until then. rate_reached is the
// rate at the end.
import exec from "k6/execution";
import { Gauge } from "k6/metrics";
import { single } from "./lib/bodies.js";
import { send } from "./lib/checks.js";
import { duration, options as makeOptions, ramp, rate } from "./lib/options.js";

const FIRST = 100;
const most = rate(20000);
const reached = new Gauge("rate_reached");

export const options = makeOptions(
  { breakpoint: ramp(FIRST, [[most, duration("5m")]]) },
  {
    http_req_failed: [{ threshold: "rate<0.01", abortOnFail: true, delayAbortEval: "5s" }],
    "http_req_duration{due:201}": [
      { threshold: "p(99)<1000", abortOnFail: true, delayAbortEval: "5s" },
    ],
  },
);

export default function () {
  reached.add(FIRST + (most - FIRST) * exec.scenario.progress);
  send(single());
}
