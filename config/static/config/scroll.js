// A frame that scrolls takes the keyboard's focus, so that the arrow keys reach all of its table.

function mark(frame) {
  const scrolls =
    frame.scrollWidth > frame.clientWidth || frame.scrollHeight > frame.clientHeight;
  if (scrolls) frame.tabIndex = 0;
  else frame.removeAttribute("tabindex");
}

const sizes = new ResizeObserver((changes) => {
  for (const { target } of changes) mark(target.closest(".scroll"));
});

function watch(root) {
  for (const frame of root.querySelectorAll(".scroll")) {
    mark(frame);
    for (const one of [frame, ...frame.children]) sizes.observe(one);
  }
}

watch(document);
// What htmx puts into the page later.
document.addEventListener("htmx:load", (event) => watch(event.target.parentElement ?? event.target));
