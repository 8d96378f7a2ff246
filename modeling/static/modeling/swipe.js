// Two pictures of one source over each other: the slider says how much of the newer one is seen.
for (const figure of document.querySelectorAll("[data-swipe]")) {
  const slider = figure.querySelector("input[type=range]");
  const over = figure.querySelector(".over");
  const show = () => {
    over.style.clipPath = `inset(0 0 0 ${slider.value}%)`;
  };
  slider.addEventListener("input", show);
  figure.classList.add("ready");
  slider.hidden = false;
  show();
}
