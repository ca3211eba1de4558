"use strict";
{
  const findings = [...document.querySelectorAll("details.finding")];
  const bar = document.querySelector(".filter");
  const says = bar.querySelector(".says");
  const buttons = [...bar.querySelectorAll("button[data-state]")];
  const show = (state) => {
    for (const finding of findings) finding.hidden = state !== "all" && finding.dataset.state !== state;
    for (const card of document.querySelectorAll(".feature")) card.hidden = !card.querySelector("details.finding:not([hidden])");
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.state === state));
    says.textContent = findings.filter((finding) => !finding.hidden).length + " of " + findings.length + " findings shown";
  };
  for (const button of buttons) button.addEventListener("click", () => show(button.dataset.state));
  const unfold = bar.querySelector("button.unfold");
  unfold.addEventListener("click", () => {
    const open = findings.some((finding) => !finding.hidden && !finding.open);
    for (const finding of findings) if (!finding.hidden) finding.open = open;
  });
  const go = () => {
    const wanted = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!wanted || !wanted.matches("details.finding")) return;
    show("all");
    wanted.open = true;
    wanted.scrollIntoView();
  };
  addEventListener("hashchange", go);
  // A link to where one is already changes no address.
  addEventListener("click", (event) => {
    if (event.target.closest("a")?.hash === location.hash) go();
  });
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = findings.filter((finding) => !finding.open);
    for (const finding of opened) finding.open = true;
  });
  addEventListener("afterprint", () => {
    for (const finding of opened) finding.open = false;
  });
  bar.hidden = false;
  go();
}
