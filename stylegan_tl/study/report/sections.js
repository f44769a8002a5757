// ---- sections ----------------------------------------------------------------------------------

const sections = {};
function section(id, title, lead) {
  const body = h("div");
  sections[id] = body;
  document.getElementById("nav").append(h("a", { href: `#${id}` }, title));
  document.getElementById("page").append(
    h("section", { id, "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, title), h("p.lead", lead), body));
}
function refill(body, ...children) {  // draw again, and keep the focus where it was
  const at = body.contains(document.activeElement) ? document.activeElement : null;
  const name = at && ["data-key", "data-cell", "data-focus"].find((a) => at.hasAttribute(a));
  body.replaceChildren(...children.flat(3).filter(Boolean));
  const again = name && [...body.querySelectorAll(`[${name}]`)].find((n) => n.getAttribute(name) === at.getAttribute(name));
  if (again) again.focus({ preventScroll: true });
}
const last = (list) => list[list.length - 1];
const rowWord = (x) => x === "source" ? "sources" : "strategies";

// ---- the matrix --------------------------------------------------------------------------------

function matrices() {
  const all = [], byFreeze = state.rows === "freeze";
  const pairOf = (row, panel) => controls.includes(row) ? [row, "none"] : byFreeze ? [panel, row] : [row, panel];
  const line = (panel) => (row) => ({ row, cells: targets.map((t) => {
    const [s, f] = pairOf(row, panel), list = cellOf(s, t, f), m = measure(list);
    if (m) all.push(m.mean);
    return { s, t, f, list, m };
  }) });
  const grids = (byFreeze ? sources : strategies).map((panel) => (
    { panel, rows: (byFreeze ? strategies : sources).map(line(panel)) }));
  const total = (r) => mean(r.cells.map((c) => c.m ? sign(direction()) * c.m.mean : 1e9));
  if (byFreeze) for (const g of grids) g.rows.sort((a, b) => total(a) - total(b));
  if (controls.length) grids.push({ panel: "controls", rows: controls.map(line("")), control: true });
  const text = fixed(all), scale = shade(all);
  const rivals = targets.some((_, j) => grids.some((g) => !g.control && g.rows.filter((r) => r.cells[j].m).length > 1));
  const least = Math.min(680, (byFreeze ? 150 : 110) + 90 * targets.length);
  refill(sections.matrix,
    h("div.controls", common(), sources.length > 1 && strategies.length > 1
      ? choose("Rows are", "rows", ["source", "freeze"], rowWord) : null, factors()),
    h("div.panels", { style: { "--least": `${least}px` } }, grids.map((g) => matrix(g, text, scale))),
    h("div.keys", colourKey(all, text),
      rivals ? h("div.key", h("span.sample", "\u2605"), `best ${byFreeze ? "strategy" : "source"} for a target, in its table`) : null),
    h("p.note", `${what()}: the mean over the complete seeds, \u00b1 half of Student's 95 % interval, and how many. `
      + (state.stat === "kimg_to_reach" ? "Never: the budget ended before it was reached; such runs are in no mean. " : "")
      + "Enter or a click opens the trials of a cell; arrow keys move between cells."));
}
function shade(all) {  // value -> how much of which colour
  const low = Math.min(...all), high = Math.max(...all);
  if (state.show !== "value") {
    const most = Math.max(...all.map(Math.abs)) || 1;
    return (x) => ({ p: 100 * Math.abs(x) / most, to: x < 0 ? "var(--bad)" : "var(--good)" });
  }
  const part = partOf(low, high, low > 0 && high / low > 8);
  return (x) => ({ p: 3 + 97 * (direction() === "max" ? part(x) : 1 - part(x)), to: "var(--good)" });
}
function colourKey(all, text) {
  if (!all.length) return null;
  const low = Math.min(...all), high = Math.max(...all), most = Math.max(...all.map(Math.abs));
  const [worst, best] = direction() === "max" ? [low, high] : [high, low];
  if (state.show === "value") return h("div.key", `${text(worst)} worst`, h("i"), `${text(best)} best`);
  return h("div.key", `${text(-most)} worse than ${state.control}`, h("i.two"), `+${text(most)} better`);
}
function matrix(g, text, scale) {
  const better = sign(direction()), byFreeze = state.rows === "freeze";
  const never = (c) => c.list.some((t) => t.state === "complete" && !arrived(t));
  const order = (c) => c.m && !never(c) ? better * c.m.mean : Infinity;  // one that never arrived is no best
  const best = targets.map((_, j) => Math.min(...g.rows.map((r) => order(r.cells[j]))));
  const rivals = targets.map((_, j) => g.rows.filter((r) => r.cells[j].m || never(r.cells[j])).length);
  const isBest = (c, j) => !g.control && rivals[j] > 1 && known(best[j]) && order(c) === best[j];
  const line = (r) => h("tr", h("th", { scope: "row", title: r.row }, short(r.row)),
    r.cells.map((c, j) => h("td", heat(c, text, scale, isBest(c, j)))));
  const name = g.control ? "From random weights" : byFreeze ? `from ${short(g.panel)}` : g.panel;
  const table = h("table.matrix", { onkeydown: arrows, "data-panel": g.panel },
    h("caption", name, h("span", g.control ? "the controls of every strategy" : byFreeze ? "" : frozen(g.panel))),
    h("thead", h("tr", h("td"), targets.map((t) => h("th", { scope: "col", title: t }, short(t))))),
    h("tbody", g.rows.map(line)));
  table.querySelectorAll(".heat").forEach((b, i) => { b.tabIndex = i ? -1 : 0; });
  return h("div.scroll", table);
}
function frozen(f) {
  const t = shareOf(f);
  return t ? `frozen: ${percent(t.share.G)} of G, ${percent(t.share.D)} of D` : "";
}
function heat(c, text, scale, best) {
  if (!c.list.length) {
    const asked = data.cells.some((x) => cellKey(x.source, x.target, x.freeze, x.model, "")
      === cellKey(c.s, c.t, c.f, state.model, ""));
    const empty = !asked && (c.s === c.t || controls.includes(c.s));
    return h(empty ? "div.gap.none" : "div.gap", empty ? "" : "missing");
  }
  const { cell } = c.list[0], label = `${c.s} to ${c.t}, ${c.f}`;
  const given = { type: "button", "data-cell": cell, onclick: () => openCell(cell) };
  if (!c.m) {
    const open = unique(c.list.filter((t) => t.state !== "complete").map((t) => t.state));
    const never = c.list.some((t) => t.state === "complete" && !arrived(t));
    const why = open.join(", ") || (never ? "never" : state.show === "value" ? "no value" : "no baseline");
    return h("button.heat.broken", { ...given, "aria-label": `${label}: ${why}` }, why);
  }
  const { p, to } = scale(c.m.mean), failed = c.list.filter((t) => t.state === "failed").length;
  const main = (state.show !== "value" && c.m.mean > 0 ? "+" : "") + text(c.m.mean);
  const asked = Math.max(data.seeds, c.list.length), count = c.m.n < asked ? `${c.m.n}/${asked}` : c.m.n;
  const spread = `${c.m.sd === null ? "" : `\u00b1 ${text(c.m.high - c.m.mean)} \u00b7 `}n ${count}`;
  const never = c.list.filter((t) => t.state === "complete" && !arrived(t)).length;
  const lost = [failed && `${failed} failed`, never && `${never} never`].filter(Boolean).join(", ");
  const button = h("button.heat", { ...given, style: { "--p": p.toFixed(1), "--to": to },
    "aria-label": [`${label}: ${main}`, spread, lost, best ? "the best" : ""].filter(Boolean).join(", ") },
  h("b", best ? h("span.star", { "aria-hidden": "true" }, "\u2605 ") : null, main), h("small", spread), lost ? h("small", lost) : null);
  button.classList.toggle("best", Boolean(best));
  return button;
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
  event.currentTarget.querySelectorAll(".heat").forEach((b) => { b.tabIndex = b === next ? 0 : -1; });
  next.focus();
}

// ---- curves ------------------------------------------------------------------------------------

function curves() {
  const logs = unique(trials.flatMap((t) => Object.keys(t.logs))).sort();
  const name = state.curve || state.metric, bySource = state.compare === "source";
  const groups = bySource ? [...sources, ...controls] : [...strategies, ...controls];
  const list = (g, t) => bySource || controls.includes(g) ? cellOf(g, t, state.freeze) : cellOf(state.source, t, g);
  const linesTo = (t) => groups.map((g) => ({ name: g, points: curveOf(complete(list(g, t)), name) }))
    .filter((l) => l.points.length);
  const charts = targets.map((t) => ({ t, lines: linesTo(t) })).filter((c) => c.lines.length);
  const present = groups.filter((g) => charts.some((c) => c.lines.some((l) => l.name === g)));
  if (state.hiddenFor !== state.compare) {  // of many lines the best few stand out
    state.hiddenFor = state.compare;
    const ends = (g) => charts.flatMap((c) => c.lines.filter((l) => l.name === g).map((l) => last(l.points)[1]));
    const order = present.map((g) => [g, mean(ends(g)) * sign((data.metrics[name] || {}).better)]).sort((a, b) => a[1] - b[1]);
    state.hidden = new Set(present.length > 8 ? order.slice(6).map(([g]) => g) : []);
  }
  const front = present.length > 8 ? present.filter((g) => !state.hidden.has(g)) : present;
  const look = (g) => state.hidden.has(g) ? { faint: true, label: "" } : { faint: false, label: short(g) };
  const draw1 = (c, width) => lineChart(c.lines.map((l) => ({ ...l, ...look(l.name), index: front.indexOf(l.name) })), width, 250, `${name} over kimg, target ${c.t}: `
    + c.lines.map((l) => `${l.name} ends at ${number(last(l.points)[1])}`).join("; "));
  refill(sections.curves,
    h("div.controls", strategies.length > 1 ? choose("Lines are", "compare", ["source", "freeze"], rowWord) : null,
      bySource ? choose("Strategy", "freeze", strategies) : choose("Source", "source", sources, short),
      choose("Curve", "curve", ["", ...logs], (x) => x || state.metric), factors()),
    h("div.legend", { role: "group", "aria-label": "Lines" }, present.map((g) => lineButton(g, front.indexOf(g)))),
    panels(charts.length, 330, (width) => charts.map((c) => (
      h("div.chart", h("h3", h("span", "to "), short(c.t)), draw1(c, width))))),
    h("p.note", `${name} over thousands of real images shown (log scale; 0 is the start). Line: mean over seeds. `
      + "Band: from the lowest to the highest seed. Complete trials where there are any."));
}
function lineButton(g, index) {
  const flip = () => { if (!state.hidden.delete(g)) state.hidden.add(g); draw("curves"); };
  const given = { type: "button", "data-focus": `line ${g}`, "aria-pressed": String(!state.hidden.has(g)), onclick: flip };
  const line = h("line", { x1: 0, x2: 26, y1: 4, y2: 4, "stroke-width": 2.5, ...stroke(index) });
  return h("button", given, h("svg", { width: 26, height: 8, "aria-hidden": "true" }, line), short(g));
}

// ---- pictures ----------------------------------------------------------------------------------

const TABS = { pairs: "All pairs", freeze: "Strategies side by side", all: `All ${trials.length} trials` };
function gallery() {
  const square = state.tab === "pairs" && targets.length > 1 && targets.length <= 6;
  const [wall, chosen] = { pairs: pairWall, freeze: strategyWall, all: trialWall }[state.tab](square);
  const tabs = h("div.tabs", { role: "tablist", "aria-label": "Which pictures" }, Object.keys(TABS).map(tab));
  const bar = sections.gallery.querySelector(".slider") || slider();
  refill(sections.gallery, tabs, h("div.controls", chosen), bar,
    h(square ? "div.wall.square" : "div.wall", { id: "wall", role: "tabpanel", "aria-labelledby": `tab-${state.tab}`,
      style: { "--columns": targets.length } }, wall));
  setStep(state.step);
}
const pick = (list) => list.find((t) => t.seed === state.seed && t.strip) || list.find((t) => t.strip) || list[0];
function pairWall(square) {
  const rows = [...sources, ...controls].filter((s) => targets.some((t) => cellOf(s, t, state.freeze).length));
  const place = (s, t) => {
    const trial = pick(cellOf(s, t, state.freeze));
    if (trial) return card(trial, pairName(trial));
    return !square ? null : s === t ? h("div.same") : h("div.card.empty", `${short(s)} \u2192 ${short(t)}: missing`);
  };
  return [rows.map((s) => targets.map((t) => place(s, t))),
    [choose("Strategy", "freeze", strategies), choose("Seed", "seed", seeds), factors()]];
}
function strategyWall() {
  const has = (s, t) => transfers.some((x) => x.source === s && x.target === t);
  const pairs = sources.flatMap((s) => targets.filter((t) => has(s, t)).map((t) => `${s}|${t}`));
  if (!pairs.includes(state.pair)) state.pair = pairs[0];
  const [s, t] = (state.pair || "|").split("|");
  const found = [...strategies.map((f) => [f, pick(cellOf(s, t, f))]), ...controls.map((c) => [c, pick(cellOf(c, t, "none"))])];
  return [found.map(([name, trial]) => trial && card(trial, name)),
    [choose("Pair", "pair", pairs, (p) => p.split("|").map(short).join(" \u2192 ")), choose("Seed", "seed", seeds), factors()]];
}
const trialWall = () => [trials.map((t) => card(t, `${pairName(t)}, ${t.freeze}, seed ${t.seed}`)), []];
function tab(id, at, names) {
  const open = (to) => { state.tab = to; draw("gallery"); document.getElementById(`tab-${to}`).focus(); };
  const onkeydown = (e) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
    if (by) { e.preventDefault(); open(names[(at + by + names.length) % names.length]); }
  };
  return h("button.tab", { type: "button", role: "tab", id: `tab-${id}`, "aria-controls": "wall", onkeydown,
    "aria-selected": String(id === state.tab), tabindex: id === state.tab ? 0 : -1, onclick: () => open(id) }, TABS[id]);
}

// ---- strategies and predictors -----------------------------------------------------------------

function intervalOf(freeze) {  // by the bootstrap of study/statistics.py
  const control = state.show === "value" ? "" : state.control;
  return data.intervals[[state.metric, state.stat, state.show, control, state.model, state.variant, freeze].join("|")] || [null, null];
}
function strategyTable() {
  const cells = sources.flatMap((s) => targets.map((t) => (
    { name: `${short(s)} \u2192 ${short(t)}`, by: strategies.map((f) => measure(cellOf(s, t, f))) })));
  const better = sign(direction());
  const rankIn = (c, i) => 1 + c.by.filter((m) => m && better * m.mean < better * c.by[i].mean).length;
  const rows = strategies.map((f, i) => {
    const own = cells.filter((c) => c.by[i]), values = own.map((c) => c.by[i].mean);
    const m = interval(values), [low, high] = intervalOf(f);
    return { f, own: own.map((c) => [c.name, c.by[i].mean]), rank: own.length && mean(own.map((c) => rankIn(c, i))), m: m && { ...m, low, high } };
  }).filter((r) => r.m).sort((a, b) => better * (a.m.mean - b.m.mean));
  const all = rows.flatMap((r) => r.m.values).concat(state.show === "value" ? [] : [0]);
  const low = Math.min(...all), high = Math.max(...all), log = low > 0 && high / low > 8, text = fixed(all);
  const part = partOf(low, high, log), at = (x) => `${(2 + 96 * Math.min(1, Math.max(0, part(Math.max(x, low))))).toFixed(2)}%`;
  const heads = ["Strategy", "Pairs", "Mean rank", "Mean", "95 % interval", `${text(low)} to ${text(high)}${log ? ", log scale" : ""}`, "Frozen of G", "of D"];
  const row = (r) => h("tr", h("th", { scope: "row" }, r.f), h("td.num", String(r.m.n)), h("td.num", r.rank.toFixed(1)),
    h("td.num", text(r.m.mean)), h("td.num", known(r.m.low) ? `${text(r.m.low)} to ${text(r.m.high)}` : "\u2013"), h("td", dots(r, at, text)),
    ["G", "D"].map((net) => h("td.num", percent((shareOf(r.f) || { share: {} }).share[net]))));
  refill(sections.strategies, h("div.controls", common(), factors()), !rows.length
    ? h("p.note", "No complete trial has this value.")
    : h("div.scroll", h("table.rows", h("thead", h("tr", heads.map((x, i) => h(i && i !== 5 ? "th.num" : "th", { scope: "col" }, x)))), h("tbody", rows.map(row)))),
  h("p.note", `${what()}. A small dot is a pair (mean over seeds), the ring their mean, the bar and the interval 95 % by the `
    + "stratified bootstrap: seeds drawn anew within each pair, from three seeds on. Mean rank: 1 is the best strategy of a pair. "
    + "The interval is over training noise on these pairs; it says nothing of other domains."));
}
function dots(r, at, text) {
  const bar = known(r.m.low) && { left: at(r.m.low), width: `calc(${at(r.m.high)} - ${at(r.m.low)})` };
  return h("div.strip", { "aria-hidden": "true" }, state.show === "value" ? null : h("s", { style: { left: at(0) } }),
    r.own.map(([name, x]) => h("i", { style: { left: at(x) }, title: `${name}: ${text(x)}` })),
    known(r.m.low) ? h("b", { style: bar }) : null, h("u", { style: { left: at(r.m.mean) } }));
}

const MOST_CHARTS = 6;
const signed = (x) => known(x) ? minus((x > 0 ? "+" : "") + x.toFixed(2)) : "\u2013";
function predictorCharts() {
  const cells = sources.flatMap((s) => targets.map((t) => ({ s, t, m: measure(cellOf(s, t, state.freeze)) }))).filter((c) => c.m);
  const score = (list, p) => spearman(list.map((q) => sign(p.better) * q.x), list.map((q) => sign(direction()) * q.y));
  const all = data.predictors.filter((p) => p.model === state.model).map((p) => {
    const points = cells.map(({ s, t, m }) => ({ s, t, x: p.values[`${s}|${t}`], y: m.mean })).filter((q) => known(q.x));
    const within = targets.map((t) => score(points.filter((q) => q.t === t), p)).filter(known);
    return { p, points, rho: score(points, p), within };
  }).filter((c) => c.points.length > 1).sort((a, b) => (b.rho ?? -2) - (a.rho ?? -2));
  const charts = state.charts ? all : all.slice(0, MOST_CHARTS);
  const chart = (c, width) => h("div.chart", h("h3", c.p.name),
    h("p.note", `Spearman over all ${plural(c.points.length, "pair")}: ${signed(c.rho)}`,
      "; within a target: ", c.within.length ? `${signed(mean(c.within))} (mean of ${c.within.length})` : "none has three sources"), scatter(c, width));
  const none = "No predictor was measured for two pairs of this study; python -m stylegan_tl.study distances measures them.";
  const more = all.length > charts.length ? h("p", h("button.quiet", { type: "button", "data-focus": "charts",
    onclick: () => { state.charts = true; draw("predictors"); } }, `Show all ${all.length}`)) : null;
  refill(sections.predictors, h("div.controls", common(), choose("Strategy", "freeze", strategies), factors()), choiceTables(),
    charts.length ? [targetKey(), panels(charts.length, 260, (width) => charts.map((c) => chart(c, width))), more] : h("p.note", none),
    h("p.note", `Each mark is a pair; its shape and colour tell the target. Down the side: ${what()}. Over all pairs, `
      + "targets are mixed, of which some are harder for every source; within a target only its sources are compared, as a choice among them is. "
      + "Both are signed so that +1 means the predictor orders as the outcome does, best first; pairs are few, so read them as a hint."));
}
function choiceTables() {  // of `study predict`: always the page's first metric at the end of training
  const of = (row) => row.strategy.split(", "), own = data.choices.filter((row) => of(row)[1] === state.model);
  const pooled = own.filter((row) => /^all \d+ strategies$/.test(of(row)[0]));
  const kinds = (rows) => [...Map.groupBy(rows, (row) => row.strategy)];
  const shown = [...kinds(pooled), ...kinds(own.filter((row) => of(row)[0] === state.freeze))];
  const tables = shown.map(([name, rows]) => choiceTable(rows, name)), two = shown.every(([, rows]) => rows.every((r) => r.sources[1] < 3));
  return tables.length ? [tables, two ? h("p.note", data.two_sources) : null, h("p.note", `${data.metric} at the end. Means over targets, with the 95 % interval `
    + "over targets. Regret: how much worse the chosen source is than the best one, and one chosen by chance. "
    + `Learned: the direction of the predictor is taken from the other targets alone. ${data.names}`)] : null;
}
function choiceTable(list, under) {
  const cut = state.choices ? list : list.slice(0, 8), text = fixed(list.flatMap((r) => [r.regret, r.chance]));
  const range = ([low, high], form) => known(low) && known(high) ? ` [${form(low)}, ${form(high)}]` : "";
  const heads = ["Predictor", "Spearman within a target", "Kendall", "Top-1 regret", "by chance", "Spearman, learned", "Pairs"];
  const row = (r) => h("tr", h("th", { scope: "row" }, r.predictor),
    h("td.num", signed(r.spearman) + range(r.spearman_targets, signed)), h("td.num", signed(r.kendall)),
    h("td.num", text(r.regret) + range(r.regret_targets, text)), h("td.num", text(r.chance)),
    h("td.num", signed(r.spearman_learned)), h("td.num", String(r.pairs)));
  const more = list.length > cut.length ? h("p", h("button.quiet", { type: "button", "data-focus": "choices",
    onclick: () => { state.choices = true; draw("predictors"); } }, `Show all ${list.length} predictors`)) : null;
  return h("div.choices", h("h3", `Which of them chooses the best source for a target? ${under}`),
    h("div.scroll", h("table.rows", h("thead", h("tr", heads.map((x, i) => h(i ? "th.num" : "th", { scope: "col" }, x)))), h("tbody", cut.map(row)))), more);
}
