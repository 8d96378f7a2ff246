// A frame that scrolls takes the keyboard's focus, so that the arrow keys reach all of its table.

function mark(frame) {
  const scrolls =
    frame.scrollWidth > frame.clientWidth || frame.scrollHeight > frame.clientHeight;
  if (scrolls) frame.tabIndex = 0;
  else frame.removeAttribute("tabindex");
}

const sizes = new ResizeObserver((changes) => {
  for (const { target } of changes) {
    const frame = target.closest(".scroll"); // none where htmx took it out of the page
    if (frame) mark(frame);
  }
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
