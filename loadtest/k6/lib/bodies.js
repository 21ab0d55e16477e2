// Usages as devices send them; perf/bodies.py makes the same.
import { DEVICES, INVALID } from "./options.js";

const MEDICATIONS = [
  "Albuterol",
  "Budesonide",
  "Fluticasone",
  "Formoterol",
  "Ipratropium",
  "Salmeterol",
  "Tiotropium",
];
const START = Date.UTC(2026, 10, 1);
const DAY = 86400;

// Bodies that get 4xx.
const BROKEN = [
  '{"patientId":"100","medication":"Albuterol"}',
  '{"patientId":"","timestamp":1478009511000,"medication":"Albuterol"}',
  '{"patientId":"100","timestamp":"yesterday","medication":"Albuterol"}',
  '{"patientId":"100","timestamp":1478009511000',
];

function any(list) {
  return list[Math.floor(Math.random() * list.length)];
}

const SPELLINGS = [
  (date) => date.toString(),
  (date) => date.toISOString(),
  (date) => date.toUTCString(),
  (date) => date.getTime(),
];

export function usage() {
  const date = new Date(START + Math.floor(Math.random() * DAY) * 1000);
  return {
    patientId: String(Math.floor(Math.random() * DEVICES)),
    timestamp: any(SPELLINGS)(date),
    medication: any(MEDICATIONS),
  };
}

// A body, and whether it is valid.
export function single() {
  const valid = Math.random() >= INVALID;
  return { valid, usages: 1, path: "/api/usages", text: valid ? JSON.stringify(usage()) : any(BROKEN) };
}

// All or nothing: one invalid usage makes the whole batch invalid.
export function batch(size) {
  const valid = Math.random() >= INVALID;
  const usages = Array.from({ length: size }, usage);
  if (!valid) {
    delete usages[size - 1].medication;
  }
  return { valid, usages: size, path: "/api/usages/batch", text: JSON.stringify(usages) };
}
