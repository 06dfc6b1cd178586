"use strict";

// The server knows the cases and the votes; neither it nor this page says which side is base.

const at = (id) => document.getElementById(id);
const buttons = [...document.querySelectorAll("[data-choice]")];
const choices = new Map(); // case -> choice, in the order of voting
let cases = [];
let current = null; // the case that is shown
let started = 0;
let busy = true;

async function ask(what, vote) {
  const sent = vote && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(vote) };
  const answer = await fetch(what, sent).catch(() => {
    throw new Error("The server does not answer. Start it again by the same command, and open its new address: your votes are kept.");
  });
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

// Pictures

let ahead = {}; // the next case, asked for while this one is looked at

function fetched(id) {
  if (ahead.id !== id) ahead = { id, own: ask(`case/${id}`) };
  ahead.own.catch(() => (ahead = {})); // so that it is asked for again
  return ahead.own;
}

function frame(picture, what) {
  const place = document.createElement("span");
  const inside = document.createElement(picture.url ? "img" : "span");
  place.className = picture.url ? "frame" : "frame none";
  place.append(inside);
  if (picture.url) Object.assign(inside, { src: picture.url, alt: `${what}: ${picture.name}` });
  else {
    inside.textContent = picture.name;
    Object.assign(place, { role: "img", ariaLabel: `${what}: ${picture.name}, no picture` });
  }
  return place;
}

function row(picture, i) {
  const item = document.createElement("li");
  const number = document.createElement("span");
  number.textContent = i + 1;
  item.append(frame(picture, `Picture ${i + 1}`), number);
  return item;
}

// As many columns as make the pictures largest, where a case fits the screen; longer lists scroll.

const MOST = 12;

function fill() {
  for (const list of [at("left"), at("right")]) {
    const count = list.children.length;
    const { clientWidth: width, clientHeight: height } = list;
    const size = (columns) => Math.min(width / columns, height / Math.ceil(count / columns));
    const columns = [...Array(count).keys()].map((i) => i + 1);
    list.style.setProperty("--columns", columns.reduce((best, next) => (size(next) > size(best) ? next : best), 1));
    document.body.classList.toggle("long", count > MOST);
  }
}
addEventListener("resize", fill);

// One case at a time

const waiting = () => cases.find((id) => !choices.has(id));
const before = () => {
  const voted = [...choices.keys()];
  return voted[(choices.has(current) ? voted.indexOf(current) : voted.length) - 1];
};

async function show(id) {
  const own = await fetched(id);
  at("reference").replaceChildren(frame(own.reference, "Reference"));
  at("caption").textContent = own.captions.join(" · ");
  for (const side of ["left", "right"]) at(side).replaceChildren(...own[side].map(row));
  at("case").hidden = false;
  at("end").hidden = true;
  document.body.classList.add("voting");
  fill();
  await Promise.allSettled([...document.images].map((image) => image.decode()));
  current = id;
  tell();
  scrollTo({ top: 0, behavior: "instant" });
  at("caption").focus({ preventScroll: true });
  started = performance.now();
  const next = cases.find((other) => other !== id && !choices.has(other));
  if (next) fetched(next);
}

function end() {
  current = null;
  tell();
  document.body.classList.remove("voting");
  at("case").hidden = true;
  at("end").hidden = false;
  at("over").focus();
}

function tell() {
  at("voted").textContent = `${choices.size} of ${cases.length} voted`;
  Object.assign(at("bar"), { max: cases.length, value: choices.size });
  buttons.forEach((button) => button.setAttribute("aria-pressed", choices.get(current) === button.dataset.choice));
  at("undo").disabled = at("back").disabled = !before();
}

const go = () => (waiting() === undefined ? end() : show(waiting()));

// Votes: one thing at a time, and what fails is said

async function doing(work) {
  if (busy) return;
  busy = true;
  at("case").classList.add("waiting");
  at("trouble").hidden = true;
  try {
    await work();
  } catch (error) {
    at("trouble").textContent = error.message;
    at("trouble").hidden = false;
  }
  at("case").classList.remove("waiting");
  busy = false;
}

async function vote(choice) {
  await ask("vote", { case: current, choice, seconds: (performance.now() - started) / 1000 });
  choices.delete(current);
  choices.set(current, choice);
  await go();
}

const undo = () => before() && show(before());

// The result: in words, drawn, and each case with which side was which

const element = (tag, text, more = {}) => Object.assign(document.createElement(tag), { textContent: text, ...more });
const ENDS = ["all prefer base", "equally many", "all prefer pseudo-targets"];
const NAMES = { pseudo: "pseudo-targets", base: "base", ties: "equally good", "both bad": "both bad" };

async function result() {
  const told = await ask("result");
  at("finding").textContent = told.words[0];
  at("words").replaceChildren(...told.words.slice(1).map((text) => element("p", text)));
  draw(told);
  at("cases").replaceChildren(...told.cases.map(verdict));
  at("result").hidden = false;
  at("before").hidden = at("last").hidden = true;
  at("over").focus();
}

function draw({ counts, share, interval }) {
  const bars = Object.entries(counts)
    .filter(([, count]) => count)
    .map(([kind, count]) => {
      const bar = element("span", `${NAMES[kind]} ${count}`);
      Object.assign(bar.dataset, { kind, count });
      bar.style.flexGrow = count;
      return bar;
    });
  at("counts").replaceChildren(...bars);
  at("ends").replaceChildren(...ENDS.map((text) => element("span", text)));
  at("scale").hidden = at("ends").hidden = share === null;
  if (share === null) return;
  at("range").style.left = `${100 * interval[0]}%`;
  at("range").style.width = `${100 * (interval[1] - interval[0])}%`;
  at("point").style.left = `${100 * share}%`;
}

function verdict({ id, captions, base, choice }) {
  const voted = { [base]: "without", tie: "equally good", bad: "both bad" }[choice] || (choice ? "with the pseudo-target" : "none");
  const item = document.createElement("li");
  const details = document.createElement("details");
  const summary = element("summary", `${captions.join(" · ")} `, { dir: "auto" });
  summary.append(element("span", `your vote: ${voted}`));
  details.append(summary);
  details.addEventListener("toggle", () => open(details, id, base), { once: true });
  item.append(details);
  return item;
}

async function open(details, id, base) {
  const own = await ask(`case/${id}`);
  const given = element("div", "", { className: "pictures" });
  given.append(frame(own.reference, "Reference"));
  details.append(given);
  for (const [side, name] of [["left", "Left"], ["right", "Right"]]) {
    const list = element("ol", "", { className: "pictures" });
    list.append(...own[side].map(row));
    details.append(element("h4", `${name}, ${side === base ? "without" : "with the pseudo-target"}`), list);
  }
}

const keys = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "tie", " ": "bad" };

addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || at("result").hidden === false) return;
  const pressed = event.key === " " && event.target.closest("button"); // that is how a button is pressed
  if (event.key in keys && !pressed && current !== null) {
    event.preventDefault();
    doing(() => vote(keys[event.key]));
  } else if (event.key.toLowerCase() === "u") doing(undo);
});
buttons.forEach((button) => button.addEventListener("click", () => doing(() => vote(button.dataset.choice))));
for (const id of ["undo", "back"]) at(id).addEventListener("click", () => doing(undo));
at("tell").addEventListener("click", () => doing(result));

busy = false;
doing(async () => {
  const state = await ask("state");
  cases = state.cases;
  for (const [id, choice] of state.voted) choices.set(id, choice);
  if (!state.shown) return go();
  end(); // votes are closed: there is nothing left but the result
  return result();
});
