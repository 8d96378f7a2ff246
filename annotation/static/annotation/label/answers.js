// The answers of one set. The form's own radio buttons hold them; this checks the buttons, shows the
// verdicts on the pictures and says what is missing.

import { draft } from "./store.js";
import { announce, word } from "./words.js";

const WITHOUT_PICK = ["no_difference", "cannot_judge"];

export function createAnswers(root, form) {
  const dimensions = [...form.querySelectorAll(".dimension")];
  const candidates = [...root.querySelectorAll(".candidate")];
  const rating = root.dataset.purpose === "rating";
  const pair = candidates.length === 2;
  const { turn } = root.dataset;
  let active = 0;

  // `part` is best or worst, or score in a rating.
  const fieldOf = (dimension, part) =>
    part === "score" ? dimension.dataset.field : `${part}-${dimension.dataset.dimension}`;
  const radios = (dimension, part) => [
    ...dimension.querySelectorAll(`input[name="${CSS.escape(fieldOf(dimension, part))}"]`),
  ];
  const value = (dimension, part) => radios(dimension, part).find((radio) => radio.checked)?.value ?? "";
  const check = (dimension, part, wanted) => {
    for (const radio of radios(dimension, part)) radio.checked = radio.value === wanted;
  };
  const touched = (dimension) =>
    rating ? value(dimension, "score") : value(dimension, "best") || value(dimension, "worst");
  const complete = (dimension) =>
    rating
      ? value(dimension, "score") !== ""
      : WITHOUT_PICK.includes(value(dimension, "best")) ||
        (value(dimension, "best") !== "" && (pair || value(dimension, "worst") !== ""));
  const settled = (dimension) =>
    complete(dimension) || (!("required" in dimension.dataset) && !touched(dimension));

  function say(part, wanted) {
    const dimension = dimensions[active];
    const before = complete(dimension);
    if (pair && part === "worst") [part, wanted] = ["best", wanted === "1" ? "2" : "1"];
    check(dimension, part, wanted);
    settle(dimension, part);
    const name = dimension.dataset.name;
    announce(
      WITHOUT_PICK.includes(wanted)
        ? word(wanted, { dimension: name })
        : word("is", { dimension: name, part: word(pair ? "better" : part), place: wanted }),
    );
    if (complete(dimension) && !before) advance();
  }

  // A score for the active dimension; "usable" is a dimension of its own.
  function score(wanted) {
    const dimension = dimensions[active];
    if (!radios(dimension, "score").some((radio) => radio.value === wanted)) return;
    check(dimension, "score", wanted);
    changed();
    announce(word("score", { dimension: dimension.dataset.name, score: wanted }));
    advance();
  }

  function usable(wanted) {
    const index = dimensions.findIndex((dimension) => dimension.dataset.field === "usable");
    if (index < 0) return;
    check(dimensions[index], "score", wanted);
    changed();
    announce(word("usable", { answer: word(wanted) }));
    if (index === active) advance();
  }

  // One candidate is not both best and worst, and without a pick there is no worst.
  function settle(dimension, part) {
    if (!rating) {
      const best = value(dimension, "best");
      const worst = value(dimension, "worst");
      if (part === "best" && WITHOUT_PICK.includes(best)) check(dimension, "worst", "");
      if (part === "worst" && WITHOUT_PICK.includes(best)) check(dimension, "best", "");
      if (best !== "" && best === worst) check(dimension, part === "best" ? "worst" : "best", "");
    }
    changed();
  }

  function read() {
    const answers = {};
    for (const radio of form.querySelectorAll("input[type=radio]:checked")) {
      answers[radio.name] = radio.value;
    }
    return answers;
  }

  function changed() {
    show();
    if (turn) draft.set(turn, read());
  }

  function restore() {
    if (form.querySelector("input[type=radio]:checked")) return;
    fill(draft.get(turn) ?? {});
  }

  function fill(answers) {
    for (const radio of form.querySelectorAll("input[type=radio]")) {
      radio.checked = answers[radio.name] === radio.value;
    }
    activate(Math.max(0, dimensions.findIndex((dimension) => !complete(dimension))));
  }

  function advance() {
    for (let step = 1; step <= dimensions.length; step += 1) {
      const index = (active + step) % dimensions.length;
      if (!complete(dimensions[index])) return activate(index);
    }
    announce(word("all_answered"));
  }

  function activate(index) {
    active = (index + dimensions.length) % dimensions.length;
    show();
  }

  function show() {
    dimensions.forEach((dimension, index) => {
      dimension.classList.toggle("active", index === active);
      dimension.classList.toggle("complete", complete(dimension));
      if (index === active) dimension.setAttribute("aria-current", "true");
      else dimension.removeAttribute("aria-current");
    });
    if (!rating) showVerdicts(dimensions[active]);
    const left = dimensions.filter((dimension) => !settled(dimension)).length;
    root.querySelector("#still").textContent =
      left === 0 ? "" : word(left === 1 ? "one_left" : "some_left", { n: left });
  }

  function showVerdicts(dimension) {
    const best = value(dimension, "best");
    const worst = value(dimension, "worst");
    for (const frame of candidates) {
      const { place } = frame.dataset;
      const verdict = place === best ? "best" : place === worst ? "worst" : "";
      frame.dataset.verdict = verdict;
      frame.querySelector(".verdict").textContent = verdict && word(pair ? "better" : verdict);
    }
  }

  form.addEventListener("change", (event) => {
    const dimension = event.target.closest(".dimension");
    const before = active;
    active = dimensions.indexOf(dimension);
    settle(dimension, event.target.name.startsWith("worst-") ? "worst" : "best");
    if (complete(dimension) && before === active && root.hasAttribute("data-one")) advance();
  });
  form.addEventListener("focusin", (event) => {
    const index = dimensions.indexOf(event.target.closest(".dimension"));
    if (index >= 0) activate(index);
  });

  return {
    rating,
    pair,
    count: candidates.length,
    say,
    score,
    usable,
    restore,
    fill,
    next: () => activate(active + 1),
    previous: () => activate(active - 1),
    best: () => (rating ? "" : value(dimensions[active], "best")),
    onUsable: () => dimensions[active].dataset.field === "usable",
    clear() {
      for (const part of rating ? ["score"] : ["best", "worst"]) check(dimensions[active], part, "");
      changed();
      announce(word("cleared", { dimension: dimensions[active].dataset.name }));
    },
    // A picture that is tapped is the best, another one the worst.
    pick(place, shift) {
      if (rating) return;
      const best = value(dimensions[active], "best");
      const first = best === "" || WITHOUT_PICK.includes(best) || best === place;
      say(shift || (!first && !pair) ? "worst" : "best", place);
    },
    // The first dimension that still needs an answer becomes active; null when none does.
    missing() {
      const index = dimensions.findIndex((dimension) => !settled(dimension));
      if (index < 0) return null;
      activate(index);
      return dimensions[index].dataset.name;
    },
  };
}
