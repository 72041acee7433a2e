// Values under the pointer, and which tables go on to the right. The page is complete without this.
document.documentElement.classList.add("scripted");
const tables = [...document.querySelectorAll(".cue")].map((cue) => [cue, cue.nextElementSibling]);
const measure = () => {
  for (const [cue, table] of tables) {
    cue.classList.toggle("needed", table.scrollWidth > table.clientWidth + 1);
    table.classList.toggle("more", table.scrollLeft + table.clientWidth < table.scrollWidth - 1);
  }
};
for (const [, table] of tables) table.addEventListener("scroll", measure, { passive: true });
for (const fold of document.querySelectorAll("details")) fold.addEventListener("toggle", measure);
addEventListener("resize", measure);
measure();

const tip = document.createElement("div");
tip.id = "tip";
tip.setAttribute("aria-hidden", "true");
document.body.append(tip);

for (const svg of document.querySelectorAll("svg[data-hover]")) {
  const chart = JSON.parse(svg.dataset.hover);
  const [left, top, right, bottom] = chart.box;
  const rule = document.createElementNS("http://www.w3.org/2000/svg", "line");
  rule.setAttribute("class", "tick");
  rule.setAttribute("y1", top);
  rule.setAttribute("y2", bottom);

  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    if (x < left - 4 || x > right + 4) return hide();
    const near = chart.series.map((s) => ({
      ...s,
      at: s.points.reduce((best, p) => (Math.abs(p[0] - x) < Math.abs(best[0] - x) ? p : best)),
    })).filter((s) => Math.abs(s.at[0] - x) < (right - left) / 8);
    if (!near.length) return hide();
    near.sort((a, b) => a.at[1] - b.at[1]);
    const closest = near.reduce((best, s) => (Math.abs(s.at[0] - x) < Math.abs(best.at[0] - x) ? s : best));
    rule.setAttribute("x1", closest.at[0]);
    rule.setAttribute("x2", closest.at[0]);
    svg.append(rule);
    tip.replaceChildren(head(`${closest.at[2]} ${chart.label}`), ...near.map(row));
    tip.style.display = "block";
    const width = tip.offsetWidth;
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 6))}px`;
    tip.style.top = `${Math.max(4, event.clientY - tip.offsetHeight - 12)}px`;
  });
  svg.addEventListener("pointerleave", hide);

  function hide() {
    tip.style.display = "none";
    rule.remove();
  }
}

function head(text) {
  const line = document.createElement("b");
  line.textContent = text;
  return line;
}

function row(series) {
  const line = document.createElement("div");
  const dot = document.createElement("i");
  dot.className = series.colour;
  line.append(dot, `${series.name} ${series.at[3]}`);
  return line;
}
