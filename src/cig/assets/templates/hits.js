"use strict";
const told = document.querySelector(".copied");
for (const button of document.querySelectorAll("[data-path]")) {
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(button.dataset.path);
      told.textContent = "Copied: " + button.dataset.path;
    } catch {
      told.textContent = button.dataset.path;
    }
  });
}
