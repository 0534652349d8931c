// Tables that sort and filter, and two variants side by side. Without scripts the tables stand as
// they are.
"use strict";

// Numbers by their value; a cell without one stands last in either direction.
function numbersFirst(sign) {
  const blank = (value) => value === null || value === "";
  return (a, b) => blank(a) - blank(b) || sign * (a - b);
}

function makeTable(table) {
  const heads = [...table.querySelectorAll("thead th")];
  const hidden = heads.flatMap((head, i) => (head.dataset.hidden ? [i] : []));
  const numbers = heads.flatMap((head, i) => (head.classList.contains("number") ? [i] : []));
  const many = table.tBodies[0].rows.length > 50;
  // DataTables takes `buttons` only where there is something to choose
  const columns = hidden.length
    ? { buttons: [{ extend: "colvis", text: "Columns" }] }
    : null;
  new DataTable(table, {
    order: [],
    columnControl: ["searchDropdown"],
    language: { search: "Filter", info: "_TOTAL_ rows", infoFiltered: "of _MAX_", infoEmpty: "no row" },
    autoWidth: false,
    paging: many,
    pageLength: 50,
    columnDefs: [
      { targets: hidden, visible: false },
      { targets: numbers, type: "measured" },
      { targets: "_all", orderSequence: ["asc", "desc", ""] },
    ],
    layout: { topStart: columns, topEnd: "search", bottomStart: "info", bottomEnd: many ? "paging" : null },
  });
}

function option(select, value, text) {
  const entry = document.createElement("option");
  entry.value = value;
  entry.textContent = text;
  select.append(entry);
}

function fillRows(table, names, rows) {
  table.hidden = !rows.length;
  const line = (cells, kind) => {
    const row = document.createElement("tr");
    for (const text of cells) {
      const cell = document.createElement(kind);
      cell.textContent = text;
      row.append(cell);
    }
    return row;
  };
  table.tHead.replaceChildren(line(["", ...names], "th"));
  table.tBodies[0].replaceChildren(...rows.map((row) => line(row, "td")));
}

function startComparing(root, suites) {
  const pick = (what) => root.querySelector(`select[${what}]`);
  const sides = ["left", "right"];
  const choice = Object.fromEntries(sides.map((side) => [side, pick(`data-side=${side}`)]));
  const seed = pick("data-what=seed");
  const view = pick("data-what=view");
  const entries = [];
  for (const [suite, variants] of Object.entries(suites)) {
    for (const [name, entry] of Object.entries(variants)) entries.push({ suite, name, ...entry });
  }
  for (const side of sides) {
    for (const suite of Object.keys(suites)) {
      const group = document.createElement("optgroup");
      group.label = suite;
      entries.forEach((entry, i) => entry.suite === suite && option(group, i, entry.name));
      choice[side].append(group);
    }
  }
  choice.right.value = String(Math.min(1, entries.length - 1));
  const seeds = new Set(entries.flatMap((entry) => Object.keys(entry.seeds)));
  for (const each of seeds) option(seed, each, each);

  function update() {
    const [left, right] = sides.map((side) => entries[choice[side].value]);
    const names = [left.name, right.name];
    for (const [side, entry] of [["left", left], ["right", right]]) {
      const figure = root.querySelector(`figure[data-side=${side}]`);
      const files = entry.seeds[seed.value];
      const file = files && files[view.value];
      const image = figure.querySelector("img");
      image.hidden = !file;
      if (file) image.src = figure.querySelector("a").href = file;
      figure.querySelector("figcaption").textContent = file
        ? `${entry.name}, training seed ${seed.value}`
        : `${entry.name}: no such images of training seed ${seed.value} were kept`;
    }
    const scores = [left, right].map((entry) => (entry.seeds[seed.value] || {}).scores || {});
    const metrics = Object.keys({ ...scores[0], ...scores[1] });
    fillRows(root.querySelector("[data-what=scores]"), names,
      metrics.map((metric) => [metric, scores[0][metric] ?? "", scores[1][metric] ?? ""]));
    const keys = Object.keys({ ...left.settings, ...right.settings });
    const differ = keys.filter((key) => left.settings[key] !== right.settings[key]);
    fillRows(root.querySelector("[data-what=settings]"), names,
      differ.map((key) => [key, left.settings[key] ?? "", right.settings[key] ?? ""]));
    if (typeof lightbox !== "undefined") lightbox.reload();
  }
  root.addEventListener("change", update);
  update();
}

document.addEventListener("DOMContentLoaded", () => {
  const order = DataTable.ext.type.order;
  order["measured-asc"] = numbersFirst(1);
  order["measured-desc"] = numbersFirst(-1);
  document.querySelectorAll("table.results").forEach(makeTable);
  const compare = document.getElementById("compare");
  if (compare) startComparing(compare, window.COMPARED);
});
