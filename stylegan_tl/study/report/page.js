// ---- lineage and the table of trials -----------------------------------------------------------

function lineage() {
  const kids = (parent) => Object.entries(data.sources).filter(([, s]) => (s.parent || null) === parent);
  const same = Map.groupBy(Object.values(data.sources), (s) => `${s.name}|${s.model}|${s.parent}`);
  const several = [...same.values()].filter((g) => g.length > 1).map((g) => h("p.warn",
    `${g.length} different source models of ${g[0].name} (${g[0].model}) were used: which of them a trial started from is in its cell.`));
  const reached = (list) => "\u2192 " + [...Map.groupBy(list, (t) => t.target)].map(([t, own]) => `${short(t)} ${plural(own.length, "trial")}`).join(", ");
  const branch = ([id, s]) => {
    const own = trials.filter((t) => t.parent === id);
    const said = [s.model, kimgText(s.kimg), s.images && `${s.images} images`].filter(Boolean).join(" \u00b7 ");
    return h("li", h("b", s.name), ` ${said} \u00b7 weights `, h("code", (s.sha256 || "unknown").slice(0, 12)),
      s.data ? [" \u00b7 data ", h("code", s.data.slice(0, 12))] : null,
      h("ul", own.length ? h("li", reached(own)) : null, kids(id).map(branch)));
  };
  const fresh = trials.filter((t) => !t.parent);
  refill(sections.lineage, several, h("ul.tree", kids(null).map(branch),
    fresh.length ? h("li", h("b", "random weights"), h("ul", h("li", reached(fresh)))) : null));
}

const COLUMNS = { source: "Source", target: "Target", freeze: "Strategy", model: "Model", seed: "Seed", state: "State",
  value: "Value", kimg: "kimg", seconds: "Time", commit: "Commit", path: "Folder" };
