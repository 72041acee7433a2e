// Added to a page that is served: it loads itself again when its runs have changed, and stays as it was looked at.
const marks = () => [...document.querySelectorAll("details")].map((fold) => {
  const words = fold.querySelector("summary").textContent;
  return [fold, words];
});
const kept = JSON.parse(sessionStorage.getItem("looked") || "null");
if (kept) {
  for (const [fold, words] of marks()) if (words in kept.folds) fold.open = kept.folds[words];
  for (const id of kept.chosen) {
    const tab = document.getElementById(id);
    if (tab) tab.checked = true;
  }
  for (const [name, left] of kept.tables) document.querySelector(`[aria-label=${JSON.stringify(name)}]`)?.scrollTo(left, 0);
  scrollTo(0, kept.top);
}
const keep = () => sessionStorage.setItem("looked", JSON.stringify({
  top: scrollY,
  folds: Object.fromEntries(marks().map(([fold, words]) => [words, fold.open])),
  chosen: [...document.querySelectorAll("input[id]:checked")].map((tab) => tab.id),
  tables: [...document.querySelectorAll(".scroll[aria-label]")].map((table) => [table.ariaLabel, table.scrollLeft]),
}));
const ended = document.createElement("p");
ended.setAttribute("role", "status");
ended.textContent = "The command that shows this page has ended: it is as it was then.";
ended.style.cssText = "position:fixed;bottom:0;left:0;margin:0;padding:.5rem 1rem;background:var(--card);color:var(--ink)";
const ask = async () => {
  let version = VERSION;
  try {
    version = await (await fetch("version", { cache: "no-store" })).text();
    ended.remove();
  } catch {
    document.body.append(ended);
  }
  if (version !== VERSION) {
    keep();
    location.reload();
  } else setTimeout(ask, 2000);
};
setTimeout(ask, 2000);
