"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const trials = data.trials, steps = data.steps;

// ---- small helpers -----------------------------------------------------------------------------

function h(tag, attributes, ...children) {
  const svg = /^(svg|g|path|line|circle|rect|text|title|polygon)$/.test(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "style") for (const [k, v] of Object.entries(value)) node.style.setProperty(k, v);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat(3).filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}
const unique = (list) => [...new Set(list)];
const mean = (list) => list.reduce((a, b) => a + b, 0) / list.length;
const known = (x) => typeof x === "number" && Number.isFinite(x);
const minus = (text) => text.replace("-", "\u2212");
const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;

function fixed(values) {  // one number of decimals for all that stand in one picture
  const size = Math.max(0, ...values.filter(known).map(Math.abs));
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : size >= 0.1 ? 3 : 4;
  return (x) => known(x) ? minus(x.toFixed(digits)) : "\u2013";
}
const number = (x) => !known(x) ? "\u2013" : minus(String(Number(x.toPrecision(4))));
const kimgText = (x) => known(x) ? `${number(x)} kimg` : "\u2013";
function clock(s) {
  if (!known(s)) return "\u2013";
  const m = Math.round(s / 60);
  return s < 120 ? `${Math.round(s)} s` : m < 120 ? `${m} min` : `${(s / 3600).toFixed(1)} h`;
}

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
const targets = ordered("target", trials);
const sources = unique([...ordered("source", transfers)]).filter((s) => !/^scratch/.test(s));
const controls = unique(baselines.map((t) => t.source)).sort();
const strategies = ordered("freeze", transfers), models = ordered("model", trials);
const variants = unique(transfers.map((t) => t.variant));
const seeds = unique(trials.map((t) => t.seed)).sort((a, b) => a - b);
const byCell = Map.groupBy ? Map.groupBy(trials, (t) => t.cell)
  : trials.reduce((m, t) => m.set(t.cell, [...(m.get(t.cell) || []), t]), new Map());

const fold = (names) => {
  const heads = unique(names.map((n) => n.split("/")[0]));
  const one = heads.length === 1 && names.every((n) => n.includes("/"));
  return (name) => one ? name.split(" > ").map((n) => n.replace(heads[0] + "/", "")).join(" \u2192 ")
    : name.replaceAll(" > ", " \u2192 ");
};
const short = fold(unique([...sources.flatMap((s) => s.split(" > ")), ...targets]));
const pairName = (t) => `${short(t.source)} \u2192 ${short(t.target)}`;

const state = {
  metric: data.metric, stat: "final", show: "value", rows: sources.length > 1 ? "source" : "freeze", control: controls[0],
  model: models[0], variant: variants[0] || "", freeze: strategies[0], source: sources[0] || controls[0],
  seed: seeds[0], step: Math.max(steps.length - 1, 0), tab: "pairs", compare: "source", curve: "",
  pair: null, open: null, hidden: new Set(), sort: ["target", 1], filter: "", all: false,
};
const direction = () => state.show === "value" ? (data.metrics[state.metric] || {}).better : "max";
const sign = (better) => better === "max" ? -1 : 1;  // times value: less is better

function value(trial, name = state.metric, stat = state.stat) {
  const rows = (trial.metrics[name] || []).filter((r) => known(r[1]));
  if (!rows.length) return null;
  if (stat === "final") return rows[rows.length - 1][1];
  const s = sign(data.metrics[name].better);
  return rows.reduce((a, r) => s * r[1] < s * a ? r[1] : a, rows[0][1]);
}
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
  const gain = sign(data.metrics[state.metric].better) * (base - x);
  return state.show === "percent" ? 100 * gain / base : gain;
}
function measure(list) {  // of complete trials only
  const values = list.filter((t) => t.state === "complete")
    .map((t) => shown(value(t), t.target, t.model, t.variant)).filter(known);
  return interval(values);
}
const cellKey = (s, t, f, m, v) => [s, t, f, m, v].join("|");
function cellOf(s, t, f, m = state.model, v = state.variant) {
  const exact = byCell.get(cellKey(s, t, f, m, v));
  if (exact || !controls.includes(s)) return exact || [];
  return baselines.filter((b) => b.source === s && b.target === t && b.model === m);
}
const what = () => {
  const stat = state.stat === "final" ? "at the end" : "at its best";
  const tail = state.show === "value" ? "" : state.show === "percent"
    ? `, per cent gained over ${state.control}` : `, gain over ${state.control}`;
  return `${state.metric} ${stat}${tail}`;
};

// ---- controls ----------------------------------------------------------------------------------

function choose(label, key, options, name = (x) => x) {
  if (options.length < 2) return null;
  const select = h("select", { "data-key": key, onchange: (e) => { state[key] = options[e.target.selectedIndex]; draw(); } },
    options.map((o) => h("option", { selected: o === state[key] }, name(o))));
  return h("label", {}, label, select);
}
const SHOW = { value: "value", gain: "gain over baseline", percent: "gain over baseline, %" };
const common = () => [
  choose("Metric", "metric", Object.keys(data.metrics)),
  choose("Taken", "stat", ["final", "best"], (x) => x === "final" ? "at the end" : "at its best"),
  controls.length ? choose("Shown as", "show", Object.keys(SHOW), (x) => SHOW[x]) : null,
  choose("Baseline", "control", controls),
];
const factors = () => [
  choose("Model", "model", models), choose("Variant", "variant", variants, (x) => x || "none"),
];

