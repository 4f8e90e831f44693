// Replaces what has changed every two seconds, so that a reader keeps their place. Without scripts the page reloads itself instead.
"use strict";
const pause = 2000;
async function refresh() {
  if (!document.hidden && String(getSelection()) === "") {
    try {
      const answer = await fetch(location.href, { cache: "no-store" });
      const next = new DOMParser().parseFromString(await answer.text(), "text/html");
      const [old, fresh] = [document.querySelector("main"), next.querySelector("main")];
      if (old && fresh && old.innerHTML !== fresh.innerHTML) {
        const open = [...old.querySelectorAll("details")].map((one) => one.open);
        fresh.querySelectorAll("details").forEach((one, place) => { one.open = open[place] ?? one.open; });
        const focused = document.activeElement?.getAttribute("href");
        old.replaceWith(fresh);
        if (focused) fresh.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
      }
      document.body.classList.remove("away");
    } catch {
      document.body.classList.add("away");
    }
  }
  setTimeout(refresh, pause);
}
setTimeout(refresh, pause);
