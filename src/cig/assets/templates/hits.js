"use strict";
const at = (id) => document.getElementById(id);

function enlarge(card) {
  const [facts, picture] = [card.parentElement.querySelector("dl"), card.querySelector("img")];
  at("enlarged-name").textContent = card.querySelector(".name").title;
  at("path").textContent = card.dataset.path;
  at("file").href = card.dataset.link;
  at("enlarged-picture").hidden = !picture;
  if (picture) at("enlarged-picture").src = picture.src;
  at("facts").replaceChildren(...(facts ? [Object.assign(facts.cloneNode(true), { hidden: false })] : []));
  at("copied").textContent = "";
  at("enlarged").showModal();
}

async function copy() {
  await navigator.clipboard.writeText(at("path").textContent).catch(() => getSelection().selectAllChildren(at("path")));
  at("copied").textContent = getSelection().isCollapsed ? "Copied." : "Selected: copy it with Ctrl+C.";
}

for (const card of document.querySelectorAll(".show")) card.addEventListener("click", () => enlarge(card));
at("copy").addEventListener("click", copy);
at("close").addEventListener("click", () => at("enlarged").close());
at("enlarged").addEventListener("click", (event) => event.target === at("enlarged") && at("enlarged").close());