// ---- pictures ----------------------------------------------------------------------------------

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) { load(entry.target); watcher.unobserve(entry.target); }
}, { rootMargin: "400px" });
function load(img) {
  const held = data.pictures ? null : document.getElementById(img.dataset.file);
  img.src = held ? `data:image/webp;base64,${held.textContent}` : data.pictures + img.dataset.file;
}
function later(file, attributes) {
  const img = h("img", { ...attributes, "data-file": file, decoding: "async" });
  watcher.observe(img);
  return img;
}
function frameAt(trial) {  // the last frame up to the slider
  let i = 0;
  trial.strip.kimg.forEach((k, j) => { if (k <= steps[state.step] + 1e-9) i = j; });
  return i;
}
const shownCards = new Set();
function valueAt(trial, kimg) {
  const rows = (trial.metrics[state.metric] || []).filter((r) => known(r[1]) && r[0] <= kimg + 1e-9);
  return rows.length ? rows[rows.length - 1][1] : null;
}
function card(trial, name) {
  const label = h("span", {});
  const caption = h("figcaption", {}, name, label);
  if (!trial.strip) return h("figure", { class: "card" }, h("div", { class: "card empty" }, `${trial.state}, no pictures`), caption);
  const { file, size, kimg, pixelated } = trial.strip;
  const img = later(file, { alt: "", class: pixelated ? "pixels" : null, width: size[0], height: size[1] * kimg.length });
  img.style.height = "auto";
  const button = h("button", { class: "frame", type: "button", style: { "aspect-ratio": `${size[0]} / ${size[1]}` }, onclick: () => openCell(trial.cell) }, img);
  const update = () => {
    const i = frameAt(trial), at = valueAt(trial, kimg[i]);
    img.style.transform = `translateY(${-100 * i / kimg.length}%)`;
    label.textContent = `${i === 0 && kimg[0] === 0 ? (trial.scratch ? "untrained" : "source, 0 kimg") : kimgText(kimg[i])}${known(at) ? ` \u00b7 ${number(at)}` : ""}`;
    button.setAttribute("aria-label", `${trial.source} to ${trial.target}, ${trial.freeze}, seed ${trial.seed}, ${label.textContent}. Open its trials.`);
  };
  const node = h("figure", { class: "card", "data-trial": trial.id }, button, caption);
  node.update = update;
  shownCards.add(node);
  update();
  return node;
}
function setStep(i) {
  state.step = Math.min(Math.max(i, 0), steps.length - 1);
  for (const node of shownCards) if (node.isConnected) node.update(); else shownCards.delete(node);
  for (const node of document.querySelectorAll(".slider")) node.update();
}
let playing = null;
function slider() {
  const out = h("output", {});
  const range = h("input", { type: "range", min: 0, max: steps.length - 1, step: 1, "aria-label": "kimg shown in every picture", oninput: (e) => setStep(+e.target.value) });
  const play = h("button", { type: "button", class: "quiet", onclick: () => {
    if (playing) { clearInterval(playing); playing = null; } else {
      setStep(0);
      playing = setInterval(() => {
        setStep(state.step + 1);
        if (state.step === steps.length - 1) { clearInterval(playing); playing = null; setStep(state.step); }
      }, 650);
    }
    setStep(state.step);
  } });
  const ticks = steps.map((k, i) => h("span", { "data-rank": i % Math.ceil(steps.length / 8) }, k === 0 ? "source" : number(k)));
  ticks.forEach((t, i) => { if (i % Math.ceil(steps.length / 8) && i < steps.length - 1) t.textContent = ""; });
  const node = h("div", { class: "slider" }, out, range, play, h("div", { class: "ticks", "aria-hidden": "true" }, ticks));
  node.update = () => {
    const text = steps[state.step] === 0 ? "source" : kimgText(steps[state.step]);
    out.textContent = text;
    range.value = state.step;
    range.setAttribute("aria-valuetext", text);
    play.textContent = playing ? "Stop" : "Play";
    ticks.forEach((t, i) => t.classList.toggle("on", i === state.step));
  };
  node.update();
  return node;
}

// ---- charts ------------------------------------------------------------------------------------

const DASH = ["", "7 3", "2 3", "9 3 2 3", "4 2", "12 3", "1 2", "6 2 1 2"];
const colour = (i) => `var(--s${i % 8})`;
const stroke = (i) => ({ stroke: colour(i), "stroke-dasharray": DASH[Math.floor(i / 8 + i) % 8] || null });

