
// ---- words: numbers, times and phases for people ----------------------------------------------------------------------

const fixed = (number, digits = 3) => number == null ? "–" : Number(number).toFixed(digits);
const share = (number, digits = 1) => number == null ? "–" : `${(100 * number).toFixed(digits)} %`;
const counted = (number, one) => `${number} ${one}${number === 1 ? "" : "s"}`;
const plain = word => word.replaceAll("_", " ");

function bytes(number) {
  if (number == null) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (number >= 1024 && at < units.length - 1) { number /= 1024; at++; }
  return `${number.toFixed(at && number < 100 ? 1 : 0)} ${units[at]}`;
}

function seconds(number) {
  if (number == null) return "–";
  if (number < 1) return `${(1000 * number).toFixed(number < 0.01 ? 1 : 0)} ms`;
  if (number < 120) return `${number.toFixed(number < 10 ? 1 : 0).replace(".0", "")} s`;
  return number < 7200 ? `${Math.round(number / 60)} min` : number < 172800 ? `${(number / 3600).toFixed(1)} h` : `${Math.round(number / 86400)} days`;
}

/** Hours of a clock that has 24 of them. */
const clock = when => new Date(when).toLocaleTimeString([], { hourCycle: "h23" });

/** How long since, in steps that do not flicker. */
const lasted = text => seconds(Math.max(0, Math.floor((Date.now() - Date.parse(text)) / 1000)));

function ago(text) {
  if (!text) return h("span", {}, "–");
  const past = Math.floor((Date.now() - Date.parse(text)) / 1000);
  return h("time", { datetime: text, title: new Date(text).toLocaleString() }, past >= 0 ? (past < 2 ? "just now" : `${seconds(past)} ago`) : `in ${seconds(-past)}`);
}

const ENDED = ["succeeded", "failed", "cancelled"];
const mood = phase => phase === "succeeded" ? "good" : phase === "failed" ? "bad" : ["cancelled", "paused", "queued"].includes(phase) ? "idle" : "busy";
const MEANING = {
  queued: "It waits until the sites that have its data are free.",
  profiling: "Each site measures itself: memory, speed, link, and what the model finds hard in its data.",
  refining: "Between two rounds: what the sites did is compared with what was planned.",
  planning: "A rank, a batch and a precision are chosen for each site.",
  starting: "The adapter to start from is being written.",
  training: "The sites train on their own data; only their adapters travel.",
  folding: "The sites' adapters are being merged into one.",
  evaluating: "The sites score the merged adapter on records that they keep back.",
  finalizing: "The adapter and the report are being written.",
  paused: "Somebody paused it.",
};
const UNTRAINED = "The sites score the model before it has learned anything, to compare with.";
const STEPS = [["queued", ["queued"]], ["measured", ["profiling"]], ["planned", ["planning"]], ["trained", ["starting", "training", "folding", "evaluating", "refining"]], ["done", ["finalizing", ...ENDED]]];

const ofRounds = (round, job) => `${round ?? 0} of ${job.rounds_total}`;

/** A quantity that was not as predicted. */
function drifted({ quantity, observed, predicted }) {
  const format = quantity.includes("bytes") || quantity.includes("memory") ? bytes : quantity === "seconds" ? seconds : fixed;
  return `${plain(quantity)}: ${format(observed)} where ${format(predicted)} was predicted`;
}

/** What belongs to an event, in one line. */
function tell(detail) {
  const words = [];
  for (const [name, value] of Object.entries(detail)) {
    if (value == null || (Array.isArray(value) && !value.length)) continue;
    if (name === "deadline") words.push(`until ${clock(value)}`);
    else if (typeof value === "number" && name.endsWith("_at")) words.push(`${plain(name)} ${new Date(value).toLocaleString([], { hourCycle: "h23" })}`);
    else if (typeof value === "number") words.push(`${plain(name)} ${Number.isInteger(value) ? value : fixed(value)}`);
    else if (typeof value === "string") words.push(`${plain(name)}: ${value}`);
    else if (Array.isArray(value)) words.push(`${plain(name)}: ${value.map(one => typeof one === "string" ? one : `${one.worker}${one.detail ? ` (${one.detail})` : ""}`).join(", ")}`);
    else if (value.quantity) words.push(drifted(value));
    else words.push(value.message || (value.worker && `${value.worker}: ${value.detail || ""}`) || value.why || value.sha256 || JSON.stringify(value));
  }
  return words.join("; ");
}