const NUMBERS = ["seed", "value", "kimg", "seconds"];
function trialTable() {
  const [by, way] = state.sort, words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
  const get = (t) => by === "value" ? value(t) ?? Infinity : by === "commit" ? (t.commit || {}).sha || "" : t[by];
  const about = (t) => [t.source, t.target, t.freeze, t.model, t.variant, t.state, t.path].join(" ").toLowerCase();
  const found = trials.filter((t) => words.every((w) => about(t).includes(w)))
    .sort((a, b) => way * (get(a) < get(b) ? -1 : get(a) > get(b) ? 1 : a.id - b.id));
  const some = state.all ? found : found.slice(0, 20), text = fixed(found.map((t) => value(t)), 1);
  const input = sections.trials.querySelector("input") || h("input", { type: "search", placeholder: "bedroom freeze_d failed",
    "data-focus": "filter", oninput: (e) => { state.filter = e.target.value; draw("trials"); } });
  const head = (k) => h("th", { scope: "col", class: NUMBERS.includes(k) ? "num" : null,
    "aria-sort": by === k ? (way > 0 ? "ascending" : "descending") : null },
  h("button", { type: "button", "data-focus": `sort ${k}`, onclick: () => { state.sort = [k, by === k ? -way : 1]; draw("trials"); } },
    COLUMNS[k] + (by === k ? (way > 0 ? " \u2191" : " \u2193") : "")));
  const row = (t) => h("tr", h("td", h("button.link", { type: "button", onclick: () => openCell(t.cell) }, short(t.source))),
    h("td", short(t.target)), h("td", t.freeze), h("td", [t.model, t.variant].filter(Boolean).join(", ")),
    h("td.num", String(t.seed)), h("td", stateOf(t)), h("td.num", text(value(t))), h("td.num", number(t.kimg)),
    h("td.num", clock(t.seconds)), h("td", commitOf(t)), h("td", h("a", { href: t.folder, title: t.path }, "open")));
  refill(sections.trials,
    h("div.controls", h("label", "Filter", input), h("button.quiet", { type: "button", onclick: save }, "Save all values as CSV")),
    h("div.scroll", h("table.rows", h("thead", h("tr", Object.keys(COLUMNS).map(head))), h("tbody", some.map(row)))),
    found.length > some.length ? h("p", h("button.quiet", { type: "button",
      onclick: () => { state.all = true; draw("trials"); } }, `Show all ${found.length}`)) : null);
}
const stateOf = (t) => h(`span.state.${t.state}`, t.state);
const commitOf = (t) => t.commit ? h("code", t.commit.sha.slice(0, 7) + (t.commit.dirty ? "+" : "")) : "\u2013";
function save() {
  const quote = (x) => /[",\n]/.test(String(x)) ? `"${String(x).replaceAll('"', '""')}"` : x;
  const columns = ["source", "target", "freeze", "model", "variant", "seed", "state"];
  const rows = [[...columns, "metric", "kimg", "value", "stderr", "folder"]];
  for (const t of trials) for (const [name, at] of Object.entries(t.metrics)) for (const [k, v, e] of at)
    rows.push([...columns.map((c) => t[c]), name, k, v ?? "", e ?? "", t.path]);
  const url = URL.createObjectURL(new Blob([rows.map((r) => r.map(quote).join(",")).join("\n") + "\n"], { type: "text/csv" }));
  h("a", { href: url, download: `${data.title}.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

// ---- one cell ----------------------------------------------------------------------------------

function openCell(cell) {
  const dialog = document.getElementById("cell"), list = byCell.get(cell), first = list[0];
  const close = h("button.quiet", { type: "button", autofocus: true, onclick: () => dialog.close() }, "Close");
  const about = [first.freeze, first.model, first.variant, frozen(first.freeze)].filter(Boolean).join(" \u00b7 ");
  dialog.replaceChildren(h("div",
    h("header", h("div", h("h2", { id: "cell-title" }, pairName(first)), h("p.note", about)), close),
    cellNumber(list),
    steps.length && list.some((t) => t.strip)
      ? h("section", h("h3", "The same latents"), slider(), h("div.wall", list.map((t) => card(t, `seed ${t.seed}`)))) : null,
    cellCurves(list), cellNearest(list.filter((t) => t.nearest)),
    cellDifferences(list, Object.entries(data.differences[cell] || {})),
    h("section", h("h3", plural(list.length, "trial")), list.map(trialCard))));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}
function cellNumber(list) {
  const m = interval(list.filter((t) => t.state === "complete").map((t) => value(t)).filter(known));
  if (!m) return h("p.big", "No complete trial");
  const spread = m.n < 2 ? "" : `; standard deviation ${three(m.sd)}, 95 % interval ${three(m.low)} to ${three(m.high)} (Student, ${m.n - 1} df)`;
  return [h("p.big", three(m.mean)),
    h("p.note", `${state.metric}, ${STATS[state.stat]}, mean of ${plural(m.n, "seed")}${spread}`)];
}
function cellCurves(list) {
  const rows = (t) => (t.metrics[state.metric] || []).filter((r) => known(r[1])).map(([k, v]) => [k, v, v, v, 1]);
  const lines = list.map((t, index) => ({ name: `seed ${t.seed}`, label: `seed ${t.seed}`, index, points: rows(t) })).filter((l) => l.points.length);
  if (!lines.length) return null;
  return h("section.chart", h("h3", state.metric), lineChart(lines, Math.min(620, window.innerWidth - 40), 240, `${state.metric} of each seed`));
}
function cellNearest(list) {
  if (!list.length) return null;
  const alt = "above generated images, below the training images nearest to them";
  const far = (r) => r ? `; ${r[0].toFixed(2)} to ${r[1].toFixed(2)} times as far as training images are from each other` : "";
  return h("section", h("h3", "Nearest training images"),
    h("p.note", "Above: the generated images that are nearest to a training image. Below: that training image."),
    list.map((t) => h("figure.card", later(t.nearest.file, { alt, class: "nearest" }), h("figcaption", `seed ${t.seed}${far(t.nearest.ratio)}`))));
}
function cellDifferences(list, differing) {
  const say = (x) => x === null || x === undefined ? "absent" : typeof x === "object" ? JSON.stringify(x) : String(x);
  const equal = list.length > 1 ? "Equal in all trials of this cell but for the seed." : "One trial.";
  if (!differing.length) return h("section", h("h3", "Configuration"), h("p.note", equal));
  const of = (values, t) => (values.find(([id]) => id === t.id) || [])[1];
  const row = ([key, values]) => h("tr", h("th", { scope: "row" }, h("code", key)), list.map((t) => h("td", say(of(values, t)))));
  return h("section", h("h3", "The trials differ in more than their seed"), h("div.scroll", h("table.rows",
    h("thead", h("tr", h("th", "Key"), list.map((t) => h("th", `seed ${t.seed}`)))), h("tbody", differing.map(row)))));
}
function trialCard(t) {
  const parents = [];
  for (let id = t.parent; id; id = data.sources[id].parent) {
    const s = data.sources[id];
    parents.unshift(`${s.name}, ${kimgText(s.kimg)}, ${(s.sha256 || "").slice(0, 12)}`);
  }
  const facts = [t.hardware, t.torch && `torch ${t.torch}`, t.pace && `${number(t.pace)} s/kimg`, t.started].filter(Boolean);
  const link = (file, name) => [h("a", { href: t.folder + file }, name), " \u00b7 "];
  return h("div.trial", { "data-listed": t.id },
    h("p", h("b", `Seed ${t.seed}`), stateOf(t), `${kimgText(t.kimg)} \u00b7 ${clock(t.seconds)} \u00b7 commit `, commitOf(t),
      t.commit && t.commit.dirty ? " with uncommitted changes" : ""),
    t.reason ? h("p.warn", t.reason) : null,
    t.flags.length ? h("p.warn", t.flags.map((f) => `${f.flag} at ${kimgText(f.kimg)}`).join("; ")) : null,
    h("p.note", Object.keys(t.metrics).map((name) => `${name} ${three(value(t, name))}`).join(" \u00b7 ")),
    t.command ? h("pre", t.command) : null,
    h("p.note", link("", "folder"), link("trial.json", "trial.json"), link("metrics.jsonl", "metrics.jsonl"), facts.join(" \u00b7 ")),
    h("p.note", parents.length ? `from ${parents.join(" \u2192 ")}` : "from random weights"));
}

// ---- the page ----------------------------------------------------------------------------------

function header() {
  const done = trials.filter((t) => t.state === "complete").length, asked = Math.max(data.asked, trials.length);
  const seconds = trials.reduce((a, t) => a + (t.seconds || 0), 0);
  const facts = { sources: sources.length, targets: targets.length, strategies: strategies.length, models: models.length,
    seeds: seeds.length, "trials complete": done === asked ? done : `${done} of ${asked}`,
    "kimg each": unique(trials.map((t) => number(t.budget ?? t.kimg))).join(", "), "of training": clock(seconds) };
  document.getElementById("page").append(
    h("p.eyebrow", data.question ? `Study ${data.title}` : "Study"), h("h1", data.question || data.title),
    ...data.verdict.map((p) => h("p.verdict", p)),
    h("dl.facts", Object.entries(facts).map(([k, v]) => h("div", h("dt", k), h("dd", String(v))))));
  if (data.problems.length) document.getElementById("page").append(
    h("div.warn", h("p", "Read with care:"), h("ul", data.problems.slice(0, 20).map((p) => h("li", p)))));
}
function footer() {
  const commits = unique(trials.map((t) => t.commit && t.commit.sha.slice(0, 7) + (t.commit.dirty ? " with changes" : "")));
  const said = (m) => Object.entries(m.protocol).filter(([, v]) => v !== null)
    .map(([k, v]) => `${k === "resize" ? "for features" : k.replaceAll("_", " ")} ${String(v).slice(0, k.endsWith("digest") ? 12 : 60)}`).join("; ");
  const sizes = data.resolutions.length ? h("p", `Images are generated and trained on at ${data.resolutions.join(", ")} px; `
    + "for its features an extractor resizes them first, as each metric says.") : null;
  document.getElementById("page").append(h("footer.note",
    Object.entries(data.metrics).map(([name, m]) => h("p", h("b", name), ` (${m.better === "min" ? "lower" : "higher"} is better): ${said(m)}`)), sizes,
    h("p", `Made ${data.created.slice(0, 16).replace("T", " ")} UTC by stylegan_tl ${data.version}; trials at commit ${commits.filter(Boolean).join(", ") || "unknown"}.`)));
}
function theme() {
  const button = document.getElementById("theme"), order = ["auto", "light", "dark"], key = "stylegan_tl theme";
  let now = "auto";
  try { now = localStorage.getItem(key) || now; } catch { /* a page from disk may have no storage */ }
  const apply = () => {
    document.documentElement.dataset.theme = now;
    button.textContent = `\u25d0 ${now}`;
    button.setAttribute("aria-label", `Colours: ${now}. Change.`);
  };
  button.addEventListener("click", () => {
    now = order[(order.indexOf(now) + 1) % 3];
    try { localStorage.setItem(key, now); } catch { /* not kept */ }
    apply();
  });
  apply();
}

const drawings = { matrix: matrices, curves, gallery, strategies: strategyTable, predictors: predictorCharts,
  lineage, trials: trialTable };
function draw(only) {
  for (const [name, make] of Object.entries(drawings)) if (sections[name] && (!only || only === name)) make();
}
theme();
header();
section("matrix", "Matrix", "How well each source did on each target. The stronger the blue, the better.");
section("curves", "Curves", "How fast the target is reached.");
if (steps.length) section("gallery", "Pictures", "The same latents in every picture, from the source on. One slider moves all of them.");
if (strategies.length > 1) section("strategies", "Strategies", "Side by side, over all pairs.");
if (data.predictors.length) section("predictors", "Predictors", "What was measured before training, against what training gave.");
section("lineage", "Lineage", "Which weights the trials began from.");
section("trials", "Trials", "Every number, its seed, its commit and its folder.");
draw();
footer();
let resized = null, width = window.innerWidth;
window.addEventListener("resize", () => {
  if (window.innerWidth === width) return;
  width = window.innerWidth;
  clearTimeout(resized);
  resized = setTimeout(() => { draw("curves"); draw("predictors"); }, 150);
});
document.getElementById("cell").addEventListener("click", (e) => { if (e.target === e.currentTarget) e.currentTarget.close(); });