function ticksOf(low, high, count = 4) {
  const raw = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const list = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-6; v += step) list.push(Number(v.toPrecision(10)));
  return list;
}
function logTicks(low, high) {
  const list = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++)
    for (const m of [1, 2, 5]) { const v = m * 10 ** e; if (v >= low * 0.999 && v <= high * 1.001) list.push(v); }
  const few = list.length > 6 ? list.filter((v) => /^1/.test(v.toExponential())) : list;
  return few.length > 1 ? few : unique([low, high]);
}
function kimgScale(xs, left, right) {  // log, with a place of its own for 0
  const positive = xs.filter((x) => x > 0), low = Math.min(...positive), high = Math.max(...positive);
  const start = xs.some((x) => x === 0) ? left + (right - left) * 0.1 : left;
  const at = (x) => x <= 0 ? left : high === low ? right : start + (right - start) * Math.log(x / low) / Math.log(high / low);
  const ticks = positive.length ? (high === low ? [low] : logTicks(low, high)) : [];
  return { at, ticks: xs.some((x) => x === 0) ? [0, ...ticks] : ticks };
}
function axes(width, height, box, xticks, yticks, x, y, xlabel, ytext = number) {
  return [
    yticks.map((v) => [h("line", { class: "grid", x1: box.left, x2: box.right, y1: y(v), y2: y(v) }),
      h("text", { x: box.left - 8, y: y(v) + 4, "text-anchor": "end" }, ytext(v))]),
    h("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }),
    xticks.map((v) => [h("line", { class: "axis", x1: x(v), x2: x(v), y1: box.bottom, y2: box.bottom + 4 }),
      h("text", { x: x(v), y: box.bottom + 17, "text-anchor": "middle" }, number(v))]),
    h("text", { x: box.right, y: height - 2, "text-anchor": "end" }, xlabel),
  ];
}
// series: [{ name, index, points: [[kimg, mean, low, high, n]], label }]
function lineChart(series, width, height, { reference = [], describe = "" } = {}) {
  const points = series.flatMap((s) => s.points);
  if (!points.length) return h("p", { class: "note" }, "Nothing measured yet.");
  const room = Math.min(120, 14 + 6.4 * Math.max(...series.map((s) => s.label ? s.label.length : 0)));
  const ys = [...points.flatMap((p) => [p[2], p[3]]), ...reference.map((r) => r.value)];
  let low = Math.min(...ys), high = Math.max(...ys);
  const log = low > 0 && high / low > 12;
  const pad = (high - low || Math.abs(high) || 1) * 0.05;
  if (!log) { low = low >= 0 && low < (high - low) ? 0 : low - pad; high += pad; }
  const box = { left: 48, right: width - room, top: 8, bottom: height - 36 };
  const { at, ticks } = kimgScale(unique(points.map((p) => p[0])), box.left + 6, box.right - 4);
  const part = (v) => log ? Math.log(v / low) / Math.log(high / low) : (v - low) / (high - low);
  const y = (v) => box.bottom - (box.bottom - box.top) * part(v);
  const ends = [];
  const lines = series.map((s) => {
    const line = s.points.map((p, i) => `${i ? "L" : "M"}${at(p[0]).toFixed(1)} ${y(p[1]).toFixed(1)}`).join("");
    const band = s.points.some((p) => p[3] > p[2]) ? s.points.map((p) => `${at(p[0]).toFixed(1)} ${y(p[3]).toFixed(1)}`)
      .concat([...s.points].reverse().map((p) => `${at(p[0]).toFixed(1)} ${y(p[2]).toFixed(1)}`)).join(" L ") : null;
    const last = s.points[s.points.length - 1];
    if (last && s.label) ends.push({ name: s.label, y: y(last[1]), at: y(last[1]), x: at(last[0]), index: s.index });
    return h("g", {},
      band && h("path", { d: `M${band}Z`, fill: colour(s.index), opacity: 0.14 }),
      h("path", { d: line, fill: "none", "stroke-width": s.faint ? 1 : 2, opacity: s.faint ? 0.35 : 1, ...stroke(s.index), "stroke-linejoin": "round" }),
      s.faint || s.points.length > 30 ? null : s.points.map((p) => h("circle", { cx: at(p[0]), cy: y(p[1]), r: 3, fill: colour(s.index) },
        h("title", {}, `${s.name}, ${kimgText(p[0])}: ${number(p[1])}${p[4] > 1 ? ` (${number(p[2])} to ${number(p[3])}, ${p[4]} seeds)` : ""}`))));
  });
  ends.sort((a, b) => a.at - b.at);
  ends.forEach((e, i) => { if (i) e.at = Math.max(e.at, ends[i - 1].at + 14); });
  const over = ends.length ? ends[ends.length - 1].at - (height - 30) : 0;
  if (over > 0) [...ends].reverse().forEach((e, i, all) => { e.at = Math.min(e.at, i ? all[i - 1].at - 14 : height - 30); });
  return h("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": describe },
    axes(width, height, box, ticks, log ? logTicks(low, high) : ticksOf(low, high), at, y, "kimg"),
    reference.map((r) => h("g", {}, h("line", { class: "base", x1: box.left, x2: box.right, y1: y(r.value), y2: y(r.value) }, h("title", {}, `${r.name} ${number(r.value)}`)))),
    lines, ends.map((e) => h("text", { x: e.x + 9, y: e.at + 4, style: { fill: colour(e.index) } }, e.name)));
}
function curveOf(list, name) {  // mean and range over the seeds at each kimg where all were measured
  const rows = new Map();
  for (const t of list) for (const [k, v] of (t.metrics[name] || t.logs[name] || []))
    if (known(v)) rows.set(k, [...(rows.get(k) || []), v]);
  const most = Math.max(0, ...[...rows.values()].map((r) => r.length));
  return [...rows].filter(([, r]) => r.length === most).sort((a, b) => a[0] - b[0])
    .map(([k, r]) => [k, mean(r), Math.min(...r), Math.max(...r), r.length]);
}
const complete = (list) => list.some((t) => t.state === "complete") ? list.filter((t) => t.state === "complete") : list;
function panelWidth(count, least = 330, gap = 38) {
  const whole = Math.max(280, document.getElementById("page").clientWidth
    - 2 * parseFloat(getComputedStyle(document.getElementById("page")).paddingLeft));
  const columns = Math.max(1, Math.min(count, Math.floor((whole + gap) / (least + gap))));
  return Math.min(620, Math.floor((whole - gap * (columns - 1)) / columns));
}

// ---- sections ----------------------------------------------------------------------------------

