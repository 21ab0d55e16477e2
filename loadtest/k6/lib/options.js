// The settings of all scripts, and their thresholds.
export const BASE_URL = (__ENV.BASE_URL || "http://localhost:3000").replace(/\/$/, "");
export const HOST = __ENV.HOST || "";
export const DEVICES = Number(__ENV.DEVICES || 100000);
export const INVALID = Number(__ENV.INVALID || 0.01);

export function rate(otherwise) {
  const number = Number(__ENV.RATE || otherwise);
  if (!Number.isInteger(number) || number < 1) {
    throw new Error(`RATE is ${__ENV.RATE}, which is not a whole number above 0`);
  }
  return number;
}

export function duration(otherwise) {
  return __ENV.DURATION || otherwise;
}

export const TRENDS = ["min", "med", "avg", "p(90)", "p(95)", "p(99)", "p(99.9)", "max"];

// Limits in milliseconds for requests that must be answered with 201.
export function thresholds(p95, p99) {
  return {
    answers_unexpected: ["count==0"],
    "http_req_duration{due:201}": [`p(95)<${p95}`, `p(99)<${p99}`],
    dropped_iterations: ["count==0"],
  };
}

// One for each pending request. k6 creates more of them slowly, and drops requests meanwhile. So there
// are enough for a pause of a quarter of a second.
function users(perSecond) {
  return {
    preAllocatedVUs: Math.max(50, Math.min(1000, Math.ceil(perSecond / 4))),
    maxVUs: Math.max(50, Math.min(4000, perSecond)),
  };
}

// Requests that start at their time, however long the answers take.
export function arrivals(perSecond, length, exec) {
  return {
    executor: "constant-arrival-rate",
    rate: perSecond,
    timeUnit: "1s",
    duration: length,
    ...users(perSecond),
    gracefulStop: "15s",
    ...(exec ? { exec } : {}),
  };
}

// [[requests a second, duration], ...]: the rate changes linearly to each.
export function ramp(from, stages) {
  const most = Math.max(...stages.map(([target]) => target));
  return {
    executor: "ramping-arrival-rate",
    startRate: from,
    timeUnit: "1s",
    stages: stages.map(([target, length]) => ({ target, duration: length })),
    ...users(most),
    gracefulStop: "15s",
  };
}

export function options(scenarios, limits) {
  return {
    scenarios,
    thresholds: limits,
    summaryTrendStats: TRENDS,
    discardResponseBodies: false,
    userAgent: "busyapi-loadtest",
  };
}
