
// ---- elements: everything that the API says becomes text, never markup ------------------------------------------------

const $ = id => document.getElementById(id);

function element(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) if (value != null) made.setAttribute(name, value);
  made.append(...children.flat(Infinity).filter(child => child != null && child !== false));
  return made;
}
const h = (tag, attributes = {}, ...children) => element(document.createElement(tag), attributes, children);
const s = (tag, attributes = {}, ...children) => element(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
const card = (title, ...children) => h("section", {}, h("h2", {}, title), ...children);
const soft = (...children) => h("p", { class: "soft" }, ...children);
const pill = (text, kind) => h("span", { class: `pill ${kind}` }, text);
const command = text => h("code", {}, text);

/** Replaces what is in a node, unless it is the same: then whoever reads or selects it is left alone. */
function fill(node, ...children) {
  const next = element(node.cloneNode(false), {}, children);
  if (!next.isEqualNode(node)) node.replaceChildren(...next.childNodes);
}

function table(labels, rows) {
  const head = h("tr", {}, labels.map(label => h("th", { scope: "col" }, label)));
  const body = rows.map(cells => h("tr", {}, cells.map((cell, at) => h("td", { "data-label": labels[at] }, h("span", {}, cell)))));
  return h("table", { class: "cards" }, h("tbody", {}, head, body));
}

function facts(pairs) {
  return h("dl", {}, pairs.filter(pair => pair[1] != null && pair[1] !== "" && pair[1] !== false).map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

/** A bar that is full at `most`, with a mark where the plan says it would end. */
function bar(real, planned, most) {
  const full = h("div", { class: planned && real > planned * 1.25 ? "fill over" : "fill" }), drawn = h("div", { class: "bar" }, full);
  full.style.width = `${100 * Math.min(1, (real || 0) / (most || 1))}%`;
  if (planned) {
    const mark = h("div", { class: "mark" });
    mark.style.left = `${100 * planned / most}%`;
    drawn.append(mark);
  }
  return drawn;
}

/** A bar under what it says: what was, and what the plan predicted. */
function measured(label, real, planned, format) {
  if (real == null && planned == null) return [];
  const percent = real && planned ? Math.round(100 * (real / planned - 1)) : 0, apart = percent ? ` (${percent > 0 ? "+" : "−"}${Math.abs(percent)} %)` : "";
  const words = real == null ? `planned ${format(planned)}` : planned == null ? format(real) : `${format(real)}, planned ${format(planned)}${apart}`;
  return [h("div", { class: "head" }, h("span", { class: "soft" }, label), h("span", { class: "words" }, words)), bar(real, planned, 1.15 * Math.max(real || 0, planned || 0))];
}
