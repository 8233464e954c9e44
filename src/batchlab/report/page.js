(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const views = new Map();
  const drawn = new Map();
  let picked = data.picked;

  const all = (selector) => Array.from(document.querySelectorAll(selector));
  const language = () => root.lang;

  // ---- language

  function wanted() {
    const asked = new URLSearchParams(location.search).get("lang") || location.hash.slice(1);
    if (asked === "ja" || asked === "en") return asked;
    return (navigator.language || "en").toLowerCase().startsWith("ja") ? "ja" : "en";
  }

  function speak(to) {
    if (to !== "en" && to !== "ja") return;
    root.lang = to;
    const title = document.querySelector(`.top strong [lang="${to}"]`);
    if (title) document.title = title.textContent;
    for (const button of all("button.language")) {
      button.setAttribute("aria-pressed", String(button.dataset.to === to));
    }
    drawAll();
    for (const details of all("details.numbers[open]")) fillTable(details);
  }

  // ---- charts

  function variant(id) {
    const chosen = all(`select.choice[data-chart="${id}"][lang="${language()}"]`);
    return chosen.map((select) => select.value).join("-");
  }

  // On a phone the legends stand below one another.
  const phone = window.matchMedia("(max-width: 640px)");

  function config() {
    if (!phone.matches) return data.config;
    const layout = { bottom: { direction: "vertical", anchor: "start", margin: 6 } };
    return { ...data.config, legend: { ...data.config.legend, columns: 1, layout } };
  }

  // One after the other, so that the page answers meanwhile; a later call takes over.
  let round = 0;
  let whole = Promise.resolve();

  async function drawInTurn(turn) {
    for (const id of Object.keys(data.charts)) {
      await new Promise((done) => setTimeout(done));
      if (turn !== round) return;
      await draw(id);
    }
  }

  function drawAll() {
    round += 1;
    whole = drawInTurn(round);
  }

  async function ready() {
    let seen;
    do {
      seen = whole;
      await seen;
      await Promise.all(drawn.values());
    } while (seen !== whole);
  }

  function draw(id) {
    const place = document.getElementById(`chart-${id}`);
    const chart = data.charts[id];
    if (!place || typeof window.vegaEmbed !== "function") return Promise.resolve();
    const spec = structuredClone(chart.specs[variant(id)][language()]);
    const start = (spec.params || []).find((one) => one.name === "picked");
    if (start) start.value = picked;
    spec.datasets = { ...(spec.datasets || {}), [id]: structuredClone(chart.rows) };
    if (views.has(id)) views.get(id).finalize();
    const job = window
      .vegaEmbed(place, spec, {
        mode: "vega-lite", renderer: "svg", actions: false, config: config(),
        tooltip: { theme: "light" },
      })
      .then((result) => {
        if (drawn.get(id) !== job) {
          result.finalize();
          return;
        }
        views.set(id, result);
        result.view.addEventListener("click", (_event, item) => pickFrom(item && item.datum));
        show(result.view);
      });
    drawn.set(id, job);
    return job;
  }

  function show(view) {
    try {
      view.signal("picked", picked).runAsync();
    } catch (_absent) {
      // a chart without the parameter has nothing to highlight
    }
  }

  function pickFrom(datum) {
    if (!datum) return;
    if (data.ids && data.ids.includes(datum.id)) pick(datum.id);
    else if (data.sizes && typeof datum.batch === "number") {
      const found = data.ids.filter((id) => data.sizes[id] === datum.batch);
      if (found.length) pick(found[0]);
    }
  }

  function pick(id) {
    picked = id;
    for (const radio of all('input[name="candidate"]')) radio.checked = radio.value === id;
    for (const result of views.values()) show(result.view);
  }

  // ---- tables and CSV

  const written = (value) => (value === null || value === undefined ? "" : String(value));

  function fillTable(details) {
    const chart = data.charts[details.dataset.chart];
    const table = document.createElement("table");
    const head = table.createTHead().insertRow();
    for (const [, title] of chart.columns) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = title[language()];
      head.append(cell);
    }
    const body = table.createTBody();
    for (const row of chart.rows) {
      const line = body.insertRow();
      for (const [key] of chart.columns) line.insertCell().textContent = written(row[key]);
    }
    details.querySelector(".scroll").replaceChildren(table);
  }

  function csv(id) {
    const chart = data.charts[id];
    const quoted = (value) => {
      const text = written(value);
      return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    const lines = [chart.columns.map(([key]) => key)];
    for (const row of chart.rows) lines.push(chart.columns.map(([key]) => row[key]));
    return lines.map((line) => line.map(quoted).join(",")).join("\r\n") + "\r\n";
  }

  function download(id) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(["\ufeff", csv(id)], { type: "text/csv;charset=utf-8" }));
    link.download = `${data.file || "batchlab"}-${id}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  // ---- the money line; the same rules as worth.py and formats.py

  const stepOf = (value) => (value ? 10 ** (Math.floor(Math.log10(Math.abs(value) / 2)) - 1) : 1);
  const rounded = (value, step) => Math.floor(value / step + 0.5) * step;
  const minus = (text) => text.replace("-", "−");
  const grouped = (value, places = 0) =>
    minus(value.toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: places }));

  function significant(value) {
    if (value === 0) return "0";
    const places = Math.max(0, 1 - Math.floor(Math.log10(Math.abs(value))));
    if (places > 7) {
      return minus(value.toExponential(1)).replace("e-", "e−");
    }
    const text = grouped(value, places);
    return text.includes(".") ? text.replace(/0+$/, "").replace(/\.$/, "") : text;
  }

  function amount(value, whole, step) {
    if (step >= 1 || (step >= 0.1 && whole)) return grouped(rounded(value, Math.max(step, 1)));
    if (step >= 0.001) return minus(value.toFixed(2));
    return significant(value);
  }

  function yenJa(value, step) {
    if (Math.abs(value) < 10000) return amount(value, true, step);
    const whole = Math.round(rounded(Math.abs(value), Math.max(step, 1)));
    const oku = Math.floor(whole / 1e8);
    const man = Math.floor((whole % 1e8) / 1e4);
    const ones = whole % 1e4;
    const last = !ones ? "" : ones % 1000 === 0 ? `${ones / 1000}千` : grouped(ones);
    return (value < 0 ? "−" : "") + (oku ? `${oku}億` : "") + (man ? `${grouped(man)}万` : "") + last;
  }

  function outcome(saved, low, high, settled, small) {
    const open = Number.isNaN(low) || Number.isNaN(high);
    if (high <= 0 || (saved <= 0 && open)) return "nothing";
    if (Number.isNaN(low) || Number.isNaN(high)) return saved >= small ? "plain" : "plain_small";
    if (settled) return saved >= small ? "saved" : "small";
    if (high < small) return "most_small";
    return low < 0 ? "between" : "most";
  }

  function fill(worth, key, saved, low, high, to) {
    const ranged = !worth.sentences[key].en.includes("{v}");
    const first = (ranged ? high : saved) || 1;
    const step = stepOf(first);
    const one = (value) =>
      Number.isNaN(value) ? ""
      : worth.code === "JPY" && to === "ja" ? yenJa(value, step)
      : amount(value, worth.whole, step);
    const parts = { v: one(first), a: one(low), b: one(high), c: one(-low), u: worth.unit[to] };
    return worth.sentences[key][to].replace(/\{(\w)\}/g, (_all, name) => parts[name]);
  }

  function worthLine(worth, trainings, hours, perHour, to) {
    const year = (ratio) => (ratio > 0 ? trainings * hours * (1 - 1 / ratio) * perHour : NaN);
    const end = (ratio) => (ratio === null ? NaN : year(ratio));
    const saved = year(worth.ratio);
    const low = end(worth.low);
    const high = end(worth.high);
    const small = worth.small_hours * perHour;
    const main = fill(worth, outcome(saved, low, high, worth.settled, small), saved, low, high, to);
    const line = worth.condition[to] + main + (to === "ja" ? "。" : ".");
    if (!(worth.demo_seconds > 0)) return line;
    const demo = (trainings * worth.demo_seconds) / 3600 * perHour;
    return line + fill(worth, demo < small ? "demo_small" : "demo", demo, demo, demo, to);
  }

  function field(id, otherwise) {
    const input = document.getElementById(id);
    const value = input ? Number.parseFloat(input.value) : otherwise;
    return Number.isFinite(value) && value >= 0 ? value : 0;
  }

  function mark(place, words) {
    place.replaceChildren();
    words.split("**").forEach((part, order) => {
      const node = order % 2 ? document.createElement("strong") : document.createTextNode("");
      node.textContent = part;
      place.append(node);
    });
  }

  function recompute() {
    const worth = data.worth;
    if (!worth) return;
    for (const place of all("#worth-line > [lang]")) {
      const words = worthLine(
        worth, field("trainings", worth.trainings),
        field("hours", worth.hours / worth.clock_hours) * worth.clock_hours,
        field("price", worth.per_hour), place.lang,
      );
      mark(place, words);
    }
  }

  // ---- copy

  async function copy() {
    const words = document.querySelector(`#meeting blockquote [lang="${language()}"]`).textContent;
    try {
      await navigator.clipboard.writeText(words);
    } catch (_refused) {
      const area = document.createElement("textarea");
      area.value = words;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    document.getElementById("copied").textContent = data.copied[language()];
  }

  // ---- wiring

  for (const button of all("button.language")) {
    button.addEventListener("click", () => speak(button.dataset.to));
  }
  for (const radio of all('input[name="candidate"]')) {
    radio.addEventListener("change", () => pick(radio.value));
  }
  for (const select of all("select.choice")) {
    select.addEventListener("change", () => {
      for (const twin of all(`select.choice[data-chart="${select.dataset.chart}"][data-choice="${select.dataset.choice}"]`)) {
        twin.value = select.value;
      }
      draw(select.dataset.chart);
    });
  }
  for (const details of all("details.numbers")) {
    details.addEventListener("toggle", () => details.open && fillTable(details));
  }
  for (const button of all("button.csv")) {
    button.addEventListener("click", () => download(button.dataset.chart));
  }
  for (const id of ["trainings", "hours", "price"]) {
    const input = document.getElementById(id);
    if (input) input.addEventListener("input", recompute);
  }
  const copier = document.getElementById("copy");
  if (copier) copier.addEventListener("click", copy);
  window.addEventListener("hashchange", () => {
    if (["#ja", "#en"].includes(location.hash)) speak(location.hash.slice(1));
  });
  phone.addEventListener("change", drawAll);
  recompute();
  speak(wanted());
  window.batchlab = {
    pick, csv, worthLine: (trainings, hours, perHour, to) => worthLine(data.worth, trainings, hours, perHour, to),
    picked: () => picked,
    views,
    ready,
  };
})();
