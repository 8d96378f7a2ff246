// The page asks for a round's newest state every two seconds; what a reader has opened stays open.
const opened = new Set();

const details = () => document.querySelectorAll("#round details[data-keep]");

document.addEventListener("htmx:beforeSwap", () => {
  opened.clear();
  for (const one of details()) if (one.open) opened.add(one.dataset.keep);
});

document.addEventListener("htmx:afterSwap", () => {
  for (const one of details()) if (opened.has(one.dataset.keep)) one.open = true;
});