const sections = {};
function section(id, title, lead) {
  const body = h("div", {});
  const node = h("section", { id, "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, title), lead && h("p", { class: "lead" }, lead), body);
  document.getElementById("page").append(node);
  document.getElementById("nav").append(h("a", { href: `#${id}` }, title));
  return body;
}
function refill(body, ...children) {  // redraw, and keep the focus where it was
  const focused = body.contains(document.activeElement) ? document.activeElement : null;
  const mark = focused && ["data-key", "data-cell", "data-focus"].map((a) => [a, focused.getAttribute(a)]).find((m) => m[1] !== null);
  body.replaceChildren(...children.flat(3).filter(Boolean));
  const again = mark && [...body.querySelectorAll(`[${mark[0]}]`)].find((n) => n.getAttribute(mark[0]) === mark[1]);
  if (again) again.focus({ preventScroll: true });
}

function header() {
  const count = (s) => trials.filter((t) => t.state === s).length;
  const commits = unique(trials.map((t) => t.commit && t.commit.sha.slice(0, 7) + (t.commit.dirty ? " + changes" : "")).filter(Boolean));
  const facts = [
    ["sources", sources.length], ["targets", targets.length], ["strategies", strategies.length],
    ["models", models.length], ["seeds", seeds.length],
    ["trials complete", `${count("complete")} of ${trials.length}`],
    ["kimg each", unique(trials.map((t) => number(t.budget ?? t.kimg))).join(", ")],
    ["hours of training", number(Math.round(trials.reduce((a, t) => a + (t.seconds || 0), 0) / 360) / 10)],
  ];
  const page = document.getElementById("page");
  page.append(h("p", { class: "eyebrow" }, data.question ? `Study ${data.title}` : "Study"),
    h("h1", {}, data.question || data.title), ...data.verdict.map((p) => h("p", { class: "verdict" }, p)),
    h("dl", { class: "facts" }, facts.map(([k, v]) => h("div", {}, h("dt", {}, k), h("dd", {}, String(v))))));
  if (data.problems.length) page.append(h("div", { class: "warn" },
    h("p", {}, "Read with care:"), h("ul", {}, data.problems.slice(0, 20).map((p) => h("li", {}, p)))));
  return commits;
}

function matrices() {
  const all = [], byFreeze = state.rows === "freeze";
  const rows = byFreeze ? strategies : sources;
  const cell = (row, panel, t) => byFreeze && !controls.includes(row) ? [panel, row] : [row, byFreeze ? "none" : panel];
  const grids = (byFreeze ? sources : strategies).map((panel) => {
    const line = (row) => ({ row, cells: targets.map((t) => {
      const [s, f] = cell(row, panel, t), list = cellOf(s, t, f), m = measure(list);
      if (m) all.push(m.mean);
      return { s, t, f, list, m };
    }) });
    return { panel, rows: rows.map(line), controls: controls.map(line) };
  });
  const total = (r) => mean(r.cells.map((c) => c.m ? sign(direction()) * c.m.mean : 1e9));
  if (byFreeze) for (const g of grids) g.rows.sort((a, b) => total(a) - total(b));
  const text = fixed(all), scale = shade(all), least = Math.min(680, (byFreeze ? 200 : 120) + 90 * targets.length);
  refill(sections.matrix, h("div", { class: "controls" }, common(),
    sources.length > 1 && strategies.length > 1 ? choose("Rows are", "rows", ["source", "freeze"], (x) => x === "source" ? "sources" : "strategies") : null, factors()),
    h("div", { class: "panels", style: { "--least": `${least}px` } }, grids.map((g) => matrix(g, text, scale))), key(all, text),
    h("p", { class: "note" }, `${what()}: the mean over the seeds that are complete, \u00b1 their standard deviation, and how many. `
      + `Underlined: the best ${byFreeze ? "strategy" : "source"} for a target. Enter or a click opens the trials of a cell; arrow keys move between cells.`));
}
function shade(all) {
  const low = Math.min(...all), high = Math.max(...all);
  if (state.show !== "value") {
    const most = Math.max(...all.map(Math.abs)) || 1;
    return (x) => ({ p: 88 * Math.abs(x) / most, to: x < 0 ? "var(--bad)" : "var(--good)" });
  }
  const log = low > 0 && high / low > 8, part = (x) => high === low ? 0.5 : log ? Math.log(x / low) / Math.log(high / low) : (x - low) / (high - low);
  return (x) => ({ p: 4 + 84 * (direction() === "max" ? part(x) : 1 - part(x)), to: "var(--good)" });
}
function key(all, text) {
  if (!all.length) return null;
  const low = Math.min(...all), high = Math.max(...all);
  if (state.show === "value") {
    const [worst, best] = direction() === "max" ? [low, high] : [high, low];
    return h("div", { class: "key" }, `${text(worst)} worst`, h("i", {}), `${text(best)} best`);
  }
  const most = Math.max(...all.map(Math.abs));
  return h("div", { class: "key" }, `${text(-most)} worse than ${state.control}`, h("i", { class: "two" }), `+${text(most)} better`);
}
function matrix(g, text, scale) {
  const better = sign(direction()), several = g.rows.length > 1;
  const best = targets.map((_, j) => Math.min(...g.rows.map((r) => r.cells[j].m ? better * r.cells[j].m.mean : Infinity)));
  const line = (own) => (r) => h("tr", {}, h("th", { scope: "row", title: r.row }, short(r.row)),
    r.cells.map((c, j) => h("td", {}, heat(c, text, scale, own && several && c.m && better * c.m.mean === best[j]))));
  const table = h("table", { class: "matrix", onkeydown: arrows, "data-panel": g.panel },
    h("caption", {}, state.rows === "freeze" ? `from ${short(g.panel)}` : g.panel, h("span", {}, state.rows === "freeze" ? "" : frozen(g.panel))),
    h("thead", {}, h("tr", {}, h("td", {}), targets.map((t) => h("th", { scope: "col", title: t }, short(t))))),
    h("tbody", {}, g.rows.map(line(true))), controls.length ? h("tbody", {}, g.controls.map(line(false))) : null);
  table.querySelectorAll(".heat").forEach((b, i) => { b.tabIndex = i ? -1 : 0; });
  return h("div", { class: "scroll" }, table);
}
const percent = (x) => !known(x) ? "\u2013" : x > 0 && x < 0.001 ? "< 0.1 %" : `${Number((100 * x).toPrecision(3))} %`;
function frozen(f) {
  const t = transfers.find((x) => x.freeze === f && x.model === state.model && known(x.share.G));
  return t ? `frozen: ${percent(t.share.G)} of G, ${percent(t.share.D)} of D` : "";
}
function heat(c, text, scale, best) {
  if (!c.list.length) {
    const asked = data.cells.some((x) => x.source === c.s && x.target === c.t && x.freeze === c.f && x.model === state.model);
    const empty = c.s === c.t && !asked || controls.includes(c.s);
    return h("div", { class: `gap${empty ? " none" : ""}`, "aria-label": empty ? "not part of the study" : "missing" }, empty ? "" : "missing");
  }
  const label = `${c.s} to ${c.t}, ${c.f}`, attributes = { type: "button", "data-cell": c.list[0].cell, onclick: () => openCell(c.list[0].cell) };
  if (!c.m) {
    const why = c.list.every((t) => t.state === "complete") ? (state.show === "value" ? "no value" : "no baseline") : unique(c.list.filter((t) => t.state !== "complete").map((t) => t.state)).join(", ");
    return h("button", { ...attributes, class: "heat broken", "aria-label": `${label}: ${why}` }, why);
  }
  const { p, to } = scale(c.m.mean), broken = c.list.filter((t) => t.state === "failed").length;
  const plus = state.show !== "value" && c.m.mean > 0 ? "+" : "";
  const detail = `${c.m.sd === null ? "" : `\u00b1 ${text(c.m.sd)} \u00b7 `}n ${c.m.n}${broken ? ` \u00b7 ${broken} failed` : ""}`;
  return h("button", { ...attributes, class: `heat${p > 52 ? " deep" : ""}${best ? " best" : ""}`, style: { "--p": p.toFixed(1), "--to": to },
    "aria-label": `${label}: ${plus}${text(c.m.mean)}, ${detail}${best ? ", best source" : ""}` }, h("b", {}, plus + text(c.m.mean)), h("small", {}, detail));
}
function arrows(event) {
  const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
  const at = event.target.closest("td");
  if (!move || !at) return;
  event.preventDefault();
  const rows = [...event.currentTarget.querySelectorAll("tbody tr")];
  let r = rows.indexOf(at.parentNode), c = [...at.parentNode.children].indexOf(at), next = null;
  while (!next && rows[r += move[0]] && rows[r].children[c += move[1]]) next = rows[r].children[c].querySelector(".heat");
  if (!next) return;
  event.currentTarget.querySelectorAll(".heat").forEach((b) => { b.tabIndex = -1; });
  next.tabIndex = 0;
  next.focus();
}

function curves() {
  const logs = unique(trials.flatMap((t) => Object.keys(t.logs))).sort();
  const name = state.curve || state.metric, by = state.compare;
  const groups = by === "source" ? [...sources, ...controls] : [...strategies, ...controls];
  const list = (g, t) => complete(by === "source" || controls.includes(g) ? cellOf(g, t, state.freeze) : cellOf(state.source, t, g));
  const panels = targets.map((t) => ({ t, lines: groups.map((g, index) => ({ name: g, index, points: curveOf(list(g, t), name) })).filter((s) => s.points.length) })).filter((p) => p.lines.length);
  const present = groups.filter((g) => panels.some((p) => p.lines.some((l) => l.name === g)));
  if (present.length > 8 && !state.hidden.size) {  // many lines: the best few stand out
    const s = sign((data.metrics[name] || { better: "min" }).better);
    const rank = (g) => mean(panels.flatMap((p) => p.lines.filter((l) => l.name === g).map((l) => s * l.points[l.points.length - 1][1])));
    [...present].sort((a, b) => rank(a) - rank(b)).slice(6).forEach((g) => state.hidden.add(g));
  }
  const width = panelWidth(panels.length);
  const legend = h("div", { class: "legend", role: "group", "aria-label": "Lines" }, present.map((g) => h("button", { type: "button", "data-focus": `line ${g}`, "aria-pressed": String(!state.hidden.has(g)),
    onclick: () => { if (!state.hidden.delete(g)) state.hidden.add(g); if (!state.hidden.size) state.hidden.add(""); draw("curves"); } },
    h("svg", { width: 26, height: 8, "aria-hidden": "true" }, h("line", { x1: 0, x2: 26, y1: 4, y2: 4, "stroke-width": 2.5, ...stroke(groups.indexOf(g)) })), short(g))));
  refill(sections.curves, h("div", { class: "controls" },
    choose("Lines are", "compare", ["source", "freeze"], (x) => x === "source" ? "sources" : "strategies"),
    by === "source" ? choose("Strategy", "freeze", strategies) : choose("Source", "source", sources, short),
    choose("Curve", "curve", ["", ...logs], (x) => x || state.metric), factors()),
    legend, h("div", { class: "panels" }, panels.map((p) => h("div", { class: "chart" }, h("h3", {}, h("span", {}, "to "), short(p.t)),
      lineChart(p.lines.map((l) => ({ ...l, faint: state.hidden.has(l.name), label: state.hidden.has(l.name) ? "" : short(l.name) })), width, 250,
        { describe: `${name} over kimg on target ${p.t}: ${p.lines.map((l) => `${l.name} ends at ${number(l.points[l.points.length - 1][1])}`).join("; ")}` })))),
    h("p", { class: "note" }, `${name} over thousands of real images shown (log scale; 0 is the start). Line: mean over seeds. Band: from the lowest to the highest seed. Complete trials where there are any.`));
}

function gallery() {
  if (!steps.length) { refill(sections.gallery, h("p", { class: "note" }, "This page was made without pictures.")); return; }
  const pairs = sources.flatMap((s) => targets.map((t) => `${s}|${t}`)).filter((p) => transfers.some((t) => `${t.source}|${t.target}` === p));
  if (!pairs.includes(state.pair)) state.pair = pairs[0];
  const tabs = { pairs: "All pairs", freeze: "Strategies side by side", all: `All ${trials.length} trials` };
  const pick = (list) => list.find((t) => t.seed === state.seed && t.strip) || list.find((t) => t.strip) || list[0];
  let wall, chosen, square = false;
  if (state.tab === "pairs") {
    const rows = [...sources, ...controls].filter((s) => targets.some((t) => cellOf(s, t, state.freeze).length));
    square = targets.length > 1 && targets.length <= 6;
    wall = rows.flatMap((s) => targets.map((t) => {
      const trial = pick(cellOf(s, t, state.freeze));
      return trial ? card(trial, pairName(trial)) : square ? h("div", { class: "card empty" }, s === t ? "" : `${short(s)} \u2192 ${short(t)}: missing`) : null;
    }));
    chosen = [choose("Strategy", "freeze", strategies), choose("Seed", "seed", seeds), factors()];
  } else if (state.tab === "freeze") {
    const [s, t] = (state.pair || "|").split("|");
    wall = [...strategies.map((f) => [f, pick(cellOf(s, t, f))]), ...controls.map((c) => [c, pick(cellOf(c, t, "none"))])]
      .map(([name, trial]) => trial && card(trial, name));
    chosen = [choose("Pair", "pair", pairs, (p) => p.split("|").map(short).join(" \u2192 ")), choose("Seed", "seed", seeds), factors()];
  } else {
    wall = trials.map((t) => card(t, `${pairName(t)}, ${t.freeze}, seed ${t.seed}`));
    chosen = [];
  }
  const names = Object.keys(tabs);
  const list = h("div", { class: "tabs", role: "tablist", "aria-label": "Which pictures" }, names.map((id) => h("button", { class: "tab", type: "button", role: "tab", id: `tab-${id}`, "data-focus": `tab ${id}`, "aria-controls": "wall", "aria-selected": String(id === state.tab),
    tabindex: id === state.tab ? 0 : -1, onclick: () => { state.tab = id; draw("gallery"); },
    onkeydown: (e) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
      if (!by) return;
      e.preventDefault();
      state.tab = names[(names.indexOf(id) + by + names.length) % names.length];
      draw("gallery");
      document.getElementById(`tab-${state.tab}`).focus();
    } }, tabs[id])));
  const bar = sections.gallery.querySelector(".slider") || slider();
  bar.update();
  refill(sections.gallery, list, h("div", { class: "controls" }, chosen), bar,
    h("div", { id: "wall", role: "tabpanel", "aria-labelledby": `tab-${state.tab}`, class: `wall${square ? " square" : ""}`, style: { "--columns": targets.length } }, wall));
}

function strategyTable() {
  const cells = sources.flatMap((s) => targets.map((t) => ({ s, t, by: strategies.map((f) => measure(cellOf(s, t, f))) }))).filter((c) => c.by.some(Boolean));
  const better = sign(direction());
  const rows = strategies.map((f, i) => {
    const own = cells.filter((c) => c.by[i]);
    const rank = own.map((c) => 1 + c.by.filter((m) => m && better * m.mean < better * c.by[i].mean).length);
    return { f, own: own.map((c) => ({ pair: `${short(c.s)} \u2192 ${short(c.t)}`, x: c.by[i].mean })), rank: rank.length ? mean(rank) : null, m: interval(own.map((c) => c.by[i].mean)) };
  }).filter((r) => r.m).sort((a, b) => better * a.m.mean - better * b.m.mean);
  if (!rows.length) { refill(sections.strategies, h("p", { class: "note" }, "No complete trial has this value.")); return; }
  const all = rows.flatMap((r) => r.own.map((o) => o.x)).concat(state.show === "value" ? [] : [0]);
  const low = Math.min(...all), high = Math.max(...all), log = low > 0 && high / low > 8, text = fixed(all);
  const at = (x) => { const part = high === low ? 0.5 : log ? Math.log(Math.max(x, low) / low) / Math.log(high / low) : (x - low) / (high - low); return `${(2 + 96 * Math.min(1, Math.max(0, part))).toFixed(2)}%`; };
  const width = (r) => `calc(${at(r.m.high)} - ${at(r.m.low)})`;
  refill(sections.strategies, h("div", { class: "controls" }, common(), factors()), h("div", { class: "scroll" }, h("table", { class: "rows" },
    h("thead", {}, h("tr", {}, ["Strategy", "Pairs", "Mean rank", "Mean", "95 % interval", `${text(low)} to ${text(high)}${log ? ", log scale" : ""}`, "Frozen of G", "of D"].map((x, i) => h("th", { scope: "col", class: [1, 2, 3, 4, 6, 7].includes(i) ? "num" : null }, x)))),
    h("tbody", {}, rows.map((r) => {
      const t = transfers.find((x) => x.freeze === r.f && x.model === state.model);
      return h("tr", {}, h("th", { scope: "row" }, r.f), h("td", { class: "num" }, String(r.m.n)), h("td", { class: "num" }, r.rank.toFixed(1)), h("td", { class: "num" }, text(r.m.mean)),
        h("td", { class: "num" }, r.m.n > 1 ? `${text(r.m.low)} to ${text(r.m.high)}` : "\u2013"),
        h("td", {}, h("div", { class: "strip", "aria-hidden": "true" }, state.show === "value" ? null : h("s", { style: { left: at(0) } }),
          r.own.map((o) => h("i", { style: { left: at(o.x) }, title: `${o.pair}: ${text(o.x)}` })),
          r.m.n > 1 ? h("b", { style: { left: at(r.m.low), width: width(r) } }) : null, h("u", { style: { left: at(r.m.mean) } }))),
        h("td", { class: "num" }, percent(t && t.share.G)), h("td", { class: "num" }, percent(t && t.share.D)));
    })))), h("p", { class: "note" }, `${what()}. A small dot is a pair (mean over seeds), the ring their mean, the bar Student\u2019s 95 % interval over pairs. Mean rank: 1 is the best strategy of a pair. Pairs that share a source or a target are not independent: the interval is too narrow for other domains.`));
}

function predictorCharts() {
  const cells = sources.flatMap((s) => targets.map((t) => ({ s, t, m: measure(cellOf(s, t, state.freeze)) }))).filter((c) => c.m);
  const charts = data.predictors.map((p) => {
    const points = cells.filter((c) => known(p.values[`${c.s}|${c.t}`])).map((c) => ({ x: p.values[`${c.s}|${c.t}`], y: c.m.mean, s: c.s, t: c.t }));
    const flip = sign(p.better) * sign(direction()), rho = spearman(points.map((q) => q.x), points.map((q) => flip * q.y));
    const within = targets.map((t) => points.filter((q) => q.t === t)).map((g) => spearman(g.map((q) => q.x), g.map((q) => flip * q.y))).filter(known);
    return { p, points, rho, within: within.length ? mean(within) : null, count: within.length };
  }).filter((c) => c.points.length > 1).sort((a, b) => (b.rho ?? -2) - (a.rho ?? -2));
  const width = panelWidth(charts.length, 260);
  refill(sections.predictors, h("div", { class: "controls" }, common(), choose("Strategy", "freeze", strategies), factors()),
    charts.length ? h("div", { class: "panels", style: { "--least": "260px" } }, charts.map((c) => h("div", { class: "chart" }, h("h3", {}, c.p.name, h("span", {}, ` \u00b7 ${{ model: "source model", images: "source images", target: "target images" }[c.p.of]}`)),
      h("p", { class: "note" }, `Spearman ${known(c.rho) ? minus(c.rho.toFixed(2)) : "\u2013"} over ${plural(c.points.length, "pair")}`, known(c.within) ? `; within a target ${minus(c.within.toFixed(2))} (${c.count})` : ""), scatter(c, width)))) : h("p", { class: "note" }, "No predictor was measured for two pairs of this study. python -m stylegan_tl.distance measures them."),
    charts.length ? h("p", { class: "note" }, `Each mark is a pair; its shape and colour tell the target. Down the side: ${what()}. The coefficient is signed so that +1 means the predictor orders the pairs as the outcome does, best first; pairs are few, so read it as a hint.`) : null);
}
function scatter(c, width) {
  const height = 220, box = { left: 48, right: width - 10, top: 8, bottom: height - 36 };
  const range = (v) => { const a = Math.min(...v), b = Math.max(...v), pad = (b - a || Math.abs(b) || 1) * 0.07; return [a - pad, b + pad]; };
  const [x0, x1] = range(c.points.map((q) => q.x)), [y0, y1] = range(c.points.map((q) => q.y));
  const x = (v) => box.left + (box.right - box.left) * (v - x0) / (x1 - x0), y = (v) => box.bottom - (box.bottom - box.top) * (v - y0) / (y1 - y0);
  const shapes = ["M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0Z", "M-4.5-4.5h9v9h-9Z", "M0-6L5.5 4.5h-11Z", "M0-6L5.5 0L0 6L-5.5 0Z", "M-5.5-4.5h11L0 6Z", "M-5-5L5 5M5-5L-5 5", "M0-6V6M-6 0H6", "M-6-2h12v4h-12Z"];
  return h("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `${c.p.name} against the outcome for ${c.points.length} pairs` },
    axes(width, height, box, ticksOf(x0, x1), ticksOf(y0, y1), x, y, c.p.metric),
    c.points.map((q) => { const i = targets.indexOf(q.t); return h("path", { d: shapes[i % 8], transform: `translate(${x(q.x).toFixed(1)} ${y(q.y).toFixed(1)})`, fill: i % 8 === 5 || i % 8 === 6 ? "none" : colour(i), stroke: colour(i), "stroke-width": 1.5, "fill-opacity": 0.75 }, h("title", {}, `${pairName({ source: q.s, target: q.t })}: ${number(q.x)}, ${number(q.y)}`)); }));
}

function lineage() {
  const kids = (parent) => Object.entries(data.sources).filter(([, s]) => (s.parent || null) === parent);
  const names = Map.groupBy ? Map.groupBy(Object.values(data.sources), (s) => `${s.name}|${s.model}|${s.parent}`) : new Map();
  const several = [...names.values()].filter((g) => g.length > 1);
  const branch = ([id, s]) => {
    const own = trials.filter((t) => t.parent === id), to = unique(own.map((t) => t.target));
    return h("li", {}, h("b", {}, s.name), ` ${s.model} \u00b7 ${kimgText(s.kimg)}`, s.images ? ` \u00b7 ${s.images} images` : "", " \u00b7 weights ", h("code", {}, (s.sha256 || "unknown").slice(0, 12)), s.data ? [" \u00b7 data ", h("code", {}, s.data.slice(0, 12))] : "",
      h("ul", {}, to.map((t) => h("li", {}, `\u2192 ${t}: ${plural(own.filter((x) => x.target === t).length, "trial")}`)), kids(id).map(branch)));
  };
  const fresh = trials.filter((t) => !t.parent);
  refill(sections.lineage, several.map((g) => h("p", { class: "warn" }, `${g.length} different source models of ${g[0].name} (${g[0].model}) were used: which of them a trial started from is in its cell.`)),
    h("ul", { class: "tree" }, kids(null).map(branch), fresh.length ? h("li", {}, h("b", {}, "random weights"), h("ul", {}, unique(fresh.map((t) => t.target)).map((t) => h("li", {}, `\u2192 ${t}: ${plural(fresh.filter((x) => x.target === t).length, "trial")}`)))) : null));
}

const COLUMNS = [["source", "Source"], ["target", "Target"], ["freeze", "Strategy"], ["model", "Model"], ["seed", "Seed", 1], ["state", "State"], ["value", "Value", 1], ["kimg", "kimg", 1], ["seconds", "Time", 1], ["commit", "Commit"], ["path", "Folder"]];
function trialTable() {
  const get = (t, k) => k === "value" ? value(t) ?? Infinity : k === "commit" ? (t.commit || {}).sha || "" : t[k];
  const [by, way] = state.sort, words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
  const found = trials.filter((t) => words.every((w) => `${t.source} ${t.target} ${t.freeze} ${t.model} ${t.variant} ${t.state} ${t.path}`.toLowerCase().includes(w)))
    .sort((a, b) => { const x = get(a, by), y = get(b, by); return way * (x < y ? -1 : x > y ? 1 : a.id - b.id); });
  const some = state.all ? found : found.slice(0, 40);
  const old = sections.trials.querySelector("input");
  const input = old || h("input", { type: "search", placeholder: "bedroom freeze_d failed", "data-focus": "filter", oninput: (e) => { state.filter = e.target.value; draw("trials"); } });
  refill(sections.trials, h("div", { class: "controls" }, h("label", {}, "Filter", input), h("button", { class: "quiet", type: "button", onclick: save }, "Save all values as CSV")),
    h("div", { class: "scroll" }, h("table", { class: "rows" }, h("thead", {}, h("tr", {}, COLUMNS.map(([k, name, num]) => h("th", { scope: "col", class: num ? "num" : null, "aria-sort": by === k ? (way > 0 ? "ascending" : "descending") : null },
      h("button", { type: "button", "data-focus": `sort ${k}`, onclick: () => { state.sort = [k, by === k ? -way : 1]; draw("trials"); } }, `${name}${by === k ? (way > 0 ? " \u2191" : " \u2193") : ""}`))))),
    h("tbody", {}, some.map((t) => h("tr", {}, h("td", {}, h("button", { class: "link", type: "button", onclick: () => openCell(t.cell) }, short(t.source))), h("td", {}, short(t.target)), h("td", {}, t.freeze), h("td", {}, t.model + (t.variant ? `, ${t.variant}` : "")), h("td", { class: "num" }, String(t.seed)), h("td", {}, h("span", { class: `state ${t.state}` }, t.state)),
      h("td", { class: "num" }, number(value(t))), h("td", { class: "num" }, number(t.kimg)), h("td", { class: "num" }, clock(t.seconds)), h("td", {}, commitOf(t)), h("td", {}, h("a", { href: t.folder, title: t.path }, `seed=${t.seed}`))))))),
    found.length > some.length ? h("p", {}, h("button", { class: "quiet", type: "button", onclick: () => { state.all = true; draw("trials"); } }, `Show all ${found.length}`)) : null);
}
const commitOf = (t) => t.commit ? h("code", {}, t.commit.sha.slice(0, 7) + (t.commit.dirty ? "+" : "")) : "\u2013";
function save() {
  const quote = (x) => /[",\n]/.test(String(x)) ? `"${String(x).replaceAll('"', '""')}"` : x;
  const rows = [["source", "target", "freeze", "model", "variant", "seed", "state", "metric", "kimg", "value", "stderr", "folder"]];
  for (const t of trials) for (const [m, at] of Object.entries(t.metrics)) for (const [k, v, e] of at) rows.push([t.source, t.target, t.freeze, t.model, t.variant, t.seed, t.state, m, k, v ?? "", e ?? "", t.path]);
  const url = URL.createObjectURL(new Blob([rows.map((r) => r.map(quote).join(",")).join("\n") + "\n"], { type: "text/csv" }));
  h("a", { href: url, download: `${data.title}.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

// ---- one cell ----------------------------------------------------------------------------------

function openCell(cell) {
  const dialog = document.getElementById("cell"), list = byCell.get(cell) || [], first = list[0];
  if (!first) return;
  const m = interval(list.filter((t) => t.state === "complete").map((t) => value(t)).filter(known));
  const lines = list.map((t, index) => ({ name: `seed ${t.seed}`, label: `seed ${t.seed}`, index, points: (t.metrics[state.metric] || []).filter((r) => known(r[1])).map((r) => [r[0], r[1], r[1], r[1], 1]) })).filter((l) => l.points.length);
  const differing = Object.entries(data.differences[cell] || {}), nearest = list.filter((t) => t.nearest);
  const say = (x) => x === null || x === undefined ? "absent" : typeof x === "object" ? JSON.stringify(x) : String(x);
  dialog.replaceChildren(h("div", {}, h("header", {}, h("div", {}, h("h2", { id: "cell-title" }, pairName(first)), h("p", { class: "note" }, [first.freeze, first.model, first.variant].filter(Boolean).join(" \u00b7 "), frozen(first.freeze) && ` \u00b7 ${frozen(first.freeze)}`)),
    h("button", { type: "button", class: "quiet", autofocus: true, onclick: () => dialog.close() }, "Close")),
    m ? [h("p", { class: "big" }, number(m.mean)), h("p", { class: "note" }, `${state.metric} ${state.stat === "final" ? "at the end" : "at its best"}, mean of ${plural(m.n, "seed")}`, m.n > 1 ? `; standard deviation ${number(m.sd)}, 95 % interval ${number(m.low)} to ${number(m.high)} (Student, ${m.n - 1} df)` : "")] : h("p", { class: "big" }, "No complete trial"),
    steps.length && list.some((t) => t.strip) ? h("section", {}, h("h3", {}, "The same latents"), slider(), h("div", { class: "wall" }, list.map((t) => card(t, `seed ${t.seed}`)))) : null,
    lines.length ? h("section", { class: "chart" }, h("h3", {}, state.metric), lineChart(lines, Math.min(620, window.innerWidth - 40), 240, { describe: `${state.metric} of each seed` })) : null,
    nearest.length ? h("section", {}, h("h3", {}, "Nearest training images"), nearest.map((t) => h("figure", { class: "card" }, later(t.nearest, { alt: "generated images and the training images nearest to them", class: "nearest" }), h("figcaption", {}, `seed ${t.seed}`)))) : null,
    h("section", {}, h("h3", {}, differing.length ? "The trials differ in more than their seed" : "Configuration"), differing.length ? h("div", { class: "scroll" }, h("table", { class: "rows" }, h("thead", {}, h("tr", {}, h("th", {}, "Key"), list.map((t) => h("th", {}, `seed ${t.seed}`)))),
      h("tbody", {}, differing.map(([k, values]) => h("tr", {}, h("th", { scope: "row" }, h("code", {}, k)), list.map((t) => h("td", {}, say((values.find((v) => v[0] === t.id) || [])[1])))))))) : h("p", { class: "note" }, list.length > 1 ? "Equal in all trials of this cell but for the seed." : "One trial.")),
    h("section", {}, h("h3", {}, plural(list.length, "trial")), list.map(trialCard))));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}
function trialCard(t) {
  const parents = [];
  for (let id = t.parent; id; id = data.sources[id].parent) parents.unshift(`${data.sources[id].name}, ${kimgText(data.sources[id].kimg)}, ${(data.sources[id].sha256 || "").slice(0, 12)}`);
  const facts = [t.hardware, t.torch && `torch ${t.torch}`, t.pace && `${number(t.pace)} s/kimg`, t.started].filter(Boolean).join(" \u00b7 ");
  return h("div", { style: { "margin-bottom": "1.8rem" }, "data-listed": t.id }, h("p", { style: { margin: 0 } }, h("b", {}, `Seed ${t.seed}`), "  ", h("span", { class: `state ${t.state}` }, t.state), `  \u00b7 ${kimgText(t.kimg)} \u00b7 ${clock(t.seconds)} \u00b7 commit `, commitOf(t), t.commit && t.commit.dirty ? " with uncommitted changes" : ""),
    t.reason ? h("p", { class: "warn" }, t.reason) : null, t.flags.length ? h("p", { class: "warn" }, t.flags.map((f) => `${f.flag} at ${kimgText(f.kimg)}`).join("; ")) : null,
    t.command ? h("pre", {}, t.command) : null, h("p", { class: "note", style: { margin: "0" } }, h("a", { href: t.folder }, "folder"), " \u00b7 ", h("a", { href: `${t.folder}trial.json` }, "trial.json"), " \u00b7 ", h("a", { href: `${t.folder}metrics.jsonl` }, "metrics.jsonl"), ` \u00b7 ${facts}`),
    h("p", { class: "note", style: { margin: "0" } }, parents.length ? `from ${parents.join(" \u2192 ")}` : "from random weights"),
    h("p", { class: "note", style: { margin: "0" } }, Object.keys(t.metrics).map((name) => `${name} ${number(value(t, name))}`).join(" \u00b7 ")));
}

// ---- the page ----------------------------------------------------------------------------------

const drawings = { matrix: matrices, curves, gallery, strategies: strategyTable, predictors: predictorCharts, lineage, trials: trialTable };
function draw(only) { for (const [name, make] of Object.entries(drawings)) if (sections[name] && (!only || only === name)) make(); }

function theme() {
  const button = document.getElementById("theme"), order = ["auto", "light", "dark"];
  let now = "auto";
  try { now = localStorage.getItem("stylegan_tl theme") || "auto"; } catch { /* a page from disk may have no storage */ }
  const apply = () => {
    if (now === "auto") document.documentElement.removeAttribute("data-theme"); else document.documentElement.dataset.theme = now;
    button.textContent = { auto: "Auto", light: "Light", dark: "Dark" }[now];
    button.setAttribute("aria-label", `Colours: ${now}. Change.`);
  };
  button.addEventListener("click", () => { now = order[(order.indexOf(now) + 1) % 3]; try { localStorage.setItem("stylegan_tl theme", now); } catch { /* not kept */ } apply(); });
  apply();
}
theme();
const commits = header();
sections.matrix = section("matrix", "Matrix", "How well each source does on each target, a table per strategy. Darker is better.");
sections.curves = section("curves", "Curves", null);
if (steps.length) sections.gallery = section("gallery", "Pictures", "The same latents in every picture, from the source on. One slider moves all of them.");
if (strategies.length > 1) sections.strategies = section("strategies", "Strategies", null);
if (data.predictors.length) sections.predictors = section("predictors", "Predictors", "What was measured before training, against what training gave.");
sections.lineage = section("lineage", "Lineage", "Which weights the trials began from.");
sections.trials = section("trials", "Trials", "Every number, its seed, its commit and its folder.");
draw();
document.getElementById("page").append(h("footer", { class: "note" }, h("p", {}, Object.entries(data.metrics).map(([name, m]) => h("span", { style: { display: "block" } }, h("b", {}, name), ` (${m.better === "min" ? "lower" : "higher"} is better) ${Object.entries(m.protocol).filter(([, v]) => v !== null).map(([k, v]) => `${k.replaceAll("_", " ")} ${String(v).slice(0, 60)}`).join("; ")}`))),
  h("p", {}, `Made ${data.created.replace("T", " ")} by stylegan_tl ${data.version}; trials at commit ${commits.join(", ") || "unknown"}.`)));
let resized = null, before = window.innerWidth;
window.addEventListener("resize", () => {
  if (window.innerWidth === before) return;
  before = window.innerWidth;
  clearTimeout(resized);
  resized = setTimeout(() => { draw("curves"); draw("predictors"); }, 150);
});
document.getElementById("cell").addEventListener("click", (e) => { if (e.target === e.currentTarget) e.currentTarget.close(); });
