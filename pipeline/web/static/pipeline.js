/* Update ages on an open page, and show a message if the page is no longer updated. htmx does the rest. */
"use strict";

(function () {
  const AGE_S = 10;
  const UNITS = [["d", 86400], ["h", 3600], ["min", 60]];
  /* Milliseconds by which this computer's clock is ahead of the server's. */
  const AHEAD_MS = Date.now() - Date.parse(document.body.dataset.now);
  let lostSince = null;

  function span(seconds) {
    for (const [unit, size] of UNITS) {
      if (seconds >= 2 * size) return Math.floor(seconds / size) + " " + unit;
    }
    return Math.floor(seconds) + " s";
  }

  /* Ages are correct when the server sends them, and wrong ten seconds later. */
  function renewAges() {
    for (const each of document.querySelectorAll("time[datetime]")) {
      const seconds = (Date.now() - AHEAD_MS - Date.parse(each.dateTime)) / 1000;
      if (seconds >= AGE_S) each.textContent = span(seconds) + " ago";
    }
  }

  function banner() {
    let found = document.getElementById("not-updated");
    if (!found) {
      found = document.createElement("p");
      found.id = "not-updated";
      found.className = "mistake";
      found.setAttribute("role", "alert");
      document.getElementById("main").prepend(found);
    }
    return found;
  }

  function isLive(element) {
    return element instanceof Element && (element.getAttribute("hx-trigger") || "").startsWith("every");
  }

  /* After htmx has replaced an element, it reports to the element's parent. The request still names the element itself. */
  function sender(event) {
    return (event.detail.requestConfig || {}).elt || event.detail.elt;
  }

  function stop(element) {
    const still = element.cloneNode(true);
    for (const name of ["hx-get", "hx-trigger", "hx-select", "hx-select-oob", "hx-swap"]) still.removeAttribute(name);
    element.replaceWith(still);
  }

  function lost(event) {
    const element = sender(event);
    const status = event.detail.xhr ? event.detail.xhr.status : 0;
    if (!isLive(element)) {
      if (status === 401) banner().textContent = "▲ Your session has ended. Your entries are still here: save them, and log in when you are asked to.";
      return;
    }
    if (status === 404 || status === 410) {
      banner().textContent = "▲ This page is no longer updated, because its subject was deleted. Go back to the list of connectors.";
      stop(element);
      return;
    }
    lostSince = lostSince || new Date();
    const clock = lostSince.toLocaleTimeString();
    banner().textContent = "▲ The server has not answered since " + clock + ". This page shows older data and tries again.";
  }

  /* Automatic updates must not prolong a session. */
  document.addEventListener("htmx:configRequest", function (event) {
    if (isLive(event.detail.elt)) event.detail.headers["X-Live-Update"] = "1";
  });
  document.addEventListener("htmx:sendError", lost);
  document.addEventListener("htmx:timeout", lost);
  document.addEventListener("htmx:responseError", lost);
  document.addEventListener("htmx:afterOnLoad", function (event) {
    if (!isLive(sender(event)) || event.detail.xhr.status >= 400) return;
    lostSince = null;
    const found = document.getElementById("not-updated");
    if (found) found.remove();
  });
  setInterval(renewAges, AGE_S * 1000);
})();
