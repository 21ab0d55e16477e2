// Ever more, until it breaks: ends early when one answer in a hundred is not what is due, or the
// slowest one in a hundred takes a second. RATE is the most, DURATION the way there.
import { single } from "./lib/bodies.js";
import { send } from "./lib/checks.js";
import { duration, options as made, ramp, rate } from "./lib/options.js";

export const options = made(
  { breakpoint: ramp(100, [[rate(20000), duration("5m")]]) },
  {
    http_req_failed: [{ threshold: "rate<0.01", abortOnFail: true, delayAbortEval: "5s" }],
    "http_req_duration{due:201}": [
      { threshold: "p(99)<1000", abortOnFail: true, delayAbortEval: "5s" },
    ],
  },
);

export default function () {
  send(single());
}
