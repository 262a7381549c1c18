// Refuses the page where its own program does not start: a file of it is missing or damaged.

import("./page.mjs").catch((error) => {
  document.documentElement.dataset.state = "refused";
  const reason = document.getElementById("reason");
  reason.textContent = `the page's own program cannot be started: ${error.message}. Get the bundle again.`;
  reason.hidden = false;
});
