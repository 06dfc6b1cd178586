"use strict";

// Pictures: each is in the file once, and shown wherever it belongs.

const pictures = JSON.parse(document.getElementById("pictures").textContent);
document.querySelectorAll("img[data-picture]").forEach((image) => (image.src = pictures[image.dataset.picture]));

// A click on a picture enlarges it; Escape, a click or the button closes it.

const large = document.getElementById("large");
document.addEventListener("click", (event) => {
  const image = event.target.closest("button.frame")?.querySelector("img");
  if (image) {
    large.querySelector("div").replaceChildren(image.cloneNode());
    large.querySelector("p").textContent = image.alt;
    large.showModal();
  } else if (event.target === large) large.close();
});

// Filters: what the form says, which the address remembers.

const form = document.getElementById("filters");
const list = document.getElementById("cards");
const cards = [...list.children];
const plain = (text) => text.normalize("NFKC").toLowerCase();
const words = new Map(
  cards.map((card) => [card, plain([...card.querySelectorAll("[data-find]")].map((e) => e.textContent).join(" "))]),
);
const rise = (card, otherwise) => (card.dataset.rise === "" ? otherwise : Number(card.dataset.rise));
const orders = {
  order: (a, b) => cards.indexOf(a) - cards.indexOf(b),
  gain: (a, b) => rise(b, -Infinity) - rise(a, -Infinity) || orders.order(a, b),
  loss: (a, b) => rise(a, Infinity) - rise(b, Infinity) || orders.order(a, b),
};

const fits = (card, asked) =>
  (!asked.change || card.dataset.change === asked.change) &&
  (!asked.part || card.dataset.part === asked.part) &&
  (!asked.tag || JSON.parse(card.dataset.tags).includes(asked.tag)) &&
  words.get(card).includes(plain(asked.find || "").trim());

function show() {
  const asked = Object.fromEntries(new FormData(form));
  const shown = cards.filter((card) => fits(card, asked));
  cards.forEach((card) => (card.hidden = true));
  shown.forEach((card) => (card.hidden = false));
  list.append(...[...cards].sort(orders[asked.sort] || orders.order));
  document.getElementById("count").textContent = `Showing ${shown.length} of ${cards.length}`;
  document.getElementById("empty").hidden = shown.length > 0;
}

function remember() {
  const set = [...new FormData(form)].filter(([name, value]) => value && !(name === "sort" && value === "order"));
  history.replaceState(null, "", set.length ? `#${new URLSearchParams(set)}` : location.pathname + location.search);
}

function recall() {
  if (!location.hash.includes("=")) {
    show(); // a place on the page, not a filter
    return document.getElementById(location.hash.slice(1))?.scrollIntoView();
  }
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
    const control = form.elements.namedItem(name);
    if (control) control.value = value;
  }
  form.querySelectorAll("select").forEach((select) => (select.selectedIndex = Math.max(select.selectedIndex, 0)));
  show();
}

form.addEventListener("input", () => (show(), remember()));
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(() => (show(), remember()))); // once it is reset
addEventListener("hashchange", recall);
form.hidden = false;
recall();
