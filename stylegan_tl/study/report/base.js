"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const trials = data.trials, steps = data.steps;

// ---- small helpers -----------------------------------------------------------------------------

const SVG = /^(svg|g|path|line|circle|text|title)$/;
function h(kind, ...rest) {  // h("tag.class", {attributes}, children…); no text is ever read as HTML
  const [tag, ...classes] = kind.split(".");
  const node = SVG.test(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  if (classes.length) node.setAttribute("class", classes.join(" "));
  const plain = rest.length && rest[0] && Object.getPrototypeOf(rest[0]) === Object.prototype;
  for (const [key, value] of Object.entries(plain ? rest.shift() : {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "style") for (const [k, v] of Object.entries(value)) node.style.setProperty(k, v);
    else if (key === "class") node.classList.add(...value.split(" "));
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...rest.flat(3).filter((c) => c !== null && c !== undefined && c !== false && c !== ""));
  return node;
}
const unique = (list) => [...new Set(list)];
const mean = (list) => list.reduce((a, b) => a + b, 0) / list.length;
const known = (x) => typeof x === "number" && Number.isFinite(x);
const minus = (text) => text.replace("-", "\u2212");
const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;

function fixed(values, more = 0) {  // one number of decimals for all that stand in one picture
  const size = Math.max(0, ...values.filter(known).map(Math.abs));
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : size >= 0.1 ? 3 : 4;
  return (x) => known(x) ? minus(x.toFixed(digits + more)) : "\u2013";
}
const number = (x) => !known(x) ? "\u2013" : minus(String(Number(x.toPrecision(4))));
const three = (x) => !known(x) ? "\u2013" : Math.abs(x) >= 100 ? minus(x.toFixed(0)) : minus(x.toPrecision(3));
const kimgText = (x) => known(x) ? `${number(x)} kimg` : "\u2013";
function clock(s) {
  if (!known(s)) return "\u2013";
  const m = Math.round(s / 60);
  return s < 120 ? `${Math.round(s)} s` : m < 120 ? `${m} min` : `${(s / 3600).toFixed(1)} h`;
}

const percent = (x) => !known(x) ? "\u2013" : x > 0 && x < 0.001 ? "< 0.1 %" : `${(100 * x).toFixed(x % 1 ? 1 : 0)} %`;
const partOf = (low, high, log) => (x) => high === low ? 0.5
  : log ? Math.log(x / low) / Math.log(high / low) : (x - low) / (high - low);

function interval(list) {  // mean, standard deviation and Student's 95 % interval of the mean
  const T = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179,
    2.16, 2.145, 2.131, 2.12, 2.11, 2.101, 2.093, 2.086];
  const n = list.length;
  if (!n) return null;
  const m = mean(list);
  if (n === 1) return { n, mean: m, sd: null, low: null, high: null, values: list };
  const sd = Math.sqrt(list.reduce((a, x) => a + (x - m) ** 2, 0) / (n - 1));
  const half = (T[n - 2] || 1.96 + 2.4 / (n - 1)) * sd / Math.sqrt(n);
  return { n, mean: m, sd, low: m - half, high: m + half, values: list };
}
function ranks(list) {  // ties share the mean of their ranks
  return list.map((x) => (list.filter((y) => y < x).length + list.filter((y) => y <= x).length + 1) / 2);
}
function spearman(x, y) {
  if (x.length < 3) return null;
  const a = ranks(x), b = ranks(y), ma = mean(a), mb = mean(b);
  const dot = (p, q, mp, mq) => p.reduce((s, v, i) => s + (v - mp) * (q[i] - mq), 0);
  const scale = Math.sqrt(dot(a, a, ma, ma) * dot(b, b, mb, mb));
  return scale ? dot(a, b, ma, mb) / scale : null;
}

// ---- what there is -----------------------------------------------------------------------------

const ordered = (key, list) => unique([...data.cells.map((c) => c[key]), ...list.map((t) => t[key])]);
const transfers = trials.filter((t) => !t.scratch), baselines = trials.filter((t) => t.scratch);
const sources = ordered("source", transfers).filter((s) => transfers.some((t) => t.source === s) || !/^scratch/.test(s));
const controls = unique(ordered("source", baselines).filter((s) => /^scratch/.test(s))).sort();
const targets = unique([...sources, ...ordered("target", trials)]).filter((x) => trials.some((t) => t.target === x));
const strategies = ordered("freeze", transfers), models = ordered("model", trials);
const variants = unique(transfers.map((t) => t.variant));
const seeds = unique(trials.map((t) => t.seed)).sort((a, b) => a - b);
const byCell = Map.groupBy(trials, (t) => t.cell);

const fold = (names) => {
  const heads = unique(names.map((n) => n.split("/")[0]));
  const one = heads.length === 1 && names.every((n) => n.includes("/"));
  return (name) => one ? name.split("->").map((n) => n.replace(`${heads[0]}/`, "")).join(" \u2192 ")
    : name.replaceAll("->", " \u2192 ");
};
const short = fold(unique([...sources.flatMap((s) => s.split("->")), ...targets]));
const pairName = (t) => `${short(t.source)} \u2192 ${short(t.target)}`;

const one = sources.length < 2;  // then strategies are what is compared
const state = {
  metric: data.metric, stat: "final", show: "value", rows: one ? "freeze" : "source", control: controls[0],
  model: models[0], variant: variants[0] || "", source: sources[0] || controls[0],
  freeze: strategies.includes("none") ? "none" : strategies[0],
  seed: seeds[0], step: Math.max(steps.length - 1, 0), tab: one ? "freeze" : "pairs", compare: one ? "freeze" : "source", curve: "",
  pair: null, hidden: new Set(), hiddenFor: null, sort: ["target", 1], filter: "", all: false,
};
const better = (name = state.metric, stat = state.stat) => (
  stat === "kimg_to_reach" ? "min" : (data.metrics[name] || {}).better);
const direction = () => state.show === "value" ? better() : "max";
const sign = (better) => better === "max" ? -1 : 1;  // times value: less is better

function value(trial, name = state.metric, stat = state.stat) {
  const own = (trial.measures[name] || {})[stat];
  return known(own) ? own : null;
}
const arrived = (trial) => (trial.measures[state.metric] || {})[state.stat] !== "never";
function baselineOf(target, model, variant) {
  const all = baselines.filter((t) => t.source === state.control && t.target === target
    && t.model === model && t.state === "complete");
  const same = all.filter((t) => t.variant === variant);
  const values = (same.length ? same : all).map((t) => value(t)).filter(known);
  return values.length ? mean(values) : null;
}
function shown(x, target, model, variant) {  // a value, or what it gains over the baseline
  if (state.show === "value" || !known(x)) return x;
  const base = baselineOf(target, model, variant);
  if (!known(base) || (state.show === "percent" && base <= 0)) return null;
  const gain = sign(better()) * (base - x);
  return state.show === "percent" ? 100 * gain / base : gain;
}
function measure(list) {  // of complete trials only
  const values = list.filter((t) => t.state === "complete")
    .map((t) => shown(value(t), t.target, t.model, t.variant)).filter(known);
  return interval(values);
}
const shareOf = (f) => transfers.find((t) => t.freeze === f && t.model === state.model && known(t.share.G));
const cellKey = (s, t, f, m, v) => [s, t, f, m, v].join("|");
function cellOf(s, t, f, m = state.model, v = state.variant) {
  const exact = byCell.get(cellKey(s, t, f, m, v));
  if (exact || !controls.includes(s)) return exact || [];
  return baselines.filter((b) => b.source === s && b.target === t && b.model === m);
}
const STATS = { final: "at the end", best: "at its best", area: "mean over log kimg (area under the curve)",
  kimg_to_reach: `kimg until 10 % worse than the best of ${data.goal}` };
const what = () => {
  const stat = state.stat === "kimg_to_reach" ? `, ${STATS[state.stat]}` : STATS[state.stat];
  const tail = state.show === "value" ? "" : state.show === "percent"
    ? `, per cent gained over ${state.control}` : `, gain over ${state.control}`;
  return `${state.metric} ${stat}${tail}`.replace(" ,", ",");
};

// ---- controls ----------------------------------------------------------------------------------

function choose(label, key, options, name = (x) => x) {
  if (options.length < 2) return null;
  const onchange = (e) => { state[key] = options[e.target.selectedIndex]; draw(); };
  const option = (o) => h("option", { selected: o === state[key] }, name(o));
  return h("label", label, h("select", { "data-key": key, onchange }, options.map(option)));
}
const SHOW = { value: "value", gain: "gain over baseline", percent: "gain over baseline, %" };
const common = () => [
  choose("Metric", "metric", Object.keys(data.metrics)),
  choose("Measured", "stat", Object.keys(STATS), (x) => STATS[x]),
  controls.length ? choose("Shown as", "show", Object.keys(SHOW), (x) => SHOW[x]) : null,
  choose("Baseline", "control", controls),
];
const factors = () => [
  choose("Model", "model", models), choose("Variant", "variant", variants, (x) => x || "none"),
];
