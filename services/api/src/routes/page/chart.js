
// ---- curves over rounds -----------------------------------------------------------------------------------------------

/** About `count` round values from `low` to `high`. */
function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(one => one * power).find(one => one >= rough);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-6; at++) found.push(at * step);
  return found;
}

/** Lines over rounds. `lines`: [{ name, kind, points: [[round, value]] }], the first the main one; `constant`: [name, value] to compare with. */
function chart(title, lines, format, constant) {
  const points = lines.flatMap(line => line.points);
  if (!points.length) return soft("Nothing is scored yet.");
  const [width, height, left, right, top, bottom] = [560, 230, 54, 14, 10, 38];
  const xs = points.map(point => point[0]), ys = points.map(point => point[1]).concat(constant ? [constant[1]] : []);
  const [x0, x1] = [Math.min(...xs), Math.max(...xs, Math.min(...xs) + 1)];
  const [low, high] = [Math.min(...ys), Math.max(...ys)], room = (high - low || Math.abs(high) || 1) * 0.08;
  const [y0, y1] = [low - room, high + room];
  const x = value => left + (value - x0) / (x1 - x0) * (width - left - right), y = value => top + (y1 - value) / (y1 - y0) * (height - top - bottom);
  const newest = lines.filter(line => line.kind === "main" && line.points.length).map(line => `${line.name} ${format(line.points.at(-1)[1])} after round ${line.points.at(-1)[0]}`);
  const drawing = s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}: ${newest.join(", ") || "no score yet"}` });
  for (const value of ticks(y0, y1, 6)) drawing.append(s("line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }), s("text", { x: left - 7, y: y(value) + 4, "text-anchor": "end" }, format(value)));
  for (const round of ticks(x0, x1, 8).filter(Number.isInteger)) drawing.append(s("text", { x: x(round), y: height - bottom + 17, "text-anchor": "middle" }, String(round)));
  drawing.append(s("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, "round"));
  if (constant) drawing.append(s("line", { class: "constant", x1: left, x2: width - right, y1: y(constant[1]), y2: y(constant[1]) }));
  // The main line last, above the others.
  for (const line of [...lines].reverse()) {
    const drawn = s("g", { class: line.kind }, s("polyline", { class: "line", points: line.points.map(([at, value]) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`).join(" ") }));
    for (const [at, value] of line.points) drawn.append(s("circle", { class: "dot", cx: x(at).toFixed(1), cy: y(value).toFixed(1), r: line.kind === "main" ? 4 : 2.5 }, s("title", {}, `${line.name}, round ${at}: ${format(value)}`)));
    drawing.append(drawn);
  }
  const entry = (kind, name, value) => h("li", { class: kind }, h("i"), h("span", {}, `${name} ${format(value)}`));
  const legend = lines.filter(line => line.points.length).map(line => entry(line.kind, line.name, line.points.at(-1)[1]));
  return [drawing, h("ul", { class: "legend" }, legend, constant && entry("dashed", constant[0], constant[1]))];
}
